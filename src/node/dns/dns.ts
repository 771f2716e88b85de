/**
 * The agent's DNS feature: answers for the cluster's names, forwards and caches the rest.
 *
 * Names come from the caches of Services and EndpointSlices. While the API is away the caches keep what they know, and so
 * do the answers; before the caches are full for the first time, cluster names get SERVFAIL, never "does not exist".
 */
import type { Registry } from 'prom-client';
import type { Service } from '#api/core/v1/service.ts';
import { type EndpointSlice, SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import { objectKey } from '#api/meta.ts';
import type { Cache, CacheChange } from '#client/port.ts';
import { UserError } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { canonicalName, parseName } from '#wire/dns/name.ts';
import { Forwarder } from './forward.ts';
import { createDnsMetrics, type DnsMetrics } from './metrics.ts';
import { hostUpstreams } from './resolv-conf.ts';
import { DnsServer } from './server/server.ts';
import type { Upstream } from './upstream.ts';
import { type NameChange, Zone } from './zone.ts';

export type { Upstream };

const DNS_PORT = 53;
const DEFAULT_CLUSTER_DOMAIN = 'cluster.local';
/** How long the host's resolv.conf is believed before it is read again. */
const HOST_UPSTREAMS_MS = 5000;
/** Which pod or endpoint change led to this slice, as an RFC 3339 time. */
const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';

export interface DnsOptions {
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  /** Addresses to answer on, over UDP and TCP. They may appear on the machine later than the server starts. */
  readonly listen: readonly Ip[];
  /** Default 53. 0 takes free ports: for tests. */
  readonly port?: number;
  /** Default `cluster.local`. */
  readonly clusterDomain?: string;
  /** Default: the name servers of the host's resolv.conf, followed as it changes. */
  readonly upstreams?: readonly Upstream[];
  readonly log: Logger;
  readonly registry: Registry;
}

export interface DnsStatus {
  /** Sockets that are open: `10.96.0.10:53/udp`. */
  readonly listening: readonly string[];
  /** Sockets that could not be opened, with the reason. They are tried again. */
  readonly failing: readonly { readonly socket: string; readonly reason: string }[];
  /** Whether all of the API's services were in at least once; before that cluster names get SERVFAIL. */
  readonly synced: boolean;
  /** Count of names that exist in the cluster domain and of reverse names. */
  readonly names: number;
  /** Count of queries answered since start, a second old at most. */
  readonly queries: number;
  readonly upstreams: readonly Upstream[];
  /** How often the worker had to be started again after a crash. */
  readonly restarts: number;
}

export interface Dns extends AsyncDisposable {
  status(): DnsStatus;
}

/**
 * Starts the DNS server. Returns at once; sockets open and names come as they can, see {@link Dns.status}.
 * @throws UserError if the cluster domain is no domain name, or there is nothing to listen on
 */
export function startDns(options: DnsOptions): Dns {
  const domain = parseName(options.clusterDomain ?? DEFAULT_CLUSTER_DOMAIN);
  if (domain === undefined || domain === '.')
    throw new UserError(`cluster domain: "${options.clusterDomain}" is not a domain name`, {
      hint: 'Give a name such as "cluster.local".',
    });
  if (options.listen.length === 0)
    throw new UserError('DNS has no address to listen on', {
      hint: 'Give the DNS service’s cluster address.',
    });
  const metrics = createDnsMetrics(options.registry);
  const upstreams = upstreamSource(options);
  const { log } = options;
  const forwarder = new Forwarder({
    upstreams,
    observer: metrics,
    onFailure: ({ name, type }, reason) =>
      log.debug({ name, type, reason }, 'no upstream answered a query'),
  });
  const zone = new Zone(canonicalName(domain), options.listen);
  const feed = new ZoneFeed({ ...options, zone, metrics });
  const server = new DnsServer({
    listen: options.listen,
    port: options.port ?? DNS_PORT,
    zone: zone.domain,
    forwarder,
    log,
    snapshot: () => ({ changes: zone.all(), serial: feed.serial, synced: feed.synced }),
    onStats: (stats) => metrics.add(stats),
  });
  feed.start((changes) => server.apply(changes, { serial: feed.serial, synced: feed.synced }));
  return {
    status: () => ({
      listening: server.listening,
      failing: server.failing,
      synced: feed.synced,
      names: zone.size,
      queries: metrics.queries,
      upstreams: upstreams(),
      restarts: server.restarts,
    }),
    async [Symbol.asyncDispose]() {
      feed[Symbol.dispose]();
      // First the forwarder: what waits for it must not hold up the server.
      await forwarder[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Keeps the zone as the caches are. */
class ZoneFeed implements Disposable {
  readonly #options: DnsOptions & { zone: Zone; metrics: DnsMetrics };
  readonly #stops: (() => void)[] = [];
  /** Slices by the key of their service. */
  readonly #slices = new Map<string, Map<string, EndpointSlice>>();
  #publish: (changes: readonly NameChange[]) => void = () => undefined;
  #closed = false;
  synced = false;
  /** The SOA's serial: the time of the last change in seconds, or one more than the one before. */
  serial = Math.floor(Date.now() / 1000);

  constructor(options: DnsOptions & { zone: Zone; metrics: DnsMetrics }) {
    this.#options = options;
  }

  start(publish: (changes: readonly NameChange[]) => void): void {
    const { services, slices, log } = this.#options;
    this.#publish = publish;
    this.#stops.push(slices.onChange((change) => this.#onSlice(change)));
    this.#stops.push(services.onChange((change) => this.#onService(change.key)));
    Promise.all([services.synced(), slices.synced()]).then(
      () => this.#fill(),
      (error: unknown) => log.error({ err: error }, 'DNS gets no services: a cache ended'),
    );
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    for (const stop of this.#stops) stop();
  }

  /** Both caches are full: everything goes out at once, so that no name is ever answered from half of its slices. */
  #fill(): void {
    if (this.#closed || this.synced) return;
    this.#slices.clear();
    for (const slice of this.#options.slices.values()) this.#index(slice);
    const changes: NameChange[] = [];
    for (const service of this.#options.services.values()) {
      const key = objectKey(service);
      // One by one: a service's changes may be more than fit on the stack as arguments.
      for (const change of this.#set(key, service)) changes.push(change);
    }
    this.synced = true;
    this.#publish(changes);
  }

  #onService(key: string): void {
    // Before the first sync #fill() will read all of it.
    if (!this.synced) return;
    this.#publishService(key);
  }

  #onSlice({ old, current }: CacheChange<EndpointSlice>): void {
    if (!this.synced) return;
    const before = old === undefined ? undefined : serviceKeyOf(old);
    if (old !== undefined && before !== undefined)
      this.#slices.get(before)?.delete(old.metadata.name);
    if (before !== undefined && this.#slices.get(before)?.size === 0) this.#slices.delete(before);
    const after = current === undefined ? undefined : this.#index(current);
    for (const key of new Set([before, after])) if (key !== undefined) this.#publishService(key);
    if (current !== undefined && after !== undefined) this.#observeProgramming(after, current);
  }

  /** @returns the key of the slice's service; `undefined` if it belongs to none */
  #index(slice: EndpointSlice): string | undefined {
    const key = serviceKeyOf(slice);
    if (key === undefined) return undefined;
    const known = this.#slices.get(key);
    if (known === undefined) this.#slices.set(key, new Map([[slice.metadata.name, slice]]));
    else known.set(slice.metadata.name, slice);
    return key;
  }

  #publishService(key: string): void {
    const changes = this.#set(key, this.#options.services.get(key));
    if (changes.length === 0) return;
    this.serial = Math.max(this.serial + 1, Math.floor(Date.now() / 1000));
    this.#publish(changes);
  }

  #set(key: string, service: Service | undefined): NameChange[] {
    const slices = this.#slices.get(key)?.values() ?? [];
    return this.#options.zone.setService(key, service, [...slices]);
  }

  /** How old a change of endpoints is when it reaches the table; CoreDNS measures headless services only. */
  #observeProgramming(key: string, slice: EndpointSlice): void {
    if (this.#options.services.get(key)?.spec.clusterIP !== 'None') return;
    const triggered = Date.parse(slice.metadata.annotations?.[TRIGGER_TIME_ANNOTATION] ?? '');
    if (Number.isFinite(triggered))
      this.#options.metrics.programmed(Math.max(0, Date.now() - triggered) / 1000);
  }
}

function serviceKeyOf(slice: EndpointSlice): string | undefined {
  const name = slice.metadata.labels?.[SERVICE_NAME_LABEL];
  return name === undefined ? undefined : `${slice.metadata.namespace ?? 'default'}/${name}`;
}

/** Fixed upstreams, or the host's, read again from time to time. Never ourselves. */
function upstreamSource(options: DnsOptions): () => readonly Upstream[] {
  const { listen, log } = options;
  const own = listen as readonly string[];
  const port = options.port ?? DNS_PORT;
  if (options.upstreams !== undefined) {
    const others = options.upstreams.filter((u) => !(own.includes(u.address) && u.port === port));
    return () => others;
  }
  let known: readonly Upstream[] = [];
  let readAtMs = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (now - readAtMs < HOST_UPSTREAMS_MS) return known;
    readAtMs = now;
    try {
      known = hostUpstreams({ own: listen });
    } catch (error) {
      log.warn(
        { err: error },
        'cannot read the host’s resolv.conf; its last name servers stay in use',
      );
    }
    return known;
  };
}
