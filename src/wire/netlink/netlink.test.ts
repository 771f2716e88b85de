import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import {
  readAcknowledgement,
  readAttributeList,
  readAttributes,
  readMessages,
  readString,
} from './reader.ts';
import { NetlinkWriter } from './writer.ts';

test('NetlinkWriter writes messages, nested attributes and padding', () => {
  const writer = new NetlinkWriter({ firstSequence: 9, capacityBytes: 1 });
  for (const text of ['tl0', 'eth0']) {
    const start = writer.beginMessage(16, 0x605);
    writer.u8(2);
    writer.u8(0);
    writer.u16Be(1);
    writer.attributeString(3, text);
    writer.nested(18, () => {
      writer.attributeU16(1, 0x0102);
      writer.attributeU16Be(2, 0x0102);
      writer.attributeFlag(3);
    });
    writer.endMessage(start);
  }
  const expected = [
    '34000000 1000 0605 09000000 00000000', // length 52, type 16, flags, sequence 9, port 0
    '02 00 0001',
    '0800 0300 746c3000', //                   3 "tl0"
    '1800 1280', //                            18, nested
    '0600 0100 0201 0000', //                    1 u16, padded
    '0600 0200 0102 0000', //                    2 u16 in network order, padded
    '0400 0300', //                              3, no value
    '38000000 1000 0605 0a000000 00000000',
    '02 00 0001',
    '0900 0300 6574683000 000000', //          3 "eth0", padded
    '1800 1280',
    '0600 0100 0201 0000',
    '0600 0200 0102 0000',
    '0400 0300',
  ];
  const bytes = expected.join('').replaceAll(' ', '').replaceAll('0605', '0506');
  assert.equal(writer.bytes().toString('hex'), bytes);
  assert.deepEqual([writer.messageCount, writer.nextSequence, writer.length], [2, 11, 108]);
});

test('NetlinkWriter.reset() forgets the bytes and goes on counting', () => {
  const writer = new NetlinkWriter();
  writer.endMessage(writer.beginMessage(1, 0));
  writer.reset();
  assert.deepEqual([writer.length, writer.messageCount, writer.nextSequence], [0, 0, 2]);
  writer.endMessage(writer.beginMessage(1, 0));
  assert.equal(readMessages(Buffer.from(writer.bytes()))[0]?.sequence, 2);
});

test('readMessages() and readAttributes() give back what was written', () => {
  const attribute = fc.tuple(fc.integer({ min: 1, max: 200 }), fc.uint8Array({ maxLength: 300 }));
  fc.assert(
    fc.property(fc.array(fc.array(attribute, { maxLength: 8 }), { maxLength: 5 }), (messages) => {
      const writer = new NetlinkWriter({ capacityBytes: 16 });
      for (const attributes of messages) {
        const start = writer.beginMessage(24, 1);
        for (const [type, value] of attributes) writer.attributeBytes(type, value);
        writer.endMessage(start);
      }
      const read = readMessages(writer.bytes()).map(({ payload }) =>
        readAttributeList(payload).map(({ type, value }) => [type, new Uint8Array(value)]),
      );
      assert.deepEqual(
        read,
        messages.map((list) => list.map(([type, value]) => [type, new Uint8Array(value)])),
      );
    }),
  );
});

test('readAttributes() keeps the last of a repeated type and strips the flags of the type', () => {
  const bytes = Buffer.from('0500018001000000' + '0500010002000000', 'hex');
  assert.deepEqual([...readAttributes(bytes)], [[1, Buffer.from([2])]]);
  assert.equal(readAttributeList(bytes).length, 2);
});

test('readString() ends at the zero byte, if there is one', () => {
  assert.equal(readString(Buffer.from('eth0\0\0')), 'eth0');
  assert.equal(readString(Buffer.from('eth0')), 'eth0');
  assert.equal(readString(Buffer.alloc(0)), '');
});

test('readAcknowledgement() reads errno and the kernel’s words, echoed request or not', () => {
  const header = '20000000 1000 0506 01000000 00000000'; // a request of 32 bytes
  const request = `${header}${'00'.repeat(16)}`;
  const words = '0b00 0100 4e6f20776179 00 00'; // NLMSGERR_ATTR_MSG "No way"
  const cases = [
    { flags: 0x100, bytes: `00000000${header}`, errno: 0, extack: undefined },
    { flags: 0x000, bytes: `efffffff${request}`, errno: 17, extack: undefined },
    { flags: 0x300, bytes: `efffffff${header}${words}`, errno: 17, extack: 'No way' },
    { flags: 0x200, bytes: `efffffff${request}${words}`, errno: 17, extack: 'No way' },
  ];
  for (const { flags, bytes, errno, extack } of cases) {
    const payload = Buffer.from(bytes.replaceAll(' ', ''), 'hex');
    assert.deepEqual(readAcknowledgement({ type: 2, flags, sequence: 1, payload }), {
      errno,
      extack,
    });
  }
});

test('lengths that do not fit the bytes are refused', () => {
  const cases: readonly (readonly [string, (bytes: Buffer) => unknown])[] = [
    ['1000000010000100010000', readMessages],
    ['0f000000100001000100000000000000', readMessages],
    ['11000000100001000100000000000000', readMessages],
    ['0300010000000000', readAttributes],
    ['0900010000000000', readAttributes],
  ];
  for (const [hex, read] of cases)
    assert.throws(() => read(Buffer.from(hex, 'hex')), DecodeError, hex);
  const short = { type: 2, flags: 0, sequence: 1, payload: Buffer.alloc(8) };
  assert.throws(() => readAcknowledgement(short), DecodeError);
});

test('no bytes make a reader throw anything but a DecodeError, or not return', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(0x400), (bytes, flags) => {
      const payload = Buffer.from(bytes);
      const readers = [
        () => readMessages(payload),
        () => readAttributes(payload),
        () => readAcknowledgement({ type: 2, flags, sequence: 1, payload }),
      ];
      for (const read of readers) {
        try {
          read();
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
        }
      }
    }),
    { numRuns: 2000 },
  );
});
