/**
 * Our DNS server in a process of its own, for the benchmark. Tells its port on standard output, and measures on request
 * how soon a changed service is answered.
 *
 * usage: node ours.ts SERVICES UPSTREAM_PORT [CHANGES]
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Service } from '#api/core/v1/service.ts';
import { sleep } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { DnsServer } from '#node/dns/server/server.ts';
import { Zone } from '#node/dns/zone.ts';
import { encodeMessage, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';

const [services = '10000', upstreamPort = '0', changes = '0'] = process.argv.slice(2);
const LOOPBACK = ip('127.0.0.1');
const zone = new Zone(name('cluster.local.'), [LOOPBACK]);
for (let i = 0; i < Number(services); i++) zone.setService(`default/svc-${i}`, service(i, 0), []);
await using server = new DnsServer({
  listen: [LOOPBACK],
  port: 0,
  zone: zone.domain,
  upstreams: [{ address: '127.0.0.1', port: Number(upstreamPort) }],
  log: silentLogger,
  snapshot: () => ({ changes: zone.all(), serial: 1, synced: true }),
  // The load comes from the loopback address: as a pod of this namespace.
  clients: { pods: [{ address: LOOPBACK, pod: 'default/load' }], trusted: [] },
});
while (server.listening.length < 2) await sleep(10);
const port = Number(/:(\d+)\/udp/.exec(server.listening.join(' '))?.[1]);
const latencies = Number(changes) > 0 ? await measureChanges() : [];
console.log(JSON.stringify({ port, latencies, rssKb: process.memoryUsage.rss() / 1024 }));
await once(process, 'SIGTERM');

/** @param generation changes the address */
function service(i: number, generation: number): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `svc-${i}`, namespace: 'default' },
    spec: {
      clusterIP: `10.${96 + generation}.${i >> 8}.${i & 255}`,
      ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
    },
  };
}

/** From the API's event to the first answer that has it, asked for without a pause. @returns milliseconds */
async function measureChanges(): Promise<number[]> {
  const socket = createSocket('udp4');
  socket.connect(port, LOOPBACK);
  await once(socket, 'connect');
  const took: number[] = [];
  for (let n = 0; n < Number(changes); n++) {
    const i = (n * 7919) % Number(services);
    const query = encodeMessage(
      makeQuery(n & 0xffff, { name: name(`svc-${i}.default.svc.cluster.local`), type: 1 }),
    );
    const startMs = performance.now();
    server.apply(zone.setService(`default/svc-${i}`, service(i, 1), []), {
      serial: n + 2,
      synced: true,
    });
    for (;;) {
      socket.send(query);
      const [answer] = (await once(socket, 'message')) as [Buffer];
      // The address is what the answer ends with; its second octet is the generation's.
      if (answer[answer.length - 3] === 97) break;
    }
    took.push(performance.now() - startMs);
  }
  socket.close();
  return took;
}
