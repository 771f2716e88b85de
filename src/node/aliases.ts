/**
 * More names for a container, of its runtime (podman's `--network-alias`): the node that runs it writes them on its Pod,
 * and every node's DNS answers them in the Pod's namespace.
 */
import type { Pod } from '#api/core/v1/pod.ts';
import type { Attachment } from './attachment.ts';

/** Annotation of a Pod: its aliases, comma separated. */
export const ALIASES_ANNOTATION = 'tulle.dev/aliases';
/** Label of the Pods that have some, so that DNS need not watch all pods of the cluster. */
export const ALIASED_LABEL = 'tulle.dev/aliased';

/** A label of a name; the underscore stands in names that compose files make. */
const LABEL = /^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/;
/** Each is a name in every node's DNS. */
const MAX_ALIASES = 32;

/**
 * The aliases that can be names. Podman adds the first digits of the container's id to each container; nobody asks by
 * that, and it would make each container of a cluster known to each node.
 */
export function aliasesOf({ aliases = [], containerId }: Attachment): string[] {
  const names = aliases.map((it) => it.toLowerCase()).filter((it) => LABEL.test(it));
  return [...new Set(names)].filter((it) => !containerId.startsWith(it)).slice(0, MAX_ALIASES);
}

/** What is written on the Pod for them. */
export function aliasMarks(attachment: Attachment): {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
} {
  const aliases = aliasesOf(attachment);
  if (aliases.length === 0) return { labels: {}, annotations: {} };
  return {
    labels: { [ALIASED_LABEL]: 'true' },
    annotations: { [ALIASES_ANNOTATION]: aliases.join(',') },
  };
}

/** @returns nothing for what is no name: annotations can be written by others */
export function aliasesOfPod(pod: Pod): string[] {
  const text = pod.metadata.annotations?.[ALIASES_ANNOTATION] ?? '';
  return text
    .split(',')
    .filter((it) => LABEL.test(it))
    .slice(0, MAX_ALIASES);
}
