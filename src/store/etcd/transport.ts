/**
 * JSON requests to the members of an etcd cluster, over HTTP/1.1.
 *
 * Any member answers for the cluster, so one is used until it fails and then the next. What may have reached a member is
 * sent again only if it is a read: a write whose answer was lost may have happened, and its caller must know.
 */
import type * as http from 'node:http';
import * as https from 'node:https';
import { StringDecoder } from 'node:string_decoder';
import { Backoff } from '#lib/backoff.ts';
import { sleep } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { nodeHttp } from '#lib/node-http.ts';

export interface EtcdConnection {
  /** `http://` or `https://` URLs of members' client ports. */
  readonly endpoints: readonly string[];
  /** PEM. `ca` replaces the system's authorities; `cert` and `key` are for members that ask for a certificate. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  /** For a cluster with authentication enabled. */
  readonly user?: { readonly name: string; readonly password: string };
}

/** What etcd answered instead of a result. `grpcCode`: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
export class EtcdError extends Error {
  readonly code = 'ETCD' as const;
  readonly grpcCode: number;
  readonly endpoint: string;
  constructor(message: string, details: { grpcCode: number; endpoint: string }) {
    super(`etcd at ${details.endpoint}: ${message}`);
    this.name = 'EtcdError';
    this.grpcCode = details.grpcCode;
    this.endpoint = details.endpoint;
  }
}

/** No member answered, or the connection broke before the answer was complete. */
export class EtcdConnectionError extends Error {
  readonly code = 'ETCD_CONNECTION' as const;
  /** False if the request cannot have reached a member. */
  readonly wasSent: boolean;
  constructor(
    endpoint: string,
    message: string,
    details: { wasSent: boolean; cause?: unknown } = { wasSent: true },
  ) {
    super(`etcd at ${endpoint}: ${message}`, { cause: details.cause });
    this.name = 'EtcdConnectionError';
    this.wasSent = details.wasSent;
  }
}

/** An answer is larger than the caller can take. */
export class EtcdAnswerTooLargeError extends Error {
  readonly code = 'ETCD_ANSWER_TOO_LARGE' as const;
}

export function isCompacted(error: unknown): boolean {
  return error instanceof EtcdError && /required revision has been compacted/.test(error.message);
}

/** gRPC codes with which etcd says that it has surely not done what was asked. */
const REFUSED_CODES: ReadonlySet<number> = new Set([3, 5, 7, 8, 9, 11, 12, 16]);
const RESOURCE_EXHAUSTED = 8;
const UNAUTHENTICATED = 16;
/** etcd says this, with code 3, when users or roles were changed since the token was made. */
const OLD_AUTH = /revision of auth store is old|invalid auth token/;

/** True if a failed write has surely not happened. */
export function isRefusal(error: unknown): boolean {
  if (error instanceof EtcdConnectionError) return !error.wasSent;
  return error instanceof EtcdError && REFUSED_CODES.has(error.grpcCode);
}

/** True if etcd takes no writes because its own disk quota is used up. */
export function isOutOfSpace(error: unknown): boolean {
  return (
    error instanceof EtcdError &&
    error.grpcCode === RESOURCE_EXHAUSTED &&
    /space/.test(error.message)
  );
}

/** A member that does not take a connection in this time is passed over: in a cluster's network it takes a millisecond. */
const CONNECT_TIMEOUT_MS = 2_000;
/** A read that a member has not answered in this time is tried elsewhere: a member cut off from the others holds it back. */
const READ_ATTEMPT_MS = 2_000;
/** etcd's own limit for a write is 5 s and two election timeouts; a little more, so that its answer is heard. */
const WRITE_TIMEOUT_MS = 9_000;
const DEFAULT_READ_TIMEOUT_MS = 10_000;
/** Requests under way at once. More would wait inside etcd instead of here. */
const MAX_SOCKETS = 128;
const MAX_IDLE_SOCKETS = 32;
/** An answer, or one line of a watch. Below the longest string there can be (512 MiB). */
export const MAX_ANSWER_BYTES = 128 * 1024 * 1024;
const TCP_KEEP_ALIVE_MS = 5_000;

