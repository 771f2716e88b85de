import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from './clock.ts';
import { Lull } from './lull.ts';

function setup() {
  const clock = new FakeClock();
  const lull = new Lull(clock);
  const done: string[] = [];
  const wait = (name: string) => lull.schedule(() => done.push(name));
  return { clock, lull, done, wait };
}

describe('Lull', () => {
  test('lets work wait for a moment when there are no calls', () => {
    const { clock, done, wait } = setup();
    wait('a');
    clock.advance(9);
    assert.deepEqual(done, []);
    clock.advance(1);
    assert.deepEqual(done, ['a']);
  });

  test('lets work wait until a burst of calls is over, and does all of it then', () => {
    const { clock, lull, done, wait } = setup();
    for (let i = 0; i < 5; i++) {
      const end = lull.begin();
      clock.advance(8);
      wait(`after ${i}`);
      end();
      clock.advance(8);
    }
    assert.deepEqual(done, []);
    clock.advance(2);
    assert.equal(done.length, 5);
  });

  test('lets nothing wait longer than 100 ms', () => {
    const { clock, lull, done, wait } = setup();
    lull.begin();
    wait('a');
    clock.advance(60);
    wait('b');
    clock.advance(39);
    assert.deepEqual(done, []);
    clock.advance(1);
    assert.deepEqual(done, ['a']);
    clock.advance(60);
    assert.deepEqual(done, ['a', 'b']);
  });

  test('lets nothing wait longer when the time of day is set back', () => {
    const { clock, lull, done, wait } = setup();
    lull.begin();
    wait('a');
    clock.jump(-86_400_000);
    wait('b');
    clock.advance(100);
    assert.deepEqual(done, ['a', 'b']);
  });

  test('counts each call that ends once', () => {
    const { clock, lull, done, wait } = setup();
    const end = lull.begin();
    lull.begin();
    end();
    end();
    wait('a');
    clock.advance(50);
    assert.deepEqual(done, []);
  });

  test('does what waits at once when told to, and forgets what is cancelled', async () => {
    const { clock, lull, done, wait } = setup();
    lull.begin();
    wait('a');
    wait('b')();
    const next = lull.next();
    lull.end();
    await next;
    assert.deepEqual(done, ['a']);
    clock.advance(1000);
    assert.deepEqual(done, ['a']);
    wait('c');
    clock.advance(100);
    assert.deepEqual(done, ['a', 'c']);
  });
});
