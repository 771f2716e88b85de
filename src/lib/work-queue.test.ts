import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from './clock.ts';
import { silentLogger } from './log.ts';
import { WorkQueue } from './work-queue.ts';

const options = { name: 'test', log: silentLogger };
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('WorkQueue', () => {
  test('makes one run out of many adds, in the order of arrival', async () => {
    const runs: string[] = [];
    await using queue = new WorkQueue((key) => void runs.push(key), options);
    for (const key of ['b', 'a', 'b', 'a', 'c']) queue.add(key);
    assert.deepEqual(runs, []);
    await queue.idle();
    assert.deepEqual(runs, ['b', 'a', 'c']);
  });

  test('never works on a key twice at a time, and again if it was added meanwhile', async () => {
    const gate = Promise.withResolvers<void>();
    const log: string[] = [];
    await using queue = new WorkQueue(async (key) => {
      log.push(`+${key}`);
      if (log.length === 1) await gate.promise;
      log.push(`-${key}`);
    }, options);
    queue.add('a');
    await turn();
    queue.add('a');
    queue.add('b');
    await turn();
    await turn();
    assert.deepEqual(log, ['+a', '+b', '-b']);
    gate.resolve();
    await queue.idle();
    assert.deepEqual(log, ['+a', '+b', '-b', '-a', '+a', '-a']);
  });

  test('works on no more keys at a time than allowed, and on all in the end', async () => {
    let running = 0;
    let most = 0;
    const done = new Set<string>();
    await using queue = new WorkQueue(
      async (key) => {
        most = Math.max(most, ++running);
        await turn();
        running--;
        done.add(key);
      },
      { ...options, concurrency: 3 },
    );
    for (let i = 0; i < 20; i++) queue.add(String(i));
    await queue.idle();
    assert.deepEqual([most, done.size], [3, 20]);
  });

  test('tries a key that failed again after its own back-off, or when it is added', async () => {
    const clock = new FakeClock();
    let failures = 3;
    const runs: string[] = [];
    const work = (key: string) => {
      runs.push(key);
      if (key === 'bad' && failures-- > 0) throw new Error('no');
    };
    const retries = { retryMinMs: 100, retryMaxMs: 1_000 };
    await using queue = new WorkQueue(work, { ...options, ...retries, clock });
    queue.add('bad');
    queue.add('good');
    await turn();
    await turn();
    assert.deepEqual(runs, ['bad', 'good']);
    assert.deepEqual(queue.failing, ['bad']);
    clock.advance(100);
    await turn();
    await turn();
    assert.deepEqual(runs, ['bad', 'good', 'bad']);
    queue.add('bad');
    await turn();
    await turn();
    assert.equal(runs.length, 4);
    clock.advance(400);
    await queue.idle();
    assert.deepEqual([runs.length, queue.failing], [5, []]);
  });

  test('waits for what runs when it is disposed, and starts nothing more', async () => {
    const gate = Promise.withResolvers<void>();
    const runs: string[] = [];
    const queue = new WorkQueue(
      async (key) => {
        runs.push(key);
        await gate.promise;
      },
      { ...options, concurrency: 1 },
    );
    queue.add('a');
    queue.add('b');
    await turn();
    const disposed = queue[Symbol.asyncDispose]();
    queue.add('c');
    gate.resolve();
    await disposed;
    await turn();
    assert.deepEqual(runs, ['a']);
  });
});
