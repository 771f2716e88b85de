/**
 * User data: what `nft` keeps beside objects for people. The kernel stores it unread.
 *
 * ```text
 *  | type u8 | length u8 | value … |   one after another
 *
 *  table, chain, rule, element   0 comment
 *  set   0 byte order of the key u32        3 typeof of the key { … }     6 data is an interval u32
 *        1 byte order of the data u32       4 typeof of the data { … }    7 comment
 *
 *  typeof          { 0 kind u32, 1 { 0 number u32, 1 number u32, … } }
 *  concatenation   { 0 kind 13, 1 { 0 typeof, 1 typeof, … } }; empty inside if the fields are named by type
 * ```
 * Integers are in host order. The numbers are those of libnftnl's `udata.h` and of nft's `expr_ops.build_udata`.
 */

import { NFT_USERDATA_MAXLEN } from './constants.ts';
import type { KeyField, TypeofEncoding } from './data-types.ts';
import { fieldInfo, TYPEOF_KIND, typeofName } from './data-types.ts';

const COMMENT = 0;
const SET_KEY_BYTE_ORDER = 0;
const SET_DATA_BYTE_ORDER = 1;
const SET_KEY_TYPEOF = 3;
const SET_DATA_TYPEOF = 4;
const SET_DATA_INTERVAL = 6;
const SET_COMMENT = 7;
const TYPEOF_EXPRESSION = 0;
const TYPEOF_DATA = 1;

const BYTE_ORDER = { none: 0, host: 1, network: 2 } as const;
/** nft refuses longer ones. */
const MAX_COMMENT_BYTES = 128;

/**
 * @returns user data with this comment; undefined without one
 * @throws RangeError if it has more than 128 bytes
 */
export function encodeComment(comment: string | undefined): Uint8Array | undefined {
  return comment === undefined ? undefined : commentTlv(COMMENT, comment);
}

/** @returns undefined if there is no comment, or the user data is not nft's */
export function decodeComment(userdata: Uint8Array | undefined): string | undefined {
  const value = userdata === undefined ? undefined : readTlvs(userdata)?.get(COMMENT);
  return value === undefined ? undefined : textOf(value);
}

interface SetUserdata {
  readonly key: readonly KeyField[];
  readonly data?: 'verdict' | readonly KeyField[];
  readonly comment?: string;
}

/** @throws RangeError if it would not fit the 256 bytes that the kernel keeps */
export function encodeSetUserdata(set: SetUserdata): Uint8Array {
  const { key, data, comment } = set;
  const parts = [u32Tlv(SET_KEY_BYTE_ORDER, byteOrderOf(key))];
  if (data !== undefined)
    parts.push(u32Tlv(SET_DATA_BYTE_ORDER, data === 'verdict' ? 0 : byteOrderOf(data)));
  parts.push(...typeofTlv(SET_KEY_TYPEOF, key));
  if (data !== undefined && data !== 'verdict') parts.push(...typeofTlv(SET_DATA_TYPEOF, data));
  if (data !== undefined) parts.push(u32Tlv(SET_DATA_INTERVAL, 0));
  if (comment !== undefined) parts.push(commentTlv(SET_COMMENT, comment));
  const bytes = join(parts);
  if (bytes.length > NFT_USERDATA_MAXLEN)
    throw new RangeError(
      `the types and the comment of a set need ${bytes.length} bytes of user data; ${NFT_USERDATA_MAXLEN} are allowed`,
    );
  return bytes;
}

/** What a dump of a set tells beyond the kernel's own attributes. Fields are undefined where `typeof` was not used. */
export function decodeSetUserdata(userdata: Uint8Array | undefined): {
  comment: string | undefined;
  keyTypeof: KeyField[] | undefined;
  dataTypeof: KeyField[] | undefined;
} {
  const tlvs = userdata === undefined ? undefined : readTlvs(userdata);
  const comment = tlvs?.get(SET_COMMENT);
  return {
    comment: comment === undefined ? undefined : textOf(comment),
    keyTypeof: readTypeof(tlvs?.get(SET_KEY_TYPEOF)),
    dataTypeof: readTypeof(tlvs?.get(SET_DATA_TYPEOF)),
  };
}

