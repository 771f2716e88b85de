/**
 * New TCP connections through a service, beside the same pod's address directly.
 *
 * usage: ./dev bench service-connect [SERVICES…]        by default 10 44000        (root; in namespaces of its own)
 *
 * ```text
 *  client ── tlc ─ node ─ tls ── server       the node routes; on it the rules of one kind, and all services
 * ```
 * Three kinds of rules, each on a node of its own, interleaved: ours, and kube-proxy's layouts (`kube-proxy-layout.ts`),
 * loaded by `nft -f` and `iptables-restore`: a stand-in, because kube-proxy is in no package. Of those, each service but the
 * measured one has one endpoint, and there are at most TULLE_BENCH_PEER_SERVICES (10,000): loading more takes minutes.
 *
 * The client is a loop of system calls (socket, connect, close with a reset) in perl, a few microseconds each; one at a
 * time for the connect time, two at once for connections a second.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { Poller } from '#linux/poller.ts';
import { Ruleset } from '#node/ruleset.ts';
import { Services } from '#node/services/services.ts';
import {
  addressOf,
  clusterIpOf,
  serviceOf,
  sliceOf,
} from '#node/services/testing/many-services.ts';
import { LAYOUTS, type Layout, type LoadedLayout, loadLayout } from './support/load-layout.ts';
import { quantile } from './support/quantile.ts';

const DEFAULT_SIZES = [10, 44_000];
const MAX_PEER_SERVICES = Number(process.env.TULLE_BENCH_PEER_SERVICES ?? 10_000);
const ROUNDS = 5;
const ROUND_SECONDS = 0.5;
const IN_FLIGHT = 2;
/** Endpoints of each service. The measured one's are addresses of the server. */
const ENDPOINTS = 5;
const SERVERS = Array.from({ length: ENDPOINTS }, (_, i) => `10.244.2.${i + 2}`);
const CLIENT = '10.244.1.2';
/** The server listens on both, so that connections of the two kinds never have the same ports in conntrack. */
const SERVICE_TARGET_PORT = 8080;
const DIRECT_PORT = 8081;

type Kind = 'tulle' | Layout;

/** Client, node and server, each in a namespace. */
class Bed implements Disposable {
  readonly services: number;
  readonly node: string;
  readonly #names: readonly string[];
  readonly #processes: ChildProcess[] = [];

