import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from './clock.ts';
import { Countdowns } from './countdowns.ts';

test('Countdowns tell what has run out, begin anew with another span, and forget', () => {
  const clock = new FakeClock();
  let over = 0;
  using countdowns = new Countdowns({ clock, onOver: () => over++ });
  const follow = (wanted: Record<string, number>) => [
    ...countdowns.follow(new Map(Object.entries(wanted))),
  ];
  assert.deepEqual(follow({ a: 30, b: 0 }), ['b']);
  clock.advance(20_000);
  assert.deepEqual(follow({ a: 5 }), []);
  clock.advance(4_999);
  assert.deepEqual([over, follow({ a: 5 })], [0, []]);
  clock.advance(1);
  assert.deepEqual([over, follow({ a: 5 })], [1, ['a']]);
  assert.deepEqual(follow({}), []);
  assert.deepEqual(follow({ a: 5 }), []);
});

test('Countdowns cut what no timer can last', () => {
  const clock = new FakeClock();
  using countdowns = new Countdowns({ clock, onOver: () => {} });
  const forever = new Map([['a', 2 ** 31]]);
  assert.equal(countdowns.follow(forever).size, 0);
  clock.advance(2 ** 31);
  assert.equal(countdowns.follow(forever).size, 1);
});
