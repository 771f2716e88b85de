/**
 * What every {@link Store} must do, whatever is behind it. Run over each implementation by its own test file.
 * `model.ts` holds the same as a property over random histories.
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { describe, test } from 'node:test';
import type { Clock } from '#lib/clock.ts';
import { FakeClock, sleep } from '#lib/clock.ts';
import type { Store, WatchBatch, WriteOp } from './port.ts';
import {
  CompactedError,
  FutureRevisionError,
  LaggedError,
  LeaseNotFoundError,
  MAX_LEASE_TTL_MS,
  MAX_TRANSACTION_BYTES,
  MAX_TRANSACTION_OPERATIONS,
  TransactionTooLargeError,
} from './port.ts';

export interface StoreHarness {
  /** Opens an empty store that is closed and removed at the end of the test. */
  open(t: TestContext, options?: { clock?: Clock; historyRevisions?: number }): Promise<Store>;
  /** Several processes write to it: what is durable may be seen before the call that wrote it returns. */
  readonly isShared?: boolean;
}

export function storeContract(name: string, harness: StoreHarness): void {
  describe(`${name}: transactions`, () => transactionContract(harness));
  describe(`${name}: reads`, () => readContract(harness));
  describe(`${name}: watches`, () => watchContract(harness));
  describe(`${name}: compaction`, () => compactionContract(harness));
  describe(`${name}: leases`, () => leaseContract(harness));
}

function transactionContract(harness: StoreHarness): void {
  test('an empty store is at revision 0, and each writing transaction raises it by one', async (t) => {
    const store = await harness.open(t);
    assert.equal(await store.revision(), 0);
    assert.deepEqual(await store.transact([], [put('/a', '1')]), { succeeded: true, revision: 1 });
    const two = await store.transact([], [put('/b', '1'), put('/c', '1')]);
    assert.deepEqual(two, { succeeded: true, revision: 2 });
    assert.equal(await store.revision(), 2);
    assert.equal((await store.get('/c'))?.modRevision, 2);
  });

  test('an entry keeps the revision that made it, until it is deleted and made again', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    await store.transact([], [put('/a', '2')]);
    assert.deepEqual(plain(await store.get('/a')), ['/a', '2', 1, 2]);
    await store.transact([], [remove('/a')]);
    assert.equal(await store.get('/a'), undefined);
    await store.transact([], [put('/a', '3')]);
    assert.deepEqual(plain(await store.get('/a')), ['/a', '3', 4, 4]);
  });

  test('a compare that does not hold stops the whole transaction and shows what is there', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    const result = await store.transact(
      [
        { key: '/a', modRevision: 7 },
        { key: '/none', modRevision: 0 },
      ],
      [put('/a', '2'), put('/b', '2')],
    );
    assert.ok(!result.succeeded);
    assert.equal(result.revision, 1);
    assert.deepEqual(result.conflicts.map(plain), [['/a', '1', 1, 1], undefined]);
    assert.deepEqual(plain(await store.get('/a')), ['/a', '1', 1, 1]);
    assert.equal(await store.get('/b'), undefined);
  });

  test('modRevision 0 holds only for a missing key, also for one that was deleted', async (t) => {
    const store = await harness.open(t);
    const create = () => store.transact([{ key: '/a', modRevision: 0 }], [put('/a', 'x')]);
    assert.equal((await create()).succeeded, true);
    assert.equal((await create()).succeeded, false);
    await store.transact([], [remove('/a')]);
    assert.equal((await create()).succeeded, true);
  });

  test('deleting what is missing changes nothing', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    assert.deepEqual(await store.transact([], [remove('/b')]), { succeeded: true, revision: 1 });
    const mixed = await store.transact([], [remove('/b'), put('/c', '1')]);
    assert.deepEqual(mixed, { succeeded: true, revision: 2 });
    const [batch] = await take(store.watch('/', 1, { signal: t.signal }), 1);
    assert.equal(batch?.events.length, 1);
  });

  test('transactions issued together run one after the other, in order', async (t) => {
    const store = await harness.open(t);
    const results = await Promise.all([
      store.transact([{ key: '/a', modRevision: 0 }], [put('/a', 'first')]),
      store.transact([{ key: '/a', modRevision: 0 }], [put('/a', 'second')]),
      store.transact([{ key: '/a', modRevision: 1 }], [put('/a', 'third')]),
      store.transact([], [remove('/a'), put('/b', 'fourth')]),
    ]);
    assert.deepEqual(
      results.map((result) => [result.succeeded, result.revision]),
      [
        [true, 1],
        [false, 1],
        [true, 2],
        [true, 3],
      ],
    );
    assert.equal(await store.get('/a'), undefined);
  });

  test('counting by compare and swap from many sides loses no count', async (t) => {
    const store = await harness.open(t);
    const countUp = async () => {
      for (;;) {
        const old = await store.get('/n');
        const compare = { key: '/n', modRevision: old?.modRevision ?? 0 };
        const value = String(Number(old === undefined ? 0 : text(old.value)) + 1);
        if ((await store.transact([compare], [put('/n', value)])).succeeded) return;
      }
    };
    await Promise.all(Array.from({ length: 20 }, countUp));
    assert.deepEqual(plain(await store.get('/n')), ['/n', '20', 1, 20]);
  });

  test('the value is the bytes of the call, whatever the caller does with its buffer then', async (t) => {
    const store = await harness.open(t);
    const buffer = Buffer.from('before');
    const written = store.transact([], [{ type: 'put', key: '/a', value: buffer }]);
    buffer.fill(0);
    await written;
    assert.equal(text((await store.get('/a'))?.value), 'before');
    await store.transact([], [{ type: 'put', key: '/empty', value: new Uint8Array() }]);
    assert.equal((await store.get('/empty'))?.value.length, 0);
  });

  test('refuses keys that are none, keys written twice, and what is too large', async (t) => {
    const store = await harness.open(t);
    for (const key of ['', 'a\0b', 'half \ud800'])
      await assert.rejects(store.transact([], [put(key, '')]), TypeError);
    await assert.rejects(store.transact([], [put('/a', ''), remove('/a')]), TypeError);
    const many = Array.from({ length: MAX_TRANSACTION_OPERATIONS + 1 }, (_, i) => put(`/${i}`, ''));
    await assert.rejects(store.transact([], many), TransactionTooLargeError);
    await store.transact([], many.slice(1));
    const value = new Uint8Array(MAX_TRANSACTION_BYTES);
    const large: WriteOp = { type: 'put', key: '/large', value };
    await assert.rejects(store.transact([], [large]), TransactionTooLargeError);
    assert.equal(await store.revision(), 1);
  });
}

