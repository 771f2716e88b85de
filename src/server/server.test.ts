import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { NODE, type Node } from '#api/core/v1/node.ts';
import type { KubeObject } from '#api/meta.ts';
import { createApiClient } from '#client/http-client.ts';
import { joinNode, renewNode } from '#client/join.ts';
import { FakeClock } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import { MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_JOIN_BODY_BYTES } from './limits.ts';
import { openCa } from './pki/ca.ts';
import { issueClientCertificate, issueServerCertificate } from './pki/issue.ts';
import { createToken } from './pki/tokens.ts';
import { type Call, type ServerFixture, startServerFixture } from './test-server.ts';

const CONFIG_MAPS = '/api/v1/namespaces/default/configmaps';
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json';

const configMap = (name: string, labels: Record<string, string> = {}) => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, labels },
});

test('the server tells who has no credential, a bad one, and one without the right', async () => {
  await using fixture = await startServerFixture();
  assert.equal((await fixture.call('GET', '/api/v1/nodes')).status, 401);
  const otherDirectory = mkdtempSync(join(tmpdir(), 'tulle-other-'));
  try {
    const other = await openCa({ directory: otherDirectory });
    const issued = await issueClientCertificate(other, {
      commonName: 'admin',
      organizations: ['system:masters'],
    });
    const as = { cert: issued.certificatePem, key: issued.keyPem };
    const refused = await fixture.call('GET', '/api/v1/nodes', { as });
    assert.equal(refused.status, 401);
    assert.match(refused.text, /the client certificate is not accepted/);
  } finally {
    rmSync(otherDirectory, { recursive: true });
  }
  const node = await fixture.identity('system:node:m1', ['system:nodes']);
  assert.equal((await fixture.call('GET', '/api/v1/nodes', { as: node })).status, 200);
  const secrets = await fixture.call('GET', '/api/v1/secrets', { as: node });
  assert.equal(secrets.status, 403);
  assert.equal(secrets.json().kind, 'Status');
  assert.equal(secrets.json().reason, 'Forbidden');
});

test('the server does not take the certificate of a server for a client', async () => {
  await using fixture = await startServerFixture();
  const { issueServerCertificate } = await import('./pki/issue.ts');
  const issued = await issueServerCertificate(fixture.ca, {
    commonName: 'admin',
    names: ['localhost'],
    ips: [],
  });
  const as = { cert: issued.certificatePem, key: issued.keyPem };
  assert.equal((await fixture.call('GET', '/api/v1/nodes', { as })).status, 401);
});

test('a connection does not outlive the certificate it began with', async () => {
  const clock = new FakeClock(Date.now());
  await using fixture = await startServerFixture({ clock });
  const session = connect(fixture.server.url, { ...fixture.admin, ca: fixture.ca.certificatePem });
  const statusNow = async () => {
    const stream = session.request({ ':path': '/api/v1/nodes' });
    const [headers] = await once(stream, 'response');
    stream.close();
    return headers[':status'];
  };
  assert.equal(await statusNow(), 200);
  clock.advance(10 * 365 * 24 * 3_600_000);
  assert.equal(await statusNow(), 401);
  session.destroy();
});

