/**
 * Reads of a query only what an answer needs, into one object that is used again for every query: the path that each
 * packet takes allocates nothing.
 */
import {
  EDNS_DO,
  FLAG_QR,
  HEADER_BYTES,
  MAX_LABEL_BYTES,
  MAX_NAME_BYTES,
  MIN_UDP_PAYLOAD_BYTES,
  OPCODE_MASK,
  OPCODE_NOTIFY,
  OPCODE_SHIFT,
  OPCODE_UPDATE,
  OPT_BYTES,
  OPTION_COOKIE,
  RCODE_FORMERR,
  RCODE_NOTIMP,
  RCODE_REFUSED,
  TYPE_OPT,
  UDP_PAYLOAD_BYTES,
} from '#wire/dns/constants.ts';
import { skipName } from '#wire/dns/name.ts';

export interface Query {
  flags: number;
  /** Offset after the question's name. The name starts after the header and is not compressed. */
  nameEnd: number;
  /** {@link hashName} of the name. */
  hash: number;
  type: number;
  class: number;
  /** Whether there is an OPT record; the four fields below are meaningful only then. */
  hasEdns: boolean;
  ednsVersion: number;
  udpPayloadBytes: number;
  dnssecOk: boolean;
  /** Where the client's cookie stands, with our part if it has one, and its octets; 0 if there is none. */
  cookieAt: number;
  cookieBytes: number;
  /** Whether the answer carries {@link cookie}. */
  answersCookie: boolean;
  readonly cookie: Uint8Array;
}

export function newQuery(): Query {
  return {
    flags: 0,
    nameEnd: 0,
    hash: 0,
    type: 0,
    class: 0,
    hasEdns: false,
    ednsVersion: 0,
    udpPayloadBytes: 0,
    dnssecOk: false,
    cookieAt: 0,
    cookieBytes: 0,
    answersCookie: false,
    cookie: new Uint8Array(WHOLE_COOKIE_BYTES),
  };
}

/** RFC 9018: the client's eight octets and the server's sixteen. */
export const WHOLE_COOKIE_BYTES = 24;
/** RFC 7873 section 4: a server's part has 8 to 32 octets. */
const CLIENT_COOKIE_BYTES = 8;
const MIN_WHOLE_COOKIE_BYTES = 16;
const MAX_WHOLE_COOKIE_BYTES = 40;

/** Nothing may be answered: no query at all, or one whose answer could start a loop. */
export const NOT_A_QUERY = -1;

/**
 * @param bytes holds the message in its first `length` bytes
 * @param seed of the hash
 * @param into gets the result; after an rcode other than 0 its fields but `flags` and `nameEnd` mean nothing, and
 *   `nameEnd` is 0 if there is no question to repeat
 * @returns 0, an rcode to answer with, or {@link NOT_A_QUERY}
 */
export function readQuery(bytes: Uint8Array, length: number, seed: number, into: Query): number {
  into.nameEnd = 0;
  into.hasEdns = false;
  into.cookieBytes = 0;
  into.answersCookie = false;
  if (length < HEADER_BYTES) return NOT_A_QUERY;
  into.flags = u16(bytes, 2);
  if ((into.flags & FLAG_QR) !== 0) return NOT_A_QUERY;
  const opcode = (into.flags & OPCODE_MASK) >> OPCODE_SHIFT;
  // There is no master here to notify or to update; other opcodes nobody knows any more.
  if (opcode === OPCODE_NOTIFY || opcode === OPCODE_UPDATE) return RCODE_REFUSED;
  if (opcode !== 0) return RCODE_NOTIMP;
  if (u16(bytes, 4) !== 1) return RCODE_FORMERR;
  if (!readQuestion(bytes, length, seed, into)) return RCODE_FORMERR;
  if (length === into.nameEnd + 4 && u16(bytes, 6) === 0 && u32(bytes, 8) === 0) return 0;
  return readRecords(bytes, length, into);
}

/** The largest answer the client takes. */
export function replyLimit(query: Query, transport: 'udp' | 'tcp'): number {
  if (transport === 'tcp') return 0xffff;
  if (!query.hasEdns) return MIN_UDP_PAYLOAD_BYTES;
  return Math.min(UDP_PAYLOAD_BYTES, Math.max(MIN_UDP_PAYLOAD_BYTES, query.udpPayloadBytes));
}

