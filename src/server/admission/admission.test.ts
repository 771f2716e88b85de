import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LEASE } from '#api/coordination/v1/lease.ts';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { isNamespaceGone } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';

import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { POLICY_USAGE } from '#api/tulle/v1alpha1/policy-usage.ts';
import type { ApiError } from '#lib/errors.ts';
import { syncNamespaces } from '../namespace-deletion.ts';
import type { Principal } from '../principal.ts';
import { AS_ADMIN, configMap, type Fixture, openFixture } from '../registry/test-registries.ts';

const M1: Principal = { name: 'system:node:m1', groups: ['system:nodes'] };
const AS_M1 = { principal: M1, dryRun: false };

const node = (name: string) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } });
const pod = (name: string, nodeName: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: { nodeName, containers: [{ name: 'a', image: 'b' }] },
});
const pool = (name: string, cidr: string) => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name },
  spec: { cidr },
});
const block = (name: string, cidr: string, owner: string, poolName = 'p') => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name },
  spec: {
    cidr,
    pool: poolName,
    node: owner,
    affinity: 'Pending',
    sequence: 0,
    allocations: {},
    free: Array.from({ length: 16 }, (_, i) => i),
    releasedAt: {},
  },
});

async function withPool(): Promise<Fixture> {
  const fixture = await openFixture();
  await fixture.create(IP_POOL, {
    ...pool('p', '10.244.0.0/16'),
    spec: { cidr: '10.244.0.0/16', blockSize: 28 },
  });
  return fixture;
}

test('nodeRestriction lets a node register itself and no other', async () => {
  await using fixture = await openFixture();
  await fixture.create(NODE, node('m1'), M1);
  await assert.rejects(fixture.create(NODE, node('m2'), M1), {
    status: 403,
    message: 'nodes "m2" is forbidden: node "m1" may write only its own Node',
  });
});

test('nodeRestriction lets a node write its own lease only', async () => {
  await using fixture = await openFixture();
  await fixture.create(NAMESPACE, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'kube-node-lease' },
  });
  const lease = (name: string, namespace: string) => ({
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name, namespace },
    spec: { holderIdentity: name, leaseDurationSeconds: 40 },
  });
  await fixture.create(LEASE, lease('m1', 'kube-node-lease'), M1);
  await assert.rejects(fixture.create(LEASE, lease('m2', 'kube-node-lease'), M1), { status: 403 });
  await assert.rejects(fixture.create(LEASE, lease('m1', 'default'), M1), { status: 403 });
});

test('nodeRestriction lets a node tell of its own rules only', async () => {
  await using fixture = await openFixture();
  const usage = (name: string) => ({
    ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'PolicyUsage', metadata: { name } },
  });
  await fixture.create(POLICY_USAGE, usage('m1'), M1);
  await assert.rejects(fixture.create(POLICY_USAGE, usage('m2'), M1), { status: 403 });
});

test('nodeRestriction lets a node write the pods that run on it only', async () => {
  await using fixture = await openFixture();
  await fixture.create(POD, pod('mine', 'm1'), M1);
  await fixture.create(POD, pod('theirs', 'm2'));
  await assert.rejects(fixture.create(POD, pod('other', 'm2'), M1), { status: 403 });
  const pods = fixture.of(POD);
  await assert.rejects(pods.delete({ namespace: 'default', name: 'theirs' }, AS_M1), {
    status: 403,
  });
  const fail = (stored: KubeObject) => ({ ...stored, status: { phase: 'Failed' } }) as KubeObject;
  const status = (name: string) => ({ namespace: 'default', name, subresource: 'status' });
  await assert.rejects(pods.update(status('theirs'), fail, AS_M1), { status: 403 });
  await pods.update(status('mine'), fail, AS_M1);
  await pods.delete({ namespace: 'default', name: 'mine' }, AS_M1);
});

