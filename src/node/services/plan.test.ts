import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Service, ServiceSpec } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { ip } from '#lib/ip.ts';
import { planService } from './plan.ts';
import { assignSlots, type EndpointTarget } from './slots.ts';

const NODE = { node: { nodeName: 'm1', zone: undefined }, nodePortAddresses: [ip('192.0.2.1')] };

function service(spec: Partial<ServiceSpec>, labels: Record<string, string> = {}): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default', labels },
    spec: { clusterIP: '10.96.0.7', clusterIPs: ['10.96.0.7'], ports: [{ port: 80 }], ...spec },
  };
}

function slice(
  addresses: string[],
  options: {
    port?: number;
    portName?: string;
    nodes?: string[];
    ready?: boolean;
    v6?: boolean;
  } = {},
): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `web-${addresses.join('-')}`, namespace: 'default' },
    addressType: options.v6 ? 'IPv6' : 'IPv4',
    ports: [{ name: options.portName ?? '', protocol: 'TCP', port: options.port ?? 8080 }],
    endpoints: addresses.map((address, i) => ({
      addresses: [address],
      conditions: { ready: options.ready ?? true },
      nodeName: options.nodes?.[i] ?? 'm2',
    })),
  };
}

const slotsOf = (plan: ReturnType<typeof planService>, frontend = 0) =>
  plan.frontends[frontend]?.inside.slots.map((slot) => `${slot.address}:${slot.port}`);

test('planService() balances over all ready endpoints of all slices', () => {
  const plan = planService(
    service({}),
    [slice(['10.0.0.1', '10.0.0.2']), slice(['10.0.0.3'])],
    NODE,
  );
  assert.deepEqual(slotsOf(plan), ['10.0.0.1:8080', '10.0.0.2:8080', '10.0.0.3:8080']);
  assert.equal(plan.frontends[0]?.inside.action, 'balance');
});

test('planService() rejects without endpoints, and drops when they are only elsewhere and the policy is Local', () => {
  assert.equal(planService(service({}), [], NODE).frontends[0]?.inside.action, 'reject');
  const local = service({ internalTrafficPolicy: 'Local' });
  assert.equal(planService(local, [slice(['10.0.0.1'])], NODE).frontends[0]?.inside.action, 'drop');
  assert.equal(planService(local, [], NODE).frontends[0]?.inside.action, 'reject');
  const here = planService(local, [slice(['10.0.0.1', '10.0.0.2'], { nodes: ['m1', 'm2'] })], NODE);
  assert.deepEqual(slotsOf(here), ['10.0.0.1:8080']);
});

test('planService() keeps families apart', () => {
  const dual = service({ clusterIPs: ['10.96.0.7', 'fd00::7'] });
  const plan = planService(dual, [slice(['10.0.0.1']), slice(['fd00::a'], { v6: true })], NODE);
  assert.deepEqual([slotsOf(plan, 0), slotsOf(plan, 1)], [['10.0.0.1:8080'], ['fd00::a:8080']]);
});

test('planService() leaves the addresses of a family that the service does not have alone', () => {
  const context = { ...NODE, nodePortAddresses: [ip('192.0.2.1'), ip('2001:db8::1')] };
  const ports = [{ port: 80, nodePort: 30_080 }];
  const single = service({ type: 'NodePort', ports, externalIPs: ['198.18.0.1', '2001:db8:e::1'] });
  const familiesOf = (it: Service) =>
    planService(it, [], context).frontends.map(({ family }) => family);
  assert.deepEqual(familiesOf(single), [4, 4, 4]);
  const { spec } = single;
  const dual = { ...single, spec: { ...spec, clusterIPs: ['10.96.0.7', 'fd00::7'] } };
  assert.deepEqual(familiesOf(dual), [4, 4, 4, 6, 6, 6]);
});

test('planService() finds a port by its name, which slices may map to different numbers', () => {
  const named = service({ ports: [{ name: 'http', port: 80 }] });
  const slices = [
    slice(['10.0.0.1'], { portName: 'http', port: 8080 }),
    slice(['10.0.0.2'], { portName: 'http', port: 9090 }),
    slice(['10.0.0.3'], { portName: 'other' }),
  ];
  assert.deepEqual(slotsOf(planService(named, slices, NODE)), ['10.0.0.1:8080', '10.0.0.2:9090']);
});