test('a fresh server has the objects every cluster has, and does not make them twice', async () => {
  await using store = openMemoryStore();
  const directory = mkdtempSync(join(tmpdir(), 'tulle-again-'));
  try {
    let revision = 0;
    for (const start of ['first', 'second']) {
      await using fixture = await startServerFixture({ store, directory });
      const { items } = (
        await fixture.call('GET', '/api/v1/services', { as: fixture.admin })
      ).json();
      const addresses = items.map((item) => (item.spec as { clusterIP: string }).clusterIP);
      assert.deepEqual(addresses, ['10.96.0.1', '10.96.0.10'], start);
      const pools = await fixture.call('GET', '/apis/tulle.dev/v1alpha1/ippools', {
        as: fixture.admin,
      });
      assert.equal(pools.json().items.length, 1, start);
      const now = await store.revision();
      if (start === 'second') assert.equal(now, revision);
      revision = now;
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a pool that an operator deleted does not come back', async () => {
  await using store = openMemoryStore();
  const path = '/apis/tulle.dev/v1alpha1/ippools';
  {
    await using fixture = await startServerFixture({ store });
    assert.equal(
      (await fixture.call('DELETE', `${path}/default`, { as: fixture.admin })).status,
      200,
    );
  }
  await using fixture = await startServerFixture({ store });
  assert.equal((await fixture.call('GET', path, { as: fixture.admin })).json().items.length, 0);
});

test('objects are made, read, changed and deleted', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const created = await fixture.call('POST', CONFIG_MAPS, { as, body: configMap('a') });
  assert.equal(created.status, 201);
  const again = await fixture.call('POST', CONFIG_MAPS, { as, body: configMap('a') });
  assert.deepEqual([again.status, again.json().reason], [409, 'AlreadyExists']);
  const put = await fixture.call('PUT', `${CONFIG_MAPS}/a`, {
    as,
    body: { ...created.json(), data: { x: '1' } },
  });
  assert.equal(put.status, 200);
  const stale = await fixture.call('PUT', `${CONFIG_MAPS}/a`, { as, body: created.json() });
  assert.deepEqual([stale.status, stale.json().reason], [409, 'Conflict']);
  for (const [type, body] of [
    ['application/merge-patch+json', { data: { y: '2', x: null } }],
    ['application/json-patch+json', [{ op: 'add', path: '/data/z', value: '3' }]],
    ['application/strategic-merge-patch+json', { metadata: { finalizers: ['tulle.dev/x'] } }],
  ] as const) {
    const headers = { 'content-type': type };
    const patched = await fixture.call('PATCH', `${CONFIG_MAPS}/a`, { as, body, headers });
    assert.equal(patched.status, 200, patched.text);
  }
  const read = (await fixture.call('GET', `${CONFIG_MAPS}/a`, { as })).json();
  assert.deepEqual(read.data, { y: '2', z: '3' });
  const held = await fixture.call('DELETE', `${CONFIG_MAPS}/a`, { as });
  assert.ok((held.json().metadata as { deletionTimestamp?: string }).deletionTimestamp);
  const headers = { 'content-type': 'application/merge-patch+json' };
  const body = { metadata: { finalizers: null } };
  await fixture.call('PATCH', `${CONFIG_MAPS}/a`, { as, body, headers });
  assert.equal((await fixture.call('GET', `${CONFIG_MAPS}/a`, { as })).status, 404);
});

test('deletecollection deletes what its selector chooses', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  for (const [name, app] of [
    ['a', 'web'],
    ['b', 'db'],
    ['c', 'web'],
  ] as const)
    await fixture.call('POST', CONFIG_MAPS, { as, body: configMap(name, { app }) });
  const deleted = await fixture.call('DELETE', `${CONFIG_MAPS}?labelSelector=app%3Dweb`, { as });
  assert.equal(deleted.json().items.length, 2);
  const left = (await fixture.call('GET', CONFIG_MAPS, { as })).json();
  assert.deepEqual(
    left.items.map((item) => (item.metadata as { name: string }).name),
    ['b'],
  );
});

test('unknown fields are refused, warned of or dropped, as the client wishes', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const body = (name: string) => ({ ...configMap(name), daata: {} });
  const strict = await fixture.call('POST', `${CONFIG_MAPS}?fieldValidation=Strict`, {
    as,
    body: body('a'),
  });
  assert.equal(strict.status, 400);
  assert.match(strict.text, /strict decoding error: unknown field \\"daata\\"/);
  const warned = await fixture.call('POST', CONFIG_MAPS, { as, body: body('a') });
  assert.equal(warned.status, 201);
  assert.match(String(warned.headers.warning), /^299 - "unknown field \\"daata\\"/);
  assert.equal(warned.json().daata, undefined);
  const silent = await fixture.call('POST', `${CONFIG_MAPS}?fieldValidation=Ignore`, {
    as,
    body: body('b'),
  });
  assert.equal(silent.headers.warning, undefined);
  const wrong = await fixture.call('POST', `${CONFIG_MAPS}?fieldValidation=Maybe`, {
    as,
    body: body('c'),
  });
  assert.equal(wrong.status, 400);
});

