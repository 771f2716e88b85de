/** DNS over TCP (RFC 7766): many queries on one connection, answered in the order in which the answers are ready. */
import { createServer, type Server, type Socket } from 'node:net';
import { explainError } from '#lib/errors.ts';
import { type Ip, parseIp } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { FrameReader, frame } from '../tcp-frame.ts';

/** Per listener. A node has a few hundred pods, and a pod needs TCP rarely; beyond this new connections are closed. */
const MAX_CONNECTIONS = 512;
/** Per connection; with more, reading waits. */
const MAX_UNANSWERED = 64;
/** RFC 7766 section 6.2.3: "on the order of a few seconds". */
const IDLE_MS = 10_000;
/** A client that does not read its answers is cut off here. */
const MAX_UNSENT_BYTES = 1024 * 1024;
/** How soon a listener is tried again whose address is not on this machine yet. */
const RETRY_MS = 1000;

export interface TcpListenerOptions {
  readonly address: Ip;
  readonly port: number;
  readonly log: Logger;
  /** @returns the response, or `undefined` for none */
  readonly answer: (query: Uint8Array, peer: Ip) => Promise<Uint8Array | undefined>;
  /** Called when {@link TcpListener.failure} has changed. */
  readonly onState?: () => void;
  readonly idleMs?: number;
  readonly maxConnections?: number;
}

export class TcpListener implements AsyncDisposable {
  readonly #options: TcpListenerOptions;
  readonly #connections = new Set<Socket>();
  #server: Server | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  /** Why the socket is not open; `undefined` while it is. */
  failure: string | undefined = 'it is being opened';

  constructor(options: TcpListenerOptions) {
    this.#options = options;
    this.#listen();
  }

  /** The port, once the socket is open. */
  get port(): number | undefined {
    const address = this.#server?.address();
    return typeof address === 'object' && address !== null ? address.port : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const server = this.#server;
    for (const connection of this.#connections) connection.destroy();
    if (server?.listening)
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
  }

  #listen(): void {
    const { address, port, log } = this.#options;
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#serve(socket));
    server.maxConnections = this.#options.maxConnections ?? MAX_CONNECTIONS;
    this.#server = server;
    server.on('error', (error) => {
      if (this.failure !== error.message)
        log.warn({ address, port, reason: error.message }, 'DNS cannot listen on TCP, will retry');
      this.failure = error.message;
      this.#options.onState?.();
      if (this.#closed) return;
      server.close();
      this.#retry = setTimeout(() => this.#listen(), RETRY_MS);
    });
    server.on('listening', () => {
      this.failure = undefined;
      this.#options.onState?.();
      // Stopped before it could listen.
      if (this.#closed) server.close();
    });
    // Shared, so that a new agent can start before the old one ends.
    server.listen({ host: address, port, reusePort: true });
  }

  #serve(socket: Socket): void {
    const reader = new FrameReader();
    // A connection that is gone already has none; nothing will come of it.
    const peer = parseIp(socket.remoteAddress ?? '') ?? this.#options.address;
    let unanswered = 0;
    let hasEnded = false;
    this.#connections.add(socket);
    socket.setNoDelay(true);
    socket.setTimeout(this.#options.idleMs ?? IDLE_MS, () => socket.destroy());
    socket.on('close', () => this.#connections.delete(socket));
    // A client that resets its connection is no event; 'close' follows.
    socket.on('error', () => socket.destroy());
    const finish = (answer: Uint8Array | undefined) => {
      unanswered--;
      if (socket.destroyed) return;
      // Who sends what is no query is no DNS client; who does not read its answers is none for long.
      if (answer === undefined || socket.writableLength > MAX_UNSENT_BYTES) socket.destroy();
      else socket.write(frame(answer));
      if (hasEnded && unanswered === 0) socket.end();
      if (unanswered < MAX_UNANSWERED && socket.isPaused()) socket.resume();
    };
    socket.on('data', (chunk: Buffer) => {
      for (const query of reader.push(chunk)) {
        unanswered++;
        this.#options.answer(query, peer).then(finish, (error: unknown) => {
          const reason = explainError(error);
          this.#options.log.error({ reason }, 'answering a DNS query over TCP failed');
          finish(undefined);
        });
      }
      if (unanswered >= MAX_UNANSWERED) socket.pause();
    });
    socket.on('end', () => {
      hasEnded = true;
      if (unanswered === 0) socket.end();
    });
  }
}