test('planService() takes an endpoint once when two slices hold it', () => {
  const slices = [slice(['10.0.0.1'], { ready: false }), slice(['10.0.0.1'])];
  assert.deepEqual(slotsOf(planService(service({}), slices, NODE)), ['10.0.0.1:8080']);
  assert.deepEqual(slotsOf(planService(service({}), slices.reverse(), NODE)), ['10.0.0.1:8080']);
});

for (const [name, candidate] of [
  ['headless', service({ clusterIP: 'None', clusterIPs: ['None'] })],
  ['ExternalName', service({ type: 'ExternalName', clusterIP: '', clusterIPs: [] })],
  ['of another proxy', service({}, { 'service.kubernetes.io/service-proxy-name': 'x' })],
  ['labelled headless', service({}, { 'service.kubernetes.io/headless': '' })],
] as const)
  test(`planService() leaves a service that is ${name} alone`, () => {
    assert.deepEqual(planService(candidate, [slice(['10.0.0.1'])], NODE).frontends, []);
  });

test('planService() leaves addresses alone that the DNS server answers on', () => {
  const skipAddresses = new Set(['10.96.0.7']);
  assert.deepEqual(planService(service({}), [], { ...NODE, skipAddresses }).frontends, []);
});

const target = (n: number): EndpointTarget => ({
  address: ip(`10.0.${n >> 8}.${n & 255}`),
  port: 80,
});
const equal = (targets: readonly EndpointTarget[]) =>
  targets.map((it) => ({ target: it, weight: 1 }));

test('assignSlots() moves only what must move', () => {
  const before = [1, 2, 3, 4].map(target);
  const ids = (slots: readonly EndpointTarget[]) =>
    slots.map((t) => Number(t.address.split('.')[3]));
  assert.deepEqual(ids(assignSlots(before, equal([1, 3, 4].map(target)))), [1, 4, 3]);
  assert.deepEqual(ids(assignSlots(before, equal([4, 3, 2, 1, 5].map(target)))), [1, 2, 3, 4, 5]);
  assert.deepEqual(ids(assignSlots(before, equal([9, 2, 8].map(target)))), [9, 2, 8]);
  assert.deepEqual(assignSlots(before, []), []);
});

test('assignSlots() holds each wanted target exactly once, whatever was before', () => {
  const targets = fc.array(fc.nat(300), { maxLength: 60 }).map((list) => list.map(target));
  fc.assert(
    fc.property(targets, targets, (before, wanted) => {
      const slots = assignSlots(assignSlots([], equal(before)), equal(wanted));
      const key = (t: EndpointTarget) => t.address;
      assert.deepEqual(slots.map(key).sort(), [...new Set(wanted.map(key))].sort());
    }),
  );
});

test('planService() balances at random, and says so, where the kernel has no hash', () => {
  const wanting = service({});
  wanting.metadata.annotations = { 'tulle.dev/balance': 'maglev' };
  const plan = planService(wanting, [slice(['10.0.0.1'])], { ...NODE, canHash: false });
  assert.equal(plan.frontends[0]?.pick, 'random');
  assert.match(plan.problems.join(), /CONFIG_NFT_HASH/);
  assert.equal(planService(wanting, [slice(['10.0.0.1'])], NODE).frontends[0]?.pick, 'hash');
});

test('planService() captures the addresses of a load balancer, but not those that it answers on itself', () => {
  const plan = planService(
    {
      ...service({ type: 'LoadBalancer' }),
      status: {
        loadBalancer: {
          ingress: [
            { ip: '198.51.100.1', ipMode: 'VIP' },
            { ip: '198.51.100.2', ipMode: 'Proxy' },
          ],
        },
      },
    },
    [slice(['10.0.0.1'])],
    NODE,
  );
  assert.deepEqual(
    plan.frontends.map(({ address }) => address),
    ['10.96.0.7', '198.51.100.1'],
  );
});
