/**
 * The server's socket: TLS with optional client certificates, HTTP/2 and HTTP/1.1, limits, and an end that lets requests
 * finish. HTTP/2 because an agent holds about ten watches: one connection instead of ten.
 */
import { constants as cryptoConstants } from 'node:crypto';
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from 'node:http2';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { explainError, UserError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import {
  MAX_HANDSHAKE_MS,
  MAX_HEADER_BYTES,
  MAX_IDLE_MS,
  MAX_STREAMS_PER_CONNECTION,
  STOP_GRACE_MS,
} from './limits.ts';

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  /** Sockets that listen already, handed over by whoever started us: served beside the own one. */
  readonly inherited?: readonly number[];
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Authorities, with those above them: what they signed is `authorized`; whom to believe is decided later. */
  readonly clientCaPem: readonly string[];
  readonly log: Logger;
  /** Called with every connection, before TLS. */
  readonly onConnection: (socket: Socket) => void;
  /** Answers a request. Must not reject. */
  readonly onRequest: (request: Http2ServerRequest, response: Http2ServerResponse) => void;
}

export interface Listener extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Shows another certificate from the next connection on. */
  useCertificate(certificate: Certificate): void;
}

export interface Certificate {
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** Starts to listen. @throws UserError if the address cannot be listened on */
export async function startListener(options: ListenerOptions): Promise<Listener> {
  const secure = ({ certificatePem, keyPem }: Certificate) => ({
    key: keyPem,
    cert: certificatePem,
    ca: [...options.clientCaPem],
    minVersion: 'TLSv1.2' as const,
    // Each connection proves its certificate anew: a resumed session would outlive the authority's decision.
    secureOptions: cryptoConstants.SSL_OP_NO_TICKET,
  });
  const server = createSecureServer({
    ...secure(options),
    allowHTTP1: true,
    // Who shows no certificate is anonymous; who shows a bad one gets 401 with the reason, not a broken connection.
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: MAX_HANDSHAKE_MS,
    settings: {
      maxConcurrentStreams: MAX_STREAMS_PER_CONNECTION,
      maxHeaderListSize: MAX_HEADER_BYTES,
      enablePush: false,
    },
    // The types know only some of the options that HTTP/1.1 connections take.
    http1Options: { keepAliveTimeout: MAX_IDLE_MS, maxHeaderSize: MAX_HEADER_BYTES } as object,
  });
  const connections = trackConnections(server, options);
  server.on('request', options.onRequest);
  await listen(server, options);
  const inherited = await Promise.all(
    (options.inherited ?? []).map((fd) => acceptFrom(fd, server)),
  );
  const address = server.address() as AddressInfo;
  return {
    host: address.address,
    port: address.port,
    useCertificate: (certificate) => server.setSecureContext(secure(certificate)),
    async [Symbol.asyncDispose]() {
      for (const other of inherited) other.close();
      await close(server, connections);
    },
  };
}

interface Connections {
  readonly sockets: Set<Socket>;
  readonly sessions: Set<ServerHttp2Session>;
}

function trackConnections(
  server: Http2SecureServer,
  { log, onConnection }: ListenerOptions,
): Connections {
  const sockets = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  server.on('connection', (socket: Socket) => {
    onConnection(socket);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    closeWhenIdle(session);
  });
  const note = (what: string) => (error: unknown) =>
    log.debug({ error: explainError(error) }, `api server: ${what}`);
  server.on('tlsClientError', note('a TLS handshake failed'));
  server.on('sessionError', note('an HTTP/2 connection failed'));
  server.on('clientError', (error: Error, socket: TLSSocket) => {
    note('a request could not be read')(error);
    socket.destroy();
  });
  return { sockets, sessions };
}

/** A session with open streams is in use even if no byte passes: its watches have their own signs of life. */
function closeWhenIdle(session: ServerHttp2Session): void {
  let streams = 0;
  session.on('stream', (stream) => {
    streams++;
    stream.once('close', () => streams--);
  });
  session.setTimeout(MAX_IDLE_MS, () => {
    if (streams === 0) session.close();
  });
}

function listen(server: Http2SecureServer, { host, port }: ListenerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) =>
      reject(
        new UserError(`Cannot listen on ${host}:${port}: ${error.message}`, {
          cause: error,
          hint:
            error.code === 'EADDRINUSE'
              ? 'Another program, perhaps another server of this cluster, listens there: stop it, or choose another port.'
              : 'Choose an address that this machine has, and a port that you may use.',
        }),
      );
    server.once('error', onError);
    server.listen({ host, port }, () => {
      server.off('error', onError);
      resolve();
    });
  });
}

/** Hands the connections of a socket that listens already to the server. @throws UserError if it is none */
function acceptFrom(fd: number, server: Http2SecureServer): Promise<Server> {
  const other = createServer((socket) => server.emit('connection', socket));
  return new Promise((resolve, reject) => {
    other.once('error', (cause) =>
      reject(
        new UserError(`Cannot take over the listening socket ${fd} (LISTEN_FDS)`, {
          cause,
          hint: 'Start the server without LISTEN_FDS, or hand over a socket that listens.',
        }),
      ),
    );
    other.listen({ fd }, () => resolve(other));
  });
}

/** How often a stopping server looks for HTTP/1.1 connections that have become idle. */
const SWEEP_MS = 50;

async function close(server: Http2SecureServer, connections: Connections): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  for (const session of connections.sessions) session.close();
  // The method is there since HTTP/1.1 connections of such servers are tracked; its type is not yet.
  const sweep = () =>
    (server as Http2SecureServer & { closeIdleConnections(): void }).closeIdleConnections();
  sweep();
  const sweeper = setInterval(sweep, SWEEP_MS);
  const last = setTimeout(() => {
    for (const socket of connections.sockets) socket.destroy();
  }, STOP_GRACE_MS);
  await closed;
  clearInterval(sweeper);
  clearTimeout(last);
}
