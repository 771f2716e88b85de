/**
 * Pure: which nodes and pods change their readiness because a node's agent is silent, or speaks again.
 *
 * An agent shows life by renewing its Lease. What counts is when we saw the last renewal, by a clock of ours that nobody sets: clocks of
 * nodes differ. Only what was True becomes Unknown or False by us, under our own reason; so what carries our reason was
 * True before, and is True again when the agent is back.
 */

import type { Lease } from '#api/coordination/v1/lease.ts';
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { Condition } from '#api/meta.ts';

/** Where the agents' leases are. */
export const LEASE_NAMESPACE = 'kube-node-lease';
/** How long an agent may be silent: four renewals at upstream's interval of 10 s. */
export const NODE_GRACE_MS = 40_000;
/** Reasons and messages are upstream's, which other programs look for. */
export const REASON_UNKNOWN = 'NodeStatusUnknown';
export const REASON_NEVER_UPDATED = 'NodeStatusNeverUpdated';
const MESSAGE_UNKNOWN = 'Kubelet stopped posting node status.';
const MESSAGE_NEVER_UPDATED = 'Kubelet never posted node status.';
const REASON_RESUMED = 'NodeStatusResumed';
const MESSAGE_RESUMED = 'The agent renews its lease again.';

/** The last sign of life. */
export interface NodeHealth {
  /** Another text is another sign. */
  readonly sign: string;
  readonly seenAtMs: number;
}

/** Notes a new sign of life. @returns `previous` if there is none */
export function observeHealth(
  previous: NodeHealth | undefined,
  node: Node,
  lease: Lease | undefined,
  elapsedMs: number,
): NodeHealth {
  const { renewTime = '', holderIdentity = '' } = lease?.spec ?? {};
  const heartbeat = readyOf(node)?.lastHeartbeatTime ?? '';
  const sign = [node.metadata.uid, holderIdentity, renewTime, heartbeat].join(' ');
  return previous?.sign === sign ? previous : { sign, seenAtMs: elapsedMs };
}

export interface NodeInput {
  readonly node: Node;
  /** Those with this node in `spec.nodeName`. */
  readonly pods: Iterable<Pod>;
  readonly isSilent: boolean;
  readonly nowMs: number;
}

/** Objects with a changed status, to be written with the resource version they were read at. */
export interface NodePlan {
  readonly node: Node | undefined;
  readonly pods: readonly Pod[];
}

export function planNode(input: NodeInput): NodePlan {
  const { node, pods, isSilent, nowMs } = input;
  const time = formatTime(nowMs);
  const ready = isSilent ? silenced(readyOf(node), time) : resumed(readyOf(node), time);
  const status = (ready ?? readyOf(node))?.status;
  const changed: Pod[] = [];
  for (const pod of pods) {
    const podReady = podReadyWhen(pod, isSilent, status, time);
    if (podReady !== undefined) changed.push(withCondition(pod, podReady));
  }
  return { node: ready === undefined ? undefined : withCondition(node, ready), pods: changed };
}

function readyOf(object: Node | Pod): Condition | undefined {
  return object.status?.conditions?.find(({ type }) => type === 'Ready');
}

/** @returns `undefined` if nothing changes */
function silenced(ready: Condition | undefined, time: string): Condition | undefined {
  if (ready === undefined)
    return {
      type: 'Ready',
      status: 'Unknown',
      reason: REASON_NEVER_UPDATED,
      message: MESSAGE_NEVER_UPDATED,
      lastTransitionTime: time,
    };
  if (ready.status !== 'True') return undefined;
  return {
    ...ready,
    status: 'Unknown',
    reason: REASON_UNKNOWN,
    message: MESSAGE_UNKNOWN,
    lastTransitionTime: time,
  };
}

function resumed(ready: Condition | undefined, time: string): Condition | undefined {
  if (ready?.status !== 'Unknown' || ready.reason !== REASON_UNKNOWN) return undefined;
  return {
    ...ready,
    status: 'True',
    reason: REASON_RESUMED,
    message: MESSAGE_RESUMED,
    lastTransitionTime: time,
  };
}

/** A pod of a silent node is not ready; it is again, if it was, when its node is. */
function podReadyWhen(
  pod: Pod,
  isSilent: boolean,
  nodeReady: Condition['status'] | undefined,
  time: string,
): Condition | undefined {
  const ready = readyOf(pod);
  if (ready === undefined) return undefined;
  if (isSilent && ready.status === 'True')
    return {
      ...ready,
      status: 'False',
      reason: REASON_UNKNOWN,
      message: `The agent of node "${pod.spec.nodeName}" is silent.`,
      lastTransitionTime: time,
    };
  const isOurs = ready.status === 'False' && ready.reason === REASON_UNKNOWN;
  if (isSilent || !isOurs || nodeReady !== 'True') return undefined;
  const { reason: _reason, message: _message, ...rest } = ready;
  return { ...rest, status: 'True', lastTransitionTime: time };
}

function withCondition<T extends Node | Pod>(object: T, condition: Condition): T {
  const others = (object.status?.conditions ?? []).filter(({ type }) => type !== condition.type);
  return { ...object, status: { ...object.status, conditions: [...others, condition] } };
}
