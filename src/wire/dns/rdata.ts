/**
 * The data of resource records, one small pair of functions per type.
 *
 * Names inside data are compressed only in the types of RFC 1035 (RFC 3597 section 4). The data of any other type
 * is kept as bytes; it can hold no pointers, so it can be copied from one message to another.
 */
import { DecodeError } from '#lib/errors.ts';
import { familyOf, type Ip, ipFromBytes, ipToBytes } from '#lib/ip.ts';
import {
  TYPE_A,
  TYPE_AAAA,
  TYPE_CNAME,
  TYPE_MX,
  TYPE_NS,
  TYPE_PTR,
  TYPE_SOA,
  TYPE_SRV,
  TYPE_TXT,
} from './constants.ts';
import { decodeName, type Name } from './name.ts';
import type { DnsWriter } from './writer.ts';

/** RFC 1035 section 3.3.13. All intervals in seconds. */
export interface Soa {
  readonly primary: Name;
  /** The administrator's address with a dot for the `@`. */
  readonly mailbox: Name;
  readonly serial: number;
  readonly refreshS: number;
  readonly retryS: number;
  readonly expireS: number;
  /** How long a "does not exist" may be kept (RFC 2308 section 4). */
  readonly minimumS: number;
}

/** RFC 2782 */
export interface Srv {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly target: Name;
}

export type RecordData =
  | { readonly kind: 'A' | 'AAAA'; readonly address: Ip }
  | { readonly kind: 'NS' | 'CNAME' | 'PTR'; readonly target: Name }
  | ({ readonly kind: 'SOA' } & Soa)
  | ({ readonly kind: 'SRV' } & Srv)
  | { readonly kind: 'MX'; readonly preference: number; readonly target: Name }
  /** Each string has at most 255 octets. */
  | { readonly kind: 'TXT'; readonly strings: readonly Uint8Array[] }
  | { readonly kind: 'raw'; readonly bytes: Uint8Array };

/** Writes the data without its length. */
export function encodeRdata(writer: DnsWriter, data: RecordData): void {
  switch (data.kind) {
    case 'A':
    case 'AAAA':
      encodeAddress(writer, data);
      break;
    case 'NS':
    case 'CNAME':
    case 'PTR':
      writer.name(data.target);
      break;
    case 'SOA':
      encodeSoa(writer, data);
      break;
    case 'SRV':
      encodeSrv(writer, data);
      break;
    case 'MX':
      writer.u16(data.preference);
      writer.name(data.target);
      break;
    case 'TXT':
      encodeTxt(writer, data.strings);
      break;
    case 'raw':
      writer.raw(data.bytes);
      break;
  }
}

/**
 * Reads the data of a record of class IN.
 * @param message the whole message, which names may point into
 * @throws DecodeError if the data do not fill exactly the bytes from `at` to `end`
 */
export function decodeRdata(
  message: Uint8Array,
  type: number,
  at: number,
  end: number,
): RecordData {
  switch (type) {
    case TYPE_A:
      return { kind: 'A', address: decodeAddress(message, at, end, 4) };
    case TYPE_AAAA:
      return { kind: 'AAAA', address: decodeAddress(message, at, end, 16) };
    case TYPE_NS:
      return { kind: 'NS', target: decodeLastName(message, at, end) };
    case TYPE_CNAME:
      return { kind: 'CNAME', target: decodeLastName(message, at, end) };
    case TYPE_PTR:
      return { kind: 'PTR', target: decodeLastName(message, at, end) };
    case TYPE_SOA:
      return { kind: 'SOA', ...decodeSoa(message, at, end) };
    case TYPE_SRV:
      return { kind: 'SRV', ...decodeSrv(message, at, end) };
    case TYPE_MX: {
      const preference = u16(message, at, end);
      return { kind: 'MX', preference, target: decodeLastName(message, at + 2, end) };
    }
    case TYPE_TXT:
      return { kind: 'TXT', strings: decodeTxt(message, at, end) };
    default:
      return { kind: 'raw', bytes: message.slice(at, end) };
  }
}

function encodeAddress(writer: DnsWriter, data: { kind: 'A' | 'AAAA'; address: Ip }): void {
  if (familyOf(data.address) !== (data.kind === 'A' ? 4 : 6))
    throw new TypeError(`${data.address} cannot be the address of an ${data.kind} record`);
  writer.raw(ipToBytes(data.address));
}

function encodeSoa(writer: DnsWriter, soa: Soa): void {
  writer.name(soa.primary);
  writer.name(soa.mailbox);
  for (const value of [soa.serial, soa.refreshS, soa.retryS, soa.expireS, soa.minimumS])
    writer.u32(value);
}

function encodeSrv(writer: DnsWriter, srv: Srv): void {
  writer.u16(srv.priority);
  writer.u16(srv.weight);
  writer.u16(srv.port);
  writer.fullName(srv.target);
}

function encodeTxt(writer: DnsWriter, strings: readonly Uint8Array[]): void {
  // A TXT record has at least one string (RFC 1035 section 3.3.14).
  if (strings.length === 0) writer.u8(0);
  for (const string of strings) {
    if (string.length > 255)
      throw new RangeError(`a string of a TXT record has 255 octets at most, not ${string.length}`);
    writer.u8(string.length);
    writer.raw(string);
  }
}

function decodeAddress(message: Uint8Array, at: number, end: number, length: 4 | 16): Ip {
  if (end - at !== length) throw misfit('address', at);
  return ipFromBytes(message.subarray(at, end));
}

function decodeLastName(message: Uint8Array, at: number, end: number): Name {
  const { name, next } = decodeName(message, at);
  if (next !== end) throw misfit('name in data', at);
  return name;
}

function decodeSoa(message: Uint8Array, at: number, end: number): Soa {
  const primary = decodeName(message, at);
  const mailbox = decodeName(message, primary.next);
  const from = mailbox.next;
  if (end - from !== 20) throw misfit('SOA', at);
  return {
    primary: primary.name,
    mailbox: mailbox.name,
    serial: u32(message, from, end),
    refreshS: u32(message, from + 4, end),
    retryS: u32(message, from + 8, end),
    expireS: u32(message, from + 12, end),
    minimumS: u32(message, from + 16, end),
  };
}

function decodeSrv(message: Uint8Array, at: number, end: number): Srv {
  return {
    priority: u16(message, at, end),
    weight: u16(message, at + 2, end),
    port: u16(message, at + 4, end),
    target: decodeLastName(message, at + 6, end),
  };
}

function decodeTxt(message: Uint8Array, at: number, end: number): Uint8Array[] {
  const strings: Uint8Array[] = [];
  for (let from = at; from < end; ) {
    const length = message[from] ?? 0;
    if (from + 1 + length > end) throw misfit('TXT', from);
    strings.push(message.slice(from + 1, from + 1 + length));
    from += 1 + length;
  }
  if (strings.length === 0) throw misfit('TXT', at);
  return strings;
}

function u16(message: Uint8Array, at: number, end: number): number {
  if (at + 2 > end) throw misfit('data', at);
  return ((message[at] ?? 0) << 8) | (message[at + 1] ?? 0);
}

function u32(message: Uint8Array, at: number, end: number): number {
  return u16(message, at, end) * 0x10000 + u16(message, at + 2, end);
}

function misfit(field: string, offset: number): DecodeError {
  return new DecodeError('the data do not have the length of their record', {
    protocol: 'DNS',
    field,
    offset,
  });
}
