/** Policy in figures: what is programmed, and how often each rule decided. */
import { Gauge, type Registry } from 'prom-client';
import type { RuleUsage } from '#api/tulle/v1alpha1/policy-usage.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { Policy } from './policy.ts';

const CHAINS = /^(np|tier|pods|policy)-/;

/** Reads the counters out of the kernel: costs as much as there are rules, so only on demand. */
export function readRuleCounts(nftables: Nftables, table: string): RuleUsage[] {
  const counts = new Map<string, { packets: number; bytes: number }>();
  for (const family of ['ip', 'ip6'] as const)
    for (const chain of nftables.dumpTable(family, table, { elements: false })?.chains ?? []) {
      if (!CHAINS.test(chain.chain)) continue;
      for (const { comment, expressions } of chain.rules) {
        const counter = expressions.find((expression) => expression.kind === 'counter');
        if (comment === undefined || counter?.kind !== 'counter') continue;
        const sum = counts.get(comment) ?? { packets: 0, bytes: 0 };
        sum.packets += Number(counter.packets);
        sum.bytes += Number(counter.bytes);
        counts.set(comment, sum);
      }
    }
  return [...counts].map(([rule, sum]) => ({ rule, ...sum }));
}

export function registerPolicyMetrics(
  registry: Registry,
  parts: {
    policy: Policy;
    counts: () => RuleUsage[];
    cuts: () => number;
    suppressed: () => number;
  },
): void {
  const { policy, counts, cuts, suppressed } = parts;
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  gauge('tulle_policies', 'Policies that are known.', () => policy.status().policies);
  gauge('tulle_policy_pods', 'Pods of this node.', () => policy.status().localPods);
  gauge('tulle_policy_cut_connections_total', 'Connections that a change of policy ended.', cuts);
  gauge(
    'tulle_policy_log_suppressed_total',
    'Log records left out, there were too many.',
    suppressed,
  );
  const domains = () => policy.domains.memory.counts;
  gauge(
    'tulle_policy_domain_names',
    'Domain names of policies that pods asked for.',
    () => domains().names,
  );
  gauge(
    'tulle_policy_domain_addresses',
    'Addresses of such names to which connections may begin.',
    () => domains().addresses,
  );
  // One walk over the rules fills both.
  const bytes = new Gauge({
    name: 'tulle_policy_rule_bytes',
    help: 'Bytes of the first packets of connections that a rule decided about.',
    labelNames: ['rule'],
    registers: [registry],
  });
  new Gauge({
    name: 'tulle_policy_rule_packets',
    help: 'First packets of connections that a rule decided about.',
    labelNames: ['rule'],
    registers: [registry],
    collect() {
      this.reset();
      bytes.reset();
      for (const count of counts()) {
        this.set({ rule: count.rule }, count.packets);
        bytes.set({ rule: count.rule }, count.bytes);
      }
    },
  });
}