test('bad requests are answered with a Status that says what is wrong', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const protobuf = { 'content-type': 'application/vnd.kubernetes.protobuf' };
  const apply = { 'content-type': 'application/apply-patch+yaml' };
  const cases: readonly (readonly [string, string, Call, number, RegExp])[] = [
    ['POST', CONFIG_MAPS, { body: '{' }, 400, /not valid JSON/],
    ['POST', CONFIG_MAPS, { body: '' }, 400, /empty/],
    ['POST', CONFIG_MAPS, { body: '[]' }, 400, /must be a ConfigMap object/],
    ['POST', CONFIG_MAPS, { body: { kind: 'Secret' } }, 400, /this URL takes a \\"ConfigMap\\"/],
    ['POST', CONFIG_MAPS, { body: { ...configMap('a'), data: { a: 1 } } }, 400, /data\[a\]/],
    ['POST', CONFIG_MAPS, { body: 'x', headers: protobuf }, 400, /does not begin with/],
    [
      'POST',
      CONFIG_MAPS,
      { body: 'x', headers: { 'content-type': 'text/html' } },
      415,
      /unknown format/,
    ],
    [
      'POST',
      CONFIG_MAPS,
      { body: { ...configMap('a'), metadata: { name: 'a', namespace: 'b' } } },
      400,
      /does not match the namespace/,
    ],
    ['POST', '/api/v1/configmaps', { body: configMap('a') }, 400, /namespace is missing/],
    ['POST', '/api/v1/namespaces/default/nodes', { body: {} }, 404, /could not find/],
    ['POST', `${CONFIG_MAPS}?dryRun=Some`, { body: configMap('a') }, 400, /dryRun/],
    [
      'PATCH',
      `${CONFIG_MAPS}/a`,
      { body: '{}', headers: apply },
      422,
      /fieldManager: Required value/,
    ],
    ['PATCH', `${CONFIG_MAPS}/a`, { body: '{}' }, 415, /unknown format/],
    ['GET', '/api/v1/things', {}, 404, /could not find the requested resource/],
    ['GET', '/nowhere', {}, 404, /could not find the requested resource/],
    ['PUT', CONFIG_MAPS, { body: {} }, 405, /does not allow PUT/],
    ['GET', `${CONFIG_MAPS}/a/exec`, {}, 404, /could not find/],
    [
      'GET',
      CONFIG_MAPS,
      { headers: { accept: 'image/png' } },
      406,
      /only the following media types/,
    ],
    ['GET', `${CONFIG_MAPS}?limit=many`, {}, 400, /limit=many/],
    ['GET', `${CONFIG_MAPS}?watch=1&sendInitialEvents=true`, {}, 400, /resourceVersionMatch/],
    ['GET', '/api/v1/nodes/%zz', {}, 400, /percent-encoding/],
  ];
  for (const [method, path, call, status, pattern] of cases) {
    const response = await fixture.call(method, path, { as, ...call });
    assert.equal(response.status, status, `${method} ${path}: ${response.text}`);
    assert.match(response.text, pattern, `${method} ${path}`);
    assert.equal(response.json().kind, 'Status');
    assert.equal(response.json().code, status);
  }
});

test('a body that is too large is refused, and the server goes on', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const request = httpsRequest({
    ...fixture.options('POST', CONFIG_MAPS, { as, body: '' }),
    agent: false,
  });
  request.on('error', () => {}); // the server closes while we write
  request.write(Buffer.alloc(MAX_BODY_BYTES + 1, 'x'));
  const [response] = await once(request, 'response');
  assert.equal(response.statusCode, 413);
  request.destroy();
  assert.equal((await fixture.call('GET', CONFIG_MAPS, { as })).status, 200);
});

