/** Who may do what, through the whole server: roles, tokens, acting as others, and turns. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '#lib/testing/until.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import { type Identity, type ServerFixture, startServerFixture } from './test-server.ts';

interface Who {
  status: { userInfo: { username: string } };
}

const RBAC = '/apis/rbac.authorization.k8s.io/v1';
const CONFIG_MAPS = '/api/v1/namespaces/default/configmaps';
const ACCOUNTS = '/api/v1/namespaces/default/serviceaccounts';

const rule = (verbs: string[], resources: string[], apiGroups = ['']) => ({
  verbs,
  resources,
  apiGroups,
});

async function allow(fixture: ServerFixture, name: string, user: string, rules: object[]) {
  const as = fixture.admin;
  const base = { apiVersion: 'rbac.authorization.k8s.io/v1', metadata: { name } };
  const role = { ...base, kind: 'ClusterRole', rules };
  const binding = {
    ...base,
    kind: 'ClusterRoleBinding',
    subjects: [{ kind: 'User', name: user }],
    roleRef: { kind: 'ClusterRole', name },
  };
  for (const [resource, body] of [
    ['clusterroles', role],
    ['clusterrolebindings', binding],
  ] as const) {
    const made = await fixture.call('POST', `${RBAC}/${resource}`, { as, body });
    assert.equal(made.status, 201, made.text);
  }
}

/** Asks until the answer is this: roles count a moment after they are written. */
async function eventually<T>(ask: () => Promise<T>, wanted: T): Promise<void> {
  const end = Date.now() + 5_000;
  let got = await ask();
  while (got !== wanted && Date.now() < end) got = await ask();
  assert.equal(got, wanted);
}

test('who shows nothing gets health, the CA and joining, and nothing else', async () => {
  await using fixture = await startServerFixture();
  for (const path of ['/healthz', '/livez', '/readyz', '/tulle/v1/ca'])
    assert.equal((await fixture.call('GET', path)).status, 200, path);
  for (const path of [
    '/version',
    '/api',
    '/openapi/v3',
    '/openid/v1/jwks',
    CONFIG_MAPS,
    '/metrics',
  ])
    assert.equal((await fixture.call('GET', path)).status, 401, path);
  assert.equal((await fixture.call('POST', '/healthz')).status, 401);
});

test('roles give, and taking a binding away takes', async () => {
  await using fixture = await startServerFixture();
  const jane = await fixture.identity('jane', []);
  const list = async () => (await fixture.call('GET', CONFIG_MAPS, { as: jane })).status;
  assert.equal(await list(), 403);
  await allow(fixture, 'readers', 'jane', [rule(['list'], ['configmaps'])]);
  await eventually(list, 200);
  const as = fixture.admin;
  await fixture.call('DELETE', `${RBAC}/clusterrolebindings/readers`, { as });
  await eventually(list, 403);
});

test('a role for one name allows to list and watch this one, and nothing beside it', async () => {
  await using fixture = await startServerFixture();
  const { admin } = fixture;
  for (const name of ['mine', 'other'])
    await fixture.call('POST', CONFIG_MAPS, {
      as: admin,
      body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } },
    });
  const jane = await fixture.identity('jane', []);
  const verbs = ['list', 'create', 'deletecollection'];
  const ofOne = { ...rule(verbs, ['configmaps']), resourceNames: ['mine'] };
  await allow(fixture, 'one', 'jane', [ofOne]);
  const list = (selector: string) =>
    fixture.call('GET', `${CONFIG_MAPS}?fieldSelector=${encodeURIComponent(selector)}`, {
      as: jane,
    });
  await eventually(async () => (await list('metadata.name=mine')).status, 200);
  const { items } = (await list('metadata.name=mine')).json();
  assert.deepEqual(
    items.map(({ metadata }) => (metadata as { name: string }).name),
    ['mine'],
  );
  for (const selector of ['', 'metadata.name=other', 'metadata.name!=other', 'metadata.name='])
    assert.equal((await list(selector)).status, 403, selector);
  const both = (await list('metadata.name=mine,metadata.name=other')).json();
  assert.deepEqual(both.items, []);
  const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'another' } };
  const ofMine = `${CONFIG_MAPS}?fieldSelector=metadata.name%3Dmine`;
  assert.equal((await fixture.call('POST', ofMine, { as: jane, body })).status, 403);
  assert.equal((await fixture.call('DELETE', ofMine, { as: jane })).status, 403);
});

