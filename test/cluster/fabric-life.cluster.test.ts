/** The fabric's life on two machines under traffic: broken by hand, agents that stop and come back, nodes that move. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { ip } from '#lib/ip.ts';
import { POD_LINK_PREFIX, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { DAMAGES } from './damages.ts';
import { type PodNetwork, startBalance } from './packet-balance.ts';
import { enterPod, podLinksCarry, startEcho, startStream } from './pod-traffic.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';
import type { TrafficReport } from './traffic.ts';

const WAIT_MS = 20_000;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe('two machines under traffic', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let m2: Machine;
  let near: string;
  let far: string;
  let inClient: string[];
  let client: PodNetwork;
  let server: PodNetwork;

  before(async () => {
    ({ lab, cluster } = await startCluster({
      name: 'test-life',
      machines: 2,
      serverFlags: DUAL_STACK,
    }));
    [m1, m2] = [lab.machine('m1'), lab.machine('m2')];
    await runContainer(m1, { name: 'client', role: 'client' });
    await runContainer(m2, { name: 'server', role: 'client' });
    const addressOf = async (name: string) =>
      (await cluster.client.get(POD, name, 'default')).status?.podIP ?? '';
    await until('both pods are known', WAIT_MS, async () => {
      [near, far] = [await addressOf('client'), await addressOf('server')];
      return near !== '' && far !== '';
    });
    inClient = await enterPod(m1, 'client');
    client = { machine: m1, enter: inClient };
    server = { machine: m2, enter: await enterPod(m2, 'server') };
    await startEcho(m2, 'server');
    await until('the server answers', WAIT_MS, async () => {
      const { sent, lost, failed } = await traffic(() => pause(1_000));
      return sent > 0 && lost.length === 0 && failed.length === 0;
    });
  });
  after(() => Lab.remove('test-life'));

  /** Traffic from the near pod to the far one while something happens. */
  async function traffic(during: () => Promise<void>): Promise<TrafficReport> {
    const end = await startStream(m1, { container: 'client', to: far });
    await during();
    return end();
  }

  /** The same, of which nothing may be lost; a busy machine may be late with it. */
  async function trafficWithoutLoss(during: () => Promise<void>): Promise<TrafficReport> {
    const end = await startBalance(client, server);
    const report = await traffic(during);
    await end();
    assert.deepEqual(report.failed, [], JSON.stringify(report.tcp));
    return report;
  }

  /** The Node says Ready for a while longer than its agent lives; the log does not. */
  const startsOf = (machine: Machine) =>
    readFileSync(machine.logFile('agent'), 'utf8').split('the node is ready for pods').length - 1;

  for (const [what, end] of [
    ['stopped and started', (machine: Machine) => cluster.stopAgent(machine)],
    ['killed and started', (machine: Machine) => cluster.killAgent(machine)],
  ] as const)
    test(`not a packet is lost while the agents are ${what}, in streams and in new connections`, async (t) => {
      const report = await trafficWithoutLoss(async () => {
        for (const machine of lab.hosts) {
          const starts = startsOf(machine);
          await end(machine);
          await pause(300); // what a stopped agent leaves must carry traffic by itself
          await cluster.startAgent(machine);
          await until('it has taken over', WAIT_MS, async () => startsOf(machine) > starts);
          await pause(300);
        }
      });
      t.diagnostic(`sent again, because the answer was late: ${JSON.stringify(report.tcp)}`);
      assert.ok(report.sent > 200 && report.connections > 40, JSON.stringify(report));
    });

  for (const damage of DAMAGES)
    test(`${damage.what}: repaired, and traffic flows`, async () => {
      using stack = openNetworkStack({ netns: m1.netns });
      using nftables = openNftables({ netns: m1.netns });
      const hostLink =
        stack.links.list().find(({ name }) => /^tl[0-9a-f]{11}$/.test(name))?.name ?? '';
      assert.ok(hostLink.startsWith(POD_LINK_PREFIX));
      const victim = { stack, nftables, hostLink, podIp: ip(near) };
      const before = damage.look(victim);
      damage.act(victim);
      await until(
        `it is as before:\n${before}\n`,
        WAIT_MS,
        async () => damage.look(victim) === before,
      );
      const { exitCode } = await m1.run([...inClient, 'ping', '-c', '1', '-W', '2', far]);
      assert.equal(exitCode, 0);
    });

  test('a firewall that drops what is forwarded and what comes in, on both machines, stops no pod', async () => {
    const firewall =
      'iptables -P FORWARD DROP; iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT';
    // The API must stay reachable; that is the administrator's part.
    const api = 'iptables -A INPUT -p tcp -m multiport --ports 6443 -j ACCEPT';
    try {
      for (const machine of lab.hosts) await machine.runOk(['sh', '-ec', `${firewall}; ${api}`]);
      for (const machine of lab.hosts)
        await until('the firewall lets pods pass', WAIT_MS, async () =>
          (await machine.runOk(['iptables', '-S'])).includes('-j TULLE-INPUT'),
        );
      await trafficWithoutLoss(() => pause(1_000));
      const name = 'kubernetes.default.svc.cluster.local';
      const { stdout } = await execInContainer(m1, 'client', `timeout 5 nslookup ${name}`);
      assert.match(stdout, /10\.96\.0\.1/);
      // Without our rules not a packet passes: it is these that let the pods through.
      await cluster.killAgent(m1);
      await m1.runOk(['iptables', '-F', 'TULLE-FORWARD']);
      assert.notEqual((await m1.run([...inClient, 'ping', '-c', '1', '-W', '1', far])).exitCode, 0);
      const starts = startsOf(m1);
      await cluster.startAgent(m1);
      await until('it has taken over', WAIT_MS, async () => startsOf(m1) > starts);
      await m1.runOk([...inClient, 'ping', '-c', '1', '-W', '2', far]);
    } finally {
      for (const machine of lab.hosts)
        await machine.run(['sh', '-c', 'nft delete table ip filter']);
    }
  });

  test('pods that run follow the MTU of the uplink, with packets of exactly that size', async () => {
    const fits = async (bytes: number) => {
      const flags = ['-c', '1', '-W', '1', '-M', 'do', '-s', String(bytes - 28)];
      return (await m1.run([...inClient, 'ping', ...flags, far])).exitCode === 0;
    };
    assert.ok(await fits(1450));
    for (const mtuBytes of [1400, 1500]) {
      for (const machine of lab.hosts) {
        using stack = openNetworkStack({ netns: machine.netns });
        const uplink = stack.links.get('eth0');
        assert.ok(uplink);
        stack.links.set(uplink.index, { mtuBytes });
      }
      const inner = mtuBytes - 50;
      await podLinksCarry(lab.hosts, inner);
      await until(`${inner} bytes pass and no more`, WAIT_MS, async () => {
        const { stdout } = await m1.run([...inClient, 'ip', '-o', 'link', 'show', 'eth0']);
        return stdout.includes(`mtu ${inner} `) && (await fits(inner)) && !(await fits(inner + 1));
      });
      using stack = openNetworkStack({ netns: m1.netns });
      assert.equal(stack.links.get(VXLAN_LINK)?.mtuBytes, inner);
    }
    // What the pod got at first is still what it has: addresses, routes, and IPv6 of them.
    const { stdout } = await m1.run([...inClient, 'ip', '-6', 'route']);
    assert.match(stdout, /default via fe80::1/);
  });

  test('a node that is deleted and comes back under its name is reached again', async () => {
    await cluster.killAgent(m2);
    await cluster.client.delete(NODE, { name: 'm2' });
    using stack = openNetworkStack({ netns: m1.netns });
    const peers = () => stack.fdb.list(stack.links.get(VXLAN_LINK)?.index ?? 0).length;
    await until('m1 has forgotten it', WAIT_MS, async () => peers() === 0);
    await cluster.startAgent(m2);
    await cluster.nodesReady([m2]);
    await until('the same pod answers at the same address', WAIT_MS, async () => {
      const { exitCode } = await m1.run([...inClient, 'ping', '-c', '1', '-W', '1', far]);
      return exitCode === 0;
    });
    assert.equal(peers(), 1);
  });
});
