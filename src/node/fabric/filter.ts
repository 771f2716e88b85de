/**
 * Who may send us encapsulated packets: the other nodes and nobody else. Pure.
 *
 * A VXLAN device takes a packet from any sender that knows its VNI, so anybody on the underlay could put packets
 * into the pod network with any source. The filter looks at our VNI only: another program's overlay on the same port
 * is not our business.
 *
 * ```text
 *  | UDP header 8 | flags 1, reserved 3 | VNI 3 | reserved 1 | inner Ethernet …     RFC 7348 section 5
 * ```
 */
import { familyOf, type Ip, ipToBytes } from '#lib/ip.ts';
import { VXLAN_PORT, VXLAN_VNI } from '#lib/kernel-objects.ts';
import { counter, drop } from '#wire/nftables/expressions.ts';
import { equals, ip, ip6, isUdp, notInSet, payload, th } from '#wire/nftables/match.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { portBytes } from '#wire/nftables/values.ts';
import type { RulesetPart } from '../ruleset.ts';
import { RAW_PREROUTING } from '../shared-chains.ts';

/** Name of this feature's part of the ruleset. */
export const FABRIC_PART = 'fabric';
/** Underlay addresses of the other nodes. */
export const FABRIC_PEERS = 'fabric-peers';

const VNI_OFFSET_BYTES = 8 + 4;
const VNI_BYTES = 3;
const vni = Uint8Array.of(VXLAN_VNI >> 16, VXLAN_VNI >> 8, VXLAN_VNI);

export function fabricPart(family: 'ip' | 'ip6'): RulesetPart {
  const { saddr } = family === 'ip' ? ip : ip6;
  return {
    sets: [{ set: FABRIC_PEERS, key: [family === 'ip' ? 'ipv4_addr' : 'ipv6_addr'] }],
    chains: [
      {
        // Before connection tracking: what is dropped here must not fill its table.
        ...RAW_PREROUTING,
        rules: [
          {
            expressions: [
              // The port first: it is all that is looked at of what pods say to each other.
              ...equals(th.dport, portBytes(VXLAN_PORT)),
              ...isUdp,
              ...equals(payload('transport', VNI_OFFSET_BYTES, VNI_BYTES), vni),
              ...notInSet([saddr], FABRIC_PEERS),
              counter(),
              drop,
            ],
            comment: 'encapsulated packets from who is no node',
          },
        ],
      },
    ],
  };
}

export function peerElements(peers: readonly Ip[], family: 'ip' | 'ip6'): SetElement[] {
  return peers
    .filter((address) => familyOf(address) === (family === 'ip' ? 4 : 6))
    .map((address) => ({ key: ipToBytes(address) }));
}
