/**
 * The connection to one member of an etcd: gRPC over HTTP/2, all requests on one connection.
 *
 *     request    headers · frame (message) · end          response   headers · frames · trailers (grpc-status)
 *
 * What the caller must know of a failure is whether the request can have reached the member. It cannot if there was no
 * connection, or if the member says that it refused the stream (RFC 9113 section 8.7).
 */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import { explainError } from '#lib/errors.ts';
import { createFrameReader, encodeFrame, FrameTooLargeError } from '#wire/grpc/frame.ts';
import { readGrpcEnd } from '#wire/grpc/status.ts';
import type { Pieces } from '#wire/protobuf/writer.ts';
import { EtcdAnswerTooLargeError, EtcdConnectionError, EtcdError } from './errors.ts';

/** A member that does not take a connection in this time is passed over: in a cluster's network it takes a millisecond. */
const CONNECT_TIMEOUT_MS = 2_000;
/** A connection that is given up serves what is under way on it for so long: longer than any request waits. */
const RETIRED_MS = 15_000;
/** An answer, or one message of a watch. Below the longest buffer there can be. */
export const MAX_ANSWER_BYTES = 128 * 1024 * 1024;
/** What a member may send before it hears that it was taken: a page of a list, or what a busy second brings. */
const WINDOW_BYTES = 4 * 1024 * 1024;
/** Of requests that are being sent; above the 1.5 MB that etcd takes of each, times the writes that are under way. */
const MAX_SESSION_MEMORY_MB = 512;
const TCP_KEEP_ALIVE_MS = 5_000;

const { NGHTTP2_CANCEL, NGHTTP2_REFUSED_STREAM } = constants;

export interface LinkTls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface Exchange {
  readonly method: string;
  readonly message: Pieces;
  readonly token: string | undefined;
  /** Until the answer is complete; missing: as long as it takes, once there is a connection. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Called for each message of the answer. What it throws ends the exchange. */
  readonly onMessage: (message: Uint8Array) => void;
}

export class EtcdLink implements Disposable {
  readonly #endpoint: URL;
  readonly #tls: LinkTls;
  /** For new requests: settled when it is connected. */
  #current: { readonly session: ClientHttp2Session; readonly connected: Promise<void> } | undefined;
  /** All that are open, those that were given up too. */
  readonly #open = new Set<ClientHttp2Session>();

  constructor(endpoint: URL, tls: LinkTls) {
    this.#endpoint = endpoint;
    this.#tls = tls;
  }

