/**
 * DNS over TLS (RFC 7858): one connection per server, kept while it is used, with many questions on it at once. A
 * handshake costs more than a hundred questions.
 */
import { randomInt } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import { FrameReader, frame } from './tcp-frame.ts';
import {
  type AskOptions,
  formatUpstream,
  isAnswerTo,
  type Upstream,
  UpstreamError,
} from './upstream.ts';

/** A connection on which nothing is asked is closed; servers do it earlier or later too. */
const IDLE_MS = 10_000;
/** Ids are 16 bits; far fewer are used, so that a free one is found at once. */
const MAX_PIPELINED = 4096;

interface Pending {
  readonly query: Uint8Array;
  readonly options: AskOptions;
  readonly done: (answer: Uint8Array) => void;
  readonly fail: (reason: UpstreamError['reason'], text: string, cause?: unknown) => void;
}

export class TlsPool implements Disposable {
  readonly #connections = new Map<string, TlsConnection>();

  /**
   * Asks over TLS; the server's certificate must be for its configured name, or without one for its address.
   * @throws UpstreamError
   */
  ask(upstream: Upstream, query: Uint8Array, options: AskOptions): Promise<Uint8Array> {
    const key = `${formatUpstream(upstream)}#${upstream.tls?.serverName ?? ''}`;
    let connection = this.#connections.get(key);
    if (connection === undefined || connection.closed) {
      const opened = new TlsConnection(upstream, () => {
        if (this.#connections.get(key) === opened) this.#connections.delete(key);
      });
      connection = opened;
      this.#connections.set(key, opened);
    }
    return connection.ask(query, options);
  }

  [Symbol.dispose](): void {
    for (const connection of this.#connections.values()) connection[Symbol.dispose]();
    this.#connections.clear();
  }
}

class TlsConnection implements Disposable {
  readonly #upstream: Upstream;
  readonly #socket: TLSSocket;
  readonly #pending = new Map<number, Pending>();
  closed = false;

  constructor(upstream: Upstream, onClose: () => void) {
    this.#upstream = upstream;
    const { serverName, ca } = upstream.tls ?? {};
    const reader = new FrameReader();
    const socket = connect({
      host: upstream.address,
      port: upstream.port,
      ALPNProtocols: ['dot'],
      minVersion: 'TLSv1.2',
      // Without a name the certificate is checked against the address.
      ...(serverName === undefined ? {} : { servername: serverName }),
      ...(ca === undefined ? {} : { ca }),
    });
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setTimeout(IDLE_MS, () => {
      if (this.#pending.size === 0) socket.destroy();
    });
    let cause: Error | undefined;
    socket.on('error', (error) => {
      cause = error;
    });
    socket.on('close', () => {
      this.closed = true;
      onClose();
      const text = cause?.message ?? 'it closed the connection without an answer';
      for (const { fail } of [...this.#pending.values()]) fail('closed', text, cause);
    });
    socket.on('data', (chunk: Buffer) => {
      for (const answer of reader.push(chunk)) this.#onAnswer(answer);
    });
  }

  ask(query: Uint8Array, options: AskOptions): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const id = this.#freeId();
      const own = query.slice();
      own[0] = id >> 8;
      own[1] = id;
      const end = () => {
        clearTimeout(timer);
        options.signal?.removeEventListener('abort', onAbort);
        this.#pending.delete(id);
      };
      const fail: Pending['fail'] = (reason, text, cause) => {
        end();
        reject(new UpstreamError(this.#upstream, reason, { text, cause }));
      };
      const done: Pending['done'] = (answer) => {
        end();
        resolve(answer);
      };
      const onAbort = () => fail('closed', 'the forwarder is being stopped');
      const timer = setTimeout(() => {
        fail('timeout', `no answer over TLS within ${options.timeoutMs} ms`);
        // A connection that swallows questions is not asked again.
        this.closed = true;
        if (this.#pending.size === 0) this.#socket.destroy();
      }, options.timeoutMs);
      options.signal?.addEventListener('abort', onAbort, { once: true });
      if (this.#pending.size >= MAX_PIPELINED) {
        fail('unreachable', `${MAX_PIPELINED} questions wait on its connection`);
        return;
      }
      this.#pending.set(id, { query: own, options, done, fail });
      this.#socket.write(frame(own));
    });
  }

  [Symbol.dispose](): void {
    this.closed = true;
    this.#socket.destroy();
  }

  #onAnswer(answer: Uint8Array): void {
    const pending = this.#pending.get(((answer[0] ?? 0) << 8) | (answer[1] ?? 0));
    // The answer to a question that nobody waits for any more.
    if (pending === undefined) return;
    if (isAnswerTo(pending.query, answer, pending.options)) pending.done(answer);
    else pending.fail('bogus', 'its answer has another question');
  }

  #freeId(): number {
    for (;;) {
      const id = randomInt(0x10000);
      if (!this.#pending.has(id)) return id;
    }
  }
}
