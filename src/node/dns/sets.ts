/**
 * What a name has, as octets that are ready to be sent. They are made once, when the API says something new; a query
 * then costs a copy. On the way between the threads and in the zone they are strings, an octet a character, which
 * take a fraction of the objects' memory.
 *
 * ```text
 *   one after another, for each type, integers big endian:
 *    | type u16 | answers u16 | additionals u16 | stride u16 | answers' octets u16 | all octets u16 | octets … |
 * ```
 * The octets are what stands after the question in a response about this name. Each answer begins with a pointer to the
 * question's name. *stride* is the length of each answer where they may be put in any order (addresses), otherwise 0.
 */
import { DecodeError } from '#lib/errors.ts';
import { type Ip, ipToBytes } from '#lib/ip.ts';
import { CLASS_IN, HEADER_BYTES, OPT_BYTES, TYPE_A, TYPE_AAAA } from '#wire/dns/constants.ts';
import {
  decodeMessage,
  encodeMessage,
  makeQuery,
  type ResourceRecord,
  scanRecords,
} from '#wire/dns/message.ts';
import { type Name, writeName } from '#wire/dns/name.ts';
import type { RecordData, Srv } from '#wire/dns/rdata.ts';
import { MessageTooLongError } from '#wire/dns/writer.ts';
import type { RecordSet } from './records.ts';

/** Octets before those of a set. */
export const SET_HEAD_BYTES = 12;
/** {@link encodeSets} of nothing: a name that exists and has no records. */
export const NO_SETS = '';

/** Owner (a pointer), type, class, TTL and length stand before a record's data. */
const RECORD_HEAD_BYTES = 12;
/** Pointers reach no further (RFC 1035 section 4.1.4). */
const MAX_POINTER = 0x3fff;
/** Above it the general encoder takes over, which knows what to leave out of a message that is too long. */
const MAX_PLAIN_BYTES = 0xc000;
const scratch = Buffer.alloc(MAX_PLAIN_BYTES + 0x2000);

/** @param owner canonical @returns see above; {@link NO_SETS} of no sets */
export function encodeSets(owner: Name, sets: readonly RecordSet[]): string {
  if (sets.length === 0) return NO_SETS;
  const question = HEADER_BYTES + writeName(owner, scratch, 0) + 4;
  return sets.map((set) => encodeSet(owner, set, question)).join('');
}

/**
 * Reads {@link encodeSets}.
 * @throws DecodeError if it is none for this name
 */
export function decodeSets(owner: Name, text: string): RecordSet[] {
  const bytes = Buffer.from(text, 'latin1');
  const sets: RecordSet[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (at + SET_HEAD_BYTES > bytes.length) throw broken(at);
    const type = bytes.readUInt16BE(at);
    const counts = [bytes.readUInt16BE(at + 2), bytes.readUInt16BE(at + 4)];
    const end = at + SET_HEAD_BYTES + bytes.readUInt16BE(at + 10);
    if (end > bytes.length) throw broken(at);
    sets.push(decodeSet(owner, type, counts, bytes.subarray(at + SET_HEAD_BYTES, end)));
    at = end;
  }
  return sets;
}

/** The records of a set, with their owner. */
export function recordsOfSet(owner: Name, set: RecordSet): ResourceRecord[] {
  const { type, ttlS } = set;
  return set.data.map((data) => ({ name: owner, type, class: CLASS_IN, ttlS, data }));
}

function decodeSet(
  owner: Name,
  type: number,
  [answers = 0, additionals = 0]: number[],
  octets: Uint8Array,
): RecordSet {
  const question = encodeMessage(makeQuery(0, { name: owner, type }));
  const message = Buffer.concat([question, octets]);
  message.writeUInt16BE(answers, 6);
  message.writeUInt16BE(additionals, 10);
  const decoded = decodeMessage(message);
  const [first] = decoded.answers;
  if (first === undefined) throw broken(0);
  const data = decoded.answers.map((record) => record.data);
  const extra = decoded.additionals;
  return { type, ttlS: first.ttlS, data, ...(extra.length === 0 ? {} : { additionals: extra }) };
}

/** @param question octets of a message up to the end of its question */
function encodeSet(owner: Name, set: RecordSet, question: number): string {
  const isAddress = set.type === TYPE_A || set.type === TYPE_AAAA;
  const plain = writePlain(owner, set, question);
  if (plain === undefined) return encodeInGeneral(owner, set, isAddress);
  const stride = isAddress ? RECORD_HEAD_BYTES + (set.type === TYPE_A ? 4 : 16) : 0;
  const answers = set.data.length;
  return finishSet({ type: set.type, answers, ...plain, stride });
}

/** Octets that stand in {@link scratch} behind the room for the head. */
interface Written {
  readonly additionals: number;
  readonly answersBytes: number;
  readonly bytes: number;
}

function finishSet(set: Written & { type: number; answers: number; stride: number }): string {
  const { type, answers, additionals, stride, answersBytes, bytes } = set;
  [type, answers, additionals, stride, answersBytes, bytes].forEach((value, i) => {
    scratch.writeUInt16BE(value, i * 2);
  });
  return scratch.toString('latin1', 0, SET_HEAD_BYTES + bytes);
}

