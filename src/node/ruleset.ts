/**
 * Our table of one nftables family, written by several features and kept against everybody else.
 *
 * A feature *defines* its part (chains with rules, sets) and *stages* elements; `commit()` carries all of it out in
 * one transaction, and `Ruleset.tryCommit()` that of several families. What should be in the kernel is mirrored in
 * memory, so the kernel is never listed, and a change costs what changed.
 *
 * Whenever the kernel may not be what the mirror says (first start, a refused transaction, a foreign edit of more than
 * rules, or that put elements in) the next commit reads the table and changes what differs (`ruleset-takeover.ts`): an
 * agent that starts again writes nothing.
 * Connections live on, because conntrack keeps their translation, and so does what packets have written into dynamic
 * sets. Where there is no table yet, it is filled in several transactions before the last makes it seen.
 */
import { KernelError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Nftables, RulesetEvent } from '#linux/nftables/port.ts';
import type { Expression } from '#wire/nftables/expressions.ts';
import {
  type BaseChain,
  inTable,
  type NftSet,
  type Operation,
  type SetElement,
  type TableRef,
} from '#wire/nftables/objects.ts';
import { addChain, baseChains, chainChange, isNoBase, rulesOf } from './ruleset-chains.ts';
import { inBatches, keyOf, sameElement } from './ruleset-elements.ts';
import { fillsItself, planTakeOver, type WantedSet } from './ruleset-takeover.ts';

export interface ChainContent {
  readonly name: string;
  readonly base?: BaseChain;
  readonly rules: readonly {
    readonly expressions: readonly Expression[];
    readonly comment?: string;
    /** In a base chain that several parts have rules for: the smaller stands first. 0 unless it is given. */
    readonly order?: number;
  }[];
}

/** A set or map without its table. */
export interface SetContent extends Omit<NftSet, keyof TableRef> {
  /** For a large set: the feature itself holds what must be in it, and there is no second copy here. */
  readonly source?: ElementSource;
}

/** Gives all elements of a set, whenever the table is made anew. */
export interface ElementSource {
  /** How many {@link batches} gives now, in all. */
  count(): number;
  /** @param maxElements of one batch */
  batches(maxElements: number): Iterable<Iterable<SetElement>>;
}

/** What one feature wants in the table, elements aside. */
export interface RulesetPart {
  readonly sets: readonly SetContent[];
  readonly chains: readonly ChainContent[];
}

export type RulesetFamily = 'ip' | 'ip6' | 'bridge';

/** A transaction that the kernel did not take; it has the old rules. */
export interface Refusal {
  readonly error: unknown;
  /** What of it the kernel refused. Undefined where it did not say, or refused it as a whole. */
  readonly operation: Operation | undefined;
}

/** What brings the kernel to what is staged. */
interface Step {
  /** Transactions by themselves: packets see nothing of them, or get back what another program took away. */
  readonly ahead?: Iterable<readonly Operation[]>;
  /** What makes the difference. */
  readonly last: readonly Operation[];
}

const EMPTY_PART: RulesetPart = { sets: [], chains: [] };
/** A set with a source is made for at least so many elements, and for twice as many as it has. */
const MIN_CAPACITY = 1024;
/**
 * The first load is cut into transactions of so many elements: a transaction holds the kernel's nftables lock until it
 * ends, and its memory: four kilobytes an element if anybody on the machine listens to nftables' events.
 */
const MAX_ELEMENTS_PER_TRANSACTION = 4_000;
/** A program that fights for our table gets at most so many answers a second. */
const MIN_REPAIR_INTERVAL_MS = 10;

/** @typeParam F the family of the table; features of the network layer have one of each of `ip` and `ip6` */
export class Ruleset<F extends RulesetFamily = 'ip' | 'ip6'> implements AsyncDisposable {
  readonly family: F;
  readonly #nftables: Nftables;
  readonly #table: ReturnType<typeof inTable>;
  readonly #log: Logger;
  readonly #parts = new Map<string, RulesetPart>();
  /** Elements by set, by key. */
  readonly #elements = new Map<string, Map<string, SetElement>>();
  readonly #staged = new Map<
    string,
    { add: Map<string, SetElement>; remove: Map<string, SetElement> }
  >();
  readonly #stagedParts = new Map<string, RulesetPart>();
  /** Sets with a source: how full they are, and the changes for the next commit. */
  readonly #sourced = new Map<string, SourcedSet>();
  readonly #repairs: SyncLoop;
  readonly #awaited: Set<string>;
  readonly #stopWatch: () => void;
  /** The kernel's table cannot be told by the mirror: make it anew. */
  #unknown = true;
  /** Of the kernel's table only rules, and elements that these sets lost, are not what the mirror says. */
  #rulesUnknown = false;
  readonly #emptied = new Set<string>();
  #repairCount = 0;
  /** Another program changed the table since the last commit. */
  #isDamaged = false;
  /** A transaction under way, or refused, was to change what is in the kernel by what differs. */
  #isTakingOver = false;
  readonly #onRepaired = new Set<() => void>();

