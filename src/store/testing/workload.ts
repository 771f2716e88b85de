/**
 * Concurrent clients over one or several stores of the same data, and watches beside them. What happened is recorded and
 * then checked: {@link checkLinearizable}, and what a watch promises.
 */
import assert from 'node:assert/strict';
import { sleep } from '#lib/clock.ts';
import type { Store, StoreEntry, StoreEvent, WatchBatch, WriteOp } from '../port.ts';
import { CompactedError, LaggedError, StoreUnavailableError, StoreWriteError } from '../port.ts';
import { type Action, checkLinearizable, type Operation } from './linearizability.ts';

export interface WorkloadOptions {
  /** Clients take turns over them. All of the same data. */
  readonly stores: readonly Store[];
  readonly clients: number;
  /** A number in [0, 1). */
  readonly random?: () => number;
  /**
   * A watch may be cut off by compaction and then reads the state anew: without this it is a failure.
   * @default false
   */
  readonly mayLag?: boolean;
}

const KEYS = Array.from({ length: 6 }, (_, i) => `/load/${i}`);
const PREFIX = '/load/';
/** Written last, so that the watches know when they have seen all. */
const END_KEY = `${PREFIX}end`;
/** A client that is refused waits so long, as one that has some sense. */
const REFUSED_PAUSE_MS = 20;

interface Recorded {
  readonly operations: Operation[];
  /** Acknowledged writes by revision. */
  readonly acknowledged: Map<number, { readonly key: string; readonly value: string | undefined }>;
}

export class Workload {
  readonly #options: WorkloadOptions;
  readonly #random: () => number;
  readonly #recorded: Recorded = { operations: [], acknowledged: new Map() };
  readonly #stop = new AbortController();
  readonly #clients: Promise<void>[];
  readonly #watches: readonly WatchRecord[];
  #succeeded = 0;
  #lost = 0;

  /** Starts at once. */
  constructor(options: WorkloadOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
    this.#watches = options.stores.map((store) => new WatchRecord(store, options.mayLag ?? false));
    this.#clients = Array.from({ length: options.clients }, (_, client) => this.#run(client));
  }

  /** Writes that were acknowledged until now. */
  get acknowledged(): number {
    return this.#succeeded;
  }

  /** What happened, for the reader of a test's output. */
  get summary(): string {
    const { operations } = this.#recorded;
    const lags = this.#watches.reduce((sum, watch) => sum + watch.lags, 0);
    return `${operations.length} operations, ${this.#succeeded} writes acknowledged, ${this.#lost} answers lost, ${lags} watches cut off`;
  }

  /** Resolves when so many more writes were acknowledged. */
  async progress(writes: number): Promise<void> {
    const wanted = this.#succeeded + writes;
    while (this.#succeeded < wanted) await sleep(5);
  }

  /** Ends the clients, waits for the watches to see the end, and checks all. */
  async check(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#clients);
    const [store] = this.#options.stores;
    if (store === undefined) return;
    for (;;) {
      try {
        await store.transact([], [put(END_KEY, 'end')]);
        break;
      } catch (error) {
        if (!(error instanceof StoreWriteError)) throw error;
      }
    }
    const sequences = await Promise.all(this.#watches.map((watch) => watch.finish()));
    const verdict = checkLinearizable(this.#recorded.operations);
    assert.equal(verdict.kind, 'linearizable', JSON.stringify(verdict, undefined, 1));
    for (const changes of sequences) checkChanges(changes, this.#recorded);
    checkAlike(sequences);
  }

  async #run(client: number): Promise<void> {
    const { stores } = this.#options;
    const store = stores[client % stores.length];
    if (store === undefined) throw new TypeError('a workload needs a store');
    let count = 0;
    let newest = 0;
    while (!this.#stop.signal.aborted) {
      // A store in memory answers without ever leaving the turn: nobody else would get one.
      await new Promise(setImmediate);
      const key = KEYS[Math.floor(this.#random() * KEYS.length)] ?? '';
      const choice = this.#random();
      const value = choice < 0.1 ? undefined : `${client}.${count++}`;
      if (choice > 0.6) {
        const found = await this.#read(store, client, key);
        if (found === 'failed') continue;
        // No client goes back in time, whichever keys it reads.
        newest = Math.max(newest, found?.modRevision ?? 0);
        assert.ok((await this.#revision(store)) >= newest, 'the revision went back in time');
        if (choice > 0.8) continue;
        await this.#write(store, { client, key, value, expected: found?.modRevision ?? 0 });
      } else await this.#write(store, { client, key, value });
    }
  }

  async #revision(store: Store): Promise<number> {
    try {
      return await store.revision();
    } catch (error) {
      if (error instanceof StoreUnavailableError) return Number.POSITIVE_INFINITY;
      throw error;
    }
  }

  async #read(
    store: Store,
    client: number,
    key: string,
  ): Promise<StoreEntry | undefined | 'failed'> {
    const beganMs = performance.now();
    try {
      const found = await store.get(key);
      this.#record(client, key, beganMs, {
        type: 'read',
        value: textOf(found?.value),
        revision: found?.modRevision ?? 0,
      });
      return found;
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error;
      await sleep(REFUSED_PAUSE_MS);
      return 'failed';
    }
  }

  async #write(
    store: Store,
    {
      client,
      key,
      value,
      expected,
    }: { client: number; key: string; value: string | undefined; expected?: number },
  ): Promise<void> {
    const compares = expected === undefined ? [] : [{ key, modRevision: expected }];
    const condition = expected === undefined ? {} : { expected };
    const operation: WriteOp = value === undefined ? { type: 'delete', key } : put(key, value);
    const beganMs = performance.now();
    try {
      const result = await store.transact(compares, [operation]);
      if (!result.succeeded) {
        const revision = result.conflicts[0]?.modRevision ?? 0;
        const refused: Action = { type: 'refused', expected: expected ?? 0, revision };
        this.#record(client, key, beganMs, refused);
        return;
      }
      const { revision } = result;
      this.#record(client, key, beganMs, { type: 'write', value, revision, ...condition });
      this.#succeeded++;
      // A deletion of nothing has the revision of another write.
      if (value !== undefined) this.#recorded.acknowledged.set(revision, { key, value });
    } catch (error) {
      if (!(error instanceof StoreWriteError)) throw error;
      if (error.isUncertain) {
        this.#lost++;
        this.#recorded.operations.push({
          client,
          key,
          beganMs,
          endedMs: Number.POSITIVE_INFINITY,
          action: { type: 'write', value, revision: undefined, ...condition },
        });
      }
      await sleep(REFUSED_PAUSE_MS);
    }
  }

