/**
 * Links: `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_GETLINK`, `RTM_SETLINK`.
 *
 * ```text
 *  ifinfomsg  | family u8 | pad u8 | type u16 | index i32 | flags u32 | change u32 |   (flags count where change has 1s)
 *  IFLA_LINKINFO
 *    ├ IFLA_INFO_KIND        "veth", "bridge", "vxlan"…
 *    ├ IFLA_INFO_DATA        attributes of the kind; for a veth VETH_INFO_PEER { ifinfomsg, attributes of the peer }
 *    ├ IFLA_INFO_SLAVE_KIND  "bridge": what the link's master is
 *    └ IFLA_INFO_SLAVE_DATA  IFLA_BRPORT_…
 * ```
 * Sources: `include/uapi/linux/{if,if_link,rtnetlink,veth}.h`.
 */
import { type Ip, ipToBytes, type Mac, macToBytes } from '#lib/ip.ts';
import { type Attributes, readAttributes, readString } from '../netlink/reader.ts';
import type { NetlinkWriter } from '../netlink/writer.ts';
import { AF_INET, AF_UNSPEC } from './constants.ts';
import { expectHeader, readI32, readIp, readMac, readU8, readU16Be, readU32 } from './values.ts';

export const IFF_UP = 0x1;
export const IFF_LOOPBACK = 0x8;
export const IFF_PROMISC = 0x100;
export const IFF_LOWER_UP = 0x10000;

/** Names have at most this many bytes: `IFNAMSIZ` counts the terminating zero. */
export const MAX_LINK_NAME_BYTES = 15;

const IFINFOMSG_BYTES = 16;
const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_GROUP = 27;
const IFLA_NET_NS_FD = 28;
const IFLA_EXT_MASK = 29;
const IFLA_LINK_NETNSID = 37;
/** Leaves the counters of IPv6 out of answers: some 600 bytes of each link. */
const RTEXT_FILTER_SKIP_STATS = 1 << 3;

const IFLA_AF_SPEC = 26;
const IFLA_INET_CONF = 1;
/** `IPV4_DEVCONF_…`, `include/uapi/linux/ip.h`, by the names that they have below `net/ipv4/conf/<link>/`. */
const IPV4_SETTINGS = { forwarding: 1, proxy_arp: 3, rp_filter: 8, route_localnet: 26 } as const;

/** Settings (sysctl) of a link for IPv4 that a message can set. */
export type Ipv4LinkSettings = Readonly<Partial<Record<keyof typeof IPV4_SETTINGS, number>>>;

const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;

const VETH_INFO_PEER = 1;

const IFLA_BR_AGEING_TIME = 4;
const IFLA_BR_STP_STATE = 5;
const IFLA_BR_NF_CALL_IPTABLES = 36;
const IFLA_BR_NF_CALL_IP6TABLES = 37;
const IFLA_BR_VLAN_FILTERING = 7;
/** Times of the bridge are in `USER_HZ`, which is 100 for every program on every machine. */
const USER_HZ = 100;

const IFLA_BRPORT_MODE = 4;
const IFLA_BRPORT_LEARNING = 8;
const IFLA_BRPORT_NEIGH_SUPPRESS = 32;
const IFLA_BRPORT_ISOLATED = 33;

const IFLA_VXLAN_ID = 1;
const IFLA_VXLAN_LINK = 3;
const IFLA_VXLAN_LOCAL = 4;
const IFLA_VXLAN_LEARNING = 7;
const IFLA_VXLAN_PORT = 15;
const IFLA_VXLAN_LOCAL6 = 17;
const IFLA_VXLAN_UDP_CSUM = 18;
const IFLA_VXLAN_UDP_ZERO_CSUM6_TX = 19;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX = 20;

const IFLA_MACVLAN_MODE = 1;
const IFLA_VLAN_ID = 1;
export const MACVLAN_MODE_PRIVATE = 1;
export const MACVLAN_MODE_BRIDGE = 4;

/** What a message says of a link. Only what the message holds is there. */
export interface LinkMessage {
  /** `AF_UNSPEC` for the link itself; `AF_BRIDGE` for a notice about its being a bridge port. */
  readonly family: number;
  readonly index: number;
  /** `IFF_…` */
  readonly flags: number;
  /** Which of the flags have changed; all ones for a link that was not there before. */
  readonly change: number;
  readonly name: string | undefined;
  readonly mac: Mac | undefined;
  readonly mtuBytes: number | undefined;
  readonly master: number | undefined;
  /** `IFLA_LINK`: peer of a veth, parent of a macvlan. */
  readonly lower: number | undefined;
  readonly lowerNetnsId: number | undefined;
  readonly kind: string | undefined;
  readonly vxlan: VxlanData | undefined;
  /** Of a bridge. */
  readonly vlanFiltering?: boolean | undefined;
  readonly bridgePort: BridgePortData | undefined;
}

