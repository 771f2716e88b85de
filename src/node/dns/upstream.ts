/** One question to one name server, over UDP or TCP. */
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { FLAG_QR, HEADER_BYTES, OPCODE_MASK } from '#wire/dns/constants.ts';
import { skipName } from '#wire/dns/name.ts';
import { FrameReader, frame } from './tcp-frame.ts';

/** Where queries outside the cluster's zones go. */
export interface Upstream {
  /** An IP address; a link-local one with its zone (`fe80::1%eth0`). */
  readonly address: string;
  readonly port: number;
  /** DNS over TLS (RFC 7858). Without a server name the certificate must name the address. */
  readonly tls?: { readonly serverName?: string; readonly ca?: string };
}

/** Why an upstream gave no usable answer. */
export class UpstreamError extends Error {
  readonly code = 'UPSTREAM' as const;
  readonly reason: 'timeout' | 'unreachable' | 'bogus' | 'closed';
  constructor(
    upstream: Upstream,
    reason: 'timeout' | 'unreachable' | 'bogus' | 'closed',
    options: { text: string; cause?: unknown },
  ) {
    super(`Cannot ask name server ${formatUpstream(upstream)}: ${options.text}`, {
      cause: options.cause,
    });
    this.name = 'UpstreamError';
    this.reason = reason;
  }
}

export interface AskOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** The answer must repeat the letters' case: it is a secret of ours. */
  readonly exactCase?: boolean;
}

/** Answers with another id or question: somebody is guessing. After so many the question is asked over TCP. */
const MAX_BOGUS_ANSWERS = 16;

export function formatUpstream(upstream: Upstream): string {
  const place = isIPv6(upstream.address)
    ? `[${upstream.address}]:${upstream.port}`
    : `${upstream.address}:${upstream.port}`;
  return upstream.tls === undefined ? place : `tls://${place}`;
}

/**
 * Asks over UDP, from a port of its own, and takes only an answer from the server's address to this id and question.
 * @param query a whole message with one question
 * @returns the answer, which may be truncated
 * @throws UpstreamError
 */
export async function askUdp(
  upstream: Upstream,
  query: Uint8Array,
  options: AskOptions,
): Promise<Uint8Array> {
  const socket = createSocket(isIPv6(upstream.address) ? 'udp6' : 'udp4');
  const ending = { ...options, protocol: 'UDP', close: () => socket.close() } as const;
  return exchange(upstream, ending, ({ answered, fail, isOver }) => {
    let bogus = 0;
    socket.on('error', (cause) => fail('unreachable', cause.message, cause));
    socket.on('message', (answer) => {
      if (isAnswerTo(query, answer, options)) answered(answer);
      else if (++bogus >= MAX_BOGUS_ANSWERS)
        fail('bogus', `${bogus} answers with another id or question: somebody may be forging them`);
    });
    // Connected, the socket takes datagrams only from the server, and the kernel picks a random port.
    socket.connect(upstream.port, upstream.address, () => {
      if (!isOver()) socket.send(query);
    });
  });
}

/**
 * Asks over TCP, on a connection of its own.
 * @throws UpstreamError
 */
export async function askTcp(
  upstream: Upstream,
  query: Uint8Array,
  options: AskOptions,
): Promise<Uint8Array> {
  const socket = connect({ host: upstream.address, port: upstream.port, noDelay: true });
  const ending = { ...options, protocol: 'TCP', close: () => socket.destroy() } as const;
  return exchange(upstream, ending, ({ answered, fail }) => {
    const reader = new FrameReader();
    socket.on('error', (cause) => fail('unreachable', cause.message, cause));
    socket.on('end', () => fail('closed', 'it closed the connection without an answer'));
    socket.on('data', (chunk: Buffer) => {
      const [answer] = reader.push(chunk);
      if (answer === undefined) return;
      if (isAnswerTo(query, answer, options)) answered(answer);
      else fail('bogus', 'its answer has another id or question');
    });
    socket.on('connect', () => socket.write(frame(query)));
  });
}

interface Exchange {
  readonly answered: (answer: Uint8Array) => void;
  readonly fail: (reason: UpstreamError['reason'], text: string, cause?: unknown) => void;
  readonly isOver: () => boolean;
}

interface Ending extends AskOptions {
  readonly protocol: 'UDP' | 'TCP';
  /** Closes the socket; called once. */
  readonly close: () => void;
}

/** The answer to what `ask` sends, unless a failure, the timeout or the end of the forwarder comes first. */
function exchange(
  upstream: Upstream,
  { protocol, timeoutMs, signal, close }: Ending,
  ask: (exchange: Exchange) => void,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let isOver = false;
    const end = (finish: () => void) => {
      // What comes late, such as an ICMP error while the socket closes, is of no interest.
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      close();
      finish();
    };
    const fail: Exchange['fail'] = (reason, text, cause) =>
      end(() => reject(new UpstreamError(upstream, reason, { text, cause })));
    const onAbort = () => fail('closed', 'the forwarder is being stopped');
    const timer = setTimeout(
      () => fail('timeout', `no answer over ${protocol} within ${timeoutMs} ms`),
      timeoutMs,
    );
    signal?.addEventListener('abort', onAbort, { once: true });
    const answered = (answer: Uint8Array) => end(() => resolve(answer));
    ask({ answered, fail, isOver: () => isOver });
  });
}

/** Whether a message is a response to exactly this query (RFC 5452 section 4.2). */
export function isAnswerTo(
  query: Uint8Array,
  answer: Uint8Array,
  options: { exactCase?: boolean } = {},
): boolean {
  const questionEnd = skipName(query, HEADER_BYTES) + 4;
  if (answer.length < questionEnd) return false;
  const flags = u16(answer, 2);
  if (u16(answer, 0) !== u16(query, 0) || (flags & FLAG_QR) === 0) return false;
  if ((flags & OPCODE_MASK) !== (u16(query, 2) & OPCODE_MASK) || u16(answer, 4) !== 1) return false;
  for (let i = HEADER_BYTES; i < questionEnd; i++) {
    // Type and class are compared with the name: a changed letter case in them would be another small number.
    const isName = i < questionEnd - 4;
    const a = answer[i] ?? 0;
    const q = query[i] ?? 0;
    if (a !== q && !(isName && !options.exactCase && lower(a) === lower(q))) return false;
  }
  return true;
}

function lower(octet: number): number {
  return octet >= 0x41 && octet <= 0x5a ? octet + 0x20 : octet;
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}
