/** Policies, rules and verdicts in words. */
import { formatSelector } from '#api/machinery/label-selector.ts';
import { hostCidr } from '#lib/ip.ts';
import type { DirectionResult, Flow, Step, Verdict } from './evaluate.ts';
import { type End, matchesPeer, matchesPort } from './match.ts';
import {
  type CompiledRule,
  type Direction,
  MAX_PORT,
  type Peer,
  type PodChoice,
  type PortMatch,
  PROTOCOL_NUMBERS,
  protocolName,
  type World,
} from './model.ts';

export function describeEnd({ pod, node, ip, domain }: End): string {
  if (pod !== undefined) return `${pod.namespace}/${pod.name}`;
  if (node !== undefined) return `node ${node.name}`;
  if (domain !== undefined) return domain;
  return ip ?? 'anybody';
}

export function describePeer(peer: Peer): string {
  switch (peer.kind) {
    case 'pods':
      return describeChoice(peer);
    case 'network':
      return peer.except.length === 0
        ? `network ${peer.cidr}`
        : `network ${peer.cidr} except ${peer.except.join(', ')}`;
    case 'nodes':
      return peer.nodes.length === 0 ? 'all nodes' : `nodes ${formatSelector(peer.nodes)}`;
    case 'domain':
      return `domain ${peer.name}`;
    case 'unknown':
      return 'a kind of peer that this version does not know';
  }
}

export function describeChoice(choice: PodChoice): string {
  const pods = choice.pods.length === 0 ? 'all pods' : `pods ${formatSelector(choice.pods)}`;
  if (choice.namespace !== undefined) return `${pods} in namespace ${choice.namespace}`;
  return choice.namespaces.length === 0
    ? `${pods} in every namespace`
    : `${pods} in namespaces with ${formatSelector(choice.namespaces)}`;
}

export function describePort(port: PortMatch): string {
  if (port.kind === 'named')
    return `port "${port.name}"${port.protocol === undefined ? '' : `/${protocolName(port.protocol)}`}`;
  const { low, high, protocol } = port;
  if (low <= 1 && high >= MAX_PORT) return `every ${protocolName(protocol)} port`;
  return `${low === high ? low : `${low}-${high}`}/${protocolName(protocol)}`;
}

export function describeRule(rule: CompiledRule, direction: Direction): string {
  const word = direction === 'ingress' ? 'from' : 'to';
  const peers = rule.peers === undefined ? 'everybody' : rule.peers.map(describePeer).join(' or ');
  const ports = rule.ports === undefined ? '' : ` on ${rule.ports.map(describePort).join(', ')}`;
  return `${word} ${peers || 'nobody'}${ports}`;
}

/** `ingress[2] "allow-dns"` */
export function ruleName(rule: CompiledRule, direction: Direction): string {
  return `${direction}[${rule.index}]${rule.name === undefined ? '' : ` "${rule.name}"`}`;
}

export function describeFlow(flow: Flow): string {
  const name = protocolName(flow.protocol);
  const port =
    flow.port !== undefined
      ? `${flow.port}/${name}`
      : hasPorts(flow.protocol)
        ? `every ${name} port`
        : name;
  return `${describeEnd(flow.from)} -> ${describeEnd(flow.to)}, ${port}`;
}

function hasPorts(protocol: number): boolean {
  return Object.values(PROTOCOL_NUMBERS).some((number) => number === protocol);
}

/** The verdict and everything that led to it, as lines. */
export function explainVerdict(world: World, flow: Flow, verdict: Verdict): string[] {
  const lines = [`${describeFlow(flow)}: ${verdict.allowed ? 'ALLOWED' : 'DENIED'}`];
  if (verdict.exempt === 'self') lines.push('  a pod always reaches itself');
  if (verdict.egress !== undefined) lines.push(...explainDirection(world, flow, verdict.egress));
  else if (verdict.exempt === undefined)
    lines.push(`  egress: ${describeEnd(flow.from)} is no pod that policies are about`);
  if (verdict.ingress !== undefined) lines.push(...explainDirection(world, flow, verdict.ingress));
  else if (verdict.exempt === 'own node')
    lines.push("  ingress: a pod's own node always reaches it");
  else if (verdict.exempt === undefined)
    lines.push(`  ingress: ${describeEnd(flow.to)} is no pod that policies are about`);
  return lines;
}

function explainDirection(world: World, flow: Flow, result: DirectionResult): string[] {
  const { direction, allowed, steps, reason } = result;
  const subject = describeEnd(direction === 'egress' ? flow.from : flow.to);
  const lines = [`  ${direction} of ${subject}: ${allowed ? 'allowed' : 'denied'}`];
  for (const step of steps) lines.push(...explainStep(world, flow, direction, step));
  if (reason === 'default') lines.push(`    nothing restricts the ${direction} of ${subject}`);
  if (reason === 'closed')
    lines.push(
      `    the labels of ${subject} are not known yet, and there are policies that ask for them`,
    );
  if (reason === 'isolated') lines.push(...howToAllow(flow, direction, steps));
  if (reason === 'rule' && !allowed) {
    const last = steps.at(-1);
    if (last?.rule !== undefined)
      lines.push(
        `    to allow it: put an Accept or Pass rule before ${ruleName(last.rule, direction)} of ${last.policy.id}, or narrow it`,
      );
  }
  return lines;
}

