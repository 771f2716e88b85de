/**
 * DNS under load: ours and the servers that people deploy, in the same run, on the same 10,000 names, each as one
 * process on this machine. dnsperf is the client, on the same CPUs, so a figure is of both; the ratio is what counts.
 *
 * ```text
 *   cluster names       A of services
 *   cached outside      names of a forwarder, asked once before
 *   NXDOMAIN            names that do not exist, in the zone
 *   search path         what a pod with ndots:5 asks until it has an outside name: four queries of others, one of ours.
 *                       In names found a second
 *   p99 at half load    of cluster names, at half the queries a second seen before
 *   first sync, relist  answers of each kind while the names of 44,000 services are learnt, and while all change at once;
 *   crash, quiet        while the thread that answers crashes and starts again; and while nothing happens
 *   update to answer    with 44,000 services, from the API's event to the first answer that has it
 * ```
 *
 * usage: ./dev bench dns [CASE…]      needs dnsperf (Debian: dnsperf); one JSON object a line, see docs/benchmarks.md
 *        CASE: cluster, cached, nxdomain, search, latency, updates, disturbed; all without one
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { sleep } from '#lib/clock.ts';
import { DAEMON_NODE_FLAGS } from '#proc/node-flags.ts';
import type { Seen } from './dns/asking.ts';
import { isInstalled, PEERS } from './dns/peers.ts';
import { COMPILED_ENV } from './support/compiled-env.ts';

const ROUNDS = Number(process.env.TULLE_BENCH_ROUNDS ?? 3);
const ROUND_S = Number(process.env.TULLE_BENCH_SECONDS ?? 2);
const SERVICES = 10_000;
const OUTSIDE = 1000;
const LARGE = 44_000;
const CHANGES = 500;
const CLIENTS = 16;
/** Fewer than fill a socket's default queue, on either side. */
const OUTSTANDING = 128;
/** More than this many lines of dnsperf's output are not kept: enough for a 99th percentile. */
const MAX_OUTPUT_BYTES = 512 * 1024 * 1024;
const START_TIMEOUT_MS = 20_000;
const CLOCK_TICKS_PER_S = 100;

interface Server {
  readonly name: string;
  readonly port: number;
  readonly process: ChildProcess;
}

const CASES = ['cluster', 'cached', 'nxdomain', 'search', 'latency', 'updates', 'disturbed'];
const chosen = process.argv.slice(2);
const unknown = chosen.find((one) => !CASES.includes(one));
if (unknown !== undefined) {
  console.error(`bench dns: there is no case '${unknown}'. There are: ${CASES.join(', ')}`);
  process.exit(2);
}
const isChosen = (...cases: string[]) =>
  chosen.length === 0 || cases.some((one) => chosen.includes(one));
if (!isInstalled('dnsperf')) {
  console.error('bench dns: dnsperf is not installed (Debian: apt-get install dnsperf)');
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), 'tulle-bench-dns-'));
const upstream = await startUpstream();
const servers: Server[] = [];
// Started once before, as every agent but a machine's very first: what Node compiled is on disk.
await endInPeace(await startOurs(1));
try {
  if (isChosen('cluster', 'cached', 'nxdomain', 'search', 'latency')) await compareServers();
  if (isChosen('updates')) await measureUpdates();
  if (isChosen('disturbed')) await measureDisturbed();
} finally {
  for (const server of servers) server.process.kill('SIGKILL');
  await upstream.terminate();
  rmSync(folder, { recursive: true });
}

async function compareServers(): Promise<void> {
  servers.push(await startOurs(SERVICES));
  await startPeers();
  const suffix = 'default.svc.cluster.local';
  const outside = (i: number) => `host-${i % OUTSIDE}.example.com`;
  const cluster = queries('cluster', (i) => [`svc-${i}.${suffix}`]);
  const rates = isChosen('cluster', 'latency')
    ? await compare('cluster names', cluster)
    : new Map<string, number>();
  if (isChosen('cached', 'search')) {
    const cached = queries('cached', (i) => [outside(i)]);
    for (const server of servers) await load(server, cached);
    if (isChosen('cached')) await compare('cached outside names', cached);
  }
  if (isChosen('nxdomain'))
    await compare(
      'NXDOMAIN',
      queries('nxdomain', (i) => [`none-${i}.${suffix}`]),
    );
  if (isChosen('search')) await compareSearch(outside, suffix);
  if (isChosen('latency')) await compareLatency(cluster, rates);
}

