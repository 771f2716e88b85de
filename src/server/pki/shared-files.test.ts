import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { UserError } from '#lib/errors.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import { openCa } from './ca.ts';
import { shareFiles } from './shared-files.ts';

const root = mkdtempSync(join(tmpdir(), 'tulle-shared-'));
after(() => rmSync(root, { recursive: true }));
let count = 0;
const newDirectory = () => join(root, String(count++));
const SECRET = 'a secret of all servers';

async function openShared(store: Store, directory: string, secret = SECRET): Promise<string> {
  await shareFiles({
    store,
    directory,
    secret,
    files: [
      { name: 'ca.key', mode: 0o600 },
      { name: 'ca.crt', mode: 0o644 },
    ],
    make: () => openCa({ directory }),
  });
  return (await openCa({ directory })).certificatePem;
}

test('shareFiles() gives all servers the first one’s CA, also those that start at once', async () => {
  await using store = openMemoryStore();
  const directories = [newDirectory(), newDirectory(), newDirectory()];
  const found = await Promise.all(directories.map((directory) => openShared(store, directory)));
  found.push(await openShared(store, newDirectory()));
  assert.equal(new Set(found).size, 1);
  for (const directory of directories)
    assert.equal(statSync(join(directory, 'ca.key')).mode & 0o777, 0o600);
  // Again, with the files there.
  assert.equal(await openShared(store, directories[2] ?? ''), found[0]);
});

test('shareFiles() keeps nothing readable in the store', async () => {
  await using store = openMemoryStore();
  const directory = newDirectory();
  await openShared(store, directory);
  const [entry] = (await store.list('')).entries;
  const stored = Buffer.from(entry?.value ?? []).toString('latin1');
  const key = readFileSync(join(directory, 'ca.key'), 'utf8').split('\n')[1] ?? '';
  assert.ok(key.length > 40);
  assert.ok(!stored.includes(key));
  assert.ok(!stored.includes(Buffer.from(key).toString('base64').slice(4, 40)));
});

test('shareFiles() refuses another secret, a short one, and a server of another cluster', async () => {
  await using store = openMemoryStore();
  await openShared(store, newDirectory());
  await assert.rejects(openShared(store, newDirectory(), 'another secret, quite long'), (error) => {
    assert.ok(error instanceof UserError);
    assert.match(error.message, /does not open/);
    return true;
  });
  await assert.rejects(openShared(store, newDirectory(), 'short'), /5 characters/);
  const foreign = newDirectory();
  const before = (await openCa({ directory: foreign })).certificatePem;
  await assert.rejects(
    openShared(store, foreign),
    /is not the file that the cluster's servers share/,
  );
  assert.equal((await openCa({ directory: foreign })).certificatePem, before);
});
