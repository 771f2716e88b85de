/**
 * Answers queries from the table. Pure: the same table, query and random numbers give the same bytes.
 *
 * Nothing is allocated for a query that the table answers, aliases apart: what functions tell each other beside numbers
 * stands in records of the {@link Answerer}, which are used again for every query, and octets are copied without views.
 *
 * ```text
 *   not a query                        dropped
 *   another opcode, class, AXFR, IXFR  REFUSED (NOTIMP for opcodes nobody uses)
 *   broken                             FORMERR
 *   name in the table                  its records; NOERROR without records and with SOA if it has none of the type
 *   name in the zone, not in the table NXDOMAIN with SOA; SERVFAIL until the first sync, because it may exist
 *   any other name                     to be forwarded
 * ```
 */
import { cidr, cidrContains, familyOf, type Ip } from '#lib/ip.ts';
import {
  CLASS_IN,
  FLAG_AA,
  FLAG_RD,
  FLAG_TC,
  RCODE_NOERROR,
  RCODE_NXDOMAIN,
  RCODE_REFUSED,
  RCODE_SERVFAIL,
  TYPE_A,
  TYPE_AAAA,
  TYPE_ANY,
  TYPE_AXFR,
  TYPE_CNAME,
  TYPE_IXFR,
  TYPE_SOA,
} from '#wire/dns/constants.ts';
import type { ResourceRecord } from '#wire/dns/message.ts';
import { decodeName, isWithin, type Name, nameFromWire } from '#wire/dns/name.ts';
import {
  hashName,
  lowerOctet,
  NOT_A_QUERY,
  newQuery,
  type Query,
  readQuery,
  replyLimit,
} from './query.ts';
import type { RandomBelow } from './random-below.ts';
import { addressOfDashed, addressOfReverseName, RECORD_TTL_S, soaOf } from './records.ts';
import {
  ADDITIONALS_AT,
  ANSWERS_AT,
  AUTHORITIES_AT,
  CNAME_TARGET_OFFSET,
  copy,
  type Denial,
  optBytes,
  put16,
  soaBytes,
  writeAlias,
  writeBadVersion,
  writeError,
  writeHead,
  writeMessage,
  writeNegative,
  writeOpt,
  writeSoa,
} from './reply.ts';
import { IN_TABLE, newSearchTarget, OUTSIDE, type SearchTarget, walkSearchList } from './search.ts';
import { recordsOfSet } from './sets.ts';
import { type NameTable, NO_ENTRY, type PreparedAnswer, QUESTION_AT } from './table.ts';

/** Results of {@link answerQuery} that are no length. */
export const DROP = 0;
export const FORWARD = -1;

/** ExternalNames that lead to each other; more than a few are a mistake, and it may be a circle. */
const MAX_ALIASES = 8;

/** Whose reverse names the cluster may own; nobody outside can know them. RFC 1918, 6598, 3927, 4193. */
const PRIVATE_PREFIXES = [
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '169.254.0.0/16',
  'fc00::/7',
].map(cidr);

export interface Answerer {
  readonly table: NameTable;
  /** For the order of addresses. */
  readonly random: RandomBelow;
  /** What was read of the last query; overwritten by the next. */
  readonly query: Query;
  /** After {@link FORWARD} of a searched name: what to ask instead. */
  readonly search: SearchTarget;
  /** What {@link denialOf} returns. */
  readonly denial: Denial;
  /** What the last {@link FORWARD} asks for. */
  forwards: 'question' | 'searched' | 'alias';
  /** Called for a query with a cookie, before it is answered. */
  onCookie: ((bytes: Uint8Array, query: Query) => void) | undefined;
}

export function newAnswerer(table: NameTable, random: RandomBelow): Answerer {
  const search = newSearchTarget();
  const query = newQuery();
  const denial = { rcode: RCODE_NOERROR, zoneAt: 0, serial: 0 };
  return { table, random, query, search, denial, forwards: 'question', onCookie: undefined };
}

/**
 * What a denial says, for `writeNegative` and `writeSoa`.
 * @param zoneAt where in the question the zone's name begins
 * @returns the answerer's own record, valid until the next call
 */
