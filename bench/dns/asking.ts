/**
 * A client of the benchmark, on a thread of its own: asks all the time in three ways, and tells how long each answer took.
 * Data: the port of UDP and of TCP. A message `[from, to]` asks for what was sent between two times; `crash` sends what
 * makes the server's thread crash.
 */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { FrameReader, frame } from '#node/dns/tcp-frame.ts';
import { encodeMessage, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';

export type Way = 'cluster name' | 'forwarded name' | 'over TCP';
/** What was asked in one way in some time. `lost` got no answer. */
export interface Seen {
  readonly way: Way;
  readonly tookMs: readonly number[];
  readonly lost: number;
}

const INTERVAL_MS = 2;
const IDS = 0x10000;
const SOCKETS = 32;
const WAYS: readonly Way[] = ['cluster name', 'forwarded name', 'over TCP'];
const { udpPort, tcpPort } = workerData as { udpPort: number; tcpPort: number };
/** Threads have origins of their own. */
const now = () => performance.timeOrigin + performance.now();
const asked = new Map<number, { way: Way; atMs: number; tookMs: number | undefined }>();
let next = 0;

function answered(message: Uint8Array): void {
  const id = ((message[0] ?? 0) << 8) | (message[1] ?? 0);
  // The last one with this id.
  const number = next - 1 - ((next - 1 - id) & (IDS - 1));
  const one = asked.get(number);
  if (one !== undefined) one.tookMs ??= now() - one.atMs;
}

/** Several, because after a pause many answers come at once. */
const sockets = Array.from({ length: SOCKETS }, () => createSocket('udp4'));
for (const socket of sockets) socket.on('message', answered);
const tcp = connect({ port: tcpPort, host: '127.0.0.1', noDelay: true });
const reader = new FrameReader();
tcp.on('data', (chunk: Buffer) => {
  for (const message of reader.push(chunk)) answered(message);
});
const cluster = () => name(`svc-${next % 1000}.default.svc.cluster.local`);
const timer = setInterval(() => {
  for (const way of WAYS) {
    const owner = way === 'forwarded name' ? name(`n${next}.example.com`) : cluster();
    const query = encodeMessage(makeQuery(next & (IDS - 1), { name: owner, type: 1 }));
    asked.set(next++, { way, atMs: now(), tookMs: undefined });
    if (way === 'over TCP') tcp.write(frame(query));
    else sockets[next % SOCKETS]?.send(query, udpPort, '127.0.0.1');
  }
}, INTERVAL_MS);
parentPort?.on('message', (message: 'crash' | 'end' | readonly [number, number]) => {
  if (message === 'crash') sockets[0]?.send(new Uint8Array(1), udpPort, '127.0.0.1');
  else if (message === 'end') {
    clearInterval(timer);
    for (const socket of sockets) socket.close();
    tcp.destroy();
    parentPort?.close();
  } else
    parentPort?.postMessage(
      WAYS.map((way): Seen => {
        const [from, to] = message;
        const all = [...asked.values()].filter(
          (one) => one.way === way && one.atMs >= from && one.atMs <= to,
        );
        const tookMs = all.flatMap((one) => one.tookMs ?? []);
        return { way, tookMs, lost: all.length - tookMs.length };
      }),
    );
});
