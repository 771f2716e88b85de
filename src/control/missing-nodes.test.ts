import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { MissingNodes, planQuarantine, QUARANTINE_MS } from './missing-nodes.ts';

test('planQuarantine() names a missing node after the quarantine, and not before', () => {
  const missing = new Set(['gone']);
  const first = planQuarantine(missing, { sinceMs: new Map(), nowMs: 1_000 });
  assert.deepEqual([first.due, first.nextAtMs], [[], 1_000 + QUARANTINE_MS]);
  const second = planQuarantine(missing, { ...first, nowMs: 1_000 + QUARANTINE_MS });
  assert.deepEqual([second.due, second.nextAtMs], [['gone'], undefined]);
});

test('planQuarantine() begins anew when the node was there in between', () => {
  const missing = new Set(['gone']);
  const first = planQuarantine(missing, { sinceMs: new Map(), nowMs: 0 });
  const back = planQuarantine(new Set(), { ...first, nowMs: QUARANTINE_MS });
  const again = planQuarantine(missing, { ...back, nowMs: QUARANTINE_MS + 1 });
  assert.deepEqual([again.due, again.nextAtMs], [[], 2 * QUARANTINE_MS + 1]);
});

test('MissingNodes asks the server before it gives a node up', async () => {
  const clock = new FakeClock();
  const api = new FakeApi({ clock });
  await using nodes = startCache(api, NODE, { log: silentLogger });
  let due = 0;
  using missing = new MissingNodes({ client: api, nodes, clock, onDue: () => due++ });
  assert.deepEqual([...(await missing.gone(['a', 'b', '']))], []);
  // Somebody sets the clock: no node has been missed for longer.
  clock.jump(86_400_000);
  assert.deepEqual([...(await missing.gone(['a', 'b', '']))], []);
  clock.jump(-2 * 86_400_000);
  clock.advance(QUARANTINE_MS);
  assert.equal(due, 1);
  // The cache does not know it yet.
  const node: Node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'b' } };
  api.put(NODE, node);
  assert.deepEqual([...(await missing.gone(['a', 'b']))], ['a']);
});
