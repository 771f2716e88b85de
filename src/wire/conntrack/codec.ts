/**
 * Conntrack entries over netlink (ctnetlink).
 *
 * ```text
 *  nfgenmsg { family, version 0, res_id 0 }
 *  CTA_TUPLE_ORIG, CTA_TUPLE_REPLY { CTA_TUPLE_IP { V4_SRC, V4_DST | V6_SRC, V6_DST },
 *                                    CTA_TUPLE_PROTO { NUM u8, SRC_PORT u16, DST_PORT u16 | ICMP_ID, _TYPE, _CODE } }
 *  CTA_STATUS u32   CTA_TIMEOUT u32   CTA_MARK u32   CTA_ID u32   CTA_ZONE u16
 *  CTA_PROTOINFO { CTA_PROTOINFO_TCP { CTA_PROTOINFO_TCP_STATE u8 } }
 * ```
 * Integers are big endian. Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
 */
import { DecodeError } from '#lib/errors.ts';
import { type Family, type Ip, ipFromBytes, ipToBytes } from '#lib/ip.ts';
import type { Attributes } from '#wire/netlink/reader.ts';
import { readAttributes } from '#wire/netlink/reader.ts';
import type { NetlinkWriter } from '#wire/netlink/writer.ts';

const NFNL_SUBSYS_CTNETLINK = 1;
export const IPCTNL_MSG_CT_NEW = NFNL_SUBSYS_CTNETLINK << 8;
export const IPCTNL_MSG_CT_GET = (NFNL_SUBSYS_CTNETLINK << 8) | 1;
export const IPCTNL_MSG_CT_DELETE = (NFNL_SUBSYS_CTNETLINK << 8) | 2;

const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_STATUS = 3;
const CTA_PROTOINFO = 4;
const CTA_TIMEOUT = 7;
const CTA_MARK = 8;
const CTA_MARK_MASK = 21;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_PROTOINFO_TCP = 1;
const CTA_PROTOINFO_TCP_STATE = 1;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
const CTA_PROTO_ICMP_ID = 4;
const CTA_PROTO_ICMP_TYPE = 5;
const CTA_PROTO_ICMP_CODE = 6;
const CTA_PROTO_ICMPV6_ID = 7;
const CTA_PROTO_ICMPV6_TYPE = 8;
const CTA_PROTO_ICMPV6_CODE = 9;

const AF_INET = 2;
const AF_INET6 = 10;
const NFGENMSG_BYTES = 4;
const NO_ATTRIBUTES: Attributes = new Map();

/** `include/uapi/linux/netfilter/nf_conntrack_common.h`, `enum ip_conntrack_status` */
export const CONNTRACK_STATUS = {
  seenReply: 1 << 1,
  assured: 1 << 2,
  confirmed: 1 << 3,
  sourceNat: 1 << 4,
  destinationNat: 1 << 5,
} as const;

/** `include/uapi/linux/netfilter/nf_conntrack_tcp.h`, `enum tcp_conntrack`: those of which there is use */
export const TCP_CONNTRACK = { established: 3, finWait: 4, closeWait: 5 } as const;

/** One direction of a connection, as its packets carry it. */
export interface ConntrackTuple {
  readonly source: Ip;
  readonly destination: Ip;
  /** IP protocol number. */
  readonly protocol: number;
  /** TCP, UDP, SCTP and the like. */
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly icmp?: { readonly id: number; readonly type: number; readonly code: number };
}

export interface ConntrackEntry {
  readonly family: Family;
  /** As the first packet came, before any translation. */
  readonly original: ConntrackTuple;
  /** As answers come: its source is where the connection really goes. */
  readonly reply: ConntrackTuple;
  /** Bits of {@link CONNTRACK_STATUS}. */
  readonly status: number;
  /** Of TCP: as {@link TCP_CONNTRACK}. */
  readonly tcpState?: number;
  /** Until it is forgotten without further packets. */
  readonly timeoutSeconds: number;
  readonly mark: number;
  /** Tells this entry from a later one of the same tuple. */
  readonly id: number;
  readonly zone: number;
}

/** `struct nfgenmsg`; no family is all of them. */
export function encodeConntrackHeader(writer: NetlinkWriter, family: Family | undefined): void {
  writer.u8(family === undefined ? 0 : family === 4 ? AF_INET : AF_INET6);
  writer.u8(0);
  writer.u16Be(0);
}

/** What names an entry in a deletion. With `id` a later entry of the same tuple is left alone. */
export function encodeConntrackName(
  writer: NetlinkWriter,
  entry: Pick<ConntrackEntry, 'original'> & Partial<Pick<ConntrackEntry, 'id' | 'zone'>>,
): void {
  encodeTuple(writer, CTA_TUPLE_ORIG, entry.original);
  if (entry.id !== undefined) writer.attributeU32Be(CTA_ID, entry.id);
  if (entry.zone !== undefined && entry.zone !== 0) writer.attributeU16Be(CTA_ZONE, entry.zone);
}

/** The bits of `mask` become those of `value`; others stay. */
export function encodeConntrackMark(
  writer: NetlinkWriter,
  { mask, value }: { mask: number; value: number },
): void {
  writer.attributeU32Be(CTA_MARK, value);
  writer.attributeU32Be(CTA_MARK_MASK, mask);
}

