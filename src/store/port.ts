/**
 * The store: an ordered key-value map with one global revision, guarded transactions and watches.
 *
 * The model is etcd's, because Kubernetes' semantics are made of it:
 * - every successful writing transaction raises the revision by one, and all its changes carry that revision;
 * - a watch delivers every change from a revision on, in order, all changes of one revision together, without gap or duplicate;
 * - reads are of the newest revision or of any that has not been compacted;
 * - a write that was acknowledged is durable.
 *
 * Keys are non-empty, well-formed strings without NUL, compared by code unit; values are bytes. Prefer keys of ASCII: there
 * the order is the same for every implementation (etcd compares UTF-8 bytes).
 *
 * The limits below are etcd's defaults, so that what works on one implementation works on all.
 */

/** Compares, and operations, of one transaction. etcd: `--max-txn-ops`. */
export const MAX_TRANSACTION_OPERATIONS = 128;
/** Sum of the keys' and values' bytes of one transaction. etcd: `--max-request-bytes`. */
export const MAX_TRANSACTION_BYTES = 1.5 * 1024 * 1024;

/** Of a lease. What lives longer needs no lease, and a timer takes no more than 24 days. */
export const MAX_LEASE_TTL_MS = 7 * 24 * 3600 * 1000;
/** Leases at a time: each has a timer. Whoever has much to expire puts many keys on one. */
export const MAX_LEASES = 10_000;
/**
 * Keys of one lease: they are deleted in one revision, which the embedded store's format bounds at twice as many. etcd does
 * not count them, the others refuse more (`StoreWriteError`).
 */
export const MAX_LEASE_KEYS = 2_000;

export interface StoreLease {
  readonly id: number;
  /** How long it lasts without being kept alive: what was asked for, or more. */
  readonly ttlMs: number;
}

export interface StoreEntry {
  readonly key: string;
  /** Shared with the store and all readers: never change it. */
  readonly value: Uint8Array;
  /** Revision of the transaction that made the key. */
  readonly createRevision: number;
  /** Revision of the last transaction that wrote it. */
  readonly modRevision: number;
}

/** Holds if the key's `modRevision` is this; 0 means that the key must not exist. */
export interface Compare {
  readonly key: string;
  readonly modRevision: number;
}

export type WriteOp =
  | {
      readonly type: 'put';
      readonly key: string;
      readonly value: Uint8Array;
      /** The lease that the key hangs on from now on; missing: on none. */
      readonly lease?: number;
    }
  | { readonly type: 'delete'; readonly key: string };

export type TransactionResult =
  | { readonly succeeded: true; readonly revision: number }
  /** `conflicts` holds the current entry (or undefined) of each compared key, in the order of the compares. */
  | {
      readonly succeeded: false;
      readonly revision: number;
      readonly conflicts: readonly (StoreEntry | undefined)[];
    };

export interface ListResult {
  readonly entries: readonly StoreEntry[];
  /** The revision the result is a snapshot of. */
  readonly revision: number;
  /** True if `limit` cut the list. */
  readonly more: boolean;
  /** How many entries lie behind the cut. */
  readonly remaining: number;
}

export type StoreEvent =
  | { readonly type: 'put'; readonly entry: StoreEntry; readonly previous: StoreEntry | undefined }
  /** `previous` is what was deleted. */
  | { readonly type: 'delete'; readonly key: string; readonly previous: StoreEntry };

/** All changes under the watched prefix that one revision made, or none: then it says only how far the watch has come. */
export interface WatchBatch {
  readonly revision: number;
  readonly events: readonly StoreEvent[];
}

/**
 * Reads of the newest state are linearizable: they see every write that was acknowledged, by whichever process, before
 * they were called. A store that is shared by several processes may show a write a moment before the call that made it
 * returns. All calls of a store that is elsewhere throw {@link StoreUnavailableError} when it cannot be reached.
 */
export interface StoreReader {
  /**
   * The entry, as it is or as it was at a revision.
   * @returns `undefined` if there is (or was) none
   * @throws CompactedError if `atRevision` is compacted; FutureRevisionError if it has not happened yet
   */
  get(key: string, atRevision?: number): Promise<StoreEntry | undefined>;
  /**
   * Entries whose key starts with `prefix` (all for an empty one), in key order.
   * To page, ask for the first result's `revision` again with `startAfter` the last key seen.
   * @param options.limit most entries returned; 0 or missing is no limit
   * @throws CompactedError if `revision` is compacted; FutureRevisionError if it has not happened yet
   */
  list(
    prefix: string,
    options?: { revision?: number; limit?: number; startAfter?: string },
  ): Promise<ListResult>;
}

