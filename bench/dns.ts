/**
 * Queries per second over UDP with 10,000 services, against the least that Node can do with `node:dgram`: an answerer
 * that sends back the same record whatever is asked.
 *
 * usage: ./dev bench dns      needs dnsperf (Debian: dnsperf); one JSON object a line, see docs/benchmarks.md
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Service } from '#api/core/v1/service.ts';
import { sleep } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { Forwarder } from '#node/dns/forward.ts';
import { DnsServer } from '#node/dns/server/server.ts';
import { Zone } from '#node/dns/zone.ts';
import { name } from '#wire/dns/name.ts';

const ROUNDS = 3;
const ROUND_S = 3;
const SERVICES = 10_000;
const CHANGES = 2000;
const CLIENTS = 16;
const OUTSTANDING = 400;
const LOOPBACK = '127.0.0.1';
const PEER_PORT = 15_354;

if (spawnSync('dnsperf', ['-h']).error !== undefined) {
  console.error('bench dns: dnsperf is not installed (Debian: apt-get install dnsperf)');
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), 'tulle-bench-dns-'));
const zone = new Zone(name('cluster.local'), [ip(LOOPBACK)]);
try {
  for (let i = 0; i < SERVICES; i++) zone.setService(`default/svc-${i}`, service(i), []);
  changeServices();
  await using server = await startServer();
  const peer = await startPeer();
  const port = Number(/:(\d+)\/udp/.exec(server.listening.join(' '))?.[1]);
  await compare('A of a ClusterIP service', (i) => `svc-${i}.default.svc.cluster.local A`, port);
  await compare('AAAA, no data', (i) => `svc-${i}.default.svc.cluster.local AAAA`, port);
  await compare(
    'SRV with additional',
    (i) => `_http._tcp.svc-${i}.default.svc.cluster.local SRV`,
    port,
  );
  await compare('NXDOMAIN', (i) => `none-${i}.default.svc.cluster.local A`, port);
  await peer.terminate();
} finally {
  rmSync(folder, { recursive: true });
}

function service(i: number, third = 96): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `svc-${i}`, namespace: 'default' },
    spec: {
      clusterIP: `10.${third}.${i >> 8}.${i & 255}`,
      ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
    },
  };
}

/** What one changed service costs the main thread. */
function changeServices(): void {
  const startMs = performance.now();
  for (let i = 0; i < CHANGES; i++) zone.setService(`default/svc-${i}`, service(i, 97), []);
  report('one service changed, plan', ((performance.now() - startMs) * 1000) / CHANGES, 'us');
}

async function startServer(): Promise<DnsServer> {
  const server = new DnsServer({
    listen: [ip(LOOPBACK)],
    port: 0,
    zone: zone.domain,
    forwarder: new Forwarder({ upstreams: () => [] }),
    log: silentLogger,
    snapshot: () => ({ changes: zone.all(), serial: 1, synced: true }),
  });
  while (server.listening.length < 2) await sleep(10);
  return server;
}

async function startPeer(): Promise<Worker> {
  const source = `
    const { createSocket } = require('node:dgram');
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 1]);
    const socket = createSocket('udp4');
    socket.on('message', (query, peer) => {
      let end = 12;
      while (query[end] !== 0) end += query[end] + 1;
      const answer = Buffer.concat([query.subarray(0, end + 5), record]);
      answer.writeUInt16BE(0x8580, 2);
      answer.writeUInt16BE(1, 6);
      answer.writeUInt16BE(0, 10);
      socket.send(answer, peer.port, peer.address);
    });
    socket.bind(${PEER_PORT}, '${LOOPBACK}', () => require('node:worker_threads').parentPort.postMessage('ready'));
  `;
  const worker = new Worker(source, { eval: true });
  await new Promise((resolve) => worker.once('message', resolve));
  return worker;
}

async function compare(what: string, line: (i: number) => string, port: number): Promise<void> {
  const file = join(folder, 'queries');
  writeFileSync(file, Array.from({ length: SERVICES }, (_, i) => `${line(i)}\n`).join(''));
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(await queriesPerSecond(file, PEER_PORT));
    ours.push(await queriesPerSecond(file, port));
  }
  report(what, median(ours), 'queries/s', median(theirs));
}

async function queriesPerSecond(file: string, port: number): Promise<number> {
  const options = ['-s', LOOPBACK, '-p', String(port), '-d', file, '-l', String(ROUND_S)];
  const load = ['-c', String(CLIENTS), '-q', String(OUTSTANDING), '-T', '1'];
  const text = await new Promise<string>((resolve, reject) => {
    execFile('dnsperf', [...options, ...load], (error, stdout) =>
      error === null ? resolve(stdout) : reject(error),
    );
  });
  const lost = Number(/Queries lost:\s+(\d+)/.exec(text)?.[1]);
  if (lost > 0) console.error(`bench dns: port ${port} lost ${lost} queries`);
  return Number(/Queries per second:\s+([\d.]+)/.exec(text)?.[1]);
}

function report(what: string, value: number, unit: string, peerValue?: number): void {
  const line = { bench: 'dns', case: what, value: Math.round(value * 100) / 100, unit };
  const compared =
    peerValue === undefined
      ? { peer: null, peer_value: null, ratio: null }
      : {
          peer: 'node:dgram, one fixed answer',
          peer_value: Math.round(peerValue),
          ratio: Math.round((value / peerValue) * 100) / 100,
        };
  console.log(JSON.stringify({ ...line, ...compared }));
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