export interface VxlanData {
  readonly vni: number;
  readonly port: number;
  readonly local: Ip | undefined;
  readonly device: number | undefined;
  readonly learning: boolean;
}

export interface BridgePortData {
  readonly hairpin: boolean;
  readonly isolated: boolean;
  readonly learning: boolean;
  readonly neighSuppress: boolean;
}

/** What a request sets. Absent is "leave as it is". */
export interface LinkAttributes {
  readonly name?: string | undefined;
  readonly mac?: Mac | undefined;
  readonly mtuBytes?: number | undefined;
  readonly master?: number | undefined;
  /** `IFLA_LINK`: the parent of a macvlan or of a VLAN. */
  readonly lower?: number | undefined;
  /** Descriptor of the namespace that the link goes to or is made in. */
  readonly netnsFd?: number | undefined;
  readonly up?: boolean | undefined;
  readonly promiscuous?: boolean | undefined;
  /** Links of one group can be deleted together. */
  readonly group?: number | undefined;
  /** Only of a link that is there: the kernel passes them over in a new one's message. */
  readonly ipv4?: Ipv4LinkSettings | undefined;
}

/** The kind of a new link with its data. */
export type LinkKind =
  | { readonly kind: 'veth'; readonly peer: LinkAttributes }
  | { readonly kind: 'bridge'; readonly ageingSeconds?: number; readonly stp?: boolean }
  | { readonly kind: 'vxlan'; readonly vxlan: VxlanData }
  | { readonly kind: 'macvlan'; readonly mode: number }
  | { readonly kind: 'vlan'; readonly id: number }
  | { readonly kind: 'ifb' };

/**
 * Payload of `RTM_NEWLINK` with `NLM_F_CREATE`.
 * The peer of a veth cannot be set up here: the kernel opens it before the two ends know each other (ENOTCONN).
 */
export function encodeNewLink(writer: NetlinkWriter, link: LinkAttributes & LinkKind): void {
  encodeAttributes(writer, 0, link);
  writer.nested(IFLA_LINKINFO, () => {
    writer.attributeString(IFLA_INFO_KIND, link.kind);
    writer.nested(IFLA_INFO_DATA, () => encodeKindData(writer, link));
  });
}

/** Payload of `RTM_SETLINK`. @param index 0 finds the link by the name in `change`, which is then not a new name */
export function encodeSetLink(writer: NetlinkWriter, index: number, change: LinkAttributes): void {
  encodeAttributes(writer, index, change);
}

/** Payload of `RTM_NEWLINK` without `NLM_F_CREATE` that changes how a bridge treats one of its ports. */
export function encodeBridgePort(
  writer: NetlinkWriter,
  index: number,
  change: Partial<BridgePortData>,
): void {
  const flags: readonly (readonly [number, boolean | undefined])[] = [
    [IFLA_BRPORT_MODE, change.hairpin],
    [IFLA_BRPORT_LEARNING, change.learning],
    [IFLA_BRPORT_NEIGH_SUPPRESS, change.neighSuppress],
    [IFLA_BRPORT_ISOLATED, change.isolated],
  ];
  encodeHeader(writer, { index, flags: 0, change: 0 });
  writer.nested(IFLA_LINKINFO, () => {
    writer.attributeString(IFLA_INFO_SLAVE_KIND, 'bridge');
    writer.nested(IFLA_INFO_SLAVE_DATA, () => {
      for (const [type, value] of flags)
        if (value !== undefined) writer.attributeU8(type, value ? 1 : 0);
    });
  });
}

/**
 * Payload of `RTM_NEWLINK` without `NLM_F_CREATE`: whether what a bridge passes from port to port goes through the
 * filters of its network protocol too, where the kernel has `br_netfilter`.
 */
export function encodeBridgeFilter(writer: NetlinkWriter, index: number, on: boolean): void {
  encodeHeader(writer, { index, flags: 0, change: 0 });
  writer.nested(IFLA_LINKINFO, () => {
    writer.attributeString(IFLA_INFO_KIND, 'bridge');
    writer.nested(IFLA_INFO_DATA, () => {
      for (const type of [IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES])
        writer.attributeU8(type, on ? 1 : 0);
    });
  });
}

