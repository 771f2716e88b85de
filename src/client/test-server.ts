/**
 * A scripted HTTPS server for tests: list and watch of ConfigMaps with a history, and every way in which a stream can
 * go wrong. Not an API server: it knows what a reflector asks and nothing more.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { KindRef } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import type { TestTls } from './test-tls.ts';

export interface Thing extends KubeObject {
  data?: Record<string, string>;
}
export const THING: KindRef<Thing> = {
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  resource: 'configmaps',
  namespaced: true,
};

/** What befalls one request; taken from the script in the order of arrival, nothing when the script is empty. */
export type Mishap =
  /** The stream's connection is destroyed after this many bytes of the body. */
  | { readonly type: 'cut'; readonly afterBytes: number }
  /** The stream ends properly after this many bytes, wherever that is. */
  | { readonly type: 'end'; readonly afterBytes: number }
  /** The body comes in pieces of this size. */
  | { readonly type: 'slow'; readonly chunkBytes: number }
  | { readonly type: 'garbage'; readonly text: string }
  /** An ERROR event in the stream. */
  | { readonly type: 'error-event'; readonly code: number }
  | { readonly type: 'status'; readonly code: number; readonly headers?: Record<string, string> }
  | { readonly type: 'silence' };

interface Change {
  readonly version: number;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: Thing;
}

export class ScriptedServer implements AsyncDisposable {
  readonly #tls: TestTls;
  #server: https.Server | undefined;
  #port = 0;
  readonly #sockets = new Set<Socket>();
  #wakers = new Set<() => void>();
  readonly objects = new Map<string, Thing>();
  readonly history: Change[] = [];
  version = 1;
  compactedVersion = 0;
  /** Mishaps for watches to come. */
  watchScript: Mishap[] = [];
  /** Mishaps for other requests to come. */
  requestScript: Mishap[] = [];
  /** Lines `METHOD path?query`. */
  readonly log: string[] = [];
  readonly authorizations: (string | undefined)[] = [];

  constructor(tls: TestTls) {
    this.#tls = tls;
  }