test('nodeRestriction lets a node take a block that nobody holds, and none that another holds', async () => {
  await using fixture = await withPool();
  await fixture.create(IP_BLOCK, block('10-244-0-0-28', '10.244.0.0/28', 'm1'), M1);
  await fixture.create(IP_BLOCK, block('10-244-0-16-28', '10.244.0.16/28', ''));
  await fixture.create(IP_BLOCK, block('10-244-0-32-28', '10.244.0.32/28', 'm2'));
  const take = (name: string, owner: string) =>
    fixture.of(IP_BLOCK).update(
      { namespace: '', name },
      (stored) => {
        const { spec } = stored as KubeObject & { spec: object };
        return { ...stored, spec: { ...spec, node: owner } } as KubeObject;
      },
      AS_M1,
    );
  await take('10-244-0-16-28', 'm1');
  await assert.rejects(take('10-244-0-32-28', 'm1'), { status: 403 });
  await assert.rejects(take('10-244-0-0-28', 'm2'), { status: 403 });
});

test("nodeRestriction lets a node borrow addresses of another's block, and change nothing else there", async () => {
  await using fixture = await withPool();
  const used = (owner: string, sequence = 1) => ({
    ...{ handle: `h-${owner}`, sequence, since: '2026-01-01T00:00:00Z' },
    ...{ node: owner, purpose: 'Pod' },
  });
  const theirs = block('10-244-0-32-28', '10.244.0.32/28', 'm2');
  await fixture.create(IP_BLOCK, {
    ...theirs,
    spec: {
      ...theirs.spec,
      affinity: 'Confirmed',
      sequence: 1,
      allocations: { 0: used('m2') },
      free: theirs.spec.free.slice(1),
    },
  });
  type Spec = (typeof theirs)['spec'] & { allocations: Record<string, unknown> };
  const change = (edit: (spec: Spec) => Partial<Spec>, labels?: Record<string, string>) =>
    fixture.of(IP_BLOCK).update(
      { namespace: '', name: '10-244-0-32-28' },
      (stored) => {
        const { spec } = stored as KubeObject & { spec: Spec };
        const metadata = { ...stored.metadata, ...(labels === undefined ? {} : { labels }) };
        return { ...stored, metadata, spec: { ...spec, ...edit(spec) } } as KubeObject;
      },
      AS_M1,
    );
  const take = (ordinal: number, owner: string) => (spec: Spec) => ({
    sequence: spec.sequence + 1,
    allocations: { ...spec.allocations, [ordinal]: used(owner, spec.sequence + 1) },
    free: spec.free.filter((it) => it !== ordinal),
  });
  await change(take(1, 'm1'));
  const refused = { status: 403, message: /of others only what it borrows/ };
  await assert.rejects(change(take(2, 'm3')), refused);
  await assert.rejects(
    change((spec) => ({ allocations: { 1: spec.allocations[1] }, free: [...spec.free, 0] })),
    refused,
  );
  await assert.rejects(change(take(2, 'm1'), { a: 'b' }), refused);
  await assert.rejects(
    change((spec) => ({ ...take(2, 'm1')(spec), sequence: 1_000 })),
    refused,
  );
  await assert.rejects(
    change((spec) => ({ free: spec.free.toReversed() })),
    refused,
  );
  await assert.rejects(
    change(() => ({ node: 'm1' })),
    refused,
  );
  await change((spec) => ({
    allocations: { 0: spec.allocations[0] },
    free: [...spec.free, 1],
    releasedAt: { 1: '2026-01-01T00:01:00Z' },
  }));
});

test('ipPools refuses a pool that overlaps another one, with both named', async () => {
  await using fixture = await withPool();
  await assert.rejects(fixture.create(IP_POOL, pool('q', '10.244.128.0/17')), {
    status: 422,
    message:
      /spec\.cidr: Invalid value: "10\.244\.128\.0\/17": pool "q" \(10\.244\.128\.0\/17\) overlaps pool "p" \(10\.244\.0\.0\/16\)/,
  });
});

test('ipPools refuses a pool that overlaps the service range', async () => {
  await using fixture = await openFixture();
  await assert.rejects(fixture.create(IP_POOL, pool('q', '10.96.0.0/16')), {
    status: 422,
    message: /overlaps the service range \(10\.96\.0\.0\/24\)/,
  });
});

