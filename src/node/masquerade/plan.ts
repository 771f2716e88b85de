/**
 * Masquerade: what leaves the pod network takes this node's address, because nobody out there knows the way back.
 *
 * ```text
 *  pod  ─► pod      never: the other pod sees who it talks to
 *  pod  ─► outside  this node's address (pools with `natOutgoing`)
 *  node ─► pod      over VXLAN: the tunnel address, so that the answer takes the tunnel too
 * ```
 */
import { type Cidr, cidr, type Family, familyOf, outermostCidrs } from '#lib/ip.ts';
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

/** Destinations outside that shall see the pods' own addresses (`config.ts`). */
export const EXEMPT_NETWORKS = 'exempt-networks';

const MULTICAST: Readonly<Record<Family, Cidr>> = { 4: cidr('224.0.0.0/4'), 6: cidr('ff00::/8') };

export function masqueradePart(family: 'ip' | 'ip6'): RulesetPart {
  const key = [family === 'ip' ? ('ipv4_addr' as const) : ('ipv6_addr' as const)];
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  return {
    sets: [
      { set: POD_NETWORKS, key, interval: true },
      { set: MASQUERADED_NETWORKS, key, interval: true },
      { set: EXEMPT_NETWORKS, key, interval: true },
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
              ...notInSet([daddr], EXEMPT_NETWORKS),
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

/** @param exempt networks that are not masqueraded to, beside the pods' own */
export function masqueradeElements(
  pools: readonly MasqueradePool[],
  exempt: readonly Cidr[],
  family: 'ip' | 'ip6',
): { set: string; elements: SetElement[] }[] {
  // Intervals of one set must not overlap.
  const elementsOf = (prefixes: readonly Cidr[]) =>
    outermostCidrs(
      prefixes.filter((prefix) => familyOf(prefix) === (family === 'ip' ? 4 : 6)),
    ).flatMap((prefix) => prefixElements(prefix));
  const cidrsOf = (some: readonly MasqueradePool[]) => some.map((pool) => pool.cidr);
  return [
    { set: POD_NETWORKS, elements: elementsOf(cidrsOf(pools)) },
    {
      set: MASQUERADED_NETWORKS,
      elements: elementsOf(cidrsOf(pools.filter((pool) => pool.natOutgoing))),
    },
    { set: EXEMPT_NETWORKS, elements: elementsOf(exempt) },
  ];
}
