import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import {
  SERVICE_CIDR,
  SERVICE_CIDR_FINALIZER,
  type ServiceCIDR,
} from '#api/networking/v1/service-cidr.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { systemClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { planServiceCidrs } from './plan.ts';
import { startServiceCidrs } from './service-cidrs.ts';

const range = (name: string, cidrs: string[], isGoing = false): ServiceCIDR => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'ServiceCIDR',
  metadata: {
    ...{ name, finalizers: [SERVICE_CIDR_FINALIZER] },
    ...(isGoing ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}),
  },
  spec: { cidrs },
});
const service = (...clusterIPs: string[]): Service => ({
  ...{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'web', namespace: 'default' } },
  spec: { clusterIPs },
});

for (const [what, cidrs, services, free] of [
  ['nobody uses it', [range('a', ['10.97.0.0/24'], true)], [service('10.96.0.1')], ['a']],
  [
    'a service has an address of it',
    [range('a', ['10.97.0.0/24'], true)],
    [service('10.97.0.1')],
    [],
  ],
  [
    'a service has an address of its second family',
    [range('a', ['10.97.0.0/24', 'fd00:97::/112'], true)],
    [service('10.96.0.1', 'fd00:97::1')],
    [],
  ],
  [
    'the address is of another range, too',
    [range('a', ['10.97.0.0/24'], true), range('b', ['10.97.0.0/16'])],
    [service('10.97.0.1')],
    ['a'],
  ],
  [
    'that one is to go as well',
    [range('a', ['10.97.0.0/24'], true), range('b', ['10.97.0.0/16'], true)],
    [service('10.97.0.1')],
    [],
  ],
  ['it is not to go', [range('a', ['10.97.0.0/24'])], [], []],
] as const)
  test(`planServiceCidrs() lets ${free.length > 0 ? 'go' : 'none go'} where ${what}`, () => {
    const changes = planServiceCidrs(cidrs, services);
    const names = changes.filter(({ isFree }) => isFree).map(({ cidr }) => cidr.metadata.name);
    assert.deepEqual(names, free);
    const ready = changes.map(({ condition }) => condition?.status);
    assert.deepEqual(
      ready,
      cidrs.map(({ metadata }) => ('deletionTimestamp' in metadata ? 'False' : 'True')),
    );
  });

test('startServiceCidrs() says of each range how it is, and lets it go when its last service goes', async () => {
  const api = new FakeApi();
  api.put(SERVICE_CIDR, range('a', ['10.97.0.0/24']));
  api.put(SERVICE, service('10.97.0.1'));
  const log = silentLogger;
  await using cidrs = startCache(api, SERVICE_CIDR, { log });
  await using services = startCache(api, SERVICE, { log });
  await using controller = startServiceCidrs({
    ...{ client: api, cidrs, services, log, clock: systemClock },
  });
  const ready = async () =>
    (await api.get(SERVICE_CIDR, 'a')).status?.conditions?.map(
      ({ type, status, reason }) => `${type} ${status} ${reason}`,
    );
  await controller.settled();
  assert.deepEqual(await ready(), ['Ready True Ready']);
  const stored = await api.get(SERVICE_CIDR, 'a');
  api.put(SERVICE_CIDR, {
    ...stored,
    metadata: { ...stored.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' },
  });
  await until(async () => (await ready())?.[0] === 'Ready False Terminating');
  assert.deepEqual((await api.get(SERVICE_CIDR, 'a')).metadata.finalizers, [
    SERVICE_CIDR_FINALIZER,
  ]);
  api.remove(SERVICE, 'default/web');
  const finalizers = async () =>
    (await api.get(SERVICE_CIDR, 'a').catch(() => undefined))?.metadata.finalizers;
  await until(async () => ((await finalizers())?.length ?? 0) === 0);
});
