/** The fabric on the real kernel: what it writes it finds again, and whatever somebody breaks is put right. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { IP_BLOCK, type IPBlock, ipBlockName } from '#api/tulle/v1alpha1/ip-block.ts';
import { type Encapsulation, IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { Fabric } from './fabric.ts';
import { TUNNEL_ADDRESSES_ANNOTATION, VTEP_MAC_ANNOTATION } from './objects.ts';
import { vtepMac } from './plan.ts';

type Underlay = 'IPv4' | 'IPv6';
const UNDERLAY = { IPv4: '192.0.2.1', IPv6: '2001:db8::1' } as const;

const node = (n: number, underlay: Underlay): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name: `m${n}`,
    annotations: {
      [TUNNEL_ADDRESSES_ANNOTATION]: `10.244.${n}.0,fd00:10:244:${n}::`,
      [VTEP_MAC_ANNOTATION]: vtepMac(`m${n}`),
    },
  },
  status: { addresses: [{ type: 'InternalIP', address: `${UNDERLAY[underlay]}${n}` }] },
});
const block = (cidr: string, n: number): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name: ipBlockName(cidr) },
  spec: {
    ...{ cidr, pool: 'p', node: `m${n}`, affinity: 'Confirmed', sequence: 0 },
    ...{ allocations: {}, free: [], releasedAt: {} },
  },
});

/** Node m1 of three, in a namespace of its own, with the API in memory. */
async function setUp(underlay: Underlay, encapsulation: Encapsulation = 'Always', deaf = false) {
  const cleanup = new AsyncDisposableStack();
  const netns = cleanup.use(new ScratchNetns());
  const sh = (script: string) => netns.run('sh', '-e', '-c', script);
  sh(`ip link set lo up
    ip link add eth0 type veth peer name far0
    ip link set far0 up
    ip link set eth0 up mtu 1500
    ip addr add ${UNDERLAY[underlay]}1/${underlay === 'IPv4' ? '24' : '64 nodad'} dev eth0`);
  const api = new FakeApi();
  const setEncapsulation = (encapsulation: Encapsulation) => {
    for (const [name, cidr] of [
      ['a', '10.244.0.0/16'],
      ['b', 'fd00:10:244::/48'],
    ] as const)
      api.put(IP_POOL, {
        ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'IPPool', metadata: { name } },
        spec: { cidr, encapsulation },
      });
  };
  setEncapsulation(encapsulation);
  for (const n of [1, 2, 3]) {
    api.put(NODE, node(n, underlay));
    api.put(IP_BLOCK, block(`10.244.${n}.0/26`, n));
    api.put(IP_BLOCK, block(`fd00:10:244:${n}::/122`, n));
  }
  const real = cleanup.use(openNetworkStack({ netns: netns.path }));
  const stack = deaf ? { ...real, watch: () => () => {} } : real;
  let written = 0;
  const log = new Proxy(silentLogger, {
    get: (target, name) =>
      name === 'info' || name === 'warn' ? () => written++ : Reflect.get(target, name),
  });
  const clock = new FakeClock();
  const [nodes, blocks, pools] = [
    cleanup.use(startCache(api, NODE, { log })),
    cleanup.use(startCache(api, IP_BLOCK, { log })),
    cleanup.use(startCache(api, IP_POOL, { log })),
  ];
  const fabric = cleanup.use(
    new Fabric(
      {
        ...{ stack, rulesets: [], client: api, nodes, blocks, pools, log },
        ...(deaf ? { clock } : {}),
      },
      {
        nodeName: 'm1',
        underlay: ip(`${UNDERLAY[underlay]}1`),
        tunnelAddresses: [ip('10.244.1.0'), ip('fd00:10:244:1::')],
      },
    ),
  );
  const started = fabric.start();
  if (deaf)
    await until(() => {
      clock.advance(1);
      return fabric.status().ready;
    });
  await started;
  /** What other tools see of ours, as lines. */
  const seen = () =>
    sh(`ip -o -d link show tulle-vxlan 2>&1 | sed 's/^[0-9]*: //'
      ip -o addr show dev tulle-vxlan 2>&1 | sed 's/^[0-9]*: //' | grep -v fe80: || true
      ip route show proto 84; ip -6 route show proto 84
      ip neigh show dev tulle-vxlan nud permanent 2>&1 || true
      ip -6 neigh show dev tulle-vxlan nud permanent 2>&1 || true
      bridge fdb show dev tulle-vxlan 2>&1 || true`)
      .split('\n')
      .map((line) => line.replace(/ (qlen|state) \S+/g, ''))
      .sort()
      .join('\n');
  return {
    ...{ api, fabric, sh, seen, clock, setEncapsulation },
    /** How often the fabric said that it wrote something. */
    written: () => written,
    [Symbol.asyncDispose]: () => cleanup.disposeAsync(),
  };
}