test('a refusal is heard, and its connection goes on, though its body comes later and is not read', async () => {
  await using fixture = await startServerFixture();
  const request = httpsRequest(fixture.options('POST', CONFIG_MAPS));
  request.flushHeaders();
  await new Promise((resolve) => setTimeout(resolve, 20));
  request.end(JSON.stringify(configMap('a')));
  const [response] = await once(request, 'response');
  assert.equal(response.statusCode, 401);
  response.resume();
  // The request closes when its socket is to be used again, which is a turn of the event loop later.
  await once(request, 'close');
  await new Promise(setImmediate);
  const next = httpsRequest(fixture.options('GET', CONFIG_MAPS)).end();
  await once(next, 'response');
  assert.equal(next.reusedSocket, true);
  next.destroy();
});

test('an update makes what is not there where it does in Kubernetes, and wants a version where it does', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const put = async (path: string, body: KubeObject) => {
    const { status, json } = await fixture.call('PUT', `${path}/${body.metadata.name}`, {
      as,
      body,
    });
    return { status, object: json() as unknown as KubeObject & { message: string } };
  };
  const leases = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
  const lease = {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: 'a', namespace: 'default' },
    spec: { holderIdentity: 'one' },
  };
  const made = await put(leases, lease);
  assert.equal(made.status, 201);
  const blind = await put(leases, lease);
  assert.equal(blind.status, 422);
  assert.match(
    blind.object.message,
    /metadata\.resourceVersion: .*must be specified for an update/,
  );
  assert.equal((await put(leases, made.object)).status, 200);
  const metadata = { ...made.object.metadata, name: 'b' };
  assert.equal((await put(leases, { ...made.object, metadata })).status, 404);

  const maps = configMap('a') as unknown as KubeObject;
  assert.equal((await put(CONFIG_MAPS, maps)).status, 404);
  await fixture.call('POST', CONFIG_MAPS, { as, body: maps });
  assert.equal((await put(CONFIG_MAPS, maps)).status, 200);
});