function readContract(harness: StoreHarness): void {
  test('what is known without asking has all that this process wrote', async (t) => {
    const store = await harness.open(t);
    assert.equal(await store.known.get('/a'), undefined);
    await store.transact([], [put('/a', '1'), put('/b', '1')]);
    await store.transact([], [put('/a', '2'), remove('/b')]);
    assert.deepEqual(plain(await store.known.get('/a')), ['/a', '2', 1, 2]);
    assert.deepEqual((await store.known.list('/')).entries.map(plain), [['/a', '2', 1, 2]]);
  });

  test('a list is what starts with the prefix, in order', async (t) => {
    const store = await harness.open(t);
    for (const key of ['/b/2', '/a', '/b/10', '/b', '/c', '/b/1/x', '/ü', '/B'])
      await store.transact([], [put(key, key)]);
    assert.deepEqual(await keys(store, '/b/'), ['/b/1/x', '/b/10', '/b/2']);
    assert.deepEqual(await keys(store, ''), [
      '/B',
      '/a',
      '/b',
      '/b/1/x',
      '/b/10',
      '/b/2',
      '/c',
      '/ü',
    ]);
    assert.deepEqual(await keys(store, '/none'), []);
  });

  test('a list is cut into pages of one revision, whatever is written meanwhile', async (t) => {
    const store = await harness.open(t);
    for (let i = 0; i < 7; i++) await store.transact([], [put(`/p/${i}`, 'old')]);
    const first = await store.list('/p/', { limit: 3 });
    assert.deepEqual([first.more, first.remaining, first.revision], [true, 4, 7]);
    await store.transact([], [remove('/p/4'), put('/p/3', 'new'), put('/p/9', 'new')]);
    const options = { limit: 3, revision: first.revision, startAfter: '/p/2' };
    const second = await store.list('/p/', options);
    assert.deepEqual(second.entries.map(plain), [
      ['/p/3', 'old', 4, 4],
      ['/p/4', 'old', 5, 5],
      ['/p/5', 'old', 6, 6],
    ]);
    assert.deepEqual([second.more, second.remaining, second.revision], [true, 1, 7]);
    const third = await store.list('/p/', { ...options, startAfter: '/p/5' });
    assert.deepEqual([third.entries.length, third.more, third.remaining], [1, false, 0]);
    assert.deepEqual(await keys(store, '/p/', { limit: 0, startAfter: '/p/4' }), [
      '/p/5',
      '/p/6',
      '/p/9',
    ]);
  });

  test('many keys, made and deleted in no order, list in order', async (t) => {
    const store = await harness.open(t);
    const all = Array.from({ length: 3000 }, (_, i) => `/k/${(i * 1889) % 3000}`.padEnd(8, '-'));
    for (let at = 0; at < all.length; at += 100)
      await store.transact(
        [],
        all.slice(at, at + 100).map((key) => put(key, '')),
      );
    assert.deepEqual(await keys(store, '/k/'), all.toSorted());
    for (let at = 0; at < all.length; at += 200)
      await store.transact([], all.slice(at, at + 100).map(remove));
    const left = all.filter((_, i) => i % 200 >= 100);
    await store.compact(await store.revision());
    assert.deepEqual(await keys(store, '/k/'), left.toSorted());
  });

  test('reads at an older revision show what was', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    await store.transact([], [put('/a', '2'), put('/b', '2')]);
    await store.transact([], [remove('/a')]);
    assert.equal(await store.get('/a', 0), undefined);
    assert.deepEqual(plain(await store.get('/a', 1)), ['/a', '1', 1, 1]);
    assert.deepEqual(plain(await store.get('/a', 2)), ['/a', '2', 1, 2]);
    assert.equal(await store.get('/a', 3), undefined);
    assert.deepEqual(await keys(store, '/', { revision: 2 }), ['/a', '/b']);
    assert.deepEqual(await keys(store, '/', { revision: 3 }), ['/b']);
  });

  test('a revision that has not happened cannot be read', async (t) => {
    const store = await harness.open(t);
    await assert.rejects(store.get('/a', 1), FutureRevisionError);
    await assert.rejects(store.list('/', { revision: 1 }), FutureRevisionError);
  });
}

