import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { cidr } from '#lib/ip.ts';
import { newBlock } from './block.ts';
import { explainExhaustion, familiesOf, planNewBlock, usageOf } from './claim.ts';

const pool = (name: string, spec: IPPool['spec']): IPPool => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name },
  spec,
});
const block = (prefix: string, node = 'n1') => newBlock({ cidr: cidr(prefix), pool: 'p', node });

test('planNewBlock() cuts a pool up completely and then says so', () => {
  const small = pool('p', { cidr: '192.0.2.0/24', blockSize: 26 });
  const blocks = [];
  for (;;) {
    const next = planNewBlock(small, blocks, 'n1');
    if (next === undefined) break;
    blocks.push(block(next));
  }
  assert.deepEqual(blocks.map((it) => it.spec.cidr).sort(), [
    '192.0.2.0/26',
    '192.0.2.128/26',
    '192.0.2.192/26',
    '192.0.2.64/26',
  ]);
});

test('planNewBlock() keeps clear of blocks of another size', () => {
  const small = pool('p', { cidr: '192.0.2.0/24', blockSize: 26 });
  const next = planNewBlock(small, [block('192.0.2.0/25'), block('192.0.2.192/28')], 'n1');
  assert.equal(next, '192.0.2.128/26');
});

test('planNewBlock() finds a block in a large IPv6 pool', () => {
  const large = pool('p6', { cidr: '2001:db8::/32', blockSize: 122 });
  const first = planNewBlock(large, [], 'n1');
  assert.match(first ?? '', /^2001:db8:.*\/122$/);
  assert.notEqual(planNewBlock(large, [block(first ?? '')], 'n1'), first);
});

test('planNewBlock() sends different nodes to different blocks', () => {
  const large = pool('p', { cidr: '10.0.0.0/8', blockSize: 26 });
  const chosen = new Set(Array.from({ length: 20 }, (_, i) => planNewBlock(large, [], `n${i}`)));
  assert.ok(chosen.size >= 18, `${chosen.size} different blocks for 20 nodes`);
});

test('familiesOf() leaves disabled pools out', () => {
  const pools = [
    pool('a', { cidr: '2001:db8::/64' }),
    pool('b', { cidr: '192.0.2.0/24', disabled: true }),
  ];
  assert.deepEqual(familiesOf(pools), [6]);
});

test('explainExhaustion() names pools and numbers', () => {
  const usage = usageOf([pool('p', { cidr: '192.0.2.0/30' })], [block('192.0.2.0/30')]);
  const text = explainExhaustion(4, usage, { node: 'n1', ownBlocks: 1, cooling: 2, strict: false });
  assert.match(text, /"n1".*"p" 192\.0\.2\.0\/30: 0 of 4 addresses in use.*2 released moments ago/);
});