export interface CallOptions {
  /** It changes something: never sent twice. */
  readonly isWrite?: boolean;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export class EtcdTransport implements Disposable {
  readonly #endpoints: readonly URL[];
  readonly #user: EtcdConnection['user'];
  readonly #agents: readonly [http.Agent, https.Agent];
  readonly #closed = new AbortController();
  /** The member in use. */
  #current = 0;
  #token: Promise<string> | undefined;
  /** All members must be of one cluster: two URLs that are not would lose writes silently. */
  #clusterId: string | undefined;
  /** Members that are known to be of it. */
  readonly #verified = new Set<string>();
  readonly #probe: { readonly path: string; readonly body: object };

  /**
   * @param probe a read that is allowed: asked of each member before it is sent a first write
   * @throws TypeError if an endpoint is no URL, or there is none; what OpenSSL says of bad certificates
   */
  constructor(
    { endpoints, tls, user }: EtcdConnection,
    probe: { readonly path: string; readonly body: object },
  ) {
    this.#probe = probe;
    this.#endpoints = endpoints.map((endpoint) => new URL(endpoint));
    if (this.#endpoints.length === 0) throw new TypeError('an etcd cluster has at least one URL');
    this.#user = user;
    const pool = { keepAlive: true, maxSockets: MAX_SOCKETS, maxFreeSockets: MAX_IDLE_SOCKETS };
    this.#agents = [new nodeHttp.Agent(pool), new https.Agent({ ...pool, ...tls })];
  }

  /** Ends everything that is under way. */
  [Symbol.dispose](): void {
    this.#closed.abort(new Error('the connection to etcd is closed'));
    for (const agent of this.#agents) agent.destroy();
  }

  /** The member that the next request goes to. */
  get currentEndpoint(): string {
    return this.#endpointAt(this.#current).origin;
  }

  /** Use another member from now on, unless somebody has moved on already. */
  passOver(endpoint: string): void {
    if (this.currentEndpoint === endpoint) this.#current++;
  }

  /**
   * Posts a request and reads the answer.
   * @throws EtcdError, EtcdConnectionError, EtcdAnswerTooLargeError; the signal's reason
   */
  async call(path: string, body: object, options: CallOptions = {}): Promise<unknown> {
    const { isWrite = false, signal } = options;
    const timeoutMs = options.timeoutMs ?? (isWrite ? WRITE_TIMEOUT_MS : DEFAULT_READ_TIMEOUT_MS);
    const deadlineMs = performance.now() + timeoutMs;
    const text = JSON.stringify(body);
    const backoff = new Backoff({ minMs: 10, maxMs: 500 });
    let renewedToken = false;
    for (let attempt = 1; ; attempt++) {
      const leftMs = Math.max(1, Math.ceil(deadlineMs - performance.now()));
      const endpoint = this.#endpointAt(this.#current);
      try {
        const limitMs = isWrite ? leftMs : Math.min(leftMs, READ_ATTEMPT_MS);
        if (isWrite) await this.#verify(endpoint);
        return await this.#attempt(endpoint, path, text, { ...options, timeoutMs: limitMs });
      } catch (error) {
        if (signal?.aborted || this.#closed.signal.aborted) throw error;
        if (this.#isOldToken(error) && !renewedToken) {
          renewedToken = true;
          this.#token = undefined;
          continue;
        }
        if (!isTransient(error)) throw error;
        this.passOver(endpoint.origin);
        const isRepeatable = !isWrite || isRefusal(error);
        const waitMs = attempt < this.#endpoints.length ? 0 : backoff.next();
        if (!isRepeatable || performance.now() + waitMs >= deadlineMs) throw error;
        await sleep(waitMs, signal ?? this.#closed.signal);
      }
    }
  }

  /**
   * Posts a request whose answer is a stream of JSON lines, to the member in use.
   * @param onLine gets each line's `result`; not awaited
   * @throws EtcdError, EtcdConnectionError, also when the stream ends; what `onLine` throws; the signal's reason
   */
  async stream(
    path: string,
    body: object,
    options: { readonly signal: AbortSignal; readonly onLine: (result: unknown) => void },
  ): Promise<never> {
    const endpoint = this.#endpointAt(this.#current);
    const { origin } = endpoint;
    const { signal, onLine } = options;
    const response = await this.#open(endpoint, path, JSON.stringify(body), {
      signal,
      timeoutMs: READ_ATTEMPT_MS,
    });
    response.socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
    if (response.statusCode !== 200) throw this.#errorOf(origin, await readAll(response, origin));
    for await (const line of linesOf(response, origin)) {
      const { result, error } = this.#parse(origin, line) as { result?: unknown; error?: unknown };
      if (error !== undefined) throw this.#errorOf(origin, JSON.stringify(error));
      this.#checkCluster(origin, result);
      onLine(result);
    }
    throw new EtcdConnectionError(origin, 'the stream has ended');
  }

  #endpointAt(index: number): URL {
    const endpoint = this.#endpoints[index % this.#endpoints.length];
    if (endpoint === undefined) throw new TypeError('an etcd cluster has at least one URL');
    return endpoint;
  }

  async #attempt(
    endpoint: URL,
    path: string,
    text: string,
    options: CallOptions & { readonly timeoutMs: number },
  ): Promise<unknown> {
    const { origin } = endpoint;
    const limit = AbortSignal.timeout(options.timeoutMs);
    const signal = AbortSignal.any([limit, ...(options.signal ? [options.signal] : [])]);
    try {
      const response = await this.#open(endpoint, path, text, {
        timeoutMs: options.timeoutMs,
        signal,
      });
      const answer = await readAll(response, origin);
      if (response.statusCode !== 200) throw this.#errorOf(origin, answer);
      const parsed = this.#parse(origin, answer);
      this.#checkCluster(origin, parsed);
      return parsed;
    } catch (error) {
      if (limit.aborted && options.signal?.aborted !== true && !(error instanceof EtcdError))
        throw new EtcdConnectionError(origin, `no answer within ${options.timeoutMs} ms`, {
          wasSent: !(error instanceof EtcdConnectionError) || error.wasSent,
          cause: error,
        });
      throw error;
    }
  }

  /** Sends a request and resolves when the headers of its answer are in. */
  async #open(
    endpoint: URL,
    path: string,
    text: string,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<http.IncomingMessage> {
    const signal = AbortSignal.any([options.signal, this.#closed.signal]);
    const token = path === AUTHENTICATE_PATH ? undefined : await this.#authenticate();
    const isSecure = endpoint.protocol === 'https:';
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    let wasSent = false;
    const request = (isSecure ? https : nodeHttp).request(endpoint, {
      method: 'POST',
      path,
      agent: isSecure ? this.#agents[1] : this.#agents[0],
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
        ...(token === undefined ? {} : { authorization: token }),
      },
      signal,
    });
    request.on('socket', (socket) => {
      if (!socket.connecting) {
        wasSent = true;
        return;
      }
      socket.setNoDelay(true);
      const timer = setTimeout(
        () => request.destroy(new Error(`no connection within ${CONNECT_TIMEOUT_MS} ms`)),
        Math.min(CONNECT_TIMEOUT_MS, options.timeoutMs),
      );
      const clear = () => clearTimeout(timer);
      socket.once(isSecure ? 'secureConnect' : 'connect', () => {
        wasSent = true;
        clear();
      });
      socket.once('close', clear);
    });
    request.on('response', resolve);
    request.on('error', (cause) =>
      reject(new EtcdConnectionError(endpoint.origin, explainError(cause), { wasSent, cause })),
    );
    request.end(text);
    return await promise;
  }

  /** @throws EtcdConnectionError, which says that nothing was written */
  async #verify(endpoint: URL): Promise<void> {
    if (this.#verified.has(endpoint.origin)) return;
    const { path, body } = this.#probe;
    try {
      await this.#attempt(endpoint, path, JSON.stringify(body), { timeoutMs: READ_ATTEMPT_MS });
    } catch (cause) {
      if (this.#isOldToken(cause)) throw cause;
      throw new EtcdConnectionError(endpoint.origin, explainError(cause), {
        wasSent: false,
        cause,
      });
    }
  }

  /** @returns `undefined` if no user is configured */
  async #authenticate(): Promise<string | undefined> {
    const user = this.#user;
    if (user === undefined) return undefined;
    this.#token ??= (async () => {
      const answer = await this.call(AUTHENTICATE_PATH, user);
      const { token } = answer as { token?: unknown };
      if (typeof token !== 'string')
        throw new EtcdError('its answer to the password has no token', {
          grpcCode: UNAUTHENTICATED,
          endpoint: this.currentEndpoint,
        });
      return token;
    })();
    const mine = this.#token;
    try {
      return await mine;
    } catch (error) {
      if (this.#token === mine) this.#token = undefined;
      throw error;
    }
  }

  #isOldToken(error: unknown): boolean {
    return (
      this.#user !== undefined &&
      error instanceof EtcdError &&
      (error.grpcCode === UNAUTHENTICATED || OLD_AUTH.test(error.message))
    );
  }

  #checkCluster(origin: string, answer: unknown): void {
    const header = (answer as { header?: { cluster_id?: unknown } } | null)?.header;
    const id = header?.cluster_id;
    if (typeof id !== 'string') return;
    this.#clusterId ??= id;
    if (id === this.#clusterId) this.#verified.add(origin);
    if (id !== this.#clusterId)
      throw new EtcdError(
        `it belongs to another cluster (${id}) than the members used before (${this.#clusterId}); the URLs must all be of one cluster`,
        { grpcCode: UNAVAILABLE, endpoint: origin },
      );
  }

  #parse(origin: string, text: string): unknown {
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new EtcdConnectionError(origin, `the answer is no JSON: ${explainError(cause)}`, {
        wasSent: true,
        cause,
      });
    }
  }

  /** Of `{"error": "…", "code": 11}`; the gateway's own refusals are plain text. */
  #errorOf(origin: string, text: string): EtcdError {
    let parsed: { error?: unknown; message?: unknown; code?: unknown; grpc_code?: unknown } = {};
    try {
      parsed = JSON.parse(text);
    } catch {
      // A proxy's or the gateway's own page: its text is the message.
      parsed = { message: text.trim().slice(0, 200) };
    }
    const grpcCode = Number(parsed.code ?? parsed.grpc_code ?? UNKNOWN);
    return new EtcdError(String(parsed.message ?? parsed.error ?? text), {
      grpcCode,
      endpoint: origin,
    });
  }
}

