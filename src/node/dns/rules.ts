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
import { type Expression, notrack } from '#wire/nftables/expressions.ts';
import { compare, equals, ip, ip6, isTcp, isUdp, th } from '#wire/nftables/match.ts';
import { PRIORITY } from '#wire/nftables/objects.ts';
import { portBytes } from '#wire/nftables/values.ts';
import type { Ruleset, RulesetPart } from '../ruleset.ts';

/** Name of this feature's part of the ruleset. */
export const DNS_PART = 'dns';
const DNS_PORT = 53;

/** @param addresses where DNS answers; those of the other family are left out */
export function dnsPart(family: 'ip' | 'ip6', addresses: readonly Ip[]): RulesetPart {
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  const rules: { expressions: Expression[]; comment: string }[] = addresses
    .filter((address) => familyOf(address) === (family === 'ip' ? 4 : 6))
    .flatMap((address) =>
      [isUdp, isTcp].flatMap((transport) => [
        {
          expressions: [
            ...equals(daddr, ipToBytes(address)),
            ...transport,
            ...compare(th.dport, '==', portBytes(DNS_PORT)),
            notrack,
          ],
          comment: 'to DNS',
        },
        {
          expressions: [
            ...equals(saddr, ipToBytes(address)),
            ...transport,
            ...compare(th.sport, '==', portBytes(DNS_PORT)),
            notrack,
          ],
          comment: 'from DNS',
        },
      ]),
    );
  if (rules.length === 0) return { sets: [], chains: [] };
  return {
    sets: [],
    chains: (['prerouting', 'output'] as const).map((hook) => ({
      name: `dns-${hook}`,
      base: { type: 'filter', hook, priority: PRIORITY.raw },
      rules,
    })),
  };
}

/** Defines the part in each family's table; it is committed with what else is. */
export function defineDnsRules(rulesets: readonly Ruleset[], addresses: readonly Ip[]): void {
  for (const ruleset of rulesets) ruleset.define(DNS_PART, dnsPart(ruleset.family, addresses));
}
