/**
 * VLANs of a bridge and of its ports.
 *
 * ```text
 *  RTM_NEWLINK           IFLA_LINKINFO { "bridge", IFLA_INFO_DATA { IFLA_BR_VLAN_FILTERING u8 } }
 *  RTM_SETLINK, DELLINK  ifinfomsg of family AF_BRIDGE | IFLA_AF_SPEC
 *    ├ IFLA_BRIDGE_FLAGS      u16: BRIDGE_FLAGS_MASTER, the port's VLANs in its bridge; BRIDGE_FLAGS_SELF, the bridge's own
 *    └ IFLA_BRIDGE_VLAN_INFO  | flags u16 | vid u16 |    a range is two of them, its begin and its end
 * ```
 * Source: `include/uapi/linux/if_bridge.h`, `if_link.h`.
 */
import type { NetlinkWriter } from '../netlink/writer.ts';
import { AF_BRIDGE, AF_UNSPEC } from './constants.ts';

const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_BR_VLAN_FILTERING = 7;

const IFLA_AF_SPEC = 26;
const IFLA_BRIDGE_FLAGS = 0;
const IFLA_BRIDGE_VLAN_INFO = 2;
const BRIDGE_FLAGS_MASTER = 1;
const BRIDGE_FLAGS_SELF = 2;
const BRIDGE_VLAN_INFO_PVID = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED = 1 << 2;
const BRIDGE_VLAN_INFO_RANGE_BEGIN = 1 << 3;
const BRIDGE_VLAN_INFO_RANGE_END = 1 << 4;

/** VLANs from one to another, which may be the same. */
export interface BridgeVlan {
  readonly from: number;
  readonly to: number;
  /** What comes without a tag is of this VLAN. Of a single one only. */
  readonly pvid?: boolean;
  /** Leaves the port without a tag. */
  readonly untagged?: boolean;
}

/** Payload of `RTM_NEWLINK` without `NLM_F_CREATE`. Kernels without VLAN filtering refuse it, older ones accept it and do nothing. */
export function encodeVlanFiltering(writer: NetlinkWriter, bridge: number, on: boolean): void {
  encodeHeader(writer, AF_UNSPEC, bridge);
  writer.nested(IFLA_LINKINFO, () => {
    writer.attributeString(IFLA_INFO_KIND, 'bridge');
    writer.nested(IFLA_INFO_DATA, () => writer.attributeU8(IFLA_BR_VLAN_FILTERING, on ? 1 : 0));
  });
}

/**
 * Payload of `RTM_SETLINK`, which adds VLANs to a port, and of `RTM_DELLINK`, which takes them away.
 * @param whose `self`: the link is the bridge, and it is its own side of the VLANs that is meant
 */
export function encodeBridgeVlans(
  writer: NetlinkWriter,
  port: number,
  vlans: readonly BridgeVlan[],
  whose: 'port' | 'self' = 'port',
): void {
  encodeHeader(writer, AF_BRIDGE, port);
  writer.nested(IFLA_AF_SPEC, () => {
    writer.attributeBytes(
      IFLA_BRIDGE_FLAGS,
      u16s(whose === 'self' ? BRIDGE_FLAGS_SELF : BRIDGE_FLAGS_MASTER),
    );
    for (const { from, to, pvid = false, untagged = false } of vlans) {
      const flags = (pvid ? BRIDGE_VLAN_INFO_PVID : 0) | (untagged ? BRIDGE_VLAN_INFO_UNTAGGED : 0);
      if (from === to) writer.attributeBytes(IFLA_BRIDGE_VLAN_INFO, u16s(flags, from));
      else {
        const [begin, end] = [BRIDGE_VLAN_INFO_RANGE_BEGIN, BRIDGE_VLAN_INFO_RANGE_END];
        writer.attributeBytes(IFLA_BRIDGE_VLAN_INFO, u16s(flags | begin, from));
        writer.attributeBytes(IFLA_BRIDGE_VLAN_INFO, u16s(flags | end, to));
      }
    }
  });
}

function encodeHeader(writer: NetlinkWriter, family: number, index: number): void {
  writer.u8(family);
  writer.u8(0);
  writer.u16(0);
  writer.i32(index);
  writer.u32(0);
  writer.u32(0);
}

/** In the byte order of the machine, which is little endian on all that we run on. */
function u16s(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => [value & 0xff, value >> 8]));
}