test('ipPools lets one of two overlapping pools that come at once through', async () => {
  await using fixture = await openFixture();
  const results = await Promise.allSettled([
    fixture.create(IP_POOL, pool('p', '10.244.0.0/16')),
    fixture.create(IP_POOL, pool('q', '10.244.0.0/17')),
  ]);
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

test('ipPools keeps a pool of which blocks are held, and says by whom', async () => {
  await using fixture = await withPool();
  await fixture.create(IP_BLOCK, block('10-244-0-0-28', '10.244.0.0/28', 'm1'));
  const target = { namespace: '', name: 'p' };
  await assert.rejects(fixture.of(IP_POOL).delete(target, AS_ADMIN), {
    status: 403,
    message: /1 block\(s\) of this pool are in use \(10\.244\.0\.0\/28 on node "m1"\)/,
  });
  await fixture.of(IP_BLOCK).delete({ namespace: '', name: '10-244-0-0-28' }, AS_ADMIN);
  await fixture.of(IP_POOL).delete(target, AS_ADMIN);
});

test('ipPools refuses a block of a pool that is not there', async () => {
  await using fixture = await withPool();
  const lost = block('10-250-0-0-28', '10.250.0.0/28', 'm1', 'q');
  await assert.rejects(fixture.create(IP_BLOCK, lost), {
    status: 403,
    message: /its pool "q" does not exist/,
  });
});

test('ipPools lets not both a block come and its pool go', async () => {
  await using fixture = await withPool();
  const results = await Promise.allSettled([
    fixture.of(IP_POOL).delete({ namespace: '', name: 'p' }, AS_ADMIN),
    fixture.create(IP_BLOCK, block('10-244-0-0-28', '10.244.0.0/28', 'm1')),
  ]);
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

test('namespaceExists keeps the system namespaces', async () => {
  await using fixture = await openFixture();
  await assert.rejects(fixture.of(NAMESPACE).delete({ namespace: '', name: 'default' }, AS_ADMIN), {
    status: 403,
  });
});

test('a deleted namespace takes nothing new, is emptied, and goes', async () => {
  await using fixture = await openFixture();
  const name = 'blue';
  await fixture.create(NAMESPACE, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  const inBlue = (object: string, finalizers: string[] = []) => ({
    ...configMap(object),
    metadata: { name: object, namespace: name, finalizers },
  });
  await fixture.create(CONFIG_MAP, inBlue('a'));
  await fixture.create(CONFIG_MAP, inBlue('b', ['tulle.dev/hold']));
  const namespaces = fixture.of(NAMESPACE);
  const deleted = await namespaces.delete({ namespace: '', name }, AS_ADMIN);
  assert.equal(deleted.removed, false);
  assert.equal((deleted.object as { status?: { phase?: string } }).status?.phase, 'Terminating');
  await assert.rejects(fixture.create(CONFIG_MAP, inBlue('c')), (error: ApiError) => {
    assert.equal(error.status, 403);
    assert.match(
      error.message,
      /unable to create new content in namespace blue because it is being terminated/,
    );
    return isNamespaceGone(error);
  });
  const sync = () =>
    syncNamespaces({ store: fixture.store, registries: fixture.registries, clock: fixture.clock });
  await sync();
  await namespaces.get({ namespace: '', name });
  await fixture
    .of(CONFIG_MAP)
    .update(
      { namespace: name, name: 'b' },
      (stored) => ({ ...stored, metadata: { ...stored.metadata, finalizers: [] } }),
      AS_ADMIN,
    );
  await sync();
  await assert.rejects(namespaces.get({ namespace: '', name }), { status: 404 });
  await assert.rejects(fixture.create(CONFIG_MAP, inBlue('d')), isNamespaceGone);
  await assert.rejects(fixture.of(CONFIG_MAP).get({ namespace: name, name: 'd' }), (error) => {
    return !isNamespaceGone(error);
  });
});

test('a client cannot take the finalizer from a namespace by an ordinary update', async () => {
  await using fixture = await openFixture();
  const { object } = await fixture
    .of(NAMESPACE)
    .update(
      { namespace: '', name: 'default' },
      (stored) => ({ ...stored, spec: { finalizers: [] } }) as KubeObject,
      AS_ADMIN,
    );
  assert.deepEqual((object as { spec?: object }).spec, { finalizers: ['kubernetes'] });
});
