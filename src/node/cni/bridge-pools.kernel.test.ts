/** Containers on a bridge whose addresses come out of IPPools. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { CniError } from '#wire/cni/error.ts';
import { parseCniRequest } from '#wire/cni/request.ts';
import { encodeCniResult } from '#wire/cni/result.ts';
import { HOST_V4, HOST_V6, Machine } from '../pod-machine.ts';
import { hostLinkName } from './plan.ts';
import { startRepairs } from './repairs.ts';

const PING = 'ping -c 1 -W 2 -q';

function request(
  machine: Machine,
  pod: string,
  command: 'ADD' | 'CHECK' | 'DEL',
  more: Record<string, unknown> = { mode: 'bridge' },
) {
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: pod,
    CNI_NETNS: machine.path(pod),
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/usr/lib/cni',
  };
  return parseCniRequest(
    env,
    JSON.stringify({ cniVersion: '1.0.0', name: 'net', type: 'tulle', ...more }),
  );
}

async function add(machine: Machine, name: string, more?: Record<string, unknown>) {
  const pod = machine.addNamespace(name);
  const call = request(machine, pod, 'ADD', more);
  assert.ok(call.command === 'ADD');
  const all = await machine.attacher.add(call);
  const { ips, routes } = all;
  const bare = ips.map((it) => it.address.split('/')[0] ?? '');
  return {
    pod,
    ips: bare,
    result: { ips, routes },
    prevResult: JSON.parse(encodeCniResult(all, '1.0.0')) as unknown,
  };
}

async function remove(machine: Machine, pod: string): Promise<void> {
  const call = request(machine, pod, 'DEL');
  assert.ok(call.command === 'DEL');
  await machine.attacher.delete(call);
}

const routesOf = (machine: Machine) =>
  machine.run(machine.host, 'ip route show dev cni0') +
  machine.run(machine.host, 'ip -6 route show dev cni0 proto 84');

test('containers on the bridge, routed pods and the node reach each other over both families', async () => {
  await using machine = new Machine();
  machine.start({ hostSource: (family) => (family === 4 ? HOST_V4 : HOST_V6) as never });
  const bridged = [await add(machine, 'a'), await add(machine, 'b')];
  const routed = await add(machine, 'c', {});
  const [first] = bridged;
  assert.deepEqual(first?.result, {
    ips: [
      { address: '192.0.2.1/32', gateway: '169.254.1.1', interface: 2 },
      { address: '2001:db8::1/128', gateway: 'fe80::1', interface: 2 },
    ],
    routes: [
      { dst: '0.0.0.0/0', gw: '169.254.1.1' },
      { dst: '::/0', gw: 'fe80::1' },
    ],
  });
  const all = [...bridged, routed];
  for (const from of all)
    for (const to of [...all.flatMap((it) => it.ips), HOST_V4, HOST_V6])
      machine.run(from.pod, `${PING} ${to}`);
  for (const to of all.flatMap((it) => it.ips)) machine.run(machine.host, `${PING} ${to}`);
  const mtu = machine.run(first?.pod ?? '', 'cat /sys/class/net/eth0/mtu');
  assert.equal(mtu.trim(), '1450', 'the fabric’s MTU');
});

test('DEL takes address and route away, also when ADD died half way', async () => {
  await using machine = new Machine();
  const { pod } = await add(machine, 'a');
  await remove(machine, pod);
  await machine.attacher.undone();
  assert.equal(machine.addresses.given.size, 0);
  assert.doesNotMatch(routesOf(machine), /192\.0\.2|2001:db8/);
  const dying = machine.addNamespace('b');
  const call = request(machine, dying, 'ADD');
  assert.ok(call.command === 'ADD');
  await machine.untilDeath((attacher) => attacher.add(call), 'add:linked');
  assert.match(routesOf(machine), /192\.0\.2\.2 [\s\S]*2001:db8::2 /);
  const next = machine.start();
  next.recover();
  await next.undone();
  assert.equal(machine.addresses.given.size, 0);
  assert.doesNotMatch(routesOf(machine), /192\.0\.2|2001:db8/);
});

test('CHECK names what is missing on the node’s side, and repair makes it again', async () => {
  await using machine = new Machine();
  const { pod, ips, prevResult } = await add(machine, 'a');
  const check = () => {
    const call = request(machine, pod, 'CHECK', { mode: 'bridge', prevResult });
    assert.ok(call.command === 'CHECK');
    return machine.attacher.check(call);
  };
  await check();
  for (const [command, fault] of [
    ['ip route del 192.0.2.1', /route 192\.0\.2\.1\/32 is missing on "cni0"/],
    ['ip address del 169.254.1.1/32 dev cni0', /gateway 169\.254\.1\.1 is missing on "cni0"/],
  ] as const) {
    machine.run(machine.host, command);
    await assert.rejects(
      check(),
      (error) => error instanceof CniError && fault.test(`${error.details}`),
    );
    machine.attacher.repair();
    await check();
  }
  machine.run(machine.host, `${PING} ${ips[0]}`);
});

test('a container on the bridge sends from its own address only', async () => {
  await using machine = new Machine();
  const [a, b] = [await add(machine, 'a'), await add(machine, 'b')];
  machine.run(a.pod, 'ip address add 192.0.2.99/32 dev eth0');
  assert.throws(() => machine.run(a.pod, `ping -c 1 -W 1 -q -I 192.0.2.99 ${b.ips[0]}`));
  machine.run(a.pod, `${PING} ${b.ips[0]}`);
});

test('an empty "ipam" is a network of layer 2, and takes no address', async () => {
  await using machine = new Machine();
  const { ips } = await add(machine, 'a', { mode: 'bridge', ipam: {} });
  assert.deepEqual([ips, machine.addresses.given.size], [[], 0]);
  const { ips: named } = await add(machine, 'b', { mode: 'bridge', ipam: { type: 'tulle' } });
  assert.equal(named.length, 2);
});

/** PORT is the container's port. */
const DAMAGES: readonly string[] = [
  'ip link set cni0 down',
  'ip link delete cni0',
  'ip address del 169.254.1.1/32 dev cni0',
  'ip address del fe80::1/64 dev cni0',
  'ip address flush dev cni0',
  'ip route del 192.0.2.1',
  'ip -6 route del 2001:db8::1',
  'ip link set PORT nomaster',
  'ip link set PORT down',
  'ip link set PORT mtu 1300',
  'ip link set PORT type bridge_slave hairpin on',
  'bridge link set dev PORT isolated on',
  'ip link delete PORT',
];

