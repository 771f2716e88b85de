/**
 * Our table of one nftables family, written by several features and kept against everybody else.
 *
 * A feature *defines* its part (chains with rules, sets) and *stages* elements; `commit()` carries all of it out in
 * one transaction. What should be in the kernel is mirrored in memory, so the kernel is never listed, and a change
 * costs what changed.
 *
 * Whenever the kernel may not be what the mirror says (first start, a refused transaction, a foreign edit) the next
 * commit deletes the table and makes it anew **in one transaction**: packets see the old rules or the new ones,
 * never none. Connections live on, because conntrack keeps their translation.
 */
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

export interface ChainContent {
  readonly name: string;
  readonly base?: BaseChain;
  readonly rules: readonly {
    readonly expressions: readonly Expression[];
    readonly comment?: string;
  }[];
}

/** A set or map without its table. */
export type SetContent = Omit<NftSet, keyof TableRef>;

/** What one feature wants in the table, elements aside. */
export interface RulesetPart {
  readonly sets: readonly SetContent[];
  readonly chains: readonly ChainContent[];
}

export type RulesetFamily = 'ip' | 'ip6' | 'bridge';

const EMPTY_PART: RulesetPart = { sets: [], chains: [] };
type ChainOperations = ReturnType<typeof inTable>['chain'];
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
  readonly #repairs: SyncLoop;
  readonly #awaited: Set<string>;
  readonly #stopWatch: () => void;
  /** The kernel's table cannot be told by the mirror: make it anew. */
  #unknown = true;
  #repairCount = 0;

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
    if (this.#awaited.size > 0) return;
    const operations = this.#unknown ? undefined : this.#changes();
    this.#absorb();
    if (operations?.length === 0) return;
    this.#unknown = true;
    this.#nftables.commit(operations ?? this.#everything());
    this.#unknown = false;
  }

  status(): { inSync: boolean; repairs: number; elements: number } {
    let elements = 0;
    for (const set of this.#elements.values()) elements += set.size;
    return { inSync: !this.#unknown, repairs: this.#repairCount, elements };
  }

  /** Ends watching; the table stays, traffic goes on without us. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopWatch();
    await this.#repairs[Symbol.asyncDispose]();
  }

  #onEvent(event: RulesetEvent): void {
    if (event.kind === 'commit') {
      const { table, family } = this.#table.ref;
      const touched = event.changes.some((c) => c.table === table && c.family === family);
      if (event.own || !touched) return;
      this.#log.warn(
        { pid: event.pid, process: event.processName },
        `ruleset ${family}: "${event.processName}" changed our table "${table}"; making it anew`,
      );
    }
    // Before the first commit there is nothing of ours to protect.
    if (this.#parts.size === 0) return;
    this.#unknown = true;
    this.#repairs.trigger();
  }

  #repair(): void {
    if (!this.#unknown) return;
    this.commit();
    this.#repairCount++;
  }

  /** The operations from the mirror to the mirror with what is staged. */
  #changes(): Operation[] {
    const { set, chain, rule, elements } = this.#table;
    const operations: Operation[] = [];
    const last: Operation[] = [];
    const rules: Operation[] = [];
    for (const [name, part] of this.#stagedParts) {
      const old = this.#parts.get(name) ?? EMPTY_PART;
      for (const { set: name, ...content } of setsMissingIn(old, part))
        operations.push(set.add(name, content));
      const oldChains = new Map(old.chains.map((content) => [content.name, content]));
      for (const content of part.chains) {
        const was = oldChains.get(content.name);
        oldChains.delete(content.name);
        if (was !== undefined && sameChain(was, content)) continue;
        if (was === undefined) operations.push(addChain(chain, content));
        else rules.push(chain.flush(content.name));
        for (const { expressions, comment } of content.rules)
          rules.push(rule.add(content.name, expressions, comment === undefined ? {} : { comment }));
      }
      for (const gone of oldChains.keys()) last.push(chain.flush(gone), chain.delete(gone));
      for (const gone of setsMissingIn(part, old)) last.push(set.delete(gone.set));
    }
    for (const [name, { add, remove }] of this.#staged) {
      const current = this.#elements.get(name);
      const out = [...remove.values()].filter((element) => current?.has(keyOf(element)));
      // An element with other data must go before it can come.
      const replaced = [...add].filter(([key]) => current?.has(key) && !remove.has(key));
      out.push(...replaced.flatMap(([key]) => current?.get(key) ?? []));
      if (out.length > 0) operations.push(elements.delete(name, out));
      if (add.size > 0) operations.push(elements.add(name, [...add.values()]));
    }
    return [...operations, ...rules, ...last];
  }

  /** The mirror as one transaction that replaces the table, whatever it was. */
  #everything(): Operation[] {
    const { table, set, chain, rule, elements } = this.#table;
    const parts = [...this.#parts.values()];
    const chains = parts.flatMap((part) => part.chains);
    return [
      table.add(),
      table.delete(),
      table.add({ comment: 'owned by tulle: changes by others are undone' }),
      ...parts
        .flatMap((part) => part.sets)
        .map(({ set: name, ...content }) => set.add(name, content)),
      ...chains.map((content) => addChain(chain, content)),
      ...[...this.#elements]
        .filter(([, content]) => content.size > 0)
        .map(([name, content]) => elements.add(name, [...content.values()])),
      ...chains.flatMap((content) =>
        content.rules.map(({ expressions, comment }) =>
          rule.add(content.name, expressions, comment === undefined ? {} : { comment }),
        ),
      ),
    ];
  }

  /** Takes what is staged into the mirror. */
  #absorb(): void {
    for (const [name, part] of this.#stagedParts) {
      for (const gone of setsMissingIn(part, this.#parts.get(name) ?? EMPTY_PART))
        this.#elements.delete(gone.set);
      this.#parts.set(name, part);
    }
    for (const [name, { add, remove }] of this.#staged) {
      const current = this.#elements.get(name) ?? new Map<string, SetElement>();
      this.#elements.set(name, current);
      for (const key of remove.keys()) if (!add.has(key)) current.delete(key);
      for (const [key, element] of add) current.set(key, element);
    }
    this.#stagedParts.clear();
    this.#staged.clear();
  }
}

/** Sets that `wanted` has and `other` does not. A set never changes its shape under one name. */
function setsMissingIn(other: RulesetPart, wanted: RulesetPart): SetContent[] {
  const names = new Set(other.sets.map((content) => content.set));
  return wanted.sets.filter((content) => !names.has(content.set));
}

function addChain(chain: ChainOperations, content: ChainContent): Operation {
  return chain.add(content.name, content.base === undefined ? {} : { base: content.base });
}

function sameChain(a: ChainContent, b: ChainContent): boolean {
  return a === b || describe(a) === describe(b);
}

function describe(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'bigint'
      ? `${inner}n`
      : inner instanceof Uint8Array
        ? Buffer.from(inner).toString('hex')
        : inner,
  );
}

/** The end of one interval may have the key of the next one's start. */
function keyOf(element: SetElement): string {
  const key = Buffer.from(element.key).toString('latin1');
  return element.intervalEnd ? `${key}|end` : key;
}

function sameElement(a: SetElement | undefined, b: SetElement): boolean {
  return (
    a !== undefined &&
    sameBytes(a.data, b.data) &&
    sameBytes(a.keyEnd, b.keyEnd) &&
    JSON.stringify(a.verdict) === JSON.stringify(b.verdict)
  );
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;
}
