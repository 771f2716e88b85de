/**
 * A policy says on itself when it is not carried out: an Event, and where the kind has conditions, a condition.
 *
 * ```text
 *  Accepted    False: a part of the policy is not known to this version, and was closed     the same on every node
 *  Programmed  False: "node m1: …" could not write it into its kernel                       taken back by that node
 * ```
 * Thousands of nodes see the same policy. What all of them would say is written by the first, after a random pause in
 * which the others see it; NetworkPolicy has no status, so only nodes on which it is about a pod record an event.
 */
import { formatTime } from '#api/machinery/time.ts';
import type { Condition, KubeObject } from '#api/meta.ts';
import {
  CLUSTER_NETWORK_POLICY,
  type ClusterNetworkPolicy,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import type { EventRecorder } from '#client/events.ts';
import type { ApiClient } from '#client/port.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { ApiError, isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';

/** In which one of many nodes comes first. */
const MAX_PAUSE_MS = 3000;
const FORBIDDEN = 403;
/** Upstream's limit of a condition's message. */
const MAX_MESSAGE_LENGTH = 32_768;

/** How a policy is on this node. */
export interface PolicyState {
  /** What was not understood, and closed. */
  readonly problems: readonly string[];
  /** Why it is not in the kernel. */
  readonly failure: string | undefined;
  /** It was left out, and the pods that it selects are closed; otherwise what was in force stays. */
  readonly closes?: boolean;
}

export interface PolicyReportsComponents {
  readonly client: Pick<ApiClient, 'update'>;
  readonly events: EventRecorder;
  /** The policy as the API has it; `NetworkPolicy ns/name` or `ClusterNetworkPolicy name`. */
  readonly objectOf: (id: string) => KubeObject | undefined;
  /** Whether the policy is about a pod of this node. */
  readonly isUsed: (id: string) => boolean;
  readonly log: Logger;
  readonly clock?: Clock;
  /** In [0, 1). */
  readonly random?: () => number;
}

export class PolicyReports implements AsyncDisposable {
  readonly #c: PolicyReportsComponents;
  readonly #node: string;
  readonly #clock: Clock;
  readonly #loop: SyncLoop;
  /** Policies that have conditions, and those that have something to say. */
  readonly #states = new Map<string, PolicyState>();
  readonly #dirty = new Set<string>();
  #cancelPause: (() => void) | undefined;
  #closed = false;
  #toldForbidden = false;

  constructor(components: PolicyReportsComponents, { node }: { node: string }) {
    this.#c = components;
    this.#node = node;
    this.#clock = components.clock ?? systemClock;
    this.#loop = new SyncLoop(() => this.#write(), {
      name: 'policy: conditions',
      log: components.log,
      clock: this.#clock,
    });
  }

  /** @param state undefined: the policy is gone */
  set(id: string, state: PolicyState | undefined): void {
    const old = this.#states.get(id);
    const hasConditions = id.startsWith('ClusterNetworkPolicy ');
    const isWell = state?.failure === undefined && (state?.problems.length ?? 0) === 0;
    if (state === undefined || (isWell && !hasConditions)) this.#states.delete(id);
    else this.#states.set(id, state);
    if (state === undefined || this.#closed) return;
    this.#record(id, old, state);
    if (!hasConditions) return;
    this.#dirty.add(id);
    const random = this.#c.random ?? Math.random;
    this.#cancelPause ??= this.#clock.schedule(random() * MAX_PAUSE_MS, () => {
      this.#cancelPause = undefined;
      this.#loop.trigger();
    });
  }

  /** Resolves when what was set, and waited its time, is written. */
  settled(): Promise<void> {
    return this.#loop.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#cancelPause?.();
    await this.#loop[Symbol.asyncDispose]();
  }

  #record(id: string, old: PolicyState | undefined, state: PolicyState): void {
    const { problems, failure, closes } = state;
    const object = this.#c.objectOf(id);
    if (object === undefined) return;
    const { events } = this.#c;
    if (failure !== undefined && failure !== old?.failure)
      events.record(object, {
        ...{ type: 'Warning', reason: 'NotProgrammed' },
        message: `node ${this.#node} cannot write the policy into its kernel, and ${closes === true ? 'closes the pods that it selects' : 'goes on with what it had'}: ${failure}`,
      });
    if (failure === undefined && old?.failure !== undefined)
      events.record(object, {
        ...{ type: 'Normal', reason: 'Programmed' },
        message: `node ${this.#node} carries the policy out now`,
      });
    const text = problems.join('; ');
    if (text !== '' && text !== old?.problems.join('; ') && this.#c.isUsed(id))
      events.record(object, { type: 'Warning', reason: 'NotUnderstood', message: text });
  }

  /** In a cluster that is not ours the role may be missing; events say the same. Asking again would not help. */
  #forbidden(error: ApiError): void {
    if (this.#toldForbidden) return;
    this.#toldForbidden = true;
    this.#c.log.warn(
      { reason: error.message },
      'policy: may not write conditions of ClusterNetworkPolicies; allow the agent "update" of clusternetworkpolicies/status',
    );
  }

  async #write(): Promise<void> {
    for (const id of [...this.#dirty]) {
      this.#dirty.delete(id);
      const state = this.#states.get(id);
      // Read at the last moment: another node may have written what we would.
      const object = this.#c.objectOf(id) as ClusterNetworkPolicy | undefined;
      if (state === undefined || object === undefined) continue;
      const conditions = planConditions(object, state, {
        node: this.#node,
        now: formatTime(this.#clock.now()),
      });
      if (conditions === undefined) continue;
      try {
        await this.#c.client.update(
          CLUSTER_NETWORK_POLICY,
          { ...object, status: { ...object.status, conditions } },
          { subresource: 'status' },
        );
      } catch (error) {
        // Gone, or changed: the change brings it here again.
        if (isNotFound(error) || isConflict(error)) continue;
        if (error instanceof ApiError && error.status === FORBIDDEN) {
          this.#forbidden(error);
          continue;
        }
        this.#dirty.add(id);
        throw error;
      }
    }
  }
}

