/**
 * What Tulle's path costs beside the same path made by hand with bare kernel commands, without any nftables rule: between
 * pods of one machine, and across two machines by VXLAN and by plain routes. TCP with 1 and 8 streams, UDP in small packets
 * (iperf3), and request and response (a flood of pings, each sent when the last has come back); interleaved, several rounds.
 *
 * usage: ./dev bench pod-path [ROUNDS] [SECONDS]     needs root and the Debian package iperf3
 */
import { POD } from '#api/core/v1/pod.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { containerPid, preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

const ROUNDS = Number(process.argv[2] ?? 5);
const SECONDS = Number(process.argv[3] ?? 2);
const LAB = 'bench-path';
const WAIT_MS = 20_000;
/** No more than a header and a counter: what costs is the packet. */
const UDP_BYTES = 64;

interface End {
  readonly machine: Machine;
  /** Command prefix that enters its network. */
  readonly enter: readonly string[];
  readonly address: string;
}
interface Path {
  readonly client: End;
  readonly server: End;
}
type Measure = (path: Path) => Promise<number>;

const MEASURES: readonly (readonly [name: string, unit: string, measure: Measure])[] = [
  ['TCP 1 stream', 'Gbit/s', (path) => throughput(path, [])],
  ['TCP 8 streams', 'Gbit/s', (path) => throughput(path, ['-P', '8'])],
  ['UDP', 'packets/s', packetRate],
  ['request and response', 'us', roundTrip],
];

const lab = await Lab.create({ name: LAB, machines: 2 });
try {
  const [m1, m2] = [lab.machine('m1'), lab.machine('m2')];
  const cluster = new LabCluster(lab);
  const pods = await startPods(cluster, m1, m2);
  const hand = await makeByHand(m1, m2);
  await compare('one machine', hand.near, { client: pods.client, server: pods.near });
  const across = { client: pods.client, server: pods.far };
  await compare('across machines by VXLAN', hand.vxlan, across);
  await cluster.client.patch(
    IP_POOL,
    { name: 'default-ipv4' },
    { type: 'application/merge-patch+json', body: { spec: { encapsulation: 'Never' } } },
  );
  await until('the pods have the MTU of the uplink', WAIT_MS, async () => {
    const ends = [pods.client, pods.far].map(({ machine, enter }) =>
      machine.runOk([...enter, 'ip', '-o', 'link', 'show', 'eth0']),
    );
    return (await Promise.all(ends)).every((text) => text.includes(' mtu 1500 '));
  });
  await compare('across machines by routes', hand.routes, across);
} finally {
  await Lab.remove(LAB);
}
process.exit();

async function compare(where: string, byHand: Path, byTulle: Path): Promise<void> {
  for (const [name, unit, measure] of MEASURES) {
    const ours: number[] = [];
    const peers: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      peers.push(await measure(byHand));
      ours.push(await measure(byTulle));
    }
    report(`${where}: ${name}`, unit, median(ours), median(peers));
  }
}