async function startOurs(services: number, changes = 0): Promise<Server & { report: OursReport }> {
  const script = join(import.meta.dirname, 'dns/ours.ts');
  const flags = [...DAEMON_NODE_FLAGS, '--disable-warning=ExperimentalWarning'];
  const args = [...flags, script, services, upstream.port, changes];
  const child = spawn(process.execPath, args.map(String), {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: COMPILED_ENV,
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const report = JSON.parse(String(line)) as OursReport;
  return { name: 'tulle', port: report.port, process: child, report };
}

async function endInPeace({ process: child }: Server): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

interface OursReport {
  readonly port: number;
  readonly latencies: readonly number[];
  readonly rssKb: number;
}

async function startPeers(): Promise<void> {
  const names = Array.from({ length: SERVICES }, (_, i) => ({
    name: `svc-${i}.default.svc.cluster.local`,
    address: `10.96.${i >> 8}.${i & 255}`,
  }));
  for (const [i, peer] of PEERS.entries()) {
    const port = 15_400 + i;
    const own = join(folder, peer.name);
    mkdirSync(own);
    const setup = { folder: own, port, upstreamPort: upstream.port, names };
    const [command = '', ...args] = peer.command(setup);
    if (!isInstalled(command)) {
      const how = peer.debian === '' ? '' : ` (Debian: ${peer.debian})`;
      console.error(`bench dns: ${peer.name} is not installed and left out${how}`);
      continue;
    }
    const child = spawn(command, args, { stdio: 'ignore', cwd: own });
    const server = { name: peer.name, port, process: child };
    if (await answers(server, names[0]?.name ?? '')) servers.push(server);
    else {
      console.error(`bench dns: ${peer.name} does not answer and is left out`);
      child.kill('SIGKILL');
    }
  }
}

async function answers(server: Server, name: string): Promise<boolean> {
  const file = join(folder, 'one');
  writeFileSync(file, `${name} A\n`);
  for (const end = Date.now() + START_TIMEOUT_MS; Date.now() < end; ) {
    const args = ['-s', '127.0.0.1', '-p', server.port, '-d', file, '-n', 1, '-t', 1].map(String);
    const { stdout } = spawnSync('dnsperf', args, { encoding: 'utf8' });
    if (/NOERROR 1 /.test(stdout)) return true;
    await sleep(100);
  }
  return false;
}

/** A file of queries. @param namesOf the names that are asked for one name that is wanted */
function queries(name: string, namesOf: (i: number) => string[]): string {
  const file = join(folder, `queries-${name}`);
  const lines = Array.from({ length: SERVICES }, (_, i) => namesOf(i)).flat();
  writeFileSync(file, lines.map((line) => `${line} A\n`).join(''));
  return file;
}

/** @returns queries a second by server */
async function compare(what: string, file: string): Promise<Map<string, number>> {
  const rates = new Map<string, number[]>();
  const costs = new Map<string, number[]>();
  for (let round = 0; round < ROUNDS; round++)
    for (const server of servers) {
      const { rate, cpuUs } = await load(server, file);
      push(rates, server.name, rate);
      push(costs, server.name, cpuUs);
    }
  report(what, rates, 'queries/s');
  report(`${what}, CPU`, costs, 'us/query');
  report(`${what}, RSS`, new Map(servers.map((server) => [server.name, [rssMb(server)]])), 'MB');
  return new Map([...rates].map(([name, values]) => [name, median(values)]));
}

async function compareSearch(outside: (i: number) => string, suffix: string): Promise<void> {
  const short = queries('search-ours', (i) => [`${outside(i)}.${suffix}`]);
  const long = queries('search', (i) => [
    `${outside(i)}.${suffix}`,
    `${outside(i)}.svc.cluster.local`,
    `${outside(i)}.cluster.local`,
    outside(i),
  ]);
  const rates = new Map<string, number[]>();
  for (let round = 0; round < ROUNDS; round++)
    for (const server of servers) {
      const isOurs = server.name === 'tulle';
      const { rate } = await load(server, isOurs ? short : long);
      push(rates, server.name, isOurs ? rate : rate / 4);
    }
  report('search path', rates, 'names/s');
}

async function compareLatency(file: string, rates: ReadonlyMap<string, number>): Promise<void> {
  const p50 = new Map<string, number[]>();
  const p99 = new Map<string, number[]>();
  for (let round = 0; round < ROUNDS; round++)
    for (const server of servers) {
      const half = Math.floor((rates.get(server.name) ?? 0) / 2);
      const { latenciesMs } = await load(server, file, ['-v', '-Q', String(half)]);
      push(p50, server.name, latenciesMs[Math.floor(latenciesMs.length * 0.5)] ?? Number.NaN);
      push(p99, server.name, latenciesMs[Math.floor(latenciesMs.length * 0.99)] ?? Number.NaN);
    }
  report('p50 at half load', p50, 'ms');
  report('p99 at half load', p99, 'ms');
}

async function measureUpdates(): Promise<void> {
  const { report: told, process: child } = await startOurs(LARGE, CHANGES);
  child.kill('SIGKILL');
  const sorted = [...told.latencies].sort((a, b) => a - b);
  const at = (part: number) => sorted[Math.floor(sorted.length * part)] ?? Number.NaN;
  line('44,000 services, update to answer, p50', at(0.5), 'ms', undefined);
  line('44,000 services, update to answer, p99', at(0.99), 'ms', undefined);
  line('44,000 services, RSS', told.rssKb / 1024, 'MB', undefined);
}

async function measureDisturbed(): Promise<void> {
  const script = join(import.meta.dirname, 'dns/disturbed.ts');
  const flags = [...DAEMON_NODE_FLAGS, '--disable-warning=ExperimentalWarning'];
  const args = [...flags, script, String(LARGE), String(upstream.port)];
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    maxBuffer: MAX_OUTPUT_BYTES,
    env: COMPILED_ENV,
  });
  const observed = JSON.parse(stdout) as { what: string; durationMs: number; seen: Seen[] }[];
  for (const { what, durationMs, seen } of observed) {
    line(`44,000 services, ${what}`, durationMs, 'ms', undefined);
    for (const { way, tookMs, lost } of seen) {
      const sorted = tookMs.toSorted((a, b) => a - b);
      const p99 = sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN;
      line(`${what}: ${way}, p99`, p99, 'ms', undefined);
      line(`${what}: ${way}, most`, sorted.at(-1) ?? Number.NaN, 'ms', undefined);
      line(`${what}: ${way}, lost`, lost, 'queries', undefined);
    }
  }
}

