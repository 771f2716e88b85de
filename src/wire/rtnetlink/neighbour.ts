/**
 * Neighbours (ARP, NDP) and forwarding entries of bridges and VXLAN devices: `RTM_NEWNEIGH`, `RTM_DELNEIGH`,
 * `RTM_GETNEIGH`.
 *
 * ```text
 *  ndmsg | family u8 | pad 3 | index i32 | state u16 | flags u8 | type u8 |
 *
 *               family    NDA_DST                     NDA_LLADDR
 *  neighbour    INET(6)   address of the neighbour    its MAC
 *  FDB, VXLAN   BRIDGE    underlay address of a VTEP  MAC that is reached there       (NTF_SELF: the device's own table)
 *  FDB, bridge  BRIDGE    -                           MAC that is reached by the port (NTF_MASTER, not ours)
 * ```
 * Source: `include/uapi/linux/neighbour.h`.
 */
import { type Ip, ipToBytes, type Mac, macToBytes } from '#lib/ip.ts';
import { readAttributes } from '../netlink/reader.ts';
import type { NetlinkWriter } from '../netlink/writer.ts';
import { expectHeader, readIp, readMac } from './values.ts';

export const NUD_REACHABLE = 0x02;
export const NUD_NOARP = 0x40;
export const NUD_PERMANENT = 0x80;

export const NTF_SELF = 0x02;

const NDMSG_BYTES = 12;
const NDA_DST = 1;
const NDA_LLADDR = 2;
const NDA_IFINDEX = 8;

export interface NeighbourMessage {
  /** `AF_INET`, `AF_INET6`, or `AF_BRIDGE` for a forwarding entry. */
  readonly family: number;
  readonly index: number;
  /** `NUD_…` */
  readonly state: number;
  /** `NTF_…` */
  readonly flags: number;
  readonly destination: Ip | undefined;
  readonly mac: Mac | undefined;
}

/** Payload of `RTM_NEWNEIGH` and `RTM_DELNEIGH`. */
export function encodeNeighbour(writer: NetlinkWriter, message: NeighbourMessage): void {
  encodeHeader(writer, message);
  if (message.destination !== undefined)
    writer.attributeBytes(NDA_DST, ipToBytes(message.destination));
  if (message.mac !== undefined) writer.attributeBytes(NDA_LLADDR, macToBytes(message.mac));
}

/** Payload of a dump by `RTM_GETNEIGH`; with strict checking the kernel filters. `AF_UNSPEC` is IPv4 and IPv6. */
export function encodeGetNeighbours(
  writer: NetlinkWriter,
  filter: { family: number; index?: number | undefined },
): void {
  encodeHeader(writer, { family: filter.family, index: 0, state: 0, flags: 0 });
  if (filter.index !== undefined) writer.attributeU32(NDA_IFINDEX, filter.index);
}

/** Reads the payload of `RTM_NEWNEIGH` or `RTM_DELNEIGH`. @throws DecodeError */
export function decodeNeighbour(payload: Buffer): NeighbourMessage {
  expectHeader(payload, NDMSG_BYTES, 'ndmsg');
  const attributes = readAttributes(payload, NDMSG_BYTES);
  return {
    family: payload.readUInt8(0),
    index: payload.readInt32LE(4),
    state: payload.readUInt16LE(8),
    flags: payload.readUInt8(10),
    destination: readIp(attributes.get(NDA_DST), 'NDA_DST'),
    mac: readMac(attributes.get(NDA_LLADDR)),
  };
}

function encodeHeader(
  writer: NetlinkWriter,
  header: { family: number; index: number; state: number; flags: number },
): void {
  writer.u8(header.family);
  writer.u8(0);
  writer.u16(0);
  writer.i32(header.index);
  writer.u16(header.state);
  writer.u8(header.flags);
  writer.u8(0);
}
