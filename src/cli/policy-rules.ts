/** `tulle policy rules`: which rules of which policies nodes have in their kernels, and how often each decided. */
import type { PolicyUsage, RuleUsage } from '#api/tulle/v1alpha1/policy-usage.ts';

/** How often a rule decided, on one node or on several. */
export interface RuleCount extends RuleUsage {
  readonly nodes?: readonly string[];
}

interface Row {
  readonly policy: string;
  readonly rule: string;
  readonly packets: string;
  readonly bytes: string;
  /** Empty where one node is asked. */
  readonly nodes: string;
}

const HEAD: Row = {
  ...{ policy: 'POLICY', rule: 'RULE', packets: 'PACKETS', bytes: 'BYTES', nodes: 'NODES' },
};
const RULE = /^((?:Cluster)?NetworkPolicy \S+) ((?:in|e)gress\[\d+\].*)$/;
const ISOLATED = /^isolated, ((?:in|e)gress): (.*)$/;
/** Names in one cell; `-o json` has all. */
const MAX_NAMES = 3;

/** @returns lines of a table, by policy; rules that stand in no policy last */
export function formatRuleCounts(counts: readonly RuleCount[]): string[] {
  const rows = counts.map(rowOf).sort(byPolicy);
  const hasNodes = counts.some(({ nodes }) => nodes !== undefined);
  const all = [HEAD, ...rows];
  const width = (column: keyof Row) => Math.max(...all.map((row) => row[column].length));
  const [policy, rule, packets] = [width('policy'), width('rule'), width('packets')];
  return all.map((row) =>
    [
      row.policy.padEnd(policy),
      row.rule.padEnd(rule),
      row.packets.padStart(packets),
      row.bytes.padStart(width('bytes')),
      ...(hasNodes ? [row.nodes] : []),
    ].join('  '),
  );
}

/** What several nodes have told, each rule once. */
export function sumUsages(usages: readonly PolicyUsage[]): RuleCount[] {
  const sums = new Map<string, RuleCount & { nodes: string[] }>();
  for (const { metadata, status } of usages)
    for (const { rule, packets, bytes } of status?.rules ?? []) {
      const sum = sums.get(rule) ?? { rule, packets: 0, bytes: 0, nodes: [] };
      sum.packets += packets;
      sum.bytes += bytes;
      sum.nodes.push(metadata.name ?? '');
      sums.set(rule, sum);
    }
  return [...sums.values()];
}

/** What a sum does not say: when it was counted, and what nodes left out. */
export function usageNotes(usages: readonly PolicyUsage[]): string[] {
  const times = usages.flatMap(({ status }) => status?.countedAt ?? []).sort();
  const [oldest, newest] = [times[0], times.at(-1)];
  const cut = usages.filter(({ status }) => (status?.total ?? 0) > (status?.rules?.length ?? 0));
  return [
    oldest === undefined
      ? 'No node has told of a rule yet; each does within a minute or two of its first.'
      : `Told by ${usages.length} ${usages.length === 1 ? 'node' : 'nodes'}, each when something had changed: ${oldest === newest ? oldest : `${oldest} to ${newest}`}.`,
    ...cut.map(
      ({ metadata, status }) =>
        `${metadata.name} has ${status?.total} rules and tells of the ${status?.rules?.length ?? 0} that decided most.`,
    ),
  ];
}

const OF_NO_POLICY = '-';
/** `ingress[2]` goes before `ingress[10]`. */
const collator = new Intl.Collator('en', { numeric: true });

function byPolicy(a: Row, b: Row): number {
  return (
    Number(a.policy === OF_NO_POLICY) - Number(b.policy === OF_NO_POLICY) ||
    collator.compare(a.policy, b.policy) ||
    collator.compare(a.rule, b.rule)
  );
}

function rowOf({ rule: text, packets, bytes, nodes = [] }: RuleCount): Row {
  const more = nodes.length - MAX_NAMES;
  const counted = {
    packets: String(packets),
    bytes: String(bytes),
    nodes: `${nodes.slice(0, MAX_NAMES).join(',')}${more > 0 ? ` and ${more} more` : ''}`,
  };
  const [, policy, ofPolicy] = RULE.exec(text) ?? [];
  if (policy !== undefined && ofPolicy !== undefined) return { policy, rule: ofPolicy, ...counted };
  const [, direction, policies] = ISOLATED.exec(text) ?? [];
  if (direction !== undefined && policies !== undefined)
    return {
      policy: `NetworkPolicy ${policies}`,
      rule: `${direction}: no rule allowed it`,
      ...counted,
    };
  const rule = text === 'closed' ? 'the pod’s policies were not known' : text;
  return { policy: OF_NO_POLICY, rule, ...counted };
}
