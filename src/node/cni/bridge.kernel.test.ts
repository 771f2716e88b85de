/**
 * Mode `bridge` beside the reference plugin: the same configuration goes to both, each on a machine of its own, and
 * answers and kernel state are compared.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { CniError } from '#wire/cni/error.ts';
import { parseCniRequest } from '#wire/cni/request.ts';
import { encodeCniResult } from '#wire/cni/result.ts';
import { Machine } from '../pod-machine.ts';
import { createCniHandler } from './handler.ts';

const PLUGINS = '/usr/lib/cni';
const skip = existsSync(`${PLUGINS}/bridge`)
  ? false
  : 'needs the reference plugins (containernetworking-plugins)';
const PING = 'ping -c 1 -W 2 -q';

type Config = Record<string, unknown>;
interface Outcome {
  readonly result: Record<string, unknown>;
  readonly failed: boolean;
}

const env = (
  machine: Machine,
  pod: string,
  command: string,
  more: Record<string, string> = {},
) => ({
  CNI_COMMAND: command,
  CNI_CONTAINERID: pod,
  CNI_NETNS: machine.path(pod),
  CNI_IFNAME: 'eth0',
  CNI_PATH: PLUGINS,
  ...more,
});

/** Every machine keeps the leases of host-local for itself. */
function configOf(machine: Machine, config: Config): Config {
  const ipam = config.ipam as Config | undefined;
  return {
    cniVersion: '1.0.0',
    name: 'net',
    ...config,
    ...(ipam === undefined ? {} : { ipam: { dataDir: machine.scratch, ...ipam } }),
  };
}

/** The plugin file of the reference, as a runtime calls it. */
function callReference(machine: Machine, type: string, vars: object, config: Config): Outcome {
  const argv = Object.entries(vars).map(([key, value]) => `${key}=${value}`);
  const input = JSON.stringify({ ...config, type });
  try {
    const args = ['netns', 'exec', machine.host, 'env', ...argv, `${PLUGINS}/${type}`];
    const stdout = execFileSync('ip', args, { input, encoding: 'utf8', stdio: 'pipe' });
    return { result: stdout === '' ? {} : JSON.parse(stdout), failed: false };
  } catch (error) {
    return { result: JSON.parse((error as { stdout: string }).stdout), failed: true };
  }
}

async function callOurs(machine: Machine, vars: object, config: Config): Promise<Outcome> {
  const handler = createCniHandler(machine.attacher, silentLogger);
  const stdin = JSON.stringify({ ...config, type: 'tulle', mode: 'bridge' });
  const { exitCode, stdout } = await handler({ env: vars as Record<string, string>, stdin });
  return { result: stdout === '' ? {} : JSON.parse(stdout), failed: exitCode !== 0 };
}

/** Without what differs from machine to machine: names of links and namespaces, MACs. */
function normal(result: object): unknown {
  return JSON.parse(
    JSON.stringify(result)
      .replace(/"(veth|tl)[0-9a-f]+"/g, '"HOST"')
      .replace(/([0-9a-f]{2}:){5}[0-9a-f]{2}/g, 'MAC')
      .replace(/"\/run\/netns\/[^"]+"/g, '"NETNS"'),
  );
}

