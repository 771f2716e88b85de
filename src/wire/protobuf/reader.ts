/**
 * The protobuf wire format (https://protobuf.dev/programming-guides/encoding/): a message is a row of fields, each a
 * varint `number << 3 | wire type` and then
 *
 *     0 VARINT   7 bits a byte, lowest first, the top bit says that another byte follows
 *     1 I64      8 bytes
 *     2 LEN      a varint length and so many bytes: text, bytes, another message
 *     5 I32      4 bytes
 *
 * Groups (3, 4) have not been written for twenty years and are refused.
 */
import { DecodeError } from '#lib/errors.ts';

export const WIRE_VARINT = 0;
export const WIRE_I64 = 1;
export const WIRE_LEN = 2;
export const WIRE_I32 = 5;
export type WireType = typeof WIRE_VARINT | typeof WIRE_I64 | typeof WIRE_LEN | typeof WIRE_I32;

/** 64 bits in groups of 7. */
const MAX_VARINT_BYTES = 10;
/** 49 bits, of the 53 of a number. */
const EXACT_VARINT_BYTES = 7;
/** The format's own: 29 bits. */
const MAX_FIELD_NUMBER = 536_870_911;

const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** One field as it stands in the bytes. */
export type WireField =
  | { readonly number: number; readonly wire: 0 | 1 | 5; readonly value: bigint }
  | { readonly number: number; readonly wire: 2; readonly value: Uint8Array };

/**
 * Goes through the fields of a message, in their order.
 * @throws DecodeError where the bytes end too early or are no message
 */
export function* readFields(bytes: Uint8Array): Generator<WireField> {
  let at = 0;
  const varint = (): bigint => {
    // Numbers are many times faster than bigints, and hold exactly what most varints are: seven bytes.
    let low = 0;
    let high = 0n;
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = bytes[at];
      if (byte === undefined) throw broken('varint', at, 'the bytes end inside it');
      at++;
      if (i < EXACT_VARINT_BYTES) low += (byte & 0x7f) * 2 ** (7 * i);
      else high |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) return high === 0n ? BigInt(low) : BigInt.asUintN(64, high | BigInt(low));
    }
    throw broken('varint', at, `it is longer than ${MAX_VARINT_BYTES} bytes`);
  };
  const take = (length: number, what: string): Uint8Array => {
    if (length > bytes.length - at)
      throw broken(what, at, `${length} bytes are announced, ${bytes.length - at} are left`);
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const start = at;
    const tag = varint();
    // A tag that is more than a number holds exactly is more than a field's number, too.
    const number = Math.floor(Number(tag) / 8);
    if (number === 0 || number > MAX_FIELD_NUMBER) throw broken('tag', start, 'no field number');
    const wire = Number(tag & 7n);
    if (wire === WIRE_VARINT) yield { number, wire, value: varint() };
    else if (wire === WIRE_LEN) {
      const length = varint();
      if (length > BigInt(bytes.length)) throw broken('length', start, `${length} is too much`);
      yield { number, wire, value: take(Number(length), `field ${number}`) };
    } else if (wire === WIRE_I64 || wire === WIRE_I32)
      yield { number, wire, value: littleEndian(take(wire === WIRE_I64 ? 8 : 4, 'number')) };
    else throw broken('tag', start, `wire type ${wire} is not understood`);
  }
}

/** @throws DecodeError if it is not UTF-8 */
export function readText(bytes: Uint8Array, field: string): string {
  try {
    return text.decode(bytes);
  } catch (cause) {
    throw new DecodeError('the text is not UTF-8', { protocol: 'protobuf', field, cause });
  }
}

function littleEndian(bytes: Uint8Array): bigint {
  let value = 0n;
  for (const [i, byte] of bytes.entries()) value |= BigInt(byte) << BigInt(8 * i);
  return value;
}

function broken(field: string, offset: number, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'protobuf', field, offset });
}
