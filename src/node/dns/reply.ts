/** Writes the parts of a response over a query, in place and without allocation. */
import {
  CLASS_IN,
  FLAG_AA,
  FLAG_CD,
  FLAG_QR,
  FLAG_RA,
  FLAG_RD,
  FLAG_TC,
  HEADER_BYTES,
  OPCODE_MASK,
  OPT_BYTES,
  OPTION_COOKIE,
  RCODE_BADVERS,
  TYPE_CNAME,
  TYPE_OPT,
  TYPE_SOA,
  UDP_PAYLOAD_BYTES,
} from '#wire/dns/constants.ts';
import {
  decodeMessage,
  encodeMessage,
  type Message,
  type ResourceRecord,
} from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { type Query, WHOLE_COOKIE_BYTES } from './query.ts';
import { RECORD_TTL_S, soaOf } from './records.ts';

/** Where the counts of answers, authorities and additional records stand in a header. */
export const ANSWERS_AT = 6;
export const AUTHORITIES_AT = 8;
export const ADDITIONALS_AT = 10;

/**
 * Writes header and question as the client sent them, so that its id and the case of its name come back; the counts of
 * records are 0.
 * @param reply may be the buffer of the query itself
 * @param flags beside QR, RA, the opcode, RD and CD, which follow from the query
 * @returns the length so far
 */
export function writeHead(
  reply: Uint8Array,
  bytes: Uint8Array,
  query: Query,
  flags: number,
): number {
  const end = query.nameEnd === 0 ? HEADER_BYTES : query.nameEnd + 4;
  if (reply !== bytes) for (let i = 0; i < end; i++) reply[i] = bytes[i] ?? 0;
  put16(reply, 2, FLAG_QR | FLAG_RA | (query.flags & (OPCODE_MASK | FLAG_RD | FLAG_CD)) | flags);
  put16(reply, 4, query.nameEnd === 0 ? 0 : 1);
  for (let i = ANSWERS_AT; i < HEADER_BYTES; i++) reply[i] = 0;
  return end;
}

/** A response without records. @returns its length */
export function writeError(
  reply: Uint8Array,
  bytes: Uint8Array,
  query: Query,
  rcode: number,
): number {
  const at = writeHead(reply, bytes, query, rcode & 0xf);
  return writeOpt(reply, at, query, rcode);
}

/**
 * A response that says only "ask over TCP": never larger than the query, so that nobody gains by asking in the name of
 * somebody else.
 */
export function writeTruncated(reply: Uint8Array, bytes: Uint8Array, query: Query): number {
  query.answersCookie = false; // the client gets it over TCP
  return writeOpt(reply, writeHead(reply, bytes, query, FLAG_TC), query);
}

/** Ends a response with our OPT record if the query has one (RFC 6891 section 6.1.1). @returns the length */
export function writeOpt(reply: Uint8Array, at: number, query: Query, rcode = 0): number {
  if (!query.hasEdns) return at;
  reply[at] = 0;
  put16(reply, at + 1, TYPE_OPT);
  put16(reply, at + 3, UDP_PAYLOAD_BYTES);
  reply[at + 5] = rcode >> 4;
  reply[at + 6] = 0;
  put16(reply, at + 7, query.dnssecOk ? 0x8000 : 0);
  const additionals = ((reply[ADDITIONALS_AT] ?? 0) << 8) | (reply[ADDITIONALS_AT + 1] ?? 0);
  put16(reply, ADDITIONALS_AT, additionals + 1);
  if (!query.answersCookie) {
    put16(reply, at + 9, 0);
    return at + OPT_BYTES;
  }
  put16(reply, at + 9, COOKIE_OPTION_BYTES);
  put16(reply, at + 11, OPTION_COOKIE);
  put16(reply, at + 13, WHOLE_COOKIE_BYTES);
  reply.set(query.cookie, at + 15);
  return at + OPT_BYTES + COOKIE_OPTION_BYTES;
}

const COOKIE_OPTION_BYTES = 4 + WHOLE_COOKIE_BYTES;

/** Bytes that {@link writeOpt} will need. */
export function optBytes(query: Query): number {
  if (!query.hasEdns) return 0;
  return query.answersCookie ? OPT_BYTES + COOKIE_OPTION_BYTES : OPT_BYTES;
}

/** The rcode of a finished response without EDNS's upper bits. */
export function rcodeOf(reply: Uint8Array): number {
  return (reply[3] ?? 0) & 0xf;
}

/** What a denial says. */
export interface Denial {
  rcode: number;
  /** Where in the message the zone's name stands: at or inside the question's name. */
  zoneAt: number;
  serial: number;
}

/** "There is no such name", or no such type at it: the zone's SOA says how long that may be remembered (RFC 2308). */
export function writeNegative(
  reply: Uint8Array,
  bytes: Uint8Array,
  query: Query,
  denial: Readonly<Denial>,
): number {
  const at = writeHead(reply, bytes, query, FLAG_AA | denial.rcode);
  const end = writeSoa(reply, at, denial);
  put16(reply, AUTHORITIES_AT, 1);
  return writeOpt(reply, end, query);
}

