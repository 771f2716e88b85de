/**
 * Deletes the Pod objects of nodes that are no more, and those that somebody has deleted and that their node does not end.
 * Their addresses are given back by the garbage collection of addresses.
 */
import type { Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { gracePeriods, isTerminating } from '#api/core/v1/pod-deletion.ts';
import { deleteExactly } from '#client/delete.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { Countdowns } from '#lib/countdowns.ts';
import { isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { MissingNodes } from '../missing-nodes.ts';
import { endingOn, isManaged, managedPods, stranded } from './plan.ts';

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
  readonly #missing: MissingNodes;
  readonly #endings: Countdowns;
  #isClosed = false;

  constructor(options: PodGcOptions) {
    const { pods, nodes, log, clock } = options;
    this.#options = options;
    this.#loop = new SyncLoop(() => this.#sync(), { name: 'pod-gc', log, clock });
    this.#missing = new MissingNodes({ ...options, onDue: () => this.#loop.trigger() });
    this.#endings = new Countdowns({ clock, onOver: () => this.#loop.trigger() });
    this.#stops = [
      nodes.onChange(({ old, current }) => {
        if (endingOn(old) !== endingOn(current)) this.#loop.trigger();
      }),
      pods.onChange(({ current }) => {
        if (current === undefined || !(isManaged(current) || isTerminating(current))) return;
        if (endingOn(nodes.get(current.spec.nodeName ?? '')) !== 'node') this.#loop.trigger();
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
    this.#missing[Symbol.dispose]();
    this.#endings[Symbol.dispose]();
    await this.#loop[Symbol.asyncDispose]();
  }

  async #begin(): Promise<void> {
    const { pods, nodes } = this.#options;
    await Promise.all([pods.synced(), nodes.synced()]);
    if (!this.#isClosed) this.#loop.trigger();
  }

  async #sync(): Promise<void> {
    const { pods, nodes } = this.#options;
    if (!pods.isSynced || !nodes.isSynced) return;
    const managed = managedPods(pods.values());
    const gone = await this.#missing.gone(managed.keys());
    for (const nodeName of gone)
      for (const pod of managed.get(nodeName) ?? [])
        await this.#remove(pod, 'deleted an orphaned pod');
    await this.#end(stranded(pods.values(), (name) => nodes.get(name)));
  }

  /** Of a node that does not exist at once, of one that is silent when their time is over. */
  async #end(pods: readonly Pod[]): Promise<void> {
    const { nodes } = this.#options;
    const over = this.#endings.follow(gracePeriods(pods));
    const exists = new Map<string, boolean>();
    for (const pod of pods) {
      const { nodeName = '' } = pod.spec;
      if (nodes.get(nodeName) === undefined) {
        if (!exists.has(nodeName)) exists.set(nodeName, await this.#missing.exists(nodeName));
        if (exists.get(nodeName) === true) continue;
      } else if (!over.has(pod.metadata.uid ?? '')) continue;
      await this.#remove(pod, 'ended a deleted pod whose node does not');
    }
  }

  async #remove(pod: Pod, what: string): Promise<void> {
    const { client, log } = this.#options;
    const { name, namespace } = pod.metadata;
    try {
      await deleteExactly(client, POD, pod, { gracePeriodSeconds: 0 });
      log.info({ pod: `${namespace}/${name}`, node: pod.spec.nodeName }, what);
    } catch (error) {
      // Deleted by somebody else, or another pod of the same name by now.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }
}
