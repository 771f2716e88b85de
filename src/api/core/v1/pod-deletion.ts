/** Who ends a Pod that is being deleted. Pure. */
import type { Node } from './node.ts';
import type { Pod } from './pod.ts';

/** Begins the `kubeletVersion` of a Node that an agent of ours registered and keeps. */
export const AGENT_VERSION_PREFIX = 'tulle ';

/** Whether a kubelet keeps the Node: then its pods are the kubelet's to end, and its Lease and most of its status too. */
export function hasKubelet(node: Node): boolean {
  const version = node.status?.nodeInfo?.kubeletVersion ?? '';
  return version !== '' && !version.startsWith(AGENT_VERSION_PREFIX);
}

export function isTerminating(pod: Pod): boolean {
  return pod.metadata.deletionTimestamp !== undefined;
}

/** How many seconds each of those that are being deleted was given, by its UID. */
export function gracePeriods(pods: Iterable<Pod>): ReadonlyMap<string, number> {
  const periods = new Map<string, number>();
  for (const { metadata } of pods)
    if (metadata.deletionTimestamp !== undefined)
      periods.set(metadata.uid ?? '', metadata.deletionGracePeriodSeconds ?? 0);
  return periods;
}
