/**
 * What Tulle's path costs beside the same path made by hand with bare kernel commands: between pods of one machine, and
 * across two machines by VXLAN and by plain routes. There are two such peers, each on machines of its own: one without
 * any nftables rule, and one with what no pod network can do without, connections tracked and one rule that masquerades.
 * TCP with one stream, by each congestion control that is there, and with 8, each where the scheduler puts the two
 * programs, with both on one processor, and with a processor for each; UDP in small packets (iperf3); and request and
 * response: of a program that asks another by TCP and by UDP (sockperf), and of a flood of pings, each sent when the last
 * has come back, which the other kernel answers.
 *
 * usage: ./dev bench pod-path [ROUNDS] [SECONDS] [near|vxlan|routes…]     needs root and the Debian packages iperf3, sockperf
 *
 * TULLE_BENCH_ONLY=TCP takes only the measures whose names have that in them.
 *
 * The three take turns in each round, the first being another each time; but for TCP's streams, clients are bound to one
 * processor and servers to another. A ratio is the median of the rounds' ratios; standard error says between which half of
 * them lie.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { until } from '#lab/cluster.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { type End, type Path, type Paths, pathsByHand, pathsOfTulle } from './support/pod-paths.ts';
import { quantile } from './support/quantile.ts';

const ROUNDS = Number(process.argv[2] ?? 10);
const SECONDS = Number(process.argv[3] ?? 1);
/** Part of the names of the measures that are wanted. */
const ONLY = process.env.TULLE_BENCH_ONLY ?? '';
const LAB = process.env.TULLE_BENCH_LAB ?? 'bench-path';
const WAIT_MS = 20_000;
const MEASURE_TIMEOUT_MS = 60_000;
/** No more than a header and a counter: what costs is the packet. */
const UDP_BYTES = 64;
/** ping gives the time of a round trip in whole microseconds, which are few: so it is the time of all, in milliseconds. */
const PINGS = 30_000;
/** What client and server of sockperf are told alike. */
const TCP_PING_PONG = ['--tcp', '--port', '5301'];
const UDP_PING_PONG = ['--port', '5302'];

/** The processors of both programs, as taskset takes them. */
interface Placement {
  readonly client: string;
  readonly server: string;
}
const CPUS = availableParallelism();
const APART: Placement = { client: '0', server: CPUS > 1 ? '1' : '0' };
/** For one stream only: what eight have under way stays in a processor's cache or does not, by chance. */
const ON_ONE = 'on one processor';
const PLACEMENTS: Readonly<Record<string, Placement>> = {
  anywhere: { client: `0-${CPUS - 1}`, server: `0-${CPUS - 1}` },
  [ON_ONE]: { client: '0', server: '0' },
  'on two processors': APART,
};

const WHERE = {
  near: 'one machine',
  vxlan: 'across machines by VXLAN',
  routes: 'across machines by routes',
} as const satisfies Record<keyof Paths, string>;
type Where = keyof typeof WHERE;

/** The first is the kernel's default, unless it was built otherwise. */
const CONGESTION_CONTROLS = ['cubic', 'reno', 'bbr'];

type Measure = readonly [name: string, unit: string, measure: (path: Path) => Promise<number>];
const MEASURES: readonly Measure[] = [
  ...congestionControls().flatMap((congestion) => throughputs('TCP 1 stream', congestion, 1)),
  ...throughputs('TCP 8 streams', 'cubic', 8),
  ['UDP', 'packets/s', packetRate],
  ['TCP request and response', 'us', (path) => pingPong(path, TCP_PING_PONG)],
  ['UDP request and response', 'us', (path) => pingPong(path, UDP_PING_PONG)],
  ['ping', 'us', roundTrip],
];

const wanted = process.argv.slice(4);
const isWanted = (where: Where) => wanted.length === 0 || wanted.includes(where);
const lab = await Lab.create({ name: LAB, machines: 6 });
try {
  const [m1, m2, m3, m4, m5, m6] = ['m1', 'm2', 'm3', 'm4', 'm5', 'm6'].map((name) =>
    lab.machine(name),
  ) as [Machine, Machine, Machine, Machine, Machine, Machine];
  const ours = await pathsOfTulle(lab, m1, m2);
  const peers = {
    'made by hand, no rule': await pathsByHand(m3, m4, { isTracked: false }),
    'made by hand, tracked': await pathsByHand(m5, m6, { isTracked: true }),
  };
  const all = [ours, ...Object.values(peers)];
  await serve(all.flatMap(({ near, vxlan, routes }) => [near, vxlan, routes]));
  for (const where of ['near', 'vxlan', 'routes'] as const) {
    if (where === 'routes') await ours.useRoutes();
    if (isWanted(where)) await compare(where, ours, peers);
  }
} finally {
  await Lab.remove(LAB);
}
process.exit();

/** Two sockperfs for each pod that is a server, which stay. */
async function serve(paths: readonly Path[]): Promise<void> {
  // Pods of machines that were made alike have the same addresses.
  const ends = new Map(
    paths.map(({ server }) => [`${server.machine.name} ${server.address}`, server]),
  );
  for (const server of ends.values()) {
    for (const args of [TCP_PING_PONG, UDP_PING_PONG])
      await start(server, ['sockperf', 'server', '--ip', server.address, ...args]);
    await listening(server, [':5301', ':5302']);
  }
}

