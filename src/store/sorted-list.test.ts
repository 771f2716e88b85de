import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SortedList } from './sorted-list.ts';

const keysFrom = (list: SortedList<{ key: string }>, key: string) =>
  [...list.from(key)].map((value) => value.key);

test('SortedList is a sorted set, whatever is inserted and deleted', () => {
  const step = fc.record({ remove: fc.boolean(), n: fc.nat(300) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), fc.nat(300), (steps, from) => {
      const list = new SortedList<{ key: string }>();
      const model = new Set<string>();
      for (const { remove, n } of steps) {
        const key = String(n);
        if (remove) list.delete(key);
        else if (!model.has(key)) list.insert({ key });
        if (remove) model.delete(key);
        else model.add(key);
      }
      const sorted = [...model].toSorted();
      assert.deepEqual(keysFrom(list, ''), sorted);
      assert.deepEqual(
        keysFrom(list, String(from)),
        sorted.filter((key) => key >= String(from)),
      );
      assert.equal(list.size, model.size);
    }),
  );
});

test('SortedList keeps its order across many chunks, filled forwards, backwards and in between', () => {
  const all = Array.from({ length: 9000 }, (_, i) => String(i).padStart(5, '0'));
  const orders = [
    all,
    all.toReversed(),
    all.toSorted((a, b) => ((Number(a) * 7919) % 9001) - ((Number(b) * 7919) % 9001)),
  ];
  for (const order of orders) {
    const list = new SortedList<{ key: string }>();
    for (const key of order) list.insert({ key });
    assert.deepEqual(keysFrom(list, ''), all);
    assert.deepEqual(keysFrom(list, '04999x'), all.slice(5000));
    for (const key of all.slice(1000, 8000)) list.delete(key);
    assert.deepEqual(keysFrom(list, '00999'), ['00999', ...all.slice(8000)]);
    assert.deepEqual(keysFrom(list, '9'), []);
  }
});