  constructor(kind: Kind, services: number) {
    this.services = services;
    this.node = `tulle-bench-${process.pid}-${kind}-${services}`;
    this.#names = [this.node, `${this.node}-c`, `${this.node}-s`];
    for (const name of this.#names) execFileSync('ip', ['netns', 'add', name]);
    this.run('sysctl', '-qw', 'net.ipv4.ip_forward=1');
    this.#connect(`${this.node}-c`, 'tlc', [CLIENT]);
    this.#connect(`${this.node}-s`, 'tls', SERVERS);
  }

  /** The measured service is in the middle of all. */
  get measured(): number {
    return Math.floor(this.services / 2);
  }

  run(...argv: string[]): string {
    return execFileSync('ip', ['netns', 'exec', this.node, ...argv], { encoding: 'utf8' });
  }

  async serve(): Promise<void> {
    const ports = [SERVICE_TARGET_PORT, DIRECT_PORT].map(String);
    const argv = ['netns', 'exec', `${this.node}-s`, 'perl', '-e', SERVER_SCRIPT, ...ports];
    const server = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#processes.push(server);
    await once(server.stdout, 'data');
  }

  /** Connects as fast as it can, for a while. @returns microseconds of each connection */
  async connect(host: string, port: number): Promise<number[]> {
    const argv = ['netns', 'exec', `${this.node}-c`, 'perl', '-e', CLIENT_SCRIPT];
    const client = spawn('ip', [...argv, host, String(port), String(ROUND_SECONDS), CLOCK_CALL], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const chunks: Buffer[] = [];
    for await (const chunk of client.stdout) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks);
    const times = new Float64Array(Uint8Array.from(text).buffer);
    if (times.length === 0) throw new Error(`no connection to ${host} port ${port}`);
    return [...times];
  }

  [Symbol.dispose](): void {
    for (const child of this.#processes) child.kill('SIGKILL');
    for (const name of this.#names) spawnSync('ip', ['netns', 'delete', name]);
  }

  #connect(netns: string, link: string, addresses: readonly string[]): void {
    const inside = (...argv: string[]) => execFileSync('ip', ['-n', netns, ...argv]);
    this.run('ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', netns);
    this.run('ip', 'link', 'set', link, 'up');
    this.run('ip', 'address', 'add', '169.254.1.1/32', 'dev', link);
    inside('link', 'set', 'eth0', 'up');
    for (const address of addresses) {
      this.run('ip', 'route', 'add', `${address}/32`, 'dev', link);
      inside('address', 'add', `${address}/32`, 'dev', 'eth0');
    }
    inside('route', 'add', '169.254.1.1', 'dev', 'eth0');
    inside('route', 'add', 'default', 'via', '169.254.1.1');
    // A packet to a cluster IP must find a route before it gets as far as the rules.
    if (link === 'tlc') this.run('ip', 'route', 'add', 'default', 'dev', link, 'metric', '9');
  }
}

/** `clock_gettime`, which perl-base has no module for. */
const CLOCK_CALL = process.arch === 'arm64' ? '113' : '228';
const SERVER_SCRIPT = `
use Socket;
for my $port (@ARGV) {
  socket(my $s, AF_INET, SOCK_STREAM, 6) or die $!;
  setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
  bind($s, sockaddr_in($port, INADDR_ANY)) or die $!;
  listen($s, 4096) or die $!;
  next if fork;
  while (1) { accept(my $c, $s); close $c; }
}
$| = 1; print "ready\\n"; sleep 1 while 1;`;
const CLIENT_SCRIPT = `
use Socket;
my ($host, $port, $seconds, $call) = @ARGV;
my $to = sockaddr_in($port, inet_aton($host));
my $linger = pack('ii', 1, 0);
my $buffer = "\\0" x 16;
sub now { syscall($call + 0, 1, $buffer); my ($s, $n) = unpack('qq', $buffer); return $s * 1e6 + $n / 1e3; }
my ($begin, @times) = (now());
while (1) {
  my $from = now();
  last if $from - $begin > $seconds * 1e6;
  socket(my $s, AF_INET, SOCK_STREAM, 6) or die $!;
  setsockopt($s, SOL_SOCKET, SO_LINGER, $linger);
  connect($s, $to) or die "connect: $!";
  push @times, now() - $from;
  close $s;
}
binmode STDOUT; print pack('d*', @times);`;

/** The measured service's endpoints are addresses of the server, the others' nobody's. */
function sliceIn(bed: Bed, service: number): EndpointSlice {
  const slice = sliceOf(service, ENDPOINTS);
  if (service !== bed.measured) return slice;
  const endpoints = SERVERS.map((it) => ({ addresses: [it], conditions: { ready: true } }));
  return { ...slice, endpoints };
}

/** Programs the node with our service feature, which stops then: the rules stay. */
async function programOurs(bed: Bed): Promise<void> {
  const log = silentLogger;
  const api = new FakeApi();
  for (let i = 0; i < bed.services; i++) {
    api.put(SERVICE, serviceOf(i));
    api.put(ENDPOINT_SLICE, sliceIn(bed, i));
  }
  await using stack = new AsyncDisposableStack();
  const poller = stack.use(new Poller());
  const nftables = stack.use(openNftables({ netns: `/run/netns/${bed.node}`, poller }));
  const rulesets = (['ip', 'ip6'] as const).map((family) =>
    stack.use(new Ruleset({ nftables, log }, { family, table: 'tulle', parts: [] })),
  );
  const services = stack.use(startCache(api, SERVICE, { log }));
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { log }));
  const feature = stack.use(
    new Services(
      { rulesets, services, slices, log },
      { node: { nodeName: 'm1', zone: undefined }, skipAddresses: [] },
    ),
  );
  await feature.start();
}

