import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { decodeMessage, MAX_MESSAGE_DEPTH, MAX_VALUES, type MessageTable } from './message.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

const INNER: MessageTable = {
  name: 'Inner',
  fields: { 1: { name: 'text', type: 'string', shape: 'one' } },
};
const TABLE: MessageTable = {
  name: 'Outer',
  fields: {
    1: { name: 'text', type: 'string', shape: 'one' },
    2: { name: 'number', type: 'int32', shape: 'one' },
    3: { name: 'zero', type: 'int64', shape: 'optional' },
    4: { name: 'flag', type: 'bool', shape: 'one' },
    5: { name: 'data', type: 'bytes', shape: 'one' },
    6: { name: 'items', type: INNER, shape: 'list' },
    7: { name: 'labels', type: 'string', shape: 'map' },
    8: { name: 'inner', type: INNER, shape: 'one' },
    9: { name: 'pointer', type: INNER, shape: 'optional' },
    10: {
      name: '',
      type: { name: 'E', fields: { 1: { name: 'embedded', type: 'string', shape: 'one' } } },
      shape: 'one',
    },
  },
};

for (const [what, bytes, value] of [
  ['nothing', '', {}],
  ['text', '0a 02 68 69', { text: 'hi' }],
  ['text that is empty', '0a 00', {}],
  ['a number of two bytes', '10 96 01', { number: 150 }],
  ['a negative number', '10 ff ff ff ff ff ff ff ff ff 01', { number: -1 }],
  ['a zero that is a value', '18 00', { zero: 0 }],
  ['a flag', '20 01', { flag: true }],
  ['a flag that is not set', '20 00', {}],
  ['bytes', '2a 02 ff 00', { data: '/wA=' }],
  ['a list with an empty element', '32 03 0a 01 61 32 00', { items: [{ text: 'a' }, {}] }],
  ['a map', '3a 06 0a 01 61 12 01 62', { labels: { a: 'b' } }],
  ['a map with an empty value', '3a 03 0a 01 61', { labels: { a: '' } }],
  ['an empty message', '42 00', {}],
  ['an empty message that is a value', '4a 00', { pointer: {} }],
  ['an embedded message', '52 03 0a 01 61', { embedded: 'a' }],
  ['the last of two', '0a 01 61 0a 01 62', { text: 'b' }],
  ['a zero after a value', '0a 01 61 0a 00', {}],
] as const)
  test(`decodeMessage() reads ${what}`, () => {
    assert.deepEqual(decodeMessage(hex(bytes), TABLE), { value, unknownFields: [] });
  });

test('decodeMessage() names the fields that it does not know, and goes on', () => {
  const decoded = decodeMessage(hex('9a 06 01 61 32 05 0a 01 61 78 01 10 05'), TABLE);
  assert.deepEqual(decoded.value, { items: [{ text: 'a' }], number: 5 });
  assert.deepEqual(decoded.unknownFields, ['field 99 of Outer', 'items[0].field 15 of Inner']);
});

test('decodeMessage() keeps a map key of any name as a plain entry', () => {
  const key = Buffer.from('__proto__');
  const entry = Buffer.concat([hex('0a 09'), key, hex('12 01 62')]);
  const { labels } = decodeMessage(
    Buffer.concat([hex('3a'), Buffer.of(entry.length), entry]),
    TABLE,
  ).value as { labels: object };
  assert.deepEqual(Object.keys(labels), ['__proto__']);
  assert.equal(Object.getPrototypeOf(labels), Object.prototype);
});

for (const [what, bytes] of [
  ['a varint that ends too early', '10 96'],
  ['a varint without end', '10 ff ff ff ff ff ff ff ff ff ff 01'],
  ['a length beyond the end', '0a 05 68 69'],
  ['a huge length', '0a ff ff ff ff ff ff ff ff 7f'],
  ['a field number 0', '00 00'],
  ['a group', '0b 0c'],
  ['a number where text belongs', '08 01'],
  ['text where a number belongs', '12 01 61'],
  ['text that is not UTF-8', '0a 01 ff'],
  ['a number that JSON cannot hold', '18 ff ff ff ff ff ff ff ff 7f'],
  ['eight bytes that are four', '09 00 00 00 00'],
] as const)
  test(`decodeMessage() refuses ${what}`, () => {
    assert.throws(() => decodeMessage(hex(bytes), TABLE), DecodeError);
  });

test('decodeMessage() refuses what is nested too deep', () => {
  const fields: Record<number, MessageTable['fields'][number]> = {};
  const recursive: MessageTable = { name: 'R', fields };
  fields[1] = { name: 'r', type: recursive, shape: 'optional' };
  const nested = (depth: number) => {
    let bytes = Buffer.alloc(0);
    for (let i = 0; i < depth; i++) {
      const length =
        bytes.length < 128 ? [bytes.length] : [(bytes.length & 0x7f) | 0x80, bytes.length >> 7];
      bytes = Buffer.concat([Buffer.of(0x0a, ...length), bytes]);
    }
    return bytes;
  };
  decodeMessage(nested(MAX_MESSAGE_DEPTH), recursive);
  assert.throws(() => decodeMessage(nested(MAX_MESSAGE_DEPTH + 2), recursive), /nested/);
});

test('decodeMessage() refuses more values than it will hold', () => {
  const bytes = Buffer.alloc((MAX_VALUES + 1) * 2);
  for (let i = 0; i < bytes.length; i += 2) bytes[i] = 0x32;
  assert.throws(() => decodeMessage(bytes, TABLE), /more than/);
});

test('decodeMessage() gives a value or a DecodeError for any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeMessage(bytes, TABLE);
      } catch (error) {
        assert.ok(error instanceof DecodeError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