function watchContract(harness: StoreHarness): void {
  test('a watch gives what happened after its revision and then what happens', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    await store.transact([], [put('/a', '2')]);
    const watch = reader(store.watch('/', 1, { signal: t.signal }));
    assert.deepEqual(plainBatch(await watch.next()), [2, 'put /a=2 was 1']);
    const next = watch.next();
    await store.transact([], [remove('/a'), put('/b', '3')]);
    assert.deepEqual(plainBatch(await next), [3, 'delete /a was 2', 'put /b=3']);
  });

  test('a watch gives only what is under its prefix, and the changes of a revision together', async (t) => {
    const store = await harness.open(t);
    const watch = reader(store.watch('/a/', 0, { signal: t.signal }));
    const next = watch.next();
    await store.transact([], [put('/b/1', '1')]);
    await store.transact([], [put('/a/1', '2'), put('/b/2', '2'), put('/a/2', '2')]);
    await store.transact([], [put('/b/1', '3')]);
    await store.transact([], [put('/a/1', '4')]);
    assert.deepEqual(plainBatch(await next), [2, 'put /a/1=2', 'put /a/2=2']);
    assert.deepEqual(plainBatch(await watch.next()), [4, 'put /a/1=4 was 2']);
  });

  test('writes issued together are seen by a watch as single revisions', async (t) => {
    const store = await harness.open(t);
    await Promise.all([1, 2, 3].map((n) => store.transact([], [put('/a', String(n))])));
    const batches = await take(store.watch('/', 0, { signal: t.signal }), 3);
    assert.deepEqual(
      batches.map((batch) => batch.revision),
      [1, 2, 3],
    );
  });

  test('a write is seen by no read and no watch before it is acknowledged, and by all after', async (t) => {
    const store = await harness.open(t);
    let seen = false;
    const watch = reader(store.watch('/', 0, { signal: t.signal }));
    const next = watch.next().then(() => {
      seen = true;
    });
    const written = store.transact([], [put('/a', '1')]);
    if (harness.isShared !== true) {
      assert.equal(await store.get('/a'), undefined);
      assert.equal(seen, false);
    }
    await written;
    assert.notEqual(await store.get('/a'), undefined);
    await next;
  });

  test('a quiet watch tells how far it has come', async (t) => {
    const clock = new FakeClock();
    const store = await harness.open(t, { clock });
    const watch = reader(store.watch('/a/', 0, { signal: t.signal, progressMs: 1000 }));
    const first = watch.next();
    await store.transact([], [put('/b/1', '1')]);
    clock.advance(1000);
    assert.deepEqual(plainBatch(await first), [1]);
    const second = watch.next();
    clock.advance(999);
    await store.transact([], [put('/a/1', '2')]);
    assert.deepEqual(plainBatch(await second), [2, 'put /a/1=2']);
    const third = watch.next();
    clock.advance(1000);
    assert.deepEqual(plainBatch(await third), [2]);
  });

  test('a watch ends when its signal is aborted', async (t) => {
    const store = await harness.open(t);
    const end = new AbortController();
    const watch = reader(store.watch('/', 0, { signal: end.signal }));
    const next = watch.next();
    end.abort();
    assert.equal(await next, undefined);
    assert.deepEqual(await take(store.watch('/', 0, { signal: end.signal }), 1), []);
  });

  test('watches end when the store is closed', async (t) => {
    const store = await harness.open(t);
    const watch = reader(store.watch('/', 0, { signal: t.signal }));
    const next = watch.next();
    await store[Symbol.asyncDispose]();
    assert.equal(await next, undefined);
  });

  test('a watch from a revision that has not happened is refused', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    const watch = reader(store.watch('/', 2, { signal: t.signal }));
    await assert.rejects(watch.next(), FutureRevisionError);
  });

  test('a watch that does not take what is then compacted is cut off', async (t) => {
    const store = await harness.open(t);
    const watch = reader(store.watch('/', 0, { signal: t.signal }));
    for (let i = 1; i <= 3; i++) await store.transact([], [put('/a', String(i))]);
    assert.equal((await watch.next())?.revision, 1);
    await store.compact(2);
    await assert.rejects(watch.next(), (error) => {
      assert.ok(error instanceof LaggedError);
      assert.equal(error.seenRevision, 1);
      return true;
    });
  });

  test('a quiet watch is not cut off when others’ changes are compacted', async (t) => {
    const store = await harness.open(t);
    const watch = reader(store.watch('/a/', 0, { signal: t.signal }));
    const next = watch.next();
    for (let i = 1; i <= 3; i++) await store.transact([], [put('/b', String(i))]);
    await store.compact(3);
    await store.transact([], [put('/a/1', '4')]);
    assert.deepEqual(plainBatch(await next), [4, 'put /a/1=4']);
  });
}

