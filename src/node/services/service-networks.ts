/**
 * Where cluster IPs come from, as the API tells it: in ServiceCIDR objects, one for what the API server is configured
 * with and one for each further range. An API that has no such kind (Kubernetes before 1.33) tells it nowhere; unused
 * cluster IPs are then not refused, and the status says so.
 */
import { SERVICE_CIDR, type ServiceCIDR } from '#api/networking/v1/service-cidr.ts';
import { startCache } from '#client/cache.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import { ApiError, isNotFound } from '#lib/errors.ts';
import { type Cidr, parseCidr } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { withoutContained } from './plan.ts';

/** How often an API that has not the kind is asked again: after an upgrade it may. */
const ASK_AGAIN_MS = 300_000;
const FORBIDDEN = 403;

export class ServiceNetworks implements AsyncDisposable {
  readonly #client: ApiClient;
  readonly #log: Logger;
  readonly #onChange: () => void;
  readonly #loop: SyncLoop;
  #cache: (Cache<ServiceCIDR> & AsyncDisposable) | undefined;
  #why: string | undefined;

  /** @param init `onChange`: called after the list has changed */
  constructor(
    components: { readonly client: ApiClient; readonly log: Logger },
    init: { readonly onChange: () => void },
  ) {
    this.#client = components.client;
    this.#log = components.log;
    this.#onChange = init.onChange;
    this.#loop = new SyncLoop(() => this.#ask(), {
      name: 'service networks',
      log: components.log,
      resyncMs: ASK_AGAIN_MS,
    });
  }

  /** Resolves when the ranges are known, or it is known that they are not to be had. */
  async start(): Promise<void> {
    await this.#loop.settled();
    await this.#cache?.synced();
  }

  /** Disjoint prefixes; empty if they are not known. */
  list(): Cidr[] {
    const networks = [...(this.#cache?.values() ?? [])].flatMap(({ spec }) =>
      (spec.cidrs ?? []).flatMap((text) => parseCidr(text) ?? []),
    );
    // Kubernetes lets ranges overlap; an interval set does not.
    return withoutContained(networks);
  }

  /** What a person should know: nothing if the ranges are known. */
  notes(): string[] {
    if (this.#why !== undefined) return [`unused cluster IPs are not refused: ${this.#why}`];
    return this.#cache?.isSynced === true && this.#cache.size === 0
      ? ['unused cluster IPs are not refused: the API has no ServiceCIDR object']
      : [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop[Symbol.asyncDispose]();
    await this.#cache?.[Symbol.asyncDispose]();
  }

  /** A cache would ask for ever for what is not there, and complain each time. */
  async #ask(): Promise<void> {
    if (this.#cache !== undefined) return;
    const why = await this.#whyNot();
    if (why !== undefined) {
      if (why !== this.#why) this.#log.info({ reason: why }, 'unused cluster IPs are not refused');
      this.#why = why;
      return;
    }
    this.#why = undefined;
    this.#cache = startCache(this.#client, SERVICE_CIDR, { log: this.#log });
    this.#cache.onChange(() => this.#onChange());
  }

  /** @returns undefined if the API has the kind and lets us read it */
  async #whyNot(): Promise<string | undefined> {
    try {
      await this.#client.list(SERVICE_CIDR, { limit: 1 });
      return undefined;
    } catch (error) {
      if (isNotFound(error)) return 'the API has no networking.k8s.io/v1 ServiceCIDR';
      if (error instanceof ApiError && error.status === FORBIDDEN)
        return 'the agent may not list servicecidrs.networking.k8s.io';
      throw error;
    }
  }
}
