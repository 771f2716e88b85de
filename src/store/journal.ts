/**
 * Where a store keeps its history: what {@link JournaledStore} needs of a disk.
 *
 * A journal is written in batches, one at a time, and read once, when the store is opened.
 */
import type { StoreLease, WatchBatch } from './port.ts';

/** A version of a key. Deletions are versions too, for the watches that have yet to see them. */
export interface JournalRow {
  readonly revision: number;
  readonly key: string;
  /** Revision that made the key; 0 in a deletion. */
  readonly createRevision: number;
  /** `undefined` is a deletion. */
  readonly value: Uint8Array | undefined;
  /** That it hangs on; 0 or missing: none. */
  readonly lease?: number;
}

/** A lease that came, or (`undefined`) went. */
export interface LeaseChange {
  readonly id: number;
  readonly ttlMs: number | undefined;
}

/** What was read when the journal was opened. */
export interface JournalSnapshot {
  readonly compactRevision: number;
  /** In order of revision. Those up to the compact revision are the state there; none of them is a deletion. */
  readonly rows: Iterable<JournalRow>;
  readonly leases?: readonly StoreLease[];
}

/** Forgets history: the compact revision moves to `revision`, and these versions go, each superseded by then. */
export interface Compaction {
  readonly revision: number;
  readonly dropped: readonly DroppedVersion[];
}
export interface DroppedVersion {
  readonly revision: number;
  readonly key: string;
}

export interface JournalBatch {
  /** Consecutive revisions, each with its changes. May be empty. */
  readonly records: readonly WatchBatch[];
  readonly compaction: Compaction | undefined;
  readonly leases: readonly LeaseChange[];
}

export interface Journal extends AsyncDisposable {
  /**
   * Makes the batch durable, all of it or nothing. Not called again before it has settled.
   * @throws StoreWriteError; a later batch may succeed again
   */
  commit(batch: JournalBatch): Promise<void>;
}
