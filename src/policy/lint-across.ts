/** Policies that make each other pointless: each is sound by itself, and together they do not do what one of them says. */
import { cidrContains, networkAddress, prefixLengthOf } from '#lib/ip.ts';
import { ruleName } from './describe.ts';
import type { Lint } from './lint.ts';
import {
  type CompiledPolicy,
  type CompiledRule,
  comparePolicies,
  DIRECTIONS,
  MAX_PORT,
  type Peer,
  type PodChoice,
  type PolicyTier,
  type PortMatch,
} from './model.ts';

/** What earlier rules of other policies leave to say, and what another policy opens. */
export function lintAcross(policies: readonly CompiledPolicy[]): Lint[] {
  const enforced = policies.filter((policy) => !policy.staged).sort(comparePolicies);
  return [...decidedBefore(enforced), ...openedByAnother(enforced)];
}

/** Rules of a ClusterNetworkPolicy, or of a NetworkPolicy, that a policy asked before decides about in full. */
function decidedBefore(policies: readonly CompiledPolicy[]): Lint[] {
  const cluster = policies.filter(({ kind }) => kind === 'ClusterNetworkPolicy');
  return policies.flatMap((policy) => {
    const earlier = cluster.filter((other) => isAskedBefore(other, policy));
    return DIRECTIONS.flatMap((direction) =>
      (policy[direction] ?? []).flatMap((rule): Lint[] => {
        let passed: PolicyTier | undefined;
        for (const other of earlier) {
          const first = other[direction]?.find((candidate) => covers(candidate, rule));
          if (first === undefined || other.tier === passed) continue;
          // Pass leaves the tier, and only that.
          if (first.action === 'Pass' && other.tier !== policy.tier) {
            passed = other.tier;
            continue;
          }
          return [
            {
              ...{ code: 'shadowed-rule', policy: policy.id },
              field: `spec.${direction}[${rule.index}]`,
              message: `decides nothing: ${ruleName(first, direction)} of ${other.id} (${other.tier}, priority ${other.priority}, ${first.action}) matches all of it before`,
            },
          ];
        }
        return [];
      }),
    );
  });
}

function isAskedBefore(other: CompiledPolicy, policy: CompiledPolicy): boolean {
  if (other === policy || !coversChoice(other.subject, policy.subject)) return false;
  // Of equal priorities nobody says which goes first.
  return other.tier === policy.tier
    ? other.priority < policy.priority
    : comparePolicies(other, policy) < 0;
}

/** NetworkPolicies add up: what one allows no other forbids. */
function openedByAnother(policies: readonly CompiledPolicy[]): Lint[] {
  const own = policies.filter(({ kind }) => kind === 'NetworkPolicy');
  return own.flatMap((policy) =>
    DIRECTIONS.flatMap((direction): Lint[] => {
      const rules = policy[direction];
      if (rules === undefined || rules.some(isOpen)) return [];
      const other = own.find(
        (candidate) =>
          candidate[direction]?.some(isOpen) === true &&
          coversChoice(candidate.subject, policy.subject),
      );
      if (other === undefined) return [];
      return [
        {
          ...{ code: 'opened-by-another', policy: policy.id },
          field: rules.length === 0 ? 'spec' : `spec.${direction}`,
          message: `restricts no ${direction}: ${other.id} allows everything to the same pods, and policies add up`,
        },
      ];
    }),
  );
}

/** Whether the rule allows everything. */
export function isOpen({ peers, ports }: CompiledRule): boolean {
  return peers === undefined && ports === undefined;
}

/** Whether all that `rule` matches is matched by `earlier`; false where it is hard to tell. */
export function covers(earlier: CompiledRule, rule: CompiledRule): boolean {
  if (rule.peers?.length === 0) return false;
  const peers =
    earlier.peers === undefined ||
    (rule.peers?.every((peer) => earlier.peers?.some((other) => coversPeer(other, peer))) ?? false);
  const ports =
    earlier.ports === undefined ||
    (rule.ports?.every((port) => earlier.ports?.some((other) => coversPort(other, port))) ?? false);
  return peers && ports;
}

function coversPeer(a: Peer, b: Peer): boolean {
  if (a.kind === 'pods' && b.kind === 'pods') return coversChoice(a, b);
  if (a.kind === 'network' && b.kind === 'network' && a.except.length === 0)
    return (
      prefixLengthOf(a.cidr) <= prefixLengthOf(b.cidr) &&
      cidrContains(a.cidr, networkAddress(b.cidr))
    );
  return a.kind !== 'unknown' && JSON.stringify(a) === JSON.stringify(b);
}

function coversChoice(a: PodChoice, b: PodChoice): boolean {
  const isIn = (selector: PodChoice['pods'], other: PodChoice['pods']) =>
    selector.every((requirement) =>
      other.some((it) => JSON.stringify(it) === JSON.stringify(requirement)),
    );
  return (
    (a.namespace === undefined || a.namespace === b.namespace) &&
    isIn(a.namespaces, b.namespaces) &&
    isIn(a.pods, b.pods)
  );
}

function coversPort(a: PortMatch, b: PortMatch): boolean {
  if (a.kind === 'named' || b.kind === 'named') return JSON.stringify(a) === JSON.stringify(b);
  const whole = a.low <= 1 && a.high >= MAX_PORT;
  return a.protocol === b.protocol && (whole || (a.low <= b.low && b.high <= a.high));
}
