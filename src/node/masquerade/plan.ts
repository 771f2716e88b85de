/**
 * Masquerade: what leaves the pod network takes this node's address, because nobody out there knows the way back.
 *
 * ```text
 *  pod  ─► pod      never: the other pod sees who it talks to
 *  pod  ─► outside  this node's address (pools with `natOutgoing`)
 *  node ─► pod      over VXLAN: the tunnel address, so that the answer takes the tunnel too
 * ```
 */
import { type Cidr, cidr, type Family, familyOf } from '#lib/ip.ts';
import { VXLAN_LINK } from '#lib/kernel-objects.ts';
import { masquerade, returnToCaller } from '#wire/nftables/expressions.ts';
import { equals, inPrefix, inSet, ip, ip6, meta, notInSet } from '#wire/nftables/match.ts';
import { PRIORITY, type SetElement } from '#wire/nftables/objects.ts';
import { ifnameBytes, prefixElements } from '#wire/nftables/values.ts';
import type { RulesetPart } from '../ruleset.ts';

export interface MasqueradePool {
  readonly cidr: Cidr;
  readonly natOutgoing: boolean;
}

/** All pools: destinations and sources that are pods. */
export const POD_NETWORKS = 'pod-networks';
/** The pools whose pods are hidden behind the node outside of {@link POD_NETWORKS}. */
export const MASQUERADED_NETWORKS = 'masqueraded-networks';

const MULTICAST: Readonly<Record<Family, Cidr>> = { 4: cidr('224.0.0.0/4'), 6: cidr('ff00::/8') };

export function masqueradePart(family: 'ip' | 'ip6'): RulesetPart {
  const key = [family === 'ip' ? ('ipv4_addr' as const) : ('ipv6_addr' as const)];
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  return {
    sets: [
      { set: POD_NETWORKS, key, interval: true },
      { set: MASQUERADED_NETWORKS, key, interval: true },
    ],
    chains: [
      {
        name: 'masquerade',
        base: { type: 'nat', hook: 'postrouting', priority: PRIORITY.srcnat },
        rules: [
          { expressions: [...inPrefix(daddr, MULTICAST[family === 'ip' ? 4 : 6]), returnToCaller] },
          {
            expressions: [
              ...inSet([saddr], MASQUERADED_NETWORKS),
              ...notInSet([daddr], POD_NETWORKS),
              masquerade({ fullyRandom: true }),
            ],
            comment: 'pod to outside',
          },
          {
            expressions: [
              ...equals(meta.oifname, ifnameBytes(VXLAN_LINK)),
              ...notInSet([saddr], POD_NETWORKS),
              masquerade({ fullyRandom: true }),
            ],
            comment: 'node to pod, through the tunnel',
          },
        ],
      },
    ],
  };
}

/** Pools never overlap (the API refuses it), so their intervals do not either. */
export function masqueradeElements(
  pools: readonly MasqueradePool[],
  family: 'ip' | 'ip6',
): { set: string; elements: SetElement[] }[] {
  const ours = pools.filter((pool) => familyOf(pool.cidr) === (family === 'ip' ? 4 : 6));
  const elementsOf = (some: readonly MasqueradePool[]) =>
    some.flatMap((pool) => prefixElements(pool.cidr));
  return [
    { set: POD_NETWORKS, elements: elementsOf(ours) },
    { set: MASQUERADED_NETWORKS, elements: elementsOf(ours.filter((pool) => pool.natOutgoing)) },
  ];
}
