/**
 * Policy: programming many policies, changing one thing among them, and what they cost packets.
 *
 * usage: ./dev bench policy [POLICIES…]     (root; in network namespaces of its own; default 1000 10000, and then packets; 0: packets only)
 *
 * 250 pods on this node, 10,000 elsewhere. Peer of the packet cases: the same path with no policy rules at all.
 */
import { type ChildProcessByStdio, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import { type Ip, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { PolicyPlanner } from '#node/policy/planner.ts';
import { POLICY_PART, stagePlan } from '#node/policy/programmer.ts';
import { rehearse } from '#node/policy/rehearse.ts';
import { Ruleset } from '#node/ruleset.ts';
import { compileNetworkPolicy } from '#policy/compile.ts';

import type { PolicyPod } from '#policy/model.ts';
import { quantile } from './support/quantile.ts';

const LOCAL_PODS = 250;
const PEERS = 10_000;
const NAMESPACES = 100;
const SELECTED_BY = 1_000;
const CHANGES = 200;
/** Of fewer the 99th percentile would be the slowest. */
const FIRST_PODS = 200;
const REST_MS = 100;
/** Short rounds and many: what else the machine does meets all paths alike. */
const CONNECTION_ROUNDS = 60;
const CONNECTIONS = 400;
const STREAM_ROUNDS = 16;
/** Each on a processor of its own, in every round and on every path. */
const [CLIENT_CPU, SERVER_CPU] = ['0', availableParallelism() > 1 ? '1' : '0'];
const STREAM_SECONDS = 1;
const SETTLE_MS = 1_000;
const CLIENT = '10.0.0.250';
const SERVER = '10.0.0.251';

/** One node's planner over a real kernel. */
class Bed implements AsyncDisposable {
  readonly planner = new PolicyPlanner();
  readonly rulesets: readonly Ruleset[];

  constructor(nftables: Nftables) {
    this.rulesets = (['ip', 'ip6'] as const).map(
      (family) =>
        new Ruleset(
          { nftables, log: silentLogger },
          { family, table: 'tulle', parts: [POLICY_PART] },
        ),
    );
  }

  sync(): void {
    stagePlan(this.planner, this.rulesets);
    const refusal = Ruleset.tryCommit(this.rulesets);
    if (refusal !== undefined) throw refusal.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const ruleset of this.rulesets) await ruleset[Symbol.asyncDispose]();
  }
}

function pod(i: number, local: boolean, extra: Record<string, string> = {}): PolicyPod {
  const namespace = `ns-${i % NAMESPACES}`;
  const address = local ? `10.1.${i >> 8}.${i & 255}` : `10.2.${i >> 8}.${i & 255}`;
  const name = `${local ? 'local' : 'peer'}-${i}`;
  return {
    ...{ key: `${namespace}/${name}`, namespace, name, ips: [ip(address)], node: undefined },
    labels: { app: `app-${Math.floor(i / NAMESPACES) % 10}`, tier: `tier-${i % 7}`, ...extra },
    ...{ hostNetwork: false, ports: [] },
  };
}

/** Policy number i of its namespace; those of the last namespace select the label `many`. */
function policy(i: number, port = 80) {
  const isMany = i < SELECTED_BY;
  return compileNetworkPolicy({
    ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
    metadata: { namespace: isMany ? 'ns-many' : `ns-${i % NAMESPACES}`, name: `policy-${i}` },
    spec: {
      podSelector: { matchLabels: isMany ? { many: 'yes' } : { app: `app-${i % 10}` } },
      policyTypes: ['Ingress'],
      ingress: [
        {
          from: [
            {
              namespaceSelector: {
                matchLabels: { 'kubernetes.io/metadata.name': `ns-${(i * 7) % NAMESPACES}` },
              },
              podSelector: { matchLabels: { app: `app-${(i * 3) % 10}` } },
            },
          ],
          ports: [{ port }, { port: 8000 + (i % 100), endPort: 9000 }],
        },
      ],
    },
  });
}

function fill({ planner }: Bed, policies: number): void {
  for (let i = 0; i < NAMESPACES; i++) {
    const name = `ns-${i}`;
    planner.setNamespace(name, { name, labels: { 'kubernetes.io/metadata.name': name } });
  }
  planner.setNamespace('ns-many', { name: 'ns-many', labels: {} });
  for (let i = 0; i < PEERS; i++) {
    const peer = pod(i, false);
    planner.setPod(peer.key, peer);
  }
  for (let i = 0; i < LOCAL_PODS; i++) {
    const local = pod(i, true);
    planner.setPod(local.key, local);
    planner.setLocal(local.key, local);
  }
  for (let i = 0; i < policies; i++) {
    const it = policy(i);
    planner.setPolicy(it.id, it);
  }
}

function benchProgramming(policies: number): void {
  withNetns((netns) => {
    using nftables = openNftables({ netns });
    const bed = new Bed(nftables);
    const first = elapsedMs(() => {
      fill(bed, policies);
      bed.sync();
    });
    report(`first sync, ${policies} policies`, first, 'ms');
    // As an agent does when it starts.
    const rehearsal = elapsedMs(() => rehearse(bed.planner.policies));
    report(`rehearsal of a start, ${policies} policies`, rehearsal, 'ms');
    const many: PolicyPod = {
      ...pod(1, true, { many: 'yes' }),
      namespace: 'ns-many',
      key: 'ns-many/x',
    };
    const selecting = Math.min(SELECTED_BY, policies);
    const cpu: number[] = [];
    const addAndRemove = (rounds: number, restMs: number): number[] =>
      Array.from({ length: rounds }, (_, i) => {
        const one = { ...many, key: `ns-many/x-${i}`, ips: [ip(`10.3.0.${i + 1}`)] };
        const before = process.cpuUsage();
        const added = elapsedMs(() => {
          bed.planner.setPod(one.key, one);
          bed.planner.setLocal(one.key, one);
          bed.sync();
        });
        const { user, system } = process.cpuUsage(before);
        cpu.push((user + system) / 1000);
        bed.planner.setPod(one.key, undefined);
        bed.planner.setLocal(one.key, undefined);
        bed.sync();
        // The kernel frees what was removed in the background, and the next commit waits for it.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, restMs);
        return added;
      });
    const [cold = Number.NaN, ...firsts] = addAndRemove(FIRST_PODS + 1, REST_MS);
    cpu.shift();
    report(`the very first pod that ${selecting} of ${policies} policies select`, cold, 'ms');
    reportQuantiles(`first pod that ${selecting} of ${policies} policies select`, firsts);
    // On a machine that does other things, the time that it took of a processor says more than the clock.
    reportQuantiles(`the same, processor time, ${policies} policies`, cpu);
    const resident = { ...many, key: 'ns-many/first', ips: [ip('10.3.1.1')] };
    bed.planner.setPod(resident.key, resident);
    bed.planner.setLocal(resident.key, resident);
    bed.sync();
    reportQuantiles(
      `another pod that ${selecting} of ${policies} policies select`,
      addAndRemove(CHANGES, 0),
    );
    const changed: number[] = [];
    for (let i = 0; i < CHANGES; i++) {
      const it = policy(
        policies > SELECTED_BY ? SELECTED_BY + (i % (policies - SELECTED_BY)) : i,
        81 + i,
      );
      changed.push(
        elapsedMs(() => {
          bed.planner.setPolicy(it.id, it);
          bed.sync();
        }),
      );
    }
    reportQuantiles(`one policy of ${policies} changed`, changed);
    const peers: number[] = [];
    for (let i = 0; i < CHANGES; i++) {
      const one = { ...pod(i, false), labels: { app: `app-${(i + 1) % 10}` } };
      peers.push(
        elapsedMs(() => {
          bed.planner.setPod(one.key, one);
          bed.sync();
        }),
      );
    }
    reportQuantiles(`one peer's labels changed, ${policies} policies`, peers);
    report(
      `memory of this process, ${policies} policies`,
      process.memoryUsage.rss() / 2 ** 20,
      'MiB',
    );
  });
}

/**
 * Connections and bytes from pod to pod, on paths that live side by side: two without any rule, of which the second tells
 * how far two equal ones are apart, and two under policies of which one is about the server.
 */
async function benchPackets(): Promise<void> {
  const names = ['none', 'none again', '1', '10000'] as const;
  await using stack = new AsyncDisposableStack();
  const paths = new Map<(typeof names)[number], Path>();
  for (const [i, name] of names.entries()) {
    const path = stack.use(await Path.start(`tulle-bench-${process.pid}-${i}`));
    using nftables = openNftables({ netns: `/run/netns/${path.node}` });
    // All have conntrack, as every node with services has.
    if (name.startsWith('none')) trackOnly(nftables);
    else await program(nftables, Number(name));
    paths.set(name, path);
  }
  // What was made leaves garbage, here and in the kernel.
  await setTimeout(SETTLE_MS);
  const measure = async (what: string, unit: string, rounds: number, once: Measurement) => {
    const values = new Map(names.map((name) => [name, [] as number[]]));
    for (let round = 0; round < rounds + 1; round++)
      for (const i of names.keys()) {
        // Each comes first, and after each other, equally often.
        const name = names[(round % 2 === 0 ? i + round : names.length - i + round) % names.length];
        const path = name === undefined ? undefined : paths.get(name);
        if (name === undefined || path === undefined) throw new Error('no such path');
        const value = await once(path);
        // The first round fills caches.
        if (round > 0) values.get(name)?.push(value);
      }
    const none = values.get('none') ?? [];
    for (const [name, ours] of values)
      if (name !== 'none')
        compare(`${what}, ${name === 'none again' ? name : `${name} policies`}`, ours, none, unit);
  };
  await measure('new connections', '1/s', CONNECTION_ROUNDS, (path) => path.connect());
  if (spawnSync('iperf3', ['--version']).status === 0)
    await measure('established throughput', 'Gbit/s', STREAM_ROUNDS, (path) => path.stream());
  else console.error('iperf3 is not installed: no throughput');
}

type Measurement = (path: Path) => Promise<number> | number;

/** A node with two pods: one connects, one answers. */
class Path implements AsyncDisposable {
  readonly node: string;
  readonly #children: ChildProcessByStdio<Writable, Readable, null>[] = [];
  #client: AsyncIterator<string> | undefined;

  static async start(node: string): Promise<Path> {
    const path = new Path(node);
    const server = path.#script(`${node}-b`, SERVER_SCRIPT, SERVER);
    await server.next();
    path.#client = path.#script(`${node}-a`, CLIENT_SCRIPT, SERVER, String(CONNECTIONS));
    return path;
  }

  private constructor(node: string) {
    this.node = node;
    for (const it of [node, `${node}-a`, `${node}-b`]) execFileSync('ip', ['netns', 'add', it]);
    const run = (netns: string, ...argv: string[]) =>
      execFileSync('ip', ['netns', 'exec', netns, ...argv], { encoding: 'utf8' });
    run(node, 'sysctl', '-qw', 'net.ipv4.ip_forward=1');
    for (const [netns, address, link] of [
      [`${node}-a`, CLIENT, 'tla'],
      [`${node}-b`, SERVER, 'tlb'],
    ] as const) {
      run(node, 'ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', netns);
      run(node, 'ip', 'link', 'set', link, 'up');
      run(node, 'ip', 'address', 'add', '169.254.1.1/32', 'dev', link);
      run(node, 'ip', 'route', 'add', `${address}/32`, 'dev', link);
      run(netns, 'ip', 'link', 'set', 'eth0', 'up');
      run(netns, 'ip', 'address', 'add', `${address}/32`, 'dev', 'eth0');
      run(netns, 'ip', 'route', 'add', '169.254.1.1', 'dev', 'eth0');
      run(netns, 'ip', 'route', 'add', 'default', 'via', '169.254.1.1');
    }
  }

  /** @returns connections in a second */
  async connect(): Promise<number> {
    this.#children.at(-1)?.stdin.write('\n');
    return Number((await this.#client?.next())?.value);
  }

  /** @returns gigabits in a second */
  async stream(): Promise<number> {
    const inPod = (pod: string, cpu: string) => [
      ...['netns', 'exec', `${this.node}-${pod}`],
      ...['taskset', '--cpu-list', cpu, 'iperf3'],
    ];
    const server = spawn(
      'ip',
      [...inPod('b', SERVER_CPU), '-s', '-1', '-B', SERVER, '--forceflush'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await once(server.stdout, 'data');
    const argv = [...inPod('a', CLIENT_CPU), '-J', '-c', SERVER, '-t', String(STREAM_SECONDS)];
    const result = JSON.parse(execFileSync('ip', argv, { encoding: 'utf8' })) as {
      end: { sum_received: { bits_per_second: number } };
    };
    if (server.exitCode === null) await once(server, 'exit');
    return result.end.sum_received.bits_per_second / 1e9;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    for (const it of [`${this.node}-a`, `${this.node}-b`, this.node])
      execFileSync('ip', ['netns', 'delete', it]);
  }

  /** @returns its lines */
  #script(netns: string, script: string, ...argv: string[]): AsyncIterator<string> {
    const all = ['netns', 'exec', netns, process.execPath, '-e', script, ...argv];
    const child = spawn('ip', all, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#children.push(child);
    return createInterface(child.stdout)[Symbol.asyncIterator]();
  }
}

const SERVER_SCRIPT = `
require('node:net').createServer((s) => { s.on('error', () => {}); s.end(); })
  .listen({ port: 80, host: process.argv[1], backlog: 4096 }, () => console.log('ready'));`;
const CLIENT_SCRIPT = `
const [host, count] = process.argv.slice(1);
process.stdin.on('data', () => {
  const begin = process.hrtime.bigint();
  let left = Number(count), open = 0, done = 0;
  const next = () => {
    while (open < 16 && left > 0) {
      open++; left--;
      const s = require('node:net').connect(80, host);
      s.on('error', (e) => { console.error(e.code); process.exit(1); });
      s.on('close', () => { open--; done++; if (done === Number(count)) end(); else next(); });
      s.resume();
    }
  };
  const end = () => console.log(Number(count) / (Number(process.hrtime.bigint() - begin) / 1e9));
  next();
});`;

function trackOnly(nftables: Nftables): void {
  const table = { family: 'ip', table: 'tulle' } as const;
  const chain = { ...table, chain: 'track' };
  nftables.commit([
    { verb: 'add', kind: 'table', object: table },
    { verb: 'delete', kind: 'table', ref: table },
    { verb: 'add', kind: 'table', object: table },
    {
      verb: 'add',
      kind: 'chain',
      object: { ...chain, base: { type: 'filter', hook: 'prerouting', priority: 0 } },
    },
    {
      verb: 'add',
      kind: 'rule',
      object: { ...chain, expressions: [{ kind: 'ct', key: 'state', to: 0 }] },
    },
  ]);
}

async function program(nftables: Nftables, policies: number): Promise<void> {
  await using bed = new Bed(nftables);
  if (policies > 1) fill(bed, policies - 1);
  const { planner } = bed;
  planner.setNamespace('bench', { name: 'bench', labels: {} });
  for (const [name, address] of [
    ['client', CLIENT],
    ['server', SERVER],
  ] as const) {
    const it: PolicyPod = {
      ...{ key: `bench/${name}`, namespace: 'bench', name, labels: { app: name } },
      ...{ ips: [address as Ip], node: undefined, hostNetwork: false, ports: [] },
    };
    planner.setPod(it.key, it);
    planner.setLocal(it.key, it);
  }
  const own = compileNetworkPolicy({
    ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
    metadata: { namespace: 'bench', name: 'server' },
    spec: {
      podSelector: { matchLabels: { app: 'server' } },
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'client' } } }] }],
    },
  });
  planner.setPolicy(own.id, own);
  bed.sync();
}

