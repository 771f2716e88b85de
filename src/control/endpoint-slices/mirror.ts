/**
 * Keeps Endpoints objects and EndpointSlices equal: Endpoints of the services with a selector out of their slices, and
 * slices of the services without one out of Endpoints made by hand. One change costs one service.
 */
import { ENDPOINTS, type Endpoints } from '#api/core/v1/endpoints.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { objectKey } from '#api/meta.ts';
import { type Index, indexCache } from '#client/cache.ts';
import { deleteExactly } from '#client/delete.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isAlreadyExists, isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { WorkQueue } from '#lib/work-queue.ts';
import { planEndpoints, planMirror } from './mirror-plan.ts';
import { serviceKeyOf, writeSlices } from './write-slices.ts';
import { WrittenSlices } from './written.ts';

/** Fewer than for the slices themselves: nothing in Tulle waits for what is written here. */
const CONCURRENT_SERVICES = 4;

export interface EndpointsControllerOptions {
  readonly client: ApiClient;
  readonly services: Cache<Service>;
  readonly endpoints: Cache<Endpoints>;
  /** Those made of pods. */
  readonly slices: Cache<EndpointSlice>;
  /** Those made of Endpoints. */
  readonly mirrored: Cache<EndpointSlice>;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startEndpoints(options: EndpointsControllerOptions): EndpointsController {
  return new EndpointsController(options);
}

export class EndpointsController implements AsyncDisposable {
  readonly #options: EndpointsControllerOptions;
  readonly #queue: WorkQueue;
  readonly #written: WrittenSlices;
  readonly #slicesByService: Index<EndpointSlice>;
  readonly #mirroredByService: Index<EndpointSlice>;
  readonly #stops: (() => void)[];
  #isReady = false;

  constructor(options: EndpointsControllerOptions) {
    const { services, endpoints, slices, mirrored, log, clock } = options;
    this.#options = options;
    this.#written = new WrittenSlices((key) => mirrored.get(key));
    this.#queue = new WorkQueue((key) => this.#sync(key), {
      name: 'endpoints',
      log,
      clock,
      concurrency: CONCURRENT_SERVICES,
    });
    this.#slicesByService = indexCache(slices, 'service', (slice) => [serviceKeyOf(slice)]);
    this.#mirroredByService = indexCache(mirrored, 'service', (slice) => [serviceKeyOf(slice)]);
    this.#stops = [
      services.onChange(({ key }) => this.#changed(key)),
      endpoints.onChange(({ key }) => this.#changed(key)),
      slices.onChange(({ old, current }) => this.#sliceChanged(current ?? old)),
      mirrored.onChange(({ key, old, current }) => {
        if (!this.#written.shown(key, current)) this.#sliceChanged(current ?? old);
      }),
    ];
    void this.#begin();
  }

  /** Services whose Endpoints or mirrored slices could not be written. */
  get failing(): readonly string[] {
    return this.#queue.failing;
  }

  async settled(): Promise<void> {
    await this.#synced();
    await this.#queue.idle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#queue[Symbol.asyncDispose]();
    this.#slicesByService[Symbol.dispose]();
    this.#mirroredByService[Symbol.dispose]();
  }

  async #synced(): Promise<void> {
    const { services, endpoints, slices, mirrored } = this.#options;
    await Promise.all([services, endpoints, slices, mirrored].map((cache) => cache.synced()));
  }

  /** Until all is known, what is missing may only not have been listed yet: nothing is written. */
  async #begin(): Promise<void> {
    await this.#synced();
    this.#isReady = true;
    for (const service of this.#options.services.values()) this.#queue.add(objectKey(service));
    // Also what belonged to services that vanished while nobody was looking.
    for (const endpoints of this.#options.endpoints.values()) this.#queue.add(objectKey(endpoints));
    for (const key of this.#mirroredByService.keys()) this.#queue.add(key);
  }

  #changed(serviceKey: string): void {
    if (this.#isReady) this.#queue.add(serviceKey);
  }

  #sliceChanged(slice: EndpointSlice | undefined): void {
    if (slice !== undefined) this.#changed(serviceKeyOf(slice));
  }

  async #sync(key: string): Promise<void> {
    const { services, endpoints } = this.#options;
    const service = services.get(key);
    const observed = endpoints.get(key);
    await this.#writeEndpoints(service, observed, key);
    await this.#writeMirror(service, observed, key);
  }

  async #writeEndpoints(
    service: Service | undefined,
    observed: Endpoints | undefined,
    key: string,
  ): Promise<void> {
    const { client } = this.#options;
    const slices = [...this.#slicesByService.get(key)];
    const plan = planEndpoints(service, slices, observed);
    try {
      if (plan.kind === 'create') await client.create(ENDPOINTS, plan.endpoints);
      else if (plan.kind === 'update') await client.update(ENDPOINTS, plan.endpoints);
      else if (plan.kind === 'remove') await deleteExactly(client, ENDPOINTS, plan.endpoints);
    } catch (error) {
      // The cache is behind, and brings this service here again when it is not.
      if (!isAlreadyExists(error) && !isConflict(error) && !isNotFound(error)) throw error;
    }
  }

  async #writeMirror(
    service: Service | undefined,
    observed: Endpoints | undefined,
    key: string,
  ): Promise<void> {
    const { client } = this.#options;
    const known = this.#written.view(key, this.#mirroredByService.get(key));
    const plan = planMirror(service, observed, known);
    await writeSlices({ client, written: this.#written }, key, plan);
  }
}