function explainStep(world: World, flow: Flow, direction: Direction, step: Step): string[] {
  const { policy, rule, peer, outcome } = step;
  // A NetworkPolicy is named like its tier.
  const tier = policy.tier === 'NetworkPolicy' ? '' : `${policy.tier} tier, `;
  const head = `    ${tier}${policy.id} (${describeChoice(policy.subject)})`;
  const staged = outcome === 'staged' ? ' [staged: not enforced]' : '';
  if (rule !== undefined) {
    const why = peer === undefined ? 'it is about everybody' : `matched ${describePeer(peer)}`;
    return [`${head}: ${rule.action} by ${ruleName(rule, direction)}, ${why}${staged}`];
  }
  return [
    `${head}: no rule matches${staged}`,
    ...(policy[direction] ?? []).map(
      (candidate) =>
        `      ${ruleName(candidate, direction)} ${describeRule(candidate, direction)}: ${whyNot(world, flow, direction, candidate)}`,
    ),
  ];
}

function whyNot(world: World, flow: Flow, direction: Direction, rule: CompiledRule): string {
  const other = direction === 'ingress' ? flow.from : flow.to;
  const named = flow.to.pod?.ports ?? [];
  const reasons: string[] = [];
  if (rule.peers !== undefined && !rule.peers.some((peer) => matchesPeer(peer, other, world)))
    reasons.push(
      `${describeEnd(other)} is not meant${labelsOf(other)}${notKnown(rule, other, world)}`,
    );
  if (rule.ports !== undefined && !rule.ports.some((port) => matchesPort(port, flow, named)))
    reasons.push(
      hasPorts(flow.protocol) ? 'other ports' : 'rules with ports are never about this protocol',
    );
  return reasons.join(', ') || 'never reached';
}

/** Where nobody knows what DNS said, or which address a name has, "not meant" is not the whole truth. */
function notKnown(rule: CompiledRule, other: End, world: World): string {
  const kinds = new Set(rule.peers?.map(({ kind }) => kind));
  if (other.domain !== undefined && kinds.has('network'))
    return ' (its addresses are not looked up: ask for one of them to know about networks)';
  return kinds.has('domain') && other.ip !== undefined && world.resolved === undefined
    ? ' (which addresses DNS gave for the domain names is not known here: ask for the name)'
    : '';
}

function labelsOf({ pod }: End): string {
  const labels = Object.entries(pod?.labels ?? {}).map(([key, value]) => `${key}=${value}`);
  return pod === undefined ? '' : ` (it has ${labels.join(',') || 'no labels'})`;
}

function howToAllow(flow: Flow, direction: Direction, steps: readonly Step[]): string[] {
  const isolating = steps.filter(
    ({ tier, outcome }) => tier === 'NetworkPolicy' && outcome !== 'staged',
  );
  const names = isolating.map(({ policy }) => policy.name).join(', ');
  const other = direction === 'ingress' ? flow.from : flow.to;
  const isolated = `    isolated by ${names}, and none of them allows it`;
  if (other.domain !== undefined)
    return [
      isolated,
      `    to allow it: a ClusterNetworkPolicy of tier Admin that accepts domainNames: ["${other.domain}"] (a NetworkPolicy knows no names), or an ipBlock of its addresses`,
    ];
  return [
    isolated,
    `    to allow it: add the rule ${ruleFor(flow, direction)} to one of them, or to a policy of its own`,
  ];
}

/** As it would stand in the list of a NetworkPolicy beside the pod. */
function ruleFor(flow: Flow, direction: Direction): string {
  const [own, other] = direction === 'ingress' ? [flow.to, flow.from] : [flow.from, flow.to];
  const ports =
    flow.port === undefined || !hasPorts(flow.protocol)
      ? ''
      : `, ports: [{protocol: ${protocolName(flow.protocol)}, port: ${flow.port}}]`;
  return `{${direction === 'ingress' ? 'from' : 'to'}: [{${peerFor(other, own)}}]${ports}}`;
}

function peerFor({ pod, node, ip }: End, own: End): string {
  if (pod === undefined) {
    const address = ip ?? node?.ips[0];
    return address === undefined ? 'ipBlock: …' : `ipBlock: {cidr: ${hostCidr(address)}}`;
  }
  const labels = Object.entries(pod.labels ?? {}).map(([key, value]) => `${key}: ${value}`);
  const pods = `podSelector: {${labels.length === 0 ? '' : `matchLabels: {${labels.join(', ')}}`}}`;
  return pod.namespace === own.pod?.namespace
    ? pods
    : `namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ${pod.namespace}}}, ${pods}`;
}
