/**
 * Policy and what comes in by a machine's ports, in both families, from a host that knows nothing of pods: node ports with
 * each externalTrafficPolicy, on the pod's machine and on another, host ports, and what machines send themselves.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SERVICE, type ServiceSpec } from '#api/core/v1/service.ts';
import { NETWORK_POLICY, type NetworkPolicySpec } from '#api/networking/v1/network-policy.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { Lab, OUTSIDE } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { isNotFound } from '#lib/errors.ts';
import { VXLAN_LINK } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { giveIpv6, MACHINE_V6 } from './machine-ipv6.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;
const LAB = 'test-pol-ports';
const CLUSTER_PORT = 30_201;
const LOCAL_PORT = 30_202;
const HOST_PORT = 18_081;
const POD_PORT = 8080;

describe('policy at the ports of machines', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let m2: Machine;
  let outside: Machine;

  before(async () => {
    ({ lab, cluster } = await startCluster({
      ...{ name: LAB, machines: 2, serverFlags: DUAL_STACK },
    }));
    m1 = lab.machine('m1');
    m2 = lab.machine('m2');
    outside = lab.machine(OUTSIDE);
    await giveIpv6(lab);
    await m1.runOk(
      [
        ...['podman', 'run', '--detach', '--name', 'web', '--network', 'tulle'],
        ...['--label', 'app=web', '--publish', `${HOST_PORT}:${POD_PORT}`],
        ...['--tmpfs', '/srv', '--rootfs', '/var/lib/rootfs', 'sh', '-c'],
        `echo web > /srv/index.html; exec httpd -f -p ${POD_PORT} -h /srv`,
      ],
      { timeoutMs: 60_000 },
    );
    const expose = (name: string, nodePort: number, spec: Partial<ServiceSpec>) =>
      cluster.client.create(SERVICE, {
        ...{ apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' } },
        spec: {
          ...{ type: 'NodePort', ipFamilyPolicy: 'RequireDualStack', selector: { app: 'web' } },
          ...spec,
          ports: [{ port: 80, targetPort: POD_PORT, nodePort }],
        },
      });
    await expose('anywhere', CLUSTER_PORT, {});
    await expose('local', LOCAL_PORT, { externalTrafficPolicy: 'Local' });
  });
  after(() => Lab.remove(LAB));

  const reaches = async (from: Machine, to: Machine, port: number, family: 4 | 6) => {
    const host = family === 4 ? to.address : `[${MACHINE_V6[to.name as keyof typeof MACHINE_V6]}]`;
    const { stdout } = await from.run(['curl', '-s', '-g', '-m', '1', `http://${host}:${port}/`]);
    return stdout === 'web\n';
  };
  const put = async (spec: NetworkPolicySpec | undefined) => {
    const metadata = { name: 'web', namespace: 'default' };
    await cluster.client
      .delete(NETWORK_POLICY, metadata)
      .catch((error: unknown) => assert.ok(isNotFound(error)));
    if (spec === undefined) return;
    await cluster.client.create(NETWORK_POLICY, {
      ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata, spec },
    });
  };
  const allowOnly = (cidrs: readonly string[], ports: readonly number[] = [POD_PORT]) =>
    put({
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [
        {
          from: cidrs.map((cidr) => ({ ipBlock: { cidr } })),
          ports: ports.map((port) => ({ port })),
        },
      ],
    });
  /** By which addresses a machine shows itself to pods of others. */
  const addressesInTunnel = (machine: Machine) => {
    using stack = openNetworkStack({ netns: machine.netns });
    const link = stack.links.get(VXLAN_LINK);
    return stack.addresses
      .list()
      .filter((it) => it.link === link?.index && !it.address.startsWith('fe80:'))
      .map(({ address }) => `${address}/${address.includes(':') ? 128 : 32}`);
  };

  for (const family of [4, 6] as const) {
    const block = (address: string) => `${address}/${family === 4 ? 32 : 128}`;
    const outsideBlock = () => block(family === 4 ? outside.address : MACHINE_V6.outside);
    const nobody = block(family === 4 ? '203.0.113.1' : '2001:db8:ffff::1');
    const by: readonly (readonly [string, number])[] = [
      ['a node port, externalTrafficPolicy Cluster', CLUSTER_PORT],
      ['a node port, externalTrafficPolicy Local', LOCAL_PORT],
      ['a host port', HOST_PORT],
    ];

    test(`IPv${family}: by the pod's own machine policy sees the client, and the pod's port`, async () => {
      await put(undefined);
      for (const [what, port] of by)
        await until(`${what} answers`, WAIT_MS, () => reaches(outside, m1, port, family));
      await allowOnly([nobody]);
      for (const [what, port] of by)
        await until(
          `${what} is closed`,
          WAIT_MS,
          async () => !(await reaches(outside, m1, port, family)),
        );
      // The machine that has the pod, by its own ports: a pod's own node always reaches it.
      for (const [what, port] of by)
        assert.ok(await reaches(m1, m1, port, family), `${what} from the machine itself`);
      await allowOnly([outsideBlock()]);
      for (const [what, port] of by)
        await until(`${what} is open`, WAIT_MS, () => reaches(outside, m1, port, family));
      // The ports of the machine are nothing to policy.
      await allowOnly(
        [outsideBlock()],
        by.map(([, port]) => port),
      );
      for (const [what, port] of by)
        await until(
          `${what} is closed by port`,
          WAIT_MS,
          async () => !(await reaches(outside, m1, port, family)),
        );
    });

    test(`IPv${family}: by another machine policy sees that machine`, async () => {
      await put(undefined);
      await until('it answers', WAIT_MS, () => reaches(outside, m2, CLUSTER_PORT, family));
      assert.ok(!(await reaches(outside, m2, LOCAL_PORT, family)), 'there is no endpoint on m2');
      const machine = addressesInTunnel(m2).filter((it) => it.includes(':') === (family === 6));
      assert.equal(machine.length, 1);
      await allowOnly([outsideBlock()]);
      await until(
        'the client is not seen',
        WAIT_MS,
        async () => !(await reaches(outside, m2, CLUSTER_PORT, family)),
      );
      // What the other machine begins itself has the same source.
      assert.ok(!(await reaches(m2, m2, CLUSTER_PORT, family)));
      await allowOnly(machine);
      await until('it is open', WAIT_MS, () => reaches(outside, m2, CLUSTER_PORT, family));
      assert.ok(await reaches(m2, m2, CLUSTER_PORT, family));
      assert.ok(!(await reaches(outside, m1, CLUSTER_PORT, family)));
    });
  }
});