/** What of the kernel's state the configuration decides. */
function stateOf(machine: Machine, pod: string, bridge: string): unknown {
  const pick = (objects: Record<string, unknown>[], ...keys: string[]) =>
    objects.map((it) => Object.fromEntries(keys.map((key) => [key, it[key]])));
  const addresses = (where: string, link: string) =>
    machine
      .json(where, `ip -j address show dev ${link} scope global`)
      .flatMap((it) => pick(it.addr_info as Record<string, unknown>[], 'local', 'prefixlen'));
  const [link] = machine.json(machine.host, `ip -j -d link show ${bridge}`);
  const ports = machine.json(machine.host, `ip -j -d link show master ${bridge}`);
  const flags = (it: Record<string, unknown>) =>
    (it.flags as string[]).filter((flag) => ['UP', 'PROMISC'].includes(flag));
  return {
    bridge: {
      flags: link && flags(link),
      mtu: link?.mtu,
      addresses: addresses(machine.host, bridge),
    },
    ports: ports.map((port) => {
      const { info_slave_data: data } = port.linkinfo as Record<string, Record<string, unknown>>;
      return {
        flags: flags(port),
        mtu: port.mtu,
        hairpin: data?.hairpin,
        isolated: data?.isolated,
      };
    }),
    pod: {
      links: pick(machine.json(pod, 'ip -j link show eth0'), 'mtu', 'ifname'),
      addresses: addresses(pod, 'eth0'),
      routes: [
        ...pick(machine.json(pod, 'ip -j -4 route'), 'dst', 'gateway', 'dev'),
        ...pick(machine.json(pod, 'ip -j -6 route'), 'dst', 'gateway', 'dev').filter(
          (it) => !String(it.dst).startsWith('fe80') && !String(it.dst).startsWith('ff00'),
        ),
      ],
    },
    forwarding: [4, 6].map((family) =>
      machine.stack.sysctl.get(
        `net/ipv${family}/${family === 4 ? 'ip_forward' : 'conf/all/forwarding'}`,
      ),
    ),
  };
}

const V4 = { type: 'host-local', subnet: '10.88.0.0/16' };
const DUAL = {
  type: 'host-local',
  ranges: [[{ subnet: '10.88.0.0/24' }], [{ subnet: '2001:db8:88::/64' }]],
};
const CASES: readonly (readonly [string, Config])[] = [
  ['layer 2 only', { ipam: {} }],
  ['addresses without a gateway', { ipam: V4 }],
  ['a gateway', { bridge: 'br7', isGateway: true, ipam: V4 }],
  ['a default gateway', { isDefaultGateway: true, ipam: V4 }],
  ['two families', { isDefaultGateway: true, ipam: DUAL }],
  [
    'routes of the address plugin',
    {
      isGateway: true,
      ipam: { ...V4, routes: [{ dst: '0.0.0.0/0' }, { dst: '192.0.2.0/24', gw: '10.88.0.9' }] },
    },
  ],
  ['another MTU', { mtu: 1400, isGateway: true, ipam: V4 }],
  ['hairpin', { hairpinMode: true, isGateway: true, ipam: V4 }],
  ['promiscuous mode', { promiscMode: true, isGateway: true, ipam: V4 }],
  ['DNS of its own', { ipam: V4, dns: { nameservers: ['192.0.2.53'], search: ['x.test'] } }],
  ['version 0.2.0', { cniVersion: '0.2.0', isDefaultGateway: true, ipam: DUAL }],
  ['version 0.3.1', { cniVersion: '0.3.1', isDefaultGateway: true, ipam: DUAL }],
  ['version 0.4.0', { cniVersion: '0.4.0', isDefaultGateway: true, ipam: V4 }],
  [
    'static addresses',
    {
      isGateway: true,
      ipam: { type: 'static', addresses: [{ address: '10.88.0.77/16', gateway: '10.88.0.1' }] },
    },
  ],
];

