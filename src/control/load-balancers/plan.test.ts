import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Service, ServiceSpec } from '#api/core/v1/service.ts';
import {
  ADDRESS_ANNOUNCED_CONDITION,
  ADDRESS_ASSIGNED_CONDITION,
  ADDRESSES_ANNOTATION,
  ingressAddresses,
  POOL_ANNOTATION,
  SHARING_KEY_ANNOTATION,
} from '#api/core/v1/service-load-balancer.ts';
import type {
  ServiceAddressPool,
  ServiceAddressPoolSpec,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import { planLoadBalancer } from './plan.ts';

function service(
  name: string,
  more: {
    spec?: ServiceSpec;
    annotations?: Record<string, string>;
    labels?: Record<string, string>;
    has?: string[];
  } = {},
): Service {
  const { spec, annotations, labels, has } = more;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name,
      namespace: 'default',
      ...(annotations === undefined ? {} : { annotations }),
      ...(labels === undefined ? {} : { labels }),
    },
    spec: { type: 'LoadBalancer', ipFamilies: ['IPv4'], ports: [{ port: 80 }], ...spec },
    ...(has === undefined
      ? {}
      : { status: { loadBalancer: { ingress: has.map((ip) => ({ ip })) } } }),
  };
}

function pool(name: string, addresses: string[], spec: Partial<ServiceAddressPoolSpec> = {}) {
  return {
    apiVersion: 'tulle.dev/v1alpha1',
    kind: 'ServiceAddressPool',
    metadata: { name },
    spec: { addresses, ...spec },
  } satisfies ServiceAddressPool;
}

function plan(it: Service, pools: ServiceAddressPool[], others: Service[] = []) {
  return planLoadBalancer({
    service: it,
    pools,
    othersAt: (address) => others.filter((other) => ingressAddresses(other).includes(address)),
    nowIso: '2026-01-01T00:00:00Z',
  });
}

const P = pool('p', ['192.0.2.0/30', '2001:db8::/126']);
const key = (value: string) => ({ [SHARING_KEY_ANNOTATION]: value });
const BOTH: ServiceSpec = { ipFamilies: ['IPv6', 'IPv4'], ipFamilyPolicy: 'RequireDualStack' };

