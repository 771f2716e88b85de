/**
 * The same paths between pods three times, each on lab machines of its own: Tulle's; made by hand with bare kernel
 * commands, without a rule; and made by hand as a pod network needs it at the least, with connections tracked and
 * masqueraded to the outside. Links, addresses, MTU, routes and neighbours are alike.
 */
import { POD } from '#api/core/v1/pod.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { containerPid, preparePodman, runContainer } from '#lab/containers.ts';
import type { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

export interface End {
  readonly machine: Machine;
  /** Command prefix that enters its network. */
  readonly enter: readonly string[];
  readonly address: string;
}
export interface Path {
  readonly client: End;
  readonly server: End;
}
/** One pair of machines. `vxlan` and `routes` of Tulle are the same pods: see {@link TullePaths.useRoutes}. */
export interface Paths {
  readonly near: Path;
  readonly vxlan: Path;
  readonly routes: Path;
}
export interface TullePaths extends Paths {
  /** From then on packets go to the other machine without encapsulation. */
  readonly useRoutes: () => Promise<void>;
}

const WAIT_MS = 20_000;
const VXLAN_MTU_BYTES = 1450;
const UPLINK_MTU_BYTES = 1500;
/** What a pod network cannot do without: its pods reach the outside, and answers come in through a firewall. */
const TRACKED_RULES = `
table ip hand {
  chain forward { type filter hook forward priority 0; ct state established,related accept; }
  chain outgoing {
    type nat hook postrouting priority 100;
    ip saddr 10.9.0.0/16 ip daddr != 10.9.0.0/16 masquerade fully-random
  }
}`;

export async function pathsOfTulle(lab: Lab, m1: Machine, m2: Machine): Promise<TullePaths> {
  const cluster = new LabCluster(lab);
  await cluster.startServer();
  for (const machine of [m1, m2]) {
    preparePodman(machine);
    await cluster.startAgent(machine);
  }
  await cluster.nodesReady([m1, m2]);
  const start = async (machine: Machine, name: string): Promise<End> => {
    await runContainer(machine, { name, role: 'client' });
    let address = '';
    await until(`the pod "${name}" is known`, WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      address = items.find((pod) => pod.metadata.name === name)?.status?.podIP ?? '';
      return address !== '';
    });
    const pid = await containerPid(machine, name);
    return { machine, enter: ['nsenter', `--net=/proc/${pid}/ns/net`, '--'], address };
  };
  const client = await start(m1, 'client');
  const near = { client, server: await start(m1, 'near') };
  const far = { client, server: await start(m2, 'far') };
  const useRoutes = async () => {
    await cluster.client.patch(
      IP_POOL,
      { name: 'default-ipv4' },
      { type: 'application/merge-patch+json', body: { spec: { encapsulation: 'Never' } } },
    );
    await until('the pods have the MTU of the uplink', WAIT_MS, async () => {
      const ends = [far.client, far.server].map(({ machine, enter }) =>
        machine.runOk([...enter, 'ip', '-o', 'link', 'show', 'eth0']),
      );
      const texts = await Promise.all(ends);
      return texts.every((text) => text.includes(` mtu ${UPLINK_MTU_BYTES} `));
    });
  };
  return { near, vxlan: far, routes: far, useRoutes };
}

/**
 * The paths as an administrator would make them.
 * @param isTracked with {@link TRACKED_RULES}, else without any rule
 */
export async function pathsByHand(
  m1: Machine,
  m2: Machine,
  { isTracked }: { readonly isTracked: boolean },
): Promise<Paths> {
  const [tunnel, plain] = [VXLAN_MTU_BYTES, UPLINK_MTU_BYTES];
  const client = await podByHand(m1, { name: 'hand', address: '10.9.1.2', mtuBytes: tunnel });
  const near = await podByHand(m1, { name: 'near', address: '10.9.1.3', mtuBytes: tunnel });
  const far = await podByHand(m2, { name: 'hand', address: '10.9.2.2', mtuBytes: tunnel });
  const wideClient = await podByHand(m1, { name: 'wide', address: '10.9.3.2', mtuBytes: plain });
  const wideFar = await podByHand(m2, { name: 'wide', address: '10.9.4.2', mtuBytes: plain });
  for (const [machine, own, other, there] of [
    [m1, 1, 2, m2],
    [m2, 2, 1, m1],
  ] as const) {
    await machine.runOk([
      ...['sh', '-ec'],
      `ip link add handvx address 02:00:00:00:09:0${own} mtu ${tunnel} type vxlan id 9 dstport 4789 nolearning local ${machine.address} dev eth0
      ip addr add 10.9.${own}.0/32 dev handvx
      ip link set handvx up
      ip neigh add 10.9.${other}.0 lladdr 02:00:00:00:09:0${other} dev handvx nud permanent
      bridge fdb append 02:00:00:00:09:0${other} dev handvx dst ${there.address} self permanent
      ip route add 10.9.${other}.0/24 via 10.9.${other}.0 dev handvx onlink src 10.9.${own}.0
      ip route add 10.9.${other + 2}.0/24 via ${there.address}`,
    ]);
    if (isTracked) await machine.runOk(['nft', TRACKED_RULES]);
  }
  return {
    near: { client, server: near },
    vxlan: { client, server: far },
    routes: { client: wideClient, server: wideFar },
  };
}

async function podByHand(
  machine: Machine,
  pod: { readonly name: string; readonly address: string; readonly mtuBytes: number },
): Promise<End> {
  const { name, address, mtuBytes } = pod;
  await machine.runOk([
    ...['sh', '-ec'],
    `ip netns add ${name}
    ip link add ${name}0 mtu ${mtuBytes} type veth peer name eth0 mtu ${mtuBytes} netns ${name}
    ip link set ${name}0 up
    sysctl -q net.ipv4.ip_forward=1 net.ipv4.conf.${name}0.proxy_arp=1
    ip -n ${name} link set lo up
    ip -n ${name} addr add ${address}/32 dev eth0
    ip -n ${name} link set eth0 up
    ip -n ${name} route add 169.254.1.1 dev eth0 scope link
    ip -n ${name} route add default via 169.254.1.1
    ip route add ${address}/32 dev ${name}0`,
  ]);
  return { machine, enter: ['nsenter', `--net=/run/netns/${name}`, '--'], address };
}
