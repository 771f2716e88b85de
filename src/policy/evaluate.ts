/**
 * The engine: is a flow allowed, and by which rules. Pure; the oracle of the kernel's rules and the body of
 * `tulle policy explain`.
 *
 * A connection needs both ends: egress of the source pod, decided on the source's node, and ingress of the destination
 * pod, decided on the destination's. Replies belong to their connection and are not asked about.
 *
 * ```text
 *  Admin policies, by priority      Accept, Deny: final     Pass: leave the tier
 *  NetworkPolicies                  one accepts: final      pod selected, none accepts: denied
 *  Baseline policies, by priority   Accept, Deny: final     Pass: leave the tier
 *  otherwise                        allowed
 * ```
 */
import { type End, matchesPeer, matchesPort, policiesOf } from './match.ts';
import {
  type Action,
  type CompiledPolicy,
  type CompiledRule,
  comparePolicies,
  type Direction,
  type Peer,
  type PolicyTier,
  type World,
} from './model.ts';

export interface Flow {
  readonly from: End;
  readonly to: End;
  /** IP protocol number. */
  readonly protocol: number;
  /** Destination port, as the destination sees it. Undefined for protocols without ports. */
  readonly port: number | undefined;
}

/** What one policy had to say. */
export interface Step {
  readonly tier: PolicyTier;
  readonly policy: CompiledPolicy;
  /** The first rule that matched; undefined: none did. */
  readonly rule: CompiledRule | undefined;
  /** The peer of the rule that matched; undefined: the rule is about everybody. */
  readonly peer: Peer | undefined;
  readonly outcome: Action | 'no match' | 'staged';
}

export interface DirectionResult {
  readonly direction: Direction;
  readonly allowed: boolean;
  /** Every policy that was asked, in order. */
  readonly steps: readonly Step[];
  readonly reason:
    | 'rule'
    /** Selected by NetworkPolicies of which none accepts. */
    | 'isolated'
    /** No policy had anything to say. */
    | 'default'
    /** Its labels are not known, and there are policies that they decide about. */
    | 'closed';
}

export interface Verdict {
  readonly allowed: boolean;
  /** Why no policy is asked at all. */
  readonly exempt: 'self' | 'own node' | undefined;
  /** Undefined: that end is no pod that policies are about. */
  readonly egress: DirectionResult | undefined;
  readonly ingress: DirectionResult | undefined;
}

export interface EvaluateOptions {
  /** Staged policies count as if they were enforced. */
  readonly enforceStaged?: boolean;
}

export function evaluate(world: World, flow: Flow, options: EvaluateOptions = {}): Verdict {
  const { from, to } = flow;
  if (from.pod !== undefined && from.pod.key === to.pod?.key)
    return { allowed: true, exempt: 'self', egress: undefined, ingress: undefined };
  const egress = isSubject(from) ? decide(world, 'egress', flow, options) : undefined;
  // Kubelet's probes must reach a pod, so its own node may always.
  const isOwnNode =
    !isSubject(from) && from.node !== undefined && from.node.name === to.pod?.node && isSubject(to);
  const ingress = isSubject(to) && !isOwnNode ? decide(world, 'ingress', flow, options) : undefined;
  return {
    allowed: (egress?.allowed ?? true) && (ingress?.allowed ?? true),
    exempt: isOwnNode ? 'own node' : undefined,
    egress,
    ingress,
  };
}

function isSubject(end: End): boolean {
  return end.pod !== undefined && !end.pod.hostNetwork;
}

/** What the node of the pod at this end decides. */
export function decide(
  world: World,
  direction: Direction,
  flow: Flow,
  { enforceStaged = false }: EvaluateOptions = {},
): DirectionResult {
  const subject = direction === 'egress' ? flow.from.pod : flow.to.pod;
  if (subject === undefined) return { direction, allowed: true, steps: [], reason: 'default' };
  const selected = policiesOf(world.policies, subject, direction, world.namespaces);
  if (selected === 'unknown') return { direction, allowed: false, steps: [], reason: 'closed' };
  return walk([...selected].sort(comparePolicies), { world, direction, flow, enforceStaged });
}

interface WalkContext {
  readonly world: World;
  readonly direction: Direction;
  readonly flow: Flow;
  readonly enforceStaged: boolean;
}

function walk(policies: readonly CompiledPolicy[], context: WalkContext): DirectionResult {
  const { direction } = context;
  const steps: Step[] = [];
  const passed = new Set<PolicyTier>();
  let isolated = false;
  const end = (allowed: boolean, reason: DirectionResult['reason']): DirectionResult => ({
    direction,
    allowed,
    steps,
    reason,
  });
  for (const policy of policies) {
    const { tier } = policy;
    // NetworkPolicies are final for the pods they select.
    if (isolated && tier === 'Baseline') break;
    if (passed.has(tier)) continue;
    const match = firstMatch(policy, context);
    const isStaged = policy.staged && !context.enforceStaged;
    const outcome = match?.rule.action ?? 'no match';
    steps.push({
      tier,
      policy,
      rule: match?.rule,
      peer: match?.peer,
      outcome: isStaged ? 'staged' : outcome,
    });
    if (isStaged) continue;
    if (tier === 'NetworkPolicy') isolated = true;
    if (outcome === 'Accept') return end(true, 'rule');
    if (outcome === 'Deny') return end(false, 'rule');
    if (outcome === 'Pass') passed.add(tier);
  }
  return isolated ? end(false, 'isolated') : end(true, 'default');
}

function firstMatch(
  policy: CompiledPolicy,
  { world, direction, flow }: WalkContext,
): { rule: CompiledRule; peer: Peer | undefined } | undefined {
  const other = direction === 'ingress' ? flow.from : flow.to;
  const named = flow.to.pod?.ports ?? [];
  for (const rule of policy[direction] ?? []) {
    if (rule.ports !== undefined && !rule.ports.some((port) => matchesPort(port, flow, named)))
      continue;
    if (rule.peers === undefined) return { rule, peer: undefined };
    const peer = rule.peers.find((candidate) => matchesPeer(candidate, other, world));
    if (peer !== undefined) return { rule, peer };
  }
  return undefined;
}
