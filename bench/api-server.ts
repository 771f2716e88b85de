/**
 * The API server as a process of its own, over TLS: memory without work and with 44,000 services and 220,000 endpoints,
 * lists of 10,000 services, and one change on its way to 1,000 watchers.
 *
 * usage: ./dev bench api-server      one JSON object a line, see docs/benchmarks.md; the peer is the goal
 *
 * TULLE_BENCH_SERVICES=N loads fewer services.
 */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import type { KindRef } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import { createApiClient } from '#client/http-client.ts';
import type { ApiClient } from '#client/port.ts';
import { sleep } from '#lib/clock.ts';
import { openCa } from '#server/pki/ca.ts';
import { issueClientCertificate } from '#server/pki/issue.ts';
import { startServerProcess } from './support/server-process.ts';

const LISTED = 10_000;
const LISTS = 9;
const SERVICES = Number(process.env.TULLE_BENCH_SERVICES ?? 44_000);
const ENDPOINTS = 5;
const WRITERS = 64;
const WATCHERS = 1_000;
const WATCHES_PER_CONNECTION = 200;
const CHANGES = 60;
const BURST = 100;
/** A process gives memory back when it rests. */
const REST_MS = 4_000;

const directory = mkdtempSync(join(tmpdir(), 'tulle-bench-api-'));
const running = await startServerProcess(directory);
const { url, child: server } = running;
try {
  await sleep(REST_MS);
  report('idle RSS', rssMb(), 'MB', 120);
  const ca = await openCa({ directory: join(directory, 'pki') });
  const identity = async (name: string) => {
    const issued = await issueClientCertificate(ca, {
      commonName: name,
      organizations: ['system:masters'],
    });
    return { certificatePem: issued.certificatePem, keyPem: issued.keyPem };
  };
  const loader = await identity('bench-loader');
  await using client = createApiClient({ servers: [url], caPem: ca.certificatePem, ...loader });
  await benchLists(client);
  const watcher = await identity('bench-watcher');
  await benchWatchers(client, {
    ca: ca.certificatePem,
    cert: watcher.certificatePem,
    key: watcher.keyPem,
  });
  await benchLoad(client);
} finally {
  await running[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
}

async function benchLists(client: ApiClient): Promise<void> {
  const startedMs = performance.now();
  await load(
    client,
    SERVICE,
    Array.from({ length: LISTED }, (_, i) => service(i)),
  );
  report(
    `creates/s, ${WRITERS} writers`,
    LISTED / ((performance.now() - startedMs) / 1000),
    'ops/s',
  );
  const timesMs: number[] = [];
  for (let i = 0; i < LISTS; i++) {
    const beforeMs = performance.now();
    const { items } = await client.list(SERVICE, { namespace: 'default' });
    timesMs.push(performance.now() - beforeMs);
    if (items.length < LISTED)
      throw new Error(`the list has ${items.length} of ${LISTED} services`);
  }
  report(`list of ${LISTED} services, with the client's decoding`, quantile(timesMs, 0.5), 'ms');
}

interface Tls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

async function benchWatchers(client: ApiClient, tls: Tls): Promise<void> {
  const sessions: ClientHttp2Session[] = [];
  const streams: ClientHttp2Stream[] = [];
  /** Events each watcher has seen, and when it saw the last. */
  const seen = new Float64Array(WATCHERS);
  const seenMs = new Float64Array(WATCHERS);
  for (let i = 0; i < WATCHERS; i++) {
    if (i % WATCHES_PER_CONNECTION === 0) sessions.push(connect(url, tls));
    const session = sessions.at(-1);
    if (session === undefined) throw new Error('there is no connection');
    const stream = session.request({
      ':path': '/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0',
    });
    stream.on('data', (chunk: Buffer) => {
      let lines = 0;
      for (const byte of chunk) if (byte === 10) lines++;
      seen[i] = (seen[i] ?? 0) + lines;
      seenMs[i] = performance.now();
    });
    streams.push(stream);
  }
  await Promise.all(streams.map((stream) => once(stream, 'response')));
  await client.create(CONFIG_MAP, configMap('watched', 0));
  const all = (count: number) => seen.every((value) => value >= count);
  const until = async (count: number) => {
    while (!all(count)) await sleep(1);
  };
  await until(1);
  const base = Math.max(...seen);
  const spreadsMs: number[] = [];
  const totalsMs: number[] = [];
  for (let i = 1; i <= CHANGES; i++) {
    const beforeMs = performance.now();
    await client.update(CONFIG_MAP, configMap('watched', i));
    await until(base + i);
    const lastMs = Math.max(...seenMs);
    spreadsMs.push(lastMs - Math.min(...seenMs));
    totalsMs.push(lastMs - beforeMs);
  }
  report(
    `${WATCHERS} watchers, one change: first to last delivery, p50`,
    quantile(spreadsMs, 0.5),
    'ms',
  );
  report(
    `${WATCHERS} watchers, one change: first to last delivery, p99`,
    quantile(spreadsMs, 0.99),
    'ms',
    250,
  );
  report(
    `${WATCHERS} watchers, one change: write to last delivery, p50`,
    quantile(totalsMs, 0.5),
    'ms',
  );
  const startedMs = performance.now();
  const burst = Array.from({ length: BURST }, (_, i) => configMap(`burst-${i}`, i));
  await load(client, CONFIG_MAP, burst);
  await until(base + CHANGES + BURST);
  const seconds = (Math.max(...seenMs) - startedMs) / 1000;
  report(`${BURST} changes to ${WATCHERS} watchers`, (BURST * WATCHERS) / seconds, 'events/s');
  report(`RSS with ${WATCHERS} watchers and ${LISTED} services`, rssMb(), 'MB');
  for (const session of sessions) session.destroy();
}

async function benchLoad(client: ApiClient): Promise<void> {
  const startedMs = performance.now();
  await load(
    client,
    SERVICE,
    Array.from({ length: SERVICES - LISTED }, (_, i) => service(LISTED + i)),
  );
  await load(
    client,
    ENDPOINT_SLICE,
    Array.from({ length: SERVICES }, (_, i) => slice(i)),
  );
  const seconds = (performance.now() - startedMs) / 1000;
  const what = `${SERVICES} services with ${SERVICES * ENDPOINTS} endpoints`;
  report(`${what}: loaded one by one, ${WRITERS} writers`, seconds, 's');
  report(`${what}: objects/s`, (2 * SERVICES - LISTED) / seconds, 'ops/s');
  report(`${what}: RSS at once`, rssMb(), 'MB');
  await sleep(REST_MS);
  report(`${what}: RSS at rest`, rssMb(), 'MB', 500);
  report(`${what}: highest RSS`, rssMb('VmHWM'), 'MB');
}

async function load(client: ApiClient, kind: KindRef, objects: readonly object[]): Promise<void> {
  let next = 0;
  const writer = async () => {
    for (let object = objects[next++]; object !== undefined; object = objects[next++])
      await client.create(kind, object as KubeObject);
  };
  await Promise.all(Array.from({ length: WRITERS }, writer));
}

function configMap(name: string, value: number): KubeObject {
  const data = { value: String(value) };
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace: 'default' },
    data,
  } as KubeObject;
}

function service(i: number): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `svc-${i}`, namespace: 'default', labels: { app: `svc-${i}` } },
    spec: { ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
  };
}

function slice(i: number): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `svc-${i}-0`,
      namespace: 'default',
      labels: {
        'kubernetes.io/service-name': `svc-${i}`,
        'endpointslice.kubernetes.io/managed-by': 'bench',
      },
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: Array.from({ length: ENDPOINTS }, (_, e) => {
      const n = i * ENDPOINTS + e;
      return {
        addresses: [`10.${128 + ((n >> 16) & 127)}.${(n >> 8) & 255}.${n & 255}`],
        conditions: { ready: true, serving: true, terminating: false },
        nodeName: `node-${n % 100}`,
      };
    }),
  };
}

function rssMb(field = 'VmRSS'): number {
  const status = readFileSync(`/proc/${server.pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
}

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

/** @param goal less is better; missing: there is none */
function report(name: string, value: number, unit: string, goal?: number): void {
  const round = (n: number) => Math.round(n * 100) / 100;
  const peer =
    goal === undefined ? {} : { peer: 'goal', peer_value: goal, ratio: round(value / goal) };
  console.log(
    JSON.stringify({ bench: 'api-server', case: name, value: round(value), unit, ...peer }),
  );
}
