/**
 * The balancer in nftables: what chains and maps there are. Pure. The elements are in `elements.ts`.
 *
 * ```text
 *  new connection ─► nat-prerouting     goes on after its endpoint has gone                  reject
 *                                       sources that a load balancer's ranges leave out      drop
 *                                       not from a pod: daddr . proto . dport map @outside-frontends vmap @choices
 *                                       daddr . proto . dport map @frontends vmap @choices
 *                        ├► nK          dnat to daddr . proto . dport . (numgen random mod K) map @endpoints
 *                        ├► hK          the same with a hash of the client's address
 *                        ├► reject-service, drop-service
 *                 ─► check-service      still a cluster IP: no such port, or nobody's         reject
 *                                       a frontend's, all the same                            drop
 *                 ─► nat-postrouting    where the answer would not come past this node        masquerade
 * ```
 * Packets of the node itself take the same maps from the output hooks. There is one chain per distinct number of slots
 * (and affinity timeout) and none per service or endpoint, so nothing is walked and the cost of a packet does not grow.
 * Later packets of a connection see none of this: conntrack translates them.
 *
 * A commit is one for packets that come after it. One that is on its way through these maps just then may find the number
 * of the old rules and no endpoint in the new ones. It must not be refused: a client that hears nothing tries again.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import { POD_LINK_PREFIX } from '#lib/kernel-objects.ts';
import type { KeyField } from '#wire/nftables/data-types.ts';
import {
  CT_STATE,
  CT_STATUS,
  dnat,
  drop,
  type Expression,
  goTo,
  jump,
  masquerade,
  type Register,
  rejectUnreachable,
  rejectWithReset,
  returnToCaller,
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
  isTcpWithoutSyn,
  loadConcat,
  masked,
  meta,
  notInSet,
  numgen,
  type Source,
  th,
} from '#wire/nftables/match.ts';
import { PRIORITY } from '#wire/nftables/objects.ts';
import { ifnameBytes } from '#wire/nftables/values.ts';
import type { ChainContent, SetContent } from '../ruleset.ts';
import { FORWARD, FORWARD_ORDER } from '../shared-chains.ts';
import { type ChainSpec, chainName } from './choices.ts';

export const FRONTENDS = 'frontends';
export const OUTSIDE_FRONTENDS = 'outside-frontends';
/** Numbers of frontends' chains to the chains, see `choices.ts`. */
export const CHOICES = 'choices';
export const ENDPOINTS = 'endpoints';
export const EXTERNAL_FRONTENDS = 'external-frontends';
export const RESTRICTED_FRONTENDS = 'restricted-frontends';
export const ALLOWED_SOURCES = 'allowed-sources';
export const AFFINITY = 'affinity';
export const AFFINITY_SLOTS = 'affinity-slots';
export const AFFINITY_ENDPOINTS = 'affinity-endpoints';
export const OUTSIDE_AFFINITY_ENDPOINTS = 'outside-affinity-endpoints';
export const CLUSTER_IPS = 'cluster-ips';
export const SERVICE_NETWORKS = 'service-networks';
export const HAIRPIN = 'hairpin';
/** Connections whose endpoint has gone and which conntrack has forgotten, see `connections.ts`. */
export const ENDED = 'ended-connections';

/** `IPPROTO_…` */
export const PROTOCOL_NUMBERS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };
export const REJECT_CHAIN = 'reject-service';
export const DROP_CHAIN = 'drop-service';
const SERVICES_CHAIN = 'services';
const WRONG_CHAIN = 'check-service';
const FORWARDED_CHAIN = 'check-forwarded';
const AFTER_DNAT = PRIORITY.dstnat + 10;
/** Slots for clients outside are numbered from here: behind any number of slots for those inside. */
export const OUTSIDE_SLOT = 1 << 16;
/**
 * Clients that are remembered at a time, per family; past this new ones are balanced without memory.
 * The kernel makes the hash table for so many at once: 4 MiB of buckets.
 */
const MAX_AFFINITY_CLIENTS = 262_144;
/** A client that says nothing for longer is led to another endpoint, which knows nothing of it and resets it. */
const ENDED_MS = 600_000;
/** All nodes must agree on it for ever: a change moves every client once. */
const HASH_SEED = 0x74756c6c;

