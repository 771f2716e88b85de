import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomBelowFrom } from './random-below.ts';

test('randomBelowFrom() gives each number below its argument about as often, from any seed', () => {
  for (const seed of [0, 1, 2 ** 31 - 1]) {
    const below = randomBelowFrom(seed);
    const counts = new Array<number>(7).fill(0);
    for (let i = 0; i < 7000; i++) {
      const number = below(counts.length);
      counts[number] = (counts[number] ?? Number.NaN) + 1;
    }
    assert.equal(counts.length, 7);
    for (const count of counts) assert.ok(count > 800 && count < 1200, `${counts} from ${seed}`);
  }
});
