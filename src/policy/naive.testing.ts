/**
 * A second evaluator, for tests: straight from the API objects, written after the texts of the specification one
 * sentence at a time, without the engine's common form, its matching or its indexes. Slow and plain on purpose.
 */
import { isIPv4 } from 'node:net';
import type { LabelSelector } from '#api/meta.ts';
import type { NetworkPolicy, NetworkPolicyPort } from '#api/networking/v1/network-policy.ts';
import type {
  ClusterNetworkPolicy,
  ClusterPolicyPeer,
  PolicyProtocol,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { ANSWERS } from './generate.testing.ts';

export interface NaivePod {
  namespace: string;
  name: string;
  labels: Record<string, string>;
  ip: string;
  node: string;
  ports: { name: string; protocol: string; port: number }[];
}
export interface NaiveEnd {
  pod?: NaivePod;
  /** Name of the node whose address it is. */
  node?: string;
  ip: string;
}
export interface NaiveFlow {
  from: NaiveEnd;
  to: NaiveEnd;
  protocol: string;
  port: number;
}
export interface NaiveCluster {
  namespaces: Record<string, Record<string, string>>;
  nodes: Record<string, Record<string, string>>;
  policies: NetworkPolicy[];
  clusterPolicies: ClusterNetworkPolicy[];
}

export function naivelyAllowed(cluster: NaiveCluster, flow: NaiveFlow): boolean {
  const { from, to } = flow;
  if (
    from.pod &&
    to.pod &&
    from.pod.name === to.pod.name &&
    from.pod.namespace === to.pod.namespace
  )
    return true;
  if (from.pod && !directionAllowed(cluster, flow, 'egress')) return false;
  if (to.pod) {
    if (!from.pod && from.node === to.pod.node) return true;
    if (!directionAllowed(cluster, flow, 'ingress')) return false;
  }
  return true;
}

function directionAllowed(
  cluster: NaiveCluster,
  flow: NaiveFlow,
  direction: 'ingress' | 'egress',
): boolean {
  const pod = direction === 'ingress' ? flow.to.pod : flow.from.pod;
  if (!pod) return true;
  const admin = tier(cluster, flow, direction, 'Admin', pod);
  if (admin !== 'next') return admin === 'accept';
  const selecting = cluster.policies.filter(
    (policy) =>
      policy.metadata.namespace === pod.namespace &&
      selects(policy.spec.podSelector ?? {}, pod.labels) &&
      typesOf(policy).includes(direction === 'ingress' ? 'Ingress' : 'Egress'),
  );
  if (selecting.length > 0) {
    for (const policy of selecting) if (accepts(cluster, policy, flow, direction)) return true;
    return false;
  }
  return tier(cluster, flow, direction, 'Baseline', pod) !== 'deny';
}

function typesOf(policy: NetworkPolicy): string[] {
  const types = policy.spec.policyTypes;
  if (types !== undefined && types.length > 0) return types;
  const hasEgress = policy.spec.egress !== undefined && policy.spec.egress.length > 0;
  return hasEgress ? ['Ingress', 'Egress'] : ['Ingress'];
}

function accepts(
  cluster: NaiveCluster,
  policy: NetworkPolicy,
  flow: NaiveFlow,
  direction: 'ingress' | 'egress',
): boolean {
  const own = policy.metadata.namespace ?? '';
  const rules =
    direction === 'ingress'
      ? (policy.spec.ingress ?? []).map((rule) => ({ ports: rule.ports, peers: rule.from }))
      : (policy.spec.egress ?? []).map((rule) => ({ ports: rule.ports, peers: rule.to }));
  const other = direction === 'ingress' ? flow.from : flow.to;
  for (const { ports, peers } of rules) {
    let portFits = ports === undefined || ports.length === 0;
    for (const port of ports ?? []) if (networkPolicyPort(port, flow)) portFits = true;
    let peerFits = peers === undefined || peers.length === 0;
    for (const peer of peers ?? []) {
      if (peer.ipBlock !== undefined) {
        const { cidr, except = [] } = peer.ipBlock;
        if (inCidr(other.ip, cidr) && !except.some((hole) => inCidr(other.ip, hole)))
          peerFits = true;
      } else if (other.pod) {
        const inNamespace =
          peer.namespaceSelector === undefined
            ? other.pod.namespace === own
            : selects(peer.namespaceSelector, cluster.namespaces[other.pod.namespace] ?? {});
        if (inNamespace && selects(peer.podSelector ?? {}, other.pod.labels)) peerFits = true;
      }
    }
    if (portFits && peerFits) return true;
  }
  return false;
}

function networkPolicyPort(port: NetworkPolicyPort, flow: NaiveFlow): boolean {
  if ((port.protocol ?? 'TCP') !== flow.protocol) return false;
  if (port.port === undefined) return true;
  if (typeof port.port === 'string')
    return (flow.to.pod?.ports ?? []).some(
      (it) => it.name === port.port && it.protocol === flow.protocol && it.port === flow.port,
    );
  return flow.port >= port.port && flow.port <= (port.endPort ?? port.port);
}

function tier(
  cluster: NaiveCluster,
  flow: NaiveFlow,
  direction: 'ingress' | 'egress',
  name: 'Admin' | 'Baseline',
  pod: NaivePod,
): 'accept' | 'deny' | 'next' {
  const policies = cluster.clusterPolicies
    .filter((policy) => policy.spec.tier === name)
    .sort((a, b) =>
      a.spec.priority === b.spec.priority
        ? a.metadata.name < b.metadata.name
          ? -1
          : 1
        : a.spec.priority - b.spec.priority,
    );
  for (const { spec } of policies) {
    const namespaceLabels = cluster.namespaces[pod.namespace] ?? {};
    const isSubject = spec.subject.pods
      ? selects(spec.subject.pods.namespaceSelector, namespaceLabels) &&
        selects(spec.subject.pods.podSelector, pod.labels)
      : selects(spec.subject.namespaces ?? {}, namespaceLabels);
    if (!isSubject) continue;
    const rules =
      direction === 'ingress'
        ? (spec.ingress ?? []).map((rule) => ({ ...rule, peers: rule.from }))
        : (spec.egress ?? []).map((rule) => ({ ...rule, peers: rule.to }));
    const other = direction === 'ingress' ? flow.from : flow.to;
    for (const rule of rules) {
      if (!rule.peers.some((peer) => clusterPeer(cluster, peer, other))) continue;
      if (rule.protocols && !rule.protocols.some((it) => clusterPort(it, flow))) continue;
      if (rule.action === 'Accept') return 'accept';
      if (rule.action === 'Deny') return 'deny';
      return 'next';
    }
  }
  return 'next';
}

function clusterPeer(cluster: NaiveCluster, peer: ClusterPolicyPeer, other: NaiveEnd): boolean {
  if (peer.namespaces)
    return (
      other.pod !== undefined &&
      selects(peer.namespaces, cluster.namespaces[other.pod.namespace] ?? {})
    );
  if (peer.pods)
    return (
      other.pod !== undefined &&
      selects(peer.pods.namespaceSelector, cluster.namespaces[other.pod.namespace] ?? {}) &&
      selects(peer.pods.podSelector, other.pod.labels)
    );
  if (peer.nodes)
    return other.node !== undefined && selects(peer.nodes, cluster.nodes[other.node] ?? {});
  if (peer.domainNames)
    return peer.domainNames.some((pattern) =>
      Object.entries(ANSWERS).some(
        ([name, addresses]) => meansName(pattern, name) && addresses.includes(other.ip),
      ),
    );
  return (peer.networks ?? []).some((cidr) => inCidr(other.ip, cidr));
}

function clusterPort(protocol: PolicyProtocol, flow: NaiveFlow): boolean {
  if (protocol.destinationNamedPort !== undefined)
    return (flow.to.pod?.ports ?? []).some(
      (it) =>
        it.name === protocol.destinationNamedPort &&
        it.protocol === flow.protocol &&
        it.port === flow.port,
    );
  const match = { TCP: protocol.tcp, UDP: protocol.udp, SCTP: protocol.sctp }[flow.protocol];
  if (match === undefined) return false;
  const { number, range } = match.destinationPort ?? {};
  if (number !== undefined) return flow.port === number;
  if (range !== undefined) return flow.port >= range.start && flow.port <= range.end;
  return true;
}

function selects(selector: LabelSelector, labels: Record<string, string>): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels ?? {}))
    if (labels[key] !== value) return false;
  for (const { key, operator, values = [] } of selector.matchExpressions ?? []) {
    const value = labels[key];
    if (operator === 'In' && (value === undefined || !values.includes(value))) return false;
    if (operator === 'NotIn' && value !== undefined && values.includes(value)) return false;
    if (operator === 'Exists' && value === undefined) return false;
    if (operator === 'DoesNotExist' && value !== undefined) return false;
  }
  return true;
}

/** Bit by bit, on text: slow, and nobody else's arithmetic. IPv4 only. */
function inCidr(address: string, cidr: string): boolean {
  const [network = '', length = '0'] = cidr.split('/');
  if (!isIPv4(address) || !isIPv4(network)) return false;
  return bits(address).slice(0, Number(length)) === bits(network).slice(0, Number(length));
}

function bits(address: string): string {
  return address
    .split('.')
    .map((part) => Number(part).toString(2).padStart(8, '0'))
    .join('');
}

/** Label by label from the right; a star needs one label at least. */
function meansName(pattern: string, name: string): boolean {
  const wanted = pattern.split('.').reverse();
  const given = name.split('.').reverse();
  for (const [i, label] of wanted.entries()) {
    if (label === '*') return given.length > i;
    if (given[i] !== label) return false;
  }
  return given.length === wanted.length;
}
