/**
 * A store whose state is in memory and whose history is in a journal. Reads and watches are served from memory.
 *
 * Group commit: transactions that come while a batch is being written wait and become the next batch.
 *
 *     transact() ─► queue ─► stage (evaluated in order) ─► journal.commit ─► apply ─► acknowledged ─► watches
 *                            nothing is visible yet        on disk            visible
 *
 * If the journal fails, the stage is thrown away: memory never was ahead of the disk.
 */
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { type HeldOp, holdOp, leaseOf } from './held-entry.ts';
import type { Compaction, Journal, LeaseChange } from './journal.ts';
import { LeaseBook } from './lease-book.ts';
import { checkLeaseTtl, newLeaseId } from './leases.ts';
import type { Mvcc } from './mvcc.ts';
import type {
  Compare,
  ListResult,
  Store,
  StoreEntry,
  StoreLease,
  TransactionResult,
  WatchBatch,
  WriteOp,
} from './port.ts';
import {
  FutureRevisionError,
  LeaseNotFoundError,
  MAX_LEASE_KEYS,
  MAX_LEASES,
  StoreWriteError,
} from './port.ts';
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

/** A lease that could not be ended is tried again after this time. */
const EXPIRY_RETRY_MS = 1_000;

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
interface WaitingGrant extends StoreLease {
  readonly type: 'grant';
  readonly resolve: (lease: StoreLease) => void;
  readonly reject: (error: unknown) => void;
}
/** Always the first of its batch: what hangs on the lease is known then. */
interface WaitingRevocation {
  readonly type: 'revocation';
  readonly id: number;
  /** Not if it was kept alive in the meantime. */
  readonly onlyIfDue: boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}
type Waiting = WaitingTransaction | WaitingCompaction | WaitingGrant | WaitingRevocation;

