/**
 * Answers load balancers outside that ask which nodes have endpoints of a service with `externalTrafficPolicy: Local`.
 * Listens on the node's own addresses only, and tells nothing but a count.
 */
import { createServer, type Server } from 'node:http';
import type { Service } from '#api/core/v1/service.ts';
import { type EndpointSlice, SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import { type Index, indexCache } from '#client/cache.ts';
import type { Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import {
  answerHealthCheck,
  countLocalEndpoints,
  type HealthCheckPort,
  planHealthCheckPorts,
} from './plan.ts';

/** Per port: a load balancer asks from a few places; whoever opens more keeps only himself waiting. */
const MAX_CONNECTIONS_PER_PORT = 64;
/** A client that is slower has other intentions. */
const REQUEST_TIMEOUT_MS = 5_000;

export interface HealthCheckPortsComponents {
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  readonly isProxyHealthy: () => boolean;
  readonly log: Logger;
  readonly clock?: Clock;
}

interface Listening {
  readonly wanted: HealthCheckPort;
  readonly servers: readonly Server[];
}

export class HealthCheckPorts implements AsyncDisposable {
  readonly #c: HealthCheckPortsComponents;
  readonly #init: { readonly nodeName: string; readonly addresses: readonly Ip[] };
  readonly #loop: SyncLoop;
  readonly #slicesOf: Index<EndpointSlice>;
  readonly #listening = new Map<number, Listening>();
  readonly #stops: (() => void)[] = [];

  constructor(
    components: HealthCheckPortsComponents,
    init: { readonly nodeName: string; readonly addresses: readonly Ip[] },
  ) {
    this.#c = components;
    this.#init = init;
    const { log, clock } = components;
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'health check ports',
      log,
      ...(clock === undefined ? {} : { clock }),
    });
    this.#slicesOf = indexCache(components.slices, 'service', (slice) => [
      `${slice.metadata.namespace ?? ''}/${slice.metadata.labels?.[SERVICE_NAME_LABEL] ?? ''}`,
    ]);
  }

  /** Begins; returns at once. */
  start(): void {
    const hasPort = (service: Service | undefined) => service?.spec.healthCheckNodePort;
    this.#stops.push(
      this.#c.services.onChange(({ old, current }) => {
        if (hasPort(old) || hasPort(current)) this.#loop.trigger();
      }),
    );
    this.#loop.trigger();
  }

  /** Why a port is not answered on, or undefined. */
  get problem(): string | undefined {
    return this.#loop.lastError;
  }

  settled(): Promise<void> {
    return this.#loop.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#loop[Symbol.asyncDispose]();
    for (const { servers } of this.#listening.values()) await closeAll(servers);
    this.#slicesOf[Symbol.dispose]();
  }

  async #sync(): Promise<void> {
    await this.#c.services.synced();
    const wanted = planHealthCheckPorts(this.#c.services.values());
    for (const [port, { wanted: was, servers }] of this.#listening) {
      const now = wanted.get(port);
      if (now?.namespace === was.namespace && now.name === was.name) continue;
      this.#listening.delete(port);
      await closeAll(servers);
    }
    const failures: string[] = [];
    for (const [port, it] of wanted)
      if (!this.#listening.has(port))
        await this.#listen(it).catch((error: unknown) => failures.push(explainError(error)));
    if (failures.length > 0)
      throw new Error(`cannot answer on health check ports: ${failures.join('; ')}`);
  }

  async #listen(wanted: HealthCheckPort): Promise<void> {
    const servers: Server[] = [];
    try {
      for (const address of this.#init.addresses)
        servers.push(await this.#listenOn(address, wanted));
    } catch (error) {
      await closeAll(servers);
      throw error;
    }
    this.#listening.set(wanted.port, { wanted, servers });
  }

  #listenOn(address: Ip, wanted: HealthCheckPort): Promise<Server> {
    const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
      const slices = this.#slicesOf.get(`${wanted.namespace}/${wanted.name}`);
      const count = countLocalEndpoints(slices, this.#init.nodeName);
      const answer = answerHealthCheck(wanted, count, this.#c.isProxyHealthy());
      response.writeHead(answer.status, { ...answer.headers, connection: 'close' });
      response.end(request.method === 'HEAD' ? undefined : answer.body);
    });
    server.maxConnections = MAX_CONNECTIONS_PER_PORT;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(wanted.port, address, () => {
        server.off('error', reject);
        server.on('error', (error) =>
          this.#c.log.warn({ reason: explainError(error), port: wanted.port }, 'health check port'),
        );
        resolve(server);
      });
    });
  }
}

async function closeAll(servers: readonly Server[]): Promise<void> {
  for (const server of servers) {
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}