function withNetns(body: (netns: `/run/netns/${string}`) => void): void {
  const name = `tulle-bench-${process.pid}`;
  execFileSync('ip', ['netns', 'add', name]);
  try {
    body(`/run/netns/${name}`);
  } finally {
    execFileSync('ip', ['netns', 'delete', name]);
  }
}

function compare(
  what: string,
  ours: readonly number[],
  peer: readonly number[],
  unit: string,
): void {
  const ratios = ours.map((value, i) => value / (peer[i] ?? Number.NaN));
  const [low, high] = [0.25, 0.75].map((q) => quantile(ratios, q).toFixed(3));
  console.error(`${what}: half of the ratios are between ${low} and ${high}`);
  print(what, quantile(ours, 0.5), unit, 'no policy', quantile(peer, 0.5), quantile(ratios, 0.5));
}
function reportQuantiles(what: string, values: readonly number[]): void {
  report(`${what}, p50`, quantile(values, 0.5), 'ms');
  report(`${what}, p99`, quantile(values, 0.99), 'ms');
}
function report(what: string, value: number, unit: string): void {
  print(what, value, unit, null, null, null);
}
function print(
  what: string,
  value: number,
  unit: string,
  peer: string | null,
  peerValue: number | null,
  ratio: number | null,
): void {
  const round = (number: number | null) => (number === null ? null : Number(number.toPrecision(4)));
  const line = { bench: 'policy', case: what, value: round(value), unit, peer };
  console.log(JSON.stringify({ ...line, peer_value: round(peerValue), ratio: round(ratio) }));
}
function elapsedMs(action: () => void): number {
  const begin = performance.now();
  action();
  return performance.now() - begin;
}
const sizes = process.argv.slice(2).map(Number);
for (const policies of sizes.length > 0 ? sizes : [1_000, 10_000])
  if (policies > 0) benchProgramming(policies);
if (sizes.length === 0 || sizes.includes(0)) await benchPackets();
process.exit();
