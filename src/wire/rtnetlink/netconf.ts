/**
 * Settings of the IP layer that the kernel tells of when they change: `RTM_NEWNETCONF`.
 *
 * ```text
 *  netconfmsg  | family u8 | (pad to 4) |
 *  NETCONFA_IFINDEX      s32: a link, or -1 for `all`, -2 for `default`
 *  NETCONFA_FORWARDING   s32   net/ipv[46]/conf/LINK/forwarding
 *  NETCONFA_RP_FILTER    s32   net/ipv4/conf/LINK/rp_filter
 *  NETCONFA_PROXY_NEIGH  s32   net/ipv4/conf/LINK/proxy_arp, net/ipv6/conf/LINK/proxy_ndp
 * ```
 * A change is told with the one setting; a message that holds several tells of a new link.
 * Sources: `include/uapi/linux/netconf.h`, `net/ipv4/devinet.c`, `net/ipv6/addrconf.c`.
 */
import type { Family } from '#lib/ip.ts';
import { readAttributes } from '../netlink/reader.ts';
import { familyFrom } from './constants.ts';
import { expectHeader, readI32 } from './values.ts';

const NETCONFMSG_BYTES = 4;
const NETCONFA_IFINDEX = 1;
const NETCONFA_FORWARDING = 2;
const NETCONFA_RP_FILTER = 3;
const NETCONFA_PROXY_NEIGH = 5;

export const NETCONFA_IFINDEX_ALL = -1;
export const NETCONFA_IFINDEX_DEFAULT = -2;

export interface NetconfMessage {
  readonly family: Family;
  /** A link's index, or `NETCONFA_IFINDEX_…`. */
  readonly index: number;
  readonly forwarding: number | undefined;
  readonly rpFilter: number | undefined;
  readonly proxyNeigh: number | undefined;
}

/**
 * Reads the payload of `RTM_NEWNETCONF`.
 * @returns undefined for families other than IPv4 and IPv6 (MPLS has its own)
 * @throws DecodeError
 */
export function decodeNetconf(payload: Buffer): NetconfMessage | undefined {
  expectHeader(payload, NETCONFMSG_BYTES, 'netconfmsg');
  const family = familyFrom(payload.readUInt8(0));
  const attributes = readAttributes(payload, NETCONFMSG_BYTES);
  const index = readI32(attributes.get(NETCONFA_IFINDEX), 'NETCONFA_IFINDEX');
  if (family === undefined || index === undefined) return undefined;
  const value = (type: number, field: string) => readI32(attributes.get(type), field);
  return {
    family,
    index,
    forwarding: value(NETCONFA_FORWARDING, 'NETCONFA_FORWARDING'),
    rpFilter: value(NETCONFA_RP_FILTER, 'NETCONFA_RP_FILTER'),
    proxyNeigh: value(NETCONFA_PROXY_NEIGH, 'NETCONFA_PROXY_NEIGH'),
  };
}