  /** Ends everything that is under way. */
  [Symbol.dispose](): void {
    for (const session of this.#open) session.destroy();
  }

  /**
   * Sends one message and resolves when the answer has ended well.
   * @param exchange with a `timeoutMs` the request ends with its message, without one it stays open
   * @throws EtcdError, EtcdConnectionError, EtcdAnswerTooLargeError; the signal's reason; what `onMessage` throws
   */
  async exchange(exchange: Exchange): Promise<void> {
    const { signal, timeoutMs } = exchange;
    signal?.throwIfAborted();
    this.#current ??= this.#connect();
    const { session, connected } = this.#current;
    await connected;
    signal?.throwIfAborted();
    const stream = this.#request(session, exchange);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const fail = (error: unknown) => {
      reject(error);
      stream.close(NGHTTP2_CANCEL);
    };
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            // Perhaps nothing gets through any more: others need not wait to find that out.
            this.#retire(session);
            fail(this.#broken(`no answer within ${timeoutMs} ms`));
          }, timeoutMs);
    const onAbort = () => fail(signal?.reason);
    signal?.addEventListener('abort', onAbort);
    this.#listen(stream, { ...exchange, resolve, fail });
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #request(
    session: ClientHttp2Session,
    { method, message, token, timeoutMs }: Exchange,
  ): ClientHttp2Stream {
    try {
      const stream = session.request({
        ':method': 'POST',
        ':path': method,
        'content-type': 'application/grpc',
        te: 'trailers',
        ...(token === undefined ? {} : { token }),
      });
      const frame = encodeFrame(message);
      if (timeoutMs === undefined) stream.write(frame);
      else stream.end(frame);
      return stream;
    } catch (cause) {
      // The connection has ended just now.
      this.#retire(session);
      throw this.#broken(explainError(cause), { wasSent: false, cause });
    }
  }

  #listen(
    stream: ClientHttp2Stream,
    end: Pick<Exchange, 'onMessage'> & { resolve: () => void; fail: (error: unknown) => void },
  ): void {
    const { onMessage, resolve, fail } = end;
    const endpoint = this.#endpoint.origin;
    const frames = createFrameReader(MAX_ANSWER_BYTES);
    let headers: IncomingHttpHeaders | undefined;
    let trailers: IncomingHttpHeaders | undefined;
    let isEnded = false;
    stream.on('response', (found) => {
      headers = found;
    });
    stream.on('trailers', (found) => {
      trailers = found;
    });
    stream.on('data', (chunk: Buffer) => {
      try {
        for (const message of frames.push(chunk)) onMessage(message);
      } catch (error) {
        fail(error instanceof FrameTooLargeError ? this.#tooLarge(error) : error);
      }
    });
    stream.on('end', () => {
      const status = readGrpcEnd(headers, trailers);
      isEnded = status !== 'none';
      if (status === 'ok') resolve();
      // Without one the answer breaks off; how, is known when the stream is closed.
      else if (status !== 'none') fail(new EtcdError(status.message, { ...status, endpoint }));
    });
    const onBroken = (cause?: unknown) =>
      fail(
        this.#broken(cause === undefined ? 'the answer breaks off' : explainError(cause), {
          wasSent: stream.rstCode !== NGHTTP2_REFUSED_STREAM,
          cause,
        }),
      );
    stream.on('error', onBroken);
    stream.on('close', () => {
      if (!isEnded) onBroken();
    });
  }

  #connect(): { session: ClientHttp2Session; connected: Promise<void> } {
    const { promise: connected, resolve, reject } = Promise.withResolvers<void>();
    const session = connect(this.#endpoint, {
      ...this.#tls,
      maxSessionMemory: MAX_SESSION_MEMORY_MB,
      settings: { enablePush: false, initialWindowSize: WINDOW_BYTES },
    });
    this.#open.add(session);
    const fail = (cause: unknown) => {
      reject(this.#broken(explainError(cause), { wasSent: false, cause }));
      if (this.#current?.session === session) this.#current = undefined;
    };
    const timer = setTimeout(
      () => session.destroy(new Error(`no connection within ${CONNECT_TIMEOUT_MS} ms`)),
      CONNECT_TIMEOUT_MS,
    );
    session.once('connect', (_session, socket) => {
      clearTimeout(timer);
      session.setLocalWindowSize(WINDOW_BYTES);
      socket.setNoDelay(true);
      socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
      resolve();
    });
    session.on('error', fail);
    // No request is begun on it any more; those that it has ended hear of it by themselves.
    session.once('goaway', () => this.#retire(session));
    session.once('close', () => {
      clearTimeout(timer);
      this.#open.delete(session);
      fail(new Error('the connection has ended'));
    });
    return { session, connected };
  }

  /** The next request gets a new connection; those that are under way on this one may come to their end. */
  #retire(session: ClientHttp2Session): void {
    if (this.#current?.session === session) this.#current = undefined;
    if (session.closed || session.destroyed) return;
    session.close();
    setTimeout(() => session.destroy(), RETIRED_MS).unref();
  }

  #broken(
    message: string,
    details: { wasSent: boolean; cause?: unknown } = { wasSent: true },
  ): EtcdConnectionError {
    return new EtcdConnectionError(this.#endpoint.origin, message, details);
  }

  #tooLarge(cause: FrameTooLargeError): EtcdAnswerTooLargeError {
    return new EtcdAnswerTooLargeError(`etcd at ${this.#endpoint.origin}: ${cause.message}`);
  }
}
