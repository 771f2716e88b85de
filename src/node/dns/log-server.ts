/**
 * The query log of one pod, on demand: `tulle dns log`. A unix socket that only root may open, because who asks for which
 * names is nobody else's business.
 *
 * ```text
 *   client  {"pod":"shop/cart-1"}\n
 *   server  {"atMs":…,"name":"db.shop.svc.cluster.local.","type":"A","rcode":"NOERROR",…}\n     until the client ends
 * ```
 */
import { chmodSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Logger } from '#lib/log.ts';
import { RCODE_NAMES, TYPE_NAMES } from '#wire/dns/constants.ts';
import type { LoggedQuery } from './server/request.ts';

const MAX_REQUEST_BYTES = 1024;
const MAX_FOLLOWERS = 16;
/** A follower that does not read is left out of lines until it does. */
const MAX_UNSENT_BYTES = 1024 * 1024;

export interface QueryLogServerOptions {
  readonly path: string;
  /** @returns `undefined` while there is no DNS server */
  readonly follow: (
    pod: string,
    listener: (query: LoggedQuery) => void,
  ) => (() => void) | undefined;
  readonly log: Logger;
}

export async function startQueryLogServer(
  options: QueryLogServerOptions,
): Promise<AsyncDisposable> {
  const { path, log } = options;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    serve(socket, options);
  });
  server.maxConnections = MAX_FOLLOWERS;
  mkdirSync(dirname(path), { recursive: true });
  // Of an agent that was killed: two agents cannot run at once, the status address would collide.
  if (existsSync(path)) rmSync(path);
  const mask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
  } finally {
    process.umask(mask);
  }
  server.on('error', (error) => log.error({ err: error }, 'the DNS log socket failed'));
  return {
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function serve(socket: Socket, { follow }: QueryLogServerOptions): void {
  let text = '';
  let stop: (() => void) | undefined;
  const refuse = (error: string) => socket.end(`${JSON.stringify({ error })}\n`);
  socket.on('close', () => stop?.());
  socket.setEncoding('utf8');
  socket.on('data', (chunk) => {
    if (stop !== undefined) return;
    text += String(chunk);
    if (text.length > MAX_REQUEST_BYTES) return refuse('the request is too long');
    if (!text.includes('\n')) return;
    const pod = podOf(text);
    if (pod === undefined) return refuse('expected {"pod":"namespace/name"}');
    stop = follow(pod, (query) => {
      if (socket.writableLength <= MAX_UNSENT_BYTES)
        socket.write(`${JSON.stringify(shown(query))}\n`);
    });
    if (stop === undefined) refuse('the DNS server is not running yet');
  });
}

/** With the mnemonics of type and rcode. */
function shown(query: LoggedQuery): object {
  return {
    ...query,
    type: TYPE_NAMES[query.type] ?? `TYPE${query.type}`,
    rcode: RCODE_NAMES[query.rcode] ?? String(query.rcode),
  };
}

function podOf(text: string): string | undefined {
  try {
    const { pod } = JSON.parse(text) as { pod?: unknown };
    return typeof pod === 'string' && /^[^/]+\/[^/]+$/.test(pod) ? pod : undefined;
  } catch {
    return undefined; // no JSON: refused by the caller
  }
}
