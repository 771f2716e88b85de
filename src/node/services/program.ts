/**
 * The balancer in nftables: what chains and maps there are, and a frontend's elements in them. Pure.
 *
 * ```text
 *  new connection ─► filter-prerouting  sources that a load balancer's ranges leave out      drop
 *                 ─► nat-prerouting     not from a pod: daddr . proto . dport vmap @outside-frontends
 *                                       daddr . proto . dport vmap @frontends
 *                        ├► nK          dnat to daddr . proto . dport . (numgen random mod K) map @endpoints
 *                        ├► hK          the same with a hash of the client's address
 *                        ├► reject-service, drop-service
 *                 ─► filter-forward     still a cluster IP: no such port, or nobody's         reject
 *                 ─► nat-postrouting    where the answer would not come past this node        masquerade
 * ```
 * Packets of the node itself take the same maps from the output hooks. There is one chain per distinct number of slots
 * (and affinity timeout) and none per service or endpoint, so nothing is walked and the cost of a packet does not grow.
 * Later packets of a connection see none of this: conntrack translates them.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import { type Cidr, type Ip, ipToBytes } from '#lib/ip.ts';
import { POD_LINK_PREFIX } from '#lib/kernel-objects.ts';
import type { KeyField } from '#wire/nftables/data-types.ts';
import {
  CT_STATE,
  CT_STATUS,
  dnat,
  drop,
  type Expression,
  goTo,
  masquerade,
  rejectUnreachable,
  rejectWithReset,
  returnToCaller,
  type Verdict,
} from '#wire/nftables/expressions.ts';
import {
  anyBit,
  compare,
  ct,
  equals,
  inSet,
  ip,
  ip6,
  isTcp,
  loadConcat,
  masked,
  meta,
  notInSet,
  numgen,
  type Source,
  th,
  verdictMap,
} from '#wire/nftables/match.ts';
import { PRIORITY, type SetElement } from '#wire/nftables/objects.ts';
import {
  addressProtocolPort,
  concat,
  ifnameBytes,
  portBytes,
  prefixBounds,
} from '#wire/nftables/values.ts';
import type { ChainContent, SetContent } from '../ruleset.ts';
import type { Choice, Frontend } from './plan.ts';
import type { EndpointTarget } from './slots.ts';

export const FRONTENDS = 'frontends';
export const OUTSIDE_FRONTENDS = 'outside-frontends';
export const ENDPOINTS = 'endpoints';
export const EXTERNAL_FRONTENDS = 'external-frontends';
export const RESTRICTED_FRONTENDS = 'restricted-frontends';
export const ALLOWED_SOURCES = 'allowed-sources';
export const AFFINITY = 'affinity';
export const AFFINITY_ENDPOINTS = 'affinity-endpoints';
export const OUTSIDE_AFFINITY_ENDPOINTS = 'outside-affinity-endpoints';
export const CLUSTER_IPS = 'cluster-ips';
export const SERVICE_NETWORKS = 'service-networks';
export const HAIRPIN = 'hairpin';

/** `IPPROTO_…` */
export const PROTOCOL_NUMBERS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };
const REJECT_CHAIN = 'reject-service';
const DROP_CHAIN = 'drop-service';
const BEFORE_DNAT = PRIORITY.dstnat - 10;
const AFTER_DNAT = PRIORITY.dstnat + 10;
/** Slots for clients outside are numbered from here: behind any number of slots for those inside. */
const OUTSIDE_SLOT = 1 << 16;
/**
 * Clients that are remembered at a time, per family; past this new ones are balanced without memory.
 * The kernel makes the hash table for so many at once: 4 MiB of buckets.
 */
const MAX_AFFINITY_CLIENTS = 262_144;
/** All nodes must agree on it for ever: a change moves every client once. */
const HASH_SEED = 0x74756c6c;

/** What tells one balancing chain from another. */
export interface ChainSpec {
  readonly pick: Frontend['pick'];
  readonly isOutside: boolean;
  readonly count: number;
  readonly affinitySeconds?: number;
}

