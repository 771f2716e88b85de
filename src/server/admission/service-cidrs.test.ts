import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { SERVICE_CIDR } from '#api/networking/v1/service-cidr.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { cidr, cidrContains, ip } from '#lib/ip.ts';
import { collectionPrefix } from '../registry/keys.ts';
import { AS_ADMIN, type Fixture, openFixture } from '../registry/test-registries.ts';

const addRange = (fixture: Fixture, name: string, ...cidrs: string[]) =>
  fixture.create(SERVICE_CIDR, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name },
    spec: { cidrs },
  });

async function create(fixture: Fixture, name: string, spec: object = {}): Promise<Service> {
  return (await fixture.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: { ports: [{ port: 80 }], ...spec },
  })) as Service;
}

const removeRange = (fixture: Fixture, name: string) =>
  fixture.of(SERVICE_CIDR).delete({ namespace: '', name }, AS_ADMIN);

/** As the controller does when no service has an address of it. */
const letGo = (fixture: Fixture, name: string) =>
  fixture
    .of(SERVICE_CIDR)
    .update(
      { namespace: '', name },
      (stored) => ({ ...stored, metadata: { ...stored.metadata, finalizers: [] } }),
      AS_ADMIN,
    );

describe('ServiceCIDRs', () => {
  test('are used when the configured range is full, and kept while they are', async () => {
    await using fixture = await openFixture({ serviceCidrs: [cidr('10.96.0.0/30')] });
    for (const name of ['a', 'b']) await create(fixture, name);
    await assert.rejects(create(fixture, 'c'), {
      status: 500,
      message: /10\.96\.0\.0\/30 is full/,
    });
    await addRange(fixture, 'more', '10.97.0.0/24');
    const { spec } = await create(fixture, 'c');
    assert.ok(cidrContains(cidr('10.97.0.0/24'), ip(spec.clusterIP ?? '')));
    // It is to go: it gives nothing out any more, and stays as long as somebody has an address of it.
    await removeRange(fixture, 'more');
    await assert.rejects(create(fixture, 'd'), { status: 500 });
    await assert.rejects(addRange(fixture, 'same', '10.97.0.0/25'), { status: 422 });
    await assert.rejects(letGo(fixture, 'more'), {
      status: 403,
      message: /1 service\(s\) have addresses of this range/,
    });
    await fixture.of(SERVICE).delete({ namespace: 'default', name: 'c' }, AS_ADMIN);
    await letGo(fixture, 'more');
    assert.deepEqual((await fixture.store.list(collectionPrefix(SERVICE_CIDR))).entries, []);
  });

  test('may bring a second family, and addresses that are asked for', async () => {
    await using fixture = await openFixture();
    await addRange(fixture, 'six', 'fd00:97::/112');
    const { spec } = await create(fixture, 'a', {
      ipFamilyPolicy: 'RequireDualStack',
      clusterIPs: ['10.96.0.9', 'fd00:97::9'],
    });
    assert.deepEqual(spec.clusterIPs, ['10.96.0.9', 'fd00:97::9']);
    await assert.rejects(create(fixture, 'b', { clusterIP: 'fd00:98::9' }), {
      status: 422,
      message: /The range of valid IPs is fd00:97::\/112/,
    });
  });

  for (const [cidrs, message] of [
    [['10.96.0.128/25'], /overlaps the service range 10\.96\.0\.0\/24/],
    [['10.244.7.0/24'], /overlaps IPPool "pods"/],
    [['10.97.0.0/16', '10.98.0.0/16'], /no more than one IP for each IP family/],
    [['10.97.0.1/16'], /canonical form/],
    [[], /spec\.cidrs: Required/],
  ] as const)
    test(`of ${JSON.stringify(cidrs)} are refused`, async () => {
      await using fixture = await openFixture();
      await fixture.create(IP_POOL, {
        apiVersion: 'tulle.dev/v1alpha1',
        kind: 'IPPool',
        metadata: { name: 'pods' },
        spec: { cidr: '10.244.0.0/16' },
      });
      await assert.rejects(addRange(fixture, 'x', ...cidrs), { status: 422, message });
    });

  test('do not go while an address is taken out of them', async () => {
    await using fixture = await openFixture();
    await addRange(fixture, 'more', '10.97.0.0/24');
    const results = await Promise.allSettled([
      removeRange(fixture, 'more').then(() => letGo(fixture, 'more')),
      create(fixture, 'a', { clusterIP: '10.97.0.9' }),
    ]);
    assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  });

  test('that are to go leave services their addresses, whatever of them changes', async () => {
    await using fixture = await openFixture();
    await addRange(fixture, 'six', 'fd00:97::/112');
    const dual = { ipFamilyPolicy: 'PreferDualStack', clusterIPs: ['10.96.0.9', 'fd00:97::9'] };
    await create(fixture, 'a', dual);
    await removeRange(fixture, 'six');
    const changed = await fixture
      .of(SERVICE)
      .update(
        { namespace: 'default', name: 'a' },
        (stored) => ({ ...stored, metadata: { ...stored.metadata, labels: { a: 'b' } } }),
        AS_ADMIN,
      );
    assert.deepEqual((changed.object as Service).spec.clusterIPs, dual.clusterIPs);
    const { spec } = await create(fixture, 'b', { ipFamilyPolicy: 'PreferDualStack' });
    assert.deepEqual(spec.ipFamilies, ['IPv4']);
  });

  test('that nothing holds do not go while they are in use', async () => {
    await using fixture = await openFixture();
    await addRange(fixture, 'more', '10.97.0.0/24');
    await create(fixture, 'a', { clusterIP: '10.97.0.9' });
    await letGo(fixture, 'more');
    await assert.rejects(removeRange(fixture, 'more'), { status: 403 });
    await fixture.of(SERVICE).delete({ namespace: 'default', name: 'a' }, AS_ADMIN);
    await removeRange(fixture, 'more');
  });
});
