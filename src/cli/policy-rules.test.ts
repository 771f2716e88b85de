import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyUsage } from '#api/tulle/v1alpha1/policy-usage.ts';
import { formatRuleCounts, sumUsages, usageNotes } from './policy-rules.ts';

test('formatRuleCounts() orders by policy and direction, and says what isolation refused', () => {
  const count = (rule: string, packets: number) => ({ rule, packets, bytes: packets * 60 });
  assert.deepEqual(
    formatRuleCounts([
      count('a connection that policy allows no more', 1),
      count('NetworkPolicy shop/web ingress[10]', 3),
      count('NetworkPolicy shop/web ingress[2]', 12),
      count('isolated, ingress: shop/web, shop/all', 7),
      count('ClusterNetworkPolicy names egress[0]', 0),
    ]),
    [
      'POLICY                            RULE                                     PACKETS  BYTES',
      'ClusterNetworkPolicy names        egress[0]                                      0      0',
      'NetworkPolicy shop/web            ingress[2]                                    12    720',
      'NetworkPolicy shop/web            ingress[10]                                    3    180',
      'NetworkPolicy shop/web, shop/all  ingress: no rule allowed it                    7    420',
      '-                                 a connection that policy allows no more        1     60',
    ],
  );
});

test('sumUsages() adds up what nodes told, and formatRuleCounts() names them', () => {
  const usage = (name: string, packets: number, total = 1): PolicyUsage => ({
    ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'PolicyUsage', metadata: { name } },
    status: {
      countedAt: '2026-01-01T00:00:00Z',
      total,
      rules: [{ rule: 'NetworkPolicy shop/web ingress[0]', packets, bytes: packets * 60 }],
    },
  });
  const usages = [usage('m1', 1), usage('m2', 2), usage('m3', 3), usage('m4', 4, 7)];
  assert.deepEqual(formatRuleCounts(sumUsages(usages)), [
    'POLICY                  RULE        PACKETS  BYTES  NODES',
    'NetworkPolicy shop/web  ingress[0]       10    600  m1,m2,m3 and 1 more',
  ]);
  assert.deepEqual(usageNotes(usages), [
    'Told by 4 nodes, each when something had changed: 2026-01-01T00:00:00Z.',
    'm4 has 7 rules and tells of the 1 that decided most.',
  ]);
  assert.match(usageNotes([]).join(), /^No node has told of a rule yet/);
});
