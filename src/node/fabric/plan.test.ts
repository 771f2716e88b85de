import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import { type FabricInput, type FabricNode, planFabric, vtepMac } from './plan.ts';

const node = (name: string, underlay: string, ...tunnel: string[]): FabricNode => ({
  name,
  underlay: ip(underlay),
  vtepMac: vtepMac(name),
  tunnelAddresses: tunnel.map(ip),
});

const input: FabricInput = {
  self: node('m1', '192.0.2.11', '10.244.1.0', 'fd00:10:244:1::'),
  uplink: {
    index: 2,
    mtuBytes: 1500,
    up: true,
    address: ip('192.0.2.11'),
    subnet: cidr('192.0.2.0/24'),
  },
  others: [
    node('m2', '192.0.2.12', '10.244.2.0', 'fd00:10:244:2::'),
    node('m3', '198.51.100.13', '10.244.3.0'),
  ],
  blocks: [
    { cidr: cidr('10.244.1.0/26'), node: 'm1' },
    { cidr: cidr('10.244.2.0/26'), node: 'm2' },
    { cidr: cidr('10.244.3.0/26'), node: 'm3' },
  ],
  pools: [{ cidr: cidr('10.244.0.0/16'), encapsulation: 'Always' }],
};

test('planFabric() gives each other node a route, a neighbour and an FDB entry', () => {
  const plan = planFabric(input);
  assert.deepEqual(plan.problems, []);
  assert.deepEqual(
    plan.routes.map((route) => [
      route.destination,
      route.type,
      route.gateway,
      route.source,
      route.via,
    ]),
    [
      ['10.244.1.0/26', 'unreachable', undefined, undefined, 'none'],
      ['10.244.2.0/26', undefined, '10.244.2.0', '10.244.1.0', 'vxlan'],
      ['10.244.3.0/26', undefined, '10.244.3.0', '10.244.1.0', 'vxlan'],
    ],
  );
  assert.deepEqual(plan.fdb, [
    { mac: vtepMac('m2'), destination: '192.0.2.12' },
    { mac: vtepMac('m3'), destination: '198.51.100.13' },
  ]);
  assert.deepEqual(
    plan.neighbours.map((n) => n.address),
    ['10.244.2.0', 'fd00:10:244:2::', '10.244.3.0'],
  );
  assert.equal(plan.device.mtuBytes, 1450);
});

test('planFabric() subtracts 70 bytes when the underlay is IPv6', () => {
  const plan = planFabric({
    ...input,
    self: node('m1', '2001:db8::11', '10.244.1.0'),
    uplink: { ...input.uplink, address: ip('2001:db8::11'), subnet: cidr('2001:db8::/64') },
  });
  assert.equal(plan.podMtuBytes, 1430);
});

test('planFabric() sends unencapsulated inside one subnet when the pool says CrossSubnet', () => {
  const plan = planFabric({
    ...input,
    pools: [{ cidr: cidr('10.244.0.0/16'), encapsulation: 'CrossSubnet' }],
  });
  const [, toM2, toM3] = plan.routes;
  assert.deepEqual([toM2?.via, toM2?.gateway, toM2?.onlink], ['uplink', '192.0.2.12', undefined]);
  assert.deepEqual([toM3?.via, toM3?.gateway, toM3?.onlink], ['vxlan', '10.244.3.0', true]);
  // A node that has not heard of the change yet still sends by the tunnel.
  assert.deepEqual(
    plan.fdb.map((entry) => entry.destination),
    ['192.0.2.12', '198.51.100.13'],
  );
});

test('planFabric() gives pods the whole MTU when no pool encapsulates, and says whom it cannot reach', () => {
  const plan = planFabric({
    ...input,
    pools: [{ cidr: cidr('10.244.0.0/16'), encapsulation: 'Never' }],
  });
  assert.ok(plan.routes.every((route) => route.via !== 'vxlan'));
  assert.equal(plan.podMtuBytes, 1500);
  assert.match(plan.problems.join(), /node m3 \(198\.51\.100\.13\) is not on 192\.0\.2\.0\/24/);
});

test('planFabric() names a node that is on another family’s underlay, and answers for it', () => {
  const plan = planFabric({
    ...input,
    others: [...input.others, node('m6', '2001:db8::16', '10.244.6.0')],
    blocks: [...input.blocks, { cidr: cidr('10.244.6.0/26'), node: 'm6' }],
  });
  assert.match(plan.problems.join(), /node m6 has no IPv4 address \(2001:db8::16\)/);
  assert.deepEqual(plan.fdb, planFabric(input).fdb);
  const route = plan.routes.find(({ destination }) => destination === '10.244.6.0/26');
  assert.equal(route?.type, 'unreachable');
});

test('planFabric() goes by the tunnel where the underlay is of a family that cannot carry the block', () => {
  const plan = planFabric({
    ...input,
    others: [node('m2', '192.0.2.12', '10.244.2.0', 'fd00:10:244:2::')],
    blocks: [{ cidr: cidr('fd00:10:244:2::/122'), node: 'm2' }],
    pools: [{ cidr: cidr('fd00:10:244::/48'), encapsulation: 'CrossSubnet' }],
  });
  assert.deepEqual([plan.problems, plan.routes.map((it) => it.via)], [[], ['vxlan']]);
});

test('planFabric() tells of the first problems and how many more there are', () => {
  const others = Array.from({ length: 30 }, (_, n) => node(`x${n}`, '2001:db8::1', '10.244.9.0'));
  const { problems } = planFabric({ ...input, others });
  assert.equal(problems.length, 11);
  assert.match(problems.at(-1) ?? '', /and \d+ more/);
});

test('planFabric() withdraws everything of a node that is gone', () => {
  const plan = planFabric({ ...input, others: input.others.filter((n) => n.name !== 'm2') });
  assert.ok(!plan.routes.some((route) => route.destination === '10.244.2.0/26'));
  assert.ok(!plan.fdb.some((entry) => entry.destination === '192.0.2.12'));
});

test('planFabric() says that a node without a tunnel address of the family gets no route', () => {
  const plan = planFabric({
    ...input,
    blocks: [...input.blocks, { cidr: cidr('fd00:10:244:3::/122'), node: 'm3' }],
    pools: [...input.pools, { cidr: cidr('fd00:10:244::/48'), encapsulation: 'Always' }],
  });
  assert.match(plan.problems.join(), /node m3 has no IPv6 tunnel address yet/);
});

test('planFabric() does not depend on the order of nodes and blocks', () => {
  const sorted = (i: FabricInput) => {
    const { routes, fdb, neighbours } = planFabric(i);
    return [routes, fdb, neighbours].map((list) => list.map((x) => JSON.stringify(x)).sort());
  };
  const reversed = {
    ...input,
    others: [...input.others].reverse(),
    blocks: [...input.blocks].reverse(),
  };
  assert.deepEqual(sorted(reversed), sorted(input));
});

test('vtepMac() is locally administered, unicast and follows from the name', () => {
  assert.equal(vtepMac('m1'), vtepMac('m1'));
  assert.notEqual(vtepMac('m1'), vtepMac('m2'));
  for (const name of ['a', 'b', 'c', 'd'])
    assert.equal(Number.parseInt(vtepMac(name).slice(0, 2), 16) & 3, 2);
});
