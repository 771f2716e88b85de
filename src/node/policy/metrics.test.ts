import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { accept, counter } from '#wire/nftables/expressions.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { readRuleCounts, registerPolicyMetrics } from './metrics.ts';

function counting(): FakeNftables {
  const nftables = new FakeNftables();
  for (const family of ['ip', 'ip6'] as const) {
    const { table, chain, rule } = inTable(family, 'tulle');
    nftables.commit([
      table.add(),
      ...['np-i-1', 'services'].flatMap((name) => [
        chain.add(name),
        rule.add(name, [counter(2n, 120n), accept], { comment: `of ${name}` }),
        rule.add(name, [accept], { comment: 'counts nothing' }),
      ]),
    ]);
  }
  return nftables;
}

test('readRuleCounts() adds up both families, of the chains of policy', async () => {
  assert.deepEqual(await readRuleCounts(counting(), 'tulle'), [
    { rule: 'of np-i-1', packets: 4, bytes: 240 },
  ]);
});

test('readRuleCounts() leaves turns to others, and goes on when a chain is gone', async () => {
  const slow = {
    listChains: (family: string) => (family === 'ip' ? ['np-i-1', 'np-i-2', 'np-i-3'] : []),
    countsOf({ chain }: { chain: string }) {
      const began = performance.now();
      while (performance.now() - began < 5);
      return chain === 'np-i-2' ? [] : [{ comment: chain, packets: 1n, bytes: 40n }];
    },
  };
  let turns = 0;
  const other = setInterval(() => turns++, 0);
  const counts = await readRuleCounts(slow, 'tulle');
  clearInterval(other);
  assert.ok(turns > 0, 'nobody else had a turn');
  assert.deepEqual(
    counts.map(({ rule }) => rule),
    ['np-i-1', 'np-i-3'],
  );
});

test('metrics tell packets and bytes of one walk', async () => {
  const registry = new Registry();
  let walks = 0;
  registerPolicyMetrics(registry, {
    policy: {
      status: () => ({ policies: 1, localPods: 0 }),
      domains: { memory: { counts: { names: 0, addresses: 0 } } },
    },
    counts: () => {
      walks++;
      return readRuleCounts(counting(), 'tulle');
    },
    cuts: () => 0,
    suppressed: () => 0,
  });
  const text = await registry.metrics();
  assert.match(text, /tulle_policy_rule_packets\{rule="of np-i-1"\} 4\n/);
  assert.match(text, /tulle_policy_rule_bytes\{rule="of np-i-1"\} 240\n/);
  assert.equal(walks, 1);
});
