/** The {@link ApiClient} that speaks to a real server: Kubernetes' own or ours, between which it sees no difference. */
import type { IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { apiVersionOf, type KindRef } from '#api/kind.ts';
import type { KubeList, KubeObject, WatchEvent } from '#api/meta.ts';
import { ApiError, DecodeError } from '#lib/errors.ts';
import type { ClientConfig } from './config.ts';
import type { ApiClient, ListOptions, PatchType, WatchOptions } from './port.ts';
import { apiErrorOf, statusError } from './status-error.ts';
import { ConnectionError, DEFAULT_REQUEST_TIMEOUT_MS, Transport } from './transport.ts';
import { decodeWatchEvent, LineSplitter } from './watch-stream.ts';

/** A list of 5,000 pods is about 30 MB; a server that sends more than this in one answer would only fill the memory. */
const MAX_RESPONSE_BYTES = 512 * 1024 * 1024;
/** How often a request is sent again that the server was too busy for; it says when. */
const MAX_BUSY_RETRIES = 5;
/** No longer than this between two of them, whatever the server says. */
const MAX_RETRY_AFTER_SECONDS = 10;

interface Call {
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A client of the API server that the configuration names. It connects when it is first used.
 * @throws TypeError if the configuration names no server or none that is a URL
 */
export function createApiClient(config: ClientConfig): HttpApiClient {
  return new HttpApiClient(config);
}

export class HttpApiClient implements ApiClient, AsyncDisposable {
  readonly #transport: Transport;
  readonly #timeoutMs: number;

  constructor(config: ClientConfig) {
    this.#transport = new Transport(config);
    this.#timeoutMs = config.requestTimeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }

  /** Shows another certificate from the next connection on. */
  useCertificate(certificate: { readonly certificatePem: string; readonly keyPem: string }): void {
    this.#transport.useCertificate(certificate);
  }

  async get<T extends KubeObject>(
    kind: KindRef<T>,
    name: string,
    namespace?: string,
    options: { signal?: AbortSignal } = {},
  ): Promise<T> {
    return this.#json({ ...options, method: 'GET', path: objectPath(kind, { name, namespace }) });
  }

  async list<T extends KubeObject>(
    kind: KindRef<T>,
    options: ListOptions & { signal?: AbortSignal } = {},
  ): Promise<KubeList<T>> {
    const { namespace, signal, ...query } = options;
    const path = collectionPath(kind, namespace);
    const list = await this.#json<KubeList<T>>({ method: 'GET', path, query, signal });
    // Servers written in Go send null for an empty list, and leave out of the items what the list says already.
    const apiVersion = apiVersionOf(kind);
    const items = (list.items ?? []).map((item) => ({ ...item, apiVersion, kind: kind.kind }));
    return { ...list, items };
  }

  async create<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    options: { fieldValidation?: 'Strict' | 'Warn' | 'Ignore'; signal?: AbortSignal } = {},
  ): Promise<T> {
    const { fieldValidation, signal } = options;
    const path = collectionPath(kind, namespaceFor(kind, object.metadata.namespace));
    const query = { fieldValidation };
    return this.#json({ method: 'POST', path, query, body: object, signal });
  }

  async update<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    options: { subresource?: 'status'; signal?: AbortSignal } = {},
  ): Promise<T> {
    const { subresource, signal } = options;
    const path = objectPath(kind, { ...object.metadata, subresource });
    return this.#json({ method: 'PUT', path, body: object, signal });
  }

  async patch<T extends KubeObject>(
    kind: KindRef<T>,
    target: { name: string; namespace?: string; subresource?: 'status' },
    patch: { type: PatchType; body: unknown },
    options: { fieldValidation?: 'Strict' | 'Warn' | 'Ignore'; signal?: AbortSignal } = {},
  ): Promise<T> {
    const { fieldValidation, signal } = options;
    return this.#json({
      method: 'PATCH',
      path: objectPath(kind, target),
      query: { fieldValidation },
      body: patch.body,
      contentType: patch.type,
      signal,
    });
  }

  async delete(
    kind: KindRef,
    target: { name: string; namespace?: string },
    options: {
      preconditions?: { uid?: string; resourceVersion?: string };
      gracePeriodSeconds?: number;
      signal?: AbortSignal;
    } = {},
  ): Promise<void> {
    const { preconditions, gracePeriodSeconds, signal } = options;
    const body = {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      propagationPolicy: 'Background',
      preconditions,
      gracePeriodSeconds,
    };
    await this.#json({ method: 'DELETE', path: objectPath(kind, target), body, signal });
  }

  async *watch<T extends KubeObject>(
    kind: KindRef<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    const { namespace, signal, onOpen, ...selection } = options;
    const path = collectionPath(kind, namespace);
    const query = { ...selection, watch: true, allowWatchBookmarks: true };
    const call: Call = { method: 'GET', path, query, signal };
    const response = await this.#open(call);
    onOpen?.();
    try {
      yield* eventsOf<T>(response);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof ApiError || error instanceof DecodeError) throw error;
      throw brokenAnswer(call, error);
    } finally {
      // Closes the connection unless the stream has ended by itself.
      response.destroy();
    }
  }

  async raw(
    method: string,
    path: string,
    options: { body?: unknown; contentType?: string; signal?: AbortSignal } = {},
  ): Promise<{ status: number; body: string }> {
    return this.#exchange({ ...options, method, path });
  }

  async #json<R>(call: Call): Promise<R> {
    const { status, body } = await this.#exchange(call);
    if (!isSuccess(status)) throw apiErrorOf(status, body, `${call.method} ${call.path}`);
    try {
      return JSON.parse(body) as R;
    } catch (cause) {
      throw new Error(`The API server answered ${call.method} ${call.path} with no JSON`, {
        cause,
      });
    }
  }

  /** The whole answer. Its headers and its body each have the time limit. */
  async #exchange(call: Call): Promise<{ status: number; body: string }> {
    const response = await this.#respond(call);
    const body = await this.#readBody(response, call);
    return { status: response.statusCode ?? 0, body };
  }

  async #readBody(response: IncomingMessage, call: Call): Promise<string> {
    const timer = setTimeout(
      () => response.destroy(new Error(`not complete after ${this.#timeoutMs} ms`)),
      this.#timeoutMs,
    );
    try {
      return await textOf(response);
    } catch (cause) {
      call.signal?.throwIfAborted();
      throw brokenAnswer(call, cause);
    } finally {
      clearTimeout(timer);
    }
  }

  /** A stream whose headers are in and which is a success. */
  async #open(call: Call): Promise<IncomingMessage> {
    const response = await this.#respond(call);
    const { statusCode = 0 } = response;
    if (isSuccess(statusCode)) return response;
    const body = await this.#readBody(response, call);
    throw apiErrorOf(statusCode, body, `${call.method} ${call.path}`);
  }

  /** Sends again what the server was too busy for, and once with a newer token what it did not accept. */
  async #respond(call: Call): Promise<IncomingMessage> {
    const request = toRequest(call);
    let triedNewToken = false;
    for (let busy = 0; ; ) {
      const response = await this.#transport.send(request, this.#timeoutMs);
      if (response.statusCode === 401 && !triedNewToken) {
        triedNewToken = true;
        if (await this.#transport.refreshToken()) {
          response.resume();
          continue;
        }
      }
      const waitSeconds = retryAfterOf(response);
      if (waitSeconds === undefined || busy++ >= MAX_BUSY_RETRIES) return response;
      response.resume();
      await delay(waitSeconds * 1000, undefined, call.signal ? { signal: call.signal } : {});
    }
  }
}