/** The chains that a frontend's elements lead to. */
export function chainSpecsOf(frontend: Frontend): ChainSpec[] {
  const { pick, inside, outside, affinitySeconds } = frontend;
  const specOf = (choice: Choice, isOutside: boolean): ChainSpec[] =>
    choice.action !== 'balance'
      ? []
      : [
          {
            ...{ pick, isOutside, count: choice.slots.length },
            ...(affinitySeconds === undefined ? {} : { affinitySeconds }),
          },
        ];
  return inside === outside
    ? specOf(inside, false)
    : [...specOf(inside, false), ...specOf(outside, true)];
}

export function chainName({ pick, isOutside, count, affinitySeconds }: ChainSpec): string {
  const where = isOutside ? '-outside' : '';
  const affinity = affinitySeconds === undefined ? '' : `-for-${affinitySeconds}s`;
  return `${pick === 'random' ? 'n' : 'h'}${count}${where}${affinity}`;
}

/** The sets. Affinity's are made when a service first wants it: its hash table is large from the start. */
export function serviceSets(family: 'ip' | 'ip6', options: { affinity: boolean }): SetContent[] {
  const address: KeyField = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  const frontend: readonly KeyField[] = [address, 'inet_proto', 'inet_service'];
  const target: readonly KeyField[] = [address, 'inet_service'];
  return [
    { set: FRONTENDS, key: frontend, data: 'verdict' },
    { set: OUTSIDE_FRONTENDS, key: frontend, data: 'verdict' },
    { set: ENDPOINTS, key: [...frontend, 'mark'], data: target },
    { set: EXTERNAL_FRONTENDS, key: frontend },
    { set: RESTRICTED_FRONTENDS, key: frontend },
    { set: ALLOWED_SOURCES, key: [...frontend, address], interval: true },
    { set: CLUSTER_IPS, key: [address] },
    { set: SERVICE_NETWORKS, key: [address], interval: true },
    { set: HAIRPIN, key: [address, address] },
    ...(options.affinity
      ? [
          {
            ...{ set: AFFINITY, key: [address, ...frontend], data: target },
            ...{ dynamic: true, timeout: true, size: MAX_AFFINITY_CLIENTS },
          },
          { set: AFFINITY_ENDPOINTS, key: [...frontend, ...target] },
          { set: OUTSIDE_AFFINITY_ENDPOINTS, key: [...frontend, ...target] },
        ]
      : []),
  ];
}

/** The chains that packets enter by, and the verdicts without an endpoint. */
export function dispatchChains(family: 'ip' | 'ip6'): ChainContent[] {
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  const frontend: Source[] = [daddr, meta.l4proto, th.dport];
  const isNew = anyBit(ct('state'), CT_STATE.new);
  const podLink = ifnameBytes(POD_LINK_PREFIX).subarray(0, POD_LINK_PREFIX.length);
  const original: Source[] = [
    ct(family === 'ip' ? 'ip daddr' : 'ip6 daddr', 'original'),
    meta.l4proto,
    ct('proto-dst', 'original'),
  ];
  const reject: Expression = { kind: 'verdict', verdict: goTo(REJECT_CHAIN) };
  const restrict = {
    expressions: [
      ...isNew,
      ...inSet(frontend, RESTRICTED_FRONTENDS),
      ...notInSet([...frontend, saddr], ALLOWED_SOURCES),
      drop,
    ],
    comment: 'not in loadBalancerSourceRanges',
  };
  const wrong = [
    {
      expressions: [...isNew, ...inSet([daddr], CLUSTER_IPS), reject],
      comment: 'a cluster IP, but no such port',
    },
    {
      // What the machine itself has out of these networks (the DNS server's address) it answers itself.
      expressions: [
        ...isNew,
        ...inSet([daddr], SERVICE_NETWORKS),
        ...compare(meta.oifname, '!=', ifnameBytes('lo')),
        reject,
      ],
      comment: 'a cluster IP that no service has',
    },
  ];
  const hide = masquerade({ fullyRandom: true });
  const balance = { expressions: verdictMap(frontend, FRONTENDS) };
  return [
    {
      name: REJECT_CHAIN,
      rules: [
        { expressions: [...isTcp, rejectWithReset] },
        { expressions: [rejectUnreachable(family)] },
      ],
    },
    { name: DROP_CHAIN, rules: [{ expressions: [drop] }] },
    filterChain('filter-prerouting', 'prerouting', BEFORE_DNAT, [restrict]),
    filterChain('filter-output', 'output', BEFORE_DNAT, [restrict]),
    filterChain('filter-forward', 'forward', BEFORE_DNAT, wrong),
    filterChain('filter-output-post-dnat', 'output', AFTER_DNAT, wrong),
    natChain('nat-prerouting', 'prerouting', PRIORITY.dstnat, [
      {
        expressions: [
          ...compare(meta.iifname, '!=', podLink),
          ...verdictMap(frontend, OUTSIDE_FRONTENDS),
        ],
        comment: 'from outside: externalTrafficPolicy Local',
      },
      balance,
    ]),
    natChain('nat-output', 'output', PRIORITY.dstnat, [balance]),
    natChain('nat-postrouting', 'postrouting', PRIORITY.srcnat, [
      {
        expressions: [...masked(ct('status'), CT_STATUS.dnat, '==', 0), returnToCaller],
        comment: 'no service led it here',
      },
      {
        expressions: [...inSet([saddr, daddr], HAIRPIN), hide],
        comment: 'a pod that reaches itself through a service must see another source',
      },
      {
        expressions: [...equals(meta.iifname, podLink), returnToCaller],
        comment: 'from a pod here',
      },
      { expressions: [...equals(meta.oifname, podLink), returnToCaller], comment: 'to a pod here' },
      { expressions: [...equals(meta.oifname, ifnameBytes('lo')), returnToCaller] },
      {
        expressions: [...inSet(original.slice(0, 1), CLUSTER_IPS), hide],
        comment: 'neither end is here: the answer must come back past here',
      },
      { expressions: [...inSet(original, EXTERNAL_FRONTENDS), hide] },
    ]),
  ];
}

