/** Policy in figures: what is programmed, and how often each rule decided. */
import { setImmediate } from 'node:timers/promises';
import { Gauge, type Registry } from 'prom-client';
import type { RuleUsage } from '#api/tulle/v1alpha1/policy-usage.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { Policy, PolicyStatus } from './policy.ts';

const CHAINS = /^(np|tier|pods|policy)-/;

/** Pods are attached and names answered by the same thread: then it is others' turn. */
const MAX_TURN_MS = 2;

/**
 * Reads the counters out of the kernel: costs as much as there are rules, so only on demand. Chain by chain, with turns of
 * the event loop between: a chain that goes meanwhile has no counters.
 */
export async function readRuleCounts(
  nftables: Pick<Nftables, 'listChains' | 'countsOf'>,
  table: string,
): Promise<RuleUsage[]> {
  const sums = new Map<string, { packets: number; bytes: number }>();
  let turnBeganMs = performance.now();
  for (const family of ['ip', 'ip6'] as const)
    for (const chain of nftables.listChains(family, table)) {
      if (!CHAINS.test(chain)) continue;
      if (performance.now() - turnBeganMs > MAX_TURN_MS) {
        await setImmediate();
        turnBeganMs = performance.now();
      }
      for (const { comment, packets, bytes } of nftables.countsOf({ family, table, chain })) {
        const sum = sums.get(comment) ?? { packets: 0, bytes: 0 };
        sum.packets += Number(packets);
        sum.bytes += Number(bytes);
        sums.set(comment, sum);
      }
    }
  return [...sums].map(([rule, sum]) => ({ rule, ...sum }));
}

export function registerPolicyMetrics(
  registry: Registry,
  parts: {
    policy: {
      status(): Pick<PolicyStatus, 'policies' | 'localPods'>;
      readonly domains: { readonly memory: Pick<Policy['domains']['memory'], 'counts'> };
    };
    counts: () => Promise<RuleUsage[]>;
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
  let walk: Promise<RuleUsage[]> | undefined;
  const walked = (): Promise<RuleUsage[]> => {
    walk ??= counts().finally(() => {
      walk = undefined;
    });
    return walk;
  };
  const perRule = (name: string, help: string, value: (count: RuleUsage) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['rule'],
      registers: [registry],
      async collect() {
        const all = await walked();
        this.reset();
        for (const count of all) this.set({ rule: count.rule }, value(count));
      },
    });
  perRule(
    'tulle_policy_rule_packets',
    'First packets of connections that a rule decided about.',
    ({ packets }) => packets,
  );
  perRule(
    'tulle_policy_rule_bytes',
    'Bytes of the first packets of connections that a rule decided about.',
    ({ bytes }) => bytes,
  );
}
