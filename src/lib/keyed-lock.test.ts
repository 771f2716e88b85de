import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyedLock } from './keyed-lock.ts';

test('KeyedLock.run() runs calls with the same key in order of arrival, also after a failure', async () => {
  const lock = new KeyedLock();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = lock.run('a', async () => {
    await gate.promise;
    order.push('first');
    throw new Error('first failed');
  });
  const second = lock.run('a', async () => order.push('second'));
  const other = lock.run('b', async () => order.push('other'));
  await other;
  gate.resolve();
  await assert.rejects(first, /first failed/);
  await second;
  assert.deepEqual(order, ['other', 'first', 'second']);
  assert.equal(lock.size, 0);
});