test('nobody gives away what he does not have', async () => {
  await using fixture = await startServerFixture();
  const as = await fixture.identity('jane', []);
  await allow(fixture, 'granters', 'jane', [
    rule(['create', 'update', 'get'], ['roles', 'rolebindings'], ['rbac.authorization.k8s.io']),
    rule(['get'], ['configmaps']),
  ]);
  const roles = `${RBAC}/namespaces/default/roles`;
  const bindings = `${RBAC}/namespaces/default/rolebindings`;
  const role = (name: string, verb: string) => ({
    metadata: { name },
    rules: [rule([verb], ['configmaps'])],
  });
  const bind = (name: string, kind: string, of: string) => ({
    metadata: { name },
    subjects: [{ kind: 'User', name: 'jane' }],
    roleRef: { kind, name: of },
  });
  const post = async (path: string, body: object) =>
    (await fixture.call('POST', path, { as, body })).status;
  await eventually(() => post(roles, role('mine', 'get')), 201);
  assert.equal(await post(roles, role('more', 'delete')), 403);
  assert.equal(await post(bindings, bind('a', 'Role', 'mine')), 201);
  assert.equal(await post(bindings, bind('b', 'ClusterRole', 'cluster-admin')), 403);
  assert.equal(await post(bindings, bind('c', 'Role', 'nosuch')), 404);
  const put = async (body: object) => await fixture.call('PUT', `${roles}/mine`, { as, body });
  assert.equal((await put(role('mine', 'delete'))).status, 403);
  const labelled = { ...role('mine', 'get'), metadata: { name: 'mine', labels: { a: 'b' } } };
  assert.equal((await put(labelled)).status, 200);
});

test('who may patch does not therefore create by applying', async () => {
  await using fixture = await startServerFixture();
  const jane = await fixture.identity('jane', []);
  await allow(fixture, 'patchers', 'jane', [rule(['patch'], ['configmaps'])]);
  const headers = { 'content-type': 'application/apply-patch+yaml' };
  const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { a: '1' } };
  const path = `${CONFIG_MAPS}/a?fieldManager=test`;
  const apply = async (as: Identity) => await fixture.call('PATCH', path, { as, headers, body });
  // Before the binding counts it is the patch that is refused.
  const refused = async () => {
    const { text } = await apply(jane);
    return /cannot create/.test(text) ? 403 : 0;
  };
  await eventually(refused, 403);
  assert.equal((await apply(fixture.admin)).status, 201);
  body.data.a = '1';
  assert.equal((await apply(jane)).status, 200);
});

test('who may change does not therefore create by an update of what is not there', async () => {
  await using fixture = await startServerFixture();
  const as = await fixture.identity('jane', []);
  const leases = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
  const body = {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: 'a' },
    spec: { holderIdentity: 'jane' },
  };
  const put = () => fixture.call('PUT', `${leases}/a`, { as, body });
  await allow(fixture, 'updaters', 'jane', [rule(['update'], ['leases'], ['coordination.k8s.io'])]);
  await eventually(
    async () => String(Reflect.get((await put()).json(), 'message')),
    'leases.coordination.k8s.io "a" is forbidden: User "jane" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "default"',
  );
  await allow(fixture, 'creators', 'jane', [rule(['create'], ['leases'], ['coordination.k8s.io'])]);
  await eventually(async () => (await put()).status, 201);
});

test('a token of a service account is a credential until the account is gone', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  await fixture.call('POST', ACCOUNTS, { as, body: { metadata: { name: 'robot' } } });
  const made = await fixture.call('POST', `${ACCOUNTS}/robot/token`, { as, body: { spec: {} } });
  assert.equal(made.status, 201, made.text);
  const { token, expirationTimestamp } = made.json().status as Record<string, string>;
  assert.ok(Date.parse(expirationTimestamp ?? '') > Date.now());
  const headers = { authorization: `Bearer ${token}` };
  const me = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
  const who = async () => await fixture.call('POST', me, { headers, body: {} });
  const { status } = (await who()).json() as unknown as Who;
  assert.equal(status.userInfo.username, 'system:serviceaccount:default:robot');
  assert.equal((await fixture.call('GET', '/openid/v1/jwks', { headers })).status, 200);
  assert.equal((await fixture.call('GET', CONFIG_MAPS, { headers })).status, 403);
  await fixture.call('DELETE', `${ACCOUNTS}/robot`, { as });
  assert.equal((await who()).status, 401);
});

