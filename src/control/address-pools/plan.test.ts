import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { planReclaim } from './plan.ts';

const NOW_MS = 1_000;
const block = (node: string, users: readonly string[]): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name: '192-0-2-0-30' },
  spec: {
    cidr: '192.0.2.0/30',
    pool: 'v4',
    node,
    affinity: node === '' ? 'Pending' : 'Confirmed',
    sequence: 7,
    allocations: Object.fromEntries(
      users.map((user, ordinal) => [
        String(ordinal),
        { handle: 'h', sequence: 7, since: '2026-01-01T00:00:00Z', node: user, purpose: 'Pod' },
      ]),
    ),
    free: [3, 0, 1, 2].filter((it) => it >= users.length),
    releasedAt: {},
  },
});
const pool = (disabled: boolean): IPPool => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name: 'v4' },
  spec: { cidr: '192.0.2.0/24', disabled },
});
const plan = (it: IPBlock, disabled = false) =>
  planReclaim({
    blocks: [it],
    pools: [pool(disabled)],
    gone: new Set(['gone']),
    nowMs: NOW_MS,
  });

test('planReclaim() makes the block of a gone node nobody’s, and its addresses cool down', () => {
  const [update] = plan(block('gone', ['gone'])).update;
  const spec = update?.block.spec;
  assert.deepEqual([spec?.node, spec?.affinity, spec?.sequence], ['', 'Pending', 7]);
  assert.deepEqual([spec?.allocations, spec?.free], [{}, [3, 1, 2, 0]]);
  assert.deepEqual(spec?.releasedAt, { 0: new Date(NOW_MS).toISOString() });
});

test('planReclaim() leaves to others what they have borrowed of a gone node', () => {
  const [update] = plan(block('gone', ['gone', 'other'])).update;
  assert.deepEqual(Object.keys(update?.block.spec.allocations ?? {}), ['1']);
  assert.deepEqual([update?.released, update?.block.spec.node], [1, '']);
});

test('planReclaim() gives back to a node what a gone one had borrowed of it', () => {
  const [update] = plan(block('there', ['there', 'gone'])).update;
  assert.deepEqual(Object.keys(update?.block.spec.allocations ?? {}), ['0']);
  assert.deepEqual([update?.block.spec.node, update?.block.spec.affinity], ['there', 'Confirmed']);
});

test('planReclaim() removes a block of a disabled pool when nobody has it and it is empty', () => {
  assert.equal(plan(block('', []), true).remove.length, 1);
  for (const [it, disabled] of [
    [block('', []), false],
    [block('there', []), true],
    [block('', ['there']), true],
  ] as const) {
    assert.deepEqual(plan(it, disabled), { update: [], remove: [] });
  }
});