function compactionContract(harness: StoreHarness): void {
  test('compaction forgets history and keeps the state', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1'), put('/b', '1'), put('/c', '1')]);
    await store.transact([], [put('/a', '2')]);
    await store.transact([], [remove('/b')]);
    await store.transact([], [put('/a', '4')]);
    await store.compact(3);
    assert.equal(await store.revision(), 4);
    await assert.rejects(store.get('/a', 2), (error) => {
      assert.ok(error instanceof CompactedError);
      assert.equal(error.compactRevision, 3);
      return true;
    });
    await assert.rejects(store.list('/', { revision: 2 }), CompactedError);
    assert.deepEqual(plain(await store.get('/a', 3)), ['/a', '2', 1, 2]);
    assert.deepEqual(await keys(store, '/', { revision: 3 }), ['/a', '/c']);
    assert.deepEqual(plain(await store.get('/a')), ['/a', '4', 1, 4]);
    const refused = reader(store.watch('/', 2, { signal: t.signal }));
    await assert.rejects(refused.next(), CompactedError);
    const [batch] = await take(store.watch('/', 3, { signal: t.signal }), 1);
    assert.deepEqual(plainBatch(batch), [4, 'put /a=4 was 2']);
  });

  test('a deleted key can be made again after its deletion was compacted', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    await store.transact([], [remove('/a')]);
    await store.compact(2);
    assert.equal(await store.get('/a', 2), undefined);
    const again = await store.transact([{ key: '/a', modRevision: 0 }], [put('/a', '3')]);
    assert.deepEqual(again, { succeeded: true, revision: 3 });
    assert.deepEqual(plain(await store.get('/a')), ['/a', '3', 3, 3]);
  });

  test('compacting twice changes nothing, and the future cannot be compacted', async (t) => {
    const store = await harness.open(t);
    await store.transact([], [put('/a', '1')]);
    await store.transact([], [put('/a', '2')]);
    await store.compact(2);
    await store.compact(1);
    await store.compact(2);
    await assert.rejects(store.get('/a', 1), CompactedError);
    await assert.rejects(store.compact(3), FutureRevisionError);
  });

  test('history is forgotten by itself, the oldest first, and not too much of it', async (t) => {
    const historyRevisions = 50;
    const store = await harness.open(t, { historyRevisions });
    const written = 500;
    for (let i = 1; i <= written; i++) await store.transact([], [put('/a', String(i))]);
    await assert.rejects(store.get('/a', 1), CompactedError);
    const oldest = await store.get('/a', written - historyRevisions);
    assert.equal(text(oldest?.value), String(written - historyRevisions));
  });
}

