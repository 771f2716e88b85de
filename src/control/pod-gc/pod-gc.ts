/** Deletes the Pod objects of nodes that are no more. Their addresses are given back by the garbage collection of addresses. */
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { deleteExactly } from '#client/delete.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { isManaged, planPodGc } from './plan.ts';

export interface PodGcOptions {
  readonly client: ApiClient;
  readonly pods: Cache<Pod>;
  readonly nodes: Cache<Node>;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startPodGc(options: PodGcOptions): PodGc {
  return new PodGc(options);
}

export class PodGc implements AsyncDisposable {
  readonly #options: PodGcOptions;
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[];
  #missingSinceMs: ReadonlyMap<string, number> = new Map();
  #cancelTimer: (() => void) | undefined;
  #isClosed = false;

  constructor(options: PodGcOptions) {
    const { pods, nodes, log, clock } = options;
    this.#options = options;
    this.#loop = new SyncLoop(() => this.#sync(), { name: 'pod-gc', log, clock });
    this.#stops = [
      nodes.onChange(({ old, current }) => {
        if (old === undefined || current === undefined) this.#loop.trigger();
      }),
      pods.onChange(({ current }) => {
        if (current === undefined || !isManaged(current)) return;
        if (nodes.get(current.spec.nodeName ?? '') === undefined) this.#loop.trigger();
      }),
    ];
    void this.#begin();
  }

  settled(): Promise<void> {
    return this.#loop.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    this.#cancelTimer?.();
    await this.#loop[Symbol.asyncDispose]();
  }

  async #begin(): Promise<void> {
    const { pods, nodes } = this.#options;
    await Promise.all([pods.synced(), nodes.synced()]);
    if (!this.#isClosed) this.#loop.trigger();
  }

  async #sync(): Promise<void> {
    const { pods, nodes, clock } = this.#options;
    if (!pods.isSynced || !nodes.isSynced) return;
    const plan = planPodGc({
      pods: pods.values(),
      nodeExists: (name) => nodes.get(name) !== undefined,
      missingSinceMs: this.#missingSinceMs,
      nowMs: clock.now(),
    });
    this.#missingSinceMs = plan.missingSinceMs;
    this.#cancelTimer?.();
    this.#cancelTimer =
      plan.nextAtMs === undefined
        ? undefined
        : clock.schedule(plan.nextAtMs - clock.now(), () => this.#loop.trigger());
    for (const [nodeName, orphans] of plan.remove) {
      // Deleting cannot be taken back: what the cache misses must be missing at the server, too.
      if (await this.#nodeExists(nodeName)) continue;
      for (const pod of orphans) await this.#remove(pod);
    }
  }

  async #nodeExists(name: string): Promise<boolean> {
    try {
      await this.#options.client.get(NODE, name);
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  async #remove(pod: Pod): Promise<void> {
    const { client, log } = this.#options;
    const { name, namespace } = pod.metadata;
    try {
      await deleteExactly(client, POD, pod, { gracePeriodSeconds: 0 });
      log.info({ pod: `${namespace}/${name}`, node: pod.spec.nodeName }, 'deleted an orphaned pod');
    } catch (error) {
      // Deleted by somebody else, or another pod of the same name by now.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }
}
