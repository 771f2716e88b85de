/**
 * Keeps the EndpointSlices of every service with a selector equal to its pods. One change costs one service.
 *
 * There is no waiting for more changes: a pod that dies must be out of rotation at once. What arrives in one turn of the
 * event loop is one run, and what arrives while a service's write is under way is one more.
 */
import { type Node, ZONE_LABEL } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { type KubeObject, objectKey } from '#api/meta.ts';
import { type Index, indexCache } from '#client/cache.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { WorkQueue } from '#lib/work-queue.ts';
import { selectsPod } from './endpoints.ts';
import { planSlices } from './plan.ts';
import { serviceKeyOf, writeSlices } from './write-slices.ts';
import { WrittenSlices } from './written.ts';

/** Services written at the same time: hides the way to the server without flooding it after a restart. */
const CONCURRENT_SERVICES = 16;
/** A transition this long ago is not what has brought the change to us. */
const MAX_TRIGGER_AGE_MS = 60_000;

export interface EndpointSlicesOptions {
  readonly client: ApiClient;
  readonly services: Cache<Service>;
  readonly pods: Cache<Pod>;
  readonly nodes: Cache<Node>;
  /** Only ours: selected by the label {@link MANAGED_BY_LABEL}. */
  readonly slices: Cache<EndpointSlice>;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startEndpointSlices(options: EndpointSlicesOptions): EndpointSlices {
  return new EndpointSlices(options);
}

export class EndpointSlices implements AsyncDisposable {
  readonly #options: EndpointSlicesOptions;
  readonly #queue: WorkQueue;
  readonly #written: WrittenSlices;
  /** By one pair of the selector: `default/app=web`. */
  readonly #servicesBySelector: Index<Service>;
  /** By each label. */
  readonly #podsByLabel: Index<Pod>;
  readonly #slicesByService: Index<EndpointSlice>;
  /** When what led to a service's pending run happened, the oldest of it. Milliseconds since the epoch. */
  readonly #triggersMs = new Map<string, number>();
  readonly #stops: (() => void)[];
  #isReady = false;

