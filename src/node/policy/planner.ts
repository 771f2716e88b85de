/**
 * The plan of policy for one node: which chains, sets and elements there must be, kept current change by change.
 * Pure: it never touches the kernel; {@link PolicyPlanner.take} hands out what is new.
 *
 * What was computed is kept by what it was computed from (a policy object, a list of policies), so a change costs the
 * pods and policies that it is about. The result never depends on the order in which changes came; the tests hold a
 * planner with a history against one that saw only the end.
 */
import { chooses, policiesOf } from '#policy/match.ts';
import {
  type CompiledPolicy,
  type CompiledRule,
  comparePolicies,
  type Direction,
  type PolicyNamespace,
  type PolicyNode,
  type PolicyPod,
} from '#policy/model.ts';
import type { ChainContent, RulesetPart, SetContent } from '../ruleset.ts';
import { type Bundle, type BundledRule, Bundler } from './bundles.ts';
import {
  type BuiltChain,
  baseChains,
  baseSets,
  bundledPart,
  type ChainPart,
  chainOf,
  type RuleContext,
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
  type Choice,
  Dispatch,
  type DispatchElement,
  dispatchOf,
  type Selection,
  type SetChange,
} from './dispatch.ts';
import { shortHash } from './names.ts';
import { type NeededSet, type NftFamilyName, setContent } from './rules.ts';

