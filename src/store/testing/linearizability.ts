/**
 * Is there an order of what concurrent clients did to one key in which each answer is right, and which respects that what
 * had ended before something else began came first? (Herlihy and Wing 1990; the search is Wing and Gong's with Lowe's
 * memory of visited configurations.) Pure.
 *
 *     client 1   ├── put x ──┤        ├─ read y ─┤
 *     client 2        ├──── put y ────┤               linearizable: put x, put y, read y
 */

/** Times are of one clock. An operation whose answer was lost has no end, and may have happened or not. */
export interface Operation {
  readonly client: number;
  readonly key: string;
  readonly beganMs: number;
  /** `Infinity` if the answer was lost. */
  readonly endedMs: number;
  readonly action: Action;
}

export type Action =
  /** What a read found; revision 0 is nothing. */
  | { readonly type: 'read'; readonly value: string | undefined; readonly revision: number }
  /**
   * A put, or a deletion without `value`.
   * @param expected the revision it was conditional on (0: that there is nothing); missing: unconditional
   * @param revision that it got; `undefined` if the answer was lost
   */
  | {
      readonly type: 'write';
      readonly value: string | undefined;
      readonly expected?: number;
      readonly revision: number | undefined;
    }
  /** A write that was refused because its condition did not hold; `revision` is what it found. */
  | { readonly type: 'refused'; readonly expected: number; readonly revision: number };

/** What a key holds. The revision is unknown after a write whose answer was lost, and then above that before it. */
interface State {
  readonly value: string | undefined;
  readonly revision: number | undefined;
  readonly above: number;
}

const EMPTY: State = { value: undefined, revision: 0, above: 0 };

/** Configurations looked at before the search is given up: a history that needs more says nothing about the store. */
const MAX_CONFIGURATIONS = 2_000_000;

export type Verdict =
  | { readonly kind: 'linearizable' }
  /** `longest`: the longest beginning that could be ordered; the first operation that never fits comes behind it. */
  | {
      readonly kind: 'violation';
      readonly key: string;
      readonly longest: readonly Operation[];
      readonly stuck: readonly Operation[];
    }
  | { readonly kind: 'too-hard'; readonly key: string };

/** Checks each key by itself: a history is linearizable if that of each key is. */
export function checkLinearizable(operations: readonly Operation[]): Verdict {
  for (const [key, ofKey] of Map.groupBy(operations, ({ key }) => key)) {
    const verdict = checkKey(key, ofKey);
    if (verdict.kind !== 'linearizable') return verdict;
  }
  return { kind: 'linearizable' };
}

interface Configuration {
  /** Operations before this index are all placed. */
  readonly first: number;
  /** Those behind it that are placed, in order of index. */
  readonly placed: readonly number[];
  readonly state: State;
  readonly parent: Configuration | undefined;
  readonly last: number;
  readonly depth: number;
}

function checkKey(key: string, unordered: readonly Operation[]): Verdict {
  const operations = unordered.toSorted((a, b) => a.beganMs - b.beganMs);
  const seen = new Set<string>();
  let best: Configuration = {
    first: 0,
    placed: [],
    state: EMPTY,
    parent: undefined,
    last: -1,
    depth: 0,
  };
  const stack = [best];
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    if (top.depth > best.depth) best = top;
    const open = candidates(operations, top);
    if (open === 'done') return { kind: 'linearizable' };
    for (const index of open) {
      const operation = operations[index];
      const state = operation && step(top.state, operation.action);
      if (state === undefined) continue;
      const next = place(top, index, state);
      const id = `${next.first} ${next.placed.join(',')} ${state.value} ${state.revision} ${state.above}`;
      if (seen.has(id)) continue;
      seen.add(id);
      if (seen.size > MAX_CONFIGURATIONS) return { kind: 'too-hard', key };
      stack.push(next);
    }
  }
  const stuck = candidates(operations, best);
  return {
    kind: 'violation',
    key,
    longest: orderOf(best).flatMap((index) => operations[index] ?? []),
    stuck: stuck === 'done' ? [] : stuck.flatMap((index) => operations[index] ?? []),
  };
}

/** The operations that may come next: those that began before any that is not placed had ended. */
function candidates(
  operations: readonly Operation[],
  { first, placed }: Configuration,
): number[] | 'done' {
  const taken = new Set(placed);
  let earliestEnd = Number.POSITIVE_INFINITY;
  const open: number[] = [];
  for (let index = first; index < operations.length; index++) {
    const operation = operations[index];
    if (operation === undefined || operation.beganMs > earliestEnd) break;
    if (taken.has(index)) continue;
    open.push(index);
    earliestEnd = Math.min(earliestEnd, operation.endedMs);
  }
  // What is left has lost its answer: it need not have happened.
  if (earliestEnd === Number.POSITIVE_INFINITY) return 'done';
  // The stack takes the last first: those that ended early are the likeliest to come next.
  return open.toSorted((a, b) => (operations[b]?.endedMs ?? 0) - (operations[a]?.endedMs ?? 0));
}

function place(from: Configuration, index: number, state: State): Configuration {
  const placed = [...from.placed, index].toSorted((a, b) => a - b);
  let { first } = from;
  while (placed[0] === first) {
    placed.shift();
    first++;
  }
  return { first, placed, state, parent: from, last: index, depth: from.depth + 1 };
}

function orderOf(end: Configuration): number[] {
  const order: number[] = [];
  for (let at: Configuration | undefined = end; at?.parent !== undefined; at = at.parent)
    order.unshift(at.last);
  return order;
}

/** @returns the state after the action, or `undefined` if its answer cannot be that in this state */
function step(state: State, action: Action): State | undefined {
  switch (action.type) {
    case 'read':
      return has(state, action.revision) && state.value === action.value
        ? known(state, action.revision)
        : undefined;
    case 'refused':
      return action.revision !== action.expected && has(state, action.revision)
        ? known(state, action.revision)
        : undefined;
    case 'write': {
      const { expected, revision, value } = action;
      if (expected !== undefined && !has(state, expected)) return undefined;
      const floor = Math.max(state.above, state.revision ?? 0);
      if (value === undefined) return { value, revision: 0, above: Math.max(floor, revision ?? 0) };
      if (revision !== undefined && revision <= floor) return undefined;
      return { value, revision, above: Math.max(floor, revision ?? 0) };
    }
  }
}

/** Whether the key can have this revision now. */
function has(state: State, revision: number): boolean {
  if (state.revision !== undefined) return state.revision === revision;
  return revision > state.above;
}

function known(state: State, revision: number): State {
  return { ...state, revision, above: Math.max(state.above, revision) };
}