  #record(client: number, key: string, beganMs: number, action: Action): void {
    const endedMs = performance.now();
    this.#recorded.operations.push({ client, key, beganMs, endedMs, action });
  }
}

/** What a watch showed, or that it was cut off and where the state was read anew. */
type Change = WatchBatch | { readonly type: 'gap'; readonly revision: number };

class WatchRecord {
  readonly #store: Store;
  readonly #mayLag: boolean;
  readonly #changes: Change[] = [];
  readonly #done: Promise<void>;
  lags = 0;

  constructor(store: Store, mayLag: boolean) {
    this.#store = store;
    this.#mayLag = mayLag;
    this.#done = this.#follow();
  }

  async finish(): Promise<readonly Change[]> {
    await this.#done;
    return this.#changes;
  }

  async #follow(): Promise<void> {
    let after = await this.#store.revision();
    this.#changes.push({ type: 'gap', revision: after });
    const end = new AbortController();
    for (;;) {
      try {
        for await (const batch of this.#store.watch(PREFIX, after, { signal: end.signal })) {
          this.#changes.push(batch);
          after = batch.revision;
          if (batch.events.some((event) => keyOf(event) === END_KEY)) return;
        }
        assert.fail('a watch ended by itself');
      } catch (error) {
        if (error instanceof StoreUnavailableError) continue;
        const isCutOff = error instanceof LaggedError || error instanceof CompactedError;
        if (!this.#mayLag || !isCutOff) throw error;
        this.lags++;
        // As every client does: read anew, and go on from there.
        const { revision, entries } = await this.#store.list(PREFIX);
        after = revision;
        this.#changes.push({ type: 'gap', revision });
        if (entries.some((entry) => entry.key === END_KEY)) return;
      }
    }
  }
}

/** In order, none twice, none left out, all of a revision together, and with what was acknowledged. */
function checkChanges(changes: readonly Change[], { acknowledged }: Recorded): void {
  let last = 0;
  const state = new Map<string, StoreEntry | undefined>();
  const sortedWrites = [...acknowledged.keys()].toSorted((a, b) => a - b);
  let write = 0;
  for (const change of changes) {
    if ('type' in change) {
      last = change.revision;
      state.clear();
      while ((sortedWrites[write] ?? Number.POSITIVE_INFINITY) <= last) write++;
      continue;
    }
    assert.ok(change.revision > last, `revision ${change.revision} came after ${last}`);
    last = change.revision;
    const expected = sortedWrites[write] ?? Number.POSITIVE_INFINITY;
    assert.ok(
      change.revision <= expected,
      `the watch went from before ${expected}, which was acknowledged, to ${change.revision}`,
    );
    if (change.revision === expected) {
      write++;
      const wanted = acknowledged.get(expected);
      const event = change.events.find((candidate) => keyOf(candidate) === wanted?.key);
      assert.equal(event?.type === 'put' ? textOf(event.entry.value) : undefined, wanted?.value);
    }
    for (const event of change.events) {
      const key = keyOf(event);
      // What a change says was before must be what the change before left.
      if (state.has(key))
        assert.equal(
          event.previous?.modRevision,
          state.get(key)?.modRevision,
          `previous of ${key}`,
        );
      state.set(key, event.type === 'put' ? event.entry : undefined);
    }
  }
}

/** All watches show the same at the same revision. */
function checkAlike(sequences: readonly (readonly Change[])[]): void {
  const seen = new Map<number, string>();
  for (const changes of sequences)
    for (const change of changes) {
      if ('type' in change) continue;
      const text = JSON.stringify(
        change.events.map((event) => [
          event.type,
          keyOf(event),
          event.type === 'put' ? textOf(event.entry.value) : '',
        ]),
      );
      assert.equal(seen.get(change.revision) ?? text, text, `revision ${change.revision}`);
      seen.set(change.revision, text);
    }
}

function keyOf(event: StoreEvent): string {
  return event.type === 'put' ? event.entry.key : event.key;
}

function put(key: string, value: string): WriteOp {
  return { type: 'put', key, value: new TextEncoder().encode(value) };
}

function textOf(value: Uint8Array | undefined): string | undefined {
  return value === undefined ? undefined : new TextDecoder().decode(value);
}
