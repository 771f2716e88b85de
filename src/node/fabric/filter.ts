/**
 * Who may send us encapsulated packets: the other nodes and nobody else. And what passes between nodes is not tracked: nobody
 * ever answers to the port that an encapsulated packet is from, so each of its entries would stay "new", be looked at by
 * everybody's rules for new connections, and take a place in the table. What is inside is tracked as ever. Pure.
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
import { counter, drop, jump, notrack } from '#wire/nftables/expressions.ts';
import { equals, inSet, ip, ip6, isUdp, notInSet, payload, th } from '#wire/nftables/match.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { portBytes } from '#wire/nftables/values.ts';
import type { RulesetPart } from '../ruleset.ts';
import { RAW_OUTPUT, RAW_PREROUTING } from '../shared-chains.ts';

/** Name of this feature's part of the ruleset. */
export const FABRIC_PART = 'fabric';
/** Underlay addresses of the other nodes. */
export const FABRIC_PEERS = 'fabric-peers';

const VNI_OFFSET_BYTES = 8 + 4;
const VNI_BYTES = 3;
const vni = Uint8Array.of(VXLAN_VNI >> 16, VXLAN_VNI >> 8, VXLAN_VNI);

export function fabricPart(family: 'ip' | 'ip6'): RulesetPart {
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  // The port first: it is all that is looked at of what pods say to each other.
  const enter = (chain: string) => ({
    expressions: [...equals(th.dport, portBytes(VXLAN_PORT)), ...isUdp, jump(chain)],
  });
  const isOurs = equals(payload('transport', VNI_OFFSET_BYTES, VNI_BYTES), vni);
  return {
    sets: [{ set: FABRIC_PEERS, key: [family === 'ip' ? 'ipv4_addr' : 'ipv6_addr'] }],
    chains: [
      {
        name: 'from-peers',
        rules: [
          {
            expressions: [...isOurs, ...notInSet([saddr], FABRIC_PEERS), counter(), drop],
            comment: 'encapsulated packets from who is no node',
          },
          { expressions: [...isOurs, notrack] },
        ],
      },
      {
        name: 'to-peers',
        rules: [{ expressions: [...isOurs, ...inSet([daddr], FABRIC_PEERS), notrack] }],
      },
      // Before connection tracking: what is dropped here must not fill its table.
      { ...RAW_PREROUTING, rules: [enter('from-peers')] },
      { ...RAW_OUTPUT, rules: [enter('to-peers')] },
    ],
  };
}

export function peerElements(peers: readonly Ip[], family: 'ip' | 'ip6'): SetElement[] {
  return peers
    .filter((address) => familyOf(address) === (family === 'ip' ? 4 : 6))
    .map((address) => ({ key: ipToBytes(address) }));
}
