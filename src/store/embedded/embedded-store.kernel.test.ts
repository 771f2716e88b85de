/** A disk that is really full: a tmpfs of one megabyte. Mounting it needs root. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLogger } from '#lib/log.ts';
import { put, text } from '../contract.ts';
import type { WriteOp } from '../port.ts';
import { StoreWriteError } from '../port.ts';
import { openEmbeddedStore } from './embedded-store.ts';

test('a full disk refuses writes, not reads, and writes go on when there is space again', async (t) => {
  const disk = mkdtempSync(join(tmpdir(), 'tulle-disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tulle-test', disk]);
  t.after(() => {
    execFileSync('umount', [disk]);
    rmSync(disk, { recursive: true });
  });
  const directory = join(disk, 'data');
  const filler = join(disk, 'filler');
  const large: WriteOp = { type: 'put', key: '/large', value: new Uint8Array(300_000) };
  const logged: string[] = [];
  const record = (_fields: object, message: string) => void logged.push(message);
  const log = { ...silentLogger, info: record, error: record };
  let acknowledged: number;
  {
    await using store = await openEmbeddedStore({ directory, log });
    await store.transact([], [put('/a', 'before')]);
    writeFileSync(filler, new Uint8Array(900_000));
    await assert.rejects(store.transact([], [put('/a', 'never'), large]), (error) => {
      assert.ok(error instanceof StoreWriteError);
      assert.match(error.message, /full/);
      assert.ok(error.isOutOfSpace);
      return true;
    });
    assert.equal(text((await store.get('/a'))?.value), 'before');
    assert.equal(await store.revision(), 1);
    rmSync(filler);
    const again = await store.transact(
      [{ key: '/a', modRevision: 1 }],
      [put('/a', 'after'), large],
    );
    assert.deepEqual(again, { succeeded: true, revision: 2 });
    acknowledged = again.revision;
  }
  assert.deepEqual(logged, [
    'store opened',
    'the store cannot be written; reads go on',
    'the store can be written again',
  ]);
  await using store = await openEmbeddedStore({ directory });
  assert.equal(await store.revision(), acknowledged);
  assert.equal(text((await store.get('/a'))?.value), 'after');
  assert.equal((await store.get('/large'))?.value.length, 300_000);
});
