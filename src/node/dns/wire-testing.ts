/** For tests that ask a server over its sockets. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect } from 'node:net';
import { sleep } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { decodeMessage, type Message } from '#wire/dns/message.ts';
import { DnsServer, type DnsServerOptions } from './server/server.ts';
import { FrameReader, frame } from './tcp-frame.ts';
import { DOMAIN, exampleZone } from './testing.ts';

export const LOOPBACK = ip('127.0.0.1');

export function portOf(listening: readonly string[], transport: 'udp' | 'tcp'): number {
  const socket = listening.find((text) => text.endsWith(`/${transport}`));
  return Number(/:(\d+)\//.exec(socket ?? '')?.[1] ?? 0);
}

/** The only wait of these tests: for what the server reports and does not announce. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (condition()) return;
    await sleep(10);
  }
  assert.fail(`never: ${what}`);
}

export async function askUdp(
  port: number,
  query: Uint8Array,
  address = LOOPBACK,
): Promise<Message> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  try {
    socket.connect(port, address);
    await once(socket, 'connect');
    socket.send(query);
    const [answer] = (await once(socket, 'message', { signal: AbortSignal.timeout(20_000) })) as [
      Buffer,
    ];
    return decodeMessage(answer);
  } finally {
    socket.close();
  }
}

/** Sends all queries in one write and collects as many answers. */
export async function askTcp(
  port: number,
  queries: readonly Uint8Array[],
  address = LOOPBACK,
): Promise<Message[]> {
  const socket = connect(port, address);
  const reader = new FrameReader();
  const answers: Message[] = [];
  socket.end(Buffer.concat(queries.map(frame)));
  for await (const chunk of socket)
    answers.push(...reader.push(chunk as Buffer).map(decodeMessage));
  return answers;
}

/** A server with the example zone. */
export function exampleServer(options: Partial<DnsServerOptions> = {}): DnsServer {
  const zone = exampleZone();
  return new DnsServer({
    listen: [LOOPBACK],
    port: 0,
    zone: DOMAIN,
    upstreams: [],
    log: silentLogger,
    snapshot: () => ({ changes: zone.all(), serial: 7, synced: true }),
    ...options,
  });
}

export async function listening(server: Pick<DnsServer, 'listening'>): Promise<void> {
  await until(() => server.listening.length === 2, 'UDP and TCP are open');
}
