/**
 * How a store keeps its entries in memory.
 *
 * A value is kept as a text of one byte a character, not as a `Uint8Array`: a buffer of its own takes some 300 bytes
 * beside its content and lies outside the JavaScript heap, where long-lived small pieces between short-lived large ones
 * leave holes that are never given back. A text takes 24, and the garbage collector moves it together. Nearly all values
 * are JSON in ASCII, of which the text is the value already.
 */
import { isAscii } from 'node:buffer';
import type { StoreEntry, WriteOp } from './port.ts';

/** A value that nobody else can change. */
export interface HeldValue {
  /** One character for each byte. */
  readonly bytes: string;
  readonly isAscii: boolean;
}

/** Copies a value. */
export function holdValue(value: Uint8Array): HeldValue {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return { bytes: bytes.toString('latin1'), isAscii: isAscii(bytes) };
}

/** A write whose value is the store's own. */
export type HeldOp =
  | {
      readonly type: 'put';
      readonly key: string;
      readonly value: HeldValue;
      /** 0 is none. */
      readonly lease: number;
    }
  | { readonly type: 'delete'; readonly key: string };

/** A copy: the caller keeps its buffer. */
export function holdOp(op: WriteOp): HeldOp {
  if (op.type === 'delete') return op;
  return { type: 'put', key: op.key, value: holdValue(op.value), lease: op.lease ?? 0 };
}

class HeldEntry implements StoreEntry, HeldValue {
  readonly key: string;
  readonly bytes: string;
  readonly isAscii: boolean;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly lease: number;

  constructor(key: string, value: HeldValue, revisions: EntryRevisions) {
    this.key = key;
    this.bytes = value.bytes;
    this.isAscii = value.isAscii;
    this.createRevision = revisions.createRevision;
    this.modRevision = revisions.modRevision;
    this.lease = revisions.lease ?? 0;
  }

  /** Made anew for each reader. */
  get value(): Uint8Array {
    return Buffer.from(this.bytes, 'latin1');
  }
}

type EntryRevisions = Pick<StoreEntry, 'createRevision' | 'modRevision'> & {
  readonly lease?: number;
};

export function holdEntry(key: string, value: HeldValue, revisions: EntryRevisions): StoreEntry {
  return new HeldEntry(key, value, revisions);
}

/** @returns the lease that the entry was written with; 0 is none */
export function leaseOf(entry: StoreEntry): number {
  return entry instanceof HeldEntry ? entry.lease : 0;
}

/** @returns bytes of the entry's value */
export function valueLength(entry: StoreEntry): number {
  return entry instanceof HeldEntry ? entry.bytes.length : entry.value.length;
}

/** @returns the entry's value as text, which it must be, in UTF-8 */
export function valueText(entry: StoreEntry): string {
  if (entry instanceof HeldEntry && entry.isAscii) return entry.bytes;
  const { value } = entry;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8');
}
