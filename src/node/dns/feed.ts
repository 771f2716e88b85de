/** Keeps the zone as the caches of the API's objects are. */
import type { Namespace } from '#api/core/v1/namespace.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import { type EndpointSlice, SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import { objectKey } from '#api/meta.ts';
import type { Cache, CacheChange } from '#client/port.ts';
import { explainError } from '#lib/errors.ts';
import { type Ip, parseIp } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import type { Name } from '#wire/dns/name.ts';
import { aliasesOfPod } from '../aliases.ts';
import type { DnsConfig, PodMode } from './config.ts';
import { NO_SETS } from './sets.ts';
import type { NameChange, Zone } from './zone.ts';

/**
 * How long an agent that remembers names waits for the API before it says of others that they do not exist. In this time
 * they get SERVFAIL, and clients ask again.
 */
const GRACE_MS = 5000;
/** Of the main thread's time, when the zone is filled. */
const MAX_PIECE_MS = 2;
/** Which pod or endpoint change led to this slice, as an RFC 3339 time. */
const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';

export interface ZoneFeedOptions {
  readonly zone: Zone;
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  /** Without it a namespace exists while a service is in it. */
  readonly namespaces?: Cache<Namespace> | undefined;
  /** Pods with names of their own. */
  readonly aliased?: Cache<Pod> | undefined;
  /** All pods of the cluster; asked for when names of pods are to be verified, and ended when not any more. */
  readonly openPods?: (() => Cache<Pod> & AsyncDisposable) | undefined;
  /** What the agent before this one knew; it holds until the API has told all. */
  readonly remembered?: readonly NameChange[];
  readonly graceMs?: number;
  /** How long the zone is filled at a stretch. */
  readonly pieceMs?: number;
  /** A headless service's endpoints changed so long ago and are in the zone now. */
  readonly onProgrammed: (durationS: number) => void;
  readonly log: Logger;
}

export class ZoneFeed implements Disposable {
  readonly #options: ZoneFeedOptions;
  readonly #stops: (() => void)[] = [];
  /** Slices by the key of their service. */
  readonly #slices = new Map<string, Map<string, EndpointSlice>>();
  #publish: (changes: readonly NameChange[]) => void = () => undefined;
  #remembered: ReadonlyMap<Name, NameChange>;
  #podMode: PodMode = 'disabled';
  #pods: { cache: Cache<Pod> & AsyncDisposable; stop: () => void } | undefined;
  #closed = false;
  /** The slices are known by their services; from now on changes are followed. */
  #indexed = false;
  #filled = false;
  #isGraceOver = false;
  /** The SOA's serial: the time of the last change in seconds, or one more than the one before. */
  serial = Math.floor(Date.now() / 1000);

  constructor(options: ZoneFeedOptions) {
    this.#options = options;
    this.#remembered = new Map((options.remembered ?? []).map((change) => [change.name, change]));
  }

  /** Whether all that the API has is in the zone. */
  get isCurrent(): boolean {
    return this.#filled;
  }

  /** Whether what is not known does not exist: the API has told all, or had to an agent before. */
  get synced(): boolean {
    return this.#filled || this.#isGraceOver;
  }

