/**
 * The plan of policy for one node: which chains, sets and elements there must be, kept current change by change.
 * Pure: it never touches the kernel; {@link PolicyPlanner.take} hands out what is new.
 *
 * What was computed is kept by what it was computed from (a policy object, a list of policies), so a change costs the
 * pods and policies that it is about. The result never depends on the order in which changes came; the tests hold a
 * planner with a history against one that saw only the end.
 */
import { familyOf, ipToBytes } from '#lib/ip.ts';
import { chooses, policiesOf } from '#policy/match.ts';
import {
  type CompiledPolicy,
  comparePolicies,
  DIRECTIONS,
  type Direction,
  type PolicyNamespace,
  type PolicyNode,
  type PolicyPod,
} from '#policy/model.ts';
import { goTo, jumpTo, type Verdict } from '#wire/nftables/expressions.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { concat } from '#wire/nftables/values.ts';
import type { ChainContent, RulesetPart, SetContent } from '../ruleset.ts';
import {
  type BuiltChain,
  baseChains,
  baseSets,
  networkPoliciesOf,
  policyChain,
  type RuleSet,
  ruleSetChain,
  ruleSetChainName,
  ruleSetId,
  stagedChains,
  tierChain,
  tierChainName,
  tiersOf,
} from './chains.ts';
import { Directory } from './directory.ts';
import {
  CLOSED_CHAIN,
  CLOSED_INGRESS_CHAIN,
  EGRESS_PODS,
  INGRESS_PODS,
  SELF,
  shortHash,
} from './names.ts';
import { type NeededSet, type NftFamilyName, setContent } from './rules.ts';

/** What must change in the ruleset of one family. */
export interface PlanChange {
  readonly family: NftFamilyName;
  /** Undefined: chains and sets stay. */
  readonly part: RulesetPart | undefined;
  readonly elements: readonly SetChange[];
}

export interface SetChange {
  readonly set: string;
  readonly add: readonly SetElement[];
  readonly remove: readonly SetElement[];
}

interface Rebuilt {
  readonly part: RulesetPart;
  /** Elements of sets that are new and never change. */
  readonly fixed: readonly SetChange[];
}

/** A pod of this node. */
export interface LocalPod {
  /** Of the attachment. */
  readonly handle: string;
  readonly pod: PolicyPod;
}

interface Selection {
  /** Undefined: closed. */
  readonly egress: RuleSet | undefined;
  readonly ingress: RuleSet | undefined;
}

const NOBODY: ReadonlySet<string> = new Set();

const FAMILIES: readonly NftFamilyName[] = ['ip', 'ip6'];

