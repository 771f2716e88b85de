import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { IP_BLOCK, type IPBlock, ipBlockName } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { Ruleset } from '../ruleset.ts';
import { Fabric } from './fabric.ts';
import { FABRIC_PART, FABRIC_PEERS } from './filter.ts';
import { TUNNEL_ADDRESSES_ANNOTATION, VTEP_MAC_ANNOTATION } from './objects.ts';
import { vtepMac } from './plan.ts';

const node = (n: number, published = true): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name: `m${n}`,
    annotations: published
      ? {
          [TUNNEL_ADDRESSES_ANNOTATION]: `10.244.${n}.0`,
          [VTEP_MAC_ANNOTATION]: vtepMac(`m${n}`),
        }
      : {},
  },
  status: { addresses: [{ type: 'InternalIP', address: `192.0.2.1${n}` }] },
});
const block = (n: number, affinity: 'Confirmed' | 'Pending' = 'Confirmed'): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name: ipBlockName(`10.244.${n}.0/26`) },
  spec: {
    ...{ cidr: `10.244.${n}.0/26`, pool: 'p', node: `m${n}`, affinity, sequence: 0 },
    ...{ allocations: {}, free: [], releasedAt: {} },
  },
});

async function setUp() {
  const api = new FakeApi();
  api.put(IP_POOL, {
    apiVersion: 'tulle.dev/v1alpha1',
    kind: 'IPPool',
    metadata: { name: 'p' },
    spec: { cidr: '10.244.0.0/16' },
  });
  api.put(NODE, node(1, false));
  const network = new FakeNetwork();
  const card = network.addCard('eth0');
  const stack = network.open();
  stack.addresses.add({ link: card.index, address: ip('192.0.2.11'), prefixLength: 24 });
  const log = silentLogger;
  const cleanup = new AsyncDisposableStack();
  const nodes = cleanup.use(startCache(api, NODE, { log }));
  const blocks = cleanup.use(startCache(api, IP_BLOCK, { log }));
  const pools = cleanup.use(startCache(api, IP_POOL, { log }));
  const nftables = new FakeNftables();
  const ruleset = cleanup.use(
    new Ruleset({ nftables, log }, { family: 'ip', table: 'tulle', parts: [FABRIC_PART] }),
  );
  const admitted = () =>
    nftables
      .dumpTable('ip', 'tulle')
      ?.sets.find((set) => set.set === FABRIC_PEERS)
      ?.elements.map((element) => element.key.join('.'))
      .sort();
  const fabric = cleanup.use(
    new Fabric(
      { stack, rulesets: [ruleset], client: api, nodes, blocks, pools, log },
      { nodeName: 'm1', underlay: ip('192.0.2.11'), tunnelAddresses: [ip('10.244.1.0')] },
    ),
  );
  await fabric.start();
  const peers = () => {
    const link = stack.links.get(VXLAN_LINK);
    return link === undefined ? [] : stack.fdb.list(link.index).map((entry) => entry.destination);
  };
  /** Blocks that there is a route to. */
  const blocksOf = () =>
    stack.routes
      .list({ protocol: ROUTE_PROTOCOL })
      .filter((route) => route.gateway !== undefined)
      .map((route) => route.destination);
  return {
    api,
    stack,
    fabric,
    peers,
    blocksOf,
    admitted,
    [Symbol.asyncDispose]: () => cleanup.disposeAsync(),
  };
}

test('Fabric publishes its VTEP, again when the Node is made anew', async () => {
  await using world = await setUp();
  const published = async () =>
    (await world.api.get(NODE, 'm1')).metadata.annotations?.[TUNNEL_ADDRESSES_ANNOTATION];
  assert.equal(await published(), '10.244.1.0');
  world.api.put(NODE, node(1, false));
  await until(async () => (await published()) === '10.244.1.0');
});

test('Fabric follows nodes and blocks, and leaves claims alone that are not confirmed', async () => {
  await using world = await setUp();
  world.api.put(NODE, node(2));
  world.api.put(IP_BLOCK, block(2));
  await until(() => world.blocksOf().join() === '10.244.2.0/26');
  world.api.put(IP_BLOCK, block(3, 'Pending'));
  world.api.put(NODE, node(3));
  world.api.remove(NODE, 'm2');
  await until(() => world.blocksOf().length === 0 && world.peers().join() === '192.0.2.13');
  world.api.put(IP_BLOCK, block(3));
  await until(() => world.blocksOf().join() === '10.244.3.0/26');
});

test('Fabric takes encapsulated packets from its peers only', async () => {
  await using world = await setUp();
  assert.deepEqual(world.admitted(), []);
  for (const n of [2, 3]) {
    world.api.put(NODE, node(n));
    world.api.put(IP_BLOCK, block(n));
  }
  await until(() => world.admitted()?.join() === '192.0.2.12,192.0.2.13');
  world.api.remove(NODE, 'm3');
  await until(() => world.admitted()?.join() === '192.0.2.12');
});

test('Fabric repairs on the kernel’s event, and counts it', async () => {
  await using world = await setUp();
  world.api.put(NODE, node(2));
  world.api.put(IP_BLOCK, block(2));
  await until(() => world.peers().length === 1);
  const link = world.stack.links.get(VXLAN_LINK);
  assert.ok(link);
  world.stack.fdb.delete(world.stack.fdb.list(link.index));
  await until(() => world.peers().length === 1);
  world.stack.links.delete(link.index);
  await until(() => world.peers().length === 1);
  await until(() => world.fabric.status().repairs >= 2);
  assert.deepEqual(world.fabric.status().problems, []);
});
