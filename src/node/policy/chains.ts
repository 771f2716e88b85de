/**
 * The chains of policy. Pure.
 *
 * ```text
 *  forward ─► policy-from-pods   established? out.  saddr vmap @policy-egress  ─┐ jump   ┌─► tier-… (Admin)
 *  input   ─► policy-to-node     the same                                       ├─► pods-… ─► np-… NetworkPolicies
 *  forward ─► policy-to-pods     established? out.  daddr vmap @policy-ingress ─┘        └─► tier-… (Baseline)
 * ```
 * Each direction has a base chain of its own, so that `accept` means "this direction agrees" and the other is still
 * asked. A pod's link whose address is in neither map is closed: a new pod is isolated before anybody says so. (What
 * goes between ports of one bridge comes in by the bridge; there the source's check of the bridge closes it.)
 * There is one `pods-…` chain per distinct list of policies, whatever number of pods has it. NetworkPolicies that are
 * about the same pods share `np-…` chains (`bundles.ts`).
 */
import { CT_MARK_CUT, NFLOG_GROUP, POD_LINK_PREFIX } from '#lib/kernel-objects.ts';
import type { CompiledPolicy, CompiledRule, Direction, PolicyTier } from '#policy/model.ts';
import {
  accept,
  CT_STATE,
  counter,
  drop,
  type Expression,
  goto,
  jump,
  limit,
  log,
  returnToCaller,
} from '#wire/nftables/expressions.ts';
import {
  anyBit,
  between,
  ct,
  equals,
  IPPROTO,
  icmp,
  inSet,
  ip,
  ip6,
  masked,
  meta,
  verdictMap,
} from '#wire/nftables/match.ts';
import type { ChainContent, SetContent } from '../ruleset.ts';
import { FORWARD, FORWARD_ORDER } from '../shared-chains.ts';
import type { Bundle, BundledRule } from './bundles.ts';
import {
  CLOSED_CHAIN,
  CLOSED_INGRESS_CHAIN,
  commentOf,
  EGRESS_PODS,
  INGRESS_PODS,
  type LogMark,
  logPrefix,
  SELF,
  shortHash,
} from './names.ts';
import { matchOf, type NeededSet, type NftFamilyName, portMatches } from './rules.ts';

/** A chain with the sets that its rules look into. */
export interface BuiltChain {
  readonly content: ChainContent;
  readonly sets: readonly NeededSet[];
}

type NftRule = ChainContent['rules'][number];

/** Rules of a chain with the sets that they look into. */
export interface ChainPart {
  readonly rules: readonly NftRule[];
  readonly sets: readonly NeededSet[];
}

/** The policies of a pod in one direction, in order. Pods with equal lists have one rule set, and one chain. */
export interface RuleSet {
  readonly id: string;
  readonly direction: Direction;
  readonly policies: readonly CompiledPolicy[];
  readonly bundles: readonly Bundle[];
}

const EGRESS_PRIORITY = FORWARD.base.priority;
const INGRESS_PRIORITY = EGRESS_PRIORITY + 1;
/** Of each rule: a flood of refused packets must not become a flood of log messages. */
const MAX_LOGS_PER_SECOND = 10;
/** Enough of a packet for its headers. */
const LOG_BYTES = 128;
/** Neighbour discovery and multicast listener messages: without them a pod has no IPv6 at all. */
const LINK_LOCAL_ICMP6 = {
  first: 130,
  last: 137,
  listenerReport: 143,
  neighbourSolicit: 135,
  neighbourAdvert: 136,
} as const;

/** Chains and maps that are there whatever policies say. */
export function baseSets(family: NftFamilyName): SetContent[] {
  const address = family === 'ip' ? ('ipv4_addr' as const) : ('ipv6_addr' as const);
  return [
    { set: EGRESS_PODS, key: [address], data: 'verdict' },
    { set: INGRESS_PODS, key: [address], data: 'verdict' },
    { set: SELF, key: [address, address] },
  ];
}

