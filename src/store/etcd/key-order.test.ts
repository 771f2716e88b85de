import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyOrder } from './key-order.ts';

/** Runs lines such as `a: w x` (transaction a writes x) and tells in which order they began, each ended on demand. */
function scene() {
  const order = new KeyOrder();
  const begun: string[] = [];
  const ends = new Map<string, PromiseWithResolvers<void>>();
  const runs: Promise<unknown>[] = [];
  return {
    order,
    begun,
    start(name: string, compared: readonly string[], written: readonly string[]) {
      const end = Promise.withResolvers<void>();
      ends.set(name, end);
      const action = () => {
        begun.push(name);
        return end.promise;
      };
      runs.push(order.run({ compared, written }, action).catch(() => 'failed'));
    },
    async end(name: string, error?: Error) {
      if (error === undefined) ends.get(name)?.resolve();
      else ends.get(name)?.reject(error);
      for (let i = 0; i < 20; i++) await Promise.resolve();
    },
    settled: () => Promise.all(runs),
  };
}

test('KeyOrder lets those that only compare a key go side by side', async () => {
  const { start, begun, end, settled, order } = scene();
  start('a', ['ns'], ['x']);
  start('b', ['ns'], ['y']);
  assert.deepEqual(begun, ['a', 'b']);
  start('delete', [], ['ns']);
  start('c', ['ns'], ['z']);
  await end('a');
  assert.deepEqual(begun, ['a', 'b']);
  await end('b');
  assert.deepEqual(begun, ['a', 'b', 'delete']);
  await end('delete');
  assert.deepEqual(begun, ['a', 'b', 'delete', 'c']);
  await end('c');
  await settled();
  assert.equal(order.size, 0);
});

test('KeyOrder keeps the order of those that write a key, also behind one that failed', async () => {
  const { start, begun, end, settled, order } = scene();
  start('a', ['x'], ['x']);
  start('b', ['x'], ['x', 'y']);
  start('c', [], ['y']);
  start('d', [], ['other']);
  assert.deepEqual(begun, ['a', 'd']);
  await end('a', new Error('lost'));
  assert.deepEqual(begun, ['a', 'd', 'b']);
  await end('b');
  assert.deepEqual(begun, ['a', 'd', 'b', 'c']);
  await end('c');
  await end('d');
  await settled();
  assert.equal(order.size, 0);
});
