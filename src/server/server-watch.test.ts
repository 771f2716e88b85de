import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import type { KubeObject, WatchEvent } from '#api/meta.ts';
import { FakeClock } from '#lib/clock.ts';
import { MAX_STALL_MS } from './limits.ts';
import { type Call, type ServerFixture, startServerFixture } from './test-server.ts';

const CONFIG_MAPS = '/api/v1/namespaces/default/configmaps';
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json';

const configMap = (name: string, labels: Record<string, string> = {}) => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, labels },
});

interface OpenWatch {
  next(): Promise<WatchEvent<KubeObject>>;
  /** Resolves when the server ended the stream in order; rejects when it broke. */
  readonly ended: Promise<void>;
  close(): void;
}

/** Opens a watch; resolves when the server has begun to answer. */
async function openWatch(
  fixture: ServerFixture,
  path: string,
  call: Call = {},
): Promise<OpenWatch> {
  const request = httpsRequest({
    ...fixture.options('GET', path, { as: fixture.admin, ...call }),
    agent: false,
  });
  request.end();
  const [response] = await once(request, 'response');
  assert.equal(response.statusCode, 200);
  const lines = createInterface({ input: response })[Symbol.asyncIterator]();
  const ended = new Promise<void>((resolve, reject) => {
    response.once('end', resolve);
    response.once('error', reject);
  });
  ended.catch(() => {}); // only some tests look at it
  return {
    async next() {
      const { value, done } = await lines.next();
      assert.ok(!done, 'the watch ended');
      return JSON.parse(value);
    },
    ended,
    close: () => request.destroy(),
  };
}

test('a watch shows changes as they come', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const list = (await fixture.call('GET', CONFIG_MAPS, { as })).json();
  const { resourceVersion } = list.metadata as { resourceVersion: string };
  const watch = await openWatch(
    fixture,
    `${CONFIG_MAPS}?watch=true&resourceVersion=${resourceVersion}`,
  );
  await fixture.call('POST', CONFIG_MAPS, { as, body: configMap('a') });
  await fixture.call('DELETE', `${CONFIG_MAPS}/a`, { as });
  assert.equal((await watch.next()).type, 'ADDED');
  assert.equal((await watch.next()).type, 'DELETED');
  watch.close();
});

test('a watch from what is no revision is refused before it begins', async () => {
  await using fixture = await startServerFixture();
  const path = `${CONFIG_MAPS}?watch=true&resourceVersion=abc`;
  const { status, text } = await fixture.call('GET', path, { as: fixture.admin });
  assert.equal(status, 400);
  assert.match(text, /resourceVersion .*abc.* is invalid/);
});

test('a watch with initial events marks their end with a bookmark', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  await fixture.call('POST', CONFIG_MAPS, { as, body: configMap('a') });
  const query =
    'watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan';
  const watch = await openWatch(fixture, `${CONFIG_MAPS}?${query}`);
  assert.equal((await watch.next()).type, 'ADDED');
  const mark = await watch.next();
  assert.ok(mark.type === 'BOOKMARK');
  assert.equal(mark.object.metadata.annotations?.['k8s.io/initial-events-end'], 'true');
  assert.equal(mark.object.metadata.resourceVersion, String(await fixture.store.revision()));
  assert.equal(mark.object.kind, 'ConfigMap');
  watch.close();
});

test('a watch as a table says its columns once', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  for (const name of ['a', 'b'])
    await fixture.call('POST', CONFIG_MAPS, { as, body: configMap(name) });
  const watch = await openWatch(fixture, `${CONFIG_MAPS}?watch=true`, {
    headers: { accept: TABLE },
  });
  type Columns = { columnDefinitions: unknown[] };
  const first = (await watch.next()).object as unknown as Columns;
  const second = (await watch.next()).object as unknown as Columns;
  assert.ok(first.columnDefinitions.length > 0);
  assert.equal(second.columnDefinitions.length, 0);
  watch.close();
});

