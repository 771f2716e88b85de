/** The fabric's backends on a living cluster: switched under traffic, and following the uplink. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { type Encapsulation, IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { containerPid, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { cidr, ip } from '#lib/ip.ts';
import { VXLAN_LINK } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;

describe('the fabric of two machines', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let m2: Machine;
  let far: string;
  let inClient: string[];

  before(async () => {
    ({ lab, cluster } = await startCluster({ name: 'test-fabric', machines: 2 }));
    m1 = lab.machine('m1');
    m2 = lab.machine('m2');
    await runContainer(m1, { name: 'client', role: 'client' });
    await runContainer(m2, { name: 'server', role: 'client' });
    await until('the server’s pod is known', WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      far = items.find((pod) => pod.metadata.name === 'server')?.status?.podIP ?? '';
      return far !== '';
    });
    const pid = String(await containerPid(m1, 'client'));
    inClient = ['nsenter', '--target', pid, '--net', '--'];
  });
  after(() => Lab.remove('test-fabric'));

  /** The link that m1's route to the far pod leads to. */
  const pathOf = (machine: Machine) => {
    using stack = openNetworkStack({ netns: machine.netns });
    return stack.links.get(stack.routes.lookup(ip(far)).link ?? 0)?.name;
  };
  const setEncapsulation = (encapsulation: Encapsulation) =>
    cluster.client.patch(
      IP_POOL,
      { name: 'default-ipv4' },
      { type: 'application/merge-patch+json', body: { spec: { encapsulation } } },
    );

  test('a change of encapsulation loses no packet', async () => {
    const stream = m1.run([...inClient, 'ping', '-q', '-i', '0.005', '-c', '600', far], {
      timeoutMs: 30_000,
    });
    for (const [encapsulation, link] of [
      ['CrossSubnet', 'eth0'],
      ['Always', VXLAN_LINK],
      ['Never', 'eth0'],
      ['Always', VXLAN_LINK],
    ] as const) {
      await setEncapsulation(encapsulation);
      await until(`m1 sends by ${link}`, WAIT_MS, async () => pathOf(m1) === link);
    }
    const { stdout } = await stream;
    assert.match(stdout, / 0% packet loss/, stdout);
  });

  test('the tunnel’s MTU follows the uplink’s', async () => {
    using stack = openNetworkStack({ netns: m1.netns });
    const uplink = stack.links.get('eth0');
    assert.ok(uplink);
    for (const mtuBytes of [1400, 1500]) {
      stack.links.set(uplink.index, { mtuBytes });
      await until(
        `the tunnel carries ${mtuBytes - 50} bytes`,
        WAIT_MS,
        async () => stack.links.get(VXLAN_LINK)?.mtuBytes === mtuBytes - 50,
      );
    }
  });

  test('a node that comes back with another underlay address is reached again', async () => {
    await cluster.killAgent(m2);
    using stack = openNetworkStack({ netns: m2.netns });
    const link = stack.links.get('eth0')?.index ?? 0;
    const old = stack.addresses.list({ link, family: 4 })[0];
    assert.ok(old);
    stack.addresses.delete(old);
    stack.addresses.add({ link, address: ip('192.0.2.77'), prefixLength: 24 });
    stack.routes.replace([
      { destination: cidr('0.0.0.0/0'), gateway: ip('192.0.2.1'), link, protocol: 4 },
    ]);
    await cluster.startAgent(m2, { nodeIp: '192.0.2.77' });
    await cluster.nodesReady([m2]);
    await until('the far pod answers', WAIT_MS, async () => {
      const { exitCode } = await m1.run([...inClient, 'ping', '-c', '1', '-W', '1', far]);
      return exitCode === 0;
    });
  });
});