/**
 * A chain that chooses a slot and translates. With affinity the first rule takes the endpoint that the client had, if
 * the frontend still has it; the second remembers a new one; the third is for when the memory is full.
 * nft 1.0.6 cannot list a value that goes from one map into another, and aborts on a table with such a chain.
 *
 * Registers, one or for IPv6 four per address: `saddr . daddr . proto . dport . target address . target port`
 */
export function balanceChain(family: 'ip' | 'ip6', spec: ChainSpec): ChainContent {
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  const addressRegisters = family === 'ip' ? 1 : 4;
  const key = loadConcat([saddr, daddr, meta.l4proto, th.dport]);
  const frontend = addressRegisters;
  const target = key.next;
  const port = target + addressRegisters;
  const offset = spec.isOutside ? OUTSIDE_SLOT : 0;
  const translate = dnat(family, { address: target, port });
  const slot: Expression =
    spec.pick === 'random'
      ? numgen('random', spec.count, offset).load(target)
      : {
          ...{ kind: 'jhash', from: 0, bytes: saddr.bytes, modulus: spec.count },
          ...{ seed: HASH_SEED, to: target, ...(offset === 0 ? {} : { offset }) },
        };
  const choose: Expression[] = [
    ...key.expressions,
    slot,
    { kind: 'lookup', set: ENDPOINTS, from: frontend, to: target },
  ];
  const name = chainName(spec);
  if (spec.affinitySeconds === undefined)
    return { name, rules: [{ expressions: [...choose, translate] }] };
  const timeoutMs = spec.affinitySeconds * 1000;
  const write = (op: 'update' | 'delete'): Expression => ({
    ...{ kind: 'dynset', set: AFFINITY, op, key: 0, data: target },
    ...(op === 'update' ? { timeoutMs } : {}),
  });
  const remembered: Expression[] = [
    ...key.expressions,
    { kind: 'lookup', set: AFFINITY, from: 0, to: target },
    {
      ...{ kind: 'lookup', from: frontend },
      set: spec.isOutside ? OUTSIDE_AFFINITY_ENDPOINTS : AFFINITY_ENDPOINTS,
    },
  ];
  return {
    name,
    rules: [
      { expressions: [...remembered, write('update'), translate] },
      // An update leaves the data of an element as it is, so one that names a lost endpoint must go first.
      { expressions: [...choose, write('delete'), write('update'), translate] },
      { expressions: [...choose, translate] },
    ],
  };
}

