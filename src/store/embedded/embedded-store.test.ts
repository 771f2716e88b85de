import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import type { TestContext } from 'node:test';
import { after, describe, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { UserError } from '#lib/errors.ts';
import { put, remove, storeContract, take, text } from '../contract.ts';
import { storeProperties } from '../model.ts';
import type { Store } from '../port.ts';
import { CompactedError, MAX_TRANSACTION_OPERATIONS } from '../port.ts';
import { FORMAT_VERSION, IDS_PER_REVISION } from './database.ts';
import { openEmbeddedStore, STORE_FILE } from './embedded-store.ts';
import { assertPrefix } from './testing-prefix.ts';
import { HISTORY_REVISIONS } from './testing-writer.ts';

/** The whole storm has a thousand: `TULLE_KILLS=1000`. */
const KILLS = Number(process.env.TULLE_KILLS ?? 20);
const root = mkdtempSync(join(tmpdir(), 'tulle-store-'));
after(() => rmSync(root, { recursive: true }));
let count = 0;
const newDirectory = () => join(root, String(count++));

storeContract('embedded store', {
  async open(t, options) {
    const store = await openEmbeddedStore({ ...options, directory: newDirectory() });
    t.after(() => store[Symbol.asyncDispose]());
    return store;
  },
});

const directories = new WeakMap<Store, string>();
async function openIn(directory: string): Promise<Store> {
  const store = await openEmbeddedStore({ directory });
  directories.set(store, directory);
  return store;
}
storeProperties('embedded store', {
  open: () => openIn(newDirectory()),
  reopen: (store) => openIn(directories.get(store) ?? ''),
  runs: 25,
});

describe('openEmbeddedStore()', () => {
  test('finds state, revision and history again', async (t) => {
    const directory = newDirectory();
    {
      await using store = await openEmbeddedStore({ directory });
      await store.transact([], [put('/a', '1'), put('/b', '1')]);
      await store.transact([], [put('/a', '2')]);
      await store.transact([], [remove('/b')]);
      await store.compact(1);
    }
    await using store = await openEmbeddedStore({ directory });
    assert.equal(await store.revision(), 3);
    assert.equal(text((await store.get('/b', 2))?.value), '1');
    const batches = await take(store.watch('/', 1, { signal: t.signal }), 2);
    assert.deepEqual(
      batches.map(({ revision, events }) => [revision, events[0]?.type, events[0]?.previous?.key]),
      [
        [2, 'put', '/a'],
        [3, 'delete', '/b'],
      ],
    );
    await assert.rejects(store.get('/a', 0), CompactedError);
    assert.equal((await store.transact([], [put('/c', '4')])).revision, 4);
  });

  test('keeps the revision when the last change, a deletion, was compacted', async () => {
    const directory = newDirectory();
    {
      await using store = await openEmbeddedStore({ directory });
      await store.transact([], [put('/a', '1')]);
      await store.transact([], [remove('/a')]);
      await store.compact(2);
    }
    await using store = await openEmbeddedStore({ directory });
    assert.equal(await store.revision(), 2);
    assert.equal((await store.transact([], [put('/a', '3')])).revision, 3);
  });

  test('makes a directory and files that only their owner may read', async () => {
    const directory = newDirectory();
    await using store = await openEmbeddedStore({ directory });
    await store.transact([], [put('/a', '1')]);
    const mode = (path: string) => statSync(path).mode & 0o777;
    assert.equal(mode(directory), 0o700);
    assert.equal(mode(join(directory, STORE_FILE)), 0o600);
    assert.equal(mode(join(directory, `${STORE_FILE}-wal`)), 0o600);
  });

  test('refuses a directory that this process has open already', async () => {
    const directory = newDirectory();
    await using store = await openEmbeddedStore({ directory });
    await assertRefused(directory, /another process has it open/);
    await store.transact([], [put('/a', '1')]);
  });

  test('refuses a directory in use by another process, and takes it when that was killed', async (t) => {
    const directory = newDirectory();
    const { child, acknowledged } = startWriter(t, directory);
    await acknowledged(1);
    await assertRefused(directory, /another process has it open/);
    // Looking at it must not have loosened the other's lock.
    await assertRefused(directory, /another process has it open/);
    await kill(child);
    await using store = await openEmbeddedStore({ directory });
    assert.ok((await store.revision()) >= 1);
  });

  test('refuses a format newer than it knows, and leaves it as it was', async () => {
    const directory = newDirectory();
    await (await openEmbeddedStore({ directory }))[Symbol.asyncDispose]();
    changeFile(directory, `PRAGMA user_version = ${FORMAT_VERSION + 1}`);
    await assertRefused(
      directory,
      new RegExp(
        `format is ${FORMAT_VERSION + 1}, this program knows formats up to ${FORMAT_VERSION}`,
      ),
    );
    changeFile(directory, `PRAGMA user_version = ${FORMAT_VERSION}`);
    await using store = await openEmbeddedStore({ directory });
    assert.equal(await store.revision(), 0);
  });

  test('finds leases again, with what hangs on them and their whole time', async () => {
    const directory = newDirectory();
    const value = Buffer.from('1');
    let id = 0;
    {
      const clock = new FakeClock();
      await using store = await openEmbeddedStore({ directory, clock });
      const gone = await store.grantLease(5_000);
      id = (await store.grantLease(10_000)).id;
      await store.transact([], [{ type: 'put', key: '/gone', value, lease: gone.id }]);
      await store.transact([], [{ type: 'put', key: '/a', value, lease: id }, put('/b', '1')]);
      await store.revokeLease(gone.id);
      await store.compact(3);
      clock.advance(9_000);
    }
    const clock = new FakeClock();
    await using store = await openEmbeddedStore({ directory, clock });
    const end = new AbortController();
    const watched = take(store.watch('/', 3, { signal: end.signal }), 1);
    clock.advance(9_000);
    assert.equal(await store.keepLeaseAlive(id), true);
    clock.advance(9_999);
    assert.notEqual(await store.get('/a'), undefined);
    clock.advance(1);
    const [batch] = await watched;
    assert.deepEqual(
      batch?.events.map((event) => [event.type, event.previous?.key]),
      [['delete', '/a']],
    );
    assert.notEqual(await store.get('/b'), undefined);
  });

  test('goes on with a database from before there were leases', async () => {
    const directory = newDirectory();
    {
      await using store = await openEmbeddedStore({ directory });
      await store.transact([], [put('/a', '1')]);
    }
    changeFile(
      directory,
      'ALTER TABLE history DROP COLUMN lease; DROP TABLE leases; PRAGMA user_version = 1',
    );
    for (const n of [1, 2]) {
      await using store = await openEmbeddedStore({ directory });
      assert.equal(text((await store.get('/a'))?.value), '1');
      const { id } = await store.grantLease(600_000);
      const value = Buffer.from('x');
      await store.transact([], [{ type: 'put', key: `/leased-${n}`, value, lease: id }]);
      await store.revokeLease(id);
      assert.equal((await store.list('/')).entries.length, 1);
    }
  });

  test('refuses a file that is no store', async () => {
    const text = newDirectory();
    await (await openEmbeddedStore({ directory: text }))[Symbol.asyncDispose]();
    writeFileSync(
      join(text, STORE_FILE),
      'a text that is longer than the header of a database '.repeat(9),
    );
    await assertRefused(text, /no store of Tulle/);
    const other = newDirectory();
    await (await openEmbeddedStore({ directory: other }))[Symbol.asyncDispose]();
    changeFile(other, 'PRAGMA application_id = 7');
    await assertRefused(other, /no store of Tulle/);
  });

  test('refuses a history with a hole', async () => {
    const directory = newDirectory();
    {
      await using store = await openEmbeddedStore({ directory });
      for (const n of ['1', '2', '3']) await store.transact([], [put('/a', n)]);
    }
    changeFile(directory, `DELETE FROM history WHERE id / ${IDS_PER_REVISION} = 2`);
    await assertRefused(directory, /damaged: .*3 where 2 should follow/);
    // Having refused, it holds no lock: the answer is the same again.
    await assertRefused(directory, /damaged/);
  });

  test('refuses a file with a page overwritten', async () => {
    const directory = newDirectory();
    {
      await using store = await openEmbeddedStore({ directory });
      for (let i = 0; i < 100; i++) await store.transact([], [put(`/${i}`, 'x'.repeat(500))]);
    }
    const file = openSync(join(directory, STORE_FILE), 'r+');
    writeSync(file, new Uint8Array(4096).fill(0xff), 0, 4096, 5 * 4096);
    closeSync(file);
    await assertRefused(directory, /damaged/);
    await assertRefused(directory, /damaged/);
  });

  test('refuses a place where it cannot write', async () => {
    const file = join(root, 'file');
    writeFileSync(file, '');
    chmodSync(file, 0o600);
    await assertRefused(join(file, 'store'), /Cannot make the store/);
  });

  test('leaves room for a whole transaction in a revision', () => {
    assert.ok(MAX_TRANSACTION_OPERATIONS <= IDS_PER_REVISION);
  });
});

describe('embedded store: disk', () => {
  test('neither the log nor the file grows for ever under one key written again and again', async () => {
    const directory = newDirectory();
    await using store = await openEmbeddedStore({ directory, historyRevisions: 100 });
    const value = new Uint8Array(16_384);
    for (let i = 0; i < 100; i++) {
      const writes = Array.from({ length: 20 }, () =>
        store.transact([], [{ type: 'put', key: '/a', value }]),
      );
      await Promise.all(writes);
    }
    // 2,000 writes of 16 KiB are 32 MiB; the history that is kept is under 4 MiB, and the log is checkpointed at 4 MB.
    const size = (suffix: string) => statSync(join(directory, STORE_FILE + suffix)).size;
    assert.ok(size('') < 12 * 1024 * 1024, `the file has ${size('')} bytes`);
    assert.ok(size('-wal') < 12 * 1024 * 1024, `the log has ${size('-wal')} bytes`);
  });

  test('kill -9 at any moment loses no acknowledged write and leaves no half of one', async (t) => {
    const directory = newDirectory();
    let known = 0;
    for (let round = 0; round < KILLS; round++) {
      const { child, acknowledged } = startWriter(t, directory);
      const wanted = known + 1 + Math.floor(Math.random() * 150);
      await acknowledged(wanted);
      known = await kill(child, acknowledged);
      assert.ok(known >= wanted, `the writer ended by itself after ${known}`);
      await using store = await openEmbeddedStore({
        directory,
        historyRevisions: HISTORY_REVISIONS,
      });
      const revision = await store.revision();
      assert.ok(revision >= known, `${known} was acknowledged, but the store is at ${revision}`);
      await assertPrefix(store, revision);
      known = revision;
    }
  });
});

interface WriterProcess {
  readonly child: ChildProcess;
  /** Resolves with the last acknowledged number when it is at least this, or the process has ended. */
  acknowledged(atLeast: number): Promise<number>;
}

function startWriter(t: TestContext, directory: string): WriterProcess {
  const script = join(import.meta.dirname, 'testing-writer.ts');
  const child = spawn(process.execPath, [script, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  let last = 0;
  let ended = false;
  let changed = Promise.withResolvers<void>();
  const change = () => {
    changed.resolve();
    changed = Promise.withResolvers();
  };
  createInterface({ input: child.stdout })
    .on('line', (line) => {
      last = Math.max(last, Number.parseInt(line, 10) || 0);
      change();
    })
    .on('close', () => {
      ended = true;
      change();
    });
  const acknowledged = async (atLeast: number) => {
    while (last < atLeast && !ended) await changed.promise;
    return last;
  };
  return { child, acknowledged };
}

/** @returns the last number that was acknowledged before the end */
async function kill(
  child: ChildProcess,
  acknowledged?: (atLeast: number) => Promise<number>,
): Promise<number> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
  return (await acknowledged?.(Number.POSITIVE_INFINITY)) ?? 0;
}

async function assertRefused(directory: string, message: RegExp): Promise<void> {
  await assert.rejects(openEmbeddedStore({ directory }), (error) => {
    assert.ok(error instanceof UserError, String(error));
    assert.match(error.message, message);
    assert.ok(error.hint !== undefined);
    return true;
  });
}

function changeFile(directory: string, sql: string): void {
  const db = new DatabaseSync(join(directory, STORE_FILE));
  db.exec(sql);
  db.close();
}
