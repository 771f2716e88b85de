import assert from 'node:assert/strict';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeFileAtomic } from './atomic-file.ts';

test('writeFileAtomic() writes and replaces, with the mode asked for, and leaves nothing beside', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-file-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'file');
  writeFileAtomic(path, 'one', { mode: 0o644 });
  chmodSync(path, 0o666);
  writeFileAtomic(path, new Uint8Array([50]), { mode: 0o600 });
  assert.equal(readFileSync(path, 'utf8'), '2');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['file']);
});

test('writeFileAtomic() leaves what is there when it fails', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-file-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'folder');
  mkdirSync(path);
  assert.throws(() => writeFileAtomic(path, 'text', { mode: 0o600 }));
  assert.deepEqual(readdirSync(directory), ['folder']);
});
