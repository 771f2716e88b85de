/** `tulle policy rules`: which rules of which policies this node has in its kernel, and how often each decided. */

export interface RuleCount {
  /** `NetworkPolicy default/web ingress[0]`, or `isolated, ingress: default/web`. */
  readonly rule: string;
  /** First packets of connections. */
  readonly packets: number;
  readonly bytes: number;
}

interface Row {
  readonly policy: string;
  readonly rule: string;
  readonly packets: string;
  readonly bytes: string;
}

const HEAD: Row = { policy: 'POLICY', rule: 'RULE', packets: 'PACKETS', bytes: 'BYTES' };
const RULE = /^((?:Cluster)?NetworkPolicy \S+) ((?:in|e)gress\[\d+\].*)$/;
const ISOLATED = /^isolated, ((?:in|e)gress): (.*)$/;

/** @returns lines of a table, by policy; rules that stand in no policy last */
export function formatRuleCounts(counts: readonly RuleCount[]): string[] {
  const rows = counts.map(rowOf).sort(byPolicy);
  const all = [HEAD, ...rows];
  const width = (column: keyof Row) => Math.max(...all.map((row) => row[column].length));
  const [policy, rule, packets] = [width('policy'), width('rule'), width('packets')];
  return all.map((row) =>
    [
      row.policy.padEnd(policy),
      row.rule.padEnd(rule),
      row.packets.padStart(packets),
      row.bytes.padStart(width('bytes')),
    ].join('  '),
  );
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

function rowOf({ rule: text, packets, bytes }: RuleCount): Row {
  const counted = { packets: String(packets), bytes: String(bytes) };
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
