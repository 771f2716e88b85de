/**
 * The way from the table that is in the kernel to the one that is wanted, by what differs. Pure.
 *
 * A table that is deleted and made anew in one transaction is not quite atomic for a packet that is on its way through
 * it. The kernel hooks the new base chains in, still empty, before the old ones, and a packet may pass the new one before
 * the transaction ends and the old one after, empty as well: it is not translated, for the life of its connection, or no
 * policy looks at it. A packet in the middle of a chain goes on by the old rules, but finds the old maps without their
 * elements. So what is as it should be is not touched: an agent that starts again writes nothing. And where base
 * chains change their hooks or names, the old ones go in a transaction after that in which the new ones come.
 */
import type { SetState, TableState } from '#linux/nftables/port.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import { decodeExpressions } from '#wire/nftables/expression-decoder.ts';
import { encodeExpressions } from '#wire/nftables/expression-encoder.ts';
import type { Expression } from '#wire/nftables/expressions.ts';
import type { BaseChain, inTable, Operation, SetElement } from '#wire/nftables/objects.ts';
import { type ElementList, PackedElements } from '#wire/nftables/packed-elements.ts';
import { type Difference, packedDifference } from './packed-difference.ts';
import type { ChainContent, SetContent } from './ruleset.ts';
import { addChain, describe, isNoBase, rulesOf } from './ruleset-chains.ts';
import { keyOf, sameElement, shapeOf } from './ruleset-elements.ts';

export interface WantedSet {
  readonly set: SetContent;
  /** How many it must have room for. */
  readonly count: number;
  readonly batches: () => Iterable<Iterable<SetElement>>;
}

export interface WantedTable {
  readonly sets: readonly WantedSet[];
  readonly chains: readonly ChainContent[];
}

export interface TakeOver {
  /** Transactions, one after another; none if the table is what is wanted. */
  readonly transactions: readonly (readonly Operation[])[];
  /** Sets that are kept, by name: room for how many elements they have, if that is limited. */
  readonly kept: ReadonlyMap<string, number | undefined>;
}

export interface TakeOverInit {
  readonly operations: ReturnType<typeof inTable>;
  readonly wanted: WantedTable;
  /** What the kernel has. */
  readonly state: TableState;
  readonly elementsOf: (set: SetState) => ElementList;
  readonly addSet: (set: WantedSet) => Operation;
}

/** Sets that packets write into are kept as they are, if they have the wanted shape. */
export function planTakeOver(init: TakeOverInit): TakeOver {
  const { wanted, state } = init;
  const { chain, set, elements } = init.operations;
  const sets = compareSets(init);
  const chains = compareChains(wanted.chains, state, sets.replaced);

  const isBaseGone = chains.gone.some(({ base }) => base !== undefined);
  const isBaseNew = chains.made.some(({ base }) => base !== undefined);
  const flushes = [...chains.gone, ...chains.rewritten].map((it) => chain.flush(it.chain));
  const deletions = [
    ...sets.gone.map((name) => set.delete(name)),
    ...chains.gone.map((it) => chain.delete(it.chain)),
  ];
  // What is replaced has to go before it can come, and it goes only when no rule leads to it.
  const isInTwo = isBaseGone && isBaseNew && sets.replaced.size === 0 && !chains.isReplacing;
  const names = new Set([...chains.made, ...chains.rewritten].map((it) => it.chain));
  const written = wanted.chains.filter(({ name }) => names.has(name));
  const [base, others] = [written.filter((it) => !isNoBase(it)), written.filter(isNoBase)];
  const isMade = new Set(chains.made.map((it) => it.chain));
  const make = (contents: readonly ChainContent[]) =>
    contents.filter(({ name }) => isMade.has(name)).map((it) => addChain(init.operations, it));
  const changes = [
    ...(isInTwo ? chains.rewritten.map((it) => chain.flush(it.chain)) : flushes),
    ...sets.removals.map((it) => elements.delete(it.set, it.elements)),
    ...[...sets.replaced].map((name) => set.delete(name)),
    ...(isInTwo ? [] : deletions),
    ...make(others),
    ...sets.made.map(init.addSet),
    // Before the sets are filled: the kernel walks a map once for each chain that begins to use it.
    ...rulesOf(init.operations, others),
    ...sets.additions.map((it) => elements.add(it.set, it.elements)),
    ...make(base),
    ...rulesOf(init.operations, base),
  ];
  const rest = isInTwo ? [...chains.gone.map((it) => chain.flush(it.chain)), ...deletions] : [];
  return { transactions: [changes, rest].filter((it) => it.length > 0), kept: sets.kept };
}

interface PlacedElements {
  readonly set: string;
  readonly elements: Iterable<SetElement>;
}