/** FNV-1a over an uncompressed name in lower case, in 30 bits, which are a small integer for the engine. */
export function hashName(bytes: Uint8Array, start: number, end: number, seed: number): number {
  return finishHash(addToHash(seed, bytes, start, end));
}

/** The part of {@link hashName} that can be continued: a name's hash begins with that of its first labels. */
export function addToHash(hash: number, bytes: Uint8Array, start: number, end: number): number {
  let added = hash;
  for (let i = start; i < end; i++)
    added = Math.imul(added ^ lowerOctet(bytes[i] ?? 0), 0x01000193);
  return added;
}

export function finishHash(hash: number): number {
  return (hash ^ (hash >>> 15)) & 0x3fffffff;
}

/** Lengths of labels are below the letters, so a whole name can be lowered octet by octet. */
export function lowerOctet(octet: number): number {
  return octet >= 0x41 && octet <= 0x5a ? octet + 0x20 : octet;
}

function readQuestion(bytes: Uint8Array, length: number, seed: number, into: Query): boolean {
  let at = HEADER_BYTES;
  for (;;) {
    const octet = bytes[at] ?? 0;
    // A pointer has nothing to point to in front of the first name.
    if (octet > MAX_LABEL_BYTES) return false;
    at += octet + 1;
    if (at + 4 > length || at - HEADER_BYTES > MAX_NAME_BYTES) return false;
    if (octet === 0) break;
  }
  into.nameEnd = at;
  into.hash = hashName(bytes, HEADER_BYTES, at, seed);
  into.type = u16(bytes, at);
  into.class = u16(bytes, at + 2);
  return true;
}

/** Looks for the OPT record among the records of a query. Whatever else stands there is read over. */
function readRecords(bytes: Uint8Array, length: number, into: Query): number {
  let at = into.nameEnd + 4;
  const count = u16(bytes, 6) + u16(bytes, 8) + u16(bytes, 10);
  for (let i = 0; i < count; i++) {
    const isRoot = bytes[at] === 0;
    const typeAt = isRoot ? at + 1 : nameEndOrFail(bytes, at);
    if (typeAt < 0 || typeAt + OPT_BYTES - 1 > length) return RCODE_FORMERR;
    at = typeAt + 10 + u16(bytes, typeAt + 8);
    if (at > length) return RCODE_FORMERR;
    if (u16(bytes, typeAt) !== TYPE_OPT) continue;
    if (!isRoot || into.hasEdns) return RCODE_FORMERR;
    into.hasEdns = true;
    into.udpPayloadBytes = u16(bytes, typeAt + 2);
    into.ednsVersion = bytes[typeAt + 5] ?? 0;
    into.dnssecOk = (u16(bytes, typeAt + 6) & EDNS_DO) !== 0;
    if (!readOptions(bytes, typeAt + 10, at, into)) return RCODE_FORMERR;
  }
  return at === length ? 0 : RCODE_FORMERR;
}

/** Looks for the first cookie among the options of an OPT record. @returns whether they are well formed */
function readOptions(bytes: Uint8Array, start: number, end: number, into: Query): boolean {
  for (let at = start; at < end; ) {
    if (at + 4 > end) return false;
    const length = u16(bytes, at + 2);
    if (at + 4 + length > end) return false;
    if (u16(bytes, at) === OPTION_COOKIE && into.cookieBytes === 0) {
      const isWhole = length >= MIN_WHOLE_COOKIE_BYTES && length <= MAX_WHOLE_COOKIE_BYTES;
      if (length !== CLIENT_COOKIE_BYTES && !isWhole) return false;
      into.cookieAt = at + 4;
      into.cookieBytes = length;
    }
    at += 4 + length;
  }
  return true;
}

function nameEndOrFail(bytes: Uint8Array, at: number): number {
  try {
    return skipName(bytes, at);
  } catch {
    return -1; // a DecodeError; the caller answers FORMERR
  }
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x10000 + u16(bytes, at + 2);
}