const DAMAGES: readonly (readonly [string, string])[] = [
  ['a route deleted', 'ip route del 10.244.2.0/26'],
  ['an IPv6 route deleted', 'ip -6 route del fd00:10:244:2::/122'],
  ['a route replaced by another program', 'ip route replace 10.244.2.0/26 dev eth0 proto static'],
  [
    'an IPv6 route replaced by another program',
    'ip -6 route replace fd00:10:244:2::/122 dev eth0 proto static',
  ],
  ['a route led elsewhere', 'ip route replace unreachable 10.244.3.0/26 proto 84'],
  ['the unreachable route deleted', 'ip route del unreachable 10.244.1.0/26'],
  ['a route of ours that should not be', 'ip route add unreachable 10.244.9.0/26 proto 84'],
  ['a neighbour deleted', 'ip neigh del 10.244.2.0 dev tulle-vxlan'],
  [
    'a neighbour’s MAC altered',
    'ip neigh replace fd00:10:244:2:: lladdr 02:00:00:00:00:99 dev tulle-vxlan nud permanent',
  ],
  [
    'a neighbour not permanent any more',
    'ip neigh change 10.244.3.0 lladdr 02:00:00:00:00:98 dev tulle-vxlan nud reachable',
  ],
  ['an FDB entry deleted', `bridge fdb del ${vtepMac('m2')} dev tulle-vxlan dst UNDERLAY2 self`],
  [
    'an FDB entry led elsewhere',
    `bridge fdb replace ${vtepMac('m2')} dev tulle-vxlan dst UNDERLAY77 self permanent`,
  ],
  [
    'an FDB entry that floods',
    'bridge fdb append 00:00:00:00:00:00 dev tulle-vxlan dst UNDERLAY78 self permanent',
  ],
  ['the device deleted', 'ip link del tulle-vxlan'],
  ['the device set down', 'ip link set tulle-vxlan down'],
  ['the device’s MTU altered', 'ip link set tulle-vxlan mtu 1300'],
  ['the device’s MAC altered', 'ip link set tulle-vxlan address 02:00:00:00:00:97'],
  ['the tunnel address deleted', 'ip addr del 10.244.1.0/32 dev tulle-vxlan'],
  ['the IPv6 tunnel address deleted', 'ip addr del fd00:10:244:1::/128 dev tulle-vxlan'],
  ['a strange address on the device', 'ip addr add 198.51.100.7/32 dev tulle-vxlan'],
  [
    'the device made anew by another program',
    'ip link del tulle-vxlan; ip link add tulle-vxlan type vxlan id 9 dstport 4789 dev eth0',
  ],
];

