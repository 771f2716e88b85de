import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SERVICE, type Service, type ServiceSpec } from '#api/core/v1/service.ts';
import { ingressAddresses, isOurLoadBalancer } from '#api/core/v1/service-load-balancer.ts';
import {
  SERVICE_ADDRESS_POOL,
  type ServiceAddressPool,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import { startCache } from '#client/cache.ts';
import { createEventRecorder } from '#client/events.ts';
import { FakeApi } from '#client/fake.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { startLoadBalancers } from './load-balancers.ts';

const clock: Clock = {
  ...systemClock,
  schedule: (delayMs, callback) => systemClock.schedule(Math.min(delayMs, 1), callback),
};

function start(api: FakeApi) {
  const stack = new AsyncDisposableStack();
  const common = { log: silentLogger, clock };
  const services = stack.use(startCache(api, SERVICE, common));
  const pools = stack.use(startCache(api, SERVICE_ADDRESS_POOL, common));
  const events = stack.use(createEventRecorder(api, { ...common, component: 'test' }));
  const controller = stack.use(
    startLoadBalancers({ ...common, client: api, services, pools, events }),
  );
  return { controller, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

function put(api: FakeApi, name: string, spec: ServiceSpec = {}) {
  const old = api.objects(SERVICE).find((it) => it.metadata.name === name);
  api.put(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: { type: 'LoadBalancer', ipFamilies: ['IPv4'], ports: [{ port: 80 }], ...spec },
    ...(old?.status === undefined ? {} : { status: old.status }),
  });
}

function putPool(api: FakeApi, ...addresses: string[]) {
  const pool: ServiceAddressPool = {
    apiVersion: 'tulle.dev/v1alpha1',
    kind: 'ServiceAddressPool',
    metadata: { name: 'p' },
    spec: { addresses },
  };
  api.put(SERVICE_ADDRESS_POOL, pool);
}

const shown = (api: FakeApi) =>
  api
    .objects(SERVICE)
    .filter(isOurLoadBalancer)
    .map((it: Service) => `${it.metadata.name}=${ingressAddresses(it)}`)
    .toSorted();

describe('LoadBalancers', () => {
  test('gives every service an address of its own, and a freed one to who waits', async () => {
    const api = new FakeApi();
    for (const name of ['a', 'b', 'c']) put(api, name);
    await using setup = start(api);
    await until(() => api.objects(SERVICE).every((it) => it.status?.conditions !== undefined));
    assert.deepEqual(shown(api), ['a=', 'b=', 'c=']);
    putPool(api, '192.0.2.0/31');
    await until(() => shown(api).filter((it) => !it.endsWith('=')).length === 2);
    const isTold = (it: Service) =>
      it.status?.conditions?.some(({ reason }) => reason === 'PoolExhausted') === true;
    await until(() => api.objects(SERVICE).some(isTold));
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    await setup.controller.settled();
    const [waiting = ''] = shown(api).filter((it) => it.endsWith('='));
    const [holder = ''] = shown(api).filter((it) => it.endsWith('=192.0.2.0'));
    api.remove(SERVICE, `default/${holder.slice(0, 1)}`);
    await until(() => shown(api).includes(`${waiting}192.0.2.0`));
    const allocated = () => api.objects(SERVICE_ADDRESS_POOL)[0]?.status?.allocated;
    await until(() => allocated() === 2);
  });

  test('the end state does not depend on the order in which services and pools come', async () => {
    const steps: ((api: FakeApi) => void)[] = [
      (api) => put(api, 'a'),
      (api) => put(api, 'b', { type: 'ClusterIP' }),
      (api) => putPool(api, '192.0.2.0/30'),
      (api) => put(api, 'c', { loadBalancerIP: '192.0.2.3' }),
      (api) => put(api, 'd', { loadBalancerClass: 'example.org/other' }),
    ];
    for (const order of [steps, steps.toReversed(), [...steps, ...steps]]) {
      const api = new FakeApi();
      await using setup = start(api);
      await setup.controller.settled();
      for (const step of order) {
        step(api);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await until(() => shown(api).join(' ') === 'a=192.0.2.0 c=192.0.2.3');
    }
  });
});
