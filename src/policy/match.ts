/** Whether a pod is chosen, a peer is meant, a port fits. Pure; shared by the engine and the kernel's planner. */
import { matchLabels } from '#api/machinery/label-selector.ts';
import { cidrContains, type Ip } from '#lib/ip.ts';
import type {
  CompiledPolicy,
  Direction,
  NamedPort,
  Peer,
  PodChoice,
  PolicyNamespace,
  PolicyNode,
  PolicyPod,
  PortMatch,
  World,
} from './model.ts';

type Namespaces = ReadonlyMap<string, PolicyNamespace>;

/**
 * Whether the choice is about the pod.
 * @returns `unknown` if that depends on labels that nobody knows yet
 */
export function chooses(
  choice: PodChoice,
  pod: PolicyPod,
  namespaces: Namespaces,
): boolean | 'unknown' {
  if (pod.hostNetwork) return false;
  if (choice.namespace !== undefined && choice.namespace !== pod.namespace) return false;
  if (choice.namespaces.length > 0) {
    const namespace = namespaces.get(pod.namespace);
    if (namespace === undefined) return 'unknown';
    if (!matchLabels(choice.namespaces, namespace.labels)) return false;
  }
  if (choice.pods.length === 0) return true;
  if (pod.labels === undefined) return 'unknown';
  return matchLabels(choice.pods, pod.labels);
}

/** The policies that are about the pod in this direction, in order. @returns `unknown` if that cannot be told yet */
export function policiesOf(
  policies: Iterable<CompiledPolicy>,
  pod: PolicyPod,
  direction: Direction,
  namespaces: Namespaces,
): readonly CompiledPolicy[] | 'unknown' {
  const selected: CompiledPolicy[] = [];
  for (const policy of policies) {
    if (policy[direction] === undefined) continue;
    const chosen = chooses(policy.subject, pod, namespaces);
    if (chosen === 'unknown') {
      // What enforces nothing closes nothing either.
      if (policy.staged) continue;
      return 'unknown';
    }
    if (chosen) selected.push(policy);
  }
  return selected;
}

/** One end of a flow. A pod on its node's network is that node. */
export interface End {
  readonly pod: PolicyPod | undefined;
  readonly node: PolicyNode | undefined;
  /** As the other end sees it. */
  readonly ip: Ip | undefined;
  /** A name in place of an address: whoever DNS says that it is. Lower case, no final dot. */
  readonly domain?: string;
}

export function matchesPeer(peer: Peer, end: End, world: World): boolean {
  switch (peer.kind) {
    case 'pods':
      return end.pod !== undefined && chooses(peer, end.pod, world.namespaces) === true;
    case 'network': {
      const { ip } = end;
      return (
        ip !== undefined &&
        cidrContains(peer.cidr, ip) &&
        !peer.except.some((except) => cidrContains(except, ip))
      );
    }
    case 'nodes':
      return end.node !== undefined && matchLabels(peer.nodes, end.node.labels);
    case 'domain':
      return (
        (end.domain !== undefined && matchesDomain(peer.name, end.domain)) ||
        (end.ip !== undefined && (world.resolved?.(peer.name) ?? []).includes(end.ip))
      );
    case 'unknown':
      return false;
  }
}

/** @param ports of the destination pod, for names */
export function matchesPort(
  match: PortMatch,
  flow: { protocol: number; port: number | undefined },
  ports: readonly NamedPort[],
): boolean {
  if (match.kind === 'range')
    return (
      match.protocol === flow.protocol &&
      // Without a port in question only a rule for all of them is sure to match.
      (flow.port === undefined
        ? match.low <= 1 && match.high === 65_535
        : match.low <= flow.port && flow.port <= match.high)
    );
  return ports.some(
    (port) =>
      port.name === match.name &&
      port.protocol === flow.protocol &&
      port.port === flow.port &&
      (match.protocol === undefined || match.protocol === flow.protocol),
  );
}

/** Whether a name is meant by a pattern; `*.` stands for one or more labels. */
export function matchesDomain(pattern: string, name: string): boolean {
  return pattern.startsWith('*.')
    ? name.length > pattern.length - 1 && name.endsWith(pattern.slice(1))
    : name === pattern;
}
