/**
 * Services at size: the full sync from the API's objects in memory, and single changes from the watch event to the
 * kernel, by the feature as the agent runs it.
 *
 * usage: ./dev bench services [CASE…]        CASE is SERVICESxENDPOINTS, by default all below   (root)
 *
 * The peer is `nft -f` with the same services as kube-proxy's nftables mode lays them out (`kube-proxy-layout.ts`): a
 * stand-in, because kube-proxy is in no package, and does this and more. The second peer is `iptables-restore` with
 * its iptables mode's. Larger cases than TULLE_BENCH_PEER_ENDPOINTS (60,000) have no peers, and one that takes minutes is
 * ended.
 * Each case runs in a process of its own, whose memory (after garbage collection) is told with the API's objects in it,
 * kept as an agent keeps them.
 */
import { execFileSync } from 'node:child_process';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { HandCache } from '#client/hand-cache.ts';
import type { Cache } from '#client/port.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { Poller } from '#linux/poller.ts';
import { Ruleset } from '#node/ruleset.ts';
import { Services } from '#node/services/services.ts';
import {
  addressOf,
  clusterIpOf,
  serviceOf,
  sliceOf,
} from '#node/services/testing/many-services.ts';
import { sliceTrimmer, trimService } from '#node/trim.ts';
import { DAEMON_NODE_FLAGS } from '#proc/node-flags.ts';
import { LAYOUTS, type LoadedLayout, loadLayout } from './support/load-layout.ts';
import { quantile } from './support/quantile.ts';

const DEFAULT_CASES = ['1000x5', '10000x5', '44000x5', '5000x50', '200000x5'];
/**
 * Of each kind. The compiler is at work in the first hundreds: its stops are of a millisecond or more, always at the same
 * changes, and few enough changes would show nothing else at the 99th percentile.
 */
const CHANGES = 1000;
const MAX_PEER_ENDPOINTS = Number(process.env.TULLE_BENCH_PEER_ENDPOINTS ?? 60_000);
const WARM_UP_CHANGES = 20;

const cases = process.argv.length > 2 ? process.argv.slice(2) : DEFAULT_CASES;
for (const name of cases)
  if (!/^\d+x\d+$/.test(name)) {
    console.error(`A case is SERVICESxENDPOINTS, as in 44000x5, and not "${name}".`);
    process.exit(2);
  }
async function measure(name: string): Promise<void> {
  const [services = 0, endpoints = 0] = name.split('x').map(Number);
  const namespace = `tulle-bench-${process.pid}`;
  const fullMs = await inNamespace(namespace, () => ours(name, namespace, { services, endpoints }));
  // After ours, whose memory is measured: the peers' texts are large.
  const isPeerSize = services * endpoints <= MAX_PEER_ENDPOINTS;
  const peers = isPeerSize ? await measurePeers(namespace, services, endpoints) : [];
  if (peers.length === 0) report(name, 'full sync', fullMs, 'ms');
  for (const peer of peers) report(name, 'full sync', fullMs, 'ms', peer);
}

/** @returns how long the full sync took, in milliseconds */
async function ours(
  name: string,
  namespace: string,
  size: { services: number; endpoints: number },
): Promise<number> {
  const log = silentLogger;
  const trimSlice = sliceTrimmer();
  const serviceCache = new HandCache<Service>();
  const sliceCache = new HandCache<EndpointSlice>();
  for (let i = 0; i < size.services; i++) {
    serviceCache.put(trimService(received(serviceOf(i))));
    sliceCache.put(trimSlice(received(sliceOf(i, size.endpoints))));
  }
  serviceCache.sync();
  sliceCache.sync();
  collectGarbage();
  const snapshotMib = process.memoryUsage().rss / 2 ** 20;
  await using stack = new AsyncDisposableStack();
  const poller = stack.use(new Poller());
  const nftables = stack.use(openNftables({ netns: `/run/netns/${namespace}`, poller }));
  const rulesets = rulesetsOf(stack, nftables);
  let done: (() => void) | undefined;
  const feature = stack.use(
    new Services(
      {
        ...{ rulesets, log, services: serviceCache, slices: sliceCache },
        // Every change below takes an endpoint away or changes a service, so this is the end of its sync.
        onEndpointsLost: () => done?.(),
      },
      { node: { nodeName: 'm0', zone: undefined }, skipAddresses: [] },
    ),
  );
  const start = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  const threadBefore = process.threadCpuUsage();
  await feature.start();
  const fullMs = msSince(start);
  const thread = process.threadCpuUsage(threadBefore);
  const all = process.cpuUsage(cpu);
  // What the time would be on a machine with nothing else to do. The kernel's part is on a thread of the C library.
  report(name, 'full sync, processor time', (thread.user + thread.system) / 1000, 'ms');
  report(name, 'full sync, processor time of all threads', (all.user + all.system) / 1000, 'ms');
  report(name, 'full sync, of it in the kernel', all.system / 1000, 'ms');
  collectGarbage();
  report(name, 'memory (RSS) with the API objects', process.memoryUsage().rss / 2 ** 20, 'MiB');
  report(name, 'memory (RSS) before the sync', snapshotMib, 'MiB');

  const changed = async (action: () => void): Promise<number> => {
    await new Promise((resolve) => setTimeout(resolve, 3));
    const end = new Promise<void>((resolve) => {
      done = resolve;
    });
    const begin = process.hrtime.bigint();
    action();
    await end;
    return msSince(begin);
  };
  /** From the event of the watch to the kernel. */
  const put = (slice: EndpointSlice): Promise<number> => {
    const object = received(slice);
    return changed(() => sliceCache.put(trimSlice(object)));
  };
  const endpointMs: number[] = [];
  for (let i = 0; i < CHANGES + WARM_UP_CHANGES; i++) {
    const service = (i * 7919) % size.services;
    const ms = await put(sliceOf(service, size.endpoints, 1 + i));
    if (i >= WARM_UP_CHANGES) endpointMs.push(ms);
  }
  report(name, 'one endpoint replaced p50', quantile(endpointMs, 0.5), 'ms');
  report(name, 'one endpoint replaced p99', quantile(endpointMs, 0.99), 'ms');
  const removedMs: number[] = [];
  for (let i = 0; i < CHANGES; i++) {
    const service = (i * 104_729 + 1) % size.services;
    removedMs.push(await put(sliceOf(service, Math.max(1, size.endpoints - 1))));
  }
  report(name, 'one endpoint removed p50', quantile(removedMs, 0.5), 'ms');
  report(name, 'one endpoint removed p99', quantile(removedMs, 0.99), 'ms');
  const addedMs: number[] = [];
  for (let i = 0; i < CHANGES; i++) {
    const slice = received(sliceOf(size.services + i, size.endpoints));
    const service = received(serviceOf(size.services + i));
    addedMs.push(
      await changed(() => {
        sliceCache.put(trimSlice(slice));
        serviceCache.put(trimService(service));
      }),
    );
  }
  report(name, 'one service added p50', quantile(addedMs, 0.5), 'ms');
  report(name, 'one service added p99', quantile(addedMs, 0.99), 'ms');

  await stack.disposeAsync();
  await startAgain(name, namespace, { services: serviceCache, slices: sliceCache });
  return fullMs;
}

