import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { decodeHealthResponse, encodeHealthRequest } from './health.ts';

describe('grpc health', () => {
  test('encodes a request as protoc does', () => {
    assert.deepEqual([...encodeHealthRequest('')], [0, 0, 0, 0, 0]);
    assert.deepEqual([...encodeHealthRequest('ab')], [0, 0, 0, 0, 4, 10, 2, 97, 98]);
    assert.equal(encodeHealthRequest('x'.repeat(300)).length, 5 + 1 + 2 + 300);
  });
  for (const [bytes, status] of [
    [[8, 1], 'SERVING'],
    [[8, 2], 'NOT_SERVING'],
    [[], 'UNKNOWN'],
    [[18, 1, 120, 8, 1], 'SERVING'],
    [[8, 99], 'UNKNOWN'],
  ] as const)
    test(`decodes [${bytes}] as ${status}`, () => {
      assert.equal(decodeHealthResponse(Uint8Array.of(0, 0, 0, 0, bytes.length, ...bytes)), status);
    });
  test('throws nothing but DecodeError for any bytes', () => {
    assert.throws(() => decodeHealthResponse(Uint8Array.of(1, 0, 0, 0, 0)), /compressed/);
    assert.throws(() => decodeHealthResponse(Uint8Array.of(0, 0, 0, 0, 9, 8)), /it says 9 bytes/);
    const body = fc.uint8Array({ maxLength: 20 });
    fc.assert(
      fc.property(
        fc.oneof(
          body,
          body.map((b) => Uint8Array.of(0, 0, 0, 0, b.length, ...b)),
        ),
        (b) => {
          try {
            decodeHealthResponse(b);
          } catch (error) {
            assert.ok(error instanceof DecodeError, String(error));
          }
        },
      ),
    );
  });
});