export class JournaledStore implements Store {
  readonly #state: Mvcc;
  readonly #journal: Journal;
  readonly #watches: WatchHub;
  readonly #historyRevisions: number;
  readonly #leases: LeaseBook;
  #waiting: Waiting[] = [];
  /** Set while the queue is being worked off. */
  #writing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  /** @param state what the journal holds; owned by the store from now on, as is the journal */
  constructor(
    state: Mvcc,
    journal: Journal,
    options: JournaledStoreOptions & { readonly leases?: readonly StoreLease[] } = {},
  ) {
    const { clock = systemClock } = options;
    this.#state = state;
    this.#journal = journal;
    this.#watches = new WatchHub(state, clock);
    this.#leases = new LeaseBook(clock, (id) => this.#expire(id));
    for (const { id, ttlMs } of options.leases ?? []) this.#leases.grant(id, ttlMs);
    if (this.#leases.size > 0)
      for (const entry of state.list('').entries) this.#leases.attach(entry.key, leaseOf(entry));
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

  async grantLease(ttlMs: number): Promise<StoreLease> {
    checkLeaseTtl(ttlMs);
    if (this.#leases.size >= MAX_LEASES)
      throw new StoreWriteError(`Cannot make a lease: there are ${this.#leases.size} already`);
    return await new Promise((resolve, reject) => {
      this.#enqueue({ type: 'grant', id: newLeaseId(), ttlMs, resolve, reject });
    });
  }

  async keepLeaseAlive(id: number): Promise<boolean> {
    return this.#leases.keepAlive(id);
  }

  revokeLease(id: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#enqueue({ type: 'revocation', id, onlyIfDue: false, resolve, reject });
    });
  }

  #expire(id: number): void {
    this.#enqueue({
      type: 'revocation',
      id,
      onlyIfDue: true,
      resolve: () => {},
      // The disk is full, perhaps: nobody waits for it, and it is tried until it works.
      reject: () => this.#leases.remind(id, EXPIRY_RETRY_MS),
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
      this.#leases[Symbol.dispose]();
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
      if (waiting.type === 'revocation' && count > 0) break;
      count++;
      if (waiting.type !== 'transaction') continue;
      operations += waiting.operations.length;
      bytes += waiting.bytes;
    }
    return this.#waiting.splice(0, count);
  }

  /** Never rejects: every error goes to those who wait. */
  async #writeBatch(batch: readonly Waiting[]): Promise<void> {
    const stage = this.#state.stage();
    const answers: (() => void)[] = [];
    const leases: LeaseChange[] = [];
    let compactTo = this.#historyTarget();
    for (const waiting of batch) {
      if (waiting.type === 'transaction') {
        const problem = this.#leaseProblem(waiting, leases);
        const result = stage.transact(
          waiting.compares,
          problem === undefined ? waiting.operations : [],
        );
        // A compare that does not hold comes first, as in etcd.
        if (problem !== undefined && result.succeeded) waiting.reject(problem);
        else answers.push(() => waiting.resolve(result));
      } else if (waiting.type === 'grant') {
        const { id, ttlMs } = waiting;
        leases.push({ id, ttlMs });
        answers.push(() => waiting.resolve({ id, ttlMs }));
      } else if (waiting.type === 'revocation') {
        const { id, onlyIfDue } = waiting;
        answers.push(waiting.resolve);
        if (!this.#leases.has(id) || (onlyIfDue && !this.#leases.isDue(id))) continue;
        leases.push({ id, ttlMs: undefined });
        stage.transact(
          [],
          this.#leases.keysOf(id).map((key) => ({ type: 'delete', key })),
        );
      } else if (waiting.revision > this.#state.revision) {
        waiting.reject(new FutureRevisionError(waiting.revision, this.#state.revision));
      } else {
        compactTo = Math.max(compactTo, waiting.revision);
        answers.push(waiting.resolve);
      }
    }
    const { records } = stage;
    const compaction = this.#state.planCompaction(compactTo);
    if (records.length > 0 || compaction !== undefined || leases.length > 0) {
      try {
        await this.#journal.commit({ records, compaction, leases });
      } catch (error) {
        // Those that only compared are refused too: what they saw may have been a write that has now not happened.
        for (const waiting of batch) waiting.reject(error);
        return;
      }
      this.#apply(records, compaction, leases);
    }
    for (const answer of answers) answer();
  }

  /** @param changes of leases by what stands before it in the batch */
  #leaseProblem(
    { operations }: WaitingTransaction,
    changes: readonly LeaseChange[],
  ): Error | undefined {
    for (const op of operations) {
      if (op.type === 'delete' || op.lease === 0) continue;
      const changed = changes.findLast(({ id }) => id === op.lease);
      const exists =
        changed === undefined ? this.#leases.has(op.lease) : changed.ttlMs !== undefined;
      if (!exists) return new LeaseNotFoundError(op.lease);
      if (this.#leases.countOf(op.lease) >= MAX_LEASE_KEYS)
        return new StoreWriteError(`No more than ${MAX_LEASE_KEYS} keys can hang on one lease`);
    }
    return undefined;
  }

  #apply(
    records: readonly WatchBatch[],
    compaction: Compaction | undefined,
    leases: readonly LeaseChange[],
  ): void {
    this.#state.apply(records);
    for (const { id, ttlMs } of leases)
      if (ttlMs === undefined) this.#leases.remove(id);
      else this.#leases.grant(id, ttlMs);
    this.#leases.take(records);
    // After the answers: who wrote waits, and the work of those who watch is of another size.
    this.#watches.notifySoon(records);
    if (compaction === undefined) return;
    // What is forgotten must have been told before.
    this.#watches.notify();
    this.#state.compact(compaction);
  }

  /** Where to compact to so that history stays bounded; the compact revision itself if there is too little to forget. */
  #historyTarget(): number {
    const current = this.#state.compactRevision;
    const target = this.#state.compactionTarget(this.#historyRevisions, MAX_HISTORY_BYTES);
    const over = this.#state.historyBytes > MAX_HISTORY_BYTES;
    return over || target - current >= COMPACTION_STEP_REVISIONS ? target : current;
  }
}
