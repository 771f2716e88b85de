/** The masquerade feature: watches pools and keeps the sets of the pod networks. */
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { Cache } from '#client/port.ts';
import { parseCidr } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Ruleset } from '../ruleset.ts';
import { masqueradeElements, masqueradePart } from './plan.ts';

/** Name of this feature's part of the ruleset. */
export const MASQUERADE_PART = 'masquerade';

export class Masquerade implements AsyncDisposable {
  readonly #rulesets: readonly Ruleset[];
  readonly #pools: Cache<IPPool>;
  readonly #loop: SyncLoop;
  #stop: (() => void) | undefined;

  constructor(components: { rulesets: readonly Ruleset[]; pools: Cache<IPPool>; log: Logger }) {
    this.#rulesets = components.rulesets;
    this.#pools = components.pools;
    this.#loop = new SyncLoop(() => this.#sync(), { name: 'masquerade', log: components.log });
  }

  /** Resolves when the pools that the API has are in the ruleset. */
  async start(): Promise<void> {
    await this.#pools.synced();
    this.#stop = this.#pools.onChange(() => this.#loop.trigger());
    await this.#loop.settled();
  }

  get problem(): string | undefined {
    return this.#loop.lastError;
  }

  /** Stops watching; the rules stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop?.();
    await this.#loop[Symbol.asyncDispose]();
  }

  #sync(): void {
    const pools = [...this.#pools.values()].flatMap((pool) => {
      const prefix = parseCidr(pool.spec.cidr);
      return prefix === undefined
        ? []
        : [{ cidr: prefix, natOutgoing: pool.spec.natOutgoing ?? true }];
    });
    for (const ruleset of this.#rulesets) {
      ruleset.define(MASQUERADE_PART, masqueradePart(ruleset.family));
      for (const { set, elements } of masqueradeElements(pools, ruleset.family))
        ruleset.stageAll(set, elements);
      ruleset.commit();
    }
  }
}