// The reference plugin waits seconds for IPv6; the machines have nothing to do with each other.
describe('mode bridge beside the reference plugin', { skip, concurrency: 4 }, () => {
  for (const [name, config] of CASES)
    test(`makes and says the same for ${name}`, async () => {
      await using theirs = new Machine({ plain: true });
      await using ours = new Machine({ plain: true });
      const [theirPod, ourPod] = [theirs.addNamespace('p'), ours.addNamespace('p')];
      const expected = callReference(
        theirs,
        'bridge',
        env(theirs, theirPod, 'ADD'),
        configOf(theirs, config),
      );
      const actual = await callOurs(ours, env(ours, ourPod, 'ADD'), configOf(ours, config));
      assert.equal(expected.failed, false, JSON.stringify(expected.result));
      assert.deepEqual(normal(actual.result), normal(expected.result));
      const bridge = String(config.bridge ?? 'cni0');
      assert.deepEqual(stateOf(ours, ourPod, bridge), stateOf(theirs, theirPod, bridge));
      if (config.cniVersion !== '0.2.0' && config.cniVersion !== '0.3.1') {
        const check = { ...configOf(ours, config), prevResult: actual.result };
        const checked = await callOurs(ours, env(ours, ourPod, 'CHECK'), check);
        assert.equal(checked.failed, false, JSON.stringify(checked.result));
      }
      for (let i = 0; i < 2; i++) {
        const gone = await callOurs(ours, env(ours, ourPod, 'DEL'), {
          ...configOf(ours, config),
          prevResult: actual.result,
        });
        assert.equal(gone.failed, false, JSON.stringify(gone.result));
      }
      assert.deepEqual(ours.leases(), []);
      assert.deepEqual(await ours.leftovers(), {
        links: [],
        routes: [],
        addresses: [],
        records: [],
        elements: 0,
      });
    });

  const REFUSED: readonly (readonly [string, Config])[] = [
    ['hairpin and promiscuous mode', { hairpinMode: true, promiscMode: true }],
    ['a VLAN out of range', { vlan: 4095 }],
    ['a link that is no bridge', { bridge: 'lo' }],
  ];
  for (const [name, config] of REFUSED)
    test(`refuses ${name} as it does`, async () => {
      await using machine = new Machine({ plain: true });
      const pod = machine.addNamespace('p');
      const theirs = callReference(
        machine,
        'bridge',
        env(machine, pod, 'ADD'),
        configOf(machine, config),
      );
      const ours = await callOurs(machine, env(machine, pod, 'ADD'), configOf(machine, config));
      assert.deepEqual([ours.failed, theirs.failed], [true, true]);
      const words = (text: unknown) => String(text).toLowerCase();
      // The reference plugin puts some of its messages behind a prefix of its own.
      assert.ok(
        words(theirs.result.msg).includes(words(ours.result.msg)),
        `${ours.result.msg} / ${theirs.result.msg}`,
      );
    });
});

const DISCOVERY = join(import.meta.dirname, '../pod-rules/discovery.fixture.pl');

