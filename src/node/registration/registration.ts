/**
 * Keeps this machine's Node object and its heartbeat: a Lease renewed every ten seconds, which costs the server
 * next to nothing, and the Node's status only when it changes. Of a Node that a kubelet keeps nothing is written but how
 * our parts are.
 */

import { LEASE, type Lease } from '#api/coordination/v1/lease.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { hasKubelet } from '#api/core/v1/pod-deletion.ts';
import { formatMicroTime, formatTime } from '#api/machinery/time.ts';
import type { ApiClient } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { isAlreadyExists, isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import {
  type ComponentHealth,
  conditionsBeside,
  type NodeFacts,
  nodeLabels,
  nodeStatus,
  sameConditions,
} from './plan.ts';

const LEASE_NAMESPACE = 'kube-node-lease';
/** Upstream's values: the node controller gives a node up after 40 s without renewal. */
const LEASE_DURATION_SECONDS = 40;
const RENEW_INTERVAL_MS = 10_000;
/** How often the parts are asked how they are. */
const HEALTH_INTERVAL_MS = 1_000;

export class Registration implements AsyncDisposable {
  readonly #client: ApiClient;
  readonly #clock: Clock;
  readonly #facts: NodeFacts;
  readonly #health: () => readonly ComponentHealth[];
  readonly #lease: SyncLoop;
  readonly #status: SyncLoop;
  #node: Node | undefined;
  #isBesideKubelet = false;

  constructor(
    components: { client: ApiClient; log: Logger; clock?: Clock },
    init: { facts: NodeFacts; health: () => readonly ComponentHealth[] },
  ) {
    this.#client = components.client;
    this.#clock = components.clock ?? systemClock;
    this.#facts = init.facts;
    this.#health = init.health;
    const { log, clock = systemClock } = components;
    this.#lease = new SyncLoop(() => this.#renew(), {
      name: 'node lease',
      log,
      clock,
      resyncMs: RENEW_INTERVAL_MS,
    });
    this.#status = new SyncLoop(() => this.#keepStatus(), {
      name: 'node status',
      log,
      clock,
      resyncMs: HEALTH_INTERVAL_MS,
    });
  }

  /** Makes the Node if there is none, and begins to keep it. Rejects if the API refuses this node. */
  async register(): Promise<void> {
    await this.#ensureNode();
    // It tells whose the heartbeat is.
    await this.#updateStatus();
    await this.#renew();
    this.#status.trigger();
    this.#lease.trigger();
  }

  /** Whether a kubelet keeps the Node, as far as is known. */
  get isBesideKubelet(): boolean {
    return this.#isBesideKubelet;
  }

  /** Asks for a look at the parts now rather than at the next interval. */
  healthChanged(): void {
    this.#status.trigger();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#lease[Symbol.asyncDispose](), this.#status[Symbol.asyncDispose]()]);
  }

  async #ensureNode(): Promise<void> {
    const labels = nodeLabels(this.#facts);
    const { name } = this.#facts;
    const found = await this.#client.get(NODE, name).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
      return undefined;
    });
    if (found === undefined) return await this.#create(labels);
    if (hasKubelet(found)) return;
    await this.#client.patch(
      NODE,
      { name },
      { type: 'application/merge-patch+json', body: { metadata: { labels } } },
    );
  }

  async #create(labels: Record<string, string>): Promise<void> {
    const { name } = this.#facts;
    try {
      await this.#client.create(NODE, {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name, labels },
        spec: {},
      });
    } catch (error) {
      // Made at this moment by somebody else: what its status says tells who keeps it.
      if (!isAlreadyExists(error)) throw error;
    }
  }

  /** Somebody may delete the Node while its machine lives: then it is made again, by the kubelet if there is one. */
  async #keepStatus(): Promise<void> {
    try {
      await this.#updateStatus();
    } catch (error) {
      if (!isNotFound(error) || this.#isBesideKubelet) throw error;
      this.#node = undefined;
      await this.#ensureNode();
      await this.#updateStatus();
    }
  }

  async #updateStatus(): Promise<void> {
    const { name } = this.#facts;
    const node = this.#node ?? (await this.#client.get(NODE, name));
    const previous = node.status?.conditions ?? [];
    const now = formatTime(this.#clock.now());
    this.#isBesideKubelet = hasKubelet(node);
    if (this.#isBesideKubelet) return await this.#updateBeside(node, now);
    const status = nodeStatus(this.#facts, this.#health(), previous, now);
    // Conditions that others write (the node controller's Unknown) are answered by ours only when ours say otherwise.
    if (this.#node !== undefined && sameConditions(previous, status.conditions ?? [])) return;
    this.#node = undefined;
    this.#node = await this.#client.patch(
      NODE,
      { name, subresource: 'status' },
      { type: 'application/merge-patch+json', body: { status } },
    );
  }

  async #updateBeside(node: Node, now: string): Promise<void> {
    const { name, resourceVersion } = node.metadata;
    const previous = node.status?.conditions ?? [];
    const conditions = conditionsBeside(this.#health(), previous, now);
    this.#node = node;
    if (sameConditions(previous, conditions)) return;
    this.#node = undefined;
    try {
      // The list is written as a whole: with the version, so that what the kubelet says meanwhile is not lost.
      this.#node = await this.#client.patch(
        NODE,
        { name, subresource: 'status' },
        {
          type: 'application/merge-patch+json',
          body: { metadata: { resourceVersion }, status: { conditions } },
        },
      );
    } catch (error) {
      // The next look is at what it is then.
      if (!isConflict(error)) throw error;
      this.#status.trigger();
    }
  }

  async #renew(): Promise<void> {
    if (this.#isBesideKubelet) {
      this.#node = undefined;
      return;
    }
    const { name } = this.#facts;
    const renewTime = formatMicroTime(this.#clock.now());
    const spec: Lease['spec'] = {
      holderIdentity: name,
      leaseDurationSeconds: LEASE_DURATION_SECONDS,
      renewTime,
    };
    try {
      await this.#client.patch(
        LEASE,
        { name, namespace: LEASE_NAMESPACE },
        { type: 'application/merge-patch+json', body: { spec } },
      );
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await this.#client.create(LEASE, {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name, namespace: LEASE_NAMESPACE },
        spec: { ...spec, acquireTime: renewTime },
      });
    }
    // After a silence the node controller may have written that it knows nothing of us.
    this.#node = undefined;
  }
}