export function baseChains(family: NftFamilyName): ChainContent[] {
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  // Every forwarded packet passes the chain for egress first, so only that one looks for the mark.
  const cut: NftRule = {
    expressions: [...anyBit(ct('mark'), CT_MARK_CUT), counter(), drop],
    comment: 'a connection that policy allows no more',
  };
  const isEstablished = anyBit(ct('state'), CT_STATE.established | CT_STATE.related);
  const established: NftRule = { expressions: [...isEstablished, accept] };
  // Nearly every packet: it ends here.
  const allowed: NftRule = {
    expressions: [...masked(ct('mark'), CT_MARK_CUT, '==', 0), ...isEstablished, accept],
  };
  const self: NftRule = {
    expressions: [...inSet([saddr, daddr], SELF), accept],
    comment: 'a pod reaches itself',
  };
  const from: NftRule[] = [
    { expressions: verdictMap([saddr], EGRESS_PODS) },
    {
      expressions: [
        ...equals(meta.iifname, new TextEncoder().encode(POD_LINK_PREFIX)),
        goto(CLOSED_CHAIN),
      ],
      comment: 'a pod whose policy is not known yet',
    },
  ];
  const to: NftRule[] = [
    { expressions: verdictMap([daddr], INGRESS_PODS) },
    {
      expressions: [
        ...equals(meta.oifname, new TextEncoder().encode(POD_LINK_PREFIX)),
        goto(CLOSED_INGRESS_CHAIN),
      ],
      comment: 'a pod whose policy is not known yet',
    },
  ];
  const discovery = family === 'ip6' ? neighbourDiscovery() : [];
  // Between pods of one bridge. What was routed has a smaller hop limit, and is no discovery to anybody.
  const bridged = family === 'ip6' ? [bridgedDiscovery()] : [];
  const base = (hook: 'forward' | 'input', priority: number) =>
    ({ type: 'filter', hook, priority }) as const;
  return [
    {
      name: CLOSED_CHAIN,
      rules: refuse({ verdict: 'closed', direction: 'egress', source: '', rule: -1 }, 'closed'),
    },
    {
      name: CLOSED_INGRESS_CHAIN,
      rules: refuse({ verdict: 'closed', direction: 'ingress', source: '', rule: -1 }, 'closed'),
    },
    {
      ...FORWARD,
      rules: [
        { ...allowed, order: FORWARD_ORDER.established },
        ...[cut, self, ...bridged, ...from].map((it) => ({ ...it, order: FORWARD_ORDER.policy })),
      ],
    },
    {
      name: 'policy-to-pods',
      base: base('forward', INGRESS_PRIORITY),
      rules: [established, self, ...bridged, ...to],
    },
    {
      name: 'policy-to-node',
      base: base('input', EGRESS_PRIORITY),
      rules: [allowed, cut, ...discovery, ...from],
    },
  ];
}

const isIcmp6 = equals(meta.l4proto, Uint8Array.of(IPPROTO.icmpv6));
const NOT_ROUTED_HOP_LIMIT = 255;

function bridgedDiscovery(): NftRule {
  const { neighbourSolicit, neighbourAdvert } = LINK_LOCAL_ICMP6;
  return {
    expressions: [
      ...isIcmp6,
      ...equals(ip6.hopLimit, Uint8Array.of(NOT_ROUTED_HOP_LIMIT)),
      ...between(icmp.type, Uint8Array.of(neighbourSolicit), Uint8Array.of(neighbourAdvert)),
      accept,
    ],
    comment: 'neighbour discovery on a bridge',
  };
}

function neighbourDiscovery(): NftRule[] {
  const { first, last, listenerReport } = LINK_LOCAL_ICMP6;
  return [
    {
      expressions: [
        ...isIcmp6,
        ...between(icmp.type, Uint8Array.of(first), Uint8Array.of(last)),
        accept,
      ],
    },
    { expressions: [...isIcmp6, ...equals(icmp.type, Uint8Array.of(listenerReport)), accept] },
  ];
}

export function ruleSetId(direction: Direction, policies: readonly CompiledPolicy[]): string {
  return `${direction} ${policies.map(({ id }) => id).join('|')}`;
}