function leaseContract(harness: StoreHarness): void {
  /** A shared store's time is real; etcd gives no lease less than two seconds. */
  const TTL_MS = 2_000;
  async function open(t: TestContext) {
    const clock = new FakeClock();
    const store = await harness.open(t, harness.isShared ? {} : { clock });
    const elapse = async (ms: number) => {
      if (harness.isShared) await sleep(ms);
      else clock.advance(ms);
    };
    return { store, elapse };
  }

  test('what hangs on a lease goes with it, in one revision, and nothing else', async (t) => {
    const { store, elapse } = await open(t);
    const lease = await store.grantLease(TTL_MS);
    assert.ok(lease.ttlMs >= TTL_MS);
    await store.transact([], [leased('/one', lease.id), put('/free', '1')]);
    const { revision } = await store.transact([], [leased('/two', lease.id)]);
    const watch = reader(store.watch('/', revision, { signal: t.signal }));
    await elapse(lease.ttlMs);
    assert.deepEqual(sortedBatch(await watch.next()), [
      revision + 1,
      'delete /one was 1',
      'delete /two was 1',
    ]);
    assert.deepEqual(await keys(store, '/'), ['/free']);
    assert.equal(await store.keepLeaseAlive(lease.id), false);
  });

  test('a lease that is kept alive stays, and goes when it is not any more', async (t) => {
    const { store, elapse } = await open(t);
    const lease = await store.grantLease(TTL_MS);
    const { revision } = await store.transact([], [leased('/a', lease.id)]);
    const watch = reader(store.watch('/', revision, { signal: t.signal }));
    for (let i = 0; i < 4; i++) {
      await elapse(lease.ttlMs / 2);
      assert.equal(await store.keepLeaseAlive(lease.id), true);
    }
    assert.deepEqual(await keys(store, '/'), ['/a']);
    await elapse(lease.ttlMs);
    assert.deepEqual(plainBatch(await watch.next()), [revision + 1, 'delete /a was 1']);
  });

  test('a revoked lease goes at once, and one that is gone changes nothing', async (t) => {
    const { store } = await open(t);
    const lease = await store.grantLease(600_000);
    await store.transact([], [leased('/a', lease.id), put('/b', '1')]);
    await store.revokeLease(lease.id);
    assert.deepEqual(await keys(store, '/'), ['/b']);
    assert.equal(await store.revision(), 2);
    await store.revokeLease(lease.id);
    assert.equal(await store.revision(), 2);
    assert.equal(await store.keepLeaseAlive(lease.id), false);
  });

  test('a key hangs on the lease of its last write, or on none', async (t) => {
    const { store } = await open(t);
    const one = await store.grantLease(600_000);
    const two = await store.grantLease(600_000);
    for (const key of ['/moved', '/free', '/again', '/stays'])
      await store.transact([], [leased(key, one.id)]);
    await store.transact([], [leased('/moved', two.id), put('/free', '2'), remove('/again')]);
    await store.transact([], [put('/again', '2')]);
    await store.revokeLease(one.id);
    assert.deepEqual(await keys(store, '/'), ['/again', '/free', '/moved']);
    await store.revokeLease(two.id);
    assert.deepEqual(await keys(store, '/'), ['/again', '/free']);
  });

  test('nothing is hung on a lease that is gone, nor anything of its transaction written', async (t) => {
    const { store } = await open(t);
    const lease = await store.grantLease(600_000);
    await store.transact([], [put('/a', '1')]);
    await store.revokeLease(lease.id);
    const operations = [put('/b', '1'), leased('/c', lease.id)];
    await assert.rejects(store.transact([], operations), LeaseNotFoundError);
    assert.equal(await store.revision(), 1);
    const conflict = await store.transact([{ key: '/a', modRevision: 0 }], operations);
    assert.equal(conflict.succeeded, false);
  });

  test('no lease is for ever, nor for no time', async (t) => {
    const { store } = await open(t);
    for (const ttlMs of [0, -1, Number.NaN, MAX_LEASE_TTL_MS + 1])
      await assert.rejects(store.grantLease(ttlMs), TypeError);
  });
}

