/** `pods/eviction` as clients use it: where it is found, what it takes, what it does, and who may. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type ServerFixture, startServerFixture } from './test-server.ts';

const PODS = '/api/v1/namespaces/default/pods';

let fixture: ServerFixture;
before(async () => {
  fixture = await startServerFixture();
});
after(() => fixture[Symbol.asyncDispose]());

interface Shown {
  metadata: {
    uid: string;
    resourceVersion: string;
    deletionTimestamp?: string;
    deletionGracePeriodSeconds?: number;
  };
  status: { conditions?: Record<string, string>[] };
}

/** A pod on a node, which is given time to end. */
async function makePod(name: string): Promise<Shown> {
  const body = {
    metadata: { name },
    spec: { nodeName: 'm1', containers: [{ name: 'c', image: 'i' }] },
  };
  const made = await fixture.call('POST', PODS, { as: fixture.admin, body });
  assert.equal(made.status, 201, made.text);
  return made.json() as unknown as Shown;
}

async function podOf(name: string): Promise<Shown> {
  const { text } = await fixture.call('GET', `${PODS}/${name}`, { as: fixture.admin });
  return JSON.parse(text) as Shown;
}

const eviction = (name: string, deleteOptions?: object, apiVersion = 'policy/v1') => ({
  ...{ apiVersion, kind: 'Eviction', metadata: { name, namespace: 'default' } },
  ...(deleteOptions === undefined ? {} : { deleteOptions }),
});

const evict = (name: string, body: unknown, query = '') =>
  fixture.call('POST', `${PODS}/${name}/eviction${query}`, { as: fixture.admin, body });

test('discovery tells of evictions as kubectl drain looks for them', async () => {
  const { resources } = (await fixture.call('GET', '/api/v1', { as: fixture.admin })).json();
  assert.deepEqual(
    (resources as { name: string }[]).find(({ name }) => name === 'pods/eviction'),
    {
      ...{ name: 'pods/eviction', singularName: '', namespaced: true },
      ...{ group: 'policy', version: 'v1', kind: 'Eviction', verbs: ['create'] },
    },
  );
});

test('an eviction deletes the pod with its grace period, and says in its status why', async () => {
  await makePod('plain');
  const evicted = await evict('plain', eviction('plain'));
  assert.equal(evicted.status, 201, evicted.text);
  assert.deepEqual(evicted.json(), {
    ...{ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 },
  });
  const { metadata, status } = await podOf('plain');
  assert.equal(metadata.deletionGracePeriodSeconds, 30);
  const [{ lastTransitionTime, ...condition } = {}] = status.conditions ?? [];
  assert.ok(!Number.isNaN(Date.parse(lastTransitionTime ?? '')));
  assert.deepEqual(condition, {
    ...{ type: 'DisruptionTarget', status: 'True' },
    ...{ reason: 'EvictionByEvictionAPI', message: 'Eviction API: evicting' },
  });
  // Once more is no mistake, and changes nothing.
  assert.equal((await evict('plain', eviction('plain'))).status, 201);
  assert.deepEqual(await podOf('plain'), { ...(await podOf('plain')), metadata, status });
});

test('it may come under its old version, or without a kind', async () => {
  for (const [name, body] of [
    ['beta', eviction('beta', undefined, 'policy/v1beta1')],
    ['bare', { metadata: { name: 'bare' } }],
  ] as const) {
    await makePod(name);
    const evicted = await evict(name, body);
    assert.equal(evicted.status, 201, evicted.text);
    assert.ok((await podOf(name)).metadata.deletionTimestamp !== undefined, name);
  }
});

test('it may come as protobuf', async () => {
  await makePod('bytes');
  const field = (number: number, value: string | Buffer) => {
    const content = Buffer.from(value);
    return Buffer.concat([Buffer.of((number << 3) | 2, content.length), content]);
  };
  const typeMeta = [field(1, 'policy/v1'), field(2, 'Eviction')];
  const metadata = [field(1, 'bytes'), field(3, 'default')];
  const gracePeriod = Buffer.of(0x08, 7);
  const raw = [field(1, Buffer.concat(metadata)), field(2, gracePeriod)];
  const body = Buffer.concat([
    Buffer.from('k8s\0'),
    field(1, Buffer.concat(typeMeta)),
    field(2, Buffer.concat(raw)),
  ]);
  const evicted = await fixture.call('POST', `${PODS}/bytes/eviction`, {
    as: fixture.admin,
    headers: { 'content-type': 'application/vnd.kubernetes.protobuf' },
    body,
  });
  assert.equal(evicted.status, 201, evicted.text);
  assert.equal((await podOf('bytes')).metadata.deletionGracePeriodSeconds, 7);
});

