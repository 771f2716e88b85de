/**
 * Packets that rules log to a group (`log group N`), over netlink.
 *
 * ```text
 *  nfgenmsg { family, version 0, res_id = group (big endian) }
 *  to the kernel:   NFULA_CFG_CMD { u8 }   NFULA_CFG_MODE { u32 range, u8 mode, u8 pad }   NFULA_CFG_TIMEOUT u32
 *  from it:         NFULA_PACKET_HDR { u16 protocol, u8 hook, u8 pad }  NFULA_IFINDEX_INDEV u32  …_OUTDEV u32
 *                   NFULA_PAYLOAD bytes from the network header on      NFULA_PREFIX text
 * ```
 * Integers are big endian. Source: `include/uapi/linux/netfilter/nfnetlink_log.h`.
 */
import { DecodeError } from '#lib/errors.ts';
import { type Ip, ipFromBytes } from '#lib/ip.ts';
import { readAttributes, readString } from '#wire/netlink/reader.ts';
import type { NetlinkWriter } from '#wire/netlink/writer.ts';

const NFNL_SUBSYS_ULOG = 4;
export const NFULNL_MSG_PACKET = NFNL_SUBSYS_ULOG << 8;
export const NFULNL_MSG_CONFIG = (NFNL_SUBSYS_ULOG << 8) | 1;

const NFULA_PACKET_HDR = 1;
const NFULA_IFINDEX_INDEV = 4;
const NFULA_IFINDEX_OUTDEV = 5;
const NFULA_PAYLOAD = 9;
const NFULA_PREFIX = 10;
const NFULA_CFG_CMD = 1;
const NFULA_CFG_MODE = 2;
const NFULA_CFG_TIMEOUT = 4;
const NFULNL_CFG_CMD_BIND = 1;
const NFULNL_COPY_PACKET = 2;
const NFGENMSG_BYTES = 4;

export interface LoggedPacket {
  readonly prefix: string;
  readonly hook: number;
  /** Interface indexes; 0 if there is none. */
  readonly inLink: number;
  readonly outLink: number;
  /** From the network header on, as much as the rule asked for. */
  readonly payload: Buffer;
}

/** Asks for the packets of a group, copied, and delivered without waiting for more than `timeoutCentiseconds`. */
export function encodeBind(
  writer: NetlinkWriter,
  options: { group: number; copyBytes: number; timeoutCentiseconds: number },
): void {
  encodeHeader(writer, options.group);
  writer.attributeU8(NFULA_CFG_CMD, NFULNL_CFG_CMD_BIND);
  const mode = Buffer.alloc(6);
  mode.writeUInt32BE(options.copyBytes, 0);
  mode.writeUInt8(NFULNL_COPY_PACKET, 4);
  writer.attributeBytes(NFULA_CFG_MODE, mode);
  writer.attributeU32Be(NFULA_CFG_TIMEOUT, options.timeoutCentiseconds);
}

function encodeHeader(writer: NetlinkWriter, group: number): void {
  writer.u8(0);
  writer.u8(0);
  writer.u16Be(group);
}

/** @throws DecodeError */
export function decodePacket(payload: Buffer): LoggedPacket {
  if (payload.length < NFGENMSG_BYTES)
    throw new DecodeError('too short', { protocol: 'nflog', field: 'nfgenmsg' });
  const attributes = readAttributes(payload, NFGENMSG_BYTES);
  const u32 = (type: number) => {
    const value = attributes.get(type);
    return value !== undefined && value.length >= 4 ? value.readUInt32BE(0) : 0;
  };
  const header = attributes.get(NFULA_PACKET_HDR);
  return {
    prefix: readString(attributes.get(NFULA_PREFIX) ?? Buffer.alloc(0)),
    hook: header !== undefined && header.length >= 3 ? header.readUInt8(2) : 0,
    inLink: u32(NFULA_IFINDEX_INDEV),
    outLink: u32(NFULA_IFINDEX_OUTDEV),
    payload: Buffer.from(attributes.get(NFULA_PAYLOAD) ?? Buffer.alloc(0)),
  };
}

/** Who talks to whom in a packet. */
export interface PacketEnds {
  readonly source: Ip;
  readonly destination: Ip;
  readonly protocol: number;
  /** TCP, UDP, SCTP. */
  readonly sourcePort: number | undefined;
  readonly destinationPort: number | undefined;
  /** ICMP and ICMPv6. */
  readonly icmpType: number | undefined;
}

const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
/** Hop-by-hop, routing, destination options: each gives its length and what follows. */
const EXTENSION_HEADERS: ReadonlySet<number> = new Set([0, 43, 60]);
const MAX_EXTENSION_HEADERS = 8;
const PORT_PROTOCOLS: ReadonlySet<number> = new Set([6, 17, 132]);
const ICMP_PROTOCOLS: ReadonlySet<number> = new Set([1, 58]);

/** Reads addresses and ports of an IPv4 or IPv6 packet. @returns undefined if it is neither, or cut too short */
export function readPacketEnds(packet: Buffer): PacketEnds | undefined {
  const version = (packet[0] ?? 0) >> 4;
  if (version === 4 && packet.length >= IPV4_HEADER_BYTES) {
    const at = ((packet[0] ?? 0) & 0x0f) * 4;
    return endsAt(packet, at, {
      source: ipFromBytes(packet.subarray(12, 16)),
      destination: ipFromBytes(packet.subarray(16, 20)),
      protocol: packet.readUInt8(9),
    });
  }
  if (version !== 6 || packet.length < IPV6_HEADER_BYTES) return undefined;
  let protocol = packet.readUInt8(6);
  let at = IPV6_HEADER_BYTES;
  for (let i = 0; i < MAX_EXTENSION_HEADERS && EXTENSION_HEADERS.has(protocol); i++) {
    if (packet.length < at + 2) break;
    protocol = packet.readUInt8(at);
    at += (packet.readUInt8(at + 1) + 1) * 8;
  }
  return endsAt(packet, at, {
    source: ipFromBytes(packet.subarray(8, 24)),
    destination: ipFromBytes(packet.subarray(24, 40)),
    protocol,
  });
}

function endsAt(
  packet: Buffer,
  at: number,
  network: Pick<PacketEnds, 'source' | 'destination' | 'protocol'>,
): PacketEnds {
  const hasPorts = PORT_PROTOCOLS.has(network.protocol) && packet.length >= at + 4;
  const hasType = ICMP_PROTOCOLS.has(network.protocol) && packet.length > at;
  return {
    ...network,
    sourcePort: hasPorts ? packet.readUInt16BE(at) : undefined,
    destinationPort: hasPorts ? packet.readUInt16BE(at + 2) : undefined,
    icmpType: hasType ? packet.readUInt8(at) : undefined,
  };
}
