import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatRuleCounts } from './policy-rules.ts';

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
