/** The store's contract over a real etcd of one member. Its faults are in `faults.kernel.test.ts`. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { put, storeContract, take, text } from '../contract.ts';
import { storeProperties } from '../model.ts';
import type { Store } from '../port.ts';
import { CompactedError, LaggedError, StoreUnavailableError } from '../port.ts';
import { type EtcdStoreOptions, openEtcdStore } from './etcd-store.ts';
import { etcdMissing, post, startEtcd, type TestEtcd } from './testing-etcd.ts';
import { gate } from './testing-gate.ts';

const skip = etcdMissing();
let etcd: TestEtcd | undefined;
before(async () => {
  if (skip === false) etcd = await startEtcd();
});
after(() => etcd?.[Symbol.asyncDispose]());

let count = 0;
/** One etcd serves all tests: each has a prefix of its own, and its revisions count from when it began. */
async function freshOptions(): Promise<EtcdStoreOptions & { prefix: string }> {
  const [url = ''] = etcd?.urls ?? [];
  const answer = (await post(url, 'kv/range', { key: 'AA==' })) as { header: { revision: string } };
  const revisionOffset = Number(answer.header.revision);
  return { endpoints: [url], prefix: `/test-${count++}`, revisionOffset };
}

if (skip === false) {
  storeContract('etcd store', {
    isShared: true,
    async open(t, options) {
      const store = await openEtcdStore({ ...(await freshOptions()), ...options });
      t.after(() => store[Symbol.asyncDispose]());
      return store;
    },
  });

  const opened = new WeakMap<Store, EtcdStoreOptions>();
  const openWith = async (options: EtcdStoreOptions) => {
    const store = await openEtcdStore(options);
    opened.set(store, options);
    return store;
  };
  storeProperties('etcd store', {
    isShared: true,
    open: async () => openWith(await freshOptions()),
    reopen: async (store) => openWith(opened.get(store) ?? (await freshOptions())),
    runs: 25,
  });
}

test('two stores on one etcd see each other’s writes at once', { skip }, async (t) => {
  const options = await freshOptions();
  await using one = await openEtcdStore(options);
  await using two = await openEtcdStore(options);
  for (let n = 1; n <= 50; n++) {
    await one.transact([], [put('/a', String(n))]);
    assert.equal(text((await two.get('/a'))?.value), String(n));
    const watched = take(two.watch('/', n - 1, { signal: t.signal }), 1);
    assert.equal((await watched)[0]?.revision, n);
  }
  const both = [one, two].map((store) =>
    store.transact([{ key: '/b', modRevision: 0 }], [put('/b', '')]),
  );
  const won = (await Promise.all(both)).filter((result) => result.succeeded);
  assert.equal(won.length, 1);
});

test('a store that is opened later has the history before', { skip }, async (t) => {
  const options = await freshOptions();
  await using one = await openEtcdStore(options);
  for (let n = 1; n <= 5; n++) await one.transact([], [put('/a', String(n))]);
  await using two = await openEtcdStore(options);
  const batches = await take(two.watch('/', 2, { signal: t.signal }), 3);
  assert.deepEqual(
    batches.map((batch) => batch.revision),
    [3, 4, 5],
  );
  await one.compact(3);
  await using three = await openEtcdStore(options);
  await assert.rejects(three.get('/a', 2), CompactedError);
  assert.equal(text((await three.get('/a', 3))?.value), '3');
});

test('other programs’ keys are not seen, and their revisions are passed over', {
  skip,
}, async (t) => {
  const options = await freshOptions();
  await using store = await openEtcdStore(options);
  await store.transact([], [put('/a', '1')]);
  const [url = ''] = options.endpoints;
  const foreign = Buffer.from('/other').toString('base64');
  await post(url, 'kv/put', { key: foreign, value: '' });
  await store.transact([], [put('/a', '3')]);
  assert.equal(await store.revision(), 3);
  const batches = await take(store.watch('', 0, { signal: t.signal }), 2);
  assert.deepEqual(
    batches.map((batch) => batch.revision),
    [1, 3],
  );
  assert.deepEqual(
    (await store.list('')).entries.map((entry) => entry.key),
    ['/a'],
  );
});

test('history is forgotten in etcd, too', { skip }, async () => {
  const options = await freshOptions();
  await using store = await openEtcdStore({ ...options, historyRevisions: 10 });
  const writes = Array.from({ length: 1_100 }, (_, i) => store.transact([], [put(`/${i}`, '')]));
  await Promise.all(writes);
  const [url = ''] = options.endpoints;
  // By the store's own supervision, which looks every second.
  const old = { key: 'AA==', revision: String((options.revisionOffset ?? 0) + 1_000) };
  while ((await post(url, 'kv/range', old)) !== undefined) await store.revision();
});

test('a watch that is over what another program has compacted is cut off, and the store goes on', {
  skip,
}, async (t) => {
  const options = await freshOptions();
  const [url = ''] = options.endpoints;
  // The store's connection goes through a gate that can be closed.
  await using through = await gate(Number(new URL(url).port));
  await using store = await openEtcdStore({ ...options, endpoints: [through.url] });
  await store.transact([], [put('/a', '1')]);
  const iterator = store.watch('/', 0, { signal: t.signal })[Symbol.asyncIterator]();
  assert.equal((await iterator.next()).value?.revision, 1);
  await through.close();
  await using other = await openEtcdStore(options);
  for (let n = 2; n <= 5; n++) await other.transact([], [put('/a', String(n)), put(`/${n}`, '')]);
  await other.compact(5);
  const next = iterator.next();
  await through.open();
  await assert.rejects(next, LaggedError);
  assert.equal(text((await store.get('/a'))?.value), '5');
  await assert.rejects(store.get('/a', 3), CompactedError);
  assert.equal((await store.transact([], [put('/a', '6')])).revision, 6);
});

test('says that no etcd can be reached', { skip }, async () => {
  await assert.rejects(
    openEtcdStore({ endpoints: ['http://127.0.0.1:9'] }),
    (error) => error instanceof StoreUnavailableError && /127\.0\.0\.1:9/.test(error.message),
  );
});
