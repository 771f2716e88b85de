/**
 * What our nftables tables ask of the kernel, each with the smallest transaction that needs it. Pure.
 *
 * What is `required` has no substitute: without it packets would go where they should not. For the others it is said
 * what is done instead.
 */
import {
  dnat,
  limit,
  log,
  masquerade,
  notrack,
  rejectUnreachable,
} from '#wire/nftables/expressions.ts';
import {
  anyBit,
  ct,
  fibType,
  inSet,
  ip,
  ip6,
  loadConcat,
  meta,
  numgen,
  setCtMark,
  th,
} from '#wire/nftables/match.ts';
import { inTable, type NftFamily, type Operation, PRIORITY } from '#wire/nftables/objects.ts';

export interface KernelFeature {
  readonly name: string;
  /** Of the kernel's configuration. */
  readonly option: string;
  /** What a node without it does; absent: it is required. */
  readonly otherwise?: string;
  /** Makes and deletes a table: nobody ever sees it. */
  readonly ask: (table: string) => readonly Operation[];
}

/** Services that choose an endpoint by a hash need it, and balance at random without. */
export const HASH = 'a choice by hash';

const FAMILIES = ['ip', 'ip6'] as const;
const address = { ip: 'ipv4_addr', ip6: 'ipv6_addr' } as const;
const filter = { type: 'filter', hook: 'forward', priority: PRIORITY.filter } as const;
const postrouting = { type: 'nat', hook: 'postrouting', priority: PRIORITY.srcnat } as const;
const prerouting = { type: 'nat', hook: 'prerouting', priority: PRIORITY.dstnat } as const;
const raw = { type: 'filter', hook: 'prerouting', priority: PRIORITY.raw } as const;

type Writer = ReturnType<typeof inTable>;

/** A transaction in each family, between making and deleting the table. */
function within(
  families: readonly NftFamily[],
  body: (family: 'ip' | 'ip6', writer: Writer) => readonly Operation[],
): (table: string) => readonly Operation[] {
  return (name) =>
    families.flatMap((family) => {
      const writer = inTable(family, name);
      const inner = family === 'ip6' ? 'ip6' : 'ip';
      return [writer.table.add(), ...body(inner, writer), writer.table.delete()];
    });
}

/** The first is asked first: without it the others say nothing. */
export const KERNEL_FEATURES: readonly KernelFeature[] = [
  {
    name: 'nftables for IPv4 and IPv6',
    option: 'CONFIG_NF_TABLES, CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6',
    ask: within(FAMILIES, (_, { chain }) => [chain.add('forward', { base: filter })]),
  },
  {
    name: 'maps of concatenated keys, and what packets write into them with a timeout',
    option: 'CONFIG_NF_TABLES (Linux 5.13 or later)',
    ask: within(FAMILIES, (family, { set, chain, rule }) => {
      const { saddr } = family === 'ip' ? ip : ip6;
      const key = loadConcat([saddr, meta.l4proto, th.dport]);
      const data = loadConcat([saddr, th.dport], key.next);
      return [
        set.add('map', {
          ...{ key: [address[family], 'inet_proto', 'inet_service'], timeout: true },
          ...{ data: [address[family], 'inet_service'], dynamic: true, size: 16 },
        }),
        chain.add('forward', { base: filter }),
        rule.add('forward', [
          ...key.expressions,
          ...data.expressions,
          { kind: 'dynset', set: 'map', op: 'update', key: 0, data: key.next, timeoutMs: 1000 },
        ]),
      ];
    }),
  },
  {
    name: 'intervals inside concatenated keys',
    option: 'CONFIG_NF_TABLES (Linux 5.6 or later)',
    ask: within(FAMILIES, (family, { set }) => [
      set.add('ranges', { key: ['inet_service', address[family]], interval: true }),
    ]),
  },
  {
    name: 'connection tracking in rules, marks on connections, and packets without tracking',
    option: 'CONFIG_NF_CONNTRACK, CONFIG_NF_CONNTRACK_MARK, CONFIG_NFT_CT',
    ask: within(FAMILIES, (_, { chain, rule }) => [
      chain.add('raw', { base: raw }),
      chain.add('forward', { base: filter }),
      rule.add('raw', [notrack]),
      rule.add('forward', [...anyBit(ct('state'), 1), ...setCtMark(1, 1)]),
    ]),
  },
  {
    name: 'translation of addresses',
    option: 'CONFIG_NF_NAT, CONFIG_NFT_NAT, CONFIG_NFT_MASQ',
    ask: within(FAMILIES, (family, { chain, rule }) => [
      chain.add('prerouting', { base: prerouting }),
      chain.add('postrouting', { base: postrouting }),
      rule.add('prerouting', [
        ...loadConcat([family === 'ip' ? ip.saddr : ip6.saddr, th.dport]).expressions,
        dnat(family, { address: 0, port: family === 'ip' ? 1 : 4 }),
      ]),
      rule.add('postrouting', [masquerade({ fullyRandom: true })]),
    ]),
  },
  {
    name: 'a choice at random',
    option: 'CONFIG_NFT_NUMGEN',
    ask: within(FAMILIES, (_, { chain, rule }) => [
      chain.add('choose', {}),
      rule.add('choose', [numgen('random', 2).load(0)]),
    ]),
  },
  {
    name: 'refusals',
    option: 'CONFIG_NFT_REJECT, CONFIG_NFT_REJECT_IPV4, CONFIG_NFT_REJECT_IPV6',
    ask: within(FAMILIES, (family, { chain, rule }) => [
      chain.add('forward', { base: filter }),
      rule.add('forward', [rejectUnreachable(family)]),
    ]),
  },
  {
    name: 'the type of an address',
    option: 'CONFIG_NFT_FIB_IPV4, CONFIG_NFT_FIB_IPV6',
    ask: within(FAMILIES, (_, { chain, rule }) => [
      chain.add('forward', { base: filter }),
      rule.add('forward', [fibType('daddr').load(0)]),
    ]),
  },
  {
    name: 'records of refused packets',
    option: 'CONFIG_NFT_LOG, CONFIG_NFT_LIMIT, CONFIG_NETFILTER_NETLINK_LOG',
    ask: within(FAMILIES, (_, { chain, rule }) => [
      chain.add('forward', { base: filter }),
      rule.add('forward', [limit(1, 'second'), log({ group: 0 })]),
    ]),
  },
  {
    name: HASH,
    option: 'CONFIG_NFT_HASH',
    otherwise: 'services with tulle.dev/balance source-hash or maglev balance at random',
    ask: within(FAMILIES, (family, { chain, rule }) => {
      const { saddr } = family === 'ip' ? ip : ip6;
      return [
        chain.add('choose', {}),
        rule.add('choose', [
          saddr.load(0),
          { kind: 'jhash', from: 0, bytes: saddr.bytes, modulus: 2, to: 0 },
        ]),
      ];
    }),
  },
  {
    name: 'rules on bridges',
    option: 'CONFIG_NF_TABLES_BRIDGE',
    otherwise: 'pods of networks with "mode": "bridge" are refused',
    ask: within(['bridge'], (_, { set, chain, rule }) => [
      set.add('addresses', { key: ['ifname', 'ipv4_addr'] }),
      chain.add('forward', { base: filter }),
      rule.add('forward', inSet([meta.iifname, ip.saddr], 'addresses')),
    ]),
  },
];