  get url(): string {
    return `https://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    const { cert, key } = this.#tls.server;
    const options = { cert, key, ca: this.#tls.caPem, requestCert: true, rejectUnauthorized: true };
    const server = https.createServer(options, (request, response) =>
      this.#handle(request, response),
    );
    // Also those that are still shaking hands, which closeAllConnections() does not know.
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as AddressInfo).port;
  }

  /** Stops at once, all connections cut. The state stays. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Creates or changes. */
  put(name: string, value: string): void {
    const old = this.objects.get(name);
    const version = ++this.version;
    const uid = old?.metadata.uid ?? `uid-${version}`;
    const object: Thing = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, namespace: 'default', uid, resourceVersion: String(version) },
      data: { value },
    };
    this.objects.set(name, object);
    this.#record({ version, type: old === undefined ? 'ADDED' : 'MODIFIED', object });
  }

  remove(name: string): void {
    const old = this.objects.get(name);
    if (old === undefined) return;
    const version = ++this.version;
    this.objects.delete(name);
    const metadata = { ...old.metadata, resourceVersion: String(version) };
    this.#record({ version, type: 'DELETED', object: { ...old, metadata } });
  }

  compact(): void {
    this.compactedVersion = this.version;
  }

  #record(change: Change): void {
    this.history.push(change);
    for (const wake of this.#wakers) wake();
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    this.log.push(`${request.method} ${request.url}`);
    this.authorizations.push(request.headers.authorization);
    request.resume();
    const query = new URL(request.url ?? '/', 'https://server').searchParams;
    const isWatch = query.get('watch') === 'true';
    const mishap = (isWatch ? this.watchScript : this.requestScript).shift();
    if (mishap?.type === 'silence') return;
    if (mishap?.type === 'status') {
      sendStatus(response, mishap.code, mishap.headers);
      return;
    }
    const pipe = new BadPipe(response, mishap);
    if (isWatch) this.#watch(query, response, pipe, mishap);
    else this.#list(query, pipe);
  }

  #list(query: URLSearchParams, pipe: BadPipe): void {
    const after = query.get('continue') ?? '';
    const limit = Number(query.get('limit') ?? Infinity);
    const rest = [...this.objects.keys()].sort().filter((name) => name > after);
    const names = rest.slice(0, limit);
    const items = names.map((name) => {
      const { metadata, data } = this.objects.get(name) as Thing;
      return { metadata, data };
    });
    const metadata = {
      resourceVersion: String(this.version),
      ...(names.length < rest.length ? { continue: names.at(-1) } : {}),
    };
    pipe.write(
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'ConfigMapList',
        metadata,
        items: items.length === 0 ? null : items,
      }),
    );
    pipe.end();
  }

  #watch(
    query: URLSearchParams,
    response: ServerResponse,
    pipe: BadPipe,
    mishap: Mishap | undefined,
  ): void {
    let position = Number(query.get('resourceVersion'));
    if (position < this.compactedVersion) {
      sendStatus(response, 410);
      return;
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const wake = () => {
      for (const { version, type, object } of this.history) {
        if (version <= position) continue;
        position = version;
        pipe.write(`${JSON.stringify({ type, object })}\n`);
      }
    };
    this.#wakers.add(wake);
    response.on('close', () => this.#wakers.delete(wake));
    if (mishap?.type === 'garbage') pipe.write(mishap.text);
    if (mishap?.type === 'error-event') {
      const object = { kind: 'Status', apiVersion: 'v1', code: mishap.code, message: 'scripted' };
      pipe.write(`${JSON.stringify({ type: 'ERROR', object })}\n`);
    }
    wake();
  }
}

/** Writes to a response what the mishap lets through, in order, a piece per turn of the event loop. */
class BadPipe {
  readonly #response: ServerResponse;
  readonly #mishap: Mishap | undefined;
  #queue: Buffer = Buffer.alloc(0);
  #sentBytes = 0;
  #isEnding = false;
  #isRunning = false;
  #isBroken = false;

  constructor(response: ServerResponse, mishap: Mishap | undefined) {
    this.#response = response;
    this.#mishap = mishap;
    this.#run();
  }

  write(text: string): void {
    if (this.#isBroken) return;
    this.#queue = Buffer.concat([this.#queue, Buffer.from(text)]);
    this.#run();
  }

  end(): void {
    this.#isEnding = true;
    this.#run();
  }

  #run(): void {
    if (this.#isRunning || this.#isBroken) return;
    this.#isRunning = true;
    setImmediate(() => {
      this.#isRunning = false;
      this.#step();
    });
  }

  #step(): void {
    const mishap = this.#mishap;
    let size = this.#queue.length;
    if (mishap?.type === 'slow') size = Math.min(size, mishap.chunkBytes);
    const isCutting = mishap?.type === 'cut' || mishap?.type === 'end';
    if (isCutting) size = Math.min(size, mishap.afterBytes - this.#sentBytes);
    const piece = this.#queue.subarray(0, size);
    this.#queue = this.#queue.subarray(size);
    this.#sentBytes += size;
    if (size > 0) this.#response.write(piece);
    if (isCutting && this.#sentBytes >= mishap.afterBytes) {
      this.#isBroken = true;
      if (mishap.type === 'end') this.#response.end();
      // After the bytes before have had their turn on the wire.
      else setImmediate(() => this.#response.destroy());
    } else if (this.#queue.length > 0) this.#run();
    else if (this.#isEnding) this.#response.end();
  }
}

function sendStatus(response: ServerResponse, code: number, headers = {}): void {
  response.writeHead(code, { 'content-type': 'application/json', ...headers });
  const status = { kind: 'Status', apiVersion: 'v1', status: 'Failure', code, message: 'scripted' };
  response.end(JSON.stringify(status));
}
