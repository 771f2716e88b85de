/** Pure: which Pod objects are Tulle's to delete when their node is no more. */
import type { Pod } from '#api/core/v1/pod.ts';

/** Label or annotation of pods that Tulle's agents have made. Others belong to somebody else and are left alone. */
export const MANAGED_KEY = 'tulle.dev/managed';

/** Tulle's pods by the name of their node. */
export function managedPods(pods: Iterable<Pod>): ReadonlyMap<string, readonly Pod[]> {
  const byNode = new Map<string, Pod[]>();
  for (const pod of pods) {
    const { nodeName = '' } = pod.spec;
    if (nodeName === '' || !isManaged(pod)) continue;
    const known = byNode.get(nodeName);
    if (known === undefined) byNode.set(nodeName, [pod]);
    else known.push(pod);
  }
  return byNode;
}

export function isManaged(pod: Pod): boolean {
  const { labels = {}, annotations = {} } = pod.metadata;
  return labels[MANAGED_KEY] === 'true' || annotations[MANAGED_KEY] === 'true';
}