export function ruleSetChainName({ id, direction }: RuleSet): string {
  return `pods-${letter(direction)}-${shortHash(id)}`;
}

/** The chain to which a pod's address leads, and the names of the chains that it jumps to. */
export function ruleSetChain(ruleSet: RuleSet, family: NftFamilyName): BuiltChain {
  const { direction } = ruleSet;
  const sets: NeededSet[] = [];
  const enforced = ruleSet.policies.filter((policy) => !policy.staged);
  const inTier = (tier: PolicyTier) => enforced.filter((policy) => policy.tier === tier);
  const rules: NftRule[] = [];
  if (enforced.length < ruleSet.policies.length)
    rules.push({ expressions: [jump(stagedChainName(ruleSet))] });
  if (inTier('Admin').length > 0)
    rules.push({ expressions: [jump(tierChainName(inTier('Admin'), direction))] });
  const isolating = inTier('NetworkPolicy');
  if (isolating.length > 0) {
    for (const { chain, ports } of ruleSet.bundles) {
      const asked = portMatches(ports, family);
      sets.push(...asked.sets);
      for (const match of asked.alternatives) rules.push({ expressions: [...match, jump(chain)] });
    }
    rules.push(
      ...refuse(
        { verdict: 'isolated', direction, source: shortHash(ruleSet.id), rule: -1 },
        `isolated, ${direction}: ${isolating.map(({ namespace, name }) => `${namespace}/${name}`).join(', ')}`,
      ),
    );
  } else {
    if (inTier('Baseline').length > 0)
      rules.push({ expressions: [jump(tierChainName(inTier('Baseline'), direction))] });
    rules.push({ expressions: [accept] });
  }
  return { content: { name: ruleSetChainName(ruleSet), rules }, sets };
}

/** The lists of ClusterNetworkPolicies of a rule set that have a chain each. */
export function tiersOf({ policies }: RuleSet): (readonly CompiledPolicy[])[] {
  const enforced = policies.filter((policy) => !policy.staged);
  const tier = (name: PolicyTier) => enforced.filter((policy) => policy.tier === name);
  // Where NetworkPolicies isolate, Baseline is never asked.
  const baseline = tier('NetworkPolicy').length > 0 ? [] : tier('Baseline');
  return [tier('Admin'), baseline].filter((list) => list.length > 0);
}

/** One policy's rules in one direction, for all pods that it selects. */
export function policyPart(
  policy: CompiledPolicy,
  direction: Direction,
  family: NftFamilyName,
): ChainPart {
  const parts = (policy[direction] ?? []).map((rule) =>
    policyRules(policy, rule, { direction, family }),
  );
  return joinParts(parts);
}

/** One rule of a bundle, without what is asked before its chain. */
export function bundledPart(
  { policy, rule }: BundledRule,
  { ports }: Bundle,
  context: RuleContext,
): ChainPart {
  return policyRules(policy, ports === undefined ? rule : { ...rule, ports: undefined }, context);
}

/** A chain of parts, in order. */
export function chainOf(name: string, parts: readonly ChainPart[]): BuiltChain {
  const { rules, sets } = joinParts(parts);
  return { content: { name, rules }, sets };
}

function joinParts(parts: readonly ChainPart[]): ChainPart {
  return {
    rules: parts.flatMap(({ rules }) => rules),
    sets: parts.flatMap(({ sets }) => sets),
  };
}

export function tierChainName(policies: readonly CompiledPolicy[], direction: Direction): string {
  return `tier-${letter(direction)}-${shortHash(policies.map(({ id }) => id).join('|'))}`;
}

/** A list of ClusterNetworkPolicies of one tier. Pass leaves it by `return`, so their rules stand in one chain. */
export function tierChain(
  policies: readonly CompiledPolicy[],
  direction: Direction,
  family: NftFamilyName,
): BuiltChain {
  return chainOf(
    tierChainName(policies, direction),
    policies.map((policy) => policyPart(policy, direction, family)),
  );
}

