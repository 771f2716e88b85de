import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SERVICE, type Service, type ServiceSpec } from '#api/core/v1/service.ts';
import type { KubeObject } from '#api/meta.ts';
import { cidr, ip } from '#lib/ip.ts';
import { CLUSTER_IP_PREFIX } from '../registry/keys.ts';
import { AS_ADMIN, DRY_RUN, type Fixture, openFixture } from '../registry/test-registries.ts';
import { isUsable, upperBandStart } from './cluster-ips.ts';

const V4 = cidr('10.96.0.0/24');
const V6 = cidr('fd00:96::/112');

function service(name: string, spec: Partial<ServiceSpec> = {}) {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: { ports: [{ port: 80 }], selector: { app: name }, ...spec },
  };
}

async function create(fixture: Fixture, name: string, spec: Partial<ServiceSpec> = {}) {
  return (await fixture.create(SERVICE, service(name, spec))) as Service;
}

async function change(fixture: Fixture, name: string, spec: Partial<ServiceSpec>) {
  const written = await fixture.of(SERVICE).update(
    { namespace: 'default', name },
    (stored) => {
      const next = { ...(stored as Service).spec, ...spec };
      return { ...stored, spec: JSON.parse(JSON.stringify(next)) } as KubeObject;
    },
    AS_ADMIN,
  );
  return written.object as Service;
}

/** The addresses that have a record, and whose. */
async function records(fixture: Fixture): Promise<Record<string, string>> {
  const { entries } = await fixture.store.list(CLUSTER_IP_PREFIX);
  return Object.fromEntries(
    entries.map(({ key, value }) => [
      key.slice(CLUSTER_IP_PREFIX.length),
      JSON.parse(Buffer.from(value).toString()).name,
    ]),
  );
}

test('a service gets an address, with its record in the same revision, and gives both back', async () => {
  await using fixture = await openFixture();
  const { spec, metadata } = await create(fixture, 'a');
  assert.ok(isUsable(V4, ip(spec.clusterIP ?? '')));
  assert.deepEqual(spec.clusterIPs, [spec.clusterIP]);
  assert.deepEqual(spec.ipFamilies, ['IPv4']);
  assert.equal(spec.ipFamilyPolicy, 'SingleStack');
  assert.deepEqual(await records(fixture), { [spec.clusterIP ?? '']: 'a' });
  const record = await fixture.store.get(CLUSTER_IP_PREFIX + spec.clusterIP);
  assert.equal(String(record?.modRevision), metadata.resourceVersion);
  await fixture.of(SERVICE).delete({ namespace: 'default', name: 'a' }, AS_ADMIN);
  assert.deepEqual(await records(fixture), {});
});

test('a requested address is given, and refused to the next who asks', async () => {
  await using fixture = await openFixture();
  assert.equal(
    (await create(fixture, 'a', { clusterIP: '10.96.0.5' })).spec.clusterIP,
    '10.96.0.5',
  );
  await assert.rejects(create(fixture, 'b', { clusterIP: '10.96.0.5' }), {
    status: 422,
    message:
      'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.5"]: failed to allocate IP 10.96.0.5: provided IP is already allocated',
  });
});

for (const address of ['10.97.0.1', '10.96.0.0', '10.96.0.255'])
  test(`an address that cannot be given (${address}) is refused with the range`, async () => {
    await using fixture = await openFixture();
    await assert.rejects(create(fixture, 'a', { clusterIP: address }), {
      status: 422,
      message:
        /the provided IP is not in the valid range\. The range of valid IPs is 10\.96\.0\.0\/24/,
    });
  });

test('services made at the same time get different addresses', async () => {
  await using fixture = await openFixture({ serviceCidrs: [cidr('10.96.0.0/28')] });
  const made = await Promise.all(Array.from({ length: 14 }, (_, i) => create(fixture, `s${i}`)));
  assert.equal(new Set(made.map(({ spec }) => spec.clusterIP)).size, 14);
});

test('a full range is an error that names it', async () => {
  await using fixture = await openFixture({ serviceCidrs: [cidr('10.96.0.0/30')] });
  await create(fixture, 'a');
  await create(fixture, 'b');
  await assert.rejects(create(fixture, 'c'), {
    status: 500,
    message:
      /failed to allocate a cluster IP: the service range 10\.96\.0\.0\/30 is full, 2 addresses/,
  });
});

test('addresses are chosen above the band for requested ones, and below only when that is full', async () => {
  await using fixture = await openFixture({
    serviceCidrs: [cidr('10.96.0.0/27')],
    random: () => 0,
  });
  assert.equal(upperBandStart(cidr('10.96.0.0/27')), 16n);
  const last = async (i: number) =>
    Number((await create(fixture, `s${i}`)).spec.clusterIP?.split('.')[3]);
  for (let i = 0; i < 15; i++) assert.ok((await last(i)) >= 16);
  assert.ok((await last(15)) < 16);
});