for (const damage of DAMAGES)
  test(`undone on the kernel's event: ${damage}`, async () => {
    await using machine = new Machine();
    const { pod, ips } = await add(machine, 'a');
    await using _repairs = startRepairs(machine.attacher, {
      host: machine.stack,
      log: silentLogger,
    });
    const port = hostLinkName(pod, 'eth0');
    const seen = () => {
      const links = ['cni0', port].map((name) => machine.stack.links.get(name));
      const [bridge] = links;
      const addresses = machine.stack.addresses.list({ link: bridge?.index ?? 0 });
      return JSON.stringify([
        ...links.map((it) => [it?.up, it?.mtuBytes, it?.bridgePort, it?.master === bridge?.index]),
        addresses.flatMap((it) => (/^169|^fe80::1$/.test(it.address) ? [it.address] : [])).sort(),
        machine.stack.routes
          .list({ protocol: ROUTE_PROTOCOL })
          .flatMap((it) => (it.link === bridge?.index ? [it.destination] : []))
          .sort(),
      ]);
    };
    const before = seen();
    machine.run(machine.host, damage.replace('PORT', port));
    await until(() => seen() === before);
    for (const to of ips) machine.run(machine.host, `${PING} ${to}`);
  });

test('followMtu() reaches containers on the bridge, and the bridge, but not an MTU of the configuration', async () => {
  await using machine = new Machine();
  let mtuBytes = 1450;
  machine.start({ mtuBytes: () => mtuBytes });
  const [a, b] = [await add(machine, 'a'), await add(machine, 'b')];
  const fixed = await add(machine, 'c', { mode: 'bridge', bridge: 'cni1', mtu: 1420 });
  const mtuOf = (where: string, link: string) =>
    machine.json(where, `ip -j link show ${link}`)[0]?.mtu;
  for (const bytes of [1200, 1450, 1400]) {
    mtuBytes = bytes;
    machine.attacher.followMtu();
    for (const { pod } of [a, b]) await until(() => mtuOf(pod, 'eth0') === bytes);
    assert.equal(mtuOf(machine.host, 'cni0'), bytes);
    for (const { pod } of [a, b])
      assert.equal(mtuOf(machine.host, hostLinkName(pod, 'eth0')), bytes);
    const full = `${PING} -M do -s ${bytes - 28}`;
    machine.run(a.pod, `${full} ${b.ips[0]}`);
    machine.run(machine.host, `${full} ${a.ips[0]}`);
  }
  // What a small MTU took of IPv6 is back.
  await until(() => routesOf(machine).includes('2001:db8::1'));
  for (const to of [...a.ips, ...b.ips]) machine.run(machine.host, `${PING} ${to}`);
  machine.run(a.pod, `${PING} ${b.ips[1]}`);
  assert.equal(mtuOf(fixed.pod, 'eth0'), 1420);
});