const AUTHENTICATE_PATH = '/v3/auth/authenticate';
const UNKNOWN = 2;
const DEADLINE_EXCEEDED = 4;
const INTERNAL = 13;
const UNAVAILABLE = 14;

/** Another member, or the same one a little later, may do better. */
function isTransient(error: unknown): boolean {
  if (error instanceof EtcdError)
    return [UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE].includes(error.grpcCode);
  return error instanceof EtcdConnectionError;
}

async function readAll(response: http.IncomingMessage, origin: string): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) throw tooLarge(origin);
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof EtcdAnswerTooLargeError) throw cause;
    throw new EtcdConnectionError(origin, explainError(cause), { wasSent: true, cause });
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function* linesOf(
  response: http.IncomingMessage,
  origin: string,
): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder('utf8');
  let parts: string[] = [];
  let length = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      const pieces = decoder.write(chunk).split('\n');
      const rest = pieces.pop() ?? '';
      for (const piece of pieces) {
        const line = parts.length === 0 ? piece : parts.join('') + piece;
        parts = [];
        length = 0;
        if (line !== '') yield line;
      }
      if (rest === '') continue;
      parts.push(rest);
      length += rest.length;
      if (length > MAX_ANSWER_BYTES) throw tooLarge(origin);
    }
  } catch (cause) {
    if (cause instanceof EtcdAnswerTooLargeError) throw cause;
    throw new EtcdConnectionError(origin, explainError(cause), { wasSent: true, cause });
  }
}

function tooLarge(origin: string): EtcdAnswerTooLargeError {
  return new EtcdAnswerTooLargeError(
    `etcd at ${origin}: the answer has more than ${MAX_ANSWER_BYTES} bytes`,
  );
}