async function load(
  server: Server,
  file: string,
  extra: readonly string[] = [],
): Promise<{ rate: number; cpuUs: number; latenciesMs: number[] }> {
  const args = ['-s', '127.0.0.1', '-p', server.port, '-d', file, '-l', ROUND_S].map(String);
  const many = ['-c', CLIENTS, '-q', OUTSTANDING, '-T', 1, '-t', 1].map(String);
  const cpuBeforeS = cpuSeconds(server);
  const text = await new Promise<string>((resolve, reject) => {
    const options = { maxBuffer: MAX_OUTPUT_BYTES };
    execFile('dnsperf', [...args, ...many, ...extra], options, (error, stdout) =>
      error === null ? resolve(stdout) : reject(error),
    );
  });
  const cpuS = cpuSeconds(server) - cpuBeforeS;
  const lost = Number(/Queries lost:\s+(\d+)/.exec(text)?.[1]);
  if (lost > 0) console.error(`bench dns: ${server.name} lost ${lost} queries`);
  const done = Number(/Queries completed:\s+(\d+)/.exec(text)?.[1]);
  const rate = Number(/Queries per second:\s+([\d.]+)/.exec(text)?.[1]);
  const latenciesMs = [...text.matchAll(/^> \S+ \S+ \S+ ([\d.]+)$/gm)]
    .map((match) => Number(match[1]) * 1000)
    .sort((a, b) => a - b);
  return { rate, cpuUs: (cpuS * 1e6) / Math.max(1, done), latenciesMs };
}

/** Processor time of the server so far, of all its threads. proc(5): utime and stime are the fields 14 and 15. */
function cpuSeconds({ process: child }: Server): number {
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_S;
}

function rssMb({ process: child }: Server): number {
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

/** Answers any question with an address, with a long TTL; NXDOMAIN below the cluster's zone never comes here. */
async function startUpstream(): Promise<Worker & { port: number }> {
  const source = `
    const { createSocket } = require('node:dgram');
    const { parentPort } = require('node:worker_threads');
    const socket = createSocket('udp4');
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 80]);
    socket.on('message', (query, peer) => {
      let end = 12;
      while (query[end] !== 0) end += query[end] + 1;
      const isA = query.readUInt16BE(end + 1) === 1;
      const answer = Buffer.concat([query.subarray(0, end + 5), ...(isA ? [record] : [])]);
      answer.writeUInt16BE(0x8180, 2);
      answer.writeUInt16BE(isA ? 1 : 0, 6);
      answer.writeUInt32BE(0, 8);
      socket.send(answer, peer.port, peer.address);
    });
    socket.bind(0, '127.0.0.1', () => parentPort.postMessage(socket.address().port));
  `;
  const worker = new Worker(source, { eval: true });
  const [port] = (await once(worker, 'message')) as [number];
  return Object.assign(worker, { port });
}

/** One line for each peer, so that every comparison stands for itself. */
function report(what: string, values: ReadonlyMap<string, number[]>, unit: string): void {
  const ours = median(values.get('tulle') ?? []);
  const peers = [...values].filter(([name]) => name !== 'tulle');
  if (peers.length === 0) line(what, ours, unit, undefined);
  for (const [peer, theirs] of peers) line(what, ours, unit, { peer, value: median(theirs) });
}

function line(
  what: string,
  value: number,
  unit: string,
  peer: { peer: string; value: number } | undefined,
): void {
  const round = (number: number) => Number(number.toPrecision(4));
  const compared =
    peer === undefined
      ? { peer: null, peer_value: null, ratio: null }
      : { peer: peer.peer, peer_value: round(peer.value), ratio: round(value / peer.value) };
  console.log(JSON.stringify({ bench: 'dns', case: what, value: round(value), unit, ...compared }));
}

function push(map: Map<string, number[]>, key: string, value: number): void {
  map.set(key, [...(map.get(key) ?? []), value]);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