/** Payload of `RTM_DELLINK`. */
export function encodeDeleteLink(writer: NetlinkWriter, index: number): void {
  encodeHeader(writer, { index, flags: 0, change: 0 });
}

/** Payload of `RTM_DELLINK` for all links of a group: the kernel waits once for all who may still use one of them. */
export function encodeDeleteGroup(writer: NetlinkWriter, group: number): void {
  encodeHeader(writer, { index: 0, flags: 0, change: 0 });
  writer.attributeU32(IFLA_GROUP, group);
}

/** Payload of `RTM_GETLINK`: one link by index or name, or all of them (a dump) if nothing is named. */
export function encodeGetLink(writer: NetlinkWriter, which?: string | number): void {
  encodeHeader(writer, { index: typeof which === 'number' ? which : 0, flags: 0, change: 0 });
  if (typeof which === 'string') writer.attributeString(IFLA_IFNAME, which);
  writer.attributeU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

/** Reads the payload of `RTM_NEWLINK` or `RTM_DELLINK`. @throws DecodeError */
export function decodeLink(payload: Buffer): LinkMessage {
  expectHeader(payload, IFINFOMSG_BYTES, 'ifinfomsg');
  const attributes = readAttributes(payload, IFINFOMSG_BYTES);
  const name = attributes.get(IFLA_IFNAME);
  const info = nestedIn(attributes, IFLA_LINKINFO);
  const kindName = info?.get(IFLA_INFO_KIND);
  const kind = kindName === undefined ? undefined : readString(kindName);
  const slaveKind = info?.get(IFLA_INFO_SLAVE_KIND);
  const data = info && nestedIn(info, IFLA_INFO_DATA);
  const slaveData = info && nestedIn(info, IFLA_INFO_SLAVE_DATA);
  return {
    family: payload.readUInt8(0),
    index: payload.readInt32LE(4),
    flags: payload.readUInt32LE(8),
    change: payload.readUInt32LE(12),
    name: name === undefined ? undefined : readString(name),
    mac: readMac(attributes.get(IFLA_ADDRESS)),
    mtuBytes: readU32(attributes.get(IFLA_MTU), 'IFLA_MTU'),
    master: readU32(attributes.get(IFLA_MASTER), 'IFLA_MASTER'),
    lower: readU32(attributes.get(IFLA_LINK), 'IFLA_LINK'),
    lowerNetnsId: readI32(attributes.get(IFLA_LINK_NETNSID), 'IFLA_LINK_NETNSID'),
    kind,
    vxlan: kind === 'vxlan' && data !== undefined ? decodeVxlan(data) : undefined,
    ...(kind === 'bridge' && data !== undefined ? decodeVlanFiltering(data) : {}),
    bridgePort:
      slaveKind !== undefined && readString(slaveKind) === 'bridge' && slaveData !== undefined
        ? decodeBridgePort(slaveData)
        : undefined,
  };
}

function encodeHeader(
  writer: NetlinkWriter,
  header: { index: number; flags: number; change: number },
): void {
  writer.u8(AF_UNSPEC);
  writer.u8(0);
  writer.u16(0);
  writer.i32(header.index);
  writer.u32(header.flags);
  writer.u32(header.change);
}

function encodeAttributes(writer: NetlinkWriter, index: number, link: LinkAttributes): void {
  let flags = 0;
  let change = 0;
  for (const [bit, value] of [
    [IFF_UP, link.up],
    [IFF_PROMISC, link.promiscuous],
  ] as const) {
    if (value === undefined) continue;
    change |= bit;
    if (value) flags |= bit;
  }
  encodeHeader(writer, { index, flags, change });
  if (link.name !== undefined) writer.attributeString(IFLA_IFNAME, link.name);
  if (link.mac !== undefined) writer.attributeBytes(IFLA_ADDRESS, macToBytes(link.mac));
  if (link.mtuBytes !== undefined) writer.attributeU32(IFLA_MTU, link.mtuBytes);
  if (link.lower !== undefined) writer.attributeU32(IFLA_LINK, link.lower);
  if (link.master !== undefined) writer.attributeU32(IFLA_MASTER, link.master);
  if (link.group !== undefined) writer.attributeU32(IFLA_GROUP, link.group);
  if (link.netnsFd !== undefined) writer.attributeU32(IFLA_NET_NS_FD, link.netnsFd);
  if (link.ipv4 !== undefined) encodeIpv4Settings(writer, link.ipv4);
}

function encodeIpv4Settings(writer: NetlinkWriter, settings: Ipv4LinkSettings): void {
  writer.nested(IFLA_AF_SPEC, () => {
    writer.nested(AF_INET, () => {
      writer.nested(IFLA_INET_CONF, () => {
        for (const [name, number] of Object.entries(IPV4_SETTINGS)) {
          const value = settings[name as keyof typeof IPV4_SETTINGS];
          if (value !== undefined) writer.attributeU32(number, value);
        }
      });
    });
  });
}

function encodeKindData(writer: NetlinkWriter, link: LinkKind): void {
  switch (link.kind) {
    case 'veth':
      writer.nested(VETH_INFO_PEER, () => encodeAttributes(writer, 0, link.peer));
      return;
    case 'bridge':
      if (link.ageingSeconds !== undefined)
        writer.attributeU32(IFLA_BR_AGEING_TIME, link.ageingSeconds * USER_HZ);
      if (link.stp !== undefined) writer.attributeU32(IFLA_BR_STP_STATE, link.stp ? 1 : 0);
      return;
    case 'vxlan':
      encodeVxlan(writer, link.vxlan);
      return;
    case 'macvlan':
      writer.attributeU32(IFLA_MACVLAN_MODE, link.mode);
      return;
    case 'vlan':
      // In the byte order of the machine, which is little endian on all that we run on.
      writer.attributeBytes(IFLA_VLAN_ID, Uint8Array.of(link.id & 0xff, link.id >> 8));
      return;
    case 'ifb':
  }
}

function encodeVxlan(writer: NetlinkWriter, vxlan: VxlanData): void {
  writer.attributeU32(IFLA_VXLAN_ID, vxlan.vni);
  writer.attributeU16Be(IFLA_VXLAN_PORT, vxlan.port);
  writer.attributeU8(IFLA_VXLAN_LEARNING, vxlan.learning ? 1 : 0);
  if (vxlan.device !== undefined) writer.attributeU32(IFLA_VXLAN_LINK, vxlan.device);
  if (vxlan.local !== undefined) {
    const bytes = ipToBytes(vxlan.local);
    writer.attributeBytes(bytes.length === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, bytes);
  }
  // Checksums over the outer packet: computed for both families. IPv6 has no header checksum of its own, so RFC 6935
  // allows zero there only where both ends were told to; and hardware that checks the outer sum saves the inner one.
  writer.attributeU8(IFLA_VXLAN_UDP_CSUM, 1);
  writer.attributeU8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 0);
  writer.attributeU8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 0);
}

