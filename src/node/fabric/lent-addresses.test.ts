import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { IP_BLOCK, type IPBlock, ipBlockName } from '#api/tulle/v1alpha1/ip-block.ts';
import { loansOf } from '#api/tulle/v1alpha1/ip-block-loan.ts';
import {
  type Cidr,
  cidr,
  cidrAddress,
  cidrContains,
  hostCidr,
  type Ip,
  ip,
  prefixLengthOf,
} from '#lib/ip.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { applyFabric } from './apply.ts';
import { LENT_METRIC } from './lent-addresses.ts';
import { type FabricNode, type FabricPlan, planFabric, vtepMac } from './plan.ts';

const NAMES = ['a', 'b', 'c'] as const;
const BLOCKS = ['10.244.0.0/30', '10.244.0.4/30', '10.244.0.8/30', '10.244.0.12/32'].map(cidr);

/** A block with the node that uses each of its addresses. */
function blockOf(prefix: Cidr, node: string, users: readonly (string | undefined)[]): IPBlock {
  const used = users.flatMap((user, ordinal) =>
    user === undefined
      ? []
      : [
          [
            String(ordinal),
            { handle: 'h', sequence: 1, since: '2026-01-01T00:00:00Z', node: user, purpose: 'Pod' },
          ] as const,
        ],
  );
  return {
    ...{ apiVersion: 'tulle.dev/v1alpha1', kind: IP_BLOCK.kind as 'IPBlock' },
    metadata: { name: ipBlockName(prefix) },
    spec: {
      ...{ cidr: prefix, pool: 'p', node, affinity: node === '' ? 'Pending' : 'Confirmed' },
      ...{ sequence: 1, allocations: Object.fromEntries(used), free: [], releasedAt: {} },
    },
  };
}

/** Each node's tunnel address is the first of its block; the third node has none and borrows it of the first. */
const TUNNELS: Readonly<Record<string, Ip>> = {
  a: ip('10.244.0.0'),
  b: ip('10.244.0.4'),
  c: ip('10.244.0.1'),
};
const nodeOf = (name: string): FabricNode => ({
  name,
  underlay: ip(`192.0.2.1${NAMES.indexOf(name as 'a')}`),
  vtepMac: vtepMac(name),
  tunnelAddresses: [TUNNELS[name] ?? ip('10.244.0.0')],
});
const planFor = (self: string, blocks: readonly IPBlock[]): FabricPlan =>
  planFabric({
    self: nodeOf(self),
    uplink: {
      index: 2,
      up: true,
      mtuBytes: 1500,
      address: nodeOf(self).underlay,
      subnet: cidr('192.0.2.0/24'),
    },
    others: NAMES.filter((it) => it !== self).map(nodeOf),
    blocks: blocks.flatMap(({ spec }) =>
      spec.node === '' ? [] : [{ cidr: cidr(spec.cidr), node: spec.node }],
    ),
    lent: blocks.flatMap(loansOf),
    pools: [{ cidr: cidr('10.244.0.0/24'), encapsulation: 'Always' }],
  });

/** Where a node sends a packet for the address: another node's name, `unreachable`, or nowhere. As the kernel chooses. */
function hop(plan: FabricPlan, address: Ip): string | undefined {
  const route = plan.routes
    .filter((it) => cidrContains(it.destination, address))
    .sort(
      (a, b) =>
        prefixLengthOf(b.destination) - prefixLengthOf(a.destination) ||
        (a.metric ?? 0) - (b.metric ?? 0),
    )[0];
  if (route === undefined || route.type === 'unreachable') return route?.type;
  const gateway = route.gateway ?? address;
  return NAMES.find((it) => TUNNELS[it] === gateway);
}

const user = fc.constantFrom(undefined, ...NAMES);
const world = fc.record({
  users: fc.array(fc.array(user, { minLength: 4, maxLength: 4 }), { minLength: 3, maxLength: 3 }),
  third: fc.constantFrom('', 'a', 'b'),
  single: user,
  singleOwner: fc.constantFrom('', ...NAMES),
});

test('planFabric() leads every address in use to the node that uses it, from everywhere, and never in a circle', () => {
  let lent = 0;
  fc.assert(
    fc.property(world, ({ users, third, single, singleOwner }) => {
      const [first = [], second = [], last = []] = users;
      const blocks = [
        blockOf(BLOCKS[0] as Cidr, 'a', ['a', 'c', ...first.slice(2)]),
        blockOf(BLOCKS[1] as Cidr, 'b', ['b', ...second.slice(1)]),
        blockOf(BLOCKS[2] as Cidr, third, last),
        blockOf(BLOCKS[3] as Cidr, singleOwner, [single]),
      ];
      const plans = new Map(NAMES.map((name) => [name, planFor(name, blocks)]));
      for (const { spec } of blocks)
        for (let ordinal = 0; ordinal < 2 ** (32 - prefixLengthOf(cidr(spec.cidr))); ordinal++) {
          const address = cidrAddress(cidr(spec.cidr), ordinal);
          const allocation = spec.allocations[ordinal];
          if (allocation !== undefined && allocation.node !== spec.node) lent++;
          const end = allocation?.node ?? spec.node;
          for (const from of NAMES) {
            let at: string = from;
            let hops = 0;
            for (let to: string | undefined; hops < 4; hops++) {
              to = hop(plans.get(at as 'a') ?? assert.fail(), address);
              if (to === undefined || to === 'unreachable') break;
              at = to;
            }
            assert.ok(hops <= 1, `${address} from ${from} takes ${hops} hops`);
            if (end !== '') assert.equal(at, end, `${address} from ${from}`);
          }
        }
    }),
    { numRuns: 200 },
  );
  assert.ok(lent > 0);
});

test('applyFabric() moves a lent address from one node to another, and never touches the route of a pod', () => {
  const network = new FakeNetwork();
  const card = network.addCard('eth0');
  const stack = network.open();
  const pod = stack.links.create({ kind: 'bridge', name: 'tl0123456789a' });
  stack.links.set(pod.index, { up: true });
  const address = ip('10.244.0.6');
  const own = { destination: hostCidr(address), link: pod.index, protocol: 84, scope: 253 };
  stack.routes.replace([own]);
  const routesTo = () =>
    stack.routes
      .list({ protocol: 84 })
      .filter((it) => it.destination === hostCidr(address) && it.metric === LENT_METRIC)
      .map(({ type, gateway }) => gateway ?? type);
  const sync = (who: string | undefined) =>
    applyFabric(
      stack,
      planFor('a', [
        blockOf(BLOCKS[0] as Cidr, 'a', ['a']),
        blockOf(BLOCKS[1] as Cidr, 'b', ['b', undefined, who]),
      ]),
      card.index,
    );
  for (const [who, expected] of [
    ['a', ['unreachable']],
    ['c', [TUNNELS.c]],
    ['a', ['unreachable']],
    [undefined, []],
  ] as const) {
    sync(who);
    assert.deepEqual(routesTo(), expected, `lent to ${who}`);
    assert.ok(stack.routes.list({ protocol: 84 }).some((it) => it.link === pod.index));
  }
});
