import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { SetElement } from '#wire/nftables/objects.ts';
import { PackedElements } from '#wire/nftables/packed-elements.ts';
import { packedDifference } from './packed-difference.ts';

/** Key → data, each in a few bytes: some keys meet in the hash table. */
type Content = ReadonlyMap<number, number>;
const elementsOf = (content: Content): SetElement[] =>
  [...content].map(([key, data]) => ({
    key: Uint8Array.of(key >> 8, key, 0, 0),
    data: Uint8Array.of(data),
  }));
const packed = (content: Content) =>
  new PackedElements({
    ...{ keyBytes: 4, dataBytes: 1 },
    bytes: Uint8Array.from(elementsOf(content).flatMap(({ key, data = [] }) => [...key, ...data])),
  });
const contents = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 400 }), fc.integer({ min: 0, max: 2 })), {
    maxLength: 300,
  })
  .map((entries): Content => new Map(entries));
const text = (elements: readonly SetElement[]) =>
  elements.map(({ key, data }) => `${key} ${data}`).sort();

test('packedDifference() says what makes the one the other, in whatever form the other comes', () => {
  fc.assert(
    fc.property(contents, contents, fc.boolean(), (present, wanted, isPacked) => {
      const batches = isPacked ? [packed(wanted)] : [elementsOf(wanted)];
      const { add, remove } = packedDifference(packed(present), batches);
      const differing = (a: Content, b: Content) =>
        text(elementsOf(new Map([...a].filter(([key, data]) => b.get(key) !== data))));
      assert.deepEqual(text(add), differing(wanted, present));
      assert.deepEqual(text(remove), differing(present, wanted));
    }),
  );
});

test('packedDifference() tells apart the elements of a set, which have no data', () => {
  const set = (...keys: number[]) =>
    new PackedElements({ keyBytes: 2, dataBytes: 0, bytes: Uint8Array.from(keys) });
  const { add, remove } = packedDifference(set(1, 1, 2, 2), [set(2, 2, 3, 3)]);
  assert.deepEqual([add, remove], [[{ key: Uint8Array.of(3, 3) }], [{ key: Uint8Array.of(1, 1) }]]);
});
