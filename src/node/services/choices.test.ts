import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { ChoiceNumbers, chainName, DROP_NUMBER, REJECT_NUMBER } from './choices.ts';
import type { Choice, Frontend } from './plan.ts';

const target = { address: ip('10.0.0.1'), port: 80 };
const balance = (count: number): Choice => ({
  action: 'balance',
  slots: new Array(count).fill(target),
});
const frontend = (change: Partial<Frontend>): Frontend => ({
  ...{ key: 'k', family: 4, address: ip('10.96.0.7'), protocol: 'TCP', port: 80 },
  ...{ kind: 'cluster', pick: 'random', affinitySeconds: undefined, sources: undefined },
  ...{ inside: balance(5), outside: balance(2), ...change },
});

test('ChoiceNumbers names plain chains by their count, and tells of each chain once', () => {
  const made: string[] = [];
  const numbers = new ChoiceNumbers((spec, number) => made.push(`${number} ${chainName(spec)}`));
  assert.equal(numbers.of(frontend({}), false), 5);
  assert.equal(numbers.of(frontend({ affinitySeconds: undefined }), false), 5);
  const others = [
    numbers.of(frontend({}), true),
    numbers.of(frontend({ pick: 'hash' }), false),
    numbers.of(frontend({ affinitySeconds: 60 }), false),
    numbers.of(frontend({ affinitySeconds: 90 }), false),
  ];
  assert.equal(new Set([5, ...others]).size, 5);
  assert.deepEqual(made, [
    '5 n5',
    `${others[0]} n2-outside`,
    `${others[1]} h5`,
    `${others[2]} n5-for-60s`,
    `${others[3]} n5-for-90s`,
  ]);
  numbers.of(frontend({ affinitySeconds: 60 }), false);
  assert.equal(made.length, 5);
});

test('ChoiceNumbers knows the two ways without an endpoint', () => {
  const numbers = new ChoiceNumbers(() => assert.fail('no chain'));
  const choice = (action: Choice['action']): Choice => ({ action, slots: [] });
  assert.equal(numbers.of(frontend({ inside: choice('reject') }), false), REJECT_NUMBER);
  assert.equal(numbers.of(frontend({ outside: choice('drop') }), true), DROP_NUMBER);
});

test('ChoiceNumbers prepares one slot more and one fewer', () => {
  const counts: number[] = [];
  const numbers = new ChoiceNumbers(({ count }) => counts.push(count));
  numbers.of(frontend({ inside: balance(1) }), false);
  numbers.of(frontend({ inside: balance(5) }), false);
  numbers.prepare();
  numbers.prepare();
  assert.deepEqual(counts, [1, 5, 2, 4, 6]);
});
