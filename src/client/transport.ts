/**
 * HTTP/1.1 over TLS to one of several API servers.
 *
 * HTTP/1.1 and not HTTP/2, because a watch then has a connection of its own: a slow one holds up no other, the kernel's
 * keep-alive finds each dead one, and its end says exactly which watch was cut. Requests share the kept-open rest.
 */
import { type Stats, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type * as http from 'node:http';
import * as https from 'node:https';
import { nodeHttp } from '#lib/node-http.ts';
import type { ClientConfig } from './config.ts';

export interface TransportRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal?: AbortSignal | undefined;
}

/** No API server could be reached, or the connection broke before the answer was complete. The `cause` has the network's error. */
export class ConnectionError extends Error {
  readonly code = 'CONNECTION' as const;
  /** Which server, where one is to blame. */
  readonly server: string | undefined;
  /** False if the request cannot have reached a server: then trying again is safe whatever it was. */
  readonly wasSent: boolean;
  constructor(
    message: string,
    details: { server: string | undefined; wasSent: boolean; cause?: unknown },
  ) {
    super(message, { cause: details.cause });
    this.name = 'ConnectionError';
    this.server = details.server;
    this.wasSent = details.wasSent;
  }
}

export const DEFAULT_REQUEST_TIMEOUT_MS = 30_000;
/** A server that takes longer to shake hands is passed over for the next. */
const CONNECT_TIMEOUT_MS = 5_000;
/** Idle time before the kernel probes; ten probes a second apart follow: a dead server is found within 25 s. */
const TCP_KEEP_ALIVE_MS = 15_000;
/** Each watch and each request under way has one; far above what an agent uses, so only a defect reaches it. */
const MAX_SOCKETS = 512;
/** Kept open for the next request; more would only burden the server. */
const MAX_IDLE_SOCKETS = 8;
/** Go's servers close idle connections after 90 s at the earliest; ours must not be used at that very moment. */
const IDLE_SOCKET_MS = 60_000;

export class Transport implements AsyncDisposable {
  #config: ClientConfig;
  /** With former certificates: few, as one lasts for months. */
  readonly #retired = new Set<https.Agent>();
  #agents: { readonly 'http:': http.Agent; readonly 'https:': https.Agent };
  readonly #servers: readonly URL[];
  readonly #closed = new AbortController();
  /** The server that answered last. */
  #current = 0;
  #token: { value: string; stats: Pick<Stats, 'mtimeMs' | 'ino' | 'size'> } | undefined;

  /** @throws TypeError if a server is no URL of http or https, or there is none */
  constructor(config: ClientConfig) {
    this.#config = config;
    this.#servers = config.servers.map(parseServer);
    if (this.#servers.length === 0) throw new TypeError('an API client needs at least one server');
    this.#agents = {
      'http:': new nodeHttp.Agent(POOL),
      'https:': httpsAgent(config),
    };
  }

