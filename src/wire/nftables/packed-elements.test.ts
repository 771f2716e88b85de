import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inTable, type SetElement } from './objects.ts';
import { ElementPacker } from './packed-elements.ts';
import { encodeTransaction } from './transaction-encoder.ts';

const { elements } = inTable('ip', 'tulle');
const COUNT = 5000;
const key = (i: number) => Uint8Array.of(10, 96, i >>> 8, i);
const data = (i: number) => Uint8Array.of(i, i >>> 8, 1, 2, 3, 4);

function pack(withData: boolean): ElementPacker {
  const packer = new ElementPacker({
    ...{ keyBytes: 8, dataBytes: withData ? 6 : 0 },
    maxElements: COUNT,
  });
  for (let i = 0; i < COUNT; i++) packer.add(key(i), i << 4, withData ? data(i) : undefined);
  return packer;
}

const expected = (withData: boolean): SetElement[] =>
  Array.from({ length: COUNT }, (_, i) => ({
    key: Uint8Array.of(...key(i), i << 4, i >>> 4, i >>> 12, 0),
    ...(withData ? { data: data(i) } : {}),
  }));

for (const withData of [true, false])
  test(`packed elements ${withData ? 'with' : 'without'} data read and encode as the elements they stand for`, () => {
    const packer = pack(withData);
    assert.ok(packer.isFull);
    const packed = packer.take();
    assert.equal(packed.length, COUNT);
    assert.deepEqual([...packed], expected(withData));
    // More than one message: the list is closed before its length passes 16 bits.
    assert.deepEqual(
      encodeTransaction([elements.add('m', packed)]),
      encodeTransaction([elements.add('m', expected(withData))]),
    );
    assert.ok(packer.isEmpty);
  });

test('an element of another length is refused', () => {
  const packer = new ElementPacker({ keyBytes: 8, dataBytes: 0, maxElements: 1 });
  assert.throws(() => packer.add(key(1), undefined, undefined), RangeError);
});
