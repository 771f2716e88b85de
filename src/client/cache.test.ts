import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { type Clock, FakeClock, systemClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { indexCache, startCache } from './cache.ts';
import { FakeApi } from './fake.ts';
import { createApiClient } from './http-client.ts';
import type { Cache, CacheChange } from './port.ts';
import { type Mishap, ScriptedServer, THING, type Thing } from './test-server.ts';
import { makeTestTls, type TestTls } from './test-tls.ts';

/** Back-off passes at once; what is meant to take minutes still does. */
const hastyClock: Clock = {
  ...systemClock,
  schedule: (delayMs, callback) =>
    systemClock.schedule(delayMs > 60_000 ? delayMs : Math.min(delayMs, 1), callback),
};
const options = { log: silentLogger, clock: hastyClock };

/** Resolves when the condition holds, looking after every change of the cache. */
function until(cache: Cache<Thing>, condition: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (!condition()) return;
      stop();
      resolve();
    };
    const stop = cache.onChange(look);
    look();
  });
}

/** Follows a cache as a listener does and fails on anything that is no consistent history. */
function watchHistory(cache: Cache<Thing>) {
  const state = new Map<string, Thing>();
  const problems: string[] = [];
  const changes: CacheChange<Thing>[] = [];
  cache.onChange((change) => {
    const { key, old, current } = change;
    changes.push(change);
    if (state.get(key) !== old) problems.push(`${key}: "old" is not what was told before`);
    if (cache.get(key) !== current) problems.push(`${key}: told before it is in the cache`);
    if (old === undefined && current === undefined) problems.push(`${key}: nothing happened`);
    if (old !== undefined && current !== undefined) {
      const [from, to] = [old, current].map((o) => Number(o.metadata.resourceVersion));
      if (!(Number(from) < Number(to))) problems.push(`${key}: version ${from} became ${to}`);
    }
    if (current === undefined) state.delete(key);
    else state.set(key, current);
  });
  return { state, problems, changes };
}

function values(objects: Iterable<Thing>): Record<string, string | undefined> {
  return Object.fromEntries(
    [...objects].map((o) => [`${o.metadata.name}@${o.metadata.resourceVersion}`, o.data?.value]),
  );
}

