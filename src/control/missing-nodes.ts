/**
 * Which nodes are no more. Their pods are deleted and their addresses are given to others, which cannot be taken back, so
 * a node has to be missed for a while, and the server is asked before it is believed: a cache can be behind.
 */
import { NODE, type Node } from '#api/core/v1/node.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isNotFound } from '#lib/errors.ts';

/**
 * How long a node is missed before it counts as gone: the time that Kubernetes gives it. A Node that is made anew, or that
 * a restored store does not have yet, is registered again by its agent within seconds, and keeps all it has.
 */
export const QUARANTINE_MS = 40_000;

export interface MissingNodesOptions {
  readonly client: ApiClient;
  readonly nodes: Cache<Node>;
  readonly clock: Clock;
  /** Called when a quarantine has ended: time to ask again. */
  readonly onDue: () => void;
}

export class MissingNodes implements Disposable {
  readonly #options: MissingNodesOptions;
  #sinceMs: ReadonlyMap<string, number> = new Map();
  #cancelTimer: (() => void) | undefined;
  #isClosed = false;

  constructor(options: MissingNodesOptions) {
    this.#options = options;
  }

  /**
   * @param names the nodes that something is still kept for; who is not among them is forgotten
   * @returns those of them that are gone for good
   */
  async gone(names: Iterable<string>): Promise<ReadonlySet<string>> {
    const { nodes, clock, onDue } = this.#options;
    await nodes.synced();
    const plan = planQuarantine(
      new Set([...names].filter((name) => name !== '' && nodes.get(name) === undefined)),
      { sinceMs: this.#sinceMs, nowMs: clock.elapsed() },
    );
    this.#sinceMs = plan.sinceMs;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (plan.nextAtMs !== undefined && !this.#isClosed)
      this.#cancelTimer = clock.schedule(plan.nextAtMs - clock.elapsed(), onDue);
    const gone = new Set<string>();
    for (const name of plan.due) if (!(await this.exists(name))) gone.add(name);
    return gone;
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#cancelTimer?.();
  }

  /** Asks the server: a cache can be behind. */
  async exists(name: string): Promise<boolean> {
    try {
      await this.#options.client.get(NODE, name);
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }
}

export interface QuarantinePlan {
  /** Since when each of the missing is missed: the next call's. */
  readonly sinceMs: ReadonlyMap<string, number>;
  readonly due: readonly string[];
  /** When the next quarantine ends; undefined if none runs. */
  readonly nextAtMs: number | undefined;
}

/** Who has been missed for long enough. Pure. */
export function planQuarantine(
  missing: ReadonlySet<string>,
  known: { readonly sinceMs: ReadonlyMap<string, number>; readonly nowMs: number },
): QuarantinePlan {
  const { nowMs } = known;
  const sinceMs = new Map([...missing].map((name) => [name, known.sinceMs.get(name) ?? nowMs]));
  const ends = [...sinceMs].map(([name, since]) => ({ name, endMs: since + QUARANTINE_MS }));
  const running = ends.filter(({ endMs }) => endMs > nowMs).map(({ endMs }) => endMs);
  return {
    sinceMs,
    due: ends.filter(({ endMs }) => endMs <= nowMs).map(({ name }) => name),
    nextAtMs: running.length === 0 ? undefined : Math.min(...running),
  };
}
