/**
 * What client libraries send, word by word, and what they take for granted in the answers: client-go's reflector
 * (`tools/cache/reflector.go`), @kubernetes/client-node's informer, the Python client, and all of them through `kubectl proxy`.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:https';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import type { Call } from '#server/test-server.ts';
import { type Kubectl, skip, startKubectl } from './kubectl-runner.ts';

const CONFIG_MAPS = '/api/v1/namespaces/default/configmaps';
/** As client-go asks for typed objects. */
const PROTOBUF_FIRST = 'application/vnd.kubernetes.protobuf,application/json';

interface Frame {
  readonly type: string;
  readonly object: {
    readonly kind: string;
    readonly code?: number;
    readonly metadata: {
      readonly name?: string;
      readonly resourceVersion: string;
      readonly annotations?: Readonly<Record<string, string>>;
    };
  };
}

let kubectl: Kubectl;
before(async () => {
  kubectl = await startKubectl('libraries');
});
after(() => kubectl[Symbol.asyncDispose]());

const call = (method: string, path: string, more: Call = {}) =>
  kubectl.fixture.call(method, path, { as: kubectl.fixture.admin, ...more });
const configMap = (name: string, data: Record<string, string> = {}, labels = {}) => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, labels },
  data,
});
const framesOf = (text: string): Frame[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
const shown = (frames: readonly Frame[]) =>
  frames.map(({ type, object }) => `${type} ${object.metadata.name ?? ''}`.trim());

test('client-go: a stream instead of a list, resumed where its bookmark says, with changes between', async () => {
  await call('POST', CONFIG_MAPS, { body: configMap('reflected') });
  const watchList = `${CONFIG_MAPS}?allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeout=8m3s&timeoutSeconds=1&watch=true`;
  const first = await call('GET', watchList, { headers: { accept: PROTOBUF_FIRST } });
  assert.equal(first.status, 200, first.text);
  assert.equal(first.headers['content-type'], 'application/json');
  const frames = framesOf(first.text);
  assert.ok(shown(frames).includes('ADDED reflected'));
  const end = frames.find(({ type }) => type === 'BOOKMARK')?.object;
  assert.equal(end?.kind, 'ConfigMap');
  assert.equal(end.metadata.annotations?.['k8s.io/initial-events-end'], 'true');

  await call('PUT', `${CONFIG_MAPS}/reflected`, { body: configMap('reflected', { a: '1' }) });
  await call('DELETE', `${CONFIG_MAPS}/reflected`);
  const resumed = await call(
    'GET',
    `${CONFIG_MAPS}?allowWatchBookmarks=true&resourceVersion=${end.metadata.resourceVersion}&timeoutSeconds=1&watch=true`,
  );
  const changes = framesOf(resumed.text).filter(({ type }) => type !== 'BOOKMARK');
  assert.deepEqual(shown(changes), ['MODIFIED reflected', 'DELETED reflected']);
});

test('client-go: a list of what any server knows, in pages, and a watch from too long ago', async () => {
  for (const name of ['page-1', 'page-2', 'page-3'])
    await call('POST', CONFIG_MAPS, { body: configMap(name, {}, { page: 'yes' }) });
  // limit and resourceVersion=0 together: the reflector's first list where streams are off.
  const list = `${CONFIG_MAPS}?limit=2&labelSelector=page%3Dyes`;
  const page = (await call('GET', `${list}&resourceVersion=0`)).json() as unknown as {
    metadata: { continue?: string; resourceVersion: string };
    items: { metadata: { name: string } }[];
  };
  const rest = await call(
    'GET',
    `${list}&continue=${encodeURIComponent(page.metadata.continue ?? '')}`,
  );
  const names = [...page.items, ...(rest.json() as unknown as typeof page).items].map(
    ({ metadata }) => metadata.name,
  );
  assert.deepEqual(names, ['page-1', 'page-2', 'page-3']);

  const { store } = kubectl.fixture;
  await store.compact(await store.revision());
  const old = await call('GET', `${CONFIG_MAPS}?watch=true&resourceVersion=1&timeoutSeconds=1`);
  // In the stream or before it: both are understood.
  const status =
    old.status === 200 ? framesOf(old.text)[0]?.object : (old.json() as unknown as Frame['object']);
  assert.equal(status?.code, 410);
});

test('a watch whose client asked for no bookmarks gets none', async () => {
  const { metadata } = (await call('GET', CONFIG_MAPS)).json() as unknown as Frame['object'];
  await call('POST', '/api/v1/namespaces/default/secrets', {
    body: { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'unrelated' } },
  });
  const path = `${CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion=${metadata.resourceVersion}`;
  assert.deepEqual(framesOf((await call('GET', path)).text), []);
});

test('an update that lost a race succeeds when it is done again on what is there', async () => {
  await call('POST', CONFIG_MAPS, { body: configMap('raced') });
  type Read = ReturnType<typeof configMap> & { metadata: { resourceVersion: string } };
  const read = (await call('GET', `${CONFIG_MAPS}/raced`)).json() as unknown as Read;
  await call('PUT', `${CONFIG_MAPS}/raced`, { body: configMap('raced', { other: '1' }) });
  const lost = await call('PUT', `${CONFIG_MAPS}/raced`, { body: { ...read, data: { own: '1' } } });
  assert.equal(lost.status, 409);
  assert.equal(lost.json().reason, 'Conflict');
  const again = (await call('GET', `${CONFIG_MAPS}/raced`)).json() as unknown as Read;
  const body = { ...again, data: { ...again.data, own: '1' } };
  assert.equal((await call('PUT', `${CONFIG_MAPS}/raced`, { body })).status, 200);
});

