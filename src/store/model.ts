/**
 * The store's properties over random histories, checked against a model so simple that it can be seen to be right:
 * a full copy of the state for every revision, and the list of all changes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { put, remove, text } from './contract.ts';
import type {
  Compare,
  Store,
  StoreEntry,
  StoreEvent,
  TransactionResult,
  WatchBatch,
  WriteOp,
} from './port.ts';
import { CompactedError } from './port.ts';

export interface PropertyHarness {
  /** Opens an empty store. */
  open(): Promise<Store>;
  /** For what survives: opens again what this store, which is closed by then, had written. */
  reopen?(store: Store): Promise<Store>;
  /** Transactions that share no key may overtake each other: they are issued one at a time. */
  readonly isShared?: boolean;
  /** Number of random histories. */
  readonly runs: number;
}

/** A watch that lost a change is waited for in vain; a whole history takes milliseconds. */
const HANG_MS = 10_000;

export function storeProperties(name: string, harness: PropertyHarness): void {
  test(`${name}: any history of transactions, compactions and watches is as the model says`, async () => {
    const history = fc.array(anyStep, { minLength: 5, maxLength: 40, size: 'max' });
    await fc.assert(
      fc.asyncProperty(history, (steps) => checkHistory(harness, steps)),
      { numRuns: harness.runs, timeout: HANG_MS, interruptAfterTimeLimit: 10 * HANG_MS },
    );
  });
}

const KEYS = ['a/1', 'a/2', 'a/3', 'b/1', 'b/2'] as const;
const PREFIXES = ['', 'a/', 'b/', 'a/2', 'c'] as const;
const anyKey = fc.constantFrom(...KEYS);

/** A compare is written as a guess, because the revision it names depends on the history so far. */
interface Transaction {
  readonly compares: readonly { readonly key: string; readonly guess: 'current' | 'absent' }[];
  readonly operations: readonly WriteOp[];
}
type Step =
  | { readonly type: 'write'; readonly together: readonly Transaction[] }
  | { readonly type: 'compact'; readonly share: number }
  | { readonly type: 'watch'; readonly prefix: string; readonly share: number }
  | { readonly type: 'read'; readonly prefix: string; readonly share: number }
  | { readonly type: 'reopen' };

const anyOperation: fc.Arbitrary<WriteOp> = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(anyKey, fc.nat(99)).map(([key, n]) => put(key, String(n))) },
  { weight: 2, arbitrary: anyKey.map(remove) },
);
const anyTransaction: fc.Arbitrary<Transaction> = fc.record({
  compares: fc.array(
    fc.record({ key: anyKey, guess: fc.constantFrom('current', 'current', 'absent') }),
    { maxLength: 2 },
  ),
  operations: fc.uniqueArray(anyOperation, { maxLength: 4, selector: (op) => op.key }),
});
/** Where in the history that is kept, from its oldest revision (0) to the newest (1). */
const anyShare = fc.nat(16).map((sixteenths) => sixteenths / 16);
const anyPrefix = fc.constantFrom(...PREFIXES);
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .array(anyTransaction, { minLength: 1, maxLength: 5 })
      .map((together) => ({ type: 'write' as const, together })),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('watch' as const),
      prefix: anyPrefix,
      share: anyShare,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('read' as const),
      prefix: anyPrefix,
      share: anyShare,
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('compact' as const), share: anyShare }) },
  { weight: 1, arbitrary: fc.constant({ type: 'reopen' as const }) },
);

class Model {
  /** `states[r]` is the whole state at revision r. */
  readonly states: ReadonlyMap<string, StoreEntry>[] = [new Map()];
  /** `changes[r]` made revision r. */
  readonly changes: WatchBatch[] = [{ revision: 0, events: [] }];
  compactRevision = 0;

  get revision(): number {
    return this.states.length - 1;
  }

  /** @returns whether it succeeded */
  transact(compares: readonly Compare[], operations: readonly WriteOp[]): boolean {
    const state = new Map(this.states[this.revision]);
    if (compares.some((c) => (state.get(c.key)?.modRevision ?? 0) !== c.modRevision)) return false;
    const revision = this.revision + 1;
    const events: StoreEvent[] = [];
    for (const op of operations) {
      const { key } = op;
      const previous = state.get(key);
      if (op.type === 'put') {
        const createRevision = previous?.createRevision ?? revision;
        const entry = { key, value: op.value, createRevision, modRevision: revision };
        state.set(key, entry);
        events.push({ type: 'put', entry, previous });
      } else if (previous !== undefined) {
        state.delete(key);
        events.push({ type: 'delete', key, previous });
      }
    }
    if (events.length === 0) return true;
    this.states.push(state);
    this.changes.push({ revision, events });
    return true;
  }

  list(prefix: string, revision: number): StoreEntry[] {
    const entries = [...(this.states[revision]?.values() ?? [])];
    return entries
      .filter((entry) => entry.key.startsWith(prefix))
      .toSorted((a, b) => (a.key < b.key ? -1 : 1));
  }

  changesAfter(prefix: string, revision: number): WatchBatch[] {
    return this.changes.slice(revision + 1).flatMap((batch) => {
      const events = batch.events.filter((event) => keyOf(event).startsWith(prefix));
      return events.length === 0 ? [] : [{ revision: batch.revision, events }];
    });
  }

