/** Pure: which Pod objects are to be deleted because their node cannot. */
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import { hasKubelet, isTerminating } from '#api/core/v1/pod-deletion.ts';

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

/** Set by people on a node that is off for sure: its kubelet will end nothing any more. */
const OUT_OF_SERVICE_TAINT = 'node.kubernetes.io/out-of-service';

/**
 * Who ends a Pod on the node that somebody has deleted: its agent or kubelet, nobody because there is no such node, or
 * nobody because it is silent. A silent kubelet is waited for, as upstream does it, until people say that the node is off:
 * its containers may be running.
 */
export function endingOn(node: Node | undefined): 'node' | 'gone' | 'silent' {
  if (node === undefined) return 'gone';
  const ready = node.status?.conditions?.find(({ type }) => type === 'Ready');
  if (ready?.status === 'True') return 'node';
  const isOff = node.spec?.taints?.some(({ key }) => key === OUT_OF_SERVICE_TAINT) === true;
  return isOff || (ready?.status === 'Unknown' && !hasKubelet(node)) ? 'silent' : 'node';
}

/** The Pods that were deleted and that their node will not end. */
export function stranded(
  pods: Iterable<Pod>,
  nodeOf: (name: string) => Node | undefined,
): readonly Pod[] {
  return [...pods].filter(
    (pod) =>
      isTerminating(pod) &&
      (pod.spec.nodeName ?? '') !== '' &&
      endingOn(nodeOf(pod.spec.nodeName ?? '')) !== 'node',
  );
}
