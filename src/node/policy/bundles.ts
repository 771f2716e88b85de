/**
 * Which rules of NetworkPolicies share a chain. Pure.
 *
 * Rules about the same pods can: no pod has one of them alone, and they only accept, so their order says nothing. Those that
 * ask for the same ports stand together, and the ports are asked for once, before the chain:
 *
 * ```text
 *  pods-…   tcp dport 5432 jump np-…1      np-…1   ip saddr @addr-…a accept     of one policy
 *           jump np-…2                             ip saddr @addr-…b accept     of the next
 *           drop                           np-…2   ip saddr @addr-…c tcp dport 80 accept
 * ```
 * What the kernel is asked to do when many policies select a pod is mostly the comparing of ports, rule by rule.
 */
import type { CompiledPolicy, CompiledRule, Direction, PortMatch } from '#policy/model.ts';
import { shortHash } from './names.ts';

/** Rules of NetworkPolicies about the same pods: they stand in one chain. */
export interface Bundle {
  readonly chain: string;
  /** What all the rules ask of ports: it is asked before the chain. Undefined: each rule asks for itself. */
  readonly ports: readonly PortMatch[] | undefined;
  readonly items: readonly BundledRule[];
}

export interface BundledRule {
  readonly policy: CompiledPolicy;
  readonly rule: CompiledRule;
}

/** On average. A chain for each policy would be half the cost of a pod that many select; one for all, of a change. */
const POLICIES_PER_BUNDLE = 16;
/** Where names are such that no bundle would end. */
const MAX_RULES_PER_BUNDLE = 64;
/** A chain, and a jump to it, cost as much as comparing the ports in two rules. */
const MIN_RULES_OF_SAME_PORTS = 4;

/** Remembers, as long as they live, what it has read of policies and rules. */
export class Bundler {
  /** As texts: equal ones are about the same pods. */
  readonly #subjects = new WeakMap<CompiledPolicy, string>();
  readonly #ports = new WeakMap<CompiledRule, string>();

  /**
   * The names of the policies say where a bundle ends, not how many came before: so it does not depend on history, and
   * one rule more or less changes its bundle, and a few others where it is the one that makes ports worth a chain.
   * @param policies of a pod, in order
   */
  bundlesOf(direction: Direction, policies: readonly CompiledPolicy[]): Bundle[] {
    const groups = new Map<string, Map<string, BundledRule[]>>();
    for (const policy of policies) {
      if (policy.staged || policy.tier !== 'NetworkPolicy') continue;
      const subject = this.#subjectOf(policy);
      const byPorts = groups.get(subject) ?? new Map<string, BundledRule[]>();
      groups.set(subject, byPorts);
      for (const rule of policy[direction] ?? []) {
        const ports = this.#portsOf(rule);
        const alike = byPorts.get(ports);
        if (alike === undefined) byPorts.set(ports, [{ policy, rule }]);
        else alike.push({ policy, rule });
      }
    }
    return [...groups.values()].flatMap((byPorts) => bundlesAbout(direction, byPorts));
  }

  #subjectOf(policy: CompiledPolicy): string {
    const subject = this.#subjects.get(policy) ?? JSON.stringify(policy.subject);
    this.#subjects.set(policy, subject);
    return subject;
  }

  #portsOf(rule: CompiledRule): string {
    const ports =
      this.#ports.get(rule) ?? (rule.ports === undefined ? ANY_PORT : textOf(rule.ports));
    this.#ports.set(rule, ports);
    return ports;
  }
}

const ANY_PORT = '';

function textOf(ports: readonly PortMatch[]): string {
  return ports
    .map((port) => JSON.stringify(port))
    .sort()
    .join();
}

/** @param byPorts rules about the same pods */
function bundlesAbout(
  direction: Direction,
  byPorts: ReadonlyMap<string, readonly BundledRule[]>,
): Bundle[] {
  const isShared = (ports: string, alike: readonly BundledRule[]) =>
    ports !== ANY_PORT && alike.length >= MIN_RULES_OF_SAME_PORTS;
  const shared = [...byPorts].filter(([ports, alike]) => isShared(ports, alike));
  const others = [...byPorts].flatMap(([ports, alike]) => (isShared(ports, alike) ? [] : alike));
  others.sort(
    (a, b) =>
      (a.policy.id < b.policy.id ? -1 : a.policy.id > b.policy.id ? 1 : 0) ||
      a.rule.index - b.rule.index,
  );
  return [
    ...shared.flatMap(([ports, alike]) =>
      split(alike).map((items) => bundle(direction, items, { ports, match: items[0]?.rule.ports })),
    ),
    ...split(others).map((items) =>
      bundle(direction, items, { ports: ANY_PORT, match: undefined }),
    ),
  ];
}

function bundle(
  direction: Direction,
  items: readonly BundledRule[],
  { ports, match }: { ports: string; match: readonly PortMatch[] | undefined },
): Bundle {
  const ids = items.map(({ policy, rule }) => `${policy.id} ${rule.index}`);
  const letter = direction === 'ingress' ? 'i' : 'e';
  return { chain: `np-${letter}-${shortHash([ports, ...ids].join('|'))}`, ports: match, items };
}

function split(items: readonly BundledRule[]): BundledRule[][] {
  const bundles: BundledRule[][] = [];
  let open: BundledRule[] | undefined;
  for (const item of items) {
    const isOfLast = open?.at(-1)?.policy === item.policy;
    if (
      open === undefined ||
      open.length >= MAX_RULES_PER_BUNDLE ||
      (!isOfLast && beginsBundle(item.policy))
    ) {
      open = [];
      bundles.push(open);
    }
    open.push(item);
  }
  return bundles;
}

/** One in {@link POLICIES_PER_BUNDLE}, by a cheap hash (FNV-1a) of its name. */
function beginsBundle({ id }: CompiledPolicy): boolean {
  let hash = 0x811c9dc5;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  return (hash >>> 16) % POLICIES_PER_BUNDLE === 0;
}