export class PolicyPlanner {
  readonly directory: Directory;
  readonly #policies = new Map<string, CompiledPolicy>();
  /** Policies that can be about a pod of the namespace: its own NetworkPolicies. */
  readonly #ofNamespace = new Map<string, Set<CompiledPolicy>>();
  readonly #clusterWide = new Set<CompiledPolicy>();
  /** Policies that are not to be programmed: what they are about is closed. */
  #leftOut = NOBODY;
  readonly #locals = new Map<string, LocalPod>();
  readonly #selections = new Map<string, Selection>();
  readonly #dirtyLocals = new Set<string>();
  /** Dispatch elements in force, by local pod: what is taken back when it changes. */
  readonly #dispatched = new Map<string, DispatchElement[]>();
  readonly #chains: Record<NftFamilyName, ChainMemo> = {
    ip: new ChainMemo(),
    ip6: new ChainMemo(),
  };
  readonly #fixedSets: Record<NftFamilyName, Set<string>> = { ip: new Set(), ip6: new Set() };
  #chainsDirty = true;
  #ruleSetSources = new Map<string, RuleSet>();

  constructor(directory = new Directory()) {
    this.directory = directory;
  }

  get policies(): Iterable<CompiledPolicy> {
    return this.#policies.values();
  }
  policy(id: string): CompiledPolicy | undefined {
    return this.#policies.get(id);
  }
  /** Whether the policy is about a pod of this node. */
  isUsed(id: string): boolean {
    return [...this.#selections.values()].some(({ egress, ingress }) =>
      [egress, ingress].some((ruleSet) => ruleSet?.policies.some((policy) => policy.id === id)),
    );
  }
  get locals(): Iterable<LocalPod> {
    return this.#locals.values();
  }
  localPod(handle: string): PolicyPod | undefined {
    return this.#locals.get(handle)?.pod;
  }
  get policyCount(): number {
    return this.#policies.size;
  }
  get localCount(): number {
    return this.#locals.size;
  }
  /** The rule set whose hash a log names. */
  ruleSetByHash(hash: string): RuleSet | undefined {
    return this.#ruleSetSources.get(hash);
  }

  /** Pods of this node that are closed in some direction, because their labels are not known or a policy is left out. */
  closedPods(): PolicyPod[] {
    return [...this.#selections]
      .filter(([, { egress, ingress }]) => egress === undefined || ingress === undefined)
      .flatMap(([handle]) => this.#locals.get(handle)?.pod ?? []);
  }

  /** Plans without these policies: pods are closed in the directions in which one of them is about them. */
  leaveOut(ids: ReadonlySet<string>): void {
    const before = this.#leftOut;
    this.#leftOut = ids;
    for (const id of before.symmetricDifference(ids)) this.#touch(this.#policies.get(id));
  }

  setPolicy(id: string, policy: CompiledPolicy | undefined): void {
    const old = this.#policies.get(id);
    for (const changed of [old, policy]) this.#touch(changed);
    if (old !== undefined) this.#place(old)?.delete(old);
    if (policy === undefined) this.#policies.delete(id);
    else {
      this.#policies.set(id, policy);
      this.#place(policy)?.add(policy);
    }
  }

  setNamespace(name: string, namespace: PolicyNamespace | undefined): void {
    this.directory.setNamespace(name, namespace);
    for (const [handle, { pod }] of this.#locals)
      if (pod.namespace === name) this.#dirtyLocals.add(handle);
  }

  setNode(name: string, node: PolicyNode | undefined): void {
    this.directory.setNode(name, node);
  }

  setPod(key: string, pod: PolicyPod | undefined): void {
    this.directory.setPod(key, pod);
  }

  /** A pod of this node, with all addresses of its attachment; `undefined` when it is gone. */
  setLocal(handle: string, pod: PolicyPod | undefined): void {
    if (pod === undefined) this.#locals.delete(handle);
    else this.#locals.set(handle, { handle, pod });
    this.#dirtyLocals.add(handle);
  }

  /** The policies that can be about a pod of this namespace. */
  *policiesFor(namespace: string): Iterable<CompiledPolicy> {
    yield* this.#ofNamespace.get(namespace) ?? [];
    yield* this.#clusterWide;
  }

  /** What must change in the kernel since the last call. */
  take(): PlanChange[] {
    const dispatch = this.#reselect();
    const parts = this.#chainsDirty ? this.#rebuild() : undefined;
    this.#chainsDirty = false;
    const moving = this.directory.takeChanges();
    return FAMILIES.map((family) => {
      const part = parts?.[family];
      return {
        family,
        part: part?.part,
        elements: [
          ...(part?.fixed ?? []),
          ...moving.filter((change) => change.family === family),
          ...dispatchChanges(dispatch, family),
        ],
      };
    });
  }

  /** Its pods are to be looked at. */
  #touch(policy: CompiledPolicy | undefined): void {
    if (policy === undefined) return;
    // 'unknown' counts: the policy may close the pod.
    for (const [handle, { pod }] of this.#locals)
      if (chooses(policy.subject, pod, this.directory.namespaces) !== false)
        this.#dirtyLocals.add(handle);
  }

  #place(policy: CompiledPolicy): Set<CompiledPolicy> | undefined {
    if (policy.namespace === undefined) return this.#clusterWide;
    const set = this.#ofNamespace.get(policy.namespace) ?? new Set();
    this.#ofNamespace.set(policy.namespace, set);
    return set;
  }

  /** Finds the rule sets of the pods that something has changed for. @returns the changes of the dispatch maps */
  #reselect(): { add: DispatchElement[]; remove: DispatchElement[] } {
    const add: DispatchElement[] = [];
    const remove: DispatchElement[] = [];
    for (const handle of this.#dirtyLocals) {
      const local = this.#locals.get(handle);
      const old = this.#selections.get(handle);
      const selection = local === undefined ? undefined : this.#select(local.pod);
      if (!sameSelection(old, selection) || !sameFamilies(this.#dispatched.get(handle), local?.pod))
        this.#chainsDirty = true;
      if (selection === undefined) this.#selections.delete(handle);
      else this.#selections.set(handle, selection);
      remove.push(...(this.#dispatched.get(handle) ?? []));
      const elements =
        local === undefined || selection === undefined ? [] : dispatchOf(local.pod, selection);
      if (elements.length === 0) this.#dispatched.delete(handle);
      else this.#dispatched.set(handle, elements);
      add.push(...elements);
    }
    this.#dirtyLocals.clear();
    return { add, remove };
  }

  #select(pod: PolicyPod): Selection {
    const { namespaces } = this.directory;
    const of = (direction: Direction): RuleSet | undefined => {
      const policies = policiesOf(this.policiesFor(pod.namespace), pod, direction, namespaces);
      if (policies === 'unknown') return undefined;
      const isLeftOut = ({ id }: CompiledPolicy) => this.#leftOut.has(id);
      // What enforces nothing closes nothing either.
      if (policies.some((policy) => isLeftOut(policy) && !policy.staged)) return undefined;
      const kept = policies.filter((policy) => !isLeftOut(policy));
      return { direction, policies: kept.sort(comparePolicies) };
    };
    return { egress: of('egress'), ingress: of('ingress') };
  }

  /** Which chains and sets there must be, and what is in the sets that never change. */
  #rebuild(): Partial<Record<NftFamilyName, Rebuilt>> {
    const ruleSets = this.#ruleSets();
    this.#ruleSetSources = new Map(
      [...ruleSets].map(([id, { ruleSet }]) => [shortHash(id), ruleSet]),
    );
    const followed = new Map<string, Exclude<NeededSet, { kind: 'fixed' }>>();
    const built = FAMILIES.map((family) => {
      const needed = [...ruleSets.values()].filter(({ families }) => families.has(family));
      const { chains, sets } = this.#chains[family].build(
        needed.map(({ ruleSet }) => ruleSet),
        family,
      );
      const contents = new Map<string, SetContent>();
      const fixed: SetChange[] = [];
      const known = this.#fixedSets[family];
      const fixedNow = new Set<string>();
      for (const needed of sets.values()) {
        contents.set(needed.name, setContent(needed, family));
        if (needed.kind === 'fixed') {
          fixedNow.add(needed.name);
          if (!known.has(needed.name))
            fixed.push({ set: needed.name, add: needed.elements, remove: [] });
        } else followed.set(needed.name, needed);
      }
      this.#fixedSets[family] = fixedNow;
      return { family, chains, contents, fixed };
    });
    // A set followed for one family is made in both, so that they need not be told apart.
    for (const name of this.directory.setNames)
      if (!followed.has(name)) this.directory.unfollow(name);
    for (const needed of followed.values()) this.directory.follow(needed);
    return Object.fromEntries(
      built.map(({ family, chains, contents, fixed }) => {
        for (const needed of followed.values())
          contents.set(needed.name, setContent(needed, family));
        const part: RulesetPart = {
          sets: [...baseSets(family), ...contents.values()],
          chains: [...this.#baseChains(family), ...chains],
        };
        return [family, { part, fixed }];
      }),
    );
  }

  /** The rule sets that pods have, with the families of the addresses that lead there: no other needs its chains. */
  #ruleSets(): Map<string, { ruleSet: RuleSet; families: Set<NftFamilyName> }> {
    const found = new Map<string, { ruleSet: RuleSet; families: Set<NftFamilyName> }>();
    for (const [handle, { egress, ingress }] of this.#selections)
      for (const ruleSet of [egress, ingress]) {
        if (ruleSet === undefined || ruleSet.policies.length === 0) continue;
        const id = ruleSetId(ruleSet);
        const entry = found.get(id) ?? { ruleSet, families: new Set() };
        found.set(id, entry);
        for (const address of this.#locals.get(handle)?.pod.ips ?? [])
          entry.families.add(familyOf(address) === 4 ? 'ip' : 'ip6');
      }
    return found;
  }

  /** The same objects each time, so that the ruleset sees at a glance that nothing has changed. */
  #baseChains(family: NftFamilyName): readonly ChainContent[] {
    return this.#chains[family].base(family);
  }
}

interface BuiltFrom {
  readonly from: readonly CompiledPolicy[];
  readonly chains: readonly BuiltChain[];
}
type SameSource = (a: readonly CompiledPolicy[], b: readonly CompiledPolicy[]) => boolean;

/** Chains that were built, as long as the policies that they were built from stay. */
class ChainMemo {
  #built = new Map<string, BuiltFrom>();
  #base: readonly ChainContent[] | undefined;
  readonly #policyChains = new WeakMap<CompiledPolicy, Partial<Record<Direction, BuiltChain>>>();

  base(family: NftFamilyName): readonly ChainContent[] {
    this.#base ??= baseChains(family);
    return this.#base;
  }

  /** Kept as long as the policy: the next pod that it selects finds it made. */
  #ofPolicy(policy: CompiledPolicy, direction: Direction, family: NftFamilyName): BuiltChain {
    const known = this.#policyChains.get(policy) ?? {};
    this.#policyChains.set(policy, known);
    known[direction] ??= policyChain(policy, direction, family);
    return known[direction];
  }

  build(
    ruleSets: readonly RuleSet[],
    family: NftFamilyName,
  ): { chains: ChainContent[]; sets: Map<string, NeededSet> } {
    const next = new Map<string, BuiltFrom>();
    const want = (
      name: string,
      from: readonly CompiledPolicy[],
      make: () => readonly BuiltChain[],
      isSame: SameSource = sameList,
    ): void => {
      if (next.has(name)) return;
      const old = this.#built.get(name);
      next.set(name, old !== undefined && isSame(old.from, from) ? old : { from, chains: make() });
    };
    for (const ruleSet of ruleSets) {
      const { direction, policies } = ruleSet;
      const name = ruleSetChainName(ruleSet);
      // It only names other chains, so what stands in the policies does not matter.
      want(name, policies, () => [ruleSetChain(ruleSet)], sameOutline);
      if (policies.some((policy) => policy.staged))
        want(`staged ${name}`, policies, () => stagedChains(ruleSet, family));
      for (const tier of tiersOf(ruleSet))
        want(tierChainName(tier, direction), tier, () => [tierChain(tier, direction, family)]);
      for (const policy of networkPoliciesOf(ruleSet))
        want(`np ${direction} ${policy.id}`, [policy], () => [
          this.#ofPolicy(policy, direction, family),
        ]);
    }
    this.#built = next;
    const chains: ChainContent[] = [];
    const sets = new Map<string, NeededSet>();
    for (const entry of next.values())
      for (const chain of entry.chains) {
        chains.push(chain.content);
        for (const set of chain.sets) sets.set(set.name, set);
      }
    return { chains, sets };
  }
}

