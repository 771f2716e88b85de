/**
 * Policies as the API has them → {@link CompiledPolicy}. An object from another server may hold what we do not know;
 * what is not understood closes, never opens.
 */
import { type Requirement, type Selector, selectorOf } from '#api/machinery/label-selector.ts';
import type { KubeObject, LabelSelector } from '#api/meta.ts';
import type {
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
} from '#api/networking/v1/network-policy.ts';
import type {
  ClusterNetworkPolicy,
  ClusterPolicyPeer,
  NamespacedPod,
  PolicyProtocol,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { type Cidr, cidrOf, splitCidr } from '#lib/ip.ts';
import {
  type Action,
  type CompiledPolicy,
  type CompiledRule,
  type Direction,
  MAX_PORT,
  type Peer,
  type PodChoice,
  type PortMatch,
  PROTOCOL_NUMBERS,
} from './model.ts';

/** `staged`: the policy logs what it would do, and enforces nothing. */
export const ENFORCEMENT_ANNOTATION = 'tulle.dev/enforcement';
/** `accepts`: a sample of what the policy's rules accept is logged too. */
export const LOG_ANNOTATION = 'tulle.dev/log';

const ALL: Selector = [];
const OPERATORS: readonly Requirement['operator'][] = ['In', 'NotIn', 'Exists', 'DoesNotExist'];

export function compileNetworkPolicy(policy: NetworkPolicy): CompiledPolicy {
  const { namespace = 'default', name } = policy.metadata;
  const spec = policy.spec ?? {};
  const problems: string[] = [];
  const types: readonly string[] = spec.policyTypes?.length
    ? spec.policyTypes
    : (spec.egress ?? []).length > 0
      ? ['Ingress', 'Egress']
      : ['Ingress'];
  const rules = (direction: Direction): CompiledRule[] | undefined => {
    if (!types.includes(direction === 'ingress' ? 'Ingress' : 'Egress')) return undefined;
    const list =
      direction === 'ingress'
        ? (spec.ingress ?? []).map((rule) => ({ ports: rule?.ports, peers: rule?.from }))
        : (spec.egress ?? []).map((rule) => ({ ports: rule?.ports, peers: rule?.to }));
    return list.map(({ ports, peers }, index) => ({
      index,
      name: undefined,
      action: 'Accept',
      peers: peers?.length
        ? peers.flatMap((peer) => networkPolicyPeer(peer, namespace))
        : undefined,
      ports: ports?.length ? ports.flatMap(networkPolicyPort) : undefined,
    }));
  };
  return {
    id: `NetworkPolicy ${namespace}/${name}`,
    kind: 'NetworkPolicy',
    namespace,
    name,
    tier: 'NetworkPolicy',
    priority: 0,
    subject: { namespace, namespaces: ALL, pods: subjectSelector(spec.podSelector, problems) },
    ingress: rules('ingress'),
    egress: rules('egress'),
    ...modesOf(policy),
    problems,
  };
}

export function compileClusterPolicy(policy: ClusterNetworkPolicy): CompiledPolicy {
  const { name } = policy.metadata;
  const { spec } = policy;
  const problems: string[] = [];
  const rules = (direction: Direction): CompiledRule[] | undefined => {
    const list =
      direction === 'ingress'
        ? spec?.ingress?.map((rule) => ({ rule, peers: rule.from }))
        : spec?.egress?.map((rule) => ({ rule, peers: rule.to }));
    if (list === undefined || list.length === 0) return undefined;
    return list.map(({ rule, peers = [] }, index) =>
      closeUnknown(
        {
          index,
          name: rule.name || undefined,
          action: rule.action,
          peers: peers.flatMap(clusterPolicyPeer).map((peer) =>
            // What DNS says of an address says nothing of who sends from it.
            peer.kind === 'domain' && direction === 'ingress' ? { kind: 'unknown' } : peer,
          ),
          ports: rule.protocols?.length ? rule.protocols.map(clusterPolicyPort) : undefined,
        },
        (what) => problems.push(`${direction}[${index}]: ${what}`),
      ),
    );
  };
  return {
    id: `ClusterNetworkPolicy ${name}`,
    kind: 'ClusterNetworkPolicy',
    namespace: undefined,
    name,
    // A tier nobody knows: asked first, where its denials hold.
    tier: spec?.tier === 'Baseline' ? 'Baseline' : 'Admin',
    priority: spec?.priority ?? 0,
    subject: clusterSubject(spec?.subject, problems),
    ingress: rules('ingress'),
    egress: rules('egress'),
    ...modesOf(policy),
    problems,
  };
}

function modesOf({ metadata }: KubeObject): { staged: boolean; logsAccepts: boolean } {
  return {
    staged: metadata.annotations?.[ENFORCEMENT_ANNOTATION] === 'staged',
    logsAccepts: metadata.annotations?.[LOG_ANNOTATION] === 'accepts',
  };
}

function networkPolicyPeer(peer: NetworkPolicyPeer | null, namespace: string): Peer[] {
  if (peer?.ipBlock !== undefined) {
    const cidr = looseCidr(peer.ipBlock.cidr);
    if (cidr === undefined) return [{ kind: 'unknown' }];
    const except = (peer.ipBlock.except ?? []).map(looseCidr);
    // An exception that cannot be read might be any address.
    if (!except.every((it) => it !== undefined)) return [{ kind: 'unknown' }];
    return [{ kind: 'network', cidr, except }];
  }
  if (peer?.namespaceSelector === undefined && peer?.podSelector === undefined)
    return [{ kind: 'unknown' }];
  const pods = selectorOf(peer.podSelector);
  return [
    peer.namespaceSelector === undefined
      ? { kind: 'pods', namespace, namespaces: ALL, pods }
      : {
          kind: 'pods',
          namespace: undefined,
          namespaces: selectorOf(peer.namespaceSelector),
          pods,
        },
  ];
}

function networkPolicyPort(port: NetworkPolicyPort): PortMatch[] {
  const protocol = PROTOCOL_NUMBERS[port.protocol ?? 'TCP'];
  if (protocol === undefined) return [];
  if (typeof port.port === 'string') return [{ kind: 'named', name: port.port, protocol }];
  const low = port.port ?? 0;
  const high = port.port === undefined ? MAX_PORT : (port.endPort ?? port.port);
  const range = rangeOf(protocol, low, high);
  return range === undefined ? [] : [range];
}

/** A range that the kernel would refuse must not reach it: with it all other policies would be refused. */
function rangeOf(protocol: number, low: unknown, high: unknown): PortMatch | undefined {
  const isPort = (value: unknown): value is number =>
    Number.isInteger(value) && Number(value) >= 0 && Number(value) <= MAX_PORT;
  return isPort(low) && isPort(high) && low <= high
    ? { kind: 'range', protocol, low, high }
    : undefined;
}

function clusterPolicyPeer(peer: ClusterPolicyPeer): Peer[] {
  if (peer?.namespaces !== undefined)
    return [
      { kind: 'pods', namespace: undefined, namespaces: selectorOf(peer.namespaces), pods: ALL },
    ];
  if (peer?.pods !== undefined) return [{ kind: 'pods', ...namespacedPods(peer.pods) }];
  if (peer?.nodes !== undefined) return [{ kind: 'nodes', nodes: selectorOf(peer.nodes) }];
  if (peer?.networks !== undefined)
    return peer.networks.map((text): Peer => {
      const cidr = looseCidr(text);
      return cidr === undefined ? { kind: 'unknown' } : { kind: 'network', cidr, except: [] };
    });
  if (peer?.domainNames !== undefined)
    return peer.domainNames.map((name) => ({
      kind: 'domain',
      name: name.toLowerCase().replace(/\.$/, ''),
    }));
  return [{ kind: 'unknown' }];
}

function namespacedPods(pods: NamespacedPod): PodChoice {
  return {
    namespace: undefined,
    namespaces: selectorOf(pods.namespaceSelector),
    pods: selectorOf(pods.podSelector),
  };
}

/** Undefined ports are of a newer version: {@link closeUnknown} deals with them. */
function clusterPolicyPort(port: PolicyProtocol): PortMatch | undefined {
  const name: unknown = port?.destinationNamedPort;
  if (name !== undefined)
    return typeof name === 'string' ? { kind: 'named', name, protocol: undefined } : undefined;
  for (const key of ['tcp', 'udp', 'sctp'] as const) {
    const match = port?.[key];
    if (match === undefined) continue;
    const protocol = PROTOCOL_NUMBERS[key.toUpperCase() as 'TCP' | 'UDP' | 'SCTP'];
    const { number, range } = match.destinationPort ?? {};
    if (number !== undefined) return rangeOf(protocol, number, number);
    if (range !== undefined) return rangeOf(protocol, range.start, range.end);
    // A port of a form we do not know is not "all ports".
    if (match.destinationPort !== undefined) return undefined;
    return { kind: 'range', protocol, low: 0, high: MAX_PORT };
  }
  return undefined;
}

interface DraftRule extends Omit<CompiledRule, 'ports' | 'action'> {
  readonly action: string;
  readonly ports: readonly (PortMatch | undefined)[] | undefined;
}

/**
 * The fail-closed rule: what has a part that nobody can judge accepts nothing, and denies everything.
 * A Pass would skip denials further on, so it denies too.
 */
function closeUnknown(rule: DraftRule, report: (what: string) => void): CompiledRule {
  const { index, name, peers = [] } = rule;
  const ports = rule.ports?.filter((port) => port !== undefined);
  const unknown =
    (peers.some((peer) => peer.kind === 'unknown') && 'a peer') ||
    (ports?.length !== rule.ports?.length && 'a protocol') ||
    (!isAction(rule.action) && `the action "${rule.action}"`);
  if (!unknown && isAction(rule.action)) return { index, name, action: rule.action, peers, ports };
  if (rule.action === 'Accept') {
    report(`${unknown} is not known to this version: the rule accepts nothing`);
    return { index, name, action: 'Accept', peers: [], ports: undefined };
  }
  report(`${unknown} is not known to this version: the rule denies everything`);
  return { index, name, action: 'Deny', peers: undefined, ports: undefined };
}

function isAction(text: string): text is Action {
  return text === 'Accept' || text === 'Deny' || text === 'Pass';
}

function clusterSubject(
  subject: ClusterNetworkPolicy['spec']['subject'] | undefined,
  problems: string[],
): PodChoice {
  if (subject?.pods !== undefined)
    return {
      namespace: undefined,
      namespaces: subjectSelector(subject.pods.namespaceSelector, problems),
      pods: subjectSelector(subject.pods.podSelector, problems),
    };
  if (subject?.namespaces !== undefined)
    return {
      namespace: undefined,
      namespaces: subjectSelector(subject.namespaces, problems),
      pods: ALL,
    };
  problems.push(
    'the subject is not known to this version: the policy is taken to be about all pods',
  );
  return { namespace: undefined, namespaces: ALL, pods: ALL };
}

/** A subject that cannot be judged is everybody: a policy that is about nobody would leave open what it closes. */
function subjectSelector(selector: LabelSelector | undefined, problems: string[]): Selector {
  const parsed = selectorOf(selector);
  const known = parsed.filter((requirement) => OPERATORS.includes(requirement.operator));
  if (known.length < parsed.length)
    problems.push('an operator of a selector is not known to this version: it is left out');
  return known;
}

/** Host bits are allowed, as upstream: `10.0.0.1/8` means `10.0.0.0/8`. */
function looseCidr(text: string | undefined): Cidr | undefined {
  const parts = splitCidr(text ?? '');
  return parts === undefined ? undefined : cidrOf(parts.address, parts.prefixLength);
}
