/** Nodes without any IPv4 address: pods of both families over an IPv6 underlay, with and without a tunnel. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { type Encapsulation, IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { containerPid, execInContainer, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { type Ip, ip } from '#lib/ip.ts';
import { VXLAN_LINK } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { podLinksCarry } from './pod-traffic.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;
/** Inner Ethernet 14, VXLAN 8, UDP 8, outer IPv6 40. */
const OVERHEAD_BYTES = 70;

describe('two machines on an IPv6 underlay', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let far: Ip[];
  let inClient: string[];

  before(async () => {
    ({ lab, cluster } = await startCluster({
      name: 'test-fabric6',
      machines: 2,
      underlay: 'IPv6',
      serverFlags: DUAL_STACK,
    }));
    m1 = lab.machine('m1');
    await runContainer(m1, { name: 'client', role: 'client' });
    await runContainer(lab.machine('m2'), { name: 'server', role: 'server' });
    await until('the server’s pod is known', WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      const server = items.find((pod) => pod.metadata.name === 'server');
      far = (server?.status?.podIPs ?? []).map((it) => ip(it.ip));
      return far.length === 2;
    });
    inClient = ['nsenter', '--target', String(await containerPid(m1, 'client')), '--net', '--'];
  });
  after(() => Lab.remove('test-fabric6'));

  const ping = async (address: string, ...flags: string[]) =>
    (await m1.run([...inClient, 'ping', '-c', '1', '-W', '2', ...flags, address])).exitCode === 0;
  const pathTo = (address: Ip) => {
    using stack = openNetworkStack({ netns: m1.netns });
    const route = stack.routes.lookup(address);
    return { link: stack.links.get(route.link ?? 0)?.name, gateway: route.gateway };
  };

  test('the nodes have IPv6 addresses and no others', async () => {
    const { items } = await cluster.client.list(NODE);
    const addresses = items.flatMap((node) => node.status?.addresses ?? []);
    assert.deepEqual(
      addresses.flatMap(({ type, address }) => (type === 'InternalIP' ? [address] : [])).sort(),
      ['2001:db8::11', '2001:db8::12'],
    );
  });

  for (const [encapsulation, link, mtuBytes] of [
    ['Always', VXLAN_LINK, 1500 - OVERHEAD_BYTES],
    ['Never', 'eth0', 1500],
    ['CrossSubnet', 'eth0', 1500 - OVERHEAD_BYTES],
    ['Always', VXLAN_LINK, 1500 - OVERHEAD_BYTES],
  ] as const)
    test(`pods of both families reach each other with encapsulation ${encapsulation}, at full size`, async () => {
      await setEncapsulation(encapsulation);
      await podLinksCarry(lab.hosts, mtuBytes);
      for (const address of far) {
        const isV4 = !address.includes(':');
        await until(`${address} by ${link}`, WAIT_MS, async () => pathTo(address).link === link);
        if (link === 'eth0') assert.equal(pathTo(address).gateway, '2001:db8::12');
        const full = mtuBytes - (isV4 ? 28 : 48);
        await until(`${address} takes ${full} bytes`, WAIT_MS, () =>
          ping(address, '-M', 'do', '-s', String(full)),
        );
        assert.ok(!(await ping(address, '-M', 'do', '-s', String(full + 1))));
        const host = isV4 ? address : `[${address}]`;
        const fetched = await execInContainer(
          m1,
          'client',
          `timeout 3 wget -qO - http://${host}:8080/`,
        );
        assert.equal(fetched.stdout.trim(), 'server');
      }
    });

  test('a service answers at its cluster IP of each family', async () => {
    for (const name of ['kubernetes.default']) {
      const { stdout } = await execInContainer(m1, 'client', `nslookup ${name}.svc.cluster.local`);
      assert.match(stdout, /10\.96\.0\.1/);
    }
  });

  const setEncapsulation = async (encapsulation: Encapsulation) => {
    for (const { metadata } of (await cluster.client.list(IP_POOL)).items)
      await cluster.client.patch(
        IP_POOL,
        { name: metadata.name },
        { type: 'application/merge-patch+json', body: { spec: { encapsulation } } },
      );
  };
});
