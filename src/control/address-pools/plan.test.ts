import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { planReclaim, QUARANTINE_MS } from './plan.ts';

const block = (node: string): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name: '192-0-2-0-30' },
  spec: {
    cidr: '192.0.2.0/30',
    pool: 'v4',
    node,
    affinity: 'Confirmed',
    sequence: 7,
    allocations: {
      2: { handle: 'h', sequence: 7, since: '2026-01-01T00:00:00Z', node, purpose: 'Pod' },
    },
    free: [3, 0, 1],
    releasedAt: {},
  },
});
const plan = (node: string, missingSinceMs: ReadonlyMap<string, number>, nowMs: number) =>
  planReclaim({
    blocks: [block(node)],
    nodeExists: (name) => name === 'there',
    missingSinceMs,
    nowMs,
  });

test('planReclaim() frees the blocks of a missing node after the quarantine, and not before', () => {
  const first = plan('gone', new Map(), 1000);
  assert.deepEqual([first.orphan, first.nextAtMs], [[], 1000 + QUARANTINE_MS]);
  const second = plan('gone', first.missingSinceMs, 1000 + QUARANTINE_MS);
  const spec = second.orphan[0]?.spec;
  assert.deepEqual([spec?.node, spec?.affinity, spec?.sequence], ['', 'Pending', 7]);
  assert.deepEqual([spec?.allocations, spec?.free], [{}, [3, 0, 1, 2]]);
  assert.deepEqual(spec?.releasedAt, { 2: new Date(1000 + QUARANTINE_MS).toISOString() });
});

test('planReclaim() begins anew when the node was there in between, and leaves others alone', () => {
  assert.equal(plan('there', new Map([['there', 0]]), QUARANTINE_MS * 2).missingSinceMs.size, 0);
  assert.deepEqual(plan('', new Map(), QUARANTINE_MS * 2).orphan, []);
});
