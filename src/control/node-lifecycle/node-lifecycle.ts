/** Takes the pods of a node whose agent has fallen silent out of the services, and back in when it speaks again. */
import type { Lease } from '#api/coordination/v1/lease.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import type { Condition } from '#api/meta.ts';
import { type Index, indexCache } from '#client/cache.ts';
import type { EventRecorder } from '#client/events.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import {
  LEASE_NAMESPACE,
  NODE_GRACE_MS,
  type NodeHealth,
  observeHealth,
  planNode,
} from './plan.ts';

/** Upstream's `--node-monitor-period`. */
const MONITOR_INTERVAL_MS = 5_000;
/** Between two runs that changes ask for: an agent that disagrees with us about its pods must not make a storm. */
const MIN_INTERVAL_MS = 500;

export interface NodeLifecycleOptions {
  readonly client: ApiClient;
  readonly nodes: Cache<Node>;
  readonly pods: Cache<Pod>;
  /** Of the namespace {@link LEASE_NAMESPACE}. */
  readonly leases: Cache<Lease>;
  readonly events: EventRecorder;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startNodeLifecycle(options: NodeLifecycleOptions): NodeLifecycle {
  return new NodeLifecycle(options);
}

export class NodeLifecycle implements AsyncDisposable {
  readonly #options: NodeLifecycleOptions;
  readonly #loop: SyncLoop;
  readonly #podsByNode: Index<Pod>;
  readonly #stops: (() => void)[];
  readonly #health = new Map<string, NodeHealth>();
  readonly #silent = new Set<string>();
  /** Since when leases have reached us without a gap: silence before that may have been ours. */
  #listeningSinceMs: number | undefined;
  #lastRunMs = 0;
  #isClosed = false;

  constructor(options: NodeLifecycleOptions) {
    const { nodes, pods, leases, log, clock } = options;
    this.#options = options;
    this.#podsByNode = indexCache(pods, 'node', (pod) =>
      pod.spec.nodeName === undefined ? [] : [pod.spec.nodeName],
    );
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'node-lifecycle',
      log,
      clock,
      minIntervalMs: MIN_INTERVAL_MS,
      resyncMs: MONITOR_INTERVAL_MS,
    });
    // Everything else can wait for the next look.
    this.#stops = [
      leases.onChange(({ current }) => this.#triggerIfSilent(current?.metadata.name)),
      pods.onChange(({ current }) => this.#triggerIfSilent(current?.spec.nodeName)),
      nodes.onChange(({ old, current }) => {
        if (old === undefined || current === undefined) this.#loop.trigger();
        else this.#triggerIfSilent(current.metadata.name);
      }),
    ];
    void this.#begin();
  }

  /** Resolves when a look that started after this call has ended. */
  settled(): Promise<void> {
    return this.#loop.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    await this.#loop[Symbol.asyncDispose]();
    this.#podsByNode[Symbol.dispose]();
  }

  async #begin(): Promise<void> {
    const { nodes, pods, leases } = this.#options;
    await Promise.all([nodes.synced(), pods.synced(), leases.synced()]);
    if (!this.#isClosed) this.#loop.trigger();
  }

  #triggerIfSilent(nodeName: string | undefined): void {
    if (nodeName !== undefined && this.#silent.has(nodeName)) this.#loop.trigger();
  }

  async #sync(): Promise<void> {
    const { nodes, pods, leases, clock } = this.#options;
    if (!nodes.isSynced || !pods.isSynced || !leases.isSynced) return;
    const nowMs = clock.now();
    const elapsedMs = clock.elapsed();
    this.#noteListening(elapsedMs);
    const failures: unknown[] = [];
    for (const node of nodes.values()) {
      const { name } = node.metadata;
      const lease = leases.get(`${LEASE_NAMESPACE}/${name}`);
      const health = observeHealth(this.#health.get(name), node, lease, elapsedMs);
      this.#health.set(name, health);
      const isSilent = this.#isSilent(health, elapsedMs);
      if (isSilent) this.#silent.add(name);
      else this.#silent.delete(name);
      const plan = planNode({ node, pods: this.#podsByNode.get(name), isSilent, nowMs });
      if (plan.node !== undefined) await this.#write(NODE, plan.node, failures);
      for (const pod of plan.pods) await this.#write(POD, pod, failures);
    }
    for (const name of this.#health.keys())
      if (nodes.get(name) === undefined) {
        this.#health.delete(name);
        this.#silent.delete(name);
      }
    if (failures.length > 0) throw new AggregateError(failures, 'some statuses were not written');
  }

  /** While the watch is down, or this process stood still, no agent can be heard: they get their whole time again. */
  #noteListening(elapsedMs: number): void {
    const stoodStill = elapsedMs - this.#lastRunMs > NODE_GRACE_MS / 2;
    this.#lastRunMs = elapsedMs;
    if (!this.#options.leases.isConnected) this.#listeningSinceMs = undefined;
    else if (this.#listeningSinceMs === undefined || stoodStill) this.#listeningSinceMs = elapsedMs;
  }

  #isSilent(health: NodeHealth, elapsedMs: number): boolean {
    if (this.#listeningSinceMs === undefined) return false;
    return elapsedMs - Math.max(health.seenAtMs, this.#listeningSinceMs) >= NODE_GRACE_MS;
  }

  /** A failure of one is no reason not to write the others. */
  async #write<T extends Node | Pod>(
    kind: typeof NODE | typeof POD,
    object: T,
    failures: unknown[],
  ): Promise<void> {
    const { client, events, log } = this.#options;
    const { status, reason = '' } = readyOf(object);
    const { name, namespace } = object.metadata;
    try {
      await client.update(kind as typeof NODE, object as Node, { subresource: 'status' });
      log.info({ kind: kind.kind, namespace, name, ready: status, reason }, 'readiness changed');
      if (kind.kind === 'Node')
        events.record(object, {
          type: status === 'True' ? 'Normal' : 'Warning',
          reason: status === 'True' ? 'NodeReady' : 'NodeNotReady',
          message: `Node ${name} status is now: ${status === 'True' ? 'NodeReady' : 'NodeNotReady'}`,
        });
    } catch (error) {
      // It has changed or gone meanwhile: the next look decides on what it is then.
      if (isConflict(error)) this.#loop.trigger();
      else if (!isNotFound(error)) failures.push(error);
    }
  }
}

function readyOf(object: Node | Pod): Partial<Condition> {
  return object.status?.conditions?.find(({ type }) => type === 'Ready') ?? {};
}