describe('planLoadBalancer()', () => {
  const cases: {
    name: string;
    it: Service;
    pools?: ServiceAddressPool[];
    others?: Service[];
    addresses?: string[];
    reason?: string;
  }[] = [
    { name: 'gives the first free address', it: service('a'), addresses: ['192.0.2.0'] },
    {
      name: 'passes over what others have',
      it: service('a'),
      others: [service('b', { has: ['192.0.2.0'] })],
      addresses: ['192.0.2.1'],
    },
    {
      name: 'gives one of each family in order',
      it: service('a', { spec: BOTH }),
      addresses: ['2001:db8::', '192.0.2.0'],
    },
    {
      name: 'gives both or none where both are required',
      it: service('a', { spec: BOTH }),
      pools: [pool('v4', ['192.0.2.0/30'])],
      reason: 'PoolExhausted',
    },
    {
      name: 'gives what there is where both are preferred',
      it: service('a', { spec: { ...BOTH, ipFamilyPolicy: 'PreferDualStack' } }),
      pools: [pool('v4', ['192.0.2.0/30'])],
      addresses: ['192.0.2.0'],
    },
    {
      name: 'keeps what the service has',
      it: service('a', { has: ['192.0.2.3'] }),
      addresses: ['192.0.2.3'],
    },
    {
      name: 'keeps it in a pool that is closed for new ones',
      it: service('a', { has: ['192.0.2.3'] }),
      pools: [pool('p', ['192.0.2.0/30'], { autoAssign: false })],
      addresses: ['192.0.2.3'],
    },
    {
      name: 'gives up what it may not share any more',
      it: service('a', { has: ['192.0.2.0'] }),
      others: [service('b', { has: ['192.0.2.0'] })],
      addresses: ['192.0.2.1'],
    },
    {
      name: 'moves to the pool that it asks for',
      it: service('a', { has: ['192.0.2.0'], annotations: { [POOL_ANNOTATION]: 'q' } }),
      pools: [P, pool('q', ['198.51.100.1'], { autoAssign: false })],
      addresses: ['198.51.100.1'],
    },
    {
      name: 'says that the pool is not there',
      it: service('a', { annotations: { 'metallb.io/address-pool': 'q' } }),
      reason: 'NoMatchingPool',
    },
    {
      name: 'gives the address that is asked for',
      it: service('a', { annotations: { [ADDRESSES_ANNOTATION]: '192.0.2.2' } }),
      addresses: ['192.0.2.2'],
    },
    {
      name: 'gives the addresses that are asked for as MetalLB spells it',
      it: service('a', {
        spec: BOTH,
        annotations: { 'metallb.io/loadBalancerIPs': '192.0.2.2, 2001:db8::3' },
      }),
      addresses: ['192.0.2.2', '2001:db8::3'],
    },
    {
      name: 'gives spec.loadBalancerIP',
      it: service('a', { spec: { loadBalancerIP: '192.0.2.3' }, has: ['192.0.2.0'] }),
      addresses: ['192.0.2.3'],
    },
    {
      name: 'refuses an address that is taken',
      it: service('a', { spec: { loadBalancerIP: '192.0.2.3' } }),
      others: [service('b', { has: ['192.0.2.3'] })],
      reason: 'AddressInUse',
    },
    {
      name: 'refuses an address of no pool',
      it: service('a', { spec: { loadBalancerIP: '203.0.113.1' } }),
      reason: 'NotInPool',
    },
    {
      name: 'refuses an address of another family',
      it: service('a', { spec: { loadBalancerIP: '2001:db8::1' } }),
      reason: 'WrongFamily',
    },
    {
      name: 'refuses text that is no address',
      it: service('a', { spec: { loadBalancerIP: 'x' } }),
      reason: 'AddressMalformed',
    },
    {
      name: 'shares with a service of the same key and other ports',
      it: service('a', {
        annotations: key('k'),
        spec: { ports: [{ port: 81 }], loadBalancerIP: '192.0.2.0' },
      }),
      others: [service('b', { annotations: key('k'), has: ['192.0.2.0'] })],
      addresses: ['192.0.2.0'],
    },
    {
      name: 'does not share one port',
      it: service('a', { annotations: key('k'), spec: { loadBalancerIP: '192.0.2.0' } }),
      others: [service('b', { annotations: key('k'), has: ['192.0.2.0'] })],
      reason: 'AddressInUse',
    },
    {
      name: 'says when all are taken',
      it: service('a'),
      pools: [pool('p', ['192.0.2.0'])],
      others: [service('b', { has: ['192.0.2.0'] })],
      reason: 'PoolExhausted',
    },
    { name: 'says that there is no pool', it: service('a'), pools: [], reason: 'NoPool' },
    {
      name: 'uses pools by priority, and by name',
      it: service('a'),
      pools: [
        P,
        pool('z', ['198.51.100.1'], { priority: 1 }),
        pool('b', ['203.0.113.1'], { priority: 1 }),
      ],
      addresses: ['203.0.113.1'],
    },
    {
      name: 'uses only pools for its namespace and labels',
      it: service('a', { labels: { tier: 'front' } }),
      pools: [
        pool('a', ['198.51.100.1'], { namespaces: ['other'] }),
        pool('b', ['198.51.100.2'], { serviceSelector: { matchLabels: { tier: 'back' } } }),
        pool('c', ['198.51.100.3'], { serviceSelector: { matchLabels: { tier: 'front' } } }),
      ],
      addresses: ['198.51.100.3'],
    },
    {
      name: 'gives nothing by itself out of a pool without autoAssign',
      it: service('a'),
      pools: [pool('p', ['192.0.2.0/30'], { autoAssign: false })],
      reason: 'NoMatchingPool',
    },
  ];
  for (const { name, it, pools = [P], others = [], addresses = [], reason } of cases)
    test(name, () => {
      const result = plan(it, pools, others);
      assert.deepEqual(result.addresses, addresses);
      assert.equal(result.shortage?.reason, reason);
      const next = result.write ?? it;
      assert.deepEqual(ingressAddresses(next), addresses);
      assert.equal(plan(next, pools, others).write, undefined, 'a second run writes again');
    });

  test('says in the status that nothing announces the address', () => {
    const { write } = plan(service('a'), [pool('p', ['192.0.2.0'], { ipMode: 'Proxy' })]);
    assert.deepEqual(write?.status?.loadBalancer, {
      ingress: [{ ip: '192.0.2.0', ipMode: 'Proxy' }],
    });
    assert.deepEqual(
      write?.status?.conditions?.map((it) => `${it.type} ${it.status} ${it.reason}`),
      [
        `${ADDRESS_ASSIGNED_CONDITION} True FromPool`,
        `${ADDRESS_ANNOUNCED_CONDITION} False NotImplemented`,
      ],
    );
  });
});