  /** The revision at this share of the history that is kept. */
  at(share: number): number {
    return this.compactRevision + Math.round(share * (this.revision - this.compactRevision));
  }
}

/** Follows a watch to its end and keeps all that it gave. */
class Follower {
  readonly prefix: string;
  readonly afterRevision: number;
  readonly seen: WatchBatch[] = [];
  readonly done: Promise<void>;
  #wake: (() => void) | undefined;

  constructor(store: Store, prefix: string, afterRevision: number, signal: AbortSignal) {
    this.prefix = prefix;
    this.afterRevision = afterRevision;
    this.done = this.#follow(store.watch(prefix, afterRevision, { signal }));
  }

  /** Resolves when as many batches were seen, or the watch has failed. */
  async caughtUp(count: number): Promise<void> {
    while (this.seen.length < count)
      await Promise.race([this.done, new Promise<void>((resolve) => (this.#wake = resolve))]);
  }

  async #follow(watch: AsyncIterable<WatchBatch>): Promise<void> {
    for await (const batch of watch) {
      this.seen.push(batch);
      this.#wake?.();
    }
  }
}

async function checkHistory(harness: PropertyHarness, steps: readonly Step[]): Promise<void> {
  const model = new Model();
  let store = await harness.open();
  let end = new AbortController();
  let followers: Follower[] = [];
  const checkFollowers = async () => {
    for (const follower of followers) {
      const expected = model.changesAfter(follower.prefix, follower.afterRevision);
      await follower.caughtUp(expected.length);
      assert.deepEqual(follower.seen.map(plainBatch), expected.map(plainBatch));
    }
  };
  try {
    for (const step of steps) {
      if (step.type === 'write') {
        const steps = harness.isShared ? step.together.map((one) => [one]) : [step.together];
        for (const together of steps) await write(store, model, together);
      }
      if (step.type === 'read') await read(store, model, step.prefix, model.at(step.share));
      if (step.type === 'watch')
        followers.push(new Follower(store, step.prefix, model.at(step.share), end.signal));
      if (step.type === 'compact') {
        await checkFollowers(); // so that none of them lags
        model.compactRevision = model.at(step.share);
        await store.compact(model.compactRevision);
      }
      if (step.type === 'reopen' && harness.reopen !== undefined) {
        await checkFollowers();
        await store[Symbol.asyncDispose]();
        await Promise.all(followers.map((follower) => follower.done));
        followers = [];
        store = await harness.reopen(store);
      }
    }
    await read(store, model, '', model.revision);
    followers.push(new Follower(store, '', model.compactRevision, end.signal));
    await checkFollowers();
    if (model.compactRevision > 0)
      await assert.rejects(store.list('', { revision: model.compactRevision - 1 }), CompactedError);
  } finally {
    end.abort();
    end = new AbortController();
    await store[Symbol.asyncDispose]();
    await Promise.all(followers.map((follower) => follower.done));
  }
}

/** The transactions of a step are issued without waiting, and must come out as if they had waited for each other. */
async function write(store: Store, model: Model, together: readonly Transaction[]): Promise<void> {
  const before = model.states[model.revision];
  const issued = together.map((transaction) => {
    const compares = transaction.compares.map(({ key, guess }) => ({
      key,
      modRevision: guess === 'absent' ? 0 : (before?.get(key)?.modRevision ?? 0),
    }));
    const succeeded = model.transact(compares, transaction.operations);
    const { revision } = model;
    const conflicts = compares.map(({ key }) => model.states[revision]?.get(key));
    return {
      expected: (succeeded
        ? { succeeded, revision }
        : { succeeded, revision, conflicts }) as TransactionResult,
      result: store.transact(compares, transaction.operations),
    };
  });
  for (const { expected, result } of issued)
    assert.deepEqual(plainResult(await result), plainResult(expected));
}

async function read(store: Store, model: Model, prefix: string, revision: number): Promise<void> {
  const expected = model.list(prefix, revision);
  const whole = await store.list(prefix, { revision });
  assert.deepEqual(
    { ...whole, entries: whole.entries.map(plainEntry) },
    { entries: expected.map(plainEntry), revision, more: false, remaining: 0 },
  );
  const page = await store.list(prefix, { revision, limit: 2 });
  assert.deepEqual(page.entries.map(plainEntry), expected.slice(0, 2).map(plainEntry));
  assert.equal(page.remaining, Math.max(0, expected.length - 2));
  for (const key of KEYS)
    assert.deepEqual(
      plainEntry(await store.get(key, revision)),
      plainEntry(model.states[revision]?.get(key)),
    );
}

/** An entry as values only: how it is held is each store's own affair. */
function plainEntry(entry: StoreEntry | undefined): unknown {
  if (entry === undefined) return undefined;
  const { key, value, createRevision, modRevision } = entry;
  return { key, value: text(value), createRevision, modRevision };
}

function plainResult(result: TransactionResult): unknown {
  return result.succeeded ? result : { ...result, conflicts: result.conflicts.map(plainEntry) };
}

function keyOf(event: StoreEvent): string {
  return event.type === 'put' ? event.entry.key : event.key;
}

function plainBatch(batch: WatchBatch): unknown {
  const events = batch.events.map((event) => [
    event.type,
    keyOf(event),
    event.type === 'put' ? text(event.entry.value) : '',
    event.previous?.modRevision,
    event.previous === undefined ? '' : text(event.previous.value),
  ]);
  return [batch.revision, events];
}