export function denialOf({ denial, table }: Answerer, zoneAt: number, rcode: number): Denial {
  denial.rcode = rcode;
  denial.zoneAt = zoneAt;
  denial.serial = table.serial;
  return denial;
}

export interface AnswerOptions {
  readonly length: number;
  readonly reply: Uint8Array;
  readonly transport: 'udp' | 'tcp';
  /** The first name of the asking pod's search list, if it is a pod; see `search.ts`. */
  readonly searchSuffix?: Uint8Array | undefined;
}

/**
 * Answers one query.
 * @param bytes holds the query in its first `length` bytes
 * @param reply gets the response; room for 1,232 bytes over UDP, for 65,535 over TCP
 * @returns the response's length, {@link DROP}, or {@link FORWARD}, after which `answerer.query` tells the question
 */
export function answerQuery(answerer: Answerer, bytes: Uint8Array, options: AnswerOptions): number {
  const { table, query } = answerer;
  const { reply } = options;
  answerer.forwards = 'question';
  const problem = readQuery(bytes, options.length, table.seed, query);
  if (problem === NOT_A_QUERY) return DROP;
  if (problem !== RCODE_NOERROR) return writeError(reply, bytes, query, problem);
  if (query.cookieBytes > 0) answerer.onCookie?.(bytes, query);
  if (query.hasEdns && query.ednsVersion !== 0) return writeBadVersion(reply, bytes, query);
  if (query.class !== CLASS_IN || query.type === TYPE_AXFR || query.type === TYPE_IXFR)
    return writeError(reply, bytes, query, RCODE_REFUSED);
  const entry = table.find(bytes, QUESTION_AT, query.nameEnd, query.hash);
  if (entry === NO_ENTRY) return answerUnknown(answerer, bytes, options);
  const answer = table.prepared(entry, effectiveType(table, entry, query.type));
  if (answer === undefined) return answerWithoutRecords(answerer, bytes, options, entry);
  return writePrepared(answerer, bytes, options, answer);
}

/** What has to be asked elsewhere. */
export interface ForwardPlan {
  readonly name: Name;
  readonly type: number;
  /** CNAME records of ours that led to the name; they stand first in the answer. */
  readonly aliases: readonly ResourceRecord[];
}

/** After {@link FORWARD}: the question to forward, which for an ExternalName or a searched name is not the client's. */
export function planForward(answerer: Answerer, bytes: Uint8Array): ForwardPlan {
  const { table, query, search } = answerer;
  const { name } = decodeName(bytes, QUESTION_AT);
  if (answerer.forwards === 'searched') {
    const target = nameFromWire(search.bytes.subarray(0, search.length));
    const data = { kind: 'CNAME', target } as const;
    const alias = { name, type: TYPE_CNAME, class: CLASS_IN, ttlS: RECORD_TTL_S, data };
    return { name: target, type: query.type, aliases: [alias] };
  }
  const entry = table.find(bytes, QUESTION_AT, query.nameEnd, query.hash);
  if (entry === NO_ENTRY) return { name, type: query.type, aliases: [] };
  const { aliases, target } = followAliases(table, entry);
  return { name: target, type: query.type, aliases };
}

/** ANY gets one of the sets that there are (RFC 8482 section 4.1). */
function effectiveType(table: NameTable, entry: number, type: number): number {
  return type === TYPE_ANY ? (table.firstType(entry) ?? type) : type;
}

function answerUnknown(answerer: Answerer, bytes: Uint8Array, options: AnswerOptions): number {
  const { table, query } = answerer;
  const { reply } = options;
  const zoneAt = table.zoneOffset(bytes, QUESTION_AT, query.nameEnd);
  if (zoneAt >= 0) {
    const denial = denialOf(answerer, zoneAt, RCODE_NXDOMAIN);
    if (!table.synced) return writeError(reply, bytes, query, RCODE_SERVFAIL);
    if (table.podMode === 'insecure') {
      const length = answerPodName(answerer, bytes, options);
      if (length !== NO_ANSWER) return length;
    }
    if (table.searchPath && options.searchSuffix !== undefined) {
      const length = answerSearched(answerer, bytes, options);
      if (length !== NO_ANSWER) return length;
    }
    return writeNegative(reply, bytes, query, denial);
  }
  // Without "recursion desired" the client asks for what we know ourselves, and that is nothing.
  if ((query.flags & FLAG_RD) === 0) return writeError(reply, bytes, query, RCODE_REFUSED);
  if (!table.synced && isPrivateReverse(decodeName(bytes, QUESTION_AT).name))
    return writeError(reply, bytes, query, RCODE_SERVFAIL);
  return FORWARD;
}