/** Starts a program that lives on `cpus`. */
function start(end: End, argv: readonly string[], cpus = APART.server) {
  return end.machine.start(`${argv[0]}-${end.address}`, [...bound(end, cpus), ...argv]);
}

/** Command prefix that enters its network, on `cpus`. */
function bound({ enter }: End, cpus: string): string[] {
  return [...enter, 'taskset', '--cpu-list', cpus];
}

async function listening({ machine, enter }: End, ports: readonly string[]): Promise<void> {
  await until('the server listens', WAIT_MS, async () => {
    const { stdout } = await machine.run([...enter, 'ss', '-ltun']);
    return ports.every((port) => stdout.includes(port));
  });
}

async function compare(
  where: Where,
  ours: Paths,
  peers: Readonly<Record<string, Paths>>,
): Promise<void> {
  const all = [ours, ...Object.values(peers)].map((paths) => paths[where]);
  for (const [name, unit, measure] of MEASURES.filter(([name]) => name.includes(ONLY))) {
    const values: number[][] = all.map(() => []);
    for (let round = 0; round < ROUNDS; round++)
      for (let turn = 0; turn < all.length; turn++) {
        const index = (round + turn) % all.length;
        const path = all[index];
        if (path !== undefined) values[index]?.push(await measure(path));
      }
    const [own = [], ...others] = values;
    for (const [i, peer] of Object.keys(peers).entries())
      report(`${WHERE[where]}: ${name}`, unit, own, { peer, values: others[i] ?? [] });
  }
}

/**
 * Runs iperf3 against a new one in the pod: where its memory lies makes some percent, for as long as it lives.
 * @returns the report that it ends with
 */
async function iperf<T>(
  { client, server }: Path,
  args: readonly string[],
  placement = APART,
): Promise<T> {
  await start(server, ['iperf3', '--server', '--one-off'], placement.server);
  await listening(server, [':5201']);
  const argv = ['iperf3', '--client', server.address, '--time', String(SECONDS), '--json', ...args];
  const { end, error } = JSON.parse(await inClient(client, argv, placement.client)) as {
    end: T;
    error?: string;
  };
  if (error !== undefined)
    throw new Error(`"${argv.join(' ')}" on ${client.machine.name}: ${error}`);
  return end;
}

function inClient(end: End, argv: readonly string[], cpus = APART.client) {
  return end.machine.runOk([...bound(end, cpus), ...argv], { timeoutMs: MEASURE_TIMEOUT_MS });
}

function congestionControls(): string[] {
  const names = readFileSync('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8');
  const available = names.trim().split(' ');
  return CONGESTION_CONTROLS.filter((name) => available.includes(name));
}

/** The measures of Gbit/s that arrive, without the first second, in which the sender finds out how much it may send. */
function throughputs(what: string, congestion: string, streams: number): Measure[] {
  const args = ['--omit', '1', '--congestion', congestion, '--parallel', String(streams)];
  const placements = Object.entries(PLACEMENTS).filter(
    ([where]) => streams === 1 || where !== ON_ONE,
  );
  return placements.map(([where, placement]) => {
    const measure = async (path: Path) => {
      const report = await iperf<{ sum_received: { bits_per_second: number } }>(
        path,
        args,
        placement,
      );
      return report.sum_received.bits_per_second / 1e9;
    };
    return [`${what}, ${congestion}, ${where}`, 'Gbit/s', measure];
  });
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

/** @returns microseconds from a question to its answer, halved, on average: what sockperf calls latency */
async function pingPong(path: Path, args: readonly string[]): Promise<number> {
  const { client, server } = path;
  const argv = ['sockperf', 'ping-pong', '--ip', server.address, '--time', String(SECONDS)];
  const text = await inClient(client, [...argv, ...args]);
  const [, average] = /avg-latency=([\d.]+)/.exec(text) ?? [];
  if (average === undefined) throw new Error(`sockperf said no latency: ${text}`);
  return Number(average);
}

/** @returns microseconds from one question to the next */
async function roundTrip({ client, server }: Path): Promise<number> {
  const text = await inClient(client, ['ping', '-q', '-f', '-c', String(PINGS), server.address]);
  return (Number(/ time (\d+)ms/.exec(text)?.[1]) / PINGS) * 1000;
}

function report(
  name: string,
  unit: string,
  ours: readonly number[],
  { peer, values }: { readonly peer: string; readonly values: readonly number[] },
): void {
  const ratios = ours.map((value, i) => value / (values[i] ?? Number.NaN));
  const [low, high] = [0.25, 0.75].map((q) => quantile(ratios, q).toFixed(3));
  console.error(`${name}, ${peer}: half of the ratios are between ${low} and ${high}`);
  const round = (number: number) => Number(number.toPrecision(4));
  console.log(
    JSON.stringify({
      ...{ bench: 'pod-path', case: name, value: round(quantile(ours, 0.5)), unit, peer },
      ...{ peer_value: round(quantile(values, 0.5)), ratio: round(quantile(ratios, 0.5)) },
    }),
  );
}
