/**
 * Writes messages in the protobuf wire format, see `reader.ts`: each function gives a field as pieces of bytes, which are
 * put together once, at the end. As in protobuf 3, a number that is zero is left out.
 */
import { WIRE_LEN, WIRE_VARINT } from './reader.ts';

export type Pieces = readonly Uint8Array[];

const NOTHING: Pieces = [];

/** @param value a whole number from 0 to 2^53 - 1 */
export function numberField(number: number, value: number): Pieces {
  if (value === 0) return NOTHING;
  const bytes: number[] = [];
  pushVarint(bytes, number * 8 + WIRE_VARINT);
  pushVarint(bytes, value);
  return [Uint8Array.from(bytes)];
}

export function boolField(number: number, value: boolean): Pieces {
  return numberField(number, value ? 1 : 0);
}

/** Bytes, or text in UTF-8. An empty one is written: in a `oneof` it says which one it is. */
export function bytesField(number: number, value: Uint8Array | string): Pieces {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : value;
  return [lengthHeader(number, bytes.length), bytes];
}

export function messageField(number: number, ...fields: readonly Pieces[]): Pieces {
  const pieces = fields.flat();
  return [lengthHeader(number, lengthOf(pieces)), ...pieces];
}

/** @returns bytes of the pieces together */
export function lengthOf(pieces: Pieces): number {
  let length = 0;
  for (const piece of pieces) length += piece.length;
  return length;
}

function lengthHeader(number: number, length: number): Uint8Array {
  const bytes: number[] = [];
  pushVarint(bytes, number * 8 + WIRE_LEN);
  pushVarint(bytes, length);
  return Uint8Array.from(bytes);
}

function pushVarint(bytes: number[], value: number): void {
  let rest = value;
  while (rest > 0x7f) {
    bytes.push((rest % 128) | 0x80);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
}