/** The name is none that these rules answer. */
const NO_ANSWER = -2;

/** `192-0-2-1.<namespace>.pod.<zone>` is 192.0.2.1, whether there is such a pod or not. */
function answerPodName(answerer: Answerer, bytes: Uint8Array, options: AnswerOptions): number {
  const { table, query } = answerer;
  const labelBytes = bytes[QUESTION_AT] ?? 0;
  const parentAt = QUESTION_AT + labelBytes + 1;
  const podAt = parentAt + (bytes[parentAt] ?? 0) + 1;
  if (!isPodBranch(bytes, podAt) || !isZoneAt(table, podAt + 4, query.nameEnd)) return NO_ANSWER;
  const hash = hashName(bytes, parentAt, query.nameEnd, table.seed);
  // The namespace must exist.
  if (table.find(bytes, parentAt, query.nameEnd, hash) === NO_ENTRY) return NO_ANSWER;
  const label = Buffer.from(bytes.subarray(QUESTION_AT + 1, parentAt)).toString('latin1');
  const address = addressOfDashed(label);
  if (address === undefined) return NO_ANSWER;
  const type = familyOf(address) === 4 ? TYPE_A : TYPE_AAAA;
  if (query.type !== type)
    return writeNegative(options.reply, bytes, query, denialOf(answerer, podAt + 4, RCODE_NOERROR));
  const { name } = decodeName(bytes, QUESTION_AT);
  const data = { kind: type === TYPE_A ? 'A' : 'AAAA', address } as const;
  return writeMessage(options.reply, bytes, query, {
    limitBytes: replyLimit(query, options.transport),
    authoritative: true,
    rcode: RCODE_NOERROR,
    answers: [{ name, type, class: CLASS_IN, ttlS: RECORD_TTL_S, data }],
    authorities: [],
  });
}

function isPodBranch(bytes: Uint8Array, at: number): boolean {
  if (bytes[at] !== 3) return false;
  return [0x70, 0x6f, 0x64].every((letter, i) => lowerOctet(bytes[at + 1 + i] ?? 0) === letter);
}

/** The zone ends the name, so its place tells whether what stands there is all of it. */
function isZoneAt(table: NameTable, at: number, nameEnd: number): boolean {
  return nameEnd - at === table.zoneWire.length;
}

/** The name does not exist, as {@link denialOf} has it; perhaps the asking pod means another one of its search list. */
function answerSearched(answerer: Answerer, bytes: Uint8Array, options: AnswerOptions): number {
  const { table, query, search } = answerer;
  const suffix = options.searchSuffix;
  if (suffix === undefined) return NO_ANSWER;
  const found = walkSearchList(answerer, bytes, suffix);
  if (found === OUTSIDE) {
    const wantsAddress = query.type === TYPE_A || query.type === TYPE_AAAA;
    if (!wantsAddress || (query.flags & FLAG_RD) === 0) return NO_ANSWER;
    answerer.forwards = 'searched';
    return FORWARD;
  }
  const { entry } = search;
  if (found !== IN_TABLE) return NO_ANSWER;
  // An alias behind the alias: rare enough for the client to walk on by itself, to the name as it stands.
  if (table.isAlias(entry)) return NO_ANSWER;
  const answer = table.prepared(entry, effectiveType(table, entry, query.type));
  return writeSearched(answerer, bytes, options, answer);
}

