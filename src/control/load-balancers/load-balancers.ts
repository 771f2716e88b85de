/**
 * Gives services of type LoadBalancer addresses out of the ServiceAddressPools, in their status. One change costs one
 * service; only a change of the pools looks at all of them.
 *
 * The server guards the addresses (`server/admission/load-balancer-addresses.ts`), so a second controller, or a cache
 * that is behind, costs a refused write and no address twice.
 */

import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { ingressAddresses, isOurLoadBalancer } from '#api/core/v1/service-load-balancer.ts';
import { sameJson } from '#api/machinery/json.ts';
import { formatTime } from '#api/machinery/time.ts';
import { objectKey } from '#api/meta.ts';
import {
  poolContains,
  SERVICE_ADDRESS_POOL,
  type ServiceAddressPool,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import { type Index, indexCache } from '#client/cache.ts';
import type { EventRecorder } from '#client/events.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isConflict, isNotFound } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { WorkQueue } from '#lib/work-queue.ts';
import { type LoadBalancerPlan, planLoadBalancer } from './plan.ts';

/** Counts in the pools' status may be this late: nobody waits for them. */
const POOL_STATUS_INTERVAL_MS = 1_000;

export interface LoadBalancersOptions {
  readonly client: ApiClient;
  readonly services: Cache<Service>;
  readonly pools: Cache<ServiceAddressPool>;
  readonly events: EventRecorder;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startLoadBalancers(options: LoadBalancersOptions): LoadBalancers {
  return new LoadBalancers(options);
}

export class LoadBalancers implements AsyncDisposable {
  readonly #options: LoadBalancersOptions;
  /** One at a time: two that choose at once would choose the same. */
  readonly #queue: WorkQueue;
  readonly #poolStatus: SyncLoop;
  readonly #byAddress: Index<Service>;
  /** What we wrote and the cache does not show yet, by the service's key. */
  readonly #written = new Map<string, Service>();
  /** Services that have too little: a freed address may be theirs. */
  readonly #short = new Set<string>();
  readonly #stops: (() => void)[];
  #isReady = false;

  constructor(options: LoadBalancersOptions) {
    const { services, pools, log, clock } = options;
    this.#options = options;
    this.#queue = new WorkQueue((key) => this.#sync(key), {
      name: 'load-balancers',
      log,
      clock,
      concurrency: 1,
    });
    this.#poolStatus = new SyncLoop(() => this.#syncPools(), {
      name: 'address pools',
      log,
      clock,
      minIntervalMs: POOL_STATUS_INTERVAL_MS,
    });
    this.#byAddress = indexCache(services, 'load balancer address', (service) =>
      isOurLoadBalancer(service) ? ingressAddresses(service) : [],
    );
    this.#stops = [
      services.onChange(({ key, old, current }) => this.#serviceChanged(key, old, current)),
      pools.onChange(({ old, current }) => {
        if (!sameJson(old?.spec, current?.spec) || isGoing(old) !== isGoing(current)) this.#all();
        // The count in the status is our own and changes nothing for services; but it was made on what the cache
        // showed then, and may be overtaken by now.
        else this.#poolStatus.trigger();
      }),
    ];
    void this.#begin();
  }

  /** Services whose status could not be written. */
  get failing(): readonly string[] {
    return this.#queue.failing;
  }

  async settled(): Promise<void> {
    await Promise.all([this.#options.services.synced(), this.#options.pools.synced()]);
    await this.#queue.idle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#queue[Symbol.asyncDispose]();
    await this.#poolStatus[Symbol.asyncDispose]();
    this.#byAddress[Symbol.dispose]();
  }

  async #begin(): Promise<void> {
    await Promise.all([this.#options.services.synced(), this.#options.pools.synced()]);
    this.#isReady = true;
    this.#all();
  }

  #all(): void {
    if (!this.#isReady) return;
    for (const service of this.#options.services.values())
      if (isOurLoadBalancer(service)) this.#queue.add(objectKey(service));
    this.#poolStatus.trigger();
  }

  #serviceChanged(key: string, old: Service | undefined, current: Service | undefined): void {
    this.#forgetIfShown(key, current);
    if (!this.#isReady) return;
    const [before, after] = [old, current].map((it) =>
      it !== undefined && isOurLoadBalancer(it) ? it : undefined,
    );
    if (before === undefined && after === undefined) return;
    if (after !== undefined) this.#queue.add(key);
    else this.#short.delete(key);
    // What one gives back, or stops to use of a shared address, may be what others wait for.
    if (before !== undefined && ingressAddresses(before).length > 0)
      for (const waiting of this.#short) this.#queue.add(waiting);
    if (addressText(before) !== addressText(after)) this.#poolStatus.trigger();
  }

  #forgetIfShown(key: string, current: Service | undefined): void {
    const written = this.#written.get(key);
    if (written === undefined) return;
    if (current === undefined || versionOf(current) >= versionOf(written))
      this.#written.delete(key);
  }

  /** The services other than this one that have the address, with what we have written and nobody has seen yet. */
  #othersAt(address: Ip, key: string): Service[] {
    const others: Service[] = [];
    for (const service of this.#byAddress.get(address)) {
      const other = objectKey(service);
      if (other !== key && !this.#written.has(other)) others.push(service);
    }
    for (const [other, service] of this.#written)
      if (other !== key && ingressAddresses(service).includes(address)) others.push(service);
    return others;
  }

  async #sync(key: string): Promise<void> {
    const { client, clock, pools, services, events } = this.#options;
    const service = this.#written.get(key) ?? services.get(key);
    if (service === undefined || !isOurLoadBalancer(service)) {
      this.#short.delete(key);
      return;
    }
    const plan = planLoadBalancer({
      service,
      pools: [...pools.values()],
      othersAt: (address) => this.#othersAt(address, key),
      nowIso: formatTime(clock.now()),
    });
    if (plan.shortage === undefined) this.#short.delete(key);
    else this.#short.add(key);
    if (plan.write === undefined) return;
    try {
      const written = await client.update(SERVICE, plan.write, { subresource: 'status' });
      const cached = services.get(key);
      if (cached !== undefined && versionOf(cached) < versionOf(written))
        this.#written.set(key, written);
    } catch (error) {
      this.#written.delete(key);
      // It has changed or gone meanwhile, and the cache is about to say so.
      if (isNotFound(error)) return;
      if (isConflict(error)) this.#options.log.debug({ service: key }, 'a service has changed');
      throw error;
    }
    record(events, service, plan);
  }

  async #syncPools(): Promise<void> {
    const used = [...this.#byAddress.keys()] as Ip[];
    for (const pool of this.#options.pools.values()) {
      const allocated = used.filter((address) => poolContains(pool, address)).length;
      if ((pool.status?.allocated ?? 0) === allocated) continue;
      try {
        await this.#options.client.patch(
          SERVICE_ADDRESS_POOL,
          { name: pool.metadata.name, subresource: 'status' },
          { type: 'application/merge-patch+json', body: { status: { allocated } } },
        );
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    }
  }
}

function record(events: EventRecorder, service: Service, plan: LoadBalancerPlan): void {
  if (plan.shortage !== undefined) events.record(service, { type: 'Warning', ...plan.shortage });
  else if (plan.addresses.join() !== ingressAddresses(service).join())
    events.record(service, {
      type: 'Normal',
      reason: 'AddressAssigned',
      message: `Assigned ${plan.addresses.join(' and ')}`,
    });
}

function isGoing(pool: ServiceAddressPool | undefined): boolean {
  return pool?.metadata.deletionTimestamp !== undefined;
}

function addressText(service: Service | undefined): string {
  return service === undefined ? '' : ingressAddresses(service).join();
}

/** Versions of one server can be compared; what is no number is older than anything. */
function versionOf({ metadata }: Service): number {
  return Number(metadata.resourceVersion ?? 0) || 0;
}