test('YAML is read, and written for who asks', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const body = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: "1"}\n';
  const headers = { 'content-type': 'application/yaml' };
  assert.equal((await fixture.call('POST', CONFIG_MAPS, { as, body, headers })).status, 201);
  const read = await fixture.call('GET', `${CONFIG_MAPS}/a`, {
    as,
    headers: { accept: 'application/yaml' },
  });
  assert.match(read.text, /^data:\n {2}x: "1"$/m);
  const twice = 'kind: ConfigMap\nkind: ConfigMap\n';
  assert.equal((await fixture.call('POST', CONFIG_MAPS, { as, body: twice, headers })).status, 400);
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'
    .split('')
    .map((key, i) => `${key}: &${key} [${Array(9).fill(`*${'abcdefg'[i]}`).join(',')}]`)
    .join('\n')}\n`;
  assert.equal((await fixture.call('POST', CONFIG_MAPS, { as, body: bomb, headers })).status, 400);
});

test('a list is shown as a table, as metadata, and in pages', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  for (const name of ['a', 'b', 'c'])
    await fixture.call('POST', CONFIG_MAPS, { as, body: configMap(name) });
  const table = (await fixture.call('GET', CONFIG_MAPS, { as, headers: { accept: TABLE } })).json();
  assert.equal(table.kind, 'Table');
  assert.deepEqual(
    (table.rows as { cells: string[] }[]).map(({ cells }) => cells[0]),
    ['a', 'b', 'c'],
  );
  const accept = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1';
  const metadata = (await fixture.call('GET', CONFIG_MAPS, { as, headers: { accept } })).json();
  assert.equal(metadata.kind, 'PartialObjectMetadataList');
  const page = (await fixture.call('GET', `${CONFIG_MAPS}?limit=2`, { as })).json();
  const { continue: token, remainingItemCount } = page.metadata as Record<string, string>;
  assert.equal(remainingItemCount, 1);
  const rest = (
    await fixture.call('GET', `${CONFIG_MAPS}?limit=2&continue=${token}`, { as })
  ).json();
  assert.equal(rest.items.length, 1);
});

test('nobody joins without a token that holds', async () => {
  await using fixture = await startServerFixture();
  const join = (headers: Record<string, string>) =>
    fixture.call('POST', '/tulle/v1/join', { body: { nodeName: 'm1', csr: 'none' }, headers });
  assert.equal((await join({})).status, 401);
  assert.equal((await join({ authorization: 'Bearer aaaaaa.bbbbbbbbbbbbbbbb' })).status, 401);
  assert.equal(
    (await fixture.call('GET', '/api/v1/nodes', { headers: { authorization: 'Bearer x' } })).status,
    401,
  );
  const large = await fixture.call('POST', '/tulle/v1/join', {
    body: { nodeName: 'm1', csr: 'x'.repeat(MAX_JOIN_BODY_BYTES) },
    headers: { authorization: 'Bearer aaaaaa.bbbbbbbbbbbbbbbb' },
  });
  assert.equal(large.status, 413);
  const ca = await fixture.call('GET', '/tulle/v1/ca');
  assert.equal(ca.text.trim(), fixture.ca.certificatePem.trim());
});

async function joinedNode(fixture: ServerFixture) {
  const { text: token } = await createToken(fixture.store, {
    caFingerprint: fixture.ca.fingerprint,
    description: 'test',
    ttlMs: undefined,
  });
  const directory = join(fixture.directory, 'node');
  const paths = await joinNode({ server: fixture.server.url, token, nodeName: 'm1', directory });
  return { paths, token, directory };
}

test('a node joins with a token, and writes itself with the certificate it gets', async () => {
  await using fixture = await startServerFixture();
  const { paths } = await joinedNode(fixture);
  await using client = createApiClient({
    servers: [fixture.server.url],
    caPem: readFileSync(paths.caPath, 'utf8'),
    certificatePem: readFileSync(paths.certificatePath, 'utf8'),
    keyPem: readFileSync(paths.keyPath, 'utf8'),
  });
  const node = (name: string): Node => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } });
  const { metadata } = await client.create(NODE, node('m1'));
  await assert.rejects(client.create(NODE, node('m2')), { status: 403 });
  const stop = new AbortController();
  const events = client.watch(NODE, {
    resourceVersion: metadata.resourceVersion ?? '',
    signal: stop.signal,
  });
  const status = { addresses: [{ type: 'InternalIP', address: '192.0.2.1' }] };
  await client.update(NODE, { ...node('m1'), status } as Node, { subresource: 'status' });
  for await (const event of events) {
    assert.ok(event.type === 'MODIFIED');
    assert.deepEqual(event.object.status?.addresses, status.addresses);
    stop.abort();
    break;
  }
});

test('a node renews its certificate by the one it has, for itself only', async () => {
  await using fixture = await startServerFixture();
  const { paths, token, directory } = await joinedNode(fixture);
  const read = (path: string) => readFileSync(path, 'utf8');
  const former = read(paths.certificatePath);
  await using client = createApiClient({
    ...{ servers: [fixture.server.url], caPem: read(paths.caPath) },
    ...{ certificatePem: former, keyPem: read(paths.keyPath) },
  });
  const renewed = await renewNode({ client, nodeName: 'm1', directory });
  assert.notEqual(renewed.certificatePem, former);
  assert.equal(read(paths.certificatePath), renewed.certificatePem);
  const again = await joinNode({ server: fixture.server.url, token, nodeName: 'm1', directory });
  assert.equal(again.joined, false, 'what it keeps is whole');
  client.useCertificate(renewed);
  const node: Node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'm1' } };
  assert.equal((await client.create(NODE, node)).metadata.name, 'm1');

  await assert.rejects(renewNode({ client, nodeName: 'm2', directory }), /no certificate for "m2"/);
  const asAdmin = { cert: fixture.admin.cert, key: fixture.admin.key };
  const acting = await fixture.call('POST', '/tulle/v1/join', {
    as: asAdmin,
    headers: {
      'impersonate-user': 'system:node:m1',
      'impersonate-group': 'system:nodes',
    },
    body: { nodeName: 'm1', csr: 'x' },
  });
  assert.equal(acting.status, 401);
});

test('a server shows the certificate it was given last', async () => {
  await using fixture = await startServerFixture();
  const shown = async () => {
    const { host, port } = fixture.server.address;
    const socket = connectTls({
      host,
      port,
      ca: fixture.ca.certificatePem,
      servername: 'localhost',
    });
    await once(socket, 'secureConnect');
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  };
  const first = await shown();
  const next = await issueServerCertificate(fixture.ca, {
    ...{ commonName: 'tulle-server', names: ['localhost'], ips: [ip('127.0.0.1')] },
  });
  fixture.server.useCertificate(next);
  const second = await shown();
  assert.notEqual(second, first);
  assert.equal(second, new X509Certificate(next.certificatePem).serialNumber);
  const { status } = await fixture.call('GET', '/api/v1/nodes', { as: fixture.admin });
  assert.equal(status, 200, 'clients are known as before');
});

test('an administrator makes and revokes join tokens', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const path = '/tulle/v1/tokens';
  const made = (await fixture.call('POST', path, { as, body: { description: 'rack 7' } })).json();
  assert.match(String(made.token), /^[a-z0-9]{6}\.[a-z0-9]{16}@sha256:/);
  const { tokens } = (await fixture.call('GET', path, { as })).json();
  assert.deepEqual(
    (tokens as { id: string }[]).map(({ id }) => id),
    [made.id],
  );
  assert.equal((await fixture.call('DELETE', `${path}/${made.id}`, { as })).status, 200);
  assert.equal((await fixture.call('DELETE', `${path}/${made.id}`, { as })).status, 404);
  assert.equal((await fixture.call('GET', path)).status, 401);
});

test('a request whose headers are too large is refused, and the server goes on', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const fits = { 'x-filler': 'x'.repeat(20 * 1024) };
  assert.equal((await fixture.call('GET', CONFIG_MAPS, { as, headers: fits })).status, 200);
  const large = { 'x-filler': 'x'.repeat(MAX_HEADER_BYTES) };
  await assert.rejects(fixture.call('GET', CONFIG_MAPS, { as, headers: large }));
  assert.equal((await fixture.call('GET', CONFIG_MAPS, { as })).status, 200);
});

test('discovery comes in one document or in pieces', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const accept =
    'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json';
  const whole = await fixture.call('GET', '/apis', { as, headers: { accept } });
  assert.match(String(whole.headers['content-type']), /as=APIGroupDiscoveryList/);
  assert.equal(whole.json().kind, 'APIGroupDiscoveryList');
  const groups = (await fixture.call('GET', '/apis', { as })).json().groups as { name: string }[];
  assert.deepEqual(
    groups.map(({ name }) => name),
    whole.json().items.map((item) => (item.metadata as { name: string }).name),
  );
  const resources = (await fixture.call('GET', '/api/v1', { as })).json().resources as {
    name: string;
  }[];
  assert.ok(resources.some(({ name }) => name === 'pods/status'));
  assert.equal((await fixture.call('GET', '/apis/none', { as })).status, 404);
});

test('schemas are served for each version, with their hash', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const { paths } = (await fixture.call('GET', '/openapi/v3', { as })).json();
  const { serverRelativeURL } =
    (paths as Record<string, { serverRelativeURL: string }>)['api/v1'] ?? {};
  const document = await fixture.call('GET', serverRelativeURL ?? '', { as });
  assert.equal(document.status, 200);
  assert.ok(serverRelativeURL?.endsWith(String(document.headers.etag).replaceAll('"', '')));
});

test('health is open to everyone, figures are not', async () => {
  await using fixture = await startServerFixture();
  for (const path of ['/healthz', '/livez', '/readyz'])
    assert.equal((await fixture.call('GET', path)).text, 'ok', path);
  assert.match((await fixture.call('GET', '/readyz?verbose')).text, /\[\+\]store ok/);
  assert.equal((await fixture.call('GET', '/metrics')).status, 401);
  const figures = (await fixture.call('GET', '/metrics', { as: fixture.admin })).text;
  assert.match(figures, /apiserver_request_total\{verb="get".*code="200"\}/);
  assert.match(figures, /tulle_store_revision \d+/);
});

test('a second server on the same port is refused with what to do', async () => {
  await using fixture = await startServerFixture();
  await assert.rejects(startServerFixture({ port: fixture.server.address.port }), {
    name: 'UserError',
    message: /Cannot listen on 127\.0\.0\.1:\d+/,
    hint: /Another program/,
  });
});
