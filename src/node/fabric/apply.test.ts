import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { applyFabric } from './apply.ts';
import { type FabricInput, planFabric, vtepMac } from './plan.ts';

function setUp() {
  const network = new FakeNetwork();
  const card = network.addCard('eth0');
  const stack = network.open();
  stack.addresses.add({ link: card.index, address: ip('192.0.2.11'), prefixLength: 24 });
  const node = (n: number) => ({
    name: `m${n}`,
    underlay: ip(`192.0.2.1${n}`),
    vtepMac: vtepMac(`m${n}`),
    tunnelAddresses: [ip(`10.244.${n}.0`)],
  });
  const input: FabricInput = {
    self: node(1),
    uplink: {
      index: card.index,
      mtuBytes: 1500,
      up: true,
      address: ip('192.0.2.11'),
      subnet: cidr('192.0.2.0/24'),
    },
    others: [node(2), node(3)],
    blocks: [1, 2, 3].map((n) => ({ cidr: cidr(`10.244.${n}.0/26`), node: `m${n}` })),
    pools: [{ cidr: cidr('10.244.0.0/16'), encapsulation: 'Always' }],
  };
  const apply = (changed: Partial<FabricInput> = {}) =>
    applyFabric(stack, planFabric({ ...input, ...changed }), card.index).changes;
  return { stack, input, apply, card };
}

function seen(stack: NetworkStack) {
  const vxlan = stack.links.get(VXLAN_LINK)?.index ?? -1;
  return {
    routes: stack.routes
      .list({ protocol: ROUTE_PROTOCOL })
      .map((route) => `${route.destination} ${route.gateway ?? route.type}`)
      .sort(),
    fdb: stack.fdb
      .list(vxlan)
      .map((entry) => entry.destination)
      .sort(),
    neighbours: stack.neighbours.list({ link: vxlan }).map((n) => n.address),
  };
}

test('applyFabric() programs everything once, and then nothing', () => {
  const { stack, apply } = setUp();
  assert.deepEqual(apply(), { device: true, neighbours: 2, fdb: 2, routes: 3 });
  assert.deepEqual(seen(stack), {
    routes: ['10.244.1.0/26 unreachable', '10.244.2.0/26 10.244.2.0', '10.244.3.0/26 10.244.3.0'],
    fdb: ['192.0.2.12', '192.0.2.13'],
    neighbours: ['10.244.2.0', '10.244.3.0'],
  });
  assert.equal(stack.links.get(VXLAN_LINK)?.mtuBytes, 1450);
  assert.deepEqual(apply(), { device: false, neighbours: 0, fdb: 0, routes: 0 });
});

test('applyFabric() withdraws a node, and leaves what is not the fabric’s', () => {
  const { stack, input, apply, card } = setUp();
  apply();
  const podRoute = {
    destination: cidr('10.244.1.5/32'),
    link: card.index,
    protocol: ROUTE_PROTOCOL,
  };
  const foreign = { destination: cidr('203.0.113.0/24'), link: card.index, protocol: 4 };
  stack.routes.replace([podRoute, foreign]);
  apply({ others: input.others.slice(0, 1), blocks: input.blocks.slice(0, 2) });
  assert.deepEqual(seen(stack).fdb, ['192.0.2.12']);
  assert.ok(seen(stack).routes.some((route) => route.startsWith('10.244.1.5/32')));
  assert.ok(stack.routes.list().some((route) => route.destination === '203.0.113.0/24'));
  assert.ok(!seen(stack).routes.some((route) => route.startsWith('10.244.3.0/26')));
});

test('applyFabric() puts back what was deleted or altered by hand', () => {
  const { stack, apply } = setUp();
  apply();
  const expected = seen(stack);
  const link = stack.links.get(VXLAN_LINK);
  assert.ok(link);
  stack.routes.delete(stack.routes.list().filter((route) => route.destination === '10.244.2.0/26'));
  stack.fdb.delete(stack.fdb.list(link.index).slice(0, 1));
  stack.links.set(link.index, { mtuBytes: 1400 });
  const changes = apply();
  assert.deepEqual([changes.device, changes.fdb, changes.routes], [true, 1, 1]);
  assert.deepEqual(seen(stack), expected);
  stack.links.delete(link.index);
  apply();
  assert.deepEqual(seen(stack), expected);
});

test('applyFabric() moves a node whose underlay address changed', () => {
  const { stack, input, apply } = setUp();
  apply();
  const moved = input.others.map((n) =>
    n.name === 'm2' ? { ...n, underlay: ip('192.0.2.99') } : n,
  );
  apply({ others: moved });
  assert.deepEqual(seen(stack).fdb.sort(), ['192.0.2.13', '192.0.2.99']);
});

test('applyFabric() changes routes only when the encapsulation changes', () => {
  const { stack, apply } = setUp();
  apply();
  const changes = apply({ pools: [{ cidr: cidr('10.244.0.0/16'), encapsulation: 'Never' }] });
  assert.deepEqual(changes, { device: false, neighbours: 0, fdb: 0, routes: 2 });
  assert.deepEqual(seen(stack).routes, [
    '10.244.1.0/26 unreachable',
    '10.244.2.0/26 192.0.2.12',
    '10.244.3.0/26 192.0.2.13',
  ]);
});