async function* eventsOf<T extends KubeObject>(
  response: IncomingMessage,
): AsyncGenerator<WatchEvent<T>> {
  const splitter = new LineSplitter();
  for await (const chunk of response as AsyncIterable<Uint8Array>)
    for (const line of splitter.push(chunk)) {
      const event = readEvent<T>(line);
      if (event !== undefined) yield event;
    }
  const rest = splitter.rest();
  if (rest.length === 0) return;
  const last = readLast<T>(rest);
  if (last !== undefined) yield last;
}

/** A last line without newline is an event if it is complete, and else the sign of a stream that was cut. */
function readLast<T extends KubeObject>(line: Uint8Array): WatchEvent<T> | undefined {
  try {
    return readEvent<T>(line);
  } catch (cause) {
    if (!(cause instanceof DecodeError)) throw cause;
    throw new Error('the stream ended in the middle of an event', { cause });
  }
}

function readEvent<T extends KubeObject>(line: Uint8Array): WatchEvent<T> | undefined {
  const event = decodeWatchEvent<T>(line);
  if (event?.type === 'ERROR') throw statusError(event.object);
  return event;
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > MAX_RESPONSE_BYTES)
      throw new Error(`The API server's answer is longer than ${MAX_RESPONSE_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function toRequest(call: Call) {
  const { method, path, query = {}, body, contentType = 'application/json', signal } = call;
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    if (value !== undefined) parameters.set(name, String(value));
  const search = parameters.toString();
  return {
    method,
    path: search === '' ? path : `${path}?${search}`,
    headers: body === undefined ? {} : { 'content-type': contentType },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    signal,
  };
}

/** Seconds after which the server wants to be asked again; it has not looked at the request then. RFC 9110 section 10.2.3. */
function retryAfterOf(response: IncomingMessage): number | undefined {
  const { statusCode, headers } = response;
  if (statusCode !== 429 && statusCode !== 503) return undefined;
  const text = headers['retry-after'] ?? '';
  return /^\d+$/.test(text) ? Math.min(Number(text), MAX_RETRY_AFTER_SECONDS) : undefined;
}

function brokenAnswer(call: Call, cause: unknown): ConnectionError {
  return new ConnectionError(
    `The connection to the API server broke during the answer to ${call.method} ${call.path}`,
    { server: undefined, wasSent: true, cause },
  );
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300;
}

/** `/api/v1/namespaces/default/services`, `/apis/discovery.k8s.io/v1/endpointslices` (all namespaces). */
export function collectionPath(kind: KindRef, namespace?: string): string {
  const root = kind.group === '' ? '/api' : `/apis/${kind.group}`;
  const scope =
    kind.namespaced && namespace !== undefined && namespace !== ''
      ? `/namespaces/${encodeURIComponent(namespace)}`
      : '';
  return `${root}/${kind.version}${scope}/${kind.resource}`;
}

function objectPath(
  kind: KindRef,
  target: { name: string; namespace?: string | undefined; subresource?: string | undefined },
): string {
  const { name, namespace, subresource } = target;
  if (name === '') throw new TypeError(`a request for one ${kind.kind} needs its name`);
  const collection = collectionPath(kind, namespaceFor(kind, namespace));
  const suffix = subresource === undefined ? '' : `/${subresource}`;
  return `${collection}/${encodeURIComponent(name)}${suffix}`;
}

/** @throws TypeError if the kind lives in a namespace and none is given */
function namespaceFor(kind: KindRef, namespace: string | undefined): string | undefined {
  if (!kind.namespaced) return undefined;
  if (namespace === undefined || namespace === '')
    throw new TypeError(`a request for a ${kind.kind} needs its namespace`);
  return namespace;
}
