/**
 * How long forwarded names wait while the agent learns a large cluster: the DNS server in a process of its own, asked for
 * ever new outside names while the caches of services become full.
 *
 * usage: node first-sync.ts SERVICES UPSTREAM_PORT [PIECE_MS]
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { sleep } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { ZoneFeed } from '#node/dns/feed.ts';
import { DnsServer } from '#node/dns/server/server.ts';
import { DOMAIN, HandCache, service } from '#node/dns/testing.ts';
import { Zone } from '#node/dns/zone.ts';

const [count = '44000', upstreamPort = '0', pieceMs = '2'] = process.argv.slice(2);
const LOOPBACK = ip('127.0.0.1');
const SETTLE_MS = 1000;
const services = new HandCache<Service>();
const slices = new HandCache<EndpointSlice>();
const ports = [{ name: 'http', port: 80, protocol: 'TCP' }] as const;
for (let i = 0; i < Number(count); i++) {
  const clusterIP = `10.96.${i >> 8}.${i & 255}`;
  services.put(service(`default/svc-${i}`, { clusterIP, ports: [...ports] }));
}
const zone = new Zone(DOMAIN, [LOOPBACK]);
const common = { zone, services, slices, log: silentLogger, onProgrammed: () => undefined };
const feed = new ZoneFeed({ ...common, pieceMs: Number(pieceMs) });
await using server = new DnsServer({
  listen: [LOOPBACK],
  port: 0,
  zone: DOMAIN,
  upstreams: [{ address: LOOPBACK, port: Number(upstreamPort) }],
  log: silentLogger,
  snapshot: () => ({ changes: feed.all(), serial: 1, synced: feed.synced }),
  clients: { pods: [{ address: LOOPBACK, pod: 'default/load' }], trusted: [] },
});
while (server.listening.length < 2) await sleep(10);
const port = Number(/:(\d+)\/udp/.exec(server.listening.join(' '))?.[1]);
feed.start((changes) => server.apply(changes, { serial: feed.serial, synced: feed.synced }));
const client = new Worker(
  `const { createSocket } = require('node:dgram');
   const { parentPort, workerData } = require('node:worker_threads');
   const socket = createSocket('udp4');
   const sent = [], took = [];
   // Threads have origins of their own.
   const now = () => performance.timeOrigin + performance.now();
   socket.on('message', (answer) => {
     const id = answer.readUInt16BE(0);
     took.push([sent[id], now() - sent[id]]);
   });
   const timer = setInterval(() => {
     const id = sent.length;
     const label = Buffer.from('n' + id);
     const name = Buffer.concat([Buffer.from([label.length]), label, Buffer.from('\\x07example\\x03com\\0\\0\\x01\\0\\x01', 'latin1')]);
     const query = Buffer.concat([Buffer.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), name]);
     sent.push(now());
     socket.send(query, workerData, '127.0.0.1');
   }, 2);
   parentPort.on('message', ([from, to]) => {
     clearInterval(timer);
     setTimeout(() => {
       socket.close();
       parentPort.postMessage(took.filter(([at]) => at >= from && at <= to).map((it) => it[1]));
     }, 2000);
     setTimeout(() => parentPort.close(), 2100);
   });`,
  { eval: true, workerData: port },
);
await sleep(SETTLE_MS);
const now = () => performance.timeOrigin + performance.now();
const fromMs = now();
services.sync();
slices.sync();
while (!feed.synced) await sleep(1);
const fillMs = now() - fromMs;
client.postMessage([fromMs, fromMs + fillMs]);
const [latencies] = (await once(client, 'message')) as [number[]];
console.log(JSON.stringify({ fillMs, latencies }));
feed[Symbol.dispose]();
await client.terminate();