function sameOutline(a: readonly CompiledPolicy[], b: readonly CompiledPolicy[]): boolean {
  return (
    a.length === b.length &&
    a.every((policy, i) => {
      const other = b[i];
      return (
        policy === other ||
        (policy.id === other?.id && policy.tier === other.tier && policy.staged === other.staged)
      );
    })
  );
}

interface DispatchElement {
  readonly set: string;
  readonly family: NftFamilyName;
  readonly element: SetElement;
}

/** An address leads to its rule set, is open, or is closed. */
function dispatchOf(pod: PolicyPod, selection: Selection): DispatchElement[] {
  return pod.ips.flatMap((address) => {
    const family: NftFamilyName = familyOf(address) === 4 ? 'ip' : 'ip6';
    const key = ipToBytes(address);
    const elements: DispatchElement[] = [
      { set: SELF, family, element: { key: concat([key, key]) } },
    ];
    for (const direction of DIRECTIONS) {
      const ruleSet = selection[direction];
      const set = direction === 'egress' ? EGRESS_PODS : INGRESS_PODS;
      elements.push({ set, family, element: { key, verdict: verdictOf(ruleSet, direction) } });
    }
    return elements;
  });
}

const OPEN: Verdict = { kind: 'accept' };

function verdictOf(ruleSet: RuleSet | undefined, direction: Direction): Verdict {
  if (ruleSet === undefined)
    return goTo(direction === 'egress' ? CLOSED_CHAIN : CLOSED_INGRESS_CHAIN);
  return ruleSet.policies.length === 0 ? OPEN : jumpTo(ruleSetChainName(ruleSet));
}