function writeSearched(
  answerer: Answerer,
  bytes: Uint8Array,
  options: AnswerOptions,
  answer: PreparedAnswer | undefined,
): number {
  const { query, search, denial, random } = answerer;
  const { reply } = options;
  const isAddress = answer !== undefined && answer.strideBytes > 0;
  if (answer !== undefined && !isAddress) return NO_ANSWER;
  const content = isAddress ? answer.answersBytes : soaBytes();
  const room = replyLimit(query, options.transport) - optBytes(query);
  // Where it does not fit the client walks its list itself.
  if (query.nameEnd + 4 + CNAME_TARGET_OFFSET + search.prefixBytes + 2 + content > room)
    return NO_ANSWER;
  const head = writeHead(reply, bytes, query, FLAG_AA);
  const at = writeAlias(reply, head, search);
  if (!isAddress) {
    const end = writeSoa(reply, at, denial);
    put16(reply, ANSWERS_AT, 1);
    put16(reply, AUTHORITIES_AT, 1);
    return writeOpt(reply, end, query);
  }
  copyShuffled(reply, at, answer, random);
  for (let i = 0; i < answer.answers; i++)
    put16(reply, at + i * answer.strideBytes, 0xc000 | (head + CNAME_TARGET_OFFSET));
  put16(reply, ANSWERS_AT, 1 + answer.answers);
  return writeOpt(reply, at + content, query);
}

function isPrivateReverse(name: Name): boolean {
  const address: Ip | undefined = addressOfReverseName(name);
  return address !== undefined && PRIVATE_PREFIXES.some((prefix) => cidrContains(prefix, address));
}

/** The name exists and has no records of the type: an alias to follow, or nothing. */
function answerWithoutRecords(
  answerer: Answerer,
  bytes: Uint8Array,
  options: { reply: Uint8Array; transport: 'udp' | 'tcp' },
  entry: number,
): number {
  const { table, query } = answerer;
  if (table.isAlias(entry)) return answerAlias(answerer, bytes, options, entry);
  const zoneOffset = table.zoneOffset(bytes, QUESTION_AT, query.nameEnd);
  // A reverse name of ours is a zone of its own: we know nothing of the names beside it.
  const zoneAt = zoneOffset < 0 ? QUESTION_AT : zoneOffset;
  return writeNegative(options.reply, bytes, query, denialOf(answerer, zoneAt, RCODE_NOERROR));
}

/** Aliases inside the zone are rare, so this path may allocate. */
function answerAlias(
  answerer: Answerer,
  bytes: Uint8Array,
  options: { reply: Uint8Array; transport: 'udp' | 'tcp' },
  entry: number,
): number {
  const { table, query } = answerer;
  const { aliases, target } = followAliases(table, entry);
  const found = table.findName(target);
  const outside = found === NO_ENTRY && !isWithin(target, table.zone);
  const wantsAddress = query.type === TYPE_A || query.type === TYPE_AAAA;
  if (outside && wantsAddress && (query.flags & FLAG_RD) !== 0) {
    answerer.forwards = 'alias';
    return FORWARD;
  }
  const isCircle = found !== NO_ENTRY && table.isAlias(found);
  if (isCircle || (found === NO_ENTRY && !outside && !table.synced))
    return writeError(options.reply, bytes, query, RCODE_SERVFAIL);
  const sets = found === NO_ENTRY ? [] : table.setsOf(found);
  const set = sets.find((candidate) => candidate.type === query.type);
  return writeMessage(options.reply, bytes, query, {
    limitBytes: replyLimit(query, options.transport),
    authoritative: true,
    rcode: found === NO_ENTRY && !outside ? RCODE_NXDOMAIN : RCODE_NOERROR,
    answers: [...aliases, ...(set === undefined ? [] : recordsOfSet(target, set))],
    authorities: set === undefined && !outside ? [soaRecord(table)] : [],
  });
}

function soaRecord(table: NameTable): ResourceRecord {
  return {
    name: table.zone,
    type: TYPE_SOA,
    class: CLASS_IN,
    ttlS: RECORD_TTL_S,
    data: { kind: 'SOA', ...soaOf(table.zone, table.serial) },
  };
}

