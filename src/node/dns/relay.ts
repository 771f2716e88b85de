/** Upstream's answers: what of them may be kept for how long, and how they are given to a client. */
import { DecodeError } from '#lib/errors.ts';
import {
  FLAG_AA,
  FLAG_AD,
  FLAG_RA,
  FLAG_TC,
  HEADER_BYTES,
  RCODE_MASK,
  RCODE_NOERROR,
  RCODE_NXDOMAIN,
  TYPE_A,
  TYPE_AAAA,
  TYPE_CNAME,
  TYPE_DNAME,
  TYPE_HTTPS,
  TYPE_MX,
  TYPE_NAPTR,
  TYPE_NS,
  TYPE_OPT,
  TYPE_SOA,
  TYPE_SRV,
  TYPE_SVCB,
} from '#wire/dns/constants.ts';
import {
  decodeMessage,
  type RecordSpan,
  type ResourceRecord,
  scanRecords,
} from '#wire/dns/message.ts';
import { canonicalName, decodeName, isWithin } from '#wire/dns/name.ts';
import { type Query, replyLimit } from './query.ts';
import { copy, optBytes, put16, put32, writeHead, writeMessage, writeOpt } from './reply.ts';

/** Longer than this nothing is kept, whatever its TTL says; CoreDNS's limits. */
const MAX_LIFETIME_S = 3600;
const MAX_NEGATIVE_LIFETIME_S = 1800;
/** How long a client may keep an answer that has run out here (RFC 8767 section 4). */
const STALE_TTL_S = 30;

const SECTIONS = ['answer', 'authority', 'additional'] as const;
/** Types whose owner is the zone. */
const ZONE_TYPES: readonly number[] = [TYPE_SOA, TYPE_NS];
/** Types whose data name hosts, whose addresses may follow as additional records. */
const TYPES_WITH_TARGETS: readonly number[] = [
  TYPE_NS,
  TYPE_MX,
  TYPE_SRV,
  TYPE_NAPTR,
  TYPE_SVCB,
  TYPE_HTTPS,
];

/** An answer of an upstream, ready to be copied. */
export interface Relay {
  /** The message without its OPT record and what followed it. */
  readonly bytes: Uint8Array;
  /** Where the records begin. */
  readonly questionEnd: number;
  readonly ttlOffsets: readonly number[];
  readonly rcode: number;
  /** How long it may be kept; 0 not at all. */
  readonly lifetimeS: number;
  readonly negative: boolean;
}

/**
 * Prepares an upstream's answer.
 * @param bytes an answer whose question was compared with what was asked
 * @throws DecodeError
 */
export function prepareRelay(bytes: Uint8Array): Relay {
  const { questionEnd, records } = scanRecords(bytes);
  const opt = records.find((record) => record.type === TYPE_OPT);
  const inFront = opt === undefined ? records : records.slice(0, records.indexOf(opt));
  const kept = inFront.slice(0, countInBailiwick(bytes, inFront));
  if (opt !== undefined && opt.section !== 'additional')
    throw new DecodeError('an OPT record stands outside the additional section', {
      protocol: 'DNS',
      field: 'answer',
      offset: opt.start,
    });
  const copied = bytes.slice(0, kept.at(-1)?.end ?? questionEnd);
  for (const [i, section] of SECTIONS.entries())
    put16(copied, 6 + i * 2, kept.filter((record) => record.section === section).length);
  // An extended rcode cannot be given to a client without EDNS, and only says that we asked wrongly.
  const rcode =
    ((bytes[3] ?? 0) & RCODE_MASK) | ((opt === undefined ? 0 : (bytes[opt.ttlAt] ?? 0)) << 4);
  return {
    bytes: copied,
    questionEnd,
    ttlOffsets: kept.map((r) => r.ttlAt),
    rcode,
    ...lifetimeOf(copied, kept, { questionEnd, rcode }),
  };
}

/**
 * An upstream is believed about what it was asked, not about names of its choice: the answers are the question's and
 * those of the aliases that lead on from it, the authority is above them. Names are compressed by pointing backwards,
 * so a message can be cut anywhere, but nothing can be taken out of its middle.
 * @returns the number of records before the first that does not belong there
 */
function countInBailiwick(bytes: Uint8Array, records: readonly RecordSpan[]): number {
  const nameAt = (at: number) => canonicalName(decodeName(bytes, at).name);
  const question = nameAt(HEADER_BYTES);
  const questionType = u16(bytes, decodeName(bytes, HEADER_BYTES).next);
  const names = new Set([question]);
  const belongs = (record: RecordSpan): boolean => {
    const owner = nameAt(record.start);
    switch (record.section) {
      case 'answer':
        if (record.type === TYPE_DNAME) return [...names].some((it) => isWithin(it, owner));
        if (!names.has(owner)) return false;
        if (record.type === TYPE_CNAME) names.add(nameAt(record.dataAt));
        return true;
      case 'authority':
        // Proofs of absence have owners of their own inside the zone.
        return !ZONE_TYPES.includes(record.type) || [...names].some((it) => isWithin(it, owner));
      case 'additional':
        return TYPES_WITH_TARGETS.includes(questionType);
    }
  };
  const first = records.findIndex((record) => !belongs(record));
  return first < 0 ? records.length : first;
}

