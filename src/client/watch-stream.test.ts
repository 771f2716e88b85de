import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { decodeWatchEvent, LineSplitter } from './watch-stream.ts';

describe('LineSplitter', () => {
  test('finds the same lines however the bytes are cut', () => {
    const line = fc.string({ unit: 'grapheme' }).map((text) => text.replaceAll('\n', ' '));
    fc.assert(
      fc.property(fc.array(line), line, fc.array(fc.nat(40)), (lines, rest, sizes) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\n`).join('') + rest);
        const splitter = new LineSplitter();
        const found: string[] = [];
        let at = 0;
        for (const size of [...sizes, bytes.length]) {
          for (const part of splitter.push(bytes.subarray(at, at + size)))
            found.push(Buffer.from(part).toString());
          at += size;
        }
        assert.deepEqual(found, lines);
        assert.equal(Buffer.from(splitter.rest()).toString(), rest);
      }),
    );
  });

  test('refuses a line that does not end, in whatever pieces', () => {
    assert.throws(() => new LineSplitter(10).push(Buffer.from('12345678901')), DecodeError);
    const splitter = new LineSplitter(10);
    splitter.push(Buffer.from('123456\n1234567890'));
    assert.throws(() => splitter.push(Buffer.from('1')), DecodeError);
  });
});

describe('decodeWatchEvent()', () => {
  test('reads events and passes over empty lines', () => {
    const event = { type: 'ADDED', object: { metadata: { name: 'é' } } };
    assert.deepEqual(decodeWatchEvent(Buffer.from(`${JSON.stringify(event)}\r`)), event);
    assert.equal(decodeWatchEvent(Buffer.from(' \r')), undefined);
    const error = { type: 'ERROR', object: { code: 410 } };
    assert.deepEqual(decodeWatchEvent(Buffer.from(JSON.stringify(error))), error);
  });

  for (const text of [
    '{',
    'null',
    '[]',
    '7',
    '{"type":"ADDED"}',
    '{"type":"ADDED","object":null}',
    '{"type":"ADDED","object":{}}',
    '{"type":"ADDED","object":{"metadata":null}}',
    '{"type":"ERROR","object":7}',
    '{"type":"added","object":{"metadata":{}}}',
  ])
    test(`refuses ${text}`, () => {
      assert.throws(() => decodeWatchEvent(Buffer.from(text)), DecodeError);
    });

  test('throws nothing but DecodeError for any bytes', () => {
    const valid = Buffer.from('{"type":"ADDED","object":{"metadata":{"name":"é"}}}');
    fc.assert(
      fc.property(fc.nat(valid.length - 1), fc.nat(255), fc.nat(valid.length), (at, byte, end) => {
        const bytes = Buffer.from(valid.subarray(0, end));
        if (at < end) bytes[at] = byte;
        try {
          decodeWatchEvent(bytes);
        } catch (error) {
          assert.ok(error instanceof DecodeError);
        }
      }),
      { numRuns: 500 },
    );
  });
});