function decodeVxlan(data: Attributes): VxlanData {
  const device = readU32(data.get(IFLA_VXLAN_LINK), 'IFLA_VXLAN_LINK');
  return {
    vni: readU32(data.get(IFLA_VXLAN_ID), 'IFLA_VXLAN_ID') ?? 0,
    port: readU16Be(data.get(IFLA_VXLAN_PORT), 'IFLA_VXLAN_PORT') ?? 0,
    local:
      readIp(data.get(IFLA_VXLAN_LOCAL), 'IFLA_VXLAN_LOCAL') ??
      readIp(data.get(IFLA_VXLAN_LOCAL6), 'IFLA_VXLAN_LOCAL6'),
    device: device === 0 ? undefined : device,
    learning: readU8(data.get(IFLA_VXLAN_LEARNING), 'IFLA_VXLAN_LEARNING') === 1,
  };
}

function decodeVlanFiltering(data: Attributes): { vlanFiltering?: boolean } {
  const value = readU8(data.get(IFLA_BR_VLAN_FILTERING), 'IFLA_BR_VLAN_FILTERING');
  return value === undefined ? {} : { vlanFiltering: value === 1 };
}

function decodeBridgePort(data: Attributes): BridgePortData {
  const flag = (type: number, field: string) => readU8(data.get(type), field) === 1;
  return {
    hairpin: flag(IFLA_BRPORT_MODE, 'IFLA_BRPORT_MODE'),
    isolated: flag(IFLA_BRPORT_ISOLATED, 'IFLA_BRPORT_ISOLATED'),
    learning: flag(IFLA_BRPORT_LEARNING, 'IFLA_BRPORT_LEARNING'),
    neighSuppress: flag(IFLA_BRPORT_NEIGH_SUPPRESS, 'IFLA_BRPORT_NEIGH_SUPPRESS'),
  };
}

function nestedIn(attributes: Attributes, type: number): Attributes | undefined {
  const value = attributes.get(type);
  return value === undefined ? undefined : readAttributes(value);
}
