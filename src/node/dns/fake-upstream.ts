/** A name server for tests: answers over UDP and TCP on one loopback port as the test says. */
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { ip } from '#lib/ip.ts';
import { CLASS_IN, TYPE_A } from '#wire/dns/constants.ts';
import { decodeMessage, encodeMessage, type Message } from '#wire/dns/message.ts';
import { LOOP_ZONE } from './forward.ts';
import { FrameReader, frame } from './tcp-frame.ts';
import type { Upstream } from './upstream.ts';

/** @returns the messages to send, in order; none is silence */
export type Behaviour = (
  query: Message,
  transport: 'udp' | 'tcp',
) => readonly (Message | Uint8Array)[];

export interface FakeUpstream extends AsyncDisposable {
  readonly upstream: Upstream;
  readonly asked: { readonly query: Message; readonly transport: 'udp' | 'tcp' }[];
  behaviour: Behaviour;
  /** Sees the forwarder's probes for loops. */
  onProbe?: (query: Message) => readonly Uint8Array[];
}

export async function startFakeUpstream(behaviour: Behaviour): Promise<FakeUpstream> {
  const tcp = createServer((socket) => serveTcp(socket));
  tcp.listen(0, '127.0.0.1');
  await once(tcp, 'listening');
  const address = tcp.address();
  if (typeof address !== 'object' || address === null) throw new Error('the listener has no port');
  const udp = createSocket('udp4');
  udp.bind(address.port, '127.0.0.1');
  await once(udp, 'listening');
  const connections = new Set<Socket>();
  const fake: FakeUpstream = {
    upstream: { address: '127.0.0.1', port: address.port },
    asked: [],
    behaviour,
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection.destroy();
      tcp.close();
      udp.close();
    },
  };
  const answersTo = (bytes: Uint8Array, transport: 'udp' | 'tcp') => {
    const query = decodeMessage(bytes);
    // Not what tests count.
    if (query.questions[0]?.name.endsWith(`.${LOOP_ZONE}`)) return fake.onProbe?.(query) ?? [];
    fake.asked.push({ query, transport });
    return fake
      .behaviour(query, transport)
      .map((answer) => (answer instanceof Uint8Array ? answer : encodeMessage(answer)));
  };
  udp.on('message', (bytes: Buffer, peer: RemoteInfo) => {
    for (const answer of answersTo(bytes, 'udp')) udp.send(answer, peer.port, peer.address);
  });
  function serveTcp(socket: Socket): void {
    const reader = new FrameReader();
    connections.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      for (const bytes of reader.push(chunk))
        for (const answer of answersTo(bytes, 'tcp')) socket.write(frame(answer));
    });
  }
  return fake;
}

/** A response to the query with these addresses. */
export function answerWith(
  query: Message,
  addresses: readonly string[],
  changes: Partial<Message> & { ttlS?: number } = {},
): Message {
  const { ttlS = 300, ...rest } = changes;
  const [question] = query.questions;
  if (question === undefined) throw new Error('the query has no question');
  return {
    ...query,
    response: true,
    recursionAvailable: true,
    answers: addresses.map((address) => ({
      name: question.name,
      type: TYPE_A,
      class: CLASS_IN,
      ttlS,
      data: { kind: 'A', address: ip(address) },
    })),
    ...rest,
  };
}
