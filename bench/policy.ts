/**
 * Policy: programming many policies, changing one thing among them, and what they cost packets.
 *
 * usage: ./dev bench policy [POLICIES…]     (root; in network namespaces of its own; default 1000 10000, and then packets; 0: packets only)
 *
 * 250 pods on this node, 10,000 elsewhere. Peer of the packet cases: the same path with no policy rules at all.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { type Ip, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { PolicyPlanner } from '#node/policy/planner.ts';
import { POLICY_PART } from '#node/policy/programmer.ts';
import { Ruleset } from '#node/ruleset.ts';
import { compileNetworkPolicy } from '#policy/compile.ts';
import type { PolicyPod } from '#policy/model.ts';

const LOCAL_PODS = 250;
const PEERS = 10_000;
const NAMESPACES = 100;
const SELECTED_BY = 1_000;
const CHANGES = 200;
const FIRST_PODS = 40;
const REST_MS = 300;
const ROUNDS = 5;
const CONNECTIONS = 2_000;
const STREAM_SECONDS = 2;
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
    for (const { family, part, elements } of this.planner.take()) {
      const ruleset = this.rulesets.find((it) => it.family === family);
      if (part !== undefined) ruleset?.define(POLICY_PART, part);
      for (const { set, add, remove } of elements) ruleset?.stage(set, { add, remove });
    }
    for (const ruleset of this.rulesets) ruleset.commit();
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
    reportQuantiles(
      `first pod that ${selecting} of ${policies} policies select`,
      addAndRemove(FIRST_PODS, REST_MS),
    );
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

/** Connections and bytes from pod to pod: without any rule, and with policies of which one is about the server. */
async function benchPackets(): Promise<void> {
  const name = `tulle-bench-${process.pid}`;
  const names = [name, `${name}-a`, `${name}-b`];
  for (const it of names) execFileSync('ip', ['netns', 'add', it]);
  const run = (netns: string, ...argv: string[]) =>
    execFileSync('ip', ['netns', 'exec', netns, ...argv], { encoding: 'utf8' });
  try {
    run(name, 'sysctl', '-qw', 'net.ipv4.ip_forward=1');
    for (const [netns, address, link] of [
      [`${name}-a`, CLIENT, 'tla'],
      [`${name}-b`, SERVER, 'tlb'],
    ] as const) {
      run(name, 'ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', netns);
      run(name, 'ip', 'link', 'set', link, 'up');
      run(name, 'ip', 'address', 'add', '169.254.1.1/32', 'dev', link);
      run(name, 'ip', 'route', 'add', `${address}/32`, 'dev', link);
      run(netns, 'ip', 'link', 'set', 'eth0', 'up');
      run(netns, 'ip', 'address', 'add', `${address}/32`, 'dev', 'eth0');
      run(netns, 'ip', 'route', 'add', '169.254.1.1', 'dev', 'eth0');
      run(netns, 'ip', 'route', 'add', 'default', 'via', '169.254.1.1');
    }
    await comparePackets(name);
  } finally {
    for (const it of names) execFileSync('ip', ['netns', 'delete', it]);
  }
}

async function comparePackets(netns: string): Promise<void> {
  using nftables = openNftables({ netns: `/run/netns/${netns}` });
  const argv = ['netns', 'exec', `${netns}-b`, process.execPath, '-e', SERVER_SCRIPT, SERVER];
  const server = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(server.stdout, 'data');
  const hasIperf = spawnSync('iperf3', ['--version']).status === 0;
  const iperf = hasIperf
    ? spawn('ip', ['netns', 'exec', `${netns}-b`, 'iperf3', '-s', '-B', SERVER], {
        stdio: 'ignore',
      })
    : undefined;
  try {
    for (const policies of [1, 10_000]) {
      const rates: Record<'with' | 'without', { connections: number[]; bits: number[] }> = {
        with: { connections: [], bits: [] },
        without: { connections: [], bits: [] },
      };
      for (let round = 0; round < ROUNDS; round++)
        for (const state of round % 2 === 0
          ? (['without', 'with'] as const)
          : (['with', 'without'] as const)) {
          // Both have conntrack, as every node with services has.
          if (state === 'with') await program(nftables, policies);
          else trackOnly(nftables);
          connect(netns);
          rates[state].connections.push(connect(netns));
          if (hasIperf) rates[state].bits.push(stream(netns));
        }
      compare(
        `new connections, ${policies} policies`,
        rates.with.connections,
        rates.without.connections,
        '1/s',
      );
      if (hasIperf)
        compare(
          `established throughput, ${policies} policies`,
          rates.with.bits,
          rates.without.bits,
          'Gbit/s',
        );
    }
  } finally {
    for (const child of [server, iperf]) {
      child?.kill('SIGKILL');
      if (child !== undefined) await once(child, 'exit');
    }
  }
  if (!hasIperf) console.error('iperf3 is not installed: no throughput');
}

const SERVER_SCRIPT = `
require('node:net').createServer((s) => { s.on('error', () => {}); s.end(); })
  .listen({ port: 80, host: process.argv[1], backlog: 4096 }, () => console.log('ready'));`;
const CLIENT_SCRIPT = `
const [host, count] = process.argv.slice(1);
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
next();`;

function connect(netns: string): number {
  const argv = ['netns', 'exec', `${netns}-a`, process.execPath, '-e', CLIENT_SCRIPT, SERVER];
  return Number(execFileSync('ip', [...argv, String(CONNECTIONS)], { encoding: 'utf8' }));
}

function stream(netns: string): number {
  const argv = [
    'netns',
    'exec',
    `${netns}-a`,
    'iperf3',
    '-J',
    '-c',
    SERVER,
    '-t',
    String(STREAM_SECONDS),
  ];
  const result = JSON.parse(execFileSync('ip', argv, { encoding: 'utf8' })) as {
    end: { sum_received: { bits_per_second: number } };
  };
  return result.end.sum_received.bits_per_second / 1e9;
}

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
function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
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