/** The next agent, which finds the table of the last one. */
async function startAgain(
  name: string,
  namespace: string,
  caches: { services: Cache<Service>; slices: Cache<EndpointSlice> },
): Promise<void> {
  const log = silentLogger;
  await using stack = new AsyncDisposableStack();
  const nftables = stack.use(openNftables({ netns: `/run/netns/${namespace}` }));
  const rulesets = rulesetsOf(stack, nftables);
  const feature = stack.use(
    new Services(
      { ...{ rulesets, log, ...caches }, onEndpointsLost: () => {} },
      { node: { nodeName: 'm0', zone: undefined }, skipAddresses: [] },
    ),
  );
  const generation = nftables.generation();
  const start = process.hrtime.bigint();
  await feature.start();
  report(name, 'full sync on the table of the agent before', msSince(start), 'ms');
  report(name, 'transactions of it', nftables.generation() - generation, '');
  report(name, 'memory (RSS) after it', process.memoryUsage().rss / 2 ** 20, 'MiB');
}

function rulesetsOf(stack: AsyncDisposableStack, nftables: Nftables): Ruleset[] {
  return (['ip', 'ip6'] as const).map((family) =>
    stack.use(new Ruleset({ nftables, log: silentLogger }, { family, table: 'tulle', parts: [] })),
  );
}

/** As it comes out of the API: no part of it is shared with another object. */
function received<T>(object: T): T {
  return JSON.parse(JSON.stringify(object)) as T;
}

/** The same services in kube-proxy's layouts, each in a namespace of its own. */
async function measurePeers(
  netns: string,
  services: number,
  endpoints: number,
): Promise<LoadedLayout[]> {
  const all = Array.from({ length: services }, (_, s) => ({
    clusterIp: clusterIpOf(s),
    endpoints: Array.from({ length: endpoints }, (_, i) => addressOf(11, s * endpoints + i)),
  }));
  const peers: LoadedLayout[] = [];
  for (const layout of LAYOUTS) {
    const loaded = await inNamespace(netns, () => loadLayout(netns, layout, all));
    if (loaded !== undefined) peers.push(loaded);
  }
  return peers;
}

/** Runs it with a network namespace of this name. */
async function inNamespace<T>(name: string, action: () => T | Promise<T>): Promise<T> {
  execFileSync('ip', ['netns', 'add', name]);
  try {
    return await action();
  } finally {
    execFileSync('ip', ['netns', 'delete', name]);
  }
}

function report(
  name: string,
  what: string,
  value: number,
  unit: string,
  peer?: LoadedLayout,
): void {
  const round = (number: number) => Number(number.toPrecision(4));
  console.log(
    JSON.stringify({
      ...{ bench: 'services', case: `${name} ${what}`, value: round(value), unit },
      peer: peer?.name ?? null,
      peer_value: peer === undefined ? null : round(peer.ms),
      ratio: peer === undefined ? null : round(value / peer.ms),
    }),
  );
}

function collectGarbage(): void {
  globalThis.gc?.();
}
function msSince(start: bigint): number {
  return Number(process.hrtime.bigint() - start) / 1e6;
}

const [only] = cases;
// Each case in a process of its own, for the memory it takes.
if (globalThis.gc === undefined)
  for (const one of cases) {
    const [node = '', ...flags] = [process.execPath, ...DAEMON_NODE_FLAGS, ...process.execArgv];
    execFileSync(node, [...flags, '--expose-gc', import.meta.filename, one], { stdio: 'inherit' });
  }
else if (only !== undefined) await measure(only);