test('every kind of patch by its content type, with the parameters that libraries add', async () => {
  await call('POST', CONFIG_MAPS, { body: configMap('patched', { a: '1' }) });
  const patch = async (type: string, body: unknown, query = '') => {
    const headers = { 'content-type': type };
    const answer = await call('PATCH', `${CONFIG_MAPS}/patched${query}`, { body, headers });
    assert.equal(answer.status, 200, `${type}: ${answer.text}`);
    return answer.json().data;
  };
  const replace = [{ op: 'replace', path: '/data/a', value: '2' }];
  assert.deepEqual(await patch('application/json-patch+json', replace), { a: '2' });
  const merge = { data: { a: null, b: '1' } };
  assert.deepEqual(await patch('application/merge-patch+json', merge), { b: '1' });
  const strategic = { data: { $patch: 'replace', c: '1' } };
  assert.deepEqual(await patch('application/strategic-merge-patch+json', strategic), { c: '1' });
  const config = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: patched}\ndata: {d: "1"}\n';
  const query = '?fieldManager=library&force=true&fieldValidation=Strict&pretty=true';
  const applied = await patch('application/apply-patch+yaml', config, query);
  assert.deepEqual(applied, { c: '1', d: '1' });
});

test('Python: paths that end in a slash, and typed answers to deletions', async () => {
  for (const path of ['/version/', '/api/', '/apis/', '/api/v1/', '/apis/apiextensions.k8s.io/'])
    assert.equal((await call('GET', path)).status, 200, path);
  const spec = { containers: [{ name: 'c', image: 'i' }] };
  const metadata = { name: 'typed' };
  for (const [resource, body] of [
    ['services', { apiVersion: 'v1', kind: 'Service', metadata, spec: { ports: [{ port: 1 }] } }],
    ['serviceaccounts', { apiVersion: 'v1', kind: 'ServiceAccount', metadata }],
    ['pods', { apiVersion: 'v1', kind: 'Pod', metadata, spec }],
  ] as const) {
    const collection = `/api/v1/namespaces/default/${resource}`;
    assert.equal((await call('POST', collection, { body })).status, 201, resource);
    const gone = (await call('DELETE', `${collection}/typed`)).json();
    assert.equal(gone.kind, body.kind);
    assert.equal((await call('GET', `${collection}/typed`)).status, 404);
  }
  const status = (await call('DELETE', `${CONFIG_MAPS}/patched`)).json();
  assert.deepEqual([status.kind, status.status], ['Status', 'Success']);
});

test('a connection cut in the middle of a watch loses nothing that comes after', async () => {
  const { metadata } = (await call('GET', CONFIG_MAPS)).json() as unknown as Frame['object'];
  const watch = (from: string) =>
    request({
      ...kubectl.fixture.options('GET', `${CONFIG_MAPS}?watch=true&resourceVersion=${from}`, {
        as: kubectl.fixture.admin,
      }),
      agent: false,
    });
  const cut = watch(metadata.resourceVersion);
  cut.end();
  const [response] = await once(cut, 'response');
  await call('POST', CONFIG_MAPS, { body: configMap('cut-1') });
  const [line] = await once(response.setEncoding('utf8'), 'data');
  const last = (JSON.parse(line) as Frame).object.metadata;
  assert.equal(last.name, 'cut-1');
  response.on('error', () => {}); // The cut itself.
  cut.destroy();
  await call('POST', CONFIG_MAPS, { body: configMap('cut-2') });
  const path = `${CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion=${last.resourceVersion}`;
  assert.deepEqual(shown(framesOf((await call('GET', path)).text)), ['ADDED cut-2']);
});

test('kubectl proxy: lists, writes and watches pass through', { skip }, async () => {
  const proxy = spawn('kubectl', ['proxy', '--port=0'], {
    env: { PATH: process.env.PATH, HOME: kubectl.home, KUBECONFIG: join(kubectl.home, 'config') },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const [line] = await once(createInterface({ input: proxy.stdout }), 'line');
    const [place = ''] = /127\.0\.0\.1:\d+/.exec(line) ?? [];
    assert.notEqual(place, '', line);
    const url = `http://${place}${CONFIG_MAPS}`;
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify(configMap('proxied'));
    const { status } = await fetch(url, { method: 'POST', headers, body });
    assert.equal(status, 201);
    const list = (await (await fetch(url)).json()) as Frame['object'];
    const from = `resourceVersion=${Number(list.metadata.resourceVersion) - 1}`;
    const watched = await fetch(`${url}?watch=true&timeoutSeconds=1&${from}`);
    assert.deepEqual(shown(framesOf(await watched.text())), ['ADDED proxied']);
    assert.equal((await fetch(`${url}/proxied`, { method: 'DELETE' })).status, 200);
  } finally {
    proxy.kill();
  }
});
