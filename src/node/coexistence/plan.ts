/**
 * Other programs' firewalls on a node: what they would drop of the pods' traffic, and the rules that keep it going. Pure.
 *
 * In nftables a packet must pass every base chain of a hook: an `accept` in our table ends only our own chain, and a chain of
 * another table whose policy is drop still drops. So the one way is a rule in *their* chain. Docker sets
 * `iptables -P FORWARD DROP`, ufw drops what comes in, firewalld rejects at the end of both.
 *
 * ```text
 *  table ip filter                        table inet firewalld
 *    chain FORWARD { policy drop;           chain filter_FORWARD {
 *      jump TULLE-FORWARD    ◄─ ours ─►       jump TULLE-FORWARD
 *      jump DOCKER-USER …                     ct state … jump filter_FORWARD_ZONES, reject
 *    chain TULLE-FORWARD {                  …
 *      ip saddr 10.244.0.0/16 accept
 *      ip daddr 10.244.0.0/16 accept }
 * ```
 * An `accept` there ends their chain and no other: network policy is decided in our own table all the same.
 * A chain that some administrator wrote by hand is not touched; it is named as a problem.
 */
import { type Cidr, familyOf } from '#lib/ip.ts';
import { VXLAN_PORT } from '#lib/kernel-objects.ts';
import type { ChainState, RuleState, TableState } from '#linux/nftables/port.ts';
import { accept, counter, type Expression, jump } from '#wire/nftables/expressions.ts';
import { equals, inPrefix, ip, ip6, isUdp, meta, th } from '#wire/nftables/match.ts';
import { inTable, type NftFamily, type Operation, type TableRef } from '#wire/nftables/objects.ts';
import { portBytes } from '#wire/nftables/values.ts';

/** A chain of another program in which packets of pods may end. */
interface KnownChain extends TableRef {
  readonly chain: string;
  readonly hook: 'forward' | 'input';
  /** Our chain beside it. */
  readonly ours: string;
}

export const FORWARD_CHAIN = 'TULLE-FORWARD';
export const INPUT_CHAIN = 'TULLE-INPUT';
const COMMENT = 'tulle: pods pass this firewall; network policy decides elsewhere';
const PORT_DNS = 53;

/** `iptables` is iptables-nft, which Docker, ufw and kube-proxy use. */
export const KNOWN_CHAINS: readonly KnownChain[] = [
  ...(['ip', 'ip6'] as const).flatMap((family): KnownChain[] => [
    { family, table: 'filter', chain: 'FORWARD', hook: 'forward', ours: FORWARD_CHAIN },
    { family, table: 'filter', chain: 'INPUT', hook: 'input', ours: INPUT_CHAIN },
  ]),
  ...[
    { chain: 'filter_FORWARD', hook: 'forward', ours: FORWARD_CHAIN } as const,
    { chain: 'filter_INPUT', hook: 'input', ours: INPUT_CHAIN } as const,
  ].map((it): KnownChain => ({ family: 'inet', table: 'firewalld', ...it })),
];

export interface CoexistencePlan {
  readonly operations: readonly Operation[];
  /** Chains of others that now lead to ours, in words. */
  readonly opened: readonly string[];
  /** Chains that drop the pods' traffic and are not ours to change. */
  readonly problems: readonly string[];
}

/**
 * @param tables those of others with base chains at the hooks `forward` and `input`, without elements
 * @param pods the pools' networks
 */
export function planCoexistence(
  tables: readonly TableState[],
  pods: readonly Cidr[],
): CoexistencePlan {
  const operations: Operation[] = [];
  const opened: string[] = [];
  for (const known of KNOWN_CHAINS) {
    const table = tables.find((it) => it.family === known.family && it.table === known.table);
    const chain = table?.chains.find((it) => it.chain === known.chain);
    if (table === undefined || chain === undefined || table.dormant === true) continue;
    if (!isFirewall(chain, known.ours)) {
      operations.push(...removal(table, known));
      continue;
    }
    opened.push(`${known.family} ${known.table} ${known.chain}`);
    operations.push(...opening(table, chain, known, pods));
  }
  return { operations, opened, problems: tables.flatMap((table) => problemsOf(table)) };
}

/** Where an administrator wants none of our rules: what we put there earlier goes, and what drops is only named. */
export function planAbstention(tables: readonly TableState[]): CoexistencePlan {
  const problems = tables.flatMap((table) => problemsOf(table, 'also known ones'));
  return { operations: planRemoval(tables), opened: [], problems };
}

/** What takes all of ours out of others' tables. */
export function planRemoval(tables: readonly TableState[]): readonly Operation[] {
  return KNOWN_CHAINS.flatMap((known) => {
    const table = tables.find((it) => it.family === known.family && it.table === known.table);
    return table === undefined ? [] : removal(table, known);
  });
}

