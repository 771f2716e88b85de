import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock, systemClock } from './clock.ts';

test('systemClock counts in whole milliseconds: AbortSignal.timeout() takes no others', () => {
  assert.ok(Number.isInteger(systemClock.elapsed()));
});

test('FakeClock.jump() sets the time of day, and nothing falls due', () => {
  const clock = new FakeClock(0);
  let calls = 0;
  clock.schedule(1_000, () => calls++);
  clock.jump(86_400_000);
  assert.deepEqual([clock.now(), clock.elapsed(), calls], [86_400_000, 0, 0]);
  clock.advance(1_000);
  assert.deepEqual([clock.now(), clock.elapsed(), calls], [86_401_000, 1_000, 1]);
});
