/**
 * DNS messages: RFC 1035 section 4, with EDNS (RFC 6891).
 *
 * ```text
 *  | id u16 | QR opcode AA TC RD RA - AD CD rcode, u16 | questions u16 | answers u16 | authority u16 | additional u16 |
 *  question  | name | type u16 | class u16 |
 *  record    | name | type u16 | class u16 | TTL u32 | length u16 | data |
 *  OPT       | 0    | 41       | UDP size  | extended rcode u8, version u8, DO … u16 | length u16 | options |
 * ```
 * The OPT record is no record of the zone but an extension of the header: it is read into {@link Message.edns} and
 * does not stand among the additional records.
 */
import { DecodeError } from '#lib/errors.ts';
import {
  CLASS_IN,
  EDNS_DO,
  FLAG_AA,
  FLAG_AD,
  FLAG_CD,
  FLAG_QR,
  FLAG_RA,
  FLAG_RD,
  FLAG_TC,
  HEADER_BYTES,
  OPCODE_MASK,
  OPCODE_SHIFT,
  RCODE_MASK,
  TYPE_OPT,
} from './constants.ts';
import { decodeName, type Name, skipName } from './name.ts';
import { decodeRdata, encodeRdata, type RecordData } from './rdata.ts';
import { DnsWriter } from './writer.ts';

export interface Question {
  readonly name: Name;
  readonly type: number;
  readonly class: number;
}

export interface ResourceRecord {
  readonly name: Name;
  readonly type: number;
  readonly class: number;
  /** Seconds. With the top bit set it counts as 0 (RFC 2181 section 8). */
  readonly ttlS: number;
  readonly data: RecordData;
}

export interface Edns {
  /** The largest UDP payload its sender takes. */
  readonly udpPayloadBytes: number;
  readonly version: number;
  readonly dnssecOk: boolean;
  readonly options: readonly { readonly code: number; readonly bytes: Uint8Array }[];
}

export interface Message {
  readonly id: number;
  /** QR: a response, not a query. */
  readonly response: boolean;
  readonly opcode: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly recursionDesired: boolean;
  readonly recursionAvailable: boolean;
  readonly authenticData: boolean;
  readonly checkingDisabled: boolean;
  /** With the upper bits from the OPT record, where there is one. */
  readonly rcode: number;
  readonly questions: readonly Question[];
  readonly answers: readonly ResourceRecord[];
  readonly authorities: readonly ResourceRecord[];
  readonly additionals: readonly ResourceRecord[];
  readonly edns: Edns | undefined;
}

/** A plain query; `recursionDesired` as every stub resolver sets it. */
export function makeQuery(
  id: number,
  question: { name: Name; type: number; class?: number },
  edns?: Partial<Edns>,
): Message {
  return {
    ...EMPTY,
    id,
    recursionDesired: true,
    questions: [{ name: question.name, type: question.type, class: question.class ?? CLASS_IN }],
    edns:
      edns === undefined
        ? undefined
        : { udpPayloadBytes: 1232, version: 0, dnssecOk: false, options: [], ...edns },
  };
}

const EMPTY: Message = {
  id: 0,
  response: false,
  opcode: 0,
  authoritative: false,
  truncated: false,
  recursionDesired: false,
  recursionAvailable: false,
  authenticData: false,
  checkingDisabled: false,
  rcode: 0,
  questions: [],
  answers: [],
  authorities: [],
  additionals: [],
  edns: undefined,
};

/**
 * @throws MessageTooLongError over 65,535 bytes
 * @throws RangeError for an rcode over 15 without EDNS, which has the place for it
 */
