/**
 * What the store and its writer thread say to each other.
 *
 *     thread ─► rows* · opened     or     refused
 *     store  ─► commit     thread ─► committed or failed          one at a time
 *     store  ─► close      thread closes the database and ends
 *
 * Rows go packed: one buffer for all values, moved and not copied, because a message with thousands of small
 * buffers costs more than writing them.
 *
 * The thread sleeps on a shared word and not in an event loop, which takes longer to wake: the word counts the messages
 * that the store has posted, and the thread takes as many.
 */
import type { DroppedVersion, JournalRow, LeaseChange } from '../journal.ts';
import type { StoreLease } from '../port.ts';

export interface WriterOptions {
  readonly path: string;
  /** Messages posted so far: one 32-bit word, shared. */
  readonly posted: Int32Array<SharedArrayBuffer>;
}

export type ToWriter =
  | {
      readonly type: 'commit';
      readonly rows: PackedRows;
      readonly compactRevision: number | undefined;
      readonly dropped: readonly DroppedVersion[];
      readonly leases: readonly LeaseChange[];
    }
  | { readonly type: 'close' };

export type FromWriter =
  | { readonly type: 'rows'; readonly rows: PackedRows }
  | {
      readonly type: 'opened';
      readonly compactRevision: number;
      readonly leases: readonly StoreLease[];
    }
  | { readonly type: 'refused'; readonly refusal: Refusal }
  | { readonly type: 'committed' }
  | { readonly type: 'failed'; readonly message: string; readonly isOutOfSpace: boolean };

/** Why a database was not opened. */
export type Refusal =
  | { readonly reason: 'in-use' }
  | { readonly reason: 'newer-format'; readonly found: number; readonly known: number }
  | { readonly reason: 'not-a-store' }
  | { readonly reason: 'damaged'; readonly detail: string }
  | { readonly reason: 'other'; readonly detail: string };

export interface PackedRows {
  readonly revisions: readonly number[];
  readonly keys: readonly string[];
  readonly createRevisions: readonly number[];
  readonly leases: readonly number[];
  /** Bytes of each value; -1 is a deletion. */
  readonly lengths: readonly number[];
  readonly values: Uint8Array<ArrayBuffer>;
}

export function packRows(rows: readonly JournalRow[]): PackedRows {
  const lengths = rows.map((row) => row.value?.length ?? -1);
  const values = new Uint8Array(lengths.reduce((sum, length) => sum + Math.max(0, length), 0));
  let at = 0;
  for (const { value } of rows) {
    if (value === undefined) continue;
    values.set(value, at);
    at += value.length;
  }
  return {
    revisions: rows.map((row) => row.revision),
    keys: rows.map((row) => row.key),
    createRevisions: rows.map((row) => row.createRevision),
    leases: rows.map((row) => row.lease ?? 0),
    lengths,
    values,
  };
}

/** The values are views into the packed buffer. */
export function* unpackRows(packed: PackedRows): Generator<JournalRow, void, undefined> {
  let at = 0;
  for (const [i, key] of packed.keys.entries()) {
    const length = packed.lengths[i] ?? -1;
    const value = length < 0 ? undefined : packed.values.subarray(at, at + length);
    at += Math.max(0, length);
    yield {
      revision: packed.revisions[i] ?? 0,
      key,
      createRevision: packed.createRevisions[i] ?? 0,
      lease: packed.leases[i] ?? 0,
      value,
    };
  }
}
