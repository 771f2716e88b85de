import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sipHash } from './siphash.ts';

const counting = (length: number) => Uint8Array.from({ length }, (_, i) => i);

test('sipHash() gives the reference implementation’s values', () => {
  // Of vectors.h beside the reference, for the inputs 00, 00 01, … and the key 00 … 0f.
  for (const [length, expected] of [
    [0, '310e0edd47db6f72'],
    [1, 'fd67dc93c539f874'],
    [7, '37d1018bf50002ab'],
    [8, '6224939a79f5f593'],
    [15, 'e545be4961ca29a1'],
  ] as const) {
    const bytes = new Uint8Array([9, ...counting(length), 9]);
    const into = new Uint8Array(10);
    sipHash(counting(16), bytes, { start: 1, end: 1 + length, into, at: 1 });
    assert.equal(Buffer.from(into).toString('hex'), `00${expected}00`, String(length));
  }
});
