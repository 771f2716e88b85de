import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { SERVICE_CIDR, type ServiceCIDR } from '#api/networking/v1/service-cidr.ts';
import { IP_POOL, type IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { cidr, type Ip, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { bootstrap } from './bootstrap.ts';
import { type ClusterConfiguration, checkConfiguration } from './configuration.ts';
import { AS_ADMIN, type Fixture, openFixture } from './registry/test-registries.ts';

const V4 = cidr('10.96.0.0/24');
const V6 = cidr('fd00:96::/112');
const CONFIGURATION: ClusterConfiguration = {
  serviceCidrs: [V4, V6],
  dnsServiceIps: [ip('10.96.0.10'), ip('fd00:96::a')],
  pools: [{ name: 'default', cidr: cidr('10.244.0.0/16'), blockSize: 24 }],
  clusterDomain: 'cluster.local',
};

async function start(fixture: Fixture, address?: Ip, warnings: string[] = []): Promise<void> {
  await bootstrap({
    store: fixture.store,
    registryOf: fixture.of,
    configuration: CONFIGURATION,
    ...(address === undefined ? {} : { advertised: { address, port: 6443 } }),
    log: { ...silentLogger, warn: (_fields, message) => warnings.push(message) },
  });
}

test('bootstrap() makes the namespaces, services and pools of a new cluster', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  await start(fixture);
  for (const name of ['default', 'kube-system', 'kube-node-lease'])
    await fixture.of(NAMESPACE).get({ namespace: '', name });
  const services = fixture.of(SERVICE);
  const api = (await services.get({ namespace: 'default', name: 'kubernetes' })) as Service;
  assert.deepEqual(api.spec.clusterIPs, ['10.96.0.1']);
  const dns = (await services.get({ namespace: 'kube-system', name: 'kube-dns' })) as Service;
  assert.deepEqual(dns.spec.clusterIPs, CONFIGURATION.dnsServiceIps);
  assert.deepEqual(
    dns.spec.ports?.map(({ name, protocol, port }) => [name, protocol, port]),
    [
      ['dns', 'UDP', 53],
      ['dns-tcp', 'TCP', 53],
    ],
  );
  const pool = (await fixture.of(IP_POOL).get({ namespace: '', name: 'default' })) as IPPool;
  assert.deepEqual([pool.spec.cidr, pool.spec.blockSize], ['10.244.0.0/16', 24]);
});

test('bootstrap() goes on after a crash at any point', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  const { transact } = fixture.store;
  let left = 0;
  fixture.store.transact = (...args) => {
    if (left-- <= 0) throw new Error('killed');
    return transact.apply(fixture.store, args);
  };
  for (let writes = 0; ; writes++) {
    left = writes === 0 ? 0 : 1; // each start gets one write further than the one before
    try {
      await start(fixture);
      break;
    } catch (error) {
      assert.ok(error instanceof Error && error.message === 'killed', String(error));
    }
  }
  left = Number.POSITIVE_INFINITY;
  await fixture.of(IP_POOL).get({ namespace: '', name: 'default' });
});

test('bootstrap() at a later start writes nothing', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  await start(fixture, ip('192.0.2.1'));
  const before = await fixture.store.revision();
  await start(fixture, ip('192.0.2.1'));
  assert.equal(await fixture.store.revision(), before);
});

test('bootstrap() keeps the endpoint of the API service at the address of the server', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  for (const [address, family] of [
    ['192.0.2.1', 'IPv4'],
    ['192.0.2.2', 'IPv4'],
    ['2001:db8::1', 'IPv6'],
  ] as const) {
    await start(fixture, ip(address));
    const target = { namespace: 'default', name: 'kubernetes' };
    const slice = (await fixture.of(ENDPOINT_SLICE).get(target)) as EndpointSlice;
    assert.equal(slice.addressType, family);
    assert.deepEqual(slice.endpoints?.[0]?.addresses, [address]);
    assert.equal(slice.ports?.[0]?.port, 6443);
  }
});

const RANGES = { namespace: '', name: 'kubernetes' };
const ranges = (...cidrs: string[]): ServiceCIDR => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'ServiceCIDR',
  metadata: { name: 'kubernetes' },
  spec: { cidrs },
});