for (const underlay of ['IPv4', 'IPv6'] as const)
  describe(`Fabric over ${underlay}`, () => {
    test('finds again what it wrote: a second look changes nothing', async () => {
      await using world = await setUp(underlay);
      const before = world.seen();
      assert.equal(before.match(/10\.244\.\d\.0\/26/g)?.length, 3);
      assert.equal(before.match(/fd00:10:244:\d::\/122/g)?.length, 3);
      assert.match(before, underlay === 'IPv4' ? /mtu 1450/ : /mtu 1430/);
      // Outer UDP checksums: computed and demanded, also over IPv6.
      if (underlay === 'IPv6') assert.match(before, /noudp6zerocsumtx noudp6zerocsumrx/);
      // Making the device takes several steps, and their echo makes it look once more.
      await until(() => world.fabric.status().runs > 1);
      const written = world.written();
      world.api.put(NODE, node(4, underlay));
      await until(() => world.written() === written + 1);
      world.sh('ip link set eth0 mtu 1500'); // says nothing new
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.deepEqual([world.written(), world.fabric.status().repairs], [written + 1, 0]);
    });

    test('finds all as it should be when it is started again, and when it looks again', async () => {
      await using world = await setUp(underlay, 'CrossSubnet', true);
      assert.equal(world.written(), 1);
      const runs = world.fabric.status().runs;
      await until(() => {
        world.clock.advance(60_000);
        return world.fabric.status().runs >= runs + 2;
      });
      assert.equal(world.written(), 1);
    });

    for (const [what, damage] of DAMAGES)
      test(`puts right: ${what}`, async () => {
        await using world = await setUp(underlay);
        const before = world.seen();
        const script = damage.replaceAll('UNDERLAY', UNDERLAY[underlay]);
        world.sh(script);
        await until(() => world.fabric.status().repairs > 0);
        await until(() => world.seen() === before);
      });

    test('routes without a tunnel, also IPv4 behind an IPv6 gateway', async () => {
      await using world = await setUp(underlay, 'CrossSubnet');
      const gateway = `${UNDERLAY[underlay]}2`;
      const by = underlay === 'IPv4' ? `via ${gateway}` : `via inet6 ${gateway}`;
      assert.ok(world.seen().includes(`10.244.2.0/26 ${by} dev eth0`), world.seen());
      // What the underlay cannot carry goes by the tunnel.
      const by6 = underlay === 'IPv6' ? `via ${gateway} dev eth0` : 'dev tulle-vxlan';
      assert.ok(
        world
          .seen()
          .split('\n')
          .some((it) => it.includes('fd00:10:244:2::/122') && it.includes(by6)),
        world.seen(),
      );
      const before = world.seen();
      world.sh('ip link set eth0 down; ip link set eth0 up');
      if (underlay === 'IPv6') world.sh(`ip addr replace ${UNDERLAY.IPv6}1/64 dev eth0 nodad`);
      await until(() => world.seen() === before);
    });

    test('goes from tunnel to routes and back as the pools say', async () => {
      await using world = await setUp(underlay, 'Always');
      const always = world.seen();
      world.setEncapsulation('CrossSubnet');
      await until(() => !world.seen().includes(`10.244.2.0/26 via 10.244.2.0`));
      world.setEncapsulation('Always');
      await until(() => world.seen() === always);
    });

    test('follows the uplink’s MTU, and says so', async () => {
      await using world = await setUp(underlay);
      let told = 0;
      world.fabric.onPodMtu(() => told++);
      world.sh('ip link set eth0 mtu 1400');
      const overhead = underlay === 'IPv4' ? 50 : 70;
      await until(() => world.seen().includes(`mtu ${1400 - overhead} `));
      assert.equal(world.fabric.podMtuBytes, 1400 - overhead);
      await until(() => told === 1);
    });
  });

test('Fabric puts everything right by its backstop when no event comes', async () => {
  await using world = await setUp('IPv4', 'Always', true);
  for (const [, damage] of DAMAGES) {
    const before = world.seen();
    world.sh(damage.replaceAll('UNDERLAY', UNDERLAY.IPv4));
    assert.notEqual(world.seen(), before);
    await until(() => {
      world.clock.advance(30_000);
      return world.seen() === before;
    });
  }
});
