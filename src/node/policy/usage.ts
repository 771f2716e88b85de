/**
 * Tells the API how often each rule of this node decided, so that one look answers for the cluster: an object of its own,
 * named like the node. NetworkPolicy has no status, and a node may not write what is not its own.
 */

import type { Node } from '#api/core/v1/node.ts';
import { formatTime } from '#api/machinery/time.ts';
import {
  MAX_USED_RULES,
  POLICY_USAGE,
  type PolicyUsage,
  type RuleUsage,
} from '#api/tulle/v1alpha1/policy-usage.ts';
import type { ApiClient } from '#client/port.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { ApiError, explainError, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';

/** Thousands of nodes write to one server: some ten writes a second of a thousand nodes, if all have something new. */
const INTERVAL_MS = 60_000;
const FORBIDDEN = 403;
/** A node without policies, or where nothing has happened yet, has nothing to say. */
const NOTHING = '[]';

export interface UsageReportComponents {
  readonly client: Pick<ApiClient, 'create' | 'patch'>;
  /** Reads the counters out of the kernel. */
  readonly counts: () => Promise<readonly RuleUsage[]>;
  /** The own Node: with it goes what it has told. */
  readonly node: () => Node | undefined;
  readonly log: Logger;
  readonly clock?: Clock;
  /** In [0, 1). */
  readonly random?: () => number;
}

export class UsageReport implements AsyncDisposable {
  readonly #c: UsageReportComponents;
  readonly #name: string;
  readonly #clock: Clock;
  #cancel: (() => void) | undefined;
  #running: Promise<void> | undefined;
  #told = NOTHING;
  #isOff = false;

  constructor(components: UsageReportComponents, { node }: { node: string }) {
    this.#c = components;
    this.#name = node;
    this.#clock = components.clock ?? systemClock;
    // Nodes that start together do not write together.
    this.#schedule((components.random ?? Math.random)() * INTERVAL_MS);
  }

  /** Resolves when what is being written is written, or has failed. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOff = true;
    this.#cancel?.();
    await this.#running;
  }

  #schedule(delayMs: number): void {
    this.#cancel = this.#clock.schedule(delayMs, () => {
      this.#running = this.#report();
    });
  }

  /** What cannot be told now is told the next time. */
  async #report(): Promise<void> {
    try {
      await this.#tell(await this.#c.counts());
    } catch (error) {
      this.#c.log.warn(
        { reason: explainError(error) },
        'policy: cannot tell the API how often the rules of this node decided; it is tried again',
      );
    }
    if (!this.#isOff) this.#schedule(INTERVAL_MS);
  }

  async #tell(counts: readonly RuleUsage[]): Promise<void> {
    const rules = mostUsed(counts);
    const text = JSON.stringify(rules);
    if (text === this.#told) return;
    const countedAt = formatTime(this.#clock.now());
    const usage: PolicyUsage = {
      ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'PolicyUsage' },
      metadata: { name: this.#name, ...this.#owner() },
      status: { countedAt, total: counts.length, rules },
    };
    if (await this.#put(usage)) this.#told = text;
  }

  /** @returns false where it cannot be told at all */
  async #put(usage: PolicyUsage): Promise<boolean> {
    const { client } = this.#c;
    try {
      try {
        await client.patch(
          POLICY_USAGE,
          { name: this.#name },
          { type: 'application/merge-patch+json', body: usage },
        );
      } catch (error) {
        if (!isNotFound(error)) throw error;
        await client.create(POLICY_USAGE, usage);
      }
      return true;
    } catch (error) {
      const isRefused = error instanceof ApiError && error.status === FORBIDDEN;
      if (!isRefused && !isNotFound(error)) throw error;
      this.#isOff = true;
      this.#c.log.info(
        { reason: error.message },
        'policy: the API takes no PolicyUsage of this node; the counters are told by the metrics and by "tulle policy rules" on the node',
      );
      return false;
    }
  }

  #owner(): Pick<PolicyUsage['metadata'], 'ownerReferences'> {
    const uid = this.#c.node()?.metadata.uid;
    if (uid === undefined) return {};
    return { ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: this.#name, uid }] };
  }
}

/** Those that decided most, in the order of their names. Pure. */
export function mostUsed(counts: readonly RuleUsage[]): RuleUsage[] {
  return counts
    .toSorted((a, b) => b.packets - a.packets || (a.rule < b.rule ? -1 : 1))
    .slice(0, MAX_USED_RULES)
    .sort((a, b) => (a.rule < b.rule ? -1 : 1));
}