export interface Store extends StoreReader, AsyncDisposable {
  /**
   * The same reads of what this process knows without asking anybody: all that it wrote itself, but what others wrote may
   * be missing for a moment. For a transaction that compares what was read, and is planned again on the newest state if
   * it cannot be planned on this. The store itself, if nobody else writes to it.
   */
  readonly known: StoreReader;
  /** The newest revision; 0 is an empty, never written store. */
  revision(): Promise<number>;
  /**
   * If all compares hold, applies all operations as one revision. Resolves when the change is durable; until then no
   * read and no watch sees it. A key may occur once among the operations. Deleting a missing key changes nothing, and a
   * transaction that changes nothing does not raise the revision. Values are copied.
   * Transactions that name a common key are evaluated in the order of the calls.
   * @throws StoreWriteError if it could not be made durable; it then has not happened for any reader (after a crash at
   *   that very moment it may turn up, as with any database), unless the error `isUncertain`; TransactionTooLargeError;
   *   TypeError for an empty or ill-formed key, or one that occurs twice; LeaseNotFoundError, and nothing is written
   */
  transact(
    compares: readonly Compare[],
    operations: readonly WriteOp[],
  ): Promise<TransactionResult>;
  /**
   * Makes a lease: when nobody has kept it alive for its time, it goes, and all keys that hang on it are deleted in one
   * revision, soon after. That a lease is there is as durable as a write; its time begins anew when a store of a single
   * process is opened, and not before.
   * @param ttlMs above 0, up to {@link MAX_LEASE_TTL_MS}
   * @throws TypeError; StoreWriteError
   */
  grantLease(ttlMs: number): Promise<StoreLease>;
  /** Begins its time anew. @returns false if it is gone, or never was */
  keepLeaseAlive(id: number): Promise<boolean>;
  /** Ends it now, with its keys. One that is gone changes nothing. @throws StoreWriteError */
  revokeLease(id: number): Promise<void>;
  /**
   * Changes under `prefix` with a revision greater than `afterRevision`, until `signal` is aborted or the store closed;
   * then it ends normally. Errors come out of the iteration.
   * The consumer pulls; an implementation bounds what it keeps for it and ends a consumer that lags with `LaggedError`.
   * @param options.progressMs after this time without a change, an empty batch says how far the watch has come;
   *   missing is never
   * @throws CompactedError if `afterRevision` + 1 is compacted when the watch starts; LaggedError if it becomes so later;
   *   FutureRevisionError if `afterRevision` has not happened (the store was restored from a copy)
   */
  watch(
    prefix: string,
    afterRevision: number,
    options: { signal: AbortSignal; progressMs?: number },
  ): AsyncIterable<WatchBatch>;
  /**
   * Forgets history before `revision`, and how the state came to be what it is at `revision`. That state and what came
   * after stay readable, and a watch may start after `revision`. One that is compacted already changes nothing.
   * @throws FutureRevisionError; StoreWriteError
   */
  compact(revision: number): Promise<void>;
}

/** The wanted revision is older than the history that is kept. */
export class CompactedError extends Error {
  readonly code = 'COMPACTED' as const;
  readonly compactRevision: number;
  constructor(wanted: number, compactRevision: number) {
    super(`Revision ${wanted} is compacted: history starts after ${compactRevision}`);
    this.name = 'CompactedError';
    this.compactRevision = compactRevision;
  }
}

/** The wanted revision has not happened. */
export class FutureRevisionError extends Error {
  readonly code = 'FUTURE_REVISION' as const;
  readonly currentRevision: number;
  constructor(wanted: number, currentRevision: number) {
    super(`Revision ${wanted} has not happened: the newest is ${currentRevision}`);
    this.name = 'FutureRevisionError';
    this.currentRevision = currentRevision;
  }
}

/**
 * A watcher did not take its events in time and was cut off. It may start again from the last revision it saw, and
 * must list again if that is compacted (`CompactedError`).
 */
export class LaggedError extends Error {
  readonly code = 'LAGGED' as const;
  /** How far the watcher had come. */
  readonly seenRevision: number;
  constructor(seenRevision: number, currentRevision: number) {
    super(
      `The watcher was too slow: it has come to revision ${seenRevision} of ${currentRevision}, and what follows is forgotten`,
    );
    this.name = 'LaggedError';
    this.seenRevision = seenRevision;
  }
}

/** The transaction exceeds {@link MAX_TRANSACTION_OPERATIONS} or {@link MAX_TRANSACTION_BYTES}. */
export class TransactionTooLargeError extends Error {
  readonly code = 'TRANSACTION_TOO_LARGE' as const;
  constructor(message: string) {
    super(message);
    this.name = 'TransactionTooLargeError';
  }
}

/** A key was to hang on a lease that is gone, or never was. */
export class LeaseNotFoundError extends Error {
  readonly code = 'LEASE_NOT_FOUND' as const;
  constructor(id: number, options?: { cause?: unknown }) {
    super(`There is no lease ${id}: it has expired, or was revoked`, options);
    this.name = 'LeaseNotFoundError';
  }
}

/** The store cannot take writes (disk full, read only); reads go on. */
export class StoreWriteError extends Error {
  readonly code = 'STORE_WRITE' as const;
  /** The answer of a store elsewhere was lost: the write may have happened, or happen yet. Read before trying again. */
  readonly isUncertain: boolean;
  /** There is no space left: it works again when there is. */
  readonly isOutOfSpace: boolean;
  constructor(
    message: string,
    options: { cause?: unknown; isUncertain?: boolean; isOutOfSpace?: boolean } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = 'StoreWriteError';
    this.isUncertain = options.isUncertain ?? false;
    this.isOutOfSpace = options.isOutOfSpace ?? false;
  }
}

/** A store that is elsewhere cannot be reached, so that nobody here knows its newest state. */
export class StoreUnavailableError extends Error {
  readonly code = 'STORE_UNAVAILABLE' as const;
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'StoreUnavailableError';
  }
}
