/**
 * The balancer in nftables: what chains and maps there are, and a service's elements in them. Pure.
 *
 * ```text
 *  new connection ─► filter-prerouting  daddr . proto . dport vmap @no-endpoints       reject or drop
 *                 ─► nat-prerouting     daddr . proto . dport vmap @frontends          goto nK (K endpoints)
 *                        └► nK          dnat to daddr . proto . dport . (numgen random mod K) map @endpoints
 *                 ─► nat-postrouting    saddr . daddr @hairpin                         masquerade
 * ```
 * Packets of the node itself take the same maps from the output hooks. There is one chain per distinct number of
 * endpoints and none per service or endpoint, so nothing is walked and the cost of a packet does not grow.
 * Later packets of a connection see none of this: conntrack translates them.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import { type Ip, ipToBytes } from '#lib/ip.ts';
import {
  CT_STATE,
  CT_STATUS,
  dnat,
  drop,
  type Expression,
  goTo,
  masquerade,
  rejectWith,
  rejectWithReset,
} from '#wire/nftables/expressions.ts';
import {
  anyBit,
  ct,
  inSet,
  ip,
  ip6,
  isTcp,
  loadConcat,
  meta,
  numgen,
  type Source,
  th,
  verdictMap,
} from '#wire/nftables/match.ts';
import { PRIORITY, type SetElement } from '#wire/nftables/objects.ts';
import { addressProtocolPort, concat, hostU32, portBytes } from '#wire/nftables/values.ts';
import type { ChainContent, RulesetPart } from '../ruleset.ts';
import type { Frontend } from './plan.ts';

export const FRONTENDS = 'frontends';
export const ENDPOINTS = 'endpoints';
export const NO_ENDPOINTS = 'no-endpoints';
export const CLUSTER_IPS = 'cluster-ips';
export const HAIRPIN = 'hairpin';

/** `IPPROTO_…` */
const PROTOCOL_NUMBERS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };
const REJECT_CHAIN = 'reject-service';
const DROP_CHAIN = 'drop-service';
const BEFORE_DNAT = PRIORITY.dstnat - 10;
const AFTER_DNAT = PRIORITY.dstnat + 10;

/** @param counts the numbers of endpoints that some frontend has */
export function servicesPart(family: 'ip' | 'ip6', counts: Iterable<number>): RulesetPart {
  const address = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  const frontend: Source[] = [daddr, meta.l4proto, th.dport];
  const isNew = anyBit(ct('state'), CT_STATE.new);
  const refuse = { expressions: [...isNew, ...verdictMap(frontend, NO_ENDPOINTS)] };
  const balance = { expressions: verdictMap(frontend, FRONTENDS) };
  const wrongPort = {
    expressions: [
      ...isNew,
      ...inSet([daddr], CLUSTER_IPS),
      { kind: 'verdict', verdict: goTo(REJECT_CHAIN) },
    ],
    comment: 'a cluster IP, but no such port',
  } satisfies ChainContent['rules'][number];
  return {
    sets: [
      { set: FRONTENDS, key: [address, 'inet_proto', 'inet_service'], data: 'verdict' },
      {
        set: ENDPOINTS,
        key: [address, 'inet_proto', 'inet_service', 'mark'],
        data: [address, 'inet_service'],
      },
      { set: NO_ENDPOINTS, key: [address, 'inet_proto', 'inet_service'], data: 'verdict' },
      { set: CLUSTER_IPS, key: [address] },
      { set: HAIRPIN, key: [address, address] },
    ],
    chains: [
      {
        name: REJECT_CHAIN,
        rules: [{ expressions: [...isTcp, rejectWithReset] }, { expressions: [rejectWith()] }],
      },
      { name: DROP_CHAIN, rules: [{ expressions: [drop] }] },
      ...[...counts].sort((a, b) => a - b).map((count) => countChain(family, count, frontend)),
      filterChain('filter-prerouting', 'prerouting', BEFORE_DNAT, refuse),
      filterChain('filter-output', 'output', BEFORE_DNAT, refuse),
      filterChain('filter-forward', 'forward', BEFORE_DNAT, wrongPort),
      filterChain('filter-output-post-dnat', 'output', AFTER_DNAT, wrongPort),
      natChain('nat-prerouting', 'prerouting', PRIORITY.dstnat, balance),
      natChain('nat-output', 'output', PRIORITY.dstnat, balance),
      natChain('nat-postrouting', 'postrouting', PRIORITY.srcnat, {
        expressions: [
          // Only what a service has led back: a node talks to its own address for other reasons too.
          ...anyBit(ct('status'), CT_STATUS.dnat),
          ...inSet([saddr, daddr], HAIRPIN),
          masquerade({ fullyRandom: true }),
        ],
        comment: 'a pod that reaches itself through a service must see another source',
      }),
    ],
  };
}

/** Where each element of a frontend goes: the set and the element, keyed so that plans can be compared. */
export function frontendElements(
  frontend: Frontend,
): Map<string, { set: string; element: SetElement }> {
  const elements = new Map<string, { set: string; element: SetElement }>();
  const protocol = PROTOCOL_NUMBERS[frontend.protocol];
  const key = addressProtocolPort(frontend.address, protocol, frontend.port);
  if (frontend.action !== 'balance') {
    const verdict = goTo(frontend.action === 'drop' ? DROP_CHAIN : REJECT_CHAIN);
    elements.set(NO_ENDPOINTS, { set: NO_ENDPOINTS, element: { key, verdict } });
    return elements;
  }
  const verdict = goTo(countChainName(frontend.slots.length));
  elements.set(FRONTENDS, { set: FRONTENDS, element: { key, verdict } });
  frontend.slots.forEach((target, slot) => {
    elements.set(`${ENDPOINTS} ${slot}`, {
      set: ENDPOINTS,
      element: {
        key: concat([key, hostU32(slot)]),
        data: concat([ipToBytes(target.address), portBytes(target.port)]),
      },
    });
  });
  return elements;
}

export function clusterIpElement(address: Ip): SetElement {
  return { key: ipToBytes(address) };
}

/** A local endpoint as source and, after translation, destination of one packet. */
export function hairpinElement(address: Ip): SetElement {
  const bytes = ipToBytes(address);
  return { key: concat([bytes, bytes]) };
}

function countChainName(count: number): string {
  return `n${count}`;
}

function countChain(
  family: 'ip' | 'ip6',
  count: number,
  frontend: readonly Source[],
): ChainContent {
  const { expressions, register } = loadConcat([...frontend, numgen('random', count)]);
  const addressRegisters = family === 'ip' ? 1 : 4;
  const translate: Expression[] = [
    ...expressions,
    { kind: 'lookup', set: ENDPOINTS, from: register, to: register },
    dnat(family, { address: register, port: register + addressRegisters }),
  ];
  return { name: countChainName(count), rules: [{ expressions: translate }] };
}

function filterChain(
  name: string,
  hook: 'prerouting' | 'forward' | 'output',
  priority: number,
  rule: ChainContent['rules'][number],
): ChainContent {
  return { name, base: { type: 'filter', hook, priority }, rules: [rule] };
}

function natChain(
  name: string,
  hook: 'prerouting' | 'output' | 'postrouting',
  priority: number,
  rule: ChainContent['rules'][number],
): ChainContent {
  return { name, base: { type: 'nat', hook, priority }, rules: [rule] };
}