  /** Every name there is now: of the zone, and until the API has told all, what is remembered. */
  *all(): IterableIterator<NameChange> {
    const own = new Set<Name>();
    for (const change of this.#options.zone.all()) {
      own.add(change.name);
      // Until the first sync the zone has only names of its own, which may be empty where more is remembered.
      if (change.sets === NO_SETS && this.#remembered.has(change.name)) own.delete(change.name);
      else yield change;
    }
    for (const [name, change] of this.#remembered) if (!own.has(name)) yield change;
  }

  start(publish: (changes: readonly NameChange[]) => void): void {
    const { services, slices, namespaces, aliased, log } = this.#options;
    this.#publish = publish;
    if (aliased !== undefined)
      this.#stops.push(aliased.onChange(({ key, current }) => this.#onAliased(key, current)));
    this.#stops.push(slices.onChange((change) => this.#onSlice(change)));
    this.#stops.push(services.onChange(({ key }) => this.#onService(key)));
    if (namespaces !== undefined)
      this.#stops.push(namespaces.onChange(({ key, current }) => this.#onNamespace(key, current)));
    if (this.#remembered.size > 0) {
      const timer = setTimeout(() => {
        this.#isGraceOver = true;
        this.#publish([]);
      }, this.#options.graceMs ?? GRACE_MS);
      this.#stops.push(() => clearTimeout(timer));
    }
    const caches = [services, slices, namespaces, aliased];
    Promise.all(caches.map((cache) => cache?.synced())).then(
      () => this.#fill(),
      (error: unknown) => log.error({ err: error }, 'DNS gets no services: a cache ended'),
    );
  }

  /** Static entries and names of pods. */
  configure(config: DnsConfig): void {
    const { zone } = this.#options;
    const changes = zone.setHosts(config.hosts);
    if (config.pods !== this.#podMode) {
      this.#podMode = config.pods;
      changes.push(...zone.setPodNames(config.pods !== 'disabled'));
      changes.push(...this.#followPods());
    }
    this.#tell(changes);
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    for (const stop of this.#stops) stop();
    this.#closePods();
  }

  /**
   * The caches are full. A service goes into the zone with all of its slices, so that no name is ever answered from half
   * of them; what changes meanwhile is followed at once.
   */
  #fill(): void {
    if (this.#closed || this.#indexed) return;
    const { zone, services, slices, namespaces } = this.#options;
    this.#slices.clear();
    for (const slice of slices.values()) this.#index(slice);
    this.#indexed = true;
    for (const namespace of namespaces?.values() ?? [])
      this.#tell(zone.setNamespace(namespace.metadata.name, true));
    this.#fillPiece([...services.values()].map(objectKey), 0);
  }

  /** Some thousand services take longer than the agent's other work, and forwarded queries, should wait. */
  #fillPiece(keys: readonly string[], from: number): void {
    if (this.#closed) return;
    const { services, pieceMs = MAX_PIECE_MS } = this.#options;
    const endMs = performance.now() + pieceMs;
    const changes: NameChange[] = [];
    // One by one: a service's changes may be more than fit on the stack as arguments.
    const keep = (some: readonly NameChange[]) => {
      for (const change of some) changes.push(change);
    };
    let at = from;
    do {
      const key = keys[at];
      if (key !== undefined) keep(this.#set(key, services.get(key)));
      at++;
    } while (at < keys.length && performance.now() < endMs);
    if (at < keys.length) {
      this.#tell(changes);
      setImmediate(() => this.#fillPiece(keys, at));
      return;
    }
    // After the services, which keep a name that both have.
    for (const pod of this.#options.aliased?.values() ?? [])
      keep(this.#options.zone.setAliases(objectKey(pod), aliasesOfPod(pod), addressesOf(pod)));
    this.#filled = true;
    keep(this.#forget());
    this.serial = Math.max(this.serial + 1, Math.floor(Date.now() / 1000));
    this.#publish(changes);
  }

  /** What was remembered and is not so any more. Names that exist were or will be published as they are. */
  #forget(): NameChange[] {
    if (this.#remembered.size === 0) return [];
    const gone = new Map(this.#remembered);
    for (const { name } of this.#options.zone.all()) gone.delete(name);
    this.#remembered = new Map();
    return [...gone.keys()].map((name) => ({ name, sets: undefined }));
  }

  #onService(key: string): void {
    // Before that #fill() will read all of it.
    if (this.#indexed) this.#tell(this.#set(key, this.#options.services.get(key)));
  }

  #onNamespace(name: string, current: Namespace | undefined): void {
    if (this.#indexed) this.#tell(this.#options.zone.setNamespace(name, current !== undefined));
  }

  #onAliased(key: string, pod: Pod | undefined): void {
    if (!this.#filled) return;
    const addresses = pod === undefined ? [] : addressesOf(pod);
    this.#tell(
      this.#options.zone.setAliases(key, pod === undefined ? [] : aliasesOfPod(pod), addresses),
    );
  }

  #onSlice({ old, current }: CacheChange<EndpointSlice>): void {
    if (!this.#indexed) return;
    const before = old === undefined ? undefined : serviceKeyOf(old);
    if (old !== undefined && before !== undefined)
      this.#slices.get(before)?.delete(old.metadata.name);
    if (before !== undefined && this.#slices.get(before)?.size === 0) this.#slices.delete(before);
    const after = current === undefined ? undefined : this.#index(current);
    for (const key of new Set([before, after])) if (key !== undefined) this.#onService(key);
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

  #tell(changes: readonly NameChange[]): void {
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
      this.#options.onProgrammed(Math.max(0, Date.now() - triggered) / 1000);
  }

  /** Begins or ends to follow all pods of the cluster. @returns the names that go */
  #followPods(): NameChange[] {
    const { zone, openPods } = this.#options;
    this.#closePods();
    if (this.#podMode !== 'verified' || openPods === undefined)
      return [...zone.pods()].flatMap((key) => zone.setPod(key, []));
    const cache = openPods();
    const stop = cache.onChange(({ key, current }) =>
      this.#tell(zone.setPod(key, current === undefined ? [] : addressesOf(current))),
    );
    this.#pods = { cache, stop };
    for (const pod of cache.values()) this.#tell(zone.setPod(objectKey(pod), addressesOf(pod)));
    return [];
  }

  #closePods(): void {
    const pods = this.#pods;
    this.#pods = undefined;
    pods?.stop();
    pods?.cache[Symbol.asyncDispose]().then(undefined, (error: unknown) => {
      this.#options.log.error({ reason: explainError(error) }, 'the cache of pods did not end');
    });
  }
}

/** Pods that have ended keep their address in their status, and may no longer have it. */
function addressesOf(pod: Pod): Ip[] {
  if (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return [];
  const texts = pod.status?.podIPs?.map(({ ip }) => ip) ?? [pod.status?.podIP];
  return texts.flatMap((text) => parseIp(text ?? '') ?? []);
}

function serviceKeyOf(slice: EndpointSlice): string | undefined {
  const name = slice.metadata.labels?.[SERVICE_NAME_LABEL];
  return name === undefined ? undefined : `${slice.metadata.namespace ?? 'default'}/${name}`;
}
