import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readFields, type WireField } from './reader.ts';
import { boolField, bytesField, lengthOf, messageField, numberField } from './writer.ts';

const read = (pieces: readonly Uint8Array[]): WireField[] => [...readFields(Buffer.concat(pieces))];

test('messageField() writes what the encoding guide shows', () => {
  // https://protobuf.dev/programming-guides/encoding/#embedded: a message in field 3 with 150 in field 1.
  const bytes = Buffer.concat(messageField(3, numberField(1, 150)));
  assert.equal(bytes.toString('hex'), '1a03089601');
  assert.equal(Buffer.concat(bytesField(2, 'testing')).toString('hex'), '120774657374696e67');
});

test('numbers that are zero are left out, empty messages and bytes are not', () => {
  assert.equal(lengthOf([...numberField(1, 0), ...boolField(2, false)]), 0);
  assert.equal(lengthOf(messageField(1)), 2);
  assert.equal(lengthOf(bytesField(1, '')), 2);
});

test('what is written is read again', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 536_870_911 }),
      fc.maxSafeNat(),
      fc.uint8Array(),
      (number, value, bytes) => {
        const expected: WireField[] = [
          ...(value === 0 ? [] : [{ number, wire: 0 as const, value: BigInt(value) }]),
          { number, wire: 2, value: bytes },
        ];
        const found = read([...numberField(number, value), ...bytesField(number, bytes)]);
        const plain = (field: WireField) =>
          field.wire === 2 ? { ...field, value: [...field.value] } : field;
        assert.deepEqual(found.map(plain), expected.map(plain));
      },
    ),
  );
});