  /**
   * @param init `parts`: the features that will define something. Nothing is committed before all of them have,
   *   so that a restart never replaces the rules by fewer
   */
  constructor(
    components: { nftables: Nftables; log: Logger },
    init: { family: F; table: string; parts: readonly string[] },
  ) {
    this.family = init.family;
    this.#awaited = new Set(init.parts);
    this.#nftables = components.nftables;
    this.#log = components.log;
    this.#table = inTable(init.family, init.table);
    this.#repairs = new SyncLoop(() => this.#repair(), {
      name: `ruleset ${init.family}`,
      log: components.log,
      minIntervalMs: MIN_REPAIR_INTERVAL_MS,
    });
    this.#stopWatch = components.nftables.watch((event) => this.#onEvent(event));
  }

  /** Replaces a feature's part. Chains that other parts' elements lead to must stay as long as those elements do. */
  define(name: string, part: RulesetPart): void {
    this.#stagedParts.set(name, part);
    this.#awaited.delete(name);
  }

  /** Stages changes to a set. Adding an element with a key that is there replaces it. */
  stage(set: string, change: { add?: Iterable<SetElement>; remove?: Iterable<SetElement> }): void {
    const staged = this.#staged.get(set) ?? { add: new Map(), remove: new Map() };
    this.#staged.set(set, staged);
    for (const element of change.remove ?? []) {
      const key = keyOf(element);
      staged.add.delete(key);
      staged.remove.set(key, element);
    }
    for (const element of change.add ?? []) staged.add.set(keyOf(element), element);
  }

  /** True if the next commit asks the sources for all their elements: what is changed until then need not be told. */
  get willAskSources(): boolean {
    return this.#unknown;
  }

  /**
   * Stages the changes of a set with a source. They must be right: `remove` is in the set, `add` is not or is removed.
   * Nothing is noted while {@link willAskSources}.
   */
  change(
    set: string,
    change: { add?: readonly SetElement[]; remove?: readonly SetElement[] },
  ): void {
    if (this.#unknown) return;
    const sourced = this.#sourced.get(set) ?? { count: 0, capacity: 0, add: [], remove: [] };
    this.#sourced.set(set, sourced);
    for (const element of change.remove ?? []) sourced.remove.push(element);
    for (const element of change.add ?? []) sourced.add.push(element);
  }

  /**
   * Adds elements to a set whose elements expire, at once. They are not kept: not against others, nor when the table is
   * made anew.
   * @throws KernelError if the kernel refuses: ENOENT if the set is not there
   */
  addExpiring(set: string, elements: Iterable<SetElement>): void {
    for (const some of inBatches(elements, MAX_ELEMENTS_PER_TRANSACTION))
      this.#nftables.commit([this.#table.elements.add(set, some)]);
  }

  /** Makes the set hold exactly these elements. Costs as much as the set is large. */
  stageAll(set: string, elements: readonly SetElement[]): void {
    const wanted = new Map(elements.map((element) => [keyOf(element), element]));
    const current = this.#elements.get(set) ?? new Map<string, SetElement>();
    this.#staged.delete(set);
    this.stage(set, {
      remove: [...current].filter(([key]) => !wanted.has(key)).map(([, element]) => element),
      add: elements.filter((element) => !sameElement(current.get(keyOf(element)), element)),
    });
  }

  /**
   * Carries out everything defined and staged, in one transaction.
   * @throws KernelError if the kernel refuses; the kernel then has the old rules, and the next commit makes all anew
   */
  commit(): void {
    const refusal = Ruleset.tryCommit([this]);
    if (refusal !== undefined) throw refusal.error;
  }

  /**
   * Carries out what is defined and staged for several families, in one transaction: a change is in the kernel for all
   * of them, or for none.
   * @param rulesets of one {@link Nftables}
   * @returns what the kernel refused, if it did; the next commit of any of these then makes its table anew
   */
  static tryCommit(rulesets: readonly Ruleset<RulesetFamily>[]): Refusal | undefined {
    const changed: Ruleset<RulesetFamily>[] = [];
    const last: (readonly Operation[])[] = [];
    let sent: readonly Operation[] = [];
    try {
      for (const ruleset of rulesets) {
        const step = ruleset.#nextStep();
        if (step === undefined) continue;
        changed.push(ruleset);
        if (step.ahead !== undefined)
          ruleset.#nftables.commitSeries(step.ahead, (transaction) => {
            sent = transaction;
          });
        last.push(step.last);
      }
      const [first] = changed;
      if (first === undefined) return undefined;
      sent = last.flat();
      // The kernel may have all of it already.
      if (sent.length > 0) first.#nftables.commit(sent);
    } catch (error) {
      const index = error instanceof KernelError ? error.index : undefined;
      return { error, operation: index === undefined ? undefined : sent[index] };
    }
    for (const ruleset of changed) ruleset.#committed();
    return undefined;
  }

  /** @returns undefined if there is nothing to do. Otherwise the mirror is taken for unknown until it is done */
  #nextStep(): Step | undefined {
    if (this.#awaited.size > 0) return undefined;
    const emptied = this.#unknown || this.#outgrown() ? undefined : this.#emptiedSets();
    const operations = emptied && [
      ...this.#lostRules(),
      ...this.#changes(new Set(emptied.map(({ set }) => set))),
    ];
    this.#absorb();
    if (operations?.length === 0 && emptied?.length === 0) {
      // What lost elements is none of ours.
      this.#emptied.clear();
      return undefined;
    }
    this.#unknown = true;
    if (operations === undefined || emptied === undefined) return this.#anew();
    const filling = this.#filling(emptied);
    // Of one set each piece makes things better. Of several a rule may ask two, and without one of them let too much pass.
    return emptied.length === 1
      ? { ahead: oneByOne(filling), last: operations }
      : { last: [...operations, ...filling] };
  }

  #committed(): void {
    this.#unknown = false;
    this.#rulesUnknown = false;
    this.#emptied.clear();
    this.#isTakingOver = false;
    if (!this.#isDamaged) return;
    this.#isDamaged = false;
    for (const listener of this.#onRepaired) listener();
  }

  /**
   * Tells when what another program changed is put right: packets in between may have gone astray.
   * @returns a function that ends it
   */
  onRepaired(listener: () => void): () => void {
    this.#onRepaired.add(listener);
    return () => this.#onRepaired.delete(listener);
  }

  status(): { inSync: boolean; repairs: number; elements: number } {
    let elements = 0;
    for (const set of this.#elements.values()) elements += set.size;
    for (const { count } of this.#sourced.values()) elements += count;
    return { inSync: !this.#isDoubted, repairs: this.#repairCount, elements };
  }

  get #isDoubted(): boolean {
    return this.#unknown || this.#rulesUnknown || this.#emptied.size > 0;
  }

  /** Ends watching; the table stays, traffic goes on without us. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopWatch();
    await this.#repairs[Symbol.asyncDispose]();
  }

  #onEvent(event: RulesetEvent): void {
    if (event.kind === 'commit') {
      const { table, family } = this.#table.ref;
      const touched = event.changes.filter((c) => c.table === table && c.family === family);
      if (event.own || touched.length === 0) return;
      this.#log.warn(
        { pid: event.pid, process: event.processName },
        `ruleset ${family}: "${event.processName}" changed our table "${table}"; undoing it`,
      );
      for (const { kind, verb, name } of touched)
        if (kind === 'rule') this.#rulesUnknown = true;
        else if (kind === 'elements' && verb === 'delete' && name !== undefined)
          this.#emptied.add(name);
        else this.#unknown = true;
    } else this.#unknown = true;
    // Before the first commit there is nothing of ours to protect.
    if (this.#parts.size === 0) return;
    this.#isDamaged = true;
    this.#repairs.trigger();
  }

  #repair(): void {
    if (!this.#isDoubted) return;
    this.commit();
    this.#repairCount++;
  }

  /**
   * Sets that others took elements out of. All are added again: those that are there stay in use.
   * @returns undefined if there is more to do: what is to go may be gone already, and what is to come may lead to a chain
   *   that comes with it
   */
  #emptiedSets(): readonly SetContent[] | undefined {
    if (this.#emptied.size === 0) return [];
    const isMore = [...this.#emptied].some(
      (set) => this.#staged.has(set) || (this.#sourced.get(set)?.remove.length ?? 0) > 0,
    );
    if (isMore || this.#stagedParts.size > 0) return undefined;
    return [...this.#parts.values()].flatMap(({ sets }) =>
      sets.filter(({ set }) => this.#emptied.has(set)),
    );
  }

  /** All rules once more, if others changed some: there are few, however large the sets are. */
  #lostRules(): Operation[] {
    if (!this.#rulesUnknown) return [];
    const { base, others } = this.#chains();
    const chains = [...others, ...base];
    return [
      ...chains.map(({ name }) => this.#table.chain.flush(name)),
      ...rulesOf(this.#table, chains),
    ];
  }

  /** Of all parts; several of them may have rules in one base chain. */
  #chains(): { base: ChainContent[]; others: ChainContent[] } {
    const parts = [...this.#parts.values()];
    return { base: baseChains(parts), others: parts.flatMap((it) => it.chains.filter(isNoBase)) };
  }

  /** The operations from the mirror to the mirror with what is staged. @param filled sets that get all their elements */
  #changes(filled: ReadonlySet<string>): Operation[] {
    const { set, elements } = this.#table;
    const operations: Operation[] = [];
    const last: Operation[] = [];
    const rules: Operation[] = [];
    const changeChains = (old: readonly ChainContent[], wanted: readonly ChainContent[]) => {
      const change = chainChange(this.#table, old, wanted);
      operations.push(...change.first);
      rules.push(...change.rules);
      last.push(...change.last);
    };
    for (const [name, part] of this.#stagedParts) {
      const old = this.#parts.get(name) ?? EMPTY_PART;
      for (const content of setsMissingIn(old, part)) operations.push(this.#addSet(content, 0));
      changeChains(old.chains.filter(isNoBase), part.chains.filter(isNoBase));
    }
    if (this.#stagedParts.size > 0)
      changeChains(
        baseChains(this.#parts.values()),
        baseChains(new Map([...this.#parts, ...this.#stagedParts]).values()),
      );
    for (const [name, part] of this.#stagedParts)
      for (const gone of setsMissingIn(part, this.#parts.get(name) ?? EMPTY_PART))
        last.push(set.delete(gone.set));
    for (const [name, { add, remove }] of this.#staged) {
      const current = this.#elements.get(name);
      if (current !== undefined) {
        const out = [...remove.values()].filter((element) => current.has(keyOf(element)));
        // An element with other data must go before it can come.
        const replaced = [...add].filter(([key]) => current.has(key) && !remove.has(key));
        out.push(...replaced.flatMap(([key]) => current.get(key) ?? []));
        if (out.length > 0) operations.push(elements.delete(name, out));
      }
      if (add.size > 0) operations.push(elements.add(name, [...add.values()]));
    }
    for (const [name, { add, remove }] of this.#sourced) {
      if (filled.has(name)) continue;
      if (remove.length > 0) operations.push(elements.delete(name, [...remove]));
      if (add.length > 0) operations.push(elements.add(name, [...add]));
    }
    return [...operations, ...rules, ...last];
  }

  /** True if a set with a source has no room for what is staged: then the table is made anew, with larger sets. */
  #outgrown(): boolean {
    return [...this.#sourced.values()].some(
      // What is removed leaves only when the transaction ends.
      ({ count, capacity, add }) => capacity > 0 && count + add.length > capacity,
    );
  }

  /**
   * Brings the kernel's table, whatever it is, to what it should be: by what differs, and if the kernel refuses that, by
   * another table in its place. If there is none yet, in several transactions: no packet sees anything of it before the
   * base chains come in the last.
   */
  #anew(): Step {
    const { table } = this.#table;
    const { family, table: name } = this.#table.ref;
    const sets = [
      ...new Map(
        [...this.#parts.values()].flatMap((part) => part.sets.map((it) => [it.set, it])),
      ).values(),
    ];
    const { base, others } = this.#chains();
    this.#sourced.clear();
    const exists = this.#nftables.listTables(family).some((ref) => ref.table === name);
    const taken = exists ? this.#takeOver(sets) : undefined;
    if (taken !== undefined) return taken;
    const head = [
      ...(exists ? [table.delete()] : []),
      table.add({ comment: 'owned by tulle: changes by others are undone' }),
      ...sets.map((content) => this.#addSet(content, content.source?.count() ?? 0)),
      ...others.map((content) => addChain(this.#table, content)),
      // Before the sets are filled: the kernel walks a map once for each chain that begins to use it.
      ...rulesOf(this.#table, others),
    ];
    const tail = [
      ...base.map((content) => addChain(this.#table, content)),
      ...rulesOf(this.#table, base),
    ];
    return exists
      ? { last: [...head, ...this.#filling(sets), ...tail] }
      : { ahead: this.#unseen(head, sets), last: tail };
  }

  /** @returns undefined where the table cannot be kept */
  #takeOver(sets: readonly SetContent[]): Step | undefined {
    const { family, table } = this.#table.ref;
    if (this.#isTakingOver) {
      this.#log.warn(
        {},
        `ruleset ${family}: the kernel refused what differs; making the table anew`,
      );
      this.#isTakingOver = false;
      return undefined;
    }
    try {
      const small = sets.filter((it) => it.source === undefined && !fillsItself(it));
      const names = small.map(({ set }) => set);
      const state = this.#nftables.dumpTable(family, table, { elements: names });
      if (state === undefined || state.dormant === true) return undefined;
      const { base, others } = this.#chains();
      const { transactions, kept } = planTakeOver({
        operations: this.#table,
        wanted: { sets: sets.map((it) => this.#wantedSet(it)), chains: [...others, ...base] },
        state,
        // Those with a source may be large: one at a time.
        elementsOf: ({ set, elements }) =>
          names.includes(set) ? elements : this.#nftables.elementsOf({ family, table, set }),
        addSet: ({ set, count }) => this.#addSet(set, count),
      });
      for (const { set, source } of sets)
        if (source !== undefined && kept.has(set))
          this.#sourced.set(set, {
            ...{ count: source.count(), capacity: kept.get(set) ?? Number.POSITIVE_INFINITY },
            ...{ add: [], remove: [] },
          });
      this.#isTakingOver = true;
      return { ahead: transactions.slice(0, -1), last: transactions.at(-1) ?? [] };
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#log.warn({ err: error }, `ruleset ${family}: cannot read the table; making it anew`);
      return undefined;
    }
  }

  #wantedSet(set: SetContent): WantedSet {
    const mirror = this.#elements.get(set.set) ?? new Map<string, SetElement>();
    return {
      set,
      count: set.source?.count() ?? mirror.size,
      batches: () =>
        set.source?.batches(MAX_ELEMENTS_PER_TRANSACTION) ??
        inBatches(mirror.values(), MAX_ELEMENTS_PER_TRANSACTION),
    };
  }

  /** The table without the base chains that lead packets into it. */
  *#unseen(
    head: readonly Operation[],
    sets: readonly SetContent[],
  ): Generator<readonly Operation[]> {
    yield head;
    yield* oneByOne(this.#filling(sets));
  }

  /** Adds all elements that the sets should have. */
  *#filling(sets: readonly SetContent[]): Generator<Operation> {
    const { elements } = this.#table;
    for (const { set, source } of sets) {
      const mirror = this.#elements.get(set)?.values() ?? [];
      for (const some of inBatches(mirror, MAX_ELEMENTS_PER_TRANSACTION))
        yield elements.add(set, some);
      for (const some of source?.batches(MAX_ELEMENTS_PER_TRANSACTION) ?? [])
        yield elements.add(set, some);
    }
  }

  /** @param count how many elements the set gets in this transaction without being staged */
  #addSet({ source, ...content }: SetContent, count: number): Operation {
    const { set: name, ...rest } = content;
    if (source === undefined) return this.#table.set.add(name, rest);
    const { add = [], remove = [] } = this.#sourced.get(name) ?? {};
    const capacity = Math.max(MIN_CAPACITY, 2 * (count + add.length));
    this.#sourced.set(name, { count, capacity, add, remove });
    // An interval set is no hash table, and has no use for a size.
    return this.#table.set.add(name, rest.interval === true ? rest : { ...rest, size: capacity });
  }

  /** Takes what is staged into the mirror. */
  #absorb(): void {
    for (const [name, part] of this.#stagedParts) {
      for (const gone of setsMissingIn(part, this.#parts.get(name) ?? EMPTY_PART))
        this.#elements.delete(gone.set);
      this.#parts.set(name, part);
    }
    for (const [name, { add, remove }] of this.#staged) {
      const current = this.#elements.get(name);
      if (current === undefined) {
        this.#elements.set(name, add);
        continue;
      }
      for (const key of remove.keys()) if (!add.has(key)) current.delete(key);
      for (const [key, element] of add) current.set(key, element);
    }
    for (const sourced of this.#sourced.values()) {
      sourced.count += sourced.add.length - sourced.remove.length;
      sourced.add = [];
      sourced.remove = [];
    }
    this.#stagedParts.clear();
    this.#staged.clear();
  }
}

interface SourcedSet {
  count: number;
  readonly capacity: number;
  add: SetElement[];
  remove: SetElement[];
}

function* oneByOne(operations: Iterable<Operation>): Generator<readonly Operation[]> {
  for (const operation of operations) yield [operation];
}

/** Sets that `wanted` has and `other` does not. A set never changes its shape under one name. */
function setsMissingIn(other: RulesetPart, wanted: RulesetPart): SetContent[] {
  const names = new Set(other.sets.map((content) => content.set));
  return wanted.sets.filter((content) => !names.has(content.set));
}