function leased(key: string, lease: number): WriteOp {
  return { type: 'put', key, value: new TextEncoder().encode('1'), lease };
}

/** The keys of a lease go in no order. */
function sortedBatch(batch: WatchBatch | undefined): unknown {
  const [revision, ...lines] = (plainBatch(batch) ?? []) as [number, ...string[]];
  return [revision, ...lines.toSorted()];
}

export function put(key: string, value: string): WriteOp {
  return { type: 'put', key, value: new TextEncoder().encode(value) };
}

export function remove(key: string): WriteOp {
  return { type: 'delete', key };
}

export function text(value: Uint8Array | undefined): string {
  return new TextDecoder().decode(value);
}

/** An entry as a short array: key, value, createRevision, modRevision. */
function plain(entry: Awaited<ReturnType<Store['get']>>): unknown {
  if (entry === undefined) return undefined;
  return [entry.key, text(entry.value), entry.createRevision, entry.modRevision];
}

/** A batch as its revision and a line for each event. */
function plainBatch(batch: WatchBatch | undefined): unknown {
  if (batch === undefined) return undefined;
  const lines = batch.events.map((event) => {
    const was = event.previous === undefined ? '' : ` was ${text(event.previous.value)}`;
    if (event.type === 'delete') return `delete ${event.key}${was}`;
    assert.equal(event.entry.modRevision, batch.revision);
    return `put ${event.entry.key}=${text(event.entry.value)}${was}`;
  });
  return [batch.revision, ...lines];
}

async function keys(
  store: Store,
  prefix: string,
  options?: Parameters<Store['list']>[1],
): Promise<string[]> {
  return (await store.list(prefix, options)).entries.map((entry) => entry.key);
}

/** Reads a watch by hand; `next` gives `undefined` at its end. */
function reader(watch: AsyncIterable<WatchBatch>): {
  next(): Promise<WatchBatch | undefined>;
} {
  const iterator = watch[Symbol.asyncIterator]();
  return {
    async next() {
      const result = await iterator.next();
      return result.done === true ? undefined : result.value;
    },
  };
}

/** The first `count` batches, or fewer if the watch ends. */
export async function take(watch: AsyncIterable<WatchBatch>, count: number): Promise<WatchBatch[]> {
  const batches: WatchBatch[] = [];
  for await (const batch of watch) {
    batches.push(batch);
    if (batches.length === count) break;
  }
  return batches;
}