export interface RelayOptions {
  readonly relay: Relay;
  /** Whole seconds since the answer came. */
  readonly ageS: number;
  readonly transport: 'udp' | 'tcp';
}

/**
 * Writes an upstream's answer for a client: its id, its spelling of the name, TTLs less the time that has passed.
 * @returns the length
 */
export function writeRelay(
  reply: Uint8Array,
  bytes: Uint8Array,
  query: Query,
  options: RelayOptions,
): number {
  const { relay } = options;
  const at = writeHead(reply, bytes, query, flagsOf(relay, query));
  const length = at + relay.bytes.length - relay.questionEnd;
  if (length + optBytes(query) > replyLimit(query, options.transport)) {
    // What was left out cannot be known to be without meaning, so all of it is asked for again over TCP.
    reply[2] = (reply[2] ?? 0) | (FLAG_TC >> 8);
    return writeOpt(reply, at, query);
  }
  copy(reply, at, relay.bytes, relay.questionEnd, relay.bytes.length);
  for (let i = 6; i < 12; i++) reply[i] = relay.bytes[i] ?? 0;
  for (const ttlAt of relay.ttlOffsets)
    put32(reply, ttlAt, agedTtl(u32(relay.bytes, ttlAt), relay, options.ageS));
  return writeOpt(reply, length, query);
}

/** Like {@link writeRelay}, for an answer to what an alias of ours leads to: the alias stands first. */
export function writeAliasedRelay(
  reply: Uint8Array,
  bytes: Uint8Array,
  query: Query,
  options: RelayOptions & { readonly aliases: readonly ResourceRecord[] },
): number {
  const { relay, ageS } = options;
  const message = decodeMessage(relay.bytes);
  // Only data that can be copied between messages: clients asked for addresses.
  const isAddress = (r: ResourceRecord) => [TYPE_A, TYPE_AAAA, TYPE_CNAME].includes(r.type);
  const aged = (r: ResourceRecord) => ({ ...r, ttlS: agedTtl(r.ttlS, relay, ageS) });
  return writeMessage(reply, bytes, query, {
    limitBytes: replyLimit(query, options.transport),
    authoritative: false,
    rcode: relay.rcode,
    answers: [...options.aliases, ...message.answers.filter(isAddress).map(aged)],
    authorities: message.authorities.filter((r) => r.type === TYPE_SOA).map(aged),
  });
}

function flagsOf(relay: Relay, query: Query): number {
  const flags = u16(relay.bytes, 2);
  // AD means something only to who asked for it (RFC 6840 section 5.8). AA is the upstream's claim about itself.
  const wantsAd = (query.flags & FLAG_AD) !== 0 || (query.hasEdns && query.dnssecOk);
  return flags & (RCODE_MASK | FLAG_RA | (wantsAd ? FLAG_AD : 0)) & ~FLAG_AA;
}

function agedTtl(ttlS: number, relay: Relay, ageS: number): number {
  if (ageS > 0 && ageS >= relay.lifetimeS) return STALE_TTL_S;
  // With the top bit set a TTL counts as 0 (RFC 2181 section 8).
  return ttlS >= 0x8000_0000 ? 0 : Math.max(0, ttlS - ageS);
}

/** RFC 2308: a denial is kept for the lesser of its SOA's TTL and minimum, and not at all without a SOA. */
function lifetimeOf(
  bytes: Uint8Array,
  records: readonly RecordSpan[],
  message: { questionEnd: number; rcode: number },
): { lifetimeS: number; negative: boolean } {
  const answers = records.filter((record) => record.section === 'answer');
  const questionType = u16(bytes, message.questionEnd - 4);
  const hasAnswer = answers.some((record) => record.type === questionType || questionType === 255);
  const negative = message.rcode === RCODE_NXDOMAIN || !hasAnswer;
  if ((u16(bytes, 2) & FLAG_TC) !== 0) return { lifetimeS: 0, negative };
  if (message.rcode !== RCODE_NOERROR && message.rcode !== RCODE_NXDOMAIN)
    return { lifetimeS: 0, negative: true };
  const ttls = answers.map((record) => u32(bytes, record.ttlAt));
  if (negative) {
    const soa = records.find((r) => r.section === 'authority' && r.type === TYPE_SOA);
    if (soa === undefined || soa.end - soa.dataAt < 22) return { lifetimeS: 0, negative };
    ttls.push(u32(bytes, soa.ttlAt), u32(bytes, soa.end - 4), MAX_NEGATIVE_LIFETIME_S);
  }
  const least = Math.min(MAX_LIFETIME_S, ...ttls.map((ttl) => (ttl >= 0x8000_0000 ? 0 : ttl)));
  return { lifetimeS: least, negative };
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x10000 + u16(bytes, at + 2);
}
