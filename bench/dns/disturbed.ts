/**
 * How long answers take while something large goes on: the DNS server in a process of its own with many services, asked
 * all the time for cluster names, for ever new outside names, and over TCP.
 *
 * ```text
 *   quiet        nothing
 *   first sync   the caches become full, the names are learnt
 *   relist       every service of the API's caches is put anew, changed, without a pause
 *   crash        the responder's thread crashes and is started again with all names
 * ```
 * usage: node disturbed.ts SERVICES UPSTREAM_PORT
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { HandCache } from '#client/hand-cache.ts';
import { sleep } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { ZoneFeed } from '#node/dns/feed.ts';
import { DnsServer } from '#node/dns/server/server.ts';
import { DOMAIN, service } from '#node/dns/testing.ts';
import { Zone } from '#node/dns/zone.ts';
import type { Seen } from './asking.ts';

const [count = '44000', upstreamPort = '0'] = process.argv.slice(2);
const LOOPBACK = ip('127.0.0.1');
const QUIET_MS = 2000;
/** Longer than a client of the C library waits before it asks again. */
const LATE_MS = 3000;
const services = new HandCache<Service>();
const slices = new HandCache<EndpointSlice>();

/** @param generation changes the address */
function putAll(generation: number): void {
  const ports = [{ name: 'http', port: 80, protocol: 'TCP' as const }];
  for (let i = 0; i < Number(count); i++) {
    const clusterIP = `10.${96 + generation}.${i >> 8}.${i & 255}`;
    services.put(service(`default/svc-${i}`, { clusterIP, ports }));
  }
}

putAll(0);
const zone = new Zone(DOMAIN, [LOOPBACK]);
const common = { zone, services, slices, log: silentLogger, onProgrammed: () => undefined };
const feed = new ZoneFeed(common);
await using server = new DnsServer({
  listen: [LOOPBACK],
  port: 0,
  zone: DOMAIN,
  upstreams: [{ address: LOOPBACK, port: Number(upstreamPort) }],
  log: silentLogger,
  snapshot: () => ({ changes: feed.all(), serial: 1, synced: feed.synced }),
  clients: { pods: [{ address: LOOPBACK, pod: 'default/load' }], trusted: [] },
  responderUrl: new URL('./crashing-worker.ts', import.meta.url),
});
while (server.listening.length < 2) await server.nextSocketReport();
const portOf = (transport: string) =>
  Number(new RegExp(`:(\\d+)/${transport}`).exec(server.listening.join(' '))?.[1] ?? Number.NaN);
feed.start((changes) => server.apply(changes, { serial: feed.serial, synced: feed.synced }));
const client = new Worker(new URL('./asking.ts', import.meta.url), {
  workerData: { udpPort: portOf('udp'), tcpPort: portOf('tcp') },
});
const now = () => performance.timeOrigin + performance.now();

/** Lets something happen. @returns what clients saw from its beginning to its end */
async function observe(what: string, happen: () => Promise<void>): Promise<object> {
  const fromMs = now();
  await happen();
  const toMs = now();
  await sleep(LATE_MS);
  client.postMessage([fromMs, toMs]);
  const [seen] = (await once(client, 'message')) as [Seen[]];
  return { what, durationMs: toMs - fromMs, seen };
}

await sleep(QUIET_MS);
const observed = [
  await observe('first sync', async () => {
    services.sync();
    slices.sync();
    while (!feed.synced) await sleep(1);
  }),
  await observe('quiet', () => sleep(QUIET_MS)),
  await observe('relist', async () => putAll(1)),
  await observe('crash', async () => {
    client.postMessage('crash');
    while (server.restarts === 0) await sleep(1);
    await server.nextSocketReport();
  }),
];
console.log(JSON.stringify(observed));
client.postMessage('end');
feed[Symbol.dispose]();