test('a watch from a compacted revision is answered with 410 in the stream', async () => {
  await using fixture = await startServerFixture();
  await fixture.store.compact(await fixture.store.revision());
  const watch = await openWatch(fixture, `${CONFIG_MAPS}?watch=true&resourceVersion=1`);
  const event = await watch.next();
  assert.ok(event.type === 'ERROR');
  assert.equal(event.object.code, 410);
  assert.equal(event.object.reason, 'Expired');
  await watch.ended;
});

test('a watch from a revision of another life of the store makes the client list again', async () => {
  await using fixture = await startServerFixture();
  const watch = await openWatch(fixture, `${CONFIG_MAPS}?watch=true&resourceVersion=1000000`);
  const event = await watch.next();
  assert.ok(event.type === 'ERROR');
  assert.equal(event.object.code, 410);
});

test('a watch ends in order after the time the client asked for', async () => {
  await using fixture = await startServerFixture();
  const watch = await openWatch(fixture, `${CONFIG_MAPS}?watch=true&timeoutSeconds=1`);
  await watch.ended;
});

test('stopping the server ends its watches in order', async () => {
  await using fixture = await startServerFixture();
  const watch = await openWatch(fixture, `${CONFIG_MAPS}?watch=true`);
  await fixture.server[Symbol.asyncDispose]();
  await watch.ended;
  await assert.rejects(fixture.call('GET', '/healthz'));
});

test('a client that goes away frees what its watch held', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const pattern =
    /apiserver_registered_watchers\{group="",version="v1",resource="configmaps"\} (\d+)/;
  const count = async () => pattern.exec((await fixture.call('GET', '/metrics', { as })).text)?.[1];
  const watch = await openWatch(fixture, `${CONFIG_MAPS}?watch=true`);
  assert.equal(await count(), '1');
  watch.close();
  while ((await count()) !== '0'); // the test's own time limit ends a server that never frees it
});

test('a client that does not read is cut off, and nobody else notices', async () => {
  const clock = new FakeClock();
  await using fixture = await startServerFixture({ clock });
  const as = fixture.admin;
  const request = httpsRequest({
    ...fixture.options('GET', `${CONFIG_MAPS}?watch=true`, { as }),
    agent: false,
  });
  request.on('error', () => {}); // the cut, when it comes
  request.end();
  const [response] = await once(request, 'response');
  response.pause();
  const data = { filler: 'x'.repeat(900 * 1024) };
  // Socket buffers take some megabytes before the server has to wait for the client.
  for (let i = 0; i < 64; i++) {
    const body = { ...configMap(`filler-${i}`), data };
    assert.equal((await fixture.call('POST', CONFIG_MAPS, { as, body })).status, 201);
    clock.advance(MAX_STALL_MS);
    const figures = (await fixture.call('GET', '/metrics', { as })).text;
    if (figures.includes('apiserver_terminated_watchers_total{reason="slow"} 1')) return;
  }
  assert.fail('the watch was never cut');
});

test('many watches and requests share one HTTP/2 connection', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const session = connect(fixture.server.url, { ...as, ca: fixture.ca.certificatePem });
  const events: Promise<string>[] = [];
  for (let i = 0; i < 20; i++) {
    const stream = session.request({ ':path': `${CONFIG_MAPS}?watch=true` });
    await once(stream, 'response');
    events.push(
      (async () => {
        for await (const line of createInterface({ input: stream }))
          return JSON.parse(line).object.metadata.name;
      })(),
    );
  }
  const post = session.request({
    ':method': 'POST',
    ':path': CONFIG_MAPS,
    'content-type': 'application/json',
  });
  post.end(JSON.stringify(configMap('a')));
  const [headers] = await once(post, 'response');
  assert.equal(headers[':status'], 201);
  assert.deepEqual(new Set(await Promise.all(events)), new Set(['a']));
  session.destroy();
});
