import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createFrameReader, encodeFrame, FrameTooLargeError } from './frame.ts';

test('createFrameReader() finds the messages however the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
      (messages, cuts) => {
        const stream = Buffer.concat(messages.map((message) => encodeFrame([message])));
        const reader = createFrameReader(40);
        const found: number[][] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          const length = cuts[i % cuts.length] ?? 1;
          for (const message of reader.push(stream.subarray(at, at + length)))
            found.push([...message]);
          at += length;
        }
        assert.deepEqual(
          found,
          messages.map((message) => [...message]),
        );
      },
    ),
  );
});

test('createFrameReader() refuses what is too large before it has come, and what is compressed', () => {
  const large = encodeFrame([new Uint8Array(11)]).subarray(0, 6);
  assert.throws(() => createFrameReader(10).push(large), FrameTooLargeError);
  const compressed = encodeFrame([new Uint8Array(1)]);
  compressed[0] = 1;
  assert.throws(() => createFrameReader(10).push(compressed), { code: 'DECODE' });
});