export function encodeMessage(message: Message): Uint8Array {
  if (message.rcode > RCODE_MASK && message.edns === undefined)
    throw new RangeError(`rcode ${message.rcode} needs EDNS`);
  const writer = new DnsWriter();
  writer.u16(message.id);
  writer.u16(flagsOf(message));
  writer.u16(message.questions.length);
  writer.u16(message.answers.length);
  writer.u16(message.authorities.length);
  writer.u16(message.additionals.length + (message.edns === undefined ? 0 : 1));
  for (const question of message.questions) {
    writer.name(question.name);
    writer.u16(question.type);
    writer.u16(question.class);
  }
  for (const record of message.answers) encodeRecord(writer, record);
  for (const record of message.authorities) encodeRecord(writer, record);
  for (const record of message.additionals) encodeRecord(writer, record);
  if (message.edns !== undefined) encodeOpt(writer, message.edns, message.rcode);
  return writer.finish();
}

/**
 * Decodes a whole message.
 * @throws DecodeError for everything that breaks the format, also bytes after the last record and a second OPT record
 */
export function decodeMessage(bytes: Uint8Array): Message {
  if (bytes.length < HEADER_BYTES) throw short('header', 0);
  const flags = u16(bytes, 2);
  const reader = { at: HEADER_BYTES };
  const questions = times(u16(bytes, 4), () => decodeQuestion(bytes, reader));
  const answers = times(u16(bytes, 6), () => decodeRecord(bytes, reader, 'answer'));
  const authorities = times(u16(bytes, 8), () => decodeRecord(bytes, reader, 'authority'));
  const rest = times(u16(bytes, 10), () => decodeRecord(bytes, reader, 'additional'));
  if (reader.at !== bytes.length)
    throw new DecodeError('there are bytes after the last record', {
      protocol: 'DNS',
      field: 'message',
      offset: reader.at,
    });
  const opts = rest.filter((record) => record.type === TYPE_OPT);
  if (opts.length > 1)
    throw new DecodeError('there is more than one OPT record', {
      protocol: 'DNS',
      field: 'additional',
    });
  const opt = opts[0];
  return {
    id: u16(bytes, 0),
    response: (flags & FLAG_QR) !== 0,
    opcode: (flags & OPCODE_MASK) >> OPCODE_SHIFT,
    authoritative: (flags & FLAG_AA) !== 0,
    truncated: (flags & FLAG_TC) !== 0,
    recursionDesired: (flags & FLAG_RD) !== 0,
    recursionAvailable: (flags & FLAG_RA) !== 0,
    authenticData: (flags & FLAG_AD) !== 0,
    checkingDisabled: (flags & FLAG_CD) !== 0,
    rcode: (flags & RCODE_MASK) | (opt === undefined ? 0 : (opt.ttlS >>> 24) << 4),
    questions,
    answers,
    authorities,
    additionals: rest.filter((record) => record.type !== TYPE_OPT),
    edns: opt === undefined ? undefined : decodeOpt(opt),
  };
}

/** Where a record stands in its message, without its content. */
export interface RecordSpan {
  readonly section: 'answer' | 'authority' | 'additional';
  readonly start: number;
  readonly type: number;
  readonly ttlAt: number;
  readonly dataAt: number;
  readonly end: number;
}

/**
 * Finds the records of a message without reading their data: to copy a message and age its TTLs.
 * @returns spans in order, and the offset after the questions
 * @throws DecodeError
 */
export function scanRecords(bytes: Uint8Array): { questionEnd: number; records: RecordSpan[] } {
  if (bytes.length < HEADER_BYTES) throw short('header', 0);
  let at = HEADER_BYTES;
  for (let count = u16(bytes, 4); count > 0; count--) {
    at = skipName(bytes, at) + 4;
    if (at > bytes.length) throw short('question', at);
  }
  const questionEnd = at;
  const records: RecordSpan[] = [];
  for (const [index, section] of (['answer', 'authority', 'additional'] as const).entries()) {
    for (let count = u16(bytes, 6 + index * 2); count > 0; count--) {
      const start = at;
      const typeAt = skipName(bytes, at);
      if (typeAt + 10 > bytes.length) throw short(`${section} record`, start);
      const dataAt = typeAt + 10;
      at = dataAt + u16(bytes, typeAt + 8);
      if (at > bytes.length) throw short(`${section} record`, start);
      records.push({
        section,
        start,
        type: u16(bytes, typeAt),
        ttlAt: typeAt + 4,
        dataAt,
        end: at,
      });
    }
  }
  return { questionEnd, records };
}

