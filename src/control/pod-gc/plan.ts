/** Pure: which Pod objects stand for containers of a node that is no more. */
import type { Pod } from '#api/core/v1/pod.ts';

/** Label or annotation of pods that Tulle's agents have made. Others belong to somebody else and are left alone. */
export const MANAGED_KEY = 'tulle.dev/managed';
/** Upstream's quarantine: a node that is being made again, or that only our cache lost, keeps its pods. */
export const QUARANTINE_MS = 40_000;

export interface PodGcInput {
  readonly pods: Iterable<Pod>;
  readonly nodeExists: (name: string) => boolean;
  /** Nodes that are missed, and since when. */
  readonly missingSinceMs: ReadonlyMap<string, number>;
  readonly nowMs: number;
}

export interface PodGcPlan {
  /** The next input's. */
  readonly missingSinceMs: ReadonlyMap<string, number>;
  /** By the name of the missing node. */
  readonly remove: ReadonlyMap<string, readonly Pod[]>;
  /** When the next quarantine ends; `undefined` if none runs. */
  readonly nextAtMs: number | undefined;
}

export function planPodGc(input: PodGcInput): PodGcPlan {
  const { pods, nodeExists, nowMs } = input;
  const missingSinceMs = new Map<string, number>();
  const remove = new Map<string, Pod[]>();
  let nextAtMs: number | undefined;
  for (const pod of pods) {
    const { nodeName = '' } = pod.spec;
    if (nodeName === '' || !isManaged(pod) || nodeExists(nodeName)) continue;
    const sinceMs = input.missingSinceMs.get(nodeName) ?? nowMs;
    missingSinceMs.set(nodeName, sinceMs);
    const dueAtMs = sinceMs + QUARANTINE_MS;
    if (dueAtMs > nowMs) {
      nextAtMs = Math.min(nextAtMs ?? Infinity, dueAtMs);
      continue;
    }
    const due = remove.get(nodeName);
    if (due === undefined) remove.set(nodeName, [pod]);
    else due.push(pod);
  }
  return { missingSinceMs, remove, nextAtMs };
}

export function isManaged(pod: Pod): boolean {
  const { labels = {}, annotations = {} } = pod.metadata;
  return labels[MANAGED_KEY] === 'true' || annotations[MANAGED_KEY] === 'true';
}