describe('startCache() against a server', () => {
  let tls: TestTls;
  before(async () => {
    tls = await makeTestTls();
  });

  async function setUp() {
    const server = new ScriptedServer(tls);
    await server.start();
    const client = createApiClient({
      servers: [server.url],
      caPem: tls.caPem,
      certificatePem: tls.client.cert,
      keyPem: tls.client.key,
    });
    const stack = new AsyncDisposableStack();
    stack.use(server);
    stack.use(client);
    return { server, client, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  }

  test('lists in pages, then follows', async () => {
    await using setup = await setUp();
    const { server, client } = setup;
    for (let i = 0; i < 1_234; i++) server.put(`thing-${i}`, String(i));
    await using cache = startCache(client, THING, options);
    await cache.synced();
    assert.equal(cache.size, 1_234);
    assert.equal(server.log.filter((line) => line.includes('limit=500')).length, 3);
    assert.equal(cache.get('default/thing-7')?.kind, 'ConfigMap');
    const { changes } = watchHistory(cache);
    server.put('new', 'x');
    server.remove('thing-3');
    await until(cache, () => changes.length === 2);
    assert.equal(cache.get('default/new')?.data?.value, 'x');
    assert.equal(cache.get('default/thing-3'), undefined);
    assert.equal(cache.isConnected, true);
  });

  test('asks for bookmarks and a limited life, and for what follows the list', async () => {
    await using setup = await setUp();
    const { server, client } = setup;
    await using cache = startCache(client, THING, { ...options, labelSelector: 'a=b' });
    await cache.synced();
    server.put('one', '1');
    await until(cache, () => cache.size === 1);
    const watch = server.log.find((line) => line.includes('watch=true')) ?? '';
    const query = new URL(watch.split(' ')[1] ?? '', 'https://x').searchParams;
    assert.equal(query.get('allowWatchBookmarks'), 'true');
    assert.equal(query.get('resourceVersion'), '1');
    assert.equal(query.get('labelSelector'), 'a=b');
    const timeoutSeconds = Number(query.get('timeoutSeconds'));
    assert.ok(timeoutSeconds >= 300 && timeoutSeconds < 600, `timeoutSeconds=${timeoutSeconds}`);
  });

  test('loses and repeats nothing wherever the stream is cut', async () => {
    await using setup = await setUp();
    const { server, client } = setup;
    await using cache = startCache(client, THING, options);
    await cache.synced();
    const seen = watchHistory(cache);
    const line = JSON.stringify({ type: 'ADDED', object: sampleOf('name-0', 12) }).length + 1;
    // Every seventh byte of the first two events, and the edges of the lines.
    const cuts = Array.from({ length: Math.ceil((2 * line) / 7) }, (_, i) => i * 7);
    const types = ['cut', 'end'] as const;
    let count = 0;
    for (const afterBytes of [...cuts, line - 1, line, line + 1, 2 * line])
      for (const type of types) {
        server.watchScript.push({ type, afterBytes }, { type, afterBytes });
        // Ends the watch that stands, so that the next meets the mishap.
        server.put(`name-${count % 5}`, `é${count++}`);
        server.put(`name-${count % 5}`, `é${count++}`);
        await server.stop();
        await server.start();
        await until(cache, () => isDeepStrictEqual(values(cache.values()), valuesOf(server)));
      }
    assert.deepEqual(seen.problems, []);
    assert.deepEqual(values(seen.state.values()), valuesOf(server));
  });

  for (const mishap of [
    { type: 'error-event', code: 410 },
    { type: 'error-event', code: 500 },
    { type: 'status', code: 410 },
    { type: 'status', code: 500 },
    { type: 'garbage', text: '{"type":"ADDED","object":\n' },
    { type: 'garbage', text: '{"type":"RENAMED","object":{"metadata":{}}}\n' },
    { type: 'garbage', text: '[]\nnull\n' },
    { type: 'garbage', text: '\n\n  \n' },
    { type: 'slow', chunkBytes: 1 },
  ] satisfies Mishap[])
    test(`survives ${JSON.stringify(mishap)}`, async () => {
      await using setup = await setUp();
      const { server, client } = setup;
      server.put('gone', 'x');
      server.put('kept', 'x');
      server.watchScript.push({ type: 'end', afterBytes: 0 }, mishap);
      await using cache = startCache(client, THING, options);
      const seen = watchHistory(cache);
      await cache.synced();
      server.put('new', 'é');
      server.remove('gone');
      server.put('kept', 'y');
      await until(cache, () => isDeepStrictEqual(values(cache.values()), valuesOf(server)));
      assert.deepEqual(seen.problems, []);
      assert.deepEqual(values(seen.state.values()), valuesOf(server));
    });

  test('tells what changed when it lists again after 410', async () => {
    await using setup = await setUp();
    const { server, client } = setup;
    for (const name of ['same', 'changed', 'gone', 'renewed']) server.put(name, '1');
    await using cache = startCache(client, THING, options);
    await cache.synced();
    const seen = watchHistory(cache);
    const port = server.url;
    await server.stop();
    server.put('changed', '2');
    server.remove('gone');
    server.remove('renewed');
    server.put('renewed', '3');
    server.put('new', '4');
    server.compact();
    await server.start();
    assert.equal(server.url, port);
    await until(cache, () => cache.get('default/gone') === undefined);
    assert.deepEqual(
      seen.changes.map((c) => [c.key, c.old?.data?.value, c.current?.data?.value]).sort(),
      [
        ['default/changed', '1', '2'],
        ['default/gone', '1', undefined],
        ['default/new', undefined, '4'],
        ['default/renewed', undefined, '3'],
        ['default/renewed', '1', undefined],
      ],
    );
  });

  test('keeps what it knows while the server is away, and says so', async () => {
    await using setup = await setUp();
    const { server, client } = setup;
    server.put('one', '1');
    await using cache = startCache(client, THING, options);
    await cache.synced();
    server.put('two', '2');
    await until(cache, () => cache.size === 2);
    assert.equal(cache.isConnected, true);
    await server.stop();
    while (cache.isConnected) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(cache.size, 2);
    assert.equal(cache.isSynced, true);
    await server.start();
    server.put('three', '3');
    await until(cache, () => cache.size === 3);
  });

  test('ends at the same state as the server after any schedule of changes and mishaps', async () => {
    const mishap: fc.Arbitrary<Mishap> = fc.oneof(
      fc.record({ type: fc.constantFrom('cut', 'end'), afterBytes: fc.nat(600) }),
      fc.record({ type: fc.constant('slow'), chunkBytes: fc.integer({ min: 1, max: 50 }) }),
      fc.record({ type: fc.constant('error-event'), code: fc.constantFrom(410, 500) }),
      fc.record({ type: fc.constant('status'), code: fc.constantFrom(410, 429, 500) }),
      fc.record({ type: fc.constant('garbage'), text: fc.constantFrom('{\n', '\n', 'x') }),
    );
    const name = fc.constantFrom('a', 'b', 'c', 'd');
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant('put'), name }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('remove'), name }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('mishap'), mishap }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('list-mishap'), mishap }) },
      { weight: 1, arbitrary: fc.constant({ do: 'compact' }) },
      { weight: 1, arbitrary: fc.constant({ do: 'restart' }) },
      { weight: 3, arbitrary: fc.constant({ do: 'turn' }) },
    ) as fc.Arbitrary<{ do: string; name?: string; mishap?: Mishap }>;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        await using setup = await setUp();
        const { server, client } = setup;
        await using cache = startCache(client, THING, options);
        const seen = watchHistory(cache);
        let count = 0;
        for (const { do: action, name = '', mishap } of steps) {
          if (action === 'put') server.put(name, String(count++));
          else if (action === 'remove') server.remove(name);
          else if (action === 'mishap' && mishap) server.watchScript.push(mishap);
          else if (action === 'list-mishap' && mishap) server.requestScript.push(mishap);
          else if (action === 'compact') server.compact();
          else if (action === 'restart') {
            await server.stop();
            await server.start();
          } else await new Promise((resolve) => setTimeout(resolve, 2));
        }
        server.watchScript = [];
        server.requestScript = [];
        await server.stop();
        await server.start();
        server.put('end', 'end');
        await until(cache, () => isDeepStrictEqual(values(cache.values()), valuesOf(server)));
        assert.deepEqual(seen.problems, []);
        assert.deepEqual(values(seen.state.values()), valuesOf(server));
      }),
      { numRuns: 40 },
    );
  });
});