test('acting as somebody needs a permission, and is never ignored', async () => {
  await using fixture = await startServerFixture();
  const { admin } = fixture;
  const jane = await fixture.identity('jane', []);
  await allow(fixture, 'actors', 'jane', [
    { ...rule(['impersonate'], ['users']), resourceNames: ['jim'] },
    rule(['list'], ['configmaps']),
  ]);
  const status = async (as: Identity, headers: Record<string, string>) =>
    (await fixture.call('GET', CONFIG_MAPS, { as, headers })).status;
  assert.equal(await status(admin, { 'impersonate-user': 'jim' }), 403);
  assert.equal(
    await status(admin, { 'impersonate-user': 'jim', 'impersonate-group': 'system:masters' }),
    200,
  );
  assert.equal(await status(admin, { 'impersonate-group': 'x' }), 400);
  await eventually(() => status(jane, {}), 200);
  const refusal = async (headers: Record<string, string>) =>
    (await fixture.call('GET', CONFIG_MAPS, { as: jane, headers })).text;
  assert.match(await refusal({ 'impersonate-user': 'jim' }), /User \\"jim\\" cannot list/);
  assert.match(await refusal({ 'impersonate-user': 'joe' }), /User \\"jane\\" cannot impersonate/);
  assert.match(
    await refusal({ 'impersonate-user': 'jim', 'impersonate-group': 'system:masters' }),
    /User \\"jane\\" cannot impersonate resource \\"groups\\"/,
  );
});

/** A store whose reads of config maps hang until they are let go. */
function slowStore(): Store & { release(): void } {
  const store = openMemoryStore();
  const held = Promise.withResolvers<void>();
  return {
    known: store,
    revision: () => store.revision(),
    list: (prefix, options) => store.list(prefix, options),
    transact: (compares, operations) => store.transact(compares, operations),
    watch: (prefix, after, options) => store.watch(prefix, after, options),
    compact: (revision) => store.compact(revision),
    grantLease: (ttlMs) => store.grantLease(ttlMs),
    keepLeaseAlive: (id) => store.keepLeaseAlive(id),
    revokeLease: (id) => store.revokeLease(id),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    async get(key, revision) {
      if (key.includes('/configmaps/')) await held.promise;
      return await store.get(key, revision);
    },
    release: held.resolve,
  };
}

test('one client in a loop keeps neither heartbeats nor other clients from being answered', async () => {
  await using store = slowStore();
  await using fixture = await startServerFixture({ store });
  const greedy = fixture.admin;
  const node = await fixture.identity('system:node:m1', ['system:nodes']);
  const other = await fixture.identity('other', ['system:masters']);
  const leases = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
  const lease = { metadata: { name: 'm1' }, spec: { holderIdentity: 'm1' } };
  const made = await fixture.call('POST', leases, { as: node, body: lease });
  assert.equal(made.status, 201);
  let answered = 0;
  const flood = Array.from({ length: 450 }, async (_, i) => {
    const { status } = await fixture.call('GET', `${CONFIG_MAPS}/c${i}`, { as: greedy });
    answered++;
    return status;
  });
  // The flood is inside when the first of it are refused: all seats that one client can have are taken.
  await until(() => answered > 0);
  const renewed = await fixture.call('PUT', `${leases}/m1`, { as: node, body: made.text });
  assert.equal(renewed.status, 200, renewed.text);
  assert.equal((await fixture.call('GET', '/api/v1/nodes', { as: other })).status, 200);
  assert.equal((await fixture.call('GET', '/healthz')).status, 200);
  store.release();
  const statuses = await Promise.all(flood);
  const count = (status: number) => statuses.filter((one) => one === status).length;
  assert.equal(count(404) + count(429), statuses.length);
  assert.ok(count(429) >= 1 && count(404) >= 200, `${count(404)} answered, ${count(429)} refused`);
  assert.equal((await fixture.call('GET', '/api/v1/nodes', { as: greedy })).status, 200);
});