/** Writes the zone's SOA record at an offset; the counts are left to the caller. @returns the offset after it */
export function writeSoa(
  reply: Uint8Array,
  at: number,
  { zoneAt, serial }: Readonly<Denial>,
): number {
  reply.set(SOA_TEMPLATE, at);
  for (const pointerAt of SOA_POINTERS) put16(reply, at + pointerAt, 0xc000 | zoneAt);
  put32(reply, at + SOA_SERIAL_AT, serial);
  return at + SOA_TEMPLATE.length;
}

/** Bytes of {@link writeSoa}. */
export const soaBytes = (): number => SOA_TEMPLATE.length;

/**
 * Writes `<question> CNAME <target>` behind the question.
 * @param target uncompressed; from `prefixBytes` on it is what stands in the question at `suffixAt`, or the root
 * @returns the offset after it, and where the target's name stands is {@link CNAME_TARGET_OFFSET} after `at`
 */
export function writeAlias(
  reply: Uint8Array,
  at: number,
  target: { bytes: Uint8Array; prefixBytes: number; suffixAt: number },
): number {
  const { bytes, prefixBytes, suffixAt } = target;
  put16(reply, at, 0xc000 | HEADER_BYTES);
  put16(reply, at + 2, TYPE_CNAME);
  put16(reply, at + 4, CLASS_IN);
  put32(reply, at + 6, RECORD_TTL_S);
  let end = at + CNAME_TARGET_OFFSET;
  for (let i = 0; i < prefixBytes; i++) reply[end++] = bytes[i] ?? 0;
  if (suffixAt === 0) reply[end++] = 0;
  else {
    put16(reply, end, 0xc000 | suffixAt);
    end += 2;
  }
  put16(reply, at + 10, end - at - CNAME_TARGET_OFFSET);
  return end;
}

/** Owner (a pointer), type, class, TTL and length stand before a record's data. */
export const CNAME_TARGET_OFFSET = 12;

/** {@link RCODE_BADVERS}: an EDNS version we do not know (RFC 6891 section 6.1.3). */
export function writeBadVersion(reply: Uint8Array, bytes: Uint8Array, query: Query): number {
  return writeError(reply, bytes, query, RCODE_BADVERS);
}

/**
 * Writes a response made of records, with the client's id and question; answers that do not fit are cut.
 * @returns its length
 */
export function writeMessage(
  reply: Uint8Array,
  bytes: Uint8Array,
  query: Query,
  content: {
    limitBytes: number;
    authoritative: boolean;
    rcode: number;
    answers: readonly ResourceRecord[];
    authorities: readonly ResourceRecord[];
  },
): number {
  const asked = decodeMessage(questionOnly(bytes, query));
  const message: Message = {
    ...asked,
    response: true,
    recursionAvailable: true,
    authenticData: false,
    authoritative: content.authoritative,
    rcode: content.rcode,
    answers: content.answers,
    authorities: content.authorities,
  };
  const room = content.limitBytes - optBytes(query);
  let encoded = encodeMessage(message);
  for (let kept = content.answers.length; encoded.length > room; ) {
    kept = Math.max(0, kept - 1);
    const answers = content.answers.slice(0, kept);
    encoded = encodeMessage({ ...message, truncated: true, answers, authorities: [] });
  }
  reply.set(encoded);
  return writeOpt(reply, encoded.length, query, content.rcode);
}

function questionOnly(bytes: Uint8Array, query: Query): Uint8Array {
  const copied = bytes.slice(0, query.nameEnd + 4);
  return copied.fill(0, ANSWERS_AT, HEADER_BYTES);
}

/**
 * Copies octets. A loop does it as fast as the view that `set` needs, which is an object for each query; only what is
 * larger than an answer over UDP is worth one.
 */
export function copy(
  to: Uint8Array,
  at: number,
  from: Uint8Array,
  start: number,
  end: number,
): void {
  if (end - start > UDP_PAYLOAD_BYTES) to.set(from.subarray(start, end), at);
  else for (let i = start; i < end; i++) to[at + i - start] = from[i] ?? 0;
}

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  put16(bytes, at, value >>> 16);
  put16(bytes, at + 2, value & 0xffff);
}

// An SOA record whose three names end in a pointer to the zone's name, which is set when it is used:
//   *zone | SOA | IN | TTL | length | ns.dns.*zone | hostmaster.*zone | serial refresh retry expire minimum
const { template: SOA_TEMPLATE, pointers: SOA_POINTERS, serialAt: SOA_SERIAL_AT } = soaTemplate();

function soaTemplate(): { template: Uint8Array; pointers: number[]; serialAt: number } {
  const primary = Buffer.from('\x02ns\x03dns\0\0', 'latin1');
  const mailbox = Buffer.from('\x0ahostmaster\0\0', 'latin1');
  const fixed = Buffer.alloc(20);
  const soa = soaOf(name('any.'), 0);
  [soa.serial, soa.refreshS, soa.retryS, soa.expireS, soa.minimumS].forEach((value, i) => {
    fixed.writeUInt32BE(value, i * 4);
  });
  const head = Buffer.alloc(12);
  put16(head, 2, TYPE_SOA);
  put16(head, 4, CLASS_IN);
  put32(head, 6, RECORD_TTL_S);
  put16(head, 10, primary.length + mailbox.length + fixed.length);
  const mailboxAt = head.length + primary.length;
  const serialAt = mailboxAt + mailbox.length;
  return {
    template: Buffer.concat([head, primary, mailbox, fixed]),
    pointers: [0, mailboxAt - 2, serialAt - 2],
    serialAt,
  };
}
