import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SERVICE, type Service, type ServiceSpec } from '#api/core/v1/service.ts';
import { SHARING_KEY_ANNOTATION } from '#api/core/v1/service-load-balancer.ts';
import type { KubeObject } from '#api/meta.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { SERVICE_ADDRESS_POOL } from '#api/tulle/v1alpha1/service-address-pool.ts';
import { LOAD_BALANCER_IP_PREFIX } from '../registry/keys.ts';
import { AS_ADMIN, type Fixture, openFixture } from '../registry/test-registries.ts';

const pool = (name: string, ...addresses: string[]) => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'ServiceAddressPool',
  metadata: { name },
  spec: { addresses },
});

async function create(fixture: Fixture, name: string, spec: ServiceSpec = {}, key = '') {
  await fixture.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, ...(key === '' ? {} : { annotations: { [SHARING_KEY_ANNOTATION]: key } }) },
    spec: { type: 'LoadBalancer', ports: [{ port: 80 }], selector: { app: name }, ...spec },
  });
}

const update = (fixture: Fixture, name: string, subresource: string, change: object) =>
  fixture
    .of(SERVICE)
    .update(
      { namespace: 'default', name, subresource },
      (stored) => ({ ...stored, ...change }) as KubeObject,
      AS_ADMIN,
    );

const give = (fixture: Fixture, name: string, ...addresses: string[]) =>
  update(fixture, name, 'status', {
    status: { loadBalancer: { ingress: addresses.map((ip) => ({ ip })) } },
  });

const specOf = async (fixture: Fixture, name: string) =>
  ((await fixture.of(SERVICE).get({ namespace: 'default', name })) as Service).spec;

/** `192.0.2.1=a,b` of each record. */
async function records(fixture: Fixture): Promise<string[]> {
  const { entries } = await fixture.store.list(LOAD_BALANCER_IP_PREFIX);
  return entries.map(({ key, value }) => {
    const claims = JSON.parse(Buffer.from(value).toString()) as { name: string }[];
    return `${key.slice(LOAD_BALANCER_IP_PREFIX.length)}=${claims.map((it) => it.name)}`;
  });
}

async function withPool(): Promise<Fixture> {
  const fixture = await openFixture();
  await fixture.create(SERVICE_ADDRESS_POOL, pool('p', '192.0.2.0/28'));
  return fixture;
}

describe('LoadBalancerAddresses', () => {
  test('records an address with the status that shows it, and forgets it with the service', async () => {
    await using fixture = await withPool();
    await create(fixture, 'a');
    await give(fixture, 'a', '192.0.2.1', '198.51.100.1');
    assert.deepEqual(await records(fixture), ['192.0.2.1=a']);
    await give(fixture, 'a', '192.0.2.2');
    assert.deepEqual(await records(fixture), ['192.0.2.2=a']);
    await fixture.of(SERVICE).delete({ namespace: 'default', name: 'a' }, AS_ADMIN);
    assert.deepEqual(await records(fixture), []);
  });

  test('a service that is no load balancer any more shows none and keeps none', async () => {
    await using fixture = await withPool();
    await create(fixture, 'a');
    await give(fixture, 'a', '192.0.2.1');
    const { object } = await update(fixture, 'a', '', {
      spec: { ...(await specOf(fixture, 'a')), type: 'ClusterIP' },
    });
    assert.deepEqual((object as Service).status, { loadBalancer: {} });
    assert.deepEqual(await records(fixture), []);
  });

  test('leaves the addresses of other classes alone', async () => {
    await using fixture = await withPool();
    for (const name of ['a', 'b']) {
      await create(fixture, name, { loadBalancerClass: 'example.org/other' });
      await give(fixture, name, '192.0.2.1');
    }
    assert.deepEqual(await records(fixture), []);
  });

  for (const { name, a, b, keys, message } of [
    { name: 'without a key', a: {}, b: {}, keys: ['', ''], message: /no common sharing key/ },
    { name: 'of other keys', a: {}, b: {}, keys: ['x', 'y'], message: /no common sharing key/ },
    { name: 'of one port', a: {}, b: {}, keys: ['x', 'x'], message: /default\/a, .* uses TCP\/80/ },
    {
      name: 'of which one is Local',
      a: {},
      b: { ports: [{ port: 81 }], externalTrafficPolicy: 'Local' },
      keys: ['x', 'x'],
      message: /another externalTrafficPolicy/,
    },
    {
      name: 'of other ports',
      a: {},
      b: { ports: [{ port: 80, protocol: 'UDP' }] },
      keys: ['x', 'x'],
      message: undefined,
    },
    {
      name: 'of one selector and Local',
      a: { externalTrafficPolicy: 'Local', selector: { app: 'x' } },
      b: { externalTrafficPolicy: 'Local', selector: { app: 'x' }, ports: [{ port: 81 }] },
      keys: ['x', 'x'],
      message: undefined,
    },
  ] satisfies { name: string; a: ServiceSpec; b: ServiceSpec; keys: string[]; message: unknown }[])
    test(`${message === undefined ? 'lets' : 'does not let'} services ${name} share`, async () => {
      await using fixture = await withPool();
      await create(fixture, 'a', a, keys[0]);
      await create(fixture, 'b', b, keys[1]);
      await give(fixture, 'a', '192.0.2.1');
      if (message === undefined) await give(fixture, 'b', '192.0.2.1');
      else await assert.rejects(give(fixture, 'b', '192.0.2.1'), { status: 422, message });
      const expected = message === undefined ? ['192.0.2.1=a,b'] : ['192.0.2.1=a'];
      assert.deepEqual(await records(fixture), expected);
    });

  test('refuses a change of a service that would break the sharing', async () => {
    await using fixture = await withPool();
    await create(fixture, 'a', {}, 'x');
    await create(fixture, 'b', { ports: [{ port: 81 }] }, 'x');
    for (const name of ['a', 'b']) await give(fixture, name, '192.0.2.1');
    const spec = await specOf(fixture, 'b');
    await assert.rejects(update(fixture, 'b', '', { spec: { ...spec, ports: [{ port: 80 }] } }), {
      status: 422,
      message: /this change cannot be made while it has this address: .* uses TCP\/80 too/,
    });
    await update(fixture, 'b', '', { spec: { ...spec, ports: [{ port: 82 }] } });
  });

  test('lets one of two services that are given an address at once have it', async () => {
    await using fixture = await withPool();
    for (const name of ['a', 'b']) await create(fixture, name);
    const results = await Promise.allSettled(
      ['a', 'b'].map((name) => give(fixture, name, '192.0.2.1')),
    );
    assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  });
});

