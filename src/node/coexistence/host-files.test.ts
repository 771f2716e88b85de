import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { HOST_FILES, installHostFiles } from './host-files.ts';

test('installHostFiles() writes for the programs that are there, and only what differs', () => {
  const root = mkdtempSync(join(tmpdir(), 'tulle-host-files-'));
  try {
    assert.deepEqual(installHostFiles(root), []);
    mkdirSync(join(root, 'etc/NetworkManager'), { recursive: true });
    const [networkManager = ''] = HOST_FILES;
    assert.deepEqual(installHostFiles(root), [networkManager]);
    assert.deepEqual(installHostFiles(root), []);
    const written = readFileSync(join(root, networkManager), 'utf8');
    assert.match(written, /interface-name:tulle\*;interface-name:tl\?{11}\n/);
    writeFileSync(join(root, networkManager), 'old');
    assert.deepEqual(installHostFiles(root), [networkManager]);
    assert.equal(readFileSync(join(root, networkManager), 'utf8'), written);
  } finally {
    rmSync(root, { recursive: true });
  }
});