/**
 * Writes the kinds of records that services have: there are a hundred thousand of them when an agent starts.
 * @returns `undefined` for other kinds, and for what may be too long
 */
function writePlain(owner: Name, set: RecordSet, question: number): Written | undefined {
  const { data, additionals = [] } = set;
  let at = SET_HEAD_BYTES;
  /** Where in the message a name stands. */
  const names = additionals.length === 0 ? undefined : new Map([[owner, HEADER_BYTES]]);
  for (const record of data) {
    if (at > MAX_PLAIN_BYTES) return undefined;
    scratch.writeUInt16BE(0xc000 | HEADER_BYTES, at);
    const dataAt = writeFixed(at + 2, set.type, set.ttlS);
    const end = writeData(record, dataAt);
    if (end === undefined) return undefined;
    scratch.writeUInt16BE(end - dataAt, dataAt - 2);
    const targetAt = question + dataAt + SRV_TARGET_OFFSET - SET_HEAD_BYTES;
    if (record.kind === 'SRV' && targetAt <= MAX_POINTER && names?.has(record.target) === false)
      names.set(record.target, targetAt);
    at = end;
  }
  const answersBytes = at - SET_HEAD_BYTES;
  for (const record of additionals) {
    if (at > MAX_PLAIN_BYTES) return undefined;
    const place = names?.get(record.name);
    if (place === undefined) at += writeName(record.name, scratch, at);
    else at = scratch.writeUInt16BE(0xc000 | place, at);
    const dataAt = writeFixed(at, record.type, record.ttlS);
    const end = writeData(record.data, dataAt);
    if (end === undefined) return undefined;
    scratch.writeUInt16BE(end - dataAt, dataAt - 2);
    at = end;
  }
  return { additionals: additionals.length, answersBytes, bytes: at - SET_HEAD_BYTES };
}

/** @returns the offset of the data */
function writeFixed(at: number, type: number, ttlS: number): number {
  scratch.writeUInt16BE(type, at);
  scratch.writeUInt16BE(CLASS_IN, at + 2);
  scratch.writeUInt32BE(ttlS, at + 4);
  return at + 10;
}

/** @returns the offset after the data; `undefined` for a kind that services do not have */
function writeData(data: RecordData, at: number): number | undefined {
  switch (data.kind) {
    case 'A':
    case 'AAAA':
      return at + writeAddress(data.address, at);
    case 'SRV':
      return writeSrv(data, at);
    case 'PTR':
    case 'CNAME':
      return at + writeName(data.target, scratch, at);
    default:
      return undefined;
  }
}

const SRV_TARGET_OFFSET = 6;

/** A target is never compressed (RFC 2782), but what follows may point to it. */
function writeSrv(srv: Srv, at: number): number {
  scratch.writeUInt16BE(srv.priority, at);
  scratch.writeUInt16BE(srv.weight, at + 2);
  scratch.writeUInt16BE(srv.port, at + 4);
  const targetAt = at + SRV_TARGET_OFFSET;
  return targetAt + writeName(srv.target, scratch, targetAt);
}

function writeAddress(address: Ip, at: number): number {
  const bytes = ipToBytes(address);
  scratch.set(bytes, at);
  return bytes.length;
}

function encodeInGeneral(owner: Name, set: RecordSet, isAddress: boolean): string {
  const message = encodeFitting(owner, recordsOfSet(owner, set), set.additionals ?? []);
  const { questionEnd, records } = scanRecords(message);
  const answers = records.filter((record) => record.section === 'answer');
  const [first] = answers;
  const numbers = [
    set.type,
    answers.length,
    records.length - answers.length,
    isAddress && first !== undefined ? first.end - questionEnd : 0,
    (answers.at(-1)?.end ?? questionEnd) - questionEnd,
    message.length - questionEnd,
  ];
  const head = Buffer.alloc(SET_HEAD_BYTES);
  numbers.forEach((value, i) => {
    head.writeUInt16BE(value, i * 2);
  });
  return Buffer.concat([head, message.subarray(questionEnd)]).toString('latin1');
}

/** Leaves out what a message cannot hold: first the additional records, then answers from the end. */
function encodeFitting(
  owner: Name,
  answers: readonly ResourceRecord[],
  additionals: readonly ResourceRecord[],
): Uint8Array {
  const question = makeQuery(0, { name: owner, type: answers[0]?.type ?? 0 });
  for (let kept = answers, extra = additionals; ; ) {
    try {
      // The EDNS record that is added later needs its room too; so encode with it and cut it off.
      const bytes = encodeMessage({
        ...question,
        answers: kept,
        additionals: extra,
        edns: { udpPayloadBytes: 0, version: 0, dnssecOk: false, options: [] },
      });
      bytes[11] = extra.length;
      bytes[10] = extra.length >> 8;
      return bytes.slice(0, -OPT_BYTES);
    } catch (error) {
      if (!(error instanceof MessageTooLongError)) throw error;
      if (extra.length > 0) extra = [];
      else kept = kept.slice(0, Math.floor(kept.length * 0.9));
    }
  }
}

function broken(offset: number): DecodeError {
  return new DecodeError('these are no prepared records', {
    protocol: 'DNS',
    field: 'sets',
    offset,
  });
}