export interface RuleContext {
  readonly direction: Direction;
  readonly family: NftFamilyName;
}

function policyRules(
  policy: CompiledPolicy,
  rule: CompiledRule,
  { direction, family }: RuleContext,
): ChainPart {
  const { alternatives, sets } = matchOf(rule, direction, family);
  const comment = ruleComment(policy, direction, rule);
  const mark = (verdict: 'deny' | 'accept'): LogMark => ({
    ...{ verdict, direction, source: shortHash(policy.id), rule: rule.index },
  });
  const rules = alternatives.flatMap((match): NftRule[] => {
    if (rule.action === 'Deny') return refuse(mark('deny'), comment, match);
    const verdict = rule.action === 'Accept' ? accept : returnToCaller;
    const sample = policy.logsAccepts
      ? [{ expressions: [...match, ...sampled(mark('accept'))] }]
      : [];
    return [...sample, { expressions: [...match, counter(), verdict], comment }];
  });
  return { rules, sets };
}

/** How a rule is called in comments and metrics: `NetworkPolicy default/web ingress[0]`. */
export function ruleComment(
  policy: CompiledPolicy,
  direction: Direction,
  rule: CompiledRule,
): string {
  return commentOf(`${policy.id} ${direction}[${rule.index}]`);
}

function refuse(mark: LogMark, comment: string, match: readonly Expression[] = []): NftRule[] {
  return [
    { expressions: [...match, ...sampled(mark)] },
    { expressions: [...match, counter(), drop], comment: commentOf(comment) },
  ];
}

function sampled(mark: LogMark): Expression[] {
  return [
    limit(MAX_LOGS_PER_SECOND, 'second', { burst: MAX_LOGS_PER_SECOND }),
    log({ prefix: logPrefix(mark), group: NFLOG_GROUP, snaplen: LOG_BYTES }),
  ];
}

function stagedChainName(ruleSet: RuleSet): string {
  return `staged-${letter(ruleSet.direction)}-${shortHash(ruleSet.id)}`;
}

/**
 * What would be if the staged policies of the rule set were enforced: every way out is `return`, and what would be
 * refused is logged on the way. Two chains, because Pass goes on with the NetworkPolicies.
 */
export function stagedChains(ruleSet: RuleSet, family: NftFamilyName): BuiltChain[] {
  const { direction, policies } = ruleSet;
  if (!policies.some((policy) => policy.staged)) return [];
  const name = stagedChainName(ruleSet);
  const rest = `${name}-np`;
  const sets: NeededSet[] = [];
  const wouldRefuse = sampled({
    verdict: 'staged',
    direction,
    source: shortHash(ruleSet.id),
    rule: -1,
  });
  const rulesOf = (tier: PolicyTier, onPass: Expression): NftRule[] =>
    policies
      .filter((policy) => policy.tier === tier)
      .flatMap((policy) => policy[direction] ?? [])
      .flatMap((rule) => {
        const match = matchOf(rule, direction, family);
        sets.push(...match.sets);
        return match.alternatives.flatMap((expressions): NftRule[] => {
          if (rule.action === 'Accept') return [{ expressions: [...expressions, returnToCaller] }];
          if (rule.action === 'Pass') return [{ expressions: [...expressions, onPass] }];
          return [
            { expressions: [...expressions, ...wouldRefuse] },
            { expressions: [...expressions, returnToCaller] },
          ];
        });
      });
  const admin = rulesOf('Admin', goto(rest));
  const isolates = policies.some((policy) => policy.tier === 'NetworkPolicy');
  const after = isolates
    ? [...rulesOf('NetworkPolicy', returnToCaller), { expressions: wouldRefuse }]
    : rulesOf('Baseline', returnToCaller);
  return [
    { content: { name: rest, rules: after }, sets: [] },
    { content: { name, rules: [...admin, { expressions: [goto(rest)] }] }, sets },
  ];
}

function letter(direction: Direction): 'i' | 'e' {
  return direction === 'ingress' ? 'i' : 'e';
}