describe('startCache() over the fake', () => {
  test('does not relist when a bookmark has kept its version young', async () => {
    const api = new FakeApi();
    const cache = startCache(api, THING, options);
    await using _ = cache;
    await cache.synced();
    api.put(THING, sampleOf('one', 1));
    await until(cache, () => cache.size === 1);
    api.put({ ...THING, resource: 'others' }, sampleOf('other', 1));
    api.sendBookmarks();
    await new Promise((resolve) => setImmediate(resolve));
    api.compact();
    api.cutWatches();
    api.put(THING, sampleOf('two', 1));
    await until(cache, () => cache.size === 2);
    assert.equal(api.requests.filter((r) => r.verb === 'list').length, 1);
  });

  test('gives up a watch that outlives its time in silence, and goes on from its version', async () => {
    const clock = new FakeClock();
    const api = new FakeApi({ clock });
    await using cache = startCache(api, THING, { log: silentLogger, clock });
    await cache.synced();
    const watches = () => api.requests.filter((r) => r.verb === 'watch').length;
    while (api.watchCount === 0) await new Promise((resolve) => setImmediate(resolve));
    // A server that is gone without a word: nothing ends the stream, nothing comes.
    api.holdWatches(THING);
    api.put(THING, sampleOf('one', 1));
    clock.advance(299_000);
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(watches(), 1);
    clock.advance(400_000);
    api.releaseWatches(THING);
    while (cache.size === 0) {
      clock.advance(100);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(watches(), 2);
    assert.equal(api.requests.filter((r) => r.verb === 'list').length, 1);
  });

  test('a listener that throws keeps nothing from the others', async () => {
    const api = new FakeApi();
    await using cache = startCache(api, THING, options);
    await cache.synced();
    cache.onChange(() => {
      throw new Error('defect');
    });
    const { changes } = watchHistory(cache);
    api.put(THING, sampleOf('one', 1));
    api.put(THING, sampleOf('two', 1));
    await until(cache, () => changes.length === 2);
    assert.equal(changes.length, 2);
  });

  test('retries a refused list until it is let in', async () => {
    const api = new FakeApi();
    api.put(THING, sampleOf('one', 1));
    api.failNext({ verb: 'list' }, new ApiError(403, 'Forbidden', 'no'), { times: 3 });
    await using cache = startCache(api, THING, options);
    await cache.synced();
    assert.equal(cache.size, 1);
  });

  test('ends when disposed or when its signal is aborted', async () => {
    const api = new FakeApi();
    const abort = new AbortController();
    const one = startCache(api, THING, { ...options, signal: abort.signal });
    const two = startCache(api, THING, options);
    await Promise.all([one.synced(), two.synced()]);
    while (api.watchCount < 2) await new Promise((resolve) => setImmediate(resolve));
    abort.abort();
    await two[Symbol.asyncDispose]();
    await one[Symbol.asyncDispose]();
    assert.equal(api.watchCount, 0);
  });
});

describe('indexCache()', () => {
  test('follows changes of the keys, and forgets empty ones', async () => {
    const api = new FakeApi();
    await using cache = startCache(api, THING, options);
    await cache.synced();
    using index = indexCache(cache, 'value', (o) => Object.values(o.data ?? {}));
    const names = (key: string) => [...index.get(key)].map((o) => o.metadata.name).sort();
    api.put(THING, { ...sampleOf('a', 1), data: { x: 'red', y: 'blue' } });
    api.put(THING, { ...sampleOf('b', 1), data: { x: 'red' } });
    await until(cache, () => cache.size === 2);
    assert.deepEqual(names('red'), ['a', 'b']);
    assert.deepEqual(names('blue'), ['a']);
    api.put(THING, { ...sampleOf('a', 1), data: { x: 'green' } });
    api.remove(THING, 'default/b');
    await until(cache, () => cache.size === 1);
    assert.deepEqual(names('red'), []);
    assert.deepEqual([...index.keys()], ['green']);
  });
});

function sampleOf(name: string, version: number): Thing {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace: 'default', uid: `uid-${version}`, resourceVersion: '12' },
    data: { value: 'é1' },
  };
}

function valuesOf(server: ScriptedServer) {
  return values(server.objects.values());
}
