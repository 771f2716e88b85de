/**
 * A store whose state is in memory and whose history is in a journal. Reads and watches are served from memory.
 *
 * Group commit: transactions that come while a batch is being written wait and become the next batch.
 *
 *     transact() ─► queue ─► stage (evaluated in order) ─► journal.commit ─► apply ─► watches ─► acknowledged
 *                            nothing is visible yet        on disk            visible
 *
 * If the journal fails, the stage is thrown away: memory never was ahead of the disk.
 */
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { type HeldOp, holdOp } from './held-entry.ts';
import type { Compaction, Journal } from './journal.ts';
import type { Mvcc } from './mvcc.ts';
import type {
  Compare,
  ListResult,
  Store,
  StoreEntry,
  TransactionResult,
  WatchBatch,
  WriteOp,
} from './port.ts';
import { FutureRevisionError, StoreWriteError } from './port.ts';
import { checkTransaction } from './transaction.ts';
import { WatchHub } from './watch-hub.ts';

/**
 * History kept for watches to resume and lists to be paged. 20,000 changes are minutes of a busy cluster and a few tens
 * of megabytes; whoever stayed away longer lists again.
 */
export const MAX_HISTORY_REVISIONS = 20_000;
/** The same in bytes, for when values are large. */
export const MAX_HISTORY_BYTES = 64 * 1024 * 1024;
/** Least revisions that a compaction unasked for forgets: small, so that no single write pays for many. */
const COMPACTION_STEP_REVISIONS = 64;
/** Writes that wait for the disk. At a disk's worst (100 commits a second) that is some seconds; more would only time out. */
const MAX_WAITING_TRANSACTIONS = 10_000;
/** One batch writes no more than this many keys, or bytes and one transaction, so that its commit stays short. */
const MAX_BATCH_OPERATIONS = 1000;
const MAX_BATCH_BYTES = 4 * 1024 * 1024;

export interface JournaledStoreOptions {
  readonly clock?: Clock;
  /** Revisions of history kept; default {@link MAX_HISTORY_REVISIONS}. */
  readonly historyRevisions?: number;
}

interface WaitingTransaction {
  readonly type: 'transaction';
  readonly compares: readonly Compare[];
  readonly operations: readonly HeldOp[];
  readonly bytes: number;
  readonly resolve: (result: TransactionResult) => void;
  readonly reject: (error: unknown) => void;
}
interface WaitingCompaction {
  readonly type: 'compaction';
  readonly revision: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}
type Waiting = WaitingTransaction | WaitingCompaction;

export class JournaledStore implements Store {
  readonly #state: Mvcc;
  readonly #journal: Journal;
  readonly #watches: WatchHub;
  readonly #historyRevisions: number;
  #waiting: Waiting[] = [];
  /** Set while the queue is being worked off. */
  #writing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  /** @param state what the journal holds; owned by the store from now on, as is the journal */
  constructor(state: Mvcc, journal: Journal, options: JournaledStoreOptions = {}) {
    this.#state = state;
    this.#journal = journal;
    this.#watches = new WatchHub(state, options.clock ?? systemClock);
    this.#historyRevisions = options.historyRevisions ?? MAX_HISTORY_REVISIONS;
  }

  get known(): Store {
    return this;
  }

  async revision(): Promise<number> {
    return this.#state.revision;
  }

  async get(key: string, atRevision?: number): Promise<StoreEntry | undefined> {
    return this.#state.get(key, atRevision);
  }

  async list(
    prefix: string,
    options?: { revision?: number; limit?: number; startAfter?: string },
  ): Promise<ListResult> {
    return this.#state.list(prefix, options);
  }

  async transact(
    compares: readonly Compare[],
    operations: readonly WriteOp[],
  ): Promise<TransactionResult> {
    const bytes = checkTransaction(compares, operations);
    return new Promise((resolve, reject) => {
      const own = operations.map(holdOp);
      this.#enqueue({ type: 'transaction', compares, operations: own, bytes, resolve, reject });
    });
  }

  watch(
    prefix: string,
    afterRevision: number,
    options: { signal: AbortSignal; progressMs?: number },
  ): AsyncIterable<WatchBatch> {
    return this.#watches.watch(prefix, afterRevision, options);
  }

  compact(revision: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#enqueue({ type: 'compaction', revision, resolve, reject });
    });
  }

  /** Writes what waits, then ends the watches and closes the journal. Reads still work afterwards. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= (async () => {
      await this.#writing;
      this.#watches[Symbol.dispose]();
      await this.#journal[Symbol.asyncDispose]();
    })();
    return this.#closing;
  }

  #enqueue(waiting: Waiting): void {
    if (this.#closing !== undefined) {
      waiting.reject(new StoreWriteError('Cannot write to the store: it is closed'));
      return;
    }
    if (this.#waiting.length >= MAX_WAITING_TRANSACTIONS) {
      const message = `Cannot write to the store: ${this.#waiting.length} writes wait for the disk already`;
      waiting.reject(new StoreWriteError(message));
      return;
    }
    this.#waiting.push(waiting);
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    // Let the calls of this turn of the event loop gather, so that they share the first commit.
    await Promise.resolve();
    while (this.#waiting.length > 0) await this.#writeBatch(this.#takeBatch());
    // In the same step as the last look at the queue: a write that comes later must start again.
    this.#writing = undefined;
  }

  #takeBatch(): Waiting[] {
    let operations = 0;
    let bytes = 0;
    let count = 0;
    for (const waiting of this.#waiting) {
      if (operations >= MAX_BATCH_OPERATIONS || bytes >= MAX_BATCH_BYTES) break;
      count++;
      if (waiting.type === 'compaction') continue;
      operations += waiting.operations.length;
      bytes += waiting.bytes;
    }
    return this.#waiting.splice(0, count);
  }

  /** Never rejects: every error goes to those who wait. */
  async #writeBatch(batch: readonly Waiting[]): Promise<void> {
    const stage = this.#state.stage();
    const answers: (() => void)[] = [];
    let compactTo = this.#historyTarget();
    for (const waiting of batch) {
      if (waiting.type === 'transaction') {
        const result = stage.transact(waiting.compares, waiting.operations);
        answers.push(() => waiting.resolve(result));
      } else if (waiting.revision > this.#state.revision) {
        waiting.reject(new FutureRevisionError(waiting.revision, this.#state.revision));
      } else {
        compactTo = Math.max(compactTo, waiting.revision);
        answers.push(waiting.resolve);
      }
    }
    const { records } = stage;
    const compaction = this.#state.planCompaction(compactTo);
    if (records.length > 0 || compaction !== undefined) {
      try {
        await this.#journal.commit({ records, compaction });
      } catch (error) {
        // Those that only compared are refused too: what they saw may have been a write that has now not happened.
        for (const waiting of batch) waiting.reject(error);
        return;
      }
      this.#apply(records, compaction);
    }
    for (const answer of answers) answer();
  }

  #apply(records: readonly WatchBatch[], compaction: Compaction | undefined): void {
    this.#state.apply(records);
    this.#watches.notify(records);
    if (compaction !== undefined) this.#state.compact(compaction);
  }

  /** Where to compact to so that history stays bounded; the compact revision itself if there is too little to forget. */
  #historyTarget(): number {
    const current = this.#state.compactRevision;
    const target = this.#state.compactionTarget(this.#historyRevisions, MAX_HISTORY_BYTES);
    const over = this.#state.historyBytes > MAX_HISTORY_BYTES;
    return over || target - current >= COMPACTION_STEP_REVISIONS ? target : current;
  }
}
