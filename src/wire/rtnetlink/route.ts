/**
 * Routes: `RTM_NEWROUTE`, `RTM_DELROUTE`, `RTM_GETROUTE`.
 *
 * ```text
 *  rtmsg | family u8 | dst length u8 | src length u8 | tos u8 | table u8 | protocol u8 | scope u8 | type u8 | flags u32 |
 *  RTA_DST, RTA_OIF, RTA_GATEWAY (or RTA_VIA when the gateway is of the other family), RTA_PREFSRC, RTA_PRIORITY,
 *  RTA_TABLE u32 (counts instead of the header's byte), RTA_METRICS { RTAX_MTU u32 … }
 *  RTA_MULTIPATH  rtnexthop | length u16 | flags u8 | hops u8 | index i32 | attributes … |, one after another
 * ```
 * Source: `include/uapi/linux/rtnetlink.h`.
 */
import { DecodeError } from '#lib/errors.ts';
import {
  type Cidr,
  type Family,
  familyOf,
  hostCidr,
  type Ip,
  ipToBytes,
  networkAddress,
  prefixLengthOf,
} from '#lib/ip.ts';
import { readAttributes } from '../netlink/reader.ts';
import type { NetlinkWriter } from '../netlink/writer.ts';
import {
  addressFamilyOf,
  familyFrom,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_COMPAT,
  RT_TABLE_UNSPEC,
} from './constants.ts';
import { expectHeader, readIp, readPrefix, readU32 } from './values.ts';

export const RTN_UNICAST = 1;
export const RTN_LOCAL = 2;
export const RTN_BLACKHOLE = 6;
export const RTN_UNREACHABLE = 7;
export const RTN_PROHIBIT = 8;
export const RTN_THROW = 9;

export const RTNH_F_ONLINK = 4;
/** The route is not in the table: it was derived for one destination (an answer to a lookup, a path MTU). */
export const RTM_F_CLONED = 0x200;
/** In a lookup: the answer names the table the route was found in. IPv4 only, IPv6 always does. */
const RTM_F_LOOKUP_TABLE = 0x1000;

const RTMSG_BYTES = 12;
const RTNEXTHOP_BYTES = 8;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RTA_VIA = 18;
const RTAX_MTU = 2;

export interface RouteMessage {
  readonly destination: Cidr;
  readonly table: number;
  /** `RTN_…`; 0 in a deletion is "any". */
  readonly type: number;
  /** `RT_SCOPE_…`; `RT_SCOPE_NOWHERE` in a deletion is "any". */
  readonly scope: number;
  /** `rtm_protocol`: who owns the route; 0 in a deletion is "any". */
  readonly protocol: number;
  /** `RTNH_F_…` and `RTM_F_…` */
  readonly flags: number;
  readonly index: number | undefined;
  readonly gateway: Ip | undefined;
  readonly source: Ip | undefined;
  readonly metric: number | undefined;
  readonly mtuBytes: number | undefined;
  /** Count of next hops of a multipath route, whose `index` and `gateway` are undefined; 0 for others. */
  readonly nextHops: number;
}

/** Payload of `RTM_NEWROUTE` and `RTM_DELROUTE`. `nextHops` is not written: we make no multipath routes. */
export function encodeRoute(writer: NetlinkWriter, route: Omit<RouteMessage, 'nextHops'>): void {
  const family = familyOf(route.destination);
  const prefixLength = prefixLengthOf(route.destination);
  encodeHeader(writer, { family, prefixLength, ...route });
  if (prefixLength > 0)
    writer.attributeBytes(RTA_DST, ipToBytes(networkAddress(route.destination)));
  writer.attributeU32(RTA_TABLE, route.table);
  if (route.index !== undefined) writer.attributeU32(RTA_OIF, route.index);
  if (route.gateway !== undefined) encodeGateway(writer, family, route.gateway);
  if (route.source !== undefined) writer.attributeBytes(RTA_PREFSRC, ipToBytes(route.source));
  if (route.metric !== undefined) writer.attributeU32(RTA_PRIORITY, route.metric);
  const { mtuBytes } = route;
  if (mtuBytes !== undefined)
    writer.nested(RTA_METRICS, () => writer.attributeU32(RTAX_MTU, mtuBytes));
}