/** The paths as an administrator would make them, beside Tulle's and with other numbers. */
async function makeByHand(
  m1: Machine,
  m2: Machine,
): Promise<Record<'near' | 'vxlan' | 'routes', Path>> {
  const client = await podByHand(m1, { name: 'hand', address: '10.9.1.2', mtuBytes: 1450 });
  const near = await podByHand(m1, { name: 'near', address: '10.9.1.3', mtuBytes: 1450 });
  const far = await podByHand(m2, { name: 'hand', address: '10.9.2.2', mtuBytes: 1450 });
  const wideClient = await podByHand(m1, { name: 'wide', address: '10.9.3.2', mtuBytes: 1500 });
  const wideFar = await podByHand(m2, { name: 'wide', address: '10.9.4.2', mtuBytes: 1500 });
  for (const [machine, own, other, there] of [
    [m1, 1, 2, m2],
    [m2, 2, 1, m1],
  ] as const)
    await machine.runOk([
      ...['sh', '-ec'],
      `ip link add handvx address 02:00:00:00:09:0${own} mtu 1450 type vxlan id 9 dstport 4790 nolearning local ${machine.address} dev eth0
      ip addr add 10.9.${own}.0/32 dev handvx
      ip link set handvx up
      ip neigh add 10.9.${other}.0 lladdr 02:00:00:00:09:0${other} dev handvx nud permanent
      bridge fdb append 02:00:00:00:09:0${other} dev handvx dst ${there.address} self permanent
      ip route add 10.9.${other}.0/24 via 10.9.${other}.0 dev handvx onlink src 10.9.${own}.0
      ip route add 10.9.${other + 2}.0/24 via ${there.address}`,
    ]);
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
    ip -n ${name} addr add ${address}/32 dev eth0
    ip -n ${name} link set eth0 up
    ip -n ${name} route add 169.254.1.1 dev eth0 scope link
    ip -n ${name} route add default via 169.254.1.1
    ip route add ${address}/32 dev ${name}0`,
  ]);
  return { machine, enter: ['ip', 'netns', 'exec', name], address };
}

async function startPods(
  cluster: LabCluster,
  m1: Machine,
  m2: Machine,
): Promise<Record<'client' | 'near' | 'far', End>> {
  await cluster.startServer();
  for (const machine of [m1, m2]) {
    preparePodman(machine);
    await cluster.startAgent(machine);
  }
  await cluster.nodesReady();
  const start = async (machine: Machine, name: string): Promise<End> => {
    await runContainer(machine, { name, role: 'client' });
    let address = '';
    await until(`the pod "${name}" is known`, WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      address = items.find((pod) => pod.metadata.name === name)?.status?.podIP ?? '';
      return address !== '';
    });
    const pid = await containerPid(machine, name);
    return { machine, enter: ['nsenter', '--target', String(pid), '--net', '--'], address };
  };
  return {
    client: await start(m1, 'client'),
    near: await start(m1, 'near'),
    far: await start(m2, 'far'),
  };
}

/** Runs iperf3 in both ends. @returns the report that it ends with */
async function iperf<T>({ client, server }: Path, args: readonly string[]): Promise<T> {
  const serving = server.machine.run([...server.enter, 'iperf3', '--server', '--one-off'], {
    timeoutMs: 60_000,
  });
  await until('iperf3 listens', 5_000, async () => {
    const { stdout } = await server.machine.run([...server.enter, 'ss', '-ltn']);
    return stdout.includes(':5201');
  });
  const argv = ['iperf3', '--client', server.address, '--time', String(SECONDS), '--json', ...args];
  const text = await client.machine.runOk([...client.enter, ...argv], { timeoutMs: 60_000 });
  await serving;
  return (JSON.parse(text) as { end: T }).end;
}

/** @returns Gbit/s that arrived */
async function throughput(path: Path, args: readonly string[]): Promise<number> {
  const { sum_received } = await iperf<{ sum_received: { bits_per_second: number } }>(path, args);
  return sum_received.bits_per_second / 1e9;
}

/** @returns packets per second that arrived, of as many as the client could send */
async function packetRate(path: Path): Promise<number> {
  const args = ['--udp', '--bandwidth', '0', '--length', String(UDP_BYTES)];
  const { sum } = await iperf<{ sum: { packets: number; lost_packets: number; seconds: number } }>(
    path,
    args,
  );
  return (sum.packets - sum.lost_packets) / sum.seconds;
}

/** @returns average round trip in microseconds of 2,000 pings */
async function roundTrip({ client, server }: Path): Promise<number> {
  const argv = ['ping', '-q', '-f', '-c', '2000', server.address];
  const text = await client.machine.runOk([...client.enter, ...argv], { timeoutMs: 60_000 });
  return Number(/= [\d.]+\/([\d.]+)\//.exec(text)?.[1]) * 1000;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

function report(name: string, unit: string, value: number, peerValue: number): void {
  const line = { bench: 'pod-path', case: name, value, unit };
  const ratio = value / peerValue;
  console.log(JSON.stringify({ ...line, peer: 'made by hand', peer_value: peerValue, ratio }));
}
