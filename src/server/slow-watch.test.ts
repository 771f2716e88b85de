/** A client that opens a watch and does not read: what it costs, and how it finds back. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import { MAX_STALL_MS } from './limits.ts';
import { type ServerFixture, startServerFixture } from './test-server.ts';

const CONFIG_MAPS = '/api/v1/namespaces/default/configmaps';
/** Far more than the buffers of the kernel and of both ends take together. */
const CHANGES = 48;
const CHANGE_BYTES = 900 * 1024;

type Stream = Readable & { destroy(): unknown };

/** Opens a watch over one of the protocols. */
async function open(
  fixture: ServerFixture,
  protocol: string,
  query: string,
): Promise<{ stream: Stream; close(): void }> {
  const path = `${CONFIG_MAPS}?watch=true&${query}`;
  if (protocol === 'HTTP/1.1') {
    const request = httpsRequest({
      ...fixture.options('GET', path, { as: fixture.admin }),
      agent: false,
    });
    request.on('error', () => {}); // the cut, when it comes
    request.end();
    const [stream] = await once(request, 'response');
    stream.on('error', () => {});
    return { stream, close: () => request.destroy() };
  }
  const session = connect(fixture.server.url, { ...fixture.admin, ca: fixture.ca.certificatePem });
  session.on('error', () => {});
  const stream = session.request({ ':path': path });
  stream.on('error', () => {});
  await once(stream, 'response');
  return { stream, close: () => session.destroy() };
}

/** The store, counting what watches of one configuration map take out of it. */
function counting(store: Store, taken: { batches: number }): Store {
  return new Proxy(store, {
    get(target, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      if (name !== 'watch') return value.bind(target);
      return async function* (prefix: string, after: number, options: { signal: AbortSignal }) {
        for await (const batch of target.watch(prefix, after, options)) {
          if (prefix.endsWith('/configmaps/default/slow')) taken.batches += batch.events.length;
          yield batch;
        }
      };
    },
  });
}

for (const protocol of ['HTTP/1.1', 'HTTP/2'])
  test(`${protocol}: a watch that is not read holds a few events, is cut, and others miss nothing`, async () => {
    const clock = new FakeClock();
    const taken = { batches: 0 };
    await using store = openMemoryStore();
    await using fixture = await startServerFixture({ clock, store: counting(store, taken) });
    const as = fixture.admin;
    const body = (i: number) => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'slow' },
      data: { i: String(i), filler: 'x'.repeat(CHANGE_BYTES) },
    });
    assert.equal((await fixture.call('POST', CONFIG_MAPS, { as, body: body(0) })).status, 201);
    const start = String(await store.revision());
    const slow = await open(
      fixture,
      protocol,
      `fieldSelector=metadata.name%3Dslow&resourceVersion=${start}`,
    );
    slow.stream.pause();
    const quick = await open(fixture, 'HTTP/2', `resourceVersion=${start}`);
    const lines = createInterface({ input: quick.stream })[Symbol.asyncIterator]();
    for (let i = 1; i <= CHANGES; i++) {
      const sent = await fixture.call('PUT', `${CONFIG_MAPS}/slow`, { as, body: body(i) });
      assert.equal(sent.status, 200);
      const { value } = await lines.next();
      assert.equal(
        JSON.parse(value ?? '').object.data.i,
        String(i),
        'who reads gets each change, in order',
      );
    }
    assert.ok(
      taken.batches < CHANGES / 2,
      `${taken.batches} of ${CHANGES} events were taken for who does not read`,
    );
    quick.close();
    const figures = async () => (await fixture.call('GET', '/metrics', { as })).text;
    // Time passes until the server gives the client up; the test's own limit ends a server that never does.
    while (!(await figures()).includes('apiserver_terminated_watchers_total{reason="slow"} 1'))
      clock.advance(MAX_STALL_MS);
    slow.close();
    await resumes(fixture, protocol, start);
    await expires(fixture, protocol, start);
  });

/** From the version that was seen last, nothing is missing while the history is kept. */
async function resumes(fixture: ServerFixture, protocol: string, version: string): Promise<void> {
  const again = await open(
    fixture,
    protocol,
    `fieldSelector=metadata.name%3Dslow&resourceVersion=${version}`,
  );
  const lines = createInterface({ input: again.stream })[Symbol.asyncIterator]();
  for (let i = 1; i <= CHANGES; i++) {
    const { value } = await lines.next();
    assert.equal(JSON.parse(value ?? '').object.data.i, String(i));
  }
  again.close();
}

/** When it is not kept any more, the client hears 410 and lists again. */
async function expires(fixture: ServerFixture, protocol: string, version: string): Promise<void> {
  await fixture.store.compact(await fixture.store.revision());
  const late = await open(fixture, protocol, `resourceVersion=${version}`);
  const { value } = await createInterface({ input: late.stream })[Symbol.asyncIterator]().next();
  const event = JSON.parse(value ?? '');
  assert.deepEqual([event.type, event.object.code, event.object.reason], ['ERROR', 410, 'Expired']);
  late.close();
}