test('bootstrap() tells the service ranges in a ServiceCIDR that nobody may delete', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  await start(fixture);
  const registry = fixture.of(SERVICE_CIDR);
  assert.deepEqual(((await registry.get(RANGES)) as ServiceCIDR).spec.cidrs, [V4, V6]);
  await assert.rejects(registry.delete(RANGES, AS_ADMIN), {
    status: 403,
    message: /--service-cidr/,
  });
  const other = { ...ranges(V4), metadata: { name: 'mine' } };
  await assert.rejects(fixture.create(SERVICE_CIDR, other), {
    status: 422,
    message: /overlaps the service range/,
  });
});

for (const inUse of [false, true])
  test(`bootstrap() corrects a ServiceCIDR that tells other ranges${inUse ? ', but not while one is in use' : ''}`, async () => {
    await using fixture = await openFixture({ serviceCidrs: [V4] });
    await fixture.create(SERVICE_CIDR, ranges(V6));
    if (inUse)
      await fixture.create(SERVICE, {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'six' },
        spec: { clusterIP: 'fd00:96::9', ipFamilies: ['IPv6'], ports: [{ port: 80 }] },
      });
    const warnings: string[] = [];
    await bootstrap({
      store: fixture.store,
      registryOf: fixture.of,
      configuration: { ...CONFIGURATION, serviceCidrs: [V4], dnsServiceIps: [ip('10.96.0.10')] },
      log: { ...silentLogger, warn: (_fields, message) => warnings.push(message) },
    });
    const stored = (await fixture.of(SERVICE_CIDR).get(RANGES)) as ServiceCIDR;
    assert.deepEqual(stored.spec.cidrs, [inUse ? V6 : V4]);
    assert.equal(warnings.length, inUse ? 1 : 0);
  });

test('bootstrap() makes a deleted service again, at its address, but no deleted pool', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  await start(fixture);
  await fixture.of(SERVICE).delete({ namespace: 'kube-system', name: 'kube-dns' }, AS_ADMIN);
  await fixture.of(IP_POOL).delete({ namespace: '', name: 'default' }, AS_ADMIN);
  await start(fixture);
  await fixture.of(SERVICE).get({ namespace: 'kube-system', name: 'kube-dns' });
  await assert.rejects(fixture.of(IP_POOL).get({ namespace: '', name: 'default' }), {
    status: 404,
  });
});

test('bootstrap() warns when the DNS address is not the one the cluster was made with', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  await start(fixture);
  const target = { namespace: 'kube-system', name: 'kube-dns' };
  await fixture.of(SERVICE).delete(target, AS_ADMIN);
  await fixture.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: target,
    spec: { clusterIP: '10.96.0.53', ports: [{ port: 53 }] },
  });
  const warnings: string[] = [];
  await start(fixture, undefined, warnings);
  assert.match(warnings.join('\n'), /made with another DNS address/);
});

for (const [what, change, pattern] of [
  ['no service range', { serviceCidrs: [], dnsServiceIps: [] }, /no service range/],
  ['two ranges of one family', { serviceCidrs: [V4, cidr('10.97.0.0/24')] }, /two service ranges/],
  ['a DNS address elsewhere', { dnsServiceIps: [ip('192.0.2.1')] }, /192\.0\.2\.1 is not in/],
  [
    'a pool over the service range',
    { pools: [{ name: 'p', cidr: cidr('10.0.0.0/8') }] },
    /pool "p" \(10\.0\.0\.0\/8\) overlaps the service range \(10\.96\.0\.0\/24\)/,
  ],
  [
    'two pools that overlap',
    {
      pools: [
        { name: 'p', cidr: cidr('10.244.0.0/16') },
        { name: 'q', cidr: cidr('10.244.4.0/24') },
      ],
    },
    /pool "q" .* overlaps pool "p"/,
  ],
] as const)
  test(`checkConfiguration() refuses ${what}`, () => {
    assert.throws(() => checkConfiguration({ ...CONFIGURATION, ...change }), {
      name: 'UserError',
      message: pattern,
    });
  });

test('checkConfiguration() takes a good one', () => {
  checkConfiguration(CONFIGURATION);
});
