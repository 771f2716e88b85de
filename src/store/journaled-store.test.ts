import assert from 'node:assert/strict';
import { test } from 'node:test';
import { put, take, text } from './contract.ts';
import type { Journal, JournalBatch } from './journal.ts';
import { JournaledStore } from './journaled-store.ts';
import { Mvcc } from './mvcc.ts';
import { StoreWriteError } from './port.ts';

/** A disk whose commits end when the test says so. */
class HeldJournal implements Journal {
  readonly batches: JournalBatch[] = [];
  #settle: PromiseWithResolvers<void>[] = [];
  #arrived = Promise.withResolvers<void>();
  closed = false;

  commit(batch: JournalBatch): Promise<void> {
    this.batches.push(batch);
    const settle = Promise.withResolvers<void>();
    this.#settle.push(settle);
    this.#arrived.resolve();
    return settle.promise;
  }
  /** Waits for a commit and ends it. */
  async end(error?: Error): Promise<void> {
    while (this.#settle.length === 0) await this.#arrived.promise;
    this.#arrived = Promise.withResolvers();
    const settle = this.#settle.shift();
    if (error === undefined) settle?.resolve();
    else settle?.reject(error);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.closed = true;
  }
}

const diskFull = new StoreWriteError('disk full');

function open(): { store: JournaledStore; journal: HeldJournal } {
  const journal = new HeldJournal();
  return { store: new JournaledStore(new Mvcc(), journal), journal };
}

test('JournaledStore shows a write to nobody before it is on disk', async (t) => {
  const { store, journal } = open();
  const watch = take(store.watch('/', 0, { signal: t.signal }), 1);
  const written = store.transact([], [put('/a', '1')]);
  // The batch is with the journal now: evaluated, but not durable.
  while (journal.batches.length === 0) await Promise.resolve();
  assert.equal(await store.get('/a'), undefined);
  assert.equal(await store.revision(), 0);
  assert.equal(await Promise.race([watch, 'nothing yet']), 'nothing yet');
  await journal.end();
  assert.deepEqual(await written, { succeeded: true, revision: 1 });
  assert.equal((await watch)[0]?.revision, 1);
});

test('JournaledStore writes what gathers during a commit as one batch', async () => {
  const { store, journal } = open();
  const first = store.transact([], [put('/0', '')]);
  while (journal.batches.length === 0) await Promise.resolve();
  const others = Array.from({ length: 50 }, (_, i) => store.transact([], [put(`/${i}`, '')]));
  await journal.end();
  await first;
  await journal.end();
  await Promise.all(others);
  assert.deepEqual(
    journal.batches.map((batch) => batch.records.length),
    [1, 50],
  );
});

test('JournaledStore takes back a failed batch as a whole, reads on, and writes again later', async (t) => {
  const { store, journal } = open();
  const seen = take(store.watch('/', 0, { signal: t.signal }), 2);
  const kept = store.transact([], [put('/a', '1')]);
  await journal.end();
  await kept;

  const failing = [
    store.transact([], [put('/a', '2')]),
    store.transact([{ key: '/a', modRevision: 2 }], [put('/b', '3')]),
    store.transact([{ key: '/a', modRevision: 9 }], [put('/c', '4')]),
  ].map((result) => assert.rejects(result, StoreWriteError));
  await journal.end(diskFull);
  await Promise.all(failing);
  assert.equal(await store.revision(), 1);
  assert.equal(text((await store.get('/a'))?.value), '1');
  assert.equal((await store.list('/')).entries.length, 1);

  const again = store.transact([{ key: '/a', modRevision: 1 }], [put('/a', '5')]);
  await journal.end();
  assert.deepEqual(await again, { succeeded: true, revision: 2 });
  const batches = await seen;
  assert.deepEqual(
    batches.map(({ events }) => events.map((e) => e.type === 'put' && text(e.entry.value))),
    [['1'], ['5']],
  );
});

test('JournaledStore keeps its history when a compaction cannot be written', async () => {
  const { store, journal } = open();
  for (const n of ['1', '2']) {
    const written = store.transact([], [put('/a', n)]);
    await journal.end();
    await written;
  }
  const refused = assert.rejects(store.compact(2), StoreWriteError);
  await journal.end(diskFull);
  await refused;
  assert.equal(text((await store.get('/a', 1))?.value), '1');
  const compacted = store.compact(2);
  await journal.end();
  await compacted;
  assert.deepEqual(journal.batches.at(-1)?.compaction, {
    revision: 2,
    dropped: [{ revision: 1, key: '/a' }],
  });
});

test('JournaledStore does not trouble the disk with transactions that change nothing', async () => {
  const { store, journal } = open();
  const result = await store.transact([{ key: '/a', modRevision: 1 }], [put('/a', '1')]);
  assert.equal(result.succeeded, false);
  assert.equal(journal.batches.length, 0);
});

test('JournaledStore refuses writes beyond those that can wait', async () => {
  const { store, journal } = open();
  const first = store.transact([], [put('/a', '')]);
  while (journal.batches.length === 0) await Promise.resolve();
  const results: Promise<unknown>[] = [];
  let refused: unknown;
  while (refused === undefined) {
    const result = store.transact([], []);
    results.push(result.catch((error) => (refused = error)));
    if (results.length % 1000 === 0) await Promise.resolve();
    assert.ok(results.length < 100_000);
  }
  assert.ok(refused instanceof StoreWriteError);
  await journal.end();
  await Promise.all([first, ...results]);
});

test('JournaledStore writes what waits before it closes, and nothing after', async () => {
  const { store, journal } = open();
  const written = store.transact([], [put('/a', '1')]);
  const closed = store[Symbol.asyncDispose]();
  assert.equal(journal.closed, false);
  await assert.rejects(store.transact([], [put('/b', '1')]), StoreWriteError);
  await journal.end();
  await closed;
  assert.equal((await written).succeeded, true);
  assert.equal(journal.closed, true);
});
