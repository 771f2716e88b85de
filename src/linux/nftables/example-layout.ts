/** The service layout of the design as a transaction, for tests: maps, not chains, hold the services. */
import { type Cidr, cidr, type Ip, ip as ipOf, ipToBytes } from '#lib/ip.ts';
import {
  accept,
  dnat,
  goTo,
  jump,
  masquerade,
  notrack,
  rejectWith,
  rejectWithReset,
} from '#wire/nftables/expressions.ts';
import {
  equals,
  inSet,
  ip,
  ip6,
  isTcp,
  mapTo,
  meta,
  notInSet,
  numgen,
  th,
  verdictMap,
} from '#wire/nftables/match.ts';
import type { Transaction } from '#wire/nftables/objects.ts';
import { inTable, PRIORITY } from '#wire/nftables/objects.ts';
import {
  addressProtocolPort,
  concat,
  hostU32,
  portBytes,
  prefixElements,
} from '#wire/nftables/values.ts';

export interface ExampleLayout {
  readonly family: 'ip' | 'ip6';
  readonly service: Ip;
  readonly emptyService: Ip;
  readonly endpoints: readonly Ip[];
  readonly podNetwork: Cidr;
  readonly untracked: Ip;
}

export const EXAMPLE_V4: ExampleLayout = {
  family: 'ip',
  service: ipOf('10.96.0.1'),
  emptyService: ipOf('10.96.0.2'),
  endpoints: [ipOf('10.0.2.1'), ipOf('10.0.2.2')],
  podNetwork: cidr('10.0.1.0/24'),
  untracked: ipOf('169.254.20.10'),
};
export const EXAMPLE_V6: ExampleLayout = {
  family: 'ip6',
  service: ipOf('fd00:96::1'),
  emptyService: ipOf('fd00:96::2'),
  endpoints: [ipOf('fd00:2::1'), ipOf('fd00:2::2')],
  podNetwork: cidr('fd00:1::/64'),
  untracked: ipOf('fe80::53'),
};

const TCP = 6;
const SERVICE_PORT = 80;
const TARGET_PORT = 8080;

export function exampleLayout(layout: ExampleLayout): Transaction {
  const { table, chain, rule, set, elements } = inTable(layout.family, 'tulle');
  const header = layout.family === 'ip' ? ip : ip6;
  const addressType = layout.family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  const daddr = layout.family === 'ip' ? 'ip daddr' : 'ip6 daddr';
  const count = layout.endpoints.length;
  const key = [header.daddr, meta.l4proto, th.dport];
  const spread = [
    ...mapTo([...key, numgen('random', count)], 'endpoints'),
    // In the map's data the port follows the address: one register on for IPv4, four for IPv6.
    dnat(layout.family, { address: 0, port: layout.family === 'ip' ? 1 : 4 }),
  ];
  const nameOf = (address: Ip) => addressProtocolPort(address, TCP, SERVICE_PORT);
  return [
    table.add({ comment: 'Tulle' }),
    set.add('frontends', { key: [addressType, 'inet_proto', 'inet_service'], data: 'verdict' }),
    set.add('no-endpoints', { key: [addressType, 'inet_proto', 'inet_service'], data: 'verdict' }),
    set.add('endpoints', {
      key: [daddr, 'meta l4proto', 'th dport', `numgen random mod ${count}`],
      data: [daddr, 'th dport'],
    }),
    set.add('pods', { key: [addressType], interval: true, comment: 'pod networks' }),
    chain.add(`n${count}`, { comment: `services with ${count} endpoints` }),
    chain.add('reject'),
    chain.add('services'),
    ...(['prerouting', 'output'] as const).flatMap((hook) => [
      chain.add(`nat-${hook}`, { base: { type: 'nat', hook, priority: PRIORITY.dstnat } }),
      rule.add(`nat-${hook}`, [jump('services')]),
    ]),
    chain.add('filter-prerouting', {
      base: { type: 'filter', hook: 'prerouting', priority: PRIORITY.dstnat - 10 },
    }),
    chain.add('nat-postrouting', {
      base: { type: 'nat', hook: 'postrouting', priority: PRIORITY.srcnat },
    }),
    chain.add('raw', { base: { type: 'filter', hook: 'prerouting', priority: PRIORITY.raw } }),
    rule.add(`n${count}`, spread),
    rule.add('reject', [...isTcp, rejectWithReset]),
    rule.add('reject', [rejectWith('port-unreachable')]),
    rule.add('services', verdictMap(key, 'frontends')),
    rule.add('filter-prerouting', verdictMap(key, 'no-endpoints')),
    rule.add('nat-postrouting', [
      ...inSet([header.saddr], 'pods'),
      ...notInSet([header.daddr], 'pods'),
      masquerade({ fullyRandom: true }),
    ]),
    rule.add('raw', [...equals(header.daddr, ipToBytes(layout.untracked)), notrack, accept]),
    elements.add('endpoints', {
      *[Symbol.iterator]() {
        for (const [slot, endpoint] of layout.endpoints.entries())
          yield {
            key: Uint8Array.from([...nameOf(layout.service), ...hostU32(slot)]),
            data: concat([ipToBytes(endpoint), portBytes(TARGET_PORT)]),
          };
      },
    }),
    elements.add('frontends', [
      { key: nameOf(layout.service), verdict: goTo(`n${count}`), comment: 'default/web' },
    ]),
    elements.add('no-endpoints', [{ key: nameOf(layout.emptyService), verdict: goTo('reject') }]),
    elements.add('pods', prefixElements(layout.podNetwork)),
  ];
}