/** Whether it can stop a packet at all: `iptables -L` alone makes a chain that lets everything pass. */
function isFirewall(chain: ChainState, ours: string): boolean {
  return chain.base?.policy === 'drop' || chain.rules.some((rule) => !leadsTo(rule, ours));
}

function opening(
  table: TableState,
  chain: ChainState,
  known: KnownChain,
  pods: readonly Cidr[],
): Operation[] {
  const { chain: chains, rule } = inTable(known.family, known.table);
  const wanted = rulesOf(known, pods);
  const have = table.chains.find((it) => it.chain === known.ours);
  const operations: Operation[] = [];
  const isSame =
    have !== undefined &&
    fingerprint(have.rules.map((it) => it.expressions)) === fingerprint(wanted);
  if (!isSame) {
    operations.push(chains.add(known.ours));
    if (have !== undefined) operations.push(chains.flush(known.ours));
    for (const expressions of wanted)
      operations.push(rule.add(known.ours, expressions, { comment: COMMENT }));
  }
  if (!chain.rules.some((it) => leadsTo(it, known.ours)))
    operations.push(rule.insert(known.chain, [counter(), jump(known.ours)]));
  return operations;
}

function removal(table: TableState, known: KnownChain): Operation[] {
  const { chain: chains, rule } = inTable(known.family, known.table);
  if (!table.chains.some((it) => it.chain === known.ours)) return [];
  // Whoever copied our jump elsewhere would keep the chain from going.
  const jumps = table.chains.flatMap(({ chain, rules }) =>
    rules.filter((it) => leadsTo(it, known.ours)).map((it) => rule.delete(chain, it.handle)),
  );
  return [...jumps, chains.flush(known.ours), chains.delete(known.ours)];
}

/** Forwarded packets from and to pods; of those for the node itself, other nodes' tunnels and the pods' DNS. */
function rulesOf({ family, hook }: KnownChain, pods: readonly Cidr[]): readonly Expression[][] {
  const fitting = pods.filter(
    (pod) => family === 'inet' || (family === 'ip' ? 4 : 6) === familyOf(pod),
  );
  const from = (pod: Cidr) => matchPrefix(family, familyOf(pod) === 4 ? ip.saddr : ip6.saddr, pod);
  const to = (pod: Cidr) => matchPrefix(family, familyOf(pod) === 4 ? ip.daddr : ip6.daddr, pod);
  if (hook === 'forward')
    return fitting.flatMap((pod) => [
      [...from(pod), counter(), accept],
      [...to(pod), counter(), accept],
    ]);
  return [
    // Who is no node has been dropped before (`fabric/filter.ts`).
    [...isUdp, ...equals(th.dport, portBytes(VXLAN_PORT)), counter(), accept],
    ...fitting.flatMap((pod) =>
      [IPPROTO_UDP, IPPROTO_TCP].map((protocol) => [
        ...from(pod),
        ...equals(meta.l4proto, Uint8Array.of(protocol)),
        ...equals(th.dport, portBytes(PORT_DNS)),
        counter(),
        accept,
      ]),
    ),
  ];
}

const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;
const NFPROTO = { 4: 2, 6: 10 } as const;

function matchPrefix(
  family: NftFamily,
  source: (typeof ip)['saddr'] | (typeof ip6)['saddr'],
  prefix: Cidr,
): readonly Expression[] {
  const ofFamily =
    family === 'inet' ? equals(meta.nfproto, Uint8Array.of(NFPROTO[familyOf(prefix)])) : [];
  return [...ofFamily, ...inPrefix(source, prefix)];
}

function leadsTo(rule: RuleState, chain: string): boolean {
  return rule.expressions.some(
    ({ kind, ...it }) =>
      kind === 'verdict' && 'verdict' in it && 'chain' in it.verdict && it.verdict.chain === chain,
  );
}

/** Base chains that drop what they do not accept: those of unknown tables, which nobody opens, or all. */
function problemsOf(table: TableState, which?: 'also known ones'): string[] {
  const known = (chain: string) =>
    which === undefined &&
    KNOWN_CHAINS.some(
      (it) => it.family === table.family && it.table === table.table && it.chain === chain,
    );
  return table.chains
    .filter(
      ({ base, chain }) =>
        base?.policy === 'drop' && base.hook === 'forward' && !known(chain) && !table.dormant,
    )
    .map(
      ({ chain }) =>
        `chain "${chain}" of nftables table "${table.family} ${table.table}" drops forwarded packets by policy; pods reach nothing that it does not accept`,
    );
}

/** As text; counters count, and are no difference. */
function fingerprint(rules: readonly (readonly Expression[])[]): string {
  return JSON.stringify(
    rules.map((it) => it.filter((expression) => expression.kind !== 'counter')),
    (_, value: unknown) => {
      if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
      if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
      return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
    },
  );
}