/** Payload of a dump by `RTM_GETROUTE`; with strict checking the kernel filters. Absent is "all". */
export function encodeGetRoutes(
  writer: NetlinkWriter,
  filter: { family: Family; protocol?: number | undefined; table?: number | undefined },
): void {
  encodeHeader(writer, {
    family: filter.family,
    prefixLength: 0,
    table: RT_TABLE_UNSPEC,
    protocol: filter.protocol ?? 0,
    scope: RT_SCOPE_UNIVERSE,
    type: 0,
    flags: 0,
  });
  if (filter.table !== undefined) writer.attributeU32(RTA_TABLE, filter.table);
}

/** Payload of `RTM_GETROUTE` without dump: which route would a packet to this address take? */
export function encodeLookup(writer: NetlinkWriter, destination: Ip): void {
  const family = familyOf(destination);
  encodeHeader(writer, {
    family,
    prefixLength: prefixLengthOf(hostCidr(destination)),
    table: RT_TABLE_UNSPEC,
    protocol: 0,
    scope: RT_SCOPE_UNIVERSE,
    type: 0,
    flags: family === 4 ? RTM_F_LOOKUP_TABLE : 0,
  });
  writer.attributeBytes(RTA_DST, ipToBytes(destination));
}

/**
 * Reads the payload of `RTM_NEWROUTE` or `RTM_DELROUTE`.
 * @returns undefined for families other than IPv4 and IPv6 (multicast routing, MPLS)
 * @throws DecodeError
 */
export function decodeRoute(payload: Buffer): RouteMessage | undefined {
  expectHeader(payload, RTMSG_BYTES, 'rtmsg');
  const family = familyFrom(payload.readUInt8(0));
  if (family === undefined) return undefined;
  const attributes = readAttributes(payload, RTMSG_BYTES);
  const metrics = attributes.get(RTA_METRICS);
  return {
    destination: readPrefix(attributes.get(RTA_DST), payload.readUInt8(1), {
      family,
      field: 'RTA_DST',
    }),
    table: readU32(attributes.get(RTA_TABLE), 'RTA_TABLE') ?? payload.readUInt8(4),
    protocol: payload.readUInt8(5),
    scope: payload.readUInt8(6),
    type: payload.readUInt8(7),
    flags: payload.readUInt32LE(8),
    index: readU32(attributes.get(RTA_OIF), 'RTA_OIF'),
    gateway:
      readIp(attributes.get(RTA_GATEWAY), 'RTA_GATEWAY') ?? decodeVia(attributes.get(RTA_VIA)),
    source: readIp(attributes.get(RTA_PREFSRC), 'RTA_PREFSRC'),
    metric: readU32(attributes.get(RTA_PRIORITY), 'RTA_PRIORITY'),
    mtuBytes:
      metrics === undefined
        ? undefined
        : readU32(readAttributes(metrics).get(RTAX_MTU), 'RTAX_MTU'),
    nextHops: countNextHops(attributes.get(RTA_MULTIPATH)),
  };
}

function encodeHeader(
  writer: NetlinkWriter,
  header: {
    family: Family;
    prefixLength: number;
    table: number;
    protocol: number;
    scope: number;
    type: number;
    flags: number;
  },
): void {
  writer.u8(addressFamilyOf(header.family));
  writer.u8(header.prefixLength);
  writer.u8(0);
  writer.u8(0);
  writer.u8(header.table > 255 ? RT_TABLE_COMPAT : header.table);
  writer.u8(header.protocol);
  writer.u8(header.scope);
  writer.u8(header.type);
  writer.u32(header.flags);
}

/** `RTA_VIA` is the address family as u16 and the address: how an IPv4 route goes by an IPv6 gateway (RFC 5549). */
function encodeGateway(writer: NetlinkWriter, family: Family, gateway: Ip): void {
  if (familyOf(gateway) === family) {
    writer.attributeBytes(RTA_GATEWAY, ipToBytes(gateway));
    return;
  }
  const start = writer.beginAttribute(RTA_VIA);
  writer.u16(addressFamilyOf(familyOf(gateway)));
  writer.raw(ipToBytes(gateway));
  writer.endAttribute(start);
}

function decodeVia(value: Buffer | undefined): Ip | undefined {
  return value === undefined ? undefined : readIp(value.subarray(2), 'RTA_VIA');
}

function countNextHops(value: Buffer | undefined): number {
  let count = 0;
  for (let at = 0; value !== undefined && at < value.length; count++) {
    const length = at + 2 <= value.length ? value.readUInt16LE(at) : 0;
    if (length < RTNEXTHOP_BYTES || at + length > value.length)
      throw new DecodeError('the length does not fit the bytes', {
        protocol: 'rtnetlink',
        field: 'rtnexthop',
        offset: at,
      });
    at += (length + 3) & ~3;
  }
  return count;
}