/** The sets. Affinity's are made when a service first wants it: its hash table is large from the start. */
export function serviceSets(family: 'ip' | 'ip6', options: { affinity: boolean }): SetContent[] {
  const address: KeyField = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  const frontend: readonly KeyField[] = [address, 'inet_proto', 'inet_service'];
  const target: readonly KeyField[] = [address, 'inet_service'];
  return [
    { set: FRONTENDS, key: frontend, data: ['mark'] },
    { set: OUTSIDE_FRONTENDS, key: frontend, data: ['mark'] },
    { set: CHOICES, key: ['mark'], data: 'verdict' },
    { set: ENDPOINTS, key: [...frontend, 'mark'], data: target },
    { set: EXTERNAL_FRONTENDS, key: frontend },
    { set: RESTRICTED_FRONTENDS, key: frontend },
    { set: ALLOWED_SOURCES, key: [...frontend, address], interval: true },
    { set: CLUSTER_IPS, key: [address] },
    { set: SERVICE_NETWORKS, key: [address], interval: true },
    { set: HAIRPIN, key: [address, address] },
    {
      ...{ set: ENDED, key: [address, 'inet_service', address, 'inet_service'] as const },
      timeoutMs: ENDED_MS,
    },
    ...(options.affinity
      ? [
          {
            ...{ set: AFFINITY, key: [address, ...frontend], data: ['mark'] as const },
            ...{ dynamic: true, timeout: true, size: MAX_AFFINITY_CLIENTS },
          },
          { set: AFFINITY_SLOTS, key: [...frontend, 'mark'] as const, data: ['mark'] as const },
          { set: AFFINITY_ENDPOINTS, key: [...frontend, 'mark'] as const, data: target },
          { set: OUTSIDE_AFFINITY_ENDPOINTS, key: [...frontend, 'mark'] as const, data: target },
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
  const ended = {
    expressions: [...isTcpWithoutSyn, ...inSet([saddr, th.sport, daddr, th.dport], ENDED), reject],
    comment: 'its endpoint is gone: another might take it for one of its own',
  };
  const restrict = {
    expressions: [
      ...inSet(frontend, RESTRICTED_FRONTENDS),
      ...notInSet([...frontend, saddr], ALLOWED_SOURCES),
      drop,
    ],
    comment: 'not in loadBalancerSourceRanges',
  };
  const wrong = [
    {
      expressions: [
        ...inSet([daddr], CLUSTER_IPS),
        ...numberOf(frontend, FRONTENDS).expressions,
        drop,
      ],
      comment: 'the rules changed while it was led: it is sent again',
    },
    {
      expressions: [...inSet([daddr], CLUSTER_IPS), reject],
      comment: 'a cluster IP, but no such port',
    },
    {
      // What the machine itself has out of these networks (the DNS server's address) it answers itself.
      expressions: [
        ...inSet([daddr], SERVICE_NETWORKS),
        ...compare(meta.oifname, '!=', ifnameBytes('lo')),
        reject,
      ],
      comment: 'a cluster IP that no service has',
    },
  ];
  /**
   * Of a connection that is translated, but not translated itself: whoever gets it does not know its sender and resets
   * the other end (kubernetes#74839). A pod's packets pass here both ways, so none of a good connection is invalid.
   */
  const stray = ([meta.iifname, meta.oifname] as const).map((link) => ({
    expressions: [
      ...isTcp,
      ...anyBit(ct('state'), CT_STATE.invalid),
      ...equals(link, podLink),
      drop,
    ],
    comment: 'of a pod, and outside of what its connection is at',
  }));
  const checkNew = { expressions: [...isNew, jump(WRONG_CHAIN)] };
  const hide = masquerade({ fullyRandom: true });
  const balance = { expressions: [{ kind: 'verdict', verdict: goTo(SERVICES_CHAIN) } as const] };
  return [
    {
      name: REJECT_CHAIN,
      rules: [
        { expressions: [...isTcp, rejectWithReset] },
        { expressions: [rejectUnreachable(family)] },
      ],
    },
    {
      name: DROP_CHAIN,
      rules: [
        {
          expressions: [...isTcpWithoutSyn, rejectWithReset],
          comment: 'of a connection whose endpoint is gone',
        },
        { expressions: [drop] },
      ],
    },
    { name: SERVICES_CHAIN, rules: [{ expressions: balanceBy(frontend, FRONTENDS) }] },
    { name: WRONG_CHAIN, rules: wrong },
    { name: FORWARDED_CHAIN, rules: [...stray, checkNew] },
    {
      ...FORWARD,
      rules: [
        {
          order: FORWARD_ORDER.services,
          expressions: [
            ...anyBit(ct('state'), CT_STATE.new | CT_STATE.invalid),
            jump(FORWARDED_CHAIN),
          ],
        },
      ],
    },
    {
      name: 'filter-output-post-dnat',
      base: { type: 'filter', hook: 'output', priority: AFTER_DNAT },
      rules: [checkNew],
    },
    natChain('nat-prerouting', 'prerouting', PRIORITY.dstnat, [
      ended,
      restrict,
      {
        expressions: [
          ...compare(meta.iifname, '!=', podLink),
          ...balanceBy(frontend, OUTSIDE_FRONTENDS),
        ],
        comment: 'from outside: externalTrafficPolicy Local',
      },
      balance,
    ]),
    natChain('nat-output', 'output', PRIORITY.dstnat, [ended, restrict, balance]),
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
 * the frontend still has it; the second remembers a new one; the third is for when the memory is full. A client's
 * endpoint is remembered by its number.
 *
 * Registers, one or for IPv6 four per address: `saddr . daddr . proto . dport . number or slot . target address . port`
 */
export function balanceChain(family: 'ip' | 'ip6', spec: ChainSpec): ChainContent {
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  const addressRegisters = family === 'ip' ? 1 : 4;
  const key = loadConcat([saddr, daddr, meta.l4proto, th.dport]);
  const frontend = addressRegisters;
  const number = key.next;
  const target = number + 1;
  const port = target + addressRegisters;
  const offset = spec.isOutside ? OUTSIDE_SLOT : 0;
  const translate = dnat(family, { address: target, port });
  const slot: Expression =
    spec.pick === 'random'
      ? numgen('random', spec.count, offset).load(number)
      : {
          ...{ kind: 'jhash', from: 0, bytes: saddr.bytes, modulus: spec.count },
          ...{ seed: HASH_SEED, to: number, ...(offset === 0 ? {} : { offset }) },
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
    ...{ kind: 'dynset', set: AFFINITY, op, key: 0, data: number },
    ...(op === 'update' ? { timeoutMs } : {}),
  });
  const numbered: Expression = {
    ...{ kind: 'lookup', from: frontend, to: target },
    set: spec.isOutside ? OUTSIDE_AFFINITY_ENDPOINTS : AFFINITY_ENDPOINTS,
  };
  const remembered: Expression[] = [
    ...key.expressions,
    { kind: 'lookup', set: AFFINITY, from: 0, to: number },
    ...throughMark(number, port),
    numbered,
  ];
  const chosen: Expression[] = [
    ...key.expressions,
    slot,
    { kind: 'lookup', set: AFFINITY_SLOTS, from: frontend, to: number },
    ...throughMark(number, port),
  ];
  return {
    name,
    rules: [
      { expressions: [...remembered, write('update'), translate] },
      // An update leaves the data of an element as it is, so one that names a lost endpoint must go first.
      { expressions: [...chosen, numbered, write('delete'), write('update'), translate] },
      { expressions: [...choose, translate] },
    ],
  };
}

/** `key → number → chain`; a rule whose maps have nothing of the packet ends. */
function balanceBy(key: readonly Source[], frontends: string): Expression[] {
  const { expressions, register } = numberOf(key, frontends);
  return [...expressions, { kind: 'lookup', set: CHOICES, from: register, to: 'verdict' }];
}

/** `key → number`, in a register; a rule ends for a packet of which the map has nothing. */
function numberOf(
  key: readonly Source[],
  frontends: string,
): { expressions: Expression[]; register: Register } {
  const { expressions, register, next } = loadConcat(key);
  return {
    expressions: [
      ...expressions,
      { kind: 'lookup', set: frontends, from: register, to: register },
      ...throughMark(register, next),
    ],
    register,
  };
}

/**
 * Leaves all as it is: the value in `register` and the packet's mark. nft 1.0.6 aborts when it lists a rule in which a
 * value goes from one map straight into another; so for two expressions the value is the mark, and nft lists it as
 * `meta mark set … map @frontends meta mark set meta mark meta mark vmap @choices`.
 * @param spare a register whose content is lost
 */
function throughMark(register: Register, spare: Register): Expression[] {
  return [
    meta.mark.load(spare),
    { kind: 'set meta', key: 'mark', from: register },
    meta.mark.load(register),
    { kind: 'set meta', key: 'mark', from: spare },
  ];
}

function natChain(
  name: string,
  hook: 'prerouting' | 'output' | 'postrouting',
  priority: number,
  rules: ChainContent['rules'],
): ChainContent {
  return { name, base: { type: 'nat', hook, priority }, rules };
}