/** @returns the CNAME records from the entry on, and the first name that is no alias of ours */
function followAliases(
  table: NameTable,
  entry: number,
): { aliases: ResourceRecord[]; target: Name } {
  const aliases: ResourceRecord[] = [];
  let target = table.nameOf(entry);
  for (let at = entry; at !== NO_ENTRY && aliases.length < MAX_ALIASES; ) {
    const set = table.setsOf(at).find((candidate) => candidate.type === TYPE_CNAME);
    const data = set?.data[0];
    if (set === undefined || data?.kind !== 'CNAME') break;
    aliases.push(...recordsOfSet(target, set));
    target = data.target;
    at = table.findName(target);
  }
  return { aliases, target };
}

/** Copies a prepared answer behind the question, its addresses in random order, cut to what the client takes. */
function writePrepared(
  answerer: Answerer,
  bytes: Uint8Array,
  options: AnswerOptions,
  answer: PreparedAnswer,
): number {
  const { query, random } = answerer;
  const { reply } = options;
  const head = writeHead(reply, bytes, query, FLAG_AA);
  const room = replyLimit(query, options.transport) - optBytes(query) - head;
  const { start, answersBytes } = answer;
  const tailBytes = answer.end - start;
  let { answers, additionals } = answer;
  let at: number;
  if (answersBytes > room) {
    answers = countFitting(answer, room);
    additionals = 0;
    reply[2] = (reply[2] ?? 0) | (FLAG_TC >> 8);
    at = head + copyRotated(reply, head, answer, answers, random);
  } else if (answer.strideBytes > 0 && answers > 1) {
    copyShuffled(reply, head, answer, random);
    at = head + answersBytes;
  } else {
    copy(reply, head, answer.bytes, start, start + answersBytes);
    at = head + answersBytes;
  }
  // Additional records are a courtesy: where they do not fit they are left out, and nothing is truncated by that.
  if (tailBytes > room) additionals = 0;
  if (additionals > 0) {
    copy(reply, at, answer.bytes, start + answersBytes, answer.end);
    at += tailBytes - answersBytes;
  }
  put16(reply, ANSWERS_AT, answers);
  put16(reply, ADDITIONALS_AT, additionals);
  return writeOpt(reply, at, query);
}

/** How many of the answers, from the first on, need no more than `room` octets. */
function countFitting(answer: PreparedAnswer, room: number): number {
  let count = 0;
  for (let end = recordBytes(answer, 0); end <= room; end += recordBytes(answer, end)) count++;
  return count;
}

/** Octets of the answer that begins at an offset: its owner is a pointer. */
function recordBytes({ bytes, start }: PreparedAnswer, offset: number): number {
  const lengthAt = start + offset + 10;
  return 12 + (((bytes[lengthAt] ?? 0) << 8) | (bytes[lengthAt + 1] ?? 0));
}

/** Every order is equally likely: the inside-out shuffle, which needs no room beside the target. */
function copyShuffled(
  reply: Uint8Array,
  head: number,
  answer: PreparedAnswer,
  random: RandomBelow,
): void {
  const stride = answer.strideBytes;
  for (let i = 0; i < answer.answers; i++) {
    const j = random(i + 1);
    const from = head + j * stride;
    if (j !== i) copy(reply, head + i * stride, reply, from, from + stride);
    const own = answer.start + i * stride;
    copy(reply, from, answer.bytes, own, own + stride);
  }
}

/** The first `count` answers, or for addresses `count` from a random place on. @returns bytes written */
function copyRotated(
  reply: Uint8Array,
  head: number,
  answer: PreparedAnswer,
  count: number,
  random: RandomBelow,
): number {
  const stride = answer.strideBytes;
  if (stride === 0) {
    let bytes = 0;
    for (let i = 0; i < count; i++) bytes += recordBytes(answer, bytes);
    copy(reply, head, answer.bytes, answer.start, answer.start + bytes);
    return bytes;
  }
  const start = random(answer.answers);
  for (let i = 0; i < count; i++) {
    const from = answer.start + ((start + i) % answer.answers) * stride;
    copy(reply, head + i * stride, answer.bytes, from, from + stride);
  }
  return count * stride;
}
