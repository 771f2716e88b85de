import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { decodeCall, decodeFrame, encodeAnswer, encodeFrame, MAX_FRAME_BYTES } from './protocol.ts';

describe('decodeFrame()', () => {
  test('reads back any fields, and nothing before the last byte is there', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 8 }), (fields) => {
        const frame = encodeFrame(fields);
        assert.deepEqual(
          decodeFrame(frame)?.map((it) => Uint8Array.from(it)),
          fields,
        );
        assert.equal(decodeFrame(frame.subarray(0, frame.length - 1)), undefined);
      }),
    );
  });

  test('throws nothing but DecodeError for any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          const fields = decodeFrame(Buffer.from(bytes));
          if (fields !== undefined) decodeCall(fields);
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
        }
      }),
    );
  });

  for (const [what, hex] of [
    ['a field that reaches past the frame', '00000005 00000009 41'],
    ['half a length', '00000002 0000'],
    ['a frame that is too long', (MAX_FRAME_BYTES + 1).toString(16).padStart(8, '0')],
  ] as const)
    test(`refuses ${what}`, () => {
      assert.throws(() => decodeFrame(Buffer.from(hex.replaceAll(' ', ''), 'hex')), DecodeError);
    });
});

test('decodeCall() takes CNI variables and the input, and no other names', () => {
  const call = (...fields: string[]) => decodeCall(fields.map((it) => Buffer.from(it)));
  assert.deepEqual(call('CNI_COMMAND', 'ADD', 'stdin', '{}'), {
    env: { CNI_COMMAND: 'ADD' },
    stdin: '{}',
  });
  assert.throws(() => call('PATH', '/bin'), DecodeError);
  assert.throws(() => call('CNI_COMMAND'), DecodeError);
});

test('encodeAnswer() is what the shim unpacks', () => {
  assert.equal(
    encodeAnswer({ exitCode: 1, stdout: 'no' }).toString('hex'),
    '0000000b' + '00000001' + '31' + '00000002' + '6e6f',
  );
});