test('the options of the deletion count: grace, preconditions, dry run', async () => {
  const { metadata } = await makePod('options');
  const wish = (deleteOptions: object, query = '') =>
    evict('options', eviction('options', deleteOptions), query);
  assert.equal((await wish({ dryRun: ['All'] })).status, 201);
  assert.equal((await wish({}, '?dryRun=All')).status, 201);
  assert.deepEqual((await podOf('options')).metadata, metadata);
  for (const preconditions of [{ uid: 'another' }, { resourceVersion: '1' }]) {
    const refused = await wish({ preconditions });
    assert.equal(refused.status, 409, refused.text);
    assert.equal((await wish({ preconditions, dryRun: ['All'] })).status, 409);
  }
  assert.deepEqual((await podOf('options')).metadata, metadata);
  assert.equal((await wish({ propagationPolicy: 'Perhaps' })).status, 422);
  assert.equal((await wish({ dryRun: ['Some'] })).status, 400);
  assert.equal((await wish({ gracePeriodSeconds: 'long' })).status, 400);
  const { uid, resourceVersion } = metadata;
  const taken = await wish({ preconditions: { uid, resourceVersion }, gracePeriodSeconds: 7 });
  assert.equal(taken.status, 201, taken.text);
  assert.equal((await podOf('options')).metadata.deletionGracePeriodSeconds, 7);
  assert.equal((await wish({ gracePeriodSeconds: 0 })).status, 201);
  assert.equal((await wish({})).status, 404);
});

test('what is no eviction of this pod is refused', async () => {
  const pod = await makePod('named');
  const table: readonly (readonly [body: unknown, status: number, message: RegExp])[] = [
    [eviction('other'), 400, /name in URL does not match name in Eviction object/],
    [{ kind: 'Eviction', apiVersion: 'policy/v1' }, 400, /name in URL/],
    [{ ...eviction('named'), metadata: { name: 'named', namespace: 'blue' } }, 400, /namespace/],
    [eviction('named', undefined, 'policy/v2'), 400, /policy\/v2/],
    [{ ...eviction('named'), kind: 'Pod' }, 400, /Pod/],
    [[], 400, /Eviction/],
    ['{', 400, /JSON/],
  ];
  for (const [body, status, message] of table) {
    const refused = await evict('named', body);
    assert.equal(refused.status, status, refused.text);
    assert.match(refused.text, message);
  }
  const strict = await evict('named', { ...eviction('named'), x: 1 }, '?fieldValidation=Strict');
  assert.match(strict.text, /unknown field \\"x\\"/);
  assert.deepEqual(await podOf('named'), pod);
  assert.equal((await evict('nobody', eviction('nobody'))).status, 404);
  const path = `${PODS}/named/eviction`;
  for (const method of ['GET', 'PUT', 'DELETE'])
    assert.equal((await fixture.call(method, path, { as: fixture.admin })).status, 405, method);
  const services = '/api/v1/namespaces/default/services/named/eviction';
  assert.equal((await fixture.call('POST', services, { as: fixture.admin })).status, 404);
});

test('it is a permission of its own, which editors have and those who may only delete have not', async () => {
  const rbac = '/apis/rbac.authorization.k8s.io/v1';
  const as = fixture.admin;
  const rules = [{ verbs: ['*'], apiGroups: [''], resources: ['pods'] }];
  await fixture.call('POST', `${rbac}/clusterroles`, {
    as,
    body: { metadata: { name: 'deleters' }, rules },
  });
  const statusAs = async (user: string, role: string) => {
    await fixture.call('POST', `${rbac}/namespaces/default/rolebindings`, {
      as,
      body: {
        metadata: { name: user },
        subjects: [{ kind: 'User', name: user }],
        roleRef: { kind: 'ClusterRole', name: role },
      },
    });
    const identity = await fixture.identity(user, []);
    // Roles count a moment after they are written.
    const list = () => fixture.call('GET', PODS, { as: identity });
    while ((await list()).status === 403) await new Promise((resolve) => setTimeout(resolve, 10));
    await makePod(user);
    const path = `${PODS}/${user}/eviction`;
    return (await fixture.call('POST', path, { as: identity, body: eviction(user) })).status;
  };
  assert.equal(await statusAs('jane', 'deleters'), 403);
  assert.equal(await statusAs('jim', 'edit'), 201);
  assert.equal(await statusAs('joe', 'admin'), 201);
});
