/**
 * Traffic between two pods that loses nothing unless the network does: a stream of numbered UDP packets that are echoed,
 * and new TCP connections one after another. Run inside a pod's network namespace:
 *
 *   node traffic.ts server PORT               until SIGTERM
 *   node traffic.ts client HOST PORT          until SIGTERM; prints one line of JSON, a {@link TrafficReport}
 */
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface TrafficReport {
  readonly sent: number;
  /** Numbers whose echo did not come. */
  readonly lost: readonly number[];
  readonly connections: number;
  readonly failed: readonly string[];
  /** TCP segments that this namespace has sent more than once: lost ones, however late the processes came to run. */
  readonly sentAgain: number;
  readonly tcp: Readonly<Record<string, number>>;
}

const TCP_COUNTERS = [
  'RetransSegs',
  'TCPSynRetrans',
  'TCPTimeouts',
  'TCPLossProbes',
  'TCPDSACKRecv',
] as const;

const UDP_INTERVAL_MS = 2;
const TCP_INTERVAL_MS = 10;
/** Longer than a busy machine keeps a process waiting; what was lost meanwhile shows in `sentAgain`. */
const CONNECT_TIMEOUT_MS = 5_000;
/** For the first echo, if there was none yet. */
const DRAIN_MS = 1_000;
/** For the last echoes, which processes of a busy machine are late with. */
const MAX_DRAIN_MS = 10_000;

const [role, ...args] = process.argv.slice(2);
if (role === 'server') serve(Number(args[0]));
if (role === 'client') await ask(args[0] ?? '', Number(args[1]));

function serve(port: number): void {
  for (const type of ['udp4', 'udp6'] as const) {
    const socket = createSocket({ type, ipv6Only: type === 'udp6' });
    socket.on('message', (message, from) => socket.send(message, from.port, from.address));
    socket.bind(port);
  }
  createServer((connection) => {
    connection.on('error', () => connection.destroy()); // the client gave up; it counts that itself
    connection.end('ok');
  }).listen(port, '::');
  process.once('SIGTERM', () => process.exit(0));
}

async function ask(host: string, port: number): Promise<void> {
  let isRunning = true;
  process.once('SIGTERM', () => {
    isRunning = false;
  });
  const countersBefore = tcpCounters();
  const waiting = new Set<number>();
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (message) => waiting.delete(message.readUInt32BE(0)));
  let sent = 0;
  const udp = (async () => {
    while (isRunning) {
      const packet = Buffer.alloc(64);
      packet.writeUInt32BE(sent, 0);
      waiting.add(sent++);
      socket.send(packet, port, host);
      await sleep(UDP_INTERVAL_MS);
    }
  })();
  const failed: string[] = [];
  let connections = 0;
  while (isRunning) {
    const problem = await connectOnce(host, port);
    connections++;
    if (problem !== undefined) failed.push(`connection ${connections}: ${problem}`);
    await sleep(TCP_INTERVAL_MS);
  }
  await udp;
  const end = performance.now();
  while (
    waiting.size > 0 &&
    performance.now() - end < (waiting.size === sent ? DRAIN_MS : MAX_DRAIN_MS)
  )
    await sleep(UDP_INTERVAL_MS);
  const counters = tcpCounters().map((value, i) => value - (countersBefore[i] ?? 0));
  const tcp = Object.fromEntries(TCP_COUNTERS.map((name, i) => [name, counters[i] ?? 0]));
  const sentAgain = counters[0] ?? 0;
  const report: TrafficReport = { sent, lost: [...waiting], connections, failed, sentAgain, tcp };
  console.log(JSON.stringify(report));
  process.exit(0);
}

/** {@link TCP_COUNTERS} of this network namespace, whose /proc/net it is. */
function tcpCounters(): number[] {
  const lines = ['snmp', 'netstat']
    .flatMap((file) => readFileSync(`/proc/net/${file}`, 'utf8').split('\n'))
    .map((line) => line.split(' '));
  return TCP_COUNTERS.map((name) => {
    const head = lines.findIndex((line) => line.includes(name));
    return Number(lines[head + 1]?.[lines[head]?.indexOf(name) ?? -1]);
  });
}

/** @returns what went wrong */
function connectOnce(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const connection = connect({ host, port });
    let said = '';
    const timer = setTimeout(() => {
      connection.destroy();
      resolve(`nothing for ${CONNECT_TIMEOUT_MS} ms`);
    }, CONNECT_TIMEOUT_MS);
    const done = (problem: string | undefined) => {
      clearTimeout(timer);
      resolve(problem);
    };
    connection.on('data', (chunk) => {
      said += chunk.toString();
    });
    connection.on('end', () => done(said === 'ok' ? undefined : `answered "${said}"`));
    connection.on('error', (error) => done(error.message));
  });
}