/** @throws DecodeError */
export function decodeConntrackEntry(payload: Buffer): ConntrackEntry {
  if (payload.length < NFGENMSG_BYTES) throw malformed('nfgenmsg', 'too short');
  const attributes = readAttributes(payload, NFGENMSG_BYTES);
  const original = decodeTuple(attributes, CTA_TUPLE_ORIG, 'original tuple');
  const tcpState = u8(
    nested(attributes, CTA_PROTOINFO, CTA_PROTOINFO_TCP),
    CTA_PROTOINFO_TCP_STATE,
  );
  return {
    family: payload.readUInt8(0) === AF_INET6 ? 6 : 4,
    original,
    reply: decodeTuple(attributes, CTA_TUPLE_REPLY, 'reply tuple'),
    status: u32(attributes, CTA_STATUS) ?? 0,
    ...(tcpState === undefined ? {} : { tcpState }),
    timeoutSeconds: u32(attributes, CTA_TIMEOUT) ?? 0,
    mark: u32(attributes, CTA_MARK) ?? 0,
    id: u32(attributes, CTA_ID) ?? 0,
    zone: u16(attributes, CTA_ZONE) ?? 0,
  };
}

function encodeTuple(writer: NetlinkWriter, attribute: number, tuple: ConntrackTuple): void {
  const source = ipToBytes(tuple.source);
  const isV4 = source.length === 4;
  const outer = writer.beginNested(attribute);
  const addresses = writer.beginNested(CTA_TUPLE_IP);
  writer.attributeBytes(isV4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, source);
  writer.attributeBytes(isV4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, ipToBytes(tuple.destination));
  writer.endAttribute(addresses);
  const protocol = writer.beginNested(CTA_TUPLE_PROTO);
  writer.attributeU8(CTA_PROTO_NUM, tuple.protocol);
  if (tuple.sourcePort !== undefined) writer.attributeU16Be(CTA_PROTO_SRC_PORT, tuple.sourcePort);
  if (tuple.destinationPort !== undefined)
    writer.attributeU16Be(CTA_PROTO_DST_PORT, tuple.destinationPort);
  if (tuple.icmp !== undefined) {
    const { id, type, code } = tuple.icmp;
    writer.attributeU16Be(isV4 ? CTA_PROTO_ICMP_ID : CTA_PROTO_ICMPV6_ID, id);
    writer.attributeU8(isV4 ? CTA_PROTO_ICMP_TYPE : CTA_PROTO_ICMPV6_TYPE, type);
    writer.attributeU8(isV4 ? CTA_PROTO_ICMP_CODE : CTA_PROTO_ICMPV6_CODE, code);
  }
  writer.endAttribute(protocol);
  writer.endAttribute(outer);
}

function decodeTuple(attributes: Attributes, attribute: number, field: string): ConntrackTuple {
  const bytes = attributes.get(attribute);
  if (bytes === undefined) throw malformed(field, 'the attribute is missing');
  const tuple = readAttributes(bytes);
  const addresses = readAttributes(tuple.get(CTA_TUPLE_IP) ?? Buffer.alloc(0));
  const protocol = readAttributes(tuple.get(CTA_TUPLE_PROTO) ?? Buffer.alloc(0));
  const number = u8(protocol, CTA_PROTO_NUM);
  if (number === undefined) throw malformed(field, 'the protocol is missing');
  const sourcePort = u16(protocol, CTA_PROTO_SRC_PORT);
  const destinationPort = u16(protocol, CTA_PROTO_DST_PORT);
  const icmp = decodeIcmp(protocol);
  return {
    source: address(addresses, CTA_IP_V4_SRC, CTA_IP_V6_SRC, field),
    destination: address(addresses, CTA_IP_V4_DST, CTA_IP_V6_DST, field),
    protocol: number,
    ...(sourcePort === undefined ? {} : { sourcePort }),
    ...(destinationPort === undefined ? {} : { destinationPort }),
    ...(icmp === undefined ? {} : { icmp }),
  };
}

function decodeIcmp(protocol: Attributes): ConntrackTuple['icmp'] {
  const id = u16(protocol, CTA_PROTO_ICMP_ID) ?? u16(protocol, CTA_PROTO_ICMPV6_ID);
  const type = u8(protocol, CTA_PROTO_ICMP_TYPE) ?? u8(protocol, CTA_PROTO_ICMPV6_TYPE);
  const code = u8(protocol, CTA_PROTO_ICMP_CODE) ?? u8(protocol, CTA_PROTO_ICMPV6_CODE);
  return id === undefined || type === undefined || code === undefined
    ? undefined
    : { id, type, code };
}

function address(attributes: Attributes, v4: number, v6: number, field: string): Ip {
  const short = attributes.get(v4);
  if (short?.length === 4) return ipFromBytes(short);
  const long = attributes.get(v6);
  if (long?.length === 16) return ipFromBytes(long);
  throw malformed(field, 'an address is missing or has a wrong length');
}

/** What stands under a path of attributes; nothing if there is none. */
function nested(attributes: Attributes, ...path: readonly number[]): Attributes {
  let inner = attributes;
  for (const type of path) {
    const bytes = inner.get(type);
    if (bytes === undefined) return NO_ATTRIBUTES;
    inner = readAttributes(bytes);
  }
  return inner;
}

function sized(attributes: Attributes, type: number, bytes: number): Buffer | undefined {
  const value = attributes.get(type);
  if (value !== undefined && value.length < bytes)
    throw malformed(`attribute ${type}`, `${value.length} bytes are not ${bytes}`);
  return value;
}
const u8 = (attributes: Attributes, type: number) => sized(attributes, type, 1)?.readUInt8(0);
const u16 = (attributes: Attributes, type: number) => sized(attributes, type, 2)?.readUInt16BE(0);
const u32 = (attributes: Attributes, type: number) => sized(attributes, type, 4)?.readUInt32BE(0);

function malformed(field: string, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'conntrack', field });
}
