import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SERVICE, type Service, type ServiceSpec } from '#api/core/v1/service.ts';
import type { KubeObject } from '#api/meta.ts';
import { SERVICE_ADDRESS_POOL } from '#api/tulle/v1alpha1/service-address-pool.ts';
import { repairAllocations } from './allocation-repair.ts';
import { encodeObject } from './registry/codec.ts';
import { objectKey } from './registry/keys.ts';
import { AS_ADMIN, type Fixture, openFixture } from './registry/test-registries.ts';

const PREFIX = '/tulle/allocations/';

async function records(fixture: Fixture): Promise<Record<string, string>> {
  const { entries } = await fixture.store.list(PREFIX);
  return Object.fromEntries(
    entries.map(({ key, value }) => [key.slice(PREFIX.length), Buffer.from(value).toString()]),
  );
}

async function create(fixture: Fixture, name: string, spec: ServiceSpec = {}): Promise<Service> {
  return (await fixture.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: {
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      ports: [{ port: 80 }],
      selector: { app: name },
      ...spec,
    },
  })) as Service;
}

async function withServices(): Promise<Fixture> {
  const fixture = await openFixture();
  await fixture.create(SERVICE_ADDRESS_POOL, {
    apiVersion: 'tulle.dev/v1alpha1',
    kind: 'ServiceAddressPool',
    metadata: { name: 'p' },
    spec: { addresses: ['192.0.2.0/28'] },
  });
  await create(fixture, 'a');
  const status = { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } };
  await fixture
    .of(SERVICE)
    .update(
      { namespace: 'default', name: 'a', subresource: 'status' },
      (stored) => ({ ...stored, status }) as KubeObject,
      AS_ADMIN,
    );
  return fixture;
}

const kinds = async (fixture: Fixture) =>
  (await repairAllocations(fixture.store)).map(({ kind }) => kind).sort();

describe('repairAllocations()', () => {
  test('finds nothing where nothing is wrong, and writes nothing', async () => {
    await using fixture = await withServices();
    const before = await fixture.store.revision();
    assert.deepEqual(await kinds(fixture), []);
    assert.equal(await fixture.store.revision(), before);
    // Cluster IP, node port, health check port, address of the load balancer.
    assert.equal(Object.keys(await records(fixture)).length, 4);
  });

  test('makes lost records again, as they were', async () => {
    await using fixture = await withServices();
    const before = await records(fixture);
    for (const key of Object.keys(before))
      await fixture.store.transact([], [{ type: 'delete', key: PREFIX + key }]);
    assert.deepEqual(await kinds(fixture), ['missing', 'missing', 'missing', 'missing']);
    assert.deepEqual(await records(fixture), before);
    assert.deepEqual(await kinds(fixture), []);
  });

  test('frees what no service has, and sets right what names another one', async () => {
    await using fixture = await withServices();
    const before = await records(fixture);
    const value = Buffer.from('{"namespace":"default","name":"gone"}');
    for (const key of ['clusterips/10.96.0.77', 'nodeports/UDP/30001', 'loadbalancerips/192.0.2.5'])
      await fixture.store.transact([], [{ type: 'put', key: PREFIX + key, value }]);
    const [clusterIp = ''] = Object.keys(before).filter((key) => key.startsWith('clusterips'));
    await fixture.store.transact([], [{ type: 'put', key: PREFIX + clusterIp, value }]);
    const [nodePort = ''] = Object.keys(before).filter((key) => key.startsWith('nodeports'));
    const nonsense = Buffer.from('{');
    await fixture.store.transact([], [{ type: 'put', key: PREFIX + nodePort, value: nonsense }]);
    assert.deepEqual(await kinds(fixture), ['leaked', 'leaked', 'leaked', 'missing', 'missing']);
    assert.deepEqual(await records(fixture), before);
  });

  test('tells of an address that two services have, and keeps it for the older one', async () => {
    await using fixture = await withServices();
    const a = (await fixture.of(SERVICE).get({ namespace: 'default', name: 'a' })) as Service;
    const copy = { ...a, metadata: { ...a.metadata, name: 'b' } };
    const key = objectKey(SERVICE, 'default', 'b');
    await fixture.store.transact([], [{ type: 'put', key, value: encodeObject(copy) }]);
    const problems = await repairAllocations(fixture.store);
    const duplicates = problems.filter(({ kind }) => kind === 'duplicate');
    assert.equal(duplicates.length, 4);
    assert.match(
      duplicates[0]?.message ?? '',
      /service default\/a and service default\/b have it; delete one/,
    );
    const [owner] = Object.entries(await records(fixture)).filter(([it]) => it.startsWith('clust'));
    assert.match(owner?.[1] ?? '', /"name":"a"/);
    await fixture.of(SERVICE).delete({ namespace: 'default', name: 'b' }, AS_ADMIN);
    await repairAllocations(fixture.store);
    assert.deepEqual(await kinds(fixture), []);
    assert.equal(Object.keys(await records(fixture)).length, 4);
  });

  test('does not take away what was given after it looked', async () => {
    await using fixture = await withServices();
    const { store } = fixture;
    const key = `${PREFIX}clusterips/10.96.0.77`;
    const value = Buffer.from('{"namespace":"default","name":"gone"}');
    await store.transact([], [{ type: 'put', key, value }]);
    const late: typeof store = Object.assign(Object.create(store) as typeof store, {
      list: store.list.bind(store),
      async transact(...transaction: Parameters<typeof store.transact>) {
        await store.transact([], [{ type: 'delete', key }]);
        await create(fixture, 'late', {
          type: 'ClusterIP',
          clusterIP: '10.96.0.77',
          externalTrafficPolicy: undefined as never,
        });
        return await store.transact(...transaction);
      },
    });
    await repairAllocations(late);
    assert.match((await records(fixture))['clusterips/10.96.0.77'] ?? '', /"name":"late"/);
  });

  test('leaves a service that changes meanwhile to its own transaction', async () => {
    await using fixture = await withServices();
    for (let i = 0; i < 20; i++) {
      const [, service] = await Promise.all([
        repairAllocations(fixture.store),
        create(fixture, `s${i}`),
      ]);
      const { name } = service.metadata;
      if (i % 2 === 0)
        await Promise.all([
          repairAllocations(fixture.store),
          fixture.of(SERVICE).delete({ namespace: 'default', name }, AS_ADMIN),
        ]);
    }
    assert.deepEqual(await kinds(fixture), []);
  });
});