  /** Shows this certificate from the next connection on; connections that are open stay what they are until they end. */
  useCertificate(certificate: { readonly certificatePem: string; readonly keyPem: string }): void {
    this.#config = { ...this.#config, ...certificate };
    const former = this.#agents['https:'];
    // What is under way goes on; nothing new is sent over it, so that it ends when it is idle.
    this.#retired.add(former);
    this.#agents = { ...this.#agents, 'https:': httpsAgent(this.#config) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new Error('the API client is closed'));
    this.#agents['http:'].destroy();
    this.#agents['https:'].destroy();
    for (const agent of this.#retired) agent.destroy();
  }

  /**
   * Sends a request and resolves with the response when its headers are in; the body is the caller's to read.
   * Tries the other servers if one cannot be reached; a request that may have reached a server is only repeated if
   * it is a GET.
   * @param timeoutMs limit until the headers are in
   * @throws ConnectionError; the signal's reason if it was aborted
   */
  async send(request: TransportRequest, timeoutMs: number): Promise<http.IncomingMessage> {
    const headers = await this.#headersOf(request);
    // One more than there are servers: a kept-open connection may have died unnoticed.
    const maxAttempts = this.#servers.length + 1;
    const deadlineMs = performance.now() + timeoutMs;
    for (let attempt = 1; ; attempt++) {
      const index = this.#current;
      try {
        const leftMs = Math.max(1, deadlineMs - performance.now());
        return await this.#attempt(this.#serverAt(index), { ...request, headers }, leftMs);
      } catch (error) {
        if (!(error instanceof ConnectionError)) throw error;
        // Another call may have moved on already.
        if (this.#current === index) this.#current = (index + 1) % this.#servers.length;
        const isRepeatable = !error.wasSent || request.method === 'GET';
        const hasAlternative = this.#servers.length > 1 || error.wasSent;
        const isInTime = performance.now() < deadlineMs;
        if (!isRepeatable || !hasAlternative || !isInTime || attempt >= maxAttempts) throw error;
      }
    }
  }

  /**
   * Reads the token file again whatever its time stamp says.
   * @returns whether there is another token now
   */
  async refreshToken(): Promise<boolean> {
    if (this.#config.tokenFile === undefined) return false;
    const old = this.#token?.value;
    this.#token = undefined;
    return (await this.#currentToken()) !== old;
  }

  #serverAt(index: number): URL {
    const server = this.#servers[index];
    if (server === undefined) throw new RangeError(`there is no server ${index}`);
    return server;
  }

  #attempt(
    server: URL,
    request: TransportRequest,
    timeoutMs: number,
  ): Promise<http.IncomingMessage> {
    return new Promise((resolve, reject) => {
      const isTls = server.protocol === 'https:';
      const outgoing = (isTls ? https : nodeHttp).request({
        agent: this.#agents[isTls ? 'https:' : 'http:'],
        host: server.hostname.replace(/^\[|\]$/g, ''),
        port: server.port === '' ? (isTls ? 443 : 80) : server.port,
        method: request.method,
        path: server.pathname.replace(/\/$/, '') + request.path,
        headers: request.headers,
      });
      let isConnected = false;
      const stop = destroyOn(outgoing, [request.signal, this.#closed.signal]);
      const connectMs = Math.min(CONNECT_TIMEOUT_MS, timeoutMs);
      const connectTimer = setTimeout(
        () => outgoing.destroy(new Error(`no connection within ${Math.round(connectMs)} ms`)),
        connectMs,
      );
      const answerTimer = setTimeout(
        () => outgoing.destroy(new Error(`no answer within ${Math.round(timeoutMs)} ms`)),
        timeoutMs,
      );
      outgoing.once('socket', (socket) => {
        const onReady = () => {
          isConnected = true;
          clearTimeout(connectTimer);
        };
        if (!socket.connecting) return onReady();
        // On a reused socket both are set already.
        socket.setNoDelay(true);
        socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
        socket.once(isTls ? 'secureConnect' : 'connect', onReady);
      });
      outgoing.once('response', (response) => {
        clearTimeout(answerTimer);
        // The signals stay in force until the body is read or dropped.
        response.once('close', stop);
        resolve(response);
      });
      outgoing.on('error', (error) => {
        clearTimeout(connectTimer);
        clearTimeout(answerTimer);
        stop();
        const { signal } = request;
        if (signal?.aborted) return reject(signal.reason);
        if (this.#closed.signal.aborted) return reject(this.#closed.signal.reason);
        reject(connectionError(server, request, isConnected, error));
      });
      outgoing.end(request.body);
    });
  }

  async #headersOf(request: TransportRequest): Promise<Record<string, string>> {
    const token = await this.#currentToken();
    return {
      accept: 'application/json',
      'user-agent': this.#config.userAgent ?? 'tulle',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(request.body === undefined
        ? {}
        : { 'content-length': String(Buffer.byteLength(request.body)) }),
      ...request.headers,
    };
  }

  /** A look at the file's time stamp costs microseconds; mounted tokens are renewed by exchanging the file. */
  async #currentToken(): Promise<string | undefined> {
    const { tokenFile, token } = this.#config;
    if (tokenFile === undefined) return token;
    const stats = statSync(tokenFile);
    const known = this.#token;
    if (known !== undefined && isSameFile(known.stats, stats)) return known.value;
    const value = (await readFile(tokenFile, 'utf8')).trim();
    this.#token = { value, stats };
    return value;
  }
}

const POOL = {
  keepAlive: true,
  maxSockets: MAX_SOCKETS,
  maxFreeSockets: MAX_IDLE_SOCKETS,
  timeout: IDLE_SOCKET_MS,
} as const;

function httpsAgent(config: ClientConfig): https.Agent {
  return new https.Agent({ ...POOL, ...tlsOptions(config) });
}

function isSameFile(a: Pick<Stats, 'mtimeMs' | 'ino' | 'size'>, b: Stats): boolean {
  return a.mtimeMs === b.mtimeMs && a.ino === b.ino && a.size === b.size;
}

function parseServer(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol))
    throw new TypeError(`"${text}" is not the URL of an API server: https://HOST:PORT is`);
  return url;
}

function tlsOptions(config: ClientConfig): https.AgentOptions {
  return {
    ...(config.caPem === undefined ? {} : { ca: config.caPem }),
    ...(config.certificatePem === undefined ? {} : { cert: config.certificatePem }),
    ...(config.keyPem === undefined ? {} : { key: config.keyPem }),
    ...(config.tlsServerName === undefined ? {} : { servername: config.tlsServerName }),
    rejectUnauthorized: config.insecureSkipTlsVerify !== true,
  };
}

/** Destroys the request when one of the signals is aborted. @returns a function that lets go of the signals */
function destroyOn(
  request: http.ClientRequest,
  signals: readonly (AbortSignal | undefined)[],
): () => void {
  const onAbort = () => request.destroy(new Error('aborted'));
  for (const signal of signals) {
    if (signal?.aborted) onAbort();
    else signal?.addEventListener('abort', onAbort, { once: true });
  }
  return () => {
    for (const signal of signals) signal?.removeEventListener('abort', onAbort);
  };
}

function connectionError(
  server: URL,
  request: TransportRequest,
  wasSent: boolean,
  cause: Error,
): ConnectionError {
  const what = wasSent
    ? `The connection to the API server ${server.origin} broke during ${request.method} ${request.path}`
    : `Cannot reach the API server ${server.origin}`;
  return new ConnectionError(what, { server: server.origin, wasSent, cause });
}
