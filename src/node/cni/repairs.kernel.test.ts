/** A pod's host side broken in every way, put right by the kernel's event, and by the look from time to time without it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { HOST_V4, Machine } from '../pod-machine.ts';
import { keepForwarding } from './host-settings.ts';
import { hostLinkName } from './plan.ts';
import { startRepairs } from './repairs.ts';

const LOOK_MS = 30_000;
const PING = 'ping -c 1 -W 2 -q';

async function setUp(isDeaf: boolean) {
  const cleanup = new AsyncDisposableStack();
  const machine = cleanup.use(new Machine());
  const pod = machine.addNamespace('a');
  let mtuBytes = 1450;
  const attacher = machine.start({ mtuBytes: () => mtuBytes });
  await attacher.add(machine.request('ADD', pod));
  const clock = new FakeClock();
  const host = isDeaf ? { ...machine.stack, watch: () => () => {} } : machine.stack;
  const options = { host, log: silentLogger, ...(isDeaf ? { clock } : {}) };
  cleanup.use(startRepairs(attacher, options));
  cleanup.use(keepForwarding(options, [4, 6]));
  const link = hostLinkName(pod, 'eth0');
  const sh = (script: string) => machine.run(machine.host, script);
  const read = (name: string) => machine.stack.sysctl.get(name);
  /** What must be as it was made, as lines. */
  const seen = () => {
    const { name, mac, mtuBytes: mtu, up } = machine.stack.links.get(link) ?? {};
    const index = machine.stack.links.get(link)?.index ?? 0;
    const addresses = machine.stack.addresses.list({ link: index }).map((it) => it.address);
    const neighbours = machine.stack.neighbours.list({ link: index }).filter((it) => it.permanent);
    const routes = machine.stack.routes
      .list()
      .filter((it) => it.destination.match(/^192\.0\.2\.1\/|8::1\/128/));
    const settings = ['ipv4', 'ipv6'].flatMap((family) => [
      read(`net/${family}/conf/all/forwarding`),
      ...['forwarding', 'rp_filter', 'proxy_arp', 'accept_ra', 'accept_dad'].map((setting) =>
        read(`net/${family}/conf/${link}/${setting}`),
      ),
    ]);
    return JSON.stringify([
      ...[name, mac, mtu, up, addresses.includes('fe80::1' as never), settings],
      neighbours.map((it) => `${it.address} ${it.mac}`).sort(),
      routes.map((it) => `${it.destination} ${it.protocol} ${it.type}`).sort(),
    ]);
  };
  const resize = (bytes: number) => {
    mtuBytes = bytes;
    attacher.followMtu();
  };
  return {
    ...{ machine, pod, link, sh, seen, clock, resize },
    [Symbol.asyncDispose]: () => cleanup.disposeAsync(),
  };
}

/** LINK is the pod's link. */
const WITH_EVENT: readonly string[] = [
  'ip route del 192.0.2.1',
  'ip -6 route del 2001:db8::1',
  'ip route replace 192.0.2.1 dev lo proto static',
  'ip neigh del 192.0.2.1 dev LINK',
  'ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:99 dev LINK nud permanent',
  'ip address del fe80::1/64 dev LINK',
  'ip link set LINK down',
  'ip link set LINK mtu 1300',
  'ip link set LINK address 02:00:00:00:00:99',
  'ip link delete LINK',
  'sysctl -qw net.ipv4.ip_forward=0',
  'sysctl -qw net.ipv6.conf.all.forwarding=0',
  'sysctl -qw net.ipv4.conf.LINK.rp_filter=2',
  'sysctl -qw net.ipv4.conf.LINK.proxy_arp=0',
  'sysctl -qw net.ipv4.conf.LINK.forwarding=0',
];
const WITHOUT_EVENT: readonly string[] = [
  'sysctl -qw net.ipv6.conf.LINK.accept_ra=1',
  'sysctl -qw net.ipv6.conf.LINK.accept_dad=1',
];

describe('startRepairs() and keepForwarding()', () => {
  for (const damage of WITH_EVENT)
    test(`undo on the event: ${damage}`, async () => {
      await using world = await setUp(false);
      const before = world.seen();
      world.sh(damage.replace('LINK', world.link));
      await until(() => world.seen() === before);
      world.machine.run(world.machine.host, `${PING} 192.0.2.1`);
      world.machine.run(world.machine.host, `${PING} 2001:db8::1`);
    });

  test('undo everything without events, by looking', async () => {
    await using world = await setUp(true);
    const before = world.seen();
    for (const damage of [...WITH_EVENT, ...WITHOUT_EVENT]) {
      world.sh(damage.replace('LINK', world.link));
      assert.notEqual(world.seen(), before, damage);
      await until(() => {
        world.clock.advance(LOOK_MS);
        return world.seen() === before;
      });
    }
  });
});

test('followMtu() gives living pods the new MTU at both ends, and IPv6 back that a small one took', async () => {
  await using world = await setUp(false);
  const mtuOf = () => world.machine.json(world.pod, 'ip -j link show eth0')[0]?.mtu;
  for (const bytes of [1200, 1450]) {
    world.resize(bytes);
    await until(() => mtuOf() === bytes);
    await until(() => world.machine.stack.links.get(world.link)?.mtuBytes === bytes);
    const full = ['-M', 'do', '-s', String(bytes - 28)].join(' ');
    world.machine.run(world.pod, `${PING} ${full} ${HOST_V4}`);
    assert.throws(() => world.machine.run(world.pod, `${PING} -M do -s ${bytes - 27} ${HOST_V4}`));
  }
  await until(() => world.machine.run(world.pod, 'ip -6 route').includes('default via fe80::1'));
  world.machine.run(world.machine.host, `${PING} 2001:db8::1`);
});

test('followMtu() leaves an interface alone that the pod has given another MTU', async () => {
  await using world = await setUp(false);
  world.machine.run(world.pod, 'ip link set eth0 mtu 1400');
  world.resize(1350);
  await until(() => world.machine.stack.links.get(world.link)?.mtuBytes === 1350);
  assert.equal(world.machine.json(world.pod, 'ip -j link show eth0')[0]?.mtu, 1400);
});
