/**
 * The store: an ordered key-value map with one global revision, guarded transactions and watches.
 *
 * The model is etcd's, because Kubernetes' semantics are made of it:
 * - every successful writing transaction raises the revision by one, and all its changes carry that revision;
 * - a watch delivers every change from a revision on, in order, all changes of one revision together, without gap or duplicate;
 * - reads are of the newest revision or of any that has not been compacted;
 * - a write that was acknowledged is durable.
 *
 * Keys are non-empty UTF-8 strings compared by code unit; values are bytes.
 */

export interface StoreEntry {
  readonly key: string;
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
  | { readonly type: 'put'; readonly key: string; readonly value: Uint8Array }
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

export interface Store extends AsyncDisposable {
  /** The newest revision; 0 is an empty, never written store. */
  revision(): Promise<number>;
  /** @param atRevision @throws CompactedError */
  get(key: string, atRevision?: number): Promise<StoreEntry | undefined>;
  /**
   * Entries whose key starts with `prefix`, in key order.
   * @throws CompactedError if `revision` is compacted; FutureRevisionError if it has not happened yet
   */
  list(
    prefix: string,
    options?: { revision?: number; limit?: number; startAfter?: string },
  ): Promise<ListResult>;
  /**
   * If all compares hold, applies all operations as one revision. Resolves when the change is durable.
   * A key may occur once among the operations. Deleting a missing key changes nothing.
   */
  transact(
    compares: readonly Compare[],
    operations: readonly WriteOp[],
  ): Promise<TransactionResult>;
  /**
   * Changes under `prefix` with a revision greater than `afterRevision`, for ever.
   * The consumer pulls; an implementation bounds what it queues and ends a consumer that lags with `LaggedError`.
   * @throws CompactedError if `afterRevision` + 1 is compacted already (also when it becomes so while lagging)
   */
  watch(
    prefix: string,
    afterRevision: number,
    options: { signal: AbortSignal; progressMs?: number },
  ): AsyncIterable<WatchBatch>;
  /** Forgets history up to and including `revision`; the newest state stays. */
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

/** A watcher did not take its events in time and was cut off; it may start again from the last revision it saw. */
export class LaggedError extends Error {
  readonly code = 'LAGGED' as const;
  constructor(queued: number) {
    super(`The watcher lags: ${queued} events queued`);
    this.name = 'LaggedError';
  }
}

/** The store cannot take writes (disk full, read only); reads go on. */
export class StoreWriteError extends Error {
  readonly code = 'STORE_WRITE' as const;
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'StoreWriteError';
  }
}
