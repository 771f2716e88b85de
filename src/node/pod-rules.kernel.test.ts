/** Rules of pods with real packets: who may send what, and where ports of the node lead. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { hostLinkName } from './cni/plan.ts';
import { HOST_V4, HOST_V6, Machine } from './pod-machine.ts';
import { associateSctp, serveSctp } from './policy/sctp-association.testing.ts';

const PING = 'ping -c 1 -W 1 -q';
const fixture = (name: string) => join(import.meta.dirname, 'pod-rules', `${name}.fixture.ts`);

async function attach(machine: Machine, name: string, runtimeConfig: object = {}): Promise<string> {
  const pod = machine.addNamespace(name);
  await machine.attacher.add(machine.request('ADD', pod, { config: { runtimeConfig } }));
  return pod;
}

/** Serves on all ports in a pod; the answers name the server's and the asker's address. */
const serve = (machine: Machine, pod: string, address: string, port: number) =>
  machine.spawn(pod, [process.execPath, fixture('echo'), address, String(port)]);

const ask = (machine: Machine, from: string, ...what: (string | number)[]) =>
  machine.run(from, `${process.execPath} ${fixture('ask')} ${what.join(' ')}`);

/** A neighbour of the machine on its underlay. */
function addNeighbour(machine: Machine): string {
  const neighbour = machine.addNamespace('outside');
  machine.run(machine.host, `ip link add ul0 type veth peer name ul0 netns ${neighbour}`);
  for (const [where, v4, v6] of [
    [machine.host, '203.0.113.1/24', '2001:db8:2::1/64'],
    [neighbour, '203.0.113.2/24', '2001:db8:2::2/64'],
  ] as const) {
    machine.run(where, `ip address add ${v4} dev ul0`);
    machine.run(where, `ip address add ${v6} dev ul0 nodad`);
    machine.run(where, 'ip link set ul0 up');
    machine.run(where, 'ip link set lo up');
  }
  return neighbour;
}

describe('PodRules: sources', () => {
  test('a pod sends from its own addresses and MAC only, over IPv4 and IPv6', async () => {
    await using machine = new Machine();
    const [a] = [await attach(machine, 'a'), await attach(machine, 'b')];
    // The kernel's own check of sources would hide what this is about.
    machine.run(machine.host, `sysctl -q -w net.ipv4.conf.${hostLinkName(a, 'eth0')}.rp_filter=0`);
    machine.run(machine.host, 'sysctl -q -w net.ipv4.conf.all.rp_filter=0');
    machine.run(machine.host, 'ip route add 203.0.113.66 dev lo');
    machine.run(a, 'ip address add 203.0.113.66/32 dev eth0');
    machine.run(a, 'ip address add 2001:db8:66::1/128 dev eth0 nodad');
    machine.run(a, `${PING} 192.0.2.2`);
    machine.run(a, `${PING} 2001:db8::2`);
    const dropped = () =>
      machine
        .run(machine.host, 'nft list ruleset')
        .match(/counter packets [1-9]\d* bytes \d+ drop/g)?.length ?? 0;
    assert.equal(dropped(), 0);
    assert.throws(() => machine.run(a, `${PING} -I 203.0.113.66 192.0.2.2`));
    assert.throws(() => machine.run(a, `${PING} -I 2001:db8:66::1 2001:db8::2`));
    assert.equal(dropped(), 2, 'each family has dropped it');
    machine.run(a, 'ip link set eth0 address 02:00:00:00:66:66');
    assert.throws(() => machine.run(a, `${PING} 192.0.2.2`));
  });

  test('a pod with a host port does not reach the loopback of the machine', async () => {
    await using machine = new Machine();
    const portMappings = [{ hostPort: 8080, containerPort: 80 }];
    const pod = await attach(machine, 'a', { portMappings });
    machine.run(pod, `${PING} ${HOST_V4}`);
    // The pod sends to 127.0.0.1 over the wire: its own table of local addresses comes second.
    machine.run(pod, 'sysctl -q -w net.ipv4.conf.all.route_localnet=1');
    machine.run(pod, 'ip route add 127.0.0.1/32 via 169.254.1.1 dev eth0 src 192.0.2.1');
    machine.run(pod, 'ip rule add pref 1 lookup main');
    machine.run(pod, 'ip rule add pref 2 lookup local');
    machine.run(pod, 'ip rule del pref 0');
    const received = () =>
      machine.run(machine.host, 'nstat -asz IcmpInEchos').match(/IcmpInEchos +(\d+)/)?.[1];
    assert.throws(() => machine.run(pod, `${PING} 127.0.0.1`));
    assert.equal(received(), '1', 'only the first one came in');
  });
});