/** The elements of a frontend in one of the sets. */
export function elementsOf(set: string, frontend: Frontend): Iterable<SetElement> {
  const { inside, outside, sources } = frontend;
  const key = () =>
    addressProtocolPort(frontend.address, PROTOCOL_NUMBERS[frontend.protocol], frontend.port);
  const isDivided = inside !== outside;
  switch (set) {
    case FRONTENDS:
      return [{ key: key(), verdict: verdictOf(frontend, inside, false) }];
    case OUTSIDE_FRONTENDS:
      return isDivided ? [{ key: key(), verdict: verdictOf(frontend, outside, true) }] : [];
    case ENDPOINTS:
      return isDivided
        ? [...slotElements(key(), inside, 0), ...slotElements(key(), outside, OUTSIDE_SLOT)]
        : slotElements(key(), inside, 0);
    case EXTERNAL_FRONTENDS:
      return frontend.kind === 'external' ? [{ key: key() }] : [];
    case RESTRICTED_FRONTENDS:
      return sources === undefined ? [] : [{ key: key() }];
    case ALLOWED_SOURCES:
      return sources?.map((range) => sourceElement(key(), range)) ?? [];
    case AFFINITY_ENDPOINTS:
      return frontend.affinitySeconds === undefined ? [] : memberElements(key(), inside);
    case OUTSIDE_AFFINITY_ENDPOINTS:
      return frontend.affinitySeconds === undefined || !isDivided
        ? []
        : memberElements(key(), outside);
    default:
      return [];
  }
}

/** How many {@link elementsOf} gives, without making them. */
export function countElements(set: string, frontend: Frontend): number {
  if (set === FRONTENDS) return 1;
  if (set !== ENDPOINTS) return [...elementsOf(set, frontend)].length;
  const { inside, outside } = frontend;
  return inside.slots.length + (inside === outside ? 0 : outside.slots.length);
}

/** The sets whose elements come from frontends. */
export const FRONTEND_SETS = [
  FRONTENDS,
  OUTSIDE_FRONTENDS,
  ENDPOINTS,
  EXTERNAL_FRONTENDS,
  RESTRICTED_FRONTENDS,
  ALLOWED_SOURCES,
  AFFINITY_ENDPOINTS,
  OUTSIDE_AFFINITY_ENDPOINTS,
] as const;

export function clusterIpElement(address: Ip): SetElement {
  return { key: ipToBytes(address) };
}

/** A local endpoint as source and, after translation, destination of one packet. */
export function hairpinElement(address: Ip): SetElement {
  const bytes = ipToBytes(address);
  return { key: concat([bytes, bytes]) };
}

function verdictOf(frontend: Frontend, choice: Choice, isOutside: boolean): Verdict {
  if (choice.action === 'drop') return goTo(DROP_CHAIN);
  if (choice.action === 'reject') return goTo(REJECT_CHAIN);
  const { pick, affinitySeconds } = frontend;
  const spec = { pick, isOutside, count: choice.slots.length };
  return goTo(chainName(affinitySeconds === undefined ? spec : { ...spec, affinitySeconds }));
}

function slotElements(frontend: Uint8Array, choice: Choice, firstSlot: number): SetElement[] {
  return choice.slots.map((target, index) => {
    const slot = firstSlot + index;
    const key = new Uint8Array(frontend.length + 4);
    key.set(frontend);
    // In host order, as numgen gives it.
    key[frontend.length] = slot;
    key[frontend.length + 1] = slot >>> 8;
    key[frontend.length + 2] = slot >>> 16;
    return { key, data: targetBytes(target) };
  });
}

function memberElements(frontend: Uint8Array, choice: Choice): SetElement[] {
  return [...new Set(choice.slots)].map((target) => ({
    key: concat([frontend, targetBytes(target)]),
  }));
}

function sourceElement(frontend: Uint8Array, range: Cidr): SetElement {
  const { first, last } = prefixBounds(range);
  return { key: concat([frontend, first]), keyEnd: concat([frontend, last]) };
}

function targetBytes({ address, port }: EndpointTarget): Uint8Array {
  return concat([ipToBytes(address), portBytes(port)]);
}

function filterChain(
  name: string,
  hook: 'prerouting' | 'forward' | 'output',
  priority: number,
  rules: ChainContent['rules'],
): ChainContent {
  return { name, base: { type: 'filter', hook, priority }, rules };
}

function natChain(
  name: string,
  hook: 'prerouting' | 'output' | 'postrouting',
  priority: number,
  rules: ChainContent['rules'],
): ChainContent {
  return { name, base: { type: 'nat', hook, priority }, rules };
}
