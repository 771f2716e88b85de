import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GroupCommit } from './group-commit.ts';

const add = (n: number) => (state: number) => ({ block: state + n, value: state });

test('GroupCommit writes what arrives during a write together, in order', async () => {
  const written: number[] = [];
  let state = 0;
  const group = new GroupCommit<number>(async (apply) => {
    state = apply(state);
    await new Promise((resolve) => setImmediate(resolve));
    written.push(state);
    return true;
  });
  const values = await Promise.all([1, 2, 3, 4].map((n) => group.change(add(n))));
  assert.deepEqual(written, [1, 10]);
  assert.deepEqual(values, [0, 1, 3, 6], 'each has seen what came before it');
});

test('GroupCommit tells all of a group when it fails, and goes on', async () => {
  let failing = true;
  const group = new GroupCommit<number>(async (apply) => {
    apply(0);
    if (failing) throw new Error('away');
    return true;
  });
  const results = await Promise.allSettled([group.change(add(1)), group.change(add(1))]);
  assert.deepEqual(
    results.map((it) => it.status),
    ['rejected', 'rejected'],
  );
  failing = false;
  assert.equal(await group.change(add(1)), 0);
});

test('GroupCommit answers undefined when the state is gone', async () => {
  const group = new GroupCommit<number>(async () => false);
  assert.equal(await group.change(add(1)), undefined);
});

test('GroupCommit tells each of a group what is chosen, once, while it is being written', async () => {
  const events: string[] = [];
  const chosen = Promise.withResolvers<void>();
  const group = new GroupCommit<number>(async (apply) => {
    apply(0);
    // A race was lost: the next try is from another state.
    apply(10);
    events.push('writing');
    await chosen.promise;
    events.push('written');
    return true;
  });
  const value = await group.change(add(1), (it) => {
    events.push(`chosen ${it}`);
    chosen.resolve();
  });
  assert.equal(value, 10);
  assert.deepEqual(events, ['writing', 'chosen 10', 'written']);
});
