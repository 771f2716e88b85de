/**
 * What Tulle's path costs beside the same path made by hand with bare kernel commands.
 *
 * Two lab machines. By hand: a namespace on each with a veth, a /32 and a host route, and between the machines a VXLAN
 * device with one route, neighbour and FDB entry, without any nftables rule. Then the same pair attached by Tulle.
 * iperf3 runs in both, interleaved, several rounds.
 *
 * usage: ./dev bench pod-path [ROUNDS] [SECONDS]     needs root and the Debian package iperf3
 */

import { POD } from '#api/core/v1/pod.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { containerPid, preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

const ROUNDS = Number(process.argv[2] ?? 5);
const SECONDS = Number(process.argv[3] ?? 2);
const LAB = 'bench-path';

interface Path {
  /** Command prefix that enters the client's and the server's network. */
  readonly client: readonly string[];
  readonly server: readonly string[];
  readonly address: string;
}

const lab = await Lab.create({ name: LAB, machines: 2 });
try {
  const m1 = lab.machine('m1');
  const m2 = lab.machine('m2');
  const hand = await pathByHand(m1, m2);
  const tulle = await pathByTulle(new LabCluster(lab), m1, m2);
  for (const [name, locals] of [
    ['across machines, TCP 1 stream', { args: [] }],
    ['across machines, TCP 8 streams', { args: ['-P', '8'] }],
  ] as const) {
    const ours: number[] = [];
    const peers: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      peers.push(await throughput(m1, m2, hand, locals.args));
      ours.push(await throughput(m1, m2, tulle, locals.args));
    }
    report(name, 'Gbit/s', median(ours), median(peers));
  }
  const ours: number[] = [];
  const peers: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    peers.push(await roundTrip(m1, hand));
    ours.push(await roundTrip(m1, tulle));
  }
  report('across machines, ping flood round trip', 'us', median(ours), median(peers));
} finally {
  await Lab.remove(LAB);
}
process.exit();

/** The path as an administrator would make it, beside Tulle's and with other numbers. */
async function pathByHand(m1: Machine, m2: Machine): Promise<Path> {
  for (const [machine, own, other, far] of [
    [m1, 1, 2, m2],
    [m2, 2, 1, m1],
  ] as const) {
    const script = `
      set -e
      ip netns add hand
      ip link add hand0 mtu 1450 type veth peer name eth0 mtu 1450 netns hand
      ip link set hand0 up
      sysctl -q net.ipv4.ip_forward=1 net.ipv4.conf.hand0.proxy_arp=1
      ip -n hand addr add 10.9.${own}.2/32 dev eth0
      ip -n hand link set eth0 up
      ip -n hand route add 169.254.1.1 dev eth0 scope link
      ip -n hand route add default via 169.254.1.1
      ip route add 10.9.${own}.2/32 dev hand0
      ip link add handvx address 02:00:00:00:09:0${own} mtu 1450 type vxlan id 9 dstport 4790 nolearning local ${machine.address} dev eth0
      ip addr add 10.9.${own}.0/32 dev handvx
      ip link set handvx up
      ip neigh add 10.9.${other}.0 lladdr 02:00:00:00:09:0${other} dev handvx nud permanent
      bridge fdb append 02:00:00:00:09:0${other} dev handvx dst ${far.address} self permanent
      ip route add 10.9.${other}.0/24 via 10.9.${other}.0 dev handvx onlink src 10.9.${own}.0`;
    await machine.runOk(['sh', '-c', script]);
  }
  const enter = ['ip', 'netns', 'exec', 'hand'];
  return { client: enter, server: enter, address: '10.9.2.2' };
}

async function pathByTulle(cluster: LabCluster, m1: Machine, m2: Machine): Promise<Path> {
  await cluster.startServer();
  for (const machine of [m1, m2]) {
    preparePodman(machine);
    await cluster.startAgent(machine);
  }
  await cluster.nodesReady();
  await runContainer(m1, { name: 'client', role: 'client' });
  await runContainer(m2, { name: 'server', role: 'client' });
  let address = '';
  await until('the server’s pod is known', 20_000, async () => {
    const { items } = await cluster.client.list(POD, { namespace: 'default' });
    address = items.find((pod) => pod.metadata.name === 'server')?.status?.podIP ?? '';
    return address !== '';
  });
  const enter = async (machine: Machine, name: string) => [
    ...['nsenter', '--target', String(await containerPid(machine, name)), '--net', '--'],
  ];
  return { client: await enter(m1, 'client'), server: await enter(m2, 'server'), address };
}

/** @returns Gbit/s that arrived */
async function throughput(
  m1: Machine,
  m2: Machine,
  path: Path,
  args: readonly string[],
): Promise<number> {
  const server = m2.run([...path.server, 'iperf3', '--server', '--one-off'], { timeoutMs: 60_000 });
  await until('iperf3 listens', 5_000, async () => {
    const { stdout } = await m2.run([...path.server, 'ss', '-ltn']);
    return stdout.includes(':5201');
  });
  const argv = ['iperf3', '--client', path.address, '--time', String(SECONDS), '--json', ...args];
  const text = await m1.runOk([...path.client, ...argv], { timeoutMs: 60_000 });
  await server;
  const result = JSON.parse(text) as { end: { sum_received: { bits_per_second: number } } };
  return result.end.sum_received.bits_per_second / 1e9;
}

/** @returns average round trip in microseconds of 2,000 pings, each sent when the last has come back */
async function roundTrip(m1: Machine, path: Path): Promise<number> {
  const argv = ['ping', '-q', '-f', '-c', '2000', path.address];
  const text = await m1.runOk([...path.client, ...argv], { timeoutMs: 60_000 });
  return Number(/= [\d.]+\/([\d.]+)\//.exec(text)?.[1]) * 1000;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

function report(name: string, unit: string, value: number, peerValue: number): void {
  const line = {
    bench: 'pod-path',
    case: name,
    value,
    unit,
    peer: 'made by hand',
    peer_value: peerValue,
  };
  console.log(JSON.stringify({ ...line, ratio: value / peerValue }));
}
