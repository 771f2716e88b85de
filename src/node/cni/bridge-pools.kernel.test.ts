/** Containers on a bridge whose addresses come out of IPPools. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CniError } from '#wire/cni/error.ts';
import { parseCniRequest } from '#wire/cni/request.ts';
import { encodeCniResult } from '#wire/cni/result.ts';
import { HOST_V4, HOST_V6, Machine } from '../pod-machine.ts';

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