describe('AddressPools', () => {
  for (const [addresses, message] of [
    [['10.96.0.10-10.96.0.20'], /overlaps the service range \(10\.96\.0\.0\/24\)/],
    [['10.244.1.0/24'], /overlaps IPPool "pods" \(10\.244\.0\.0\/16\)/],
    [['192.0.2.15-192.0.2.40'], /overlaps ServiceAddressPool "p" \(192\.0\.2\.0\/28\)/],
    [['192.0.2.40', '192.0.2.32/28'], /spec\.addresses\[1\]: Duplicate/],
    [['127.0.0.1'], /loopback/],
    [['nonsense'], /must be a prefix/],
    [[], /spec\.addresses: Required/],
  ] as const)
    test(`refuses a pool of ${JSON.stringify(addresses)}`, async () => {
      await using fixture = await withPool();
      await fixture.create(IP_POOL, {
        apiVersion: 'tulle.dev/v1alpha1',
        kind: 'IPPool',
        metadata: { name: 'pods' },
        spec: { cidr: '10.244.0.0/16' },
      });
      const sent = pool('q', ...addresses);
      await assert.rejects(fixture.create(SERVICE_ADDRESS_POOL, sent), { status: 422, message });
    });

  test('refuses a pool of pod addresses over one of services', async () => {
    await using fixture = await withPool();
    const pods = {
      apiVersion: 'tulle.dev/v1alpha1',
      kind: 'IPPool',
      metadata: { name: 'pods' },
      spec: { cidr: '192.0.2.0/24' },
    };
    await assert.rejects(fixture.create(IP_POOL, pods), {
      status: 422,
      message: /overlaps ServiceAddressPool "p"/,
    });
  });

  test('keeps a pool, and an address of it, that services have', async () => {
    await using fixture = await withPool();
    await create(fixture, 'a');
    await give(fixture, 'a', '192.0.2.9');
    const pools = fixture.of(SERVICE_ADDRESS_POOL);
    const target = { namespace: '', name: 'p' };
    const shrink = (text: string) =>
      pools.update(
        target,
        (stored) => ({ ...stored, spec: { addresses: [text] } }) as KubeObject,
        AS_ADMIN,
      );
    await assert.rejects(pools.delete(target, AS_ADMIN), {
      status: 403,
      message: /services have addresses of this pool: 192\.0\.2\.9 \(default\/a\)/,
    });
    await assert.rejects(shrink('192.0.2.0/29'), {
      status: 422,
      message: /would leave the pool: 192\.0\.2\.9/,
    });
    await shrink('192.0.2.8/29');
    await give(fixture, 'a');
    await pools.delete(target, AS_ADMIN);
  });

  test('lets not both an address be given and its pool go', async () => {
    await using fixture = await withPool();
    await create(fixture, 'a');
    const results = await Promise.allSettled([
      give(fixture, 'a', '192.0.2.9'),
      fixture.of(SERVICE_ADDRESS_POOL).delete({ namespace: '', name: 'p' }, AS_ADMIN),
    ]);
    const [given, deleted] = results.map(({ status }) => status === 'fulfilled');
    // An address of no pool may be shown, but is not guarded.
    const { length } = await records(fixture);
    assert.equal(length, deleted ? 0 : 1);
    assert.ok(given);
  });
});