describe('mode bridge', { skip }, () => {
  const config = { isDefaultGateway: true, ipMasq: true, ipam: DUAL };
  const request = (machine: Machine, pod: string, command: 'ADD' | 'CHECK', more: Config = {}) =>
    parseCniRequest(
      env(machine, pod, command),
      JSON.stringify({
        ...configOf(machine, { ...config, ...more }),
        type: 'tulle',
        mode: 'bridge',
      }),
    );

  test('containers reach each other and their gateway; isolated ones only the gateway', async () => {
    await using machine = new Machine({ plain: true });
    const pods = ['a', 'b', 'c', 'd'].map((name) => machine.addNamespace(name));
    for (const [i, pod] of pods.entries()) {
      const call = request(machine, pod, 'ADD', { portIsolation: i >= 2 });
      assert.ok(call.command === 'ADD');
      await machine.attacher.add(call);
    }
    const [a = '', , c = ''] = pods;
    for (const target of ['10.88.0.1', '10.88.0.3', '2001:db8:88::1', '2001:db8:88::3'])
      machine.run(a, `${PING} ${target}`);
    machine.run(c, `${PING} 10.88.0.1`);
    assert.throws(() => machine.run(c, 'ping -c 1 -W 1 -q 10.88.0.5'));
  });

  async function attachTwo(machine: Machine): Promise<[a: string, b: string]> {
    const pods: [string, string] = [machine.addNamespace('a'), machine.addNamespace('b')];
    for (const pod of pods) {
      const call = request(machine, pod, 'ADD');
      assert.ok(call.command === 'ADD');
      await machine.attacher.add(call);
    }
    return pods;
  }

  test('a container cannot send from another address or MAC, nor answer ARP for another', async () => {
    await using machine = new Machine({ plain: true });
    const [a, b] = await attachTwo(machine);
    machine.run(a, 'ip address add 10.88.0.66/24 dev eth0');
    machine.run(a, 'ip address add 2001:db8:88::66/64 dev eth0 nodad');
    assert.throws(() => machine.run(a, 'ping -c 1 -W 1 -q -I 10.88.0.66 10.88.0.3'));
    assert.throws(() => machine.run(a, 'ping -c 1 -W 1 -q -I 2001:db8:88::66 2001:db8:88::3'));
    assert.throws(() => machine.run(b, 'ping -c 1 -W 1 -q 10.88.0.66'), 'nobody may answer for it');
    machine.run(a, `${PING} -I 10.88.0.2 10.88.0.3`);
    machine.run(a, 'ip link set eth0 address 02:00:00:00:66:66');
    assert.throws(() => machine.run(a, 'ping -c 1 -W 1 -q -I 10.88.0.2 10.88.0.3'));
  });

  test('without br_netfilter a container is refused, and nothing is left of it; isolated ones are not', async () => {
    await using machine = new Machine({ plain: true });
    const pod = machine.addNamespace('a');
    machine.start({ host: withoutBridgeFilter(machine.stack) });
    const open = request(machine, pod, 'ADD');
    assert.ok(open.command === 'ADD');
    await assert.rejects(machine.attacher.add(open), {
      message: /past all network policies: this kernel has not loaded br_netfilter/,
      details: /modprobe br_netfilter/,
    });
    assert.deepEqual(
      machine.json(pod, 'ip -j link show').map(({ ifname }) => ifname),
      ['lo'],
    );
    assert.deepEqual(machine.attacher.list(), []);
    const isolated = request(machine, pod, 'ADD', { portIsolation: true });
    assert.ok(isolated.command === 'ADD');
    await machine.attacher.add(isolated);
    machine.run(pod, `${PING} 10.88.0.1`);
  });

  test('a container cannot claim the address of another, or to be a router, in neighbour discovery', async () => {
    await using machine = new Machine({ plain: true });
    const [a, b] = await attachTwo(machine);
    const gateway = '2001:db8:88::1';
    machine.run(b, `${PING} ${gateway}`);
    const known = () => machine.json(b, `ip -6 -j neigh show ${gateway}`)[0]?.lladdr;
    const before = known();
    assert.ok(before !== undefined);
    const dropped = () => {
      const rules = machine.run(
        machine.host,
        'nft list chain bridge tulle check-neighbour-discovery',
      );
      return [...rules.matchAll(/counter packets (\d+) /g)].reduce(
        (sum, [, n]) => sum + Number(n),
        0,
      );
    };
    const mac = machine.json(a, 'ip -j link show eth0')[0]?.address;
    const say = (type: number, target: string) =>
      machine.run(a, `perl ${DISCOVERY} ${type} ${target} ${mac}`);
    await until(() => / fe80:.*eth0/.test(machine.run(a, 'ip -6 route show table local')));
    assert.equal(dropped(), 0);
    for (const [count, type, target] of [
      [1, 136, gateway],
      [2, 136, 'fe80::1'],
      [3, 134, '::'],
      [4, 137, '::'],
    ] as const) {
      say(type, target);
      assert.equal(dropped(), count, `type ${type} for ${target}`);
    }
    assert.equal(known(), before);
    say(136, '2001:db8:88::2');
    const linkLocal = (pod: string) =>
      machine.run(pod, 'ip -6 -o address show dev eth0 scope link').match(/fe80:\S+(?=\/)/)?.[0] ??
      '';
    say(136, linkLocal(a));
    assert.equal(dropped(), 4, 'its own addresses it may tell of');
    say(136, linkLocal(b));
    assert.equal(dropped(), 5, 'not of the link-local one of another');
    machine.run(a, `${PING} -I eth0 ${linkLocal(b)}`);
    machine.run(a, 'ip address add fe80::66/64 dev eth0 nodad');
    assert.throws(() => machine.run(a, `ping -c 1 -W 1 -q -I fe80::66%eth0 ${linkLocal(b)}%eth0`));
    machine.run(b, `${PING} 2001:db8:88::2`);
  });

  test('CHECK names what was broken', async () => {
    await using machine = new Machine({ plain: true });
    const pod = machine.addNamespace('a');
    const call = request(machine, pod, 'ADD');
    assert.ok(call.command === 'ADD');
    const prevResult = JSON.parse(encodeCniResult(await machine.attacher.add(call), '1.0.0'));
    const check = async () => {
      const again = request(machine, pod, 'CHECK', { prevResult });
      assert.ok(again.command === 'CHECK');
      await machine.attacher.check(again);
    };
    const fails = (text: RegExp) =>
      assert.rejects(
        check(),
        (error) => error instanceof CniError && text.test(`${error.details}`),
      );
    await check();
    machine.run(pod, 'ip route del default');
    await fails(/route 0\.0\.0\.0\/0 is missing/);
    machine.run(pod, 'ip address del 10.88.0.2/24 dev eth0');
    await fails(/address 10\.88\.0\.2\/24 is missing/);
    machine.run(pod, 'ip link set eth0 address 02:00:00:00:00:01');
    await fails(/has MAC 02:00:00:00:00:01/);
    const port = prevResult.interfaces[1].name;
    machine.run(machine.host, `ip link set ${port} nomaster`);
    await fails(/is not a port of "cni0"/);
    machine.attacher.repair();
    machine.run(machine.host, `ip link show master cni0`).includes(port);
    machine.run(machine.host, 'ip link del cni0');
    await fails(/bridge "cni0" does not exist/);
  });

  /** VLANs by port, ports in the order of their making. */
  const vlansOf = (machine: Machine) =>
    machine
      .json(machine.host, 'bridge -j vlan show')
      .filter((it) => it.ifname !== 'cni0')
      .map((it) => it.vlans);

  for (const [name, more] of [
    ['a VLAN', { vlan: 100, isDefaultGateway: false, ipMasq: false }],
    ['a VLAN with a gateway', { vlan: 100 }],
  ] as const)
    test(`makes and says the same as the reference plugin for ${name}`, async (t) => {
      await using theirs = new Machine({ plain: true });
      await using ours = new Machine({ plain: true });
      if (!ours.hasVlanFiltering()) return t.skip('this kernel has no VLAN filtering');
      const of = (machine: Machine) =>
        [machine, machine.addNamespace('p'), configOf(machine, { ...config, ...more })] as const;
      const [a, theirPod, theirConfig] = of(theirs);
      const [b, ourPod, ourConfig] = of(ours);
      const expected = callReference(a, 'bridge', env(a, theirPod, 'ADD'), theirConfig);
      const actual = await callOurs(b, env(b, ourPod, 'ADD'), ourConfig);
      assert.equal(expected.failed, false, JSON.stringify(expected.result));
      assert.deepEqual(normal(actual.result), normal(expected.result));
      assert.deepEqual(vlansOf(ours), vlansOf(theirs));
      assert.deepEqual(stateOf(ours, ourPod, 'cni0'), stateOf(theirs, theirPod, 'cni0'));
    });

  test('a VLAN keeps containers apart, and a trunk has what it names', async (t) => {
    await using machine = new Machine({ plain: true });
    if (!machine.hasVlanFiltering()) return t.skip('this kernel has no VLAN filtering');
    const add = async (name: string, more: Config) => {
      const pod = machine.addNamespace(name);
      const plain = { isDefaultGateway: false, preserveDefaultVlan: false, ...more };
      const call = request(machine, pod, 'ADD', plain);
      assert.ok(call.command === 'ADD');
      const { ips } = await machine.attacher.add(call);
      return { pod, address: ips[0]?.address.split('/')[0] };
    };
    const [a, b] = [await add('a', { vlan: 100 }), await add('b', { vlan: 100 })];
    const c = await add('c', { vlan: 200 });
    machine.run(a.pod, `${PING} ${b.address}`);
    assert.throws(() => machine.run(a.pod, `ping -c 1 -W 1 -q ${c.address}`));
    await add('d', { vlanTrunk: [{ minID: 5, maxID: 6 }, { id: 9 }] });
    assert.deepEqual(vlansOf(machine).at(-1), [{ vlan: 5 }, { vlan: 6 }, { vlan: 9 }]);
    machine.attacher.repair();
    assert.deepEqual(vlansOf(machine).at(-1), [{ vlan: 5 }, { vlan: 6 }, { vlan: 9 }]);
  });

  test('VLANs are refused with what is missing, and nothing is left, where the kernel has none', async (t) => {
    await using machine = new Machine({ plain: true });
    if (machine.hasVlanFiltering()) return t.skip('this kernel has VLAN filtering');
    const pod = machine.addNamespace('p');
    for (const [field, more] of [
      ['vlan', { vlan: 100, isGateway: true }],
      ['vlanTrunk', { vlanTrunk: [{ id: 5 }] }],
    ] as const) {
      const call = request(machine, pod, 'ADD', { ...more, isDefaultGateway: false });
      assert.ok(call.command === 'ADD');
      await assert.rejects(
        machine.attacher.add(call),
        (error) =>
          error instanceof CniError &&
          error.cniCode === 2 &&
          error.message.includes(`"${field}"`) &&
          `${error.details}`.includes('CONFIG_BRIDGE_VLAN_FILTERING'),
      );
    }
    assert.doesNotMatch(machine.run(machine.host, 'ip -o link'), /cni0|tl/);
  });

  test('another address of the bridge is refused, or replaced with forceAddress', async () => {
    await using machine = new Machine({ plain: true });
    const pod = machine.addNamespace('a');
    machine.run(machine.host, 'ip link add cni0 type bridge');
    machine.run(machine.host, 'ip address add 203.0.113.9/24 dev cni0');
    const add = (more: Config = {}) => {
      const call = request(machine, pod, 'ADD', more);
      assert.ok(call.command === 'ADD');
      return machine.attacher.add(call);
    };
    await assert.rejects(add(), /already has an IP address different from 10\.88\.0\.1\/24/);
    assert.deepEqual(machine.leases(), [], 'a failed ADD gives its addresses back');
    await add({ forceAddress: true });
    assert.doesNotMatch(machine.run(machine.host, 'ip address show cni0'), /203\.0\.113/);
  });

  test('what leaves the network is masqueraded, what stays is not', async () => {
    await using machine = new Machine({ plain: true });
    const pod = machine.addNamespace('a');
    const call = request(machine, pod, 'ADD');
    assert.ok(call.command === 'ADD');
    await machine.attacher.add(call);
    const outside = machine.addNamespace('o');
    machine.run(machine.host, `ip link add ul0 type veth peer name ul0 netns ${outside}`);
    machine.run(machine.host, 'ip address add 203.0.113.1/24 dev ul0');
    machine.run(machine.host, 'ip link set ul0 up');
    machine.run(outside, 'ip address add 203.0.113.2/24 dev ul0');
    machine.run(outside, 'ip link set ul0 up');
    // The neighbour has no route back to the container, so only the machine's own address can get an answer.
    machine.run(pod, `${PING} 203.0.113.2`);
  });
});

/** As the network of a kernel that has not loaded `br_netfilter`: its settings are not there. */
function withoutBridgeFilter(stack: NetworkStack): NetworkStack {
  const sysctl: NetworkStack['sysctl'] = {
    ...stack.sysctl,
    get: (name) => (name.startsWith('net/bridge/') ? undefined : stack.sysctl.get(name)),
    set: (name, value) => stack.sysctl.set(name, value),
  };
  return new Proxy(stack, {
    get(target, property) {
      if (property === 'sysctl') return sysctl;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