describe('PodRules: host ports', () => {
  test('lead from outside, from the machine itself and from pods to the container', async () => {
    await using machine = new Machine();
    const outside = addNeighbour(machine);
    const ports = (hostPort: number) =>
      ['tcp', 'udp'].map((protocol) => ({ hostPort, containerPort: 80, protocol }));
    const pod = await attach(machine, 'a', { portMappings: ports(8080) });
    const other = await attach(machine, 'b');
    await serve(machine, pod, '192.0.2.1', 80);
    await serve(machine, pod, '2001:db8::1', 80);
    for (const protocol of ['tcp', 'udp']) {
      const askAll = (from: string, targets: string[]) =>
        targets.map((to) => ask(machine, from, protocol, to, 8080));
      assert.deepEqual(
        askAll(outside, ['203.0.113.1', '2001:db8:2::1']),
        ['192.0.2.1 203.0.113.2', '2001:db8::1 2001:db8:2::2'],
        'the source is kept',
      );
      assert.deepEqual(askAll(other, [HOST_V4, HOST_V6]), [
        '192.0.2.1 192.0.2.2',
        '2001:db8::1 2001:db8::2',
      ]);
      for (const from of [machine.host, pod])
        for (const answer of askAll(from, [HOST_V4, HOST_V6]))
          assert.match(answer, /^(192\.0\.2\.1|2001:db8::1) /);
      assert.match(ask(machine, machine.host, protocol, '127.0.0.1', 8080), /^192\.0\.2\.1 /);
    }
  });

  test('carry SCTP associations from outside, from the machine itself and from pods, and their answers', async () => {
    await using machine = new Machine();
    const outside = addNeighbour(machine);
    const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'sctp' }];
    const pod = await attach(machine, 'a', { portMappings });
    const other = await attach(machine, 'b');
    const inside = (namespace: string) => ['ip', 'netns', 'exec', namespace];
    const associate = (from: string, host: string) =>
      associateSctp(inside(from), { host, port: 8080 });
    for (const { address, seen, targets } of [
      {
        address: '192.0.2.1',
        seen: { outside: '203.0.113.2', other: '192.0.2.2' },
        targets: { outside: '203.0.113.1', other: HOST_V4 },
      },
      {
        address: '2001:db8::1',
        seen: { outside: '2001:db8:2::2', other: '2001:db8::2' },
        targets: { outside: '2001:db8:2::1', other: HOST_V6 },
      },
    ]) {
      using _ = await serveSctp(inside(pod), { address, port: 80 });
      assert.equal(await associate(outside, targets.outside), `${address} ${seen.outside}`);
      const closed = { host: targets.outside, port: 8081, waitMs: 400 };
      assert.match(await associateSctp(inside(outside), closed), /^no INIT_ACK/);
      assert.equal(await associate(other, targets.other), `${address} ${seen.other}`);
      for (const from of [machine.host, pod])
        assert.match(await associate(from, targets.other), new RegExp(`^${address} `));
    }
    assert.match(machine.run(machine.host, 'conntrack -L -p sctp'), /dport=8080 .*sport=80 /);
  });

  test('with an address listen on that address only', async () => {
    await using machine = new Machine();
    const outside = addNeighbour(machine);
    const portMappings = [{ hostPort: 8080, containerPort: 80, hostIP: '203.0.113.1' }];
    const pod = await attach(machine, 'a', { portMappings });
    await serve(machine, pod, '192.0.2.1', 80);
    assert.equal(ask(machine, outside, 'tcp', '203.0.113.1', 8080), '192.0.2.1 203.0.113.2');
    machine.run(outside, `ip route add ${HOST_V4} via 203.0.113.1`);
    assert.throws(() => ask(machine, outside, 'tcp', HOST_V4, 8080));
  });

  test('a UDP client that never changes its port follows the port to its next owner and back', async () => {
    await using machine = new Machine();
    const outside = addNeighbour(machine);
    const portMappings = [{ hostPort: 5353, containerPort: 53, protocol: 'udp' }];
    const first = await attach(machine, 'a', { portMappings });
    await serve(machine, first, '192.0.2.1', 53);
    const question = () => ask(machine, outside, 'udp', '203.0.113.1', 5353, 40_000);
    assert.equal(question(), '192.0.2.1 203.0.113.2');
    const second = await attach(machine, 'b', { portMappings });
    await serve(machine, second, '192.0.2.2', 53);
    assert.equal(question(), '192.0.2.2 203.0.113.2');
    await machine.attacher.delete(machine.request('DEL', second));
    assert.equal(question(), '192.0.2.1 203.0.113.2');
    await machine.attacher.delete(machine.request('DEL', first));
    assert.throws(question);
  });
});
