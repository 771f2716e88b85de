/** For tests: a real server on a free port of 127.0.0.1, with certificates for an administrator and for nodes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Clock } from '#lib/clock.ts';
import { cidr, ip } from '#lib/ip.ts';
import { type Logger, silentLogger } from '#lib/log.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import type { ClusterConfiguration } from './configuration.ts';
import { type Ca, openCa } from './pki/ca.ts';
import { issueClientCertificate, issueServerCertificate } from './pki/issue.ts';
import { createJoinHandler } from './pki/join.ts';
import { createTokenHandler } from './pki/tokens.ts';
import { type ApiServer, startApiServer } from './server.ts';

export interface Identity {
  readonly cert: string;
  readonly key: string;
}

export interface Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** The body as JSON. */
  json(): Record<string, unknown> & { items: Record<string, unknown>[] };
}

export interface Call {
  /** Missing: anonymous. */
  readonly as?: Identity;
  /** Text is sent as it is, everything else as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ServerFixture extends AsyncDisposable {
  readonly server: ApiServer;
  readonly store: Store;
  readonly ca: Ca;
  readonly admin: Identity;
  readonly directory: string;
  identity(commonName: string, organizations: readonly string[]): Promise<Identity>;
  /** One request over HTTP/1.1. */
  call(method: string, path: string, call?: Call): Promise<Response>;
  options(method: string, path: string, call?: Call): RequestOptions;
}

export const CONFIGURATION: ClusterConfiguration = {
  serviceCidrs: [cidr('10.96.0.0/16')],
  dnsServiceIps: [ip('10.96.0.10')],
  pools: [{ name: 'default', cidr: cidr('10.244.0.0/16') }],
  clusterDomain: 'cluster.local',
};

export async function startServerFixture(
  options: {
    store?: Store;
    clock?: Clock;
    log?: Logger;
    port?: number;
    directory?: string;
    maxConnections?: number;
  } = {},
): Promise<ServerFixture> {
  await using cleanup = new AsyncDisposableStack();
  const directory = options.directory ?? mkdtempSync(join(tmpdir(), 'tulle-server-'));
  if (options.directory === undefined)
    cleanup.defer(() => rmSync(directory, { recursive: true, force: true }));
  const store = options.store ?? cleanup.use(openMemoryStore());
  const ca = await openCa({ directory: join(directory, 'pki') });
  const address = ip('127.0.0.1');
  const certificate = await issueServerCertificate(ca, {
    commonName: 'tulle-server',
    names: ['localhost'],
    ips: [address],
  });
  const server = cleanup.use(
    await startApiServer({
      store,
      pki: {
        serverCertificatePem: certificate.certificatePem,
        serverKeyPem: certificate.keyPem,
        caCertificatesPem: [ca.issuingPem],
        caParentsPem: [ca.shownPem, ca.certificatePem],
      },
      listen: { host: address, port: options.port ?? 0 },
      configuration: CONFIGURATION,
      caHandler: async () => ca.certificatePem,
      joinHandler: createJoinHandler({ ca, store }),
      tokenHandler: createTokenHandler({ ca, store }),
      log: options.log ?? silentLogger,
      ...(options.clock === undefined ? {} : { clock: options.clock }),
      ...(options.maxConnections === undefined ? {} : { maxConnections: options.maxConnections }),
    }),
  );
  const identity = async (commonName: string, organizations: readonly string[]) => {
    const issued = await issueClientCertificate(ca, { commonName, organizations });
    return { cert: issued.certificatePem, key: issued.keyPem };
  };
  const admin = await identity('admin', ['system:masters']);
  const agent = new Agent({ keepAlive: true });
  cleanup.defer(() => agent.destroy());
  const requestOptions = (method: string, path: string, call: Call = {}): RequestOptions => ({
    ...server.address,
    ...call.as,
    agent,
    method,
    path,
    ca: ca.certificatePem,
    headers: {
      ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...call.headers,
    },
  });
  const owned = cleanup.move();
  return {
    server,
    store,
    ca,
    admin,
    directory,
    identity,
    options: requestOptions,
    call: (method, path, call = {}) => send(requestOptions(method, path, call), call.body),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function send(options: RequestOptions, body: unknown): Promise<Response> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(options, (response) => {
      text(response).then(
        (content) =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: content,
            json: () => JSON.parse(content),
          }),
        reject,
      );
    });
    request.on('error', reject);
    if (body === undefined) request.end();
    else
      request.end(typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body));
  });
}