function flagsOf(message: Message): number {
  return (
    (message.response ? FLAG_QR : 0) |
    ((message.opcode << OPCODE_SHIFT) & OPCODE_MASK) |
    (message.authoritative ? FLAG_AA : 0) |
    (message.truncated ? FLAG_TC : 0) |
    (message.recursionDesired ? FLAG_RD : 0) |
    (message.recursionAvailable ? FLAG_RA : 0) |
    (message.authenticData ? FLAG_AD : 0) |
    (message.checkingDisabled ? FLAG_CD : 0) |
    (message.rcode & RCODE_MASK)
  );
}

function encodeRecord(writer: DnsWriter, record: ResourceRecord): void {
  writer.name(record.name);
  writer.u16(record.type);
  writer.u16(record.class);
  writer.u32(record.ttlS);
  writer.sized(() => encodeRdata(writer, record.data));
}

function encodeOpt(writer: DnsWriter, edns: Edns, rcode: number): void {
  writer.u8(0);
  writer.u16(TYPE_OPT);
  writer.u16(edns.udpPayloadBytes);
  writer.u8(rcode >> 4);
  writer.u8(edns.version);
  writer.u16(edns.dnssecOk ? EDNS_DO : 0);
  writer.sized(() => {
    for (const option of edns.options) {
      writer.u16(option.code);
      writer.sized(() => writer.raw(option.bytes));
    }
  });
}

function decodeQuestion(bytes: Uint8Array, reader: { at: number }): Question {
  const { name, next } = decodeName(bytes, reader.at);
  if (next + 4 > bytes.length) throw short('question', next);
  reader.at = next + 4;
  return { name, type: u16(bytes, next), class: u16(bytes, next + 2) };
}

function decodeRecord(bytes: Uint8Array, reader: { at: number }, field: string): ResourceRecord {
  const { name, next } = decodeName(bytes, reader.at);
  const dataAt = next + 10;
  if (dataAt > bytes.length) throw short(`${field} record`, next);
  const end = dataAt + u16(bytes, next + 8);
  if (end > bytes.length) throw short(`${field} record`, next + 8);
  const type = u16(bytes, next);
  const recordClass = u16(bytes, next + 2);
  if (type === TYPE_OPT && (field !== 'additional' || name !== '.'))
    throw new DecodeError('an OPT record must be additional and have the root as its name', {
      protocol: 'DNS',
      field: `${field} record`,
      offset: next,
    });
  reader.at = end;
  return {
    name,
    type,
    class: recordClass,
    ttlS: u16(bytes, next + 4) * 0x10000 + u16(bytes, next + 6),
    // The data's format is defined by type and class together (RFC 1035 section 3.2.1); we know only IN's.
    data:
      recordClass === CLASS_IN
        ? decodeRdata(bytes, type, dataAt, end)
        : { kind: 'raw', bytes: bytes.slice(dataAt, end) },
  };
}

function decodeOpt(record: ResourceRecord): Edns {
  const bytes = record.data.kind === 'raw' ? record.data.bytes : new Uint8Array();
  const options: { code: number; bytes: Uint8Array }[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 4 + (at + 4 <= bytes.length ? u16(bytes, at + 2) : 0);
    if (end > bytes.length) throw short('EDNS option', at);
    options.push({ code: u16(bytes, at), bytes: bytes.slice(at + 4, end) });
    at = end;
  }
  return {
    udpPayloadBytes: record.class,
    version: (record.ttlS >>> 16) & 0xff,
    dnssecOk: (record.ttlS & EDNS_DO) !== 0,
    options,
  };
}

function times<T>(count: number, make: () => T): T[] {
  const list: T[] = [];
  for (let i = 0; i < count; i++) list.push(make());
  return list;
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function short(field: string, offset: number): DecodeError {
  return new DecodeError('the message ends before it', { protocol: 'DNS', field, offset });
}