/**
 * The policy's conditions as they should be. Pure.
 * @returns undefined if they are so
 */
export function planConditions(
  policy: ClusterNetworkPolicy,
  { problems, failure }: PolicyState,
  { node, now }: { readonly node: string; readonly now: string },
): Condition[] | undefined {
  const old = policy.status?.conditions ?? [];
  const wanted: Pick<Condition, 'type' | 'status' | 'reason' | 'message'>[] = [
    problems.length === 0
      ? { type: 'Accepted', status: 'True', reason: 'Understood', message: 'all of it is known' }
      : {
          type: 'Accepted',
          status: 'False',
          reason: 'NotUnderstood',
          message: problems.join('; '),
        },
  ];
  const programmed = old.find(({ type }) => type === 'Programmed');
  const isOurs = programmed?.message?.startsWith(`node ${node}:`) === true;
  if (failure !== undefined && (programmed?.status !== 'False' || isOurs))
    wanted.push({
      ...{ type: 'Programmed', status: 'False', reason: 'KernelRefused' },
      message: `node ${node}: ${failure}`,
    });
  if (failure === undefined && programmed?.status === 'False' && isOurs)
    wanted.push({
      ...{ type: 'Programmed', status: 'True', reason: 'Recovered' },
      message: `node ${node}: it is carried out now`,
    });
  const changed = wanted.filter((condition) => {
    const before = old.find(({ type }) => type === condition.type);
    return (
      before?.status !== condition.status ||
      before.message !== condition.message ||
      before.reason !== condition.reason
    );
  });
  if (changed.length === 0) return undefined;
  const generation = policy.metadata.generation;
  return [
    ...old.filter(({ type }) => !changed.some((condition) => condition.type === type)),
    ...changed.map((condition) => {
      const before = old.find(({ type }) => type === condition.type);
      return {
        ...condition,
        message: (condition.message ?? '').slice(0, MAX_MESSAGE_LENGTH),
        ...(generation === undefined ? {} : { observedGeneration: generation }),
        lastTransitionTime:
          before?.status === condition.status ? (before.lastTransitionTime ?? now) : now,
      };
    }),
  ];
}