function byteOrderOf(fields: readonly KeyField[]): number {
  const [only] = fields;
  if (fields.length !== 1 || only === undefined) return BYTE_ORDER.none;
  return BYTE_ORDER[fieldInfo(only).order];
}

/** Nothing for a single field that is named by its type. */
function typeofTlv(type: number, fields: readonly KeyField[]): Uint8Array[] {
  const expressions = fields.map((field) => fieldInfo(field).typeOf);
  const named = expressions.filter((e) => e !== undefined);
  if (named.length > 0 && named.length < fields.length)
    throw new TypeError(
      `the fields ${fields.map((f) => `"${f}"`).join(', ')} mix types and typeof expressions`,
    );
  const [only] = named;
  if (fields.length === 1) return only === undefined ? [] : [tlv(type, typeofBytes(only))];
  const inside = join(named.map((e, i) => tlv(i, typeofBytes(e))));
  return [
    tlv(type, join([u32Tlv(TYPEOF_EXPRESSION, TYPEOF_KIND.concat), tlv(TYPEOF_DATA, inside)])),
  ];
}

function typeofBytes(expression: TypeofEncoding): Uint8Array {
  const numbers = join(expression.numbers.map((number, i) => u32Tlv(i, number)));
  return join([u32Tlv(TYPEOF_EXPRESSION, expression.kind), tlv(TYPEOF_DATA, numbers)]);
}

function readTypeof(bytes: Uint8Array | undefined): KeyField[] | undefined {
  const outer = bytes === undefined ? undefined : readTlvs(bytes);
  const kind = u32Of(outer?.get(TYPEOF_EXPRESSION));
  const inside = outer?.get(TYPEOF_DATA);
  if (kind === undefined || inside === undefined) return undefined;
  if (kind !== TYPEOF_KIND.concat) {
    const name = readTypeofName(kind, inside);
    return name === undefined ? undefined : [name];
  }
  const fields: KeyField[] = [];
  for (const field of readTlvs(inside)?.values() ?? []) {
    const [name] = readTypeof(field) ?? [];
    if (name === undefined) return undefined;
    fields.push(name);
  }
  return fields.length === 0 ? undefined : fields;
}

function readTypeofName(kind: number, inside: Uint8Array): KeyField | undefined {
  const numbers: number[] = [];
  for (const value of readTlvs(inside)?.values() ?? []) {
    const number = u32Of(value);
    if (number === undefined) return undefined;
    numbers.push(number);
  }
  return typeofName({ kind, numbers });
}

/** @returns undefined if the bytes are no such list: user data of another program is not an error */
function readTlvs(bytes: Uint8Array): Map<number, Uint8Array> | undefined {
  const values = new Map<number, Uint8Array>();
  for (let at = 0; at < bytes.length; ) {
    const length = bytes[at + 1];
    if (length === undefined || at + 2 + length > bytes.length) return undefined;
    values.set(bytes[at] ?? 0, bytes.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return values;
}

function tlv(type: number, value: Uint8Array): Uint8Array {
  return join([Uint8Array.of(type, value.length), value]);
}
function u32Tlv(type: number, value: number): Uint8Array {
  return Uint8Array.of(type, 4, value, value >>> 8, value >>> 16, value >>> 24);
}
function commentTlv(type: number, comment: string): Uint8Array {
  // Every rule has one: the text, its head and its final zero in one piece.
  const bytes = Buffer.from(`\0\0${comment}\0`);
  const length = bytes.length - 2;
  if (length > MAX_COMMENT_BYTES + 1)
    throw new RangeError(`comment "${comment}" has more than ${MAX_COMMENT_BYTES} bytes`);
  bytes[0] = type;
  bytes[1] = length;
  return bytes;
}
function u32Of(value: Uint8Array | undefined): number | undefined {
  if (value?.length !== 4) return undefined;
  return Buffer.from(value).readUInt32LE(0);
}
function textOf(value: Uint8Array): string {
  const end = value.indexOf(0);
  return new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
}
function join(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}