function dispatchChanges(
  { add, remove }: { add: readonly DispatchElement[]; remove: readonly DispatchElement[] },
  family: NftFamilyName,
): SetChange[] {
  return [EGRESS_PODS, INGRESS_PODS, SELF].flatMap((set) => {
    const of = (list: readonly DispatchElement[]) =>
      list.filter((it) => it.set === set && it.family === family).map(({ element }) => element);
    const change = { set, add: of(add), remove: of(remove) };
    return change.add.length > 0 || change.remove.length > 0 ? [change] : [];
  });
}

function sameSelection(a: Selection | undefined, b: Selection | undefined): boolean {
  return (
    a !== undefined &&
    b !== undefined &&
    DIRECTIONS.every((direction) => {
      const [x, y] = [a[direction], b[direction]];
      return x === undefined || y === undefined ? x === y : sameList(x.policies, y.policies);
    })
  );
}

/** Whether the pod has addresses of the families that it had. */
function sameFamilies(
  dispatched: readonly DispatchElement[] | undefined,
  pod: PolicyPod | undefined,
): boolean {
  const before = new Set(dispatched?.map(({ family }) => family));
  const after = new Set(pod?.ips.map((address) => (familyOf(address) === 4 ? 'ip' : 'ip6')));
  return before.size === after.size && [...before].every((family) => after.has(family));
}

function sameList<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
