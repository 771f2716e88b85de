/**
 * Machines with only IPv4, with only IPv6 and with both, in one cluster: every pod has both families, machines with an
 * underlay in common reach each other, and the others say that they do not.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { enterPod } from './pod-traffic.ts';
import { DUAL_STACK } from './start-cluster.ts';

const NAME = 'test-mixed';
const WAIT_MS = 30_000;
/** What each machine has; the underlay address of its node is of the first family. The server is on the first. */
const MACHINES = { m1: [4, 6], m2: [4], m3: [6], m4: [6, 4] } as const;
type Name = keyof typeof MACHINES;
const NAMES = Object.keys(MACHINES) as Name[];
/** Status of curl for a connection that was refused, or answered with ICMP; a timeout is another. */
const CURL_REFUSED = 7;
/** Counts what comes to the router for pods. */
const COUNT_LEAKS = `nft add table inet leaks
nft 'add chain inet leaks in { type filter hook prerouting priority 0; }'
nft add rule inet leaks in ip daddr 10.244.0.0/16 counter
nft add rule inet leaks in ip6 daddr fd00:10:244::/56 counter`;
const V6 = (name: Name) => `2001:db8::${10 + Number(name.slice(1))}`;

describe('machines with one family beside machines with the other', () => {
  let lab: Lab;
  let cluster: LabCluster;
  const podIps = new Map<Name, readonly string[]>();
  /** What runs a program of the machine in its pod's network. */
  const inPod = new Map<Name, readonly string[]>();
  /** The family of a node's underlay address. */
  const underlay = new Map<Name, 4 | 6>(NAMES.map((name) => [name, MACHINES[name][0]]));
  const nodeIp = (name: Name) => (underlay.get(name) === 6 ? V6(name) : lab.machine(name).address);
  const startAgent = (name: Name) =>
    cluster.startAgent(lab.machine(name), {
      nodeIp: nodeIp(name),
      // Beside the server's IPv4 address: whoever has no IPv4 gets on with the second.
      flags: ['--server', `https://[${V6('m1')}]:6443`],
    });

  before(async () => {
    await Lab.remove(NAME);
    lab = await Lab.create({ name: NAME, machines: NAMES.length });
    for (const name of NAMES) await giveAddresses(lab.machine(name), name);
    cluster = new LabCluster(lab);
    await cluster.startServer([
      ...DUAL_STACK,
      ...['--listen', '[::]:6443', '--advertise-address', lab.machine('m1').address],
    ]);
    for (const name of NAMES) {
      preparePodman(lab.machine(name));
      await startAgent(name);
    }
    await cluster.nodesReady();
    for (const name of NAMES) {
      await runContainer(lab.machine(name), { name: `on-${name}`, role: 'server' });
      inPod.set(name, await enterPod(lab.machine(name), `on-${name}`));
    }
    await lab.machine('router').runOk(['sh', '-ec', COUNT_LEAKS]);
    await until('all pods are known', WAIT_MS, async () => {
      for (const { metadata, status } of (await cluster.client.list(POD)).items)
        podIps.set(
          metadata.name.replace('on-', '') as Name,
          (status?.podIPs ?? []).map(({ ip }) => ip),
        );
      return NAMES.every((name) => podIps.get(name)?.length === 2);
    });
  });
  after(() => Lab.remove(NAME));

  const meet = (a: Name, b: Name) => underlay.get(a) === underlay.get(b);
  /** @returns the name that the pod at the address answered, or what became of the connection */
  async function ask(from: Name, address: string): Promise<string> {
    const host = address.includes(':') ? `[${address}]` : address;
    const curl = ['curl', '--silent', '--max-time', '3', `http://${host}:8080/`];
    const { stdout, exitCode } = await lab.machine(from).run([...(inPod.get(from) ?? []), ...curl]);
    if (exitCode === CURL_REFUSED) return 'refused';
    return stdout.trim() || `curl ended with status ${exitCode}`;
  }
  async function everyPair(): Promise<void> {
    for (const from of NAMES)
      for (const to of NAMES)
        for (const address of podIps.get(to) ?? []) {
          const expected = meet(from, to) ? `on-${to}` : 'refused';
          await until(`${from} to ${to} at ${address}: ${expected}`, WAIT_MS, async () => {
            assert.equal(await ask(from, address), expected);
            return true;
          });
        }
  }

  test('each pod has an address of both families, and the MTU of its machine’s underlay', async () => {
    for (const name of NAMES) {
      assert.deepEqual(
        podIps.get(name)?.map((address) => address.includes(':')),
        [false, true],
      );
      const mtu = underlay.get(name) === 4 ? 1450 : 1430;
      const { stdout } = await execInContainer(
        lab.machine(name),
        `on-${name}`,
        'ip link show eth0',
      );
      assert.match(stdout, new RegExp(` mtu ${mtu} `), name);
    }
  });

  test('pods reach each other by a common underlay; what has none is answered at once, and nothing leaks', async () => {
    await everyPair();
    const counted = await lab.machine('router').runOk(['nft', 'list', 'table', 'inet', 'leaks']);
    assert.equal(counted.match(/counter packets 0 /g)?.length, 2, counted);
  });

  test('each Node is Ready, and its condition names the nodes that it does not reach', async () => {
    for (const { metadata, status } of (await cluster.client.list(NODE)).items) {
      const name = metadata.name as Name;
      const condition = (type: string) => status?.conditions?.find((it) => it.type === type);
      assert.equal(condition('Ready')?.status, 'True');
      const message = condition('FabricReady')?.message ?? '';
      for (const other of NAMES)
        assert.equal(
          message.includes(`node ${other} has no IPv${underlay.get(name)} address`),
          !meet(name, other),
          `${name}: ${message}`,
        );
    }
  });

  test('names are answered on each machine', async () => {
    for (const name of NAMES) {
      const script = 'timeout 5 nslookup kubernetes.default.svc.cluster.local';
      const { stdout } = await execInContainer(lab.machine(name), `on-${name}`, script);
      assert.match(stdout, /10\.96\.0\.1/, name);
    }
  });

  test('a node that takes its other address changes sides', async () => {
    await cluster.stopAgent(lab.machine('m4'));
    underlay.set('m4', 4);
    await startAgent('m4');
    await everyPair();
  });
});

/** The lab gives a machine IPv4; this adds the other family, and takes away what it is not to have. */
async function giveAddresses(machine: Machine, name: Name): Promise<void> {
  const families: readonly number[] = MACHINES[name];
  const six = `ip address add ${V6(name)}/64 dev eth0 nodad; ip -6 route add default via 2001:db8::1`;
  if (families.includes(6)) await machine.runOk(['sh', '-ec', six]);
  if (!families.includes(4)) await machine.runOk(['ip', '-4', 'address', 'flush', 'dev', 'eth0']);
}