function compareSets({ wanted, state, elementsOf }: TakeOverInit) {
  const present = new Map(
    state.sets.filter((it) => it.anonymous !== true).map((it) => [it.set, it]),
  );
  const made: WantedSet[] = [];
  const replaced = new Set<string>();
  const kept = new Map<string, number | undefined>();
  const removals: PlacedElements[] = [];
  const additions: PlacedElements[] = [];
  for (const it of wanted.sets) {
    const name = it.set.set;
    const there = present.get(name);
    present.delete(name);
    const change = there && sameSet(there, it.set) ? changeOf(it, there, elementsOf) : undefined;
    if (change === undefined) {
      made.push(it);
      if (there !== undefined) replaced.add(name);
      for (const elements of it.batches()) additions.push({ set: name, elements });
      continue;
    }
    kept.set(name, there?.size);
    if (change.remove.length > 0) removals.push({ set: name, elements: change.remove });
    if (change.add.length > 0) additions.push({ set: name, elements: change.add });
  }
  return { made, replaced, gone: [...present.keys()], kept, removals, additions };
}

/** @returns undefined if the set has no room for what is wanted: what is removed leaves only when the transaction ends */
function changeOf(
  { set, count, batches }: WantedSet,
  there: SetState,
  elementsOf: TakeOverInit['elementsOf'],
): Difference | undefined {
  if (fillsItself(set)) return { add: [], remove: [] };
  if (there.size !== undefined && count > there.size) return undefined;
  const present = elementsOf(there);
  const change =
    present instanceof PackedElements
      ? packedDifference(present, batches())
      : difference(present, batches());
  const all = present.length + change.add.length;
  return there.size !== undefined && all > there.size ? undefined : change;
}

/** Packets write into it, or its elements go by themselves: what is in it is no part of what is wanted. */
export function fillsItself({ dynamic, timeoutMs }: SetContent): boolean {
  return dynamic === true || timeoutMs !== undefined;
}

function difference(
  present: readonly SetElement[],
  wanted: Iterable<Iterable<SetElement>>,
): Difference {
  const left = new Map(present.map((element) => [keyOf(element), element]));
  const add: SetElement[] = [];
  for (const batch of wanted)
    for (const element of batch) {
      const key = keyOf(element);
      if (sameElement(left.get(key), element)) left.delete(key);
      else add.push(element);
    }
  return { add, remove: [...left.values()] };
}

function sameSet(there: SetState, wanted: SetContent): boolean {
  const flags = (it: SetContent) =>
    [it.interval, it.constant, it.dynamic, it.timeout === true || it.timeoutMs !== undefined].map(
      (flag) => flag === true,
    );
  return (
    shapeOf(there) === shapeOf(wanted) &&
    `${flags(there)}` === `${flags(wanted)}` &&
    there.timeoutMs === wanted.timeoutMs &&
    (wanted.size === undefined || wanted.size === there.size)
  );
}

interface PlacedChain {
  readonly chain: string;
  readonly base?: BaseChain | undefined;
}

function compareChains(
  wanted: readonly ChainContent[],
  state: TableState,
  replacedSets: ReadonlySet<string>,
) {
  const present = new Map(state.chains.map((it) => [it.chain, it]));
  const [made, gone, rewritten]: [PlacedChain[], PlacedChain[], PlacedChain[]] = [[], [], []];
  let isReplacing = false;
  for (const { name, base, rules } of wanted) {
    const there = present.get(name);
    present.delete(name);
    if (there !== undefined && sameBase(there.base, base)) {
      const isSame = describe(rules.map(canonical)) === describe(there.rules.map(canonical));
      if (!isSame || there.rules.some((it) => it.expressions.some(isOf(replacedSets))))
        rewritten.push(there);
      continue;
    }
    if (there !== undefined) {
      gone.push(there);
      isReplacing = true;
    }
    made.push({ chain: name, base });
  }
  return { made, gone: [...gone, ...present.values()], rewritten, isReplacing };
}

function isOf(sets: ReadonlySet<string>): (expression: Expression) => boolean {
  return (expression) => 'set' in expression && sets.has(expression.set);
}

function sameBase(a: BaseChain | undefined, b: BaseChain | undefined): boolean {
  const text = (it: BaseChain | undefined) =>
    it && [it.type, it.hook, it.priority, it.policy ?? 'accept', it.device ?? ''].join();
  return text(a) === text(b);
}

/** A rule as the kernel would give it back, without what it has counted. */
function canonical({ expressions, comment }: ChainContent['rules'][number]): unknown {
  const writer = new NetlinkWriter();
  encodeExpressions(writer, expressions);
  const decoded = decodeExpressions(Buffer.from(writer.bytes()));
  const uncounted = decoded.map((it) => (it.kind === 'counter' ? { kind: it.kind } : it));
  return [uncounted, comment ?? ''];
}