for (const [range, start] of [
  ['10.0.0.0/28', 1n],
  ['10.0.0.0/24', 16n],
  ['10.0.0.0/20', 256n],
  ['10.0.0.0/12', 256n],
] as const)
  test(`upperBandStart() of ${range} is ${start}, as in kubernetes`, () => {
    assert.equal(upperBandStart(cidr(range)), start);
  });

test('a headless service has no address, and an external name neither', async () => {
  await using fixture = await openFixture();
  const headless = await create(fixture, 'a', { clusterIP: 'None' });
  assert.deepEqual(headless.spec.clusterIPs, ['None']);
  assert.deepEqual(headless.spec.ipFamilies, ['IPv4']);
  const { spec } = await create(fixture, 'b', {
    type: 'ExternalName',
    externalName: 'example.org',
  });
  assert.equal(spec.clusterIP, undefined);
  assert.equal(spec.ipFamilies, undefined);
  assert.deepEqual(await records(fixture), {});
});

test('a service that becomes an external name gives its address back, and gets one when it returns', async () => {
  await using fixture = await openFixture();
  await create(fixture, 'a');
  await change(fixture, 'a', { type: 'ExternalName', externalName: 'example.org' });
  assert.deepEqual(await records(fixture), {});
  const { spec } = await change(fixture, 'a', { type: 'ClusterIP' });
  assert.deepEqual(await records(fixture), { [spec.clusterIP ?? '']: 'a' });
});

test('a client that sends no address keeps what the service has', async () => {
  await using fixture = await openFixture();
  const before = await create(fixture, 'a');
  const sent = service('a', { ports: [{ port: 81 }] }) as KubeObject;
  const { object } = await fixture
    .of(SERVICE)
    .update({ namespace: 'default', name: 'a' }, () => sent, AS_ADMIN);
  assert.deepEqual((object as Service).spec.clusterIPs, before.spec.clusterIPs);
  assert.equal((object as Service).spec.ports?.[0]?.port, 81);
});

test('the address of a service cannot be changed', async () => {
  await using fixture = await openFixture();
  await create(fixture, 'a', { clusterIP: '10.96.0.5' });
  await assert.rejects(
    change(fixture, 'a', { clusterIP: '10.96.0.6', clusterIPs: ['10.96.0.6'] }),
    { status: 422 },
  );
  assert.deepEqual(await records(fixture), { '10.96.0.5': 'a' });
});

test('a service may have an address of each family, and change its mind', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  const both = await create(fixture, 'a', { ipFamilyPolicy: 'PreferDualStack' });
  assert.deepEqual(both.spec.ipFamilies, ['IPv4', 'IPv6']);
  assert.ok(isUsable(V6, ip(both.spec.clusterIPs?.[1] ?? '')));
  assert.equal(Object.keys(await records(fixture)).length, 2);
  const one = await change(fixture, 'a', { ipFamilyPolicy: 'SingleStack' });
  assert.deepEqual(one.spec.clusterIPs, [both.spec.clusterIP]);
  assert.deepEqual(one.spec.ipFamilies, ['IPv4']);
  assert.deepEqual(await records(fixture), { [both.spec.clusterIP ?? '']: 'a' });
  const again = await change(fixture, 'a', { ipFamilyPolicy: 'RequireDualStack' });
  assert.equal(again.spec.clusterIPs?.length, 2);
  assert.equal(Object.keys(await records(fixture)).length, 2);
});

test('a service may be of the secondary family alone', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  const { spec } = await create(fixture, 'a', { ipFamilies: ['IPv6'] });
  assert.ok(isUsable(V6, ip(spec.clusterIP ?? '')));
});

test('an address may name the family', async () => {
  await using fixture = await openFixture({ serviceCidrs: [V4, V6] });
  const { spec } = await create(fixture, 'a', { clusterIP: 'fd00:96::7' });
  assert.deepEqual(spec.ipFamilies, ['IPv6']);
});

test('dual stack that the cluster does not have is refused', async () => {
  await using fixture = await openFixture();
  await assert.rejects(create(fixture, 'a', { ipFamilyPolicy: 'RequireDualStack' }), {
    status: 422,
    message:
      /spec\.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services/,
  });
  await assert.rejects(create(fixture, 'a', { ipFamilies: ['IPv6'] }), {
    status: 422,
    message: /spec\.ipFamilies\[0\]: Invalid value: "IPv6": not configured on this cluster/,
  });
  const { spec } = await create(fixture, 'a', { ipFamilyPolicy: 'PreferDualStack' });
  assert.deepEqual(spec.ipFamilies, ['IPv4']);
});

test('a dry run and a refused service leave no record', async () => {
  await using fixture = await openFixture();
  const { object } = await fixture
    .of(SERVICE)
    .create('default', service('a') as KubeObject, DRY_RUN);
  assert.ok((object as Service).spec.clusterIP);
  await assert.rejects(create(fixture, 'b', { ports: [{ port: 70000 }] }), { status: 422 });
  await create(fixture, 'c', { clusterIP: '10.96.0.9' });
  await assert.rejects(create(fixture, 'c'), { status: 409 });
  assert.deepEqual(await records(fixture), { '10.96.0.9': 'c' });
});