/** What must change in the ruleset of one family. */
export interface PlanChange {
  readonly family: NftFamilyName;
  /** Undefined: chains and sets stay. */
  readonly part: RulesetPart | undefined;
  readonly elements: readonly SetChange[];
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
  readonly #dispatch = new Dispatch();
  /** What local pods have there: it is taken back when they change. */
  readonly #dispatched = new Map<string, DispatchElement[]>();
  readonly #chains: Record<NftFamilyName, ChainMemo> = {
    ip: new ChainMemo(),
    ip6: new ChainMemo(),
  };
  readonly #fixedSets: Record<NftFamilyName, Set<string>> = { ip: new Set(), ip6: new Set() };
  #chainsDirty = true;
  /** The rule sets that pods have, by id; how many addresses lead there; and by the hash that a log names. */
  readonly #ruleSets = new Map<string, RuleSet>();
  readonly #uses = new Map<RuleSet, Record<NftFamilyName, number>>();
  #ruleSetSources = new Map<string, RuleSet>();
  readonly #bundler = new Bundler();

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
      [egress, ingress].some(({ ruleSet }) => ruleSet?.policies.some((policy) => policy.id === id)),
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
      .filter(([, { egress, ingress }]) => egress.isClosed || ingress.isClosed)
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
    this.#reselect();
    const dispatch = this.#dispatch.take();
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
          ...dispatch[family],
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

  /** Finds the rule sets of the pods that something has changed for. */
  #reselect(): void {
    for (const handle of this.#dirtyLocals) {
      const pod = this.#locals.get(handle)?.pod;
      const selection = pod === undefined ? undefined : this.#select(pod);
      const elements =
        pod === undefined || selection === undefined ? [] : dispatchOf(pod, selection);
      const old = this.#dispatched.get(handle) ?? [];
      // The new first: a rule set that the pod keeps is used all the time.
      for (const { ruleSet, family } of elements) this.#use(ruleSet, family, 1);
      for (const { ruleSet, family } of old) this.#use(ruleSet, family, -1);
      this.#dispatch.exchange(old, elements);
      if (selection === undefined) this.#selections.delete(handle);
      else this.#selections.set(handle, selection);
      if (elements.length === 0) this.#dispatched.delete(handle);
      else this.#dispatched.set(handle, elements);
    }
    this.#dirtyLocals.clear();
  }

  #select(pod: PolicyPod): Selection {
    const { namespaces } = this.directory;
    const of = (direction: Direction): Choice => {
      const policies = policiesOf(this.policiesFor(pod.namespace), pod, direction, namespaces);
      if (policies === 'unknown') return { isClosed: true, ruleSet: undefined };
      const isLeftOut = ({ id }: CompiledPolicy) => this.#leftOut.has(id);
      // What enforces nothing closes nothing either.
      const isClosed = policies.some((policy) => isLeftOut(policy) && !policy.staged);
      const kept = policies.filter((policy) => !isLeftOut(policy));
      return { isClosed, ruleSet: this.#ruleSet(direction, kept.sort(comparePolicies)) };
    };
    return { egress: of('egress'), ingress: of('ingress') };
  }

  /** The one of these policies: pods share it as long as the policies are the same. */
  #ruleSet(direction: Direction, policies: readonly CompiledPolicy[]): RuleSet {
    const id = ruleSetId(direction, policies);
    const known = this.#ruleSets.get(id);
    if (known !== undefined && sameList(known.policies, policies)) return known;
    return {
      ...{ id, direction, policies },
      bundles: this.#bundler.bundlesOf(direction, policies),
    };
  }

  /** Counts what leads to a rule set: its chains are there, in the families of which something does. */
  #use(ruleSet: RuleSet | undefined, family: NftFamilyName, change: 1 | -1): void {
    if (ruleSet === undefined) return;
    const uses = this.#uses.get(ruleSet) ?? { ip: 0, ip6: 0 };
    if (change > 0) {
      this.#uses.set(ruleSet, uses);
      this.#ruleSets.set(ruleSet.id, ruleSet);
    }
    const wasUsed = uses[family] > 0;
    uses[family] += change;
    if (wasUsed !== uses[family] > 0) this.#chainsDirty = true;
    if (uses.ip > 0 || uses.ip6 > 0) return;
    this.#uses.delete(ruleSet);
    if (this.#ruleSets.get(ruleSet.id) === ruleSet) this.#ruleSets.delete(ruleSet.id);
  }

  /** Which chains and sets there must be, and what is in the sets that never change. */
  #rebuild(): Partial<Record<NftFamilyName, Rebuilt>> {
    const used = [...this.#uses].filter(([{ policies }]) => policies.length > 0);
    this.#ruleSetSources = new Map(used.map(([ruleSet]) => [shortHash(ruleSet.id), ruleSet]));
    const followed = new Map<string, Exclude<NeededSet, { kind: 'fixed' }>>();
    const built = FAMILIES.map((family) => {
      const { chains, sets } = this.#chains[family].build(
        used.flatMap(([ruleSet, uses]) => (uses[family] > 0 ? [ruleSet] : [])),
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

  /** The same objects each time, so that the ruleset sees at a glance that nothing has changed. */
  #baseChains(family: NftFamilyName): readonly ChainContent[] {
    return this.#chains[family].base(family);
  }
}

/** Policies or rules: their contents never change. */
type Source = CompiledPolicy | CompiledRule;

interface BuiltFrom {
  readonly from: readonly Source[];
  readonly chains: readonly BuiltChain[];
}

/** Chains that were built, as long as the policies that they were built from stay. */
class ChainMemo {
  #built = new Map<string, BuiltFrom>();
  #base: readonly ChainContent[] | undefined;
  /** Kept as long as the policy: the next pod that it selects finds it made. */
  readonly #parts = new WeakMap<CompiledRule, { alone?: ChainPart; bundled?: ChainPart }>();

  base(family: NftFamilyName): readonly ChainContent[] {
    this.#base ??= baseChains(family);
    return this.#base;
  }

  #partOf(item: BundledRule, bundle: Bundle, context: RuleContext): ChainPart {
    const known = this.#parts.get(item.rule) ?? {};
    this.#parts.set(item.rule, known);
    const form = bundle.ports === undefined ? 'alone' : 'bundled';
    known[form] ??= bundledPart(item, bundle, context);
    return known[form];
  }

  build(
    ruleSets: readonly RuleSet[],
    family: NftFamilyName,
  ): { chains: ChainContent[]; sets: Map<string, NeededSet> } {
    const next = new Map<string, BuiltFrom>();
    const want = (
      name: string,
      from: readonly Source[],
      make: () => readonly BuiltChain[],
    ): void => {
      if (next.has(name)) return;
      const old = this.#built.get(name);
      next.set(
        name,
        old !== undefined && sameList(old.from, from) ? old : { from, chains: make() },
      );
    };
    for (const ruleSet of ruleSets) {
      const { direction, policies } = ruleSet;
      const name = ruleSetChainName(ruleSet);
      want(name, policies, () => [ruleSetChain(ruleSet, family)]);
      if (policies.some((policy) => policy.staged))
        want(`staged ${name}`, policies, () => stagedChains(ruleSet, family));
      for (const tier of tiersOf(ruleSet))
        want(tierChainName(tier, direction), tier, () => [tierChain(tier, direction, family)]);
      for (const bundle of ruleSet.bundles)
        want(
          bundle.chain,
          bundle.items.map(({ rule }) => rule),
          () => [
            chainOf(
              bundle.chain,
              bundle.items.map((item) => this.#partOf(item, bundle, { direction, family })),
            ),
          ],
        );
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

function sameList<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