  constructor(options: EndpointSlicesOptions) {
    const { services, pods, nodes, slices, log, clock } = options;
    this.#options = options;
    this.#written = new WrittenSlices((key) => slices.get(key));
    this.#queue = new WorkQueue((key) => this.#sync(key), {
      name: 'endpoint-slices',
      log,
      clock,
      concurrency: CONCURRENT_SERVICES,
    });
    // Before the listeners below, which look things up in them.
    this.#servicesBySelector = indexCache(services, 'selector', selectorKeys);
    this.#podsByLabel = indexCache(pods, 'labels', (pod) => pairKeys(pod, pod.metadata.labels));
    this.#slicesByService = indexCache(slices, 'service', (slice) => [serviceKeyOf(slice)]);
    this.#stops = [
      services.onChange(({ key }) => this.#changed(key, clock.now())),
      pods.onChange(({ old, current }) => this.#podChanged(old, current)),
      nodes.onChange(({ old, current }) => this.#nodeChanged(old, current)),
      slices.onChange(({ key, old, current }) => {
        if (this.#written.shown(key, current)) return;
        const slice = current ?? old;
        if (slice !== undefined) this.#changed(serviceKeyOf(slice), undefined);
      }),
    ];
    void this.#begin();
  }

  /** Services whose slices could not be written. */
  get failing(): readonly string[] {
    return this.#queue.failing;
  }

  /** Resolves when all that is known is written. */
  async settled(): Promise<void> {
    const { services, pods, nodes, slices } = this.#options;
    await Promise.all([services, pods, nodes, slices].map((cache) => cache.synced()));
    await this.#queue.idle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#queue[Symbol.asyncDispose]();
    this.#servicesBySelector[Symbol.dispose]();
    this.#podsByLabel[Symbol.dispose]();
    this.#slicesByService[Symbol.dispose]();
  }

  /** Until all is known, what is missing may only not have been listed yet: nothing is written. */
  async #begin(): Promise<void> {
    const { services, pods, nodes, slices } = this.#options;
    await Promise.all([services, pods, nodes, slices].map((cache) => cache.synced()));
    this.#isReady = true;
    for (const service of services.values()) this.#queue.add(objectKey(service));
    // Also services that vanished while nobody was looking.
    for (const key of this.#slicesByService.keys()) this.#queue.add(key);
  }

  #changed(serviceKey: string, causeMs: number | undefined): void {
    if (!this.#isReady) return;
    if (causeMs !== undefined) this.#remember(serviceKey, causeMs);
    this.#queue.add(serviceKey);
  }

  #remember(serviceKey: string, causeMs: number): void {
    const known = this.#triggersMs.get(serviceKey) ?? Infinity;
    this.#triggersMs.set(serviceKey, Math.min(known, causeMs));
  }

  #podChanged(old: Pod | undefined, current: Pod | undefined): void {
    if (!this.#isReady) return;
    const causeMs = triggerOf(old, current, this.#options.clock.now());
    const keys = new Set([...this.#servicesOf(old), ...this.#servicesOf(current)]);
    for (const key of keys) this.#changed(key, causeMs);
  }

  /** Zones hardly ever change: looking at all pods then is cheaper than an index always. */
  #nodeChanged(old: Node | undefined, current: Node | undefined): void {
    if (!this.#isReady || zoneOf(old) === zoneOf(current)) return;
    const name = (current ?? old)?.metadata.name;
    for (const pod of this.#options.pods.values())
      if (pod.spec.nodeName === name)
        for (const key of this.#servicesOf(pod)) this.#changed(key, undefined);
  }

  /** Keys of the services that select the pod. */
  *#servicesOf(pod: Pod | undefined): Iterable<string> {
    if (pod === undefined) return;
    for (const key of pairKeys(pod, pod.metadata.labels))
      for (const service of this.#servicesBySelector.get(key))
        if (selectsPod(service, pod)) yield objectKey(service);
  }

  /** The pods with the rarest of the selector's labels: a superset of those selected, and a small one. */
  #candidatesFor(service: Service | undefined): Iterable<Pod> {
    if (service === undefined) return [];
    const sets = pairKeys(service, service.spec.selector).map((key) => this.#podsByLabel.get(key));
    return (
      sets.reduce<ReadonlySet<Pod> | undefined>(
        (smallest, set) => (smallest === undefined || set.size < smallest.size ? set : smallest),
        undefined,
      ) ?? []
    );
  }

  async #sync(serviceKey: string): Promise<void> {
    const { client, services, nodes } = this.#options;
    const triggerMs = this.#triggersMs.get(serviceKey);
    this.#triggersMs.delete(serviceKey);
    const service = services.get(serviceKey);
    const plan = planSlices({
      service,
      pods: this.#candidatesFor(service),
      slices: this.#written.view(serviceKey, this.#slicesByService.get(serviceKey)),
      zoneOf: (nodeName) => zoneOf(nodes.get(nodeName)),
      triggerTime: triggerMs === undefined ? undefined : new Date(triggerMs).toISOString(),
    });
    try {
      await writeSlices({ client, written: this.#written }, serviceKey, plan);
    } catch (error) {
      if (triggerMs !== undefined) this.#remember(serviceKey, triggerMs);
      throw error;
    }
  }
}

function zoneOf(node: Node | undefined): string | undefined {
  return node?.metadata.labels?.[ZONE_LABEL];
}

/** `namespace/key=value` of each label. */
function pairKeys(object: KubeObject, labels: Record<string, string> | undefined): string[] {
  const { namespace } = object.metadata;
  return Object.entries(labels ?? {}).map(([key, value]) => `${namespace}/${key}=${value}`);
}

/** One pair is enough to find a service by the labels of a pod: a pod that is selected has all of them. */
function selectorKeys(service: Service): string[] {
  return pairKeys(service, service.spec.selector).slice(0, 1);
}

/**
 * When the change of a pod that we see now happened, as far as the pod tells.
 * @returns milliseconds since the epoch
 */
export function triggerOf(old: Pod | undefined, current: Pod | undefined, nowMs: number): number {
  const [before, after] = [old, current].map((pod) =>
    pod?.status?.conditions?.find(({ type }) => type === 'Ready'),
  );
  if (after === undefined || after.status === before?.status) return nowMs;
  const transitionMs = Date.parse(after.lastTransitionTime ?? '');
  const ageMs = nowMs - transitionMs;
  return ageMs >= 0 && ageMs <= MAX_TRIGGER_AGE_MS ? transitionMs : nowMs;
}
