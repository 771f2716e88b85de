/** Reads netlink messages and attributes; the layout is drawn in `writer.ts`. Views, never copies. */
import { DecodeError } from '#lib/errors.ts';
import {
  NLA_HEADER_BYTES,
  NLA_TYPE_MASK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLMSG_HEADER_BYTES,
  NLMSGERR_ATTR_MSG,
} from './constants.ts';

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Everything after the 16-byte header. */
  readonly payload: Buffer;
}

/** Attributes by type. Where a type occurs twice the last one counts; see {@link readAttributeList} for lists. */
export type Attributes = ReadonlyMap<number, Buffer>;

/** @throws DecodeError if a length lies outside the bytes */
export function readMessages(bytes: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < NLMSG_HEADER_BYTES) throw truncated('message header', at);
    const length = bytes.readUInt32LE(at);
    if (length < NLMSG_HEADER_BYTES || at + length > bytes.length)
      throw truncated('message length', at);
    messages.push({
      type: bytes.readUInt16LE(at + 4),
      flags: bytes.readUInt16LE(at + 6),
      sequence: bytes.readUInt32LE(at + 8),
      payload: bytes.subarray(at + NLMSG_HEADER_BYTES, at + length),
    });
    at += (length + 3) & ~3;
  }
  return messages;
}

/** @param from offset of the first attribute, after the family's fixed header */
export function readAttributes(bytes: Buffer, from = 0): Attributes {
  const attributes = new Map<number, Buffer>();
  forEachAttribute(bytes, from, (type, value) => attributes.set(type, value));
  return attributes;
}

/** Like {@link readAttributes}, in order and with repetitions: for lists of nested elements. */
export function readAttributeList(bytes: Buffer, from = 0): { type: number; value: Buffer }[] {
  const list: { type: number; value: Buffer }[] = [];
  forEachAttribute(bytes, from, (type, value) => list.push({ type, value }));
  return list;
}

function forEachAttribute(
  bytes: Buffer,
  from: number,
  take: (type: number, value: Buffer) => void,
): void {
  for (let at = from; at + NLA_HEADER_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < NLA_HEADER_BYTES || at + length > bytes.length)
      throw truncated('attribute length', at);
    take(
      bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK,
      bytes.subarray(at + NLA_HEADER_BYTES, at + length),
    );
    at += (length + 3) & ~3;
  }
}

/** A string attribute, with or without its terminating zero byte. */
export function readString(value: Buffer): string {
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}

/**
 * Reads an `NLMSG_ERROR` message: an acknowledgement when `errno` is 0.
 * @returns errno as a positive number and the kernel's text, if it sent one
 */
export function readAcknowledgement(message: NetlinkMessage): {
  errno: number;
  extack: string | undefined;
} {
  const { payload, flags } = message;
  if (payload.length < 4 + NLMSG_HEADER_BYTES) throw truncated('acknowledgement', 0);
  // 0 minus, because the negative of 0 is -0, which compares unequal in strict comparisons.
  const errno = 0 - payload.readInt32LE(0);
  if ((flags & NLM_F_ACK_TLVS) === 0) return { errno, extack: undefined };
  const echoed =
    (flags & NLM_F_CAPPED) !== 0 ? NLMSG_HEADER_BYTES : (payload.readUInt32LE(4) + 3) & ~3;
  if (4 + echoed > payload.length) throw truncated('acknowledgement', 4);
  const text = readAttributes(payload, 4 + echoed).get(NLMSGERR_ATTR_MSG);
  return { errno, extack: text === undefined ? undefined : readString(text) };
}

function truncated(field: string, offset: number): DecodeError {
  return new DecodeError('the length does not fit the bytes', {
    protocol: 'netlink',
    field,
    offset,
  });
}