/** @returns undefined if it cannot be had */
function programPeer(bed: Bed, layout: Layout): LoadedLayout | undefined {
  const services = Array.from({ length: bed.services }, (_, i) => ({
    clusterIp: clusterIpOf(i),
    endpoints: i === bed.measured ? SERVERS : [addressOf(11, i * ENDPOINTS)],
  }));
  return loadLayout(bed.node, layout, services);
}

/** What a round measures of one way. */
interface Round {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
}

async function round(bed: Bed, way: 'service' | 'direct'): Promise<Round> {
  const [host, port] =
    way === 'service' ? [clusterIpOf(bed.measured), 80] : [SERVERS[0] ?? '', DIRECT_PORT];
  const times = await bed.connect(host, port);
  const several = await Promise.all(
    Array.from({ length: IN_FLIGHT }, () => bed.connect(host, port)),
  );
  const total = several.reduce((sum, { length }) => sum + length, 0);
  return {
    perSecond: total / ROUND_SECONDS,
    p50: quantile(times, 0.5),
    p99: quantile(times, 0.99),
  };
}

async function measure(sizes: readonly number[]): Promise<void> {
  using stack = new DisposableStack();
  /** With the name of what rules there are. */
  const beds = new Map<Bed, string>();
  for (const size of sizes)
    for (const kind of ['tulle', ...LAYOUTS] as const) {
      const bed = stack.use(
        new Bed(kind, kind === 'tulle' ? size : Math.min(size, MAX_PEER_SERVICES)),
      );
      let rules = '';
      if (kind === 'tulle') await programOurs(bed);
      else {
        const loaded = programPeer(bed, kind);
        if (loaded === undefined) continue;
        rules = `, ${loaded.name}`;
      }
      await bed.serve();
      beds.set(bed, rules);
    }
  const results = new Map(
    [...beds.keys()].map((bed) => [bed, { service: [] as Round[], direct: [] as Round[] }]),
  );
  // The first round warms up.
  for (let i = 0; i <= ROUNDS; i++)
    for (const [bed, { service, direct }] of i % 2 === 0 ? results : [...results].reverse())
      for (const way of i % 2 === 0
        ? (['service', 'direct'] as const)
        : (['direct', 'service'] as const)) {
        const measured = await round(bed, way);
        if (i > 0) (way === 'service' ? service : direct).push(measured);
      }
  for (const [bed, { service, direct }] of results) {
    const name = (what: string) => `${bed.services} services${beds.get(bed)}: ${what}`;
    const of = (rounds: readonly Round[], key: keyof Round) => rounds.map((it) => it[key]);
    report(name('new connections'), of(service, 'perSecond'), of(direct, 'perSecond'), '1/s');
    report(name('connect p50'), of(service, 'p50'), of(direct, 'p50'), 'us');
    report(name('connect p99'), of(service, 'p99'), of(direct, 'p99'), 'us');
  }
}

function report(
  name: string,
  ours: readonly number[],
  direct: readonly number[],
  unit: string,
): void {
  const round4 = (number: number) => Number(number.toPrecision(4));
  const ratios = ours.map((value, i) => value / (direct[i] ?? Number.NaN));
  console.log(
    JSON.stringify({
      ...{ bench: 'service-connect', case: name, value: round4(quantile(ours, 0.5)), unit },
      peer: "the pod's address directly, same node and rules",
      peer_value: round4(quantile(direct, 0.5)),
      ratio: round4(quantile(ratios, 0.5)),
    }),
  );
}

const sizes = process.argv.slice(2).map(Number);
await measure(sizes.length > 0 ? sizes : DEFAULT_SIZES);
