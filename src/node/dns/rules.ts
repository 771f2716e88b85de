/**
 * DNS traffic is not tracked: a query and its answer are the whole conversation, the answering address is the asked one,
 * and an entry in the connection table for each would fill it (and race: two queries from one port, the five seconds
 * that glibc then waits).
 *
 * ```text
 *   pod ──► prerouting  daddr DNS, port 53   notrack        answer ──► output  saddr DNS, port 53   notrack
 *   this machine's own processes, over lo: both chains see both directions
 * ```
 */
import { familyOf, type Ip, ipToBytes } from '#lib/ip.ts';
import { jump, notrack } from '#wire/nftables/expressions.ts';
import { compare, equals, ip, ip6, isTcp, isUdp, th } from '#wire/nftables/match.ts';
import { portBytes } from '#wire/nftables/values.ts';
import type { Ruleset, RulesetPart } from '../ruleset.ts';
import { RAW_OUTPUT, RAW_PREROUTING } from '../shared-chains.ts';

/** Name of this feature's part of the ruleset. */
export const DNS_PART = 'dns';
const DNS_PORT = 53;

/** @param addresses where DNS answers; those of the other family are left out */
export function dnsPart(family: 'ip' | 'ip6', addresses: readonly Ip[]): RulesetPart {
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  const own = addresses.filter((address) => familyOf(address) === (family === 'ip' ? 4 : 6));
  if (own.length === 0) return { sets: [], chains: [] };
  const ways = [
    { chain: 'to-dns', address: daddr, port: th.dport, comment: 'to DNS' },
    { chain: 'from-dns', address: saddr, port: th.sport, comment: 'from DNS' },
  ];
  // Of nearly all packets the ports are all that is looked at.
  const enter = ways.map(({ chain, port }) => ({
    expressions: [...compare(port, '==', portBytes(DNS_PORT)), jump(chain)],
  }));
  return {
    sets: [],
    chains: [
      ...ways.map(({ chain, address, comment }) => ({
        name: chain,
        rules: own.flatMap((it) =>
          [isUdp, isTcp].map((transport) => ({
            expressions: [...equals(address, ipToBytes(it)), ...transport, notrack],
            comment,
          })),
        ),
      })),
      { ...RAW_PREROUTING, rules: enter },
      { ...RAW_OUTPUT, rules: enter },
    ],
  };
}

/** Defines the part in each family's table; it is committed with what else is. */
export function defineDnsRules(rulesets: readonly Ruleset[], addresses: readonly Ip[]): void {
  for (const ruleset of rulesets) ruleset.define(DNS_PART, dnsPart(ruleset.family, addresses));
}
