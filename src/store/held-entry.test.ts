import assert from 'node:assert/strict';
import { test } from 'node:test';
import { holdEntry, holdValue, valueLength, valueText } from './held-entry.ts';
import type { StoreEntry } from './port.ts';

const REVISIONS = { createRevision: 3, modRevision: 7 };

test('holdEntry() gives back the bytes of the value, whatever they are', () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  const entry = holdEntry('/a', holdValue(all), REVISIONS);
  assert.deepEqual(new Uint8Array(entry.value), all);
  assert.equal(valueLength(entry), 256);
  assert.deepEqual([entry.key, entry.createRevision, entry.modRevision], ['/a', 3, 7]);
});

test('holdEntry() holds on to no buffer of the caller', () => {
  const buffer = Buffer.from('before');
  const entry = holdEntry('/a', holdValue(buffer), REVISIONS);
  buffer.fill(0);
  entry.value.fill(0);
  assert.equal(valueText(entry), 'before');
});

test('valueText() reads UTF-8, of entries that are held and of others', () => {
  for (const text of ['', 'plain', 'fünf ─ 五 🎣']) {
    const value = new TextEncoder().encode(text);
    const plain: StoreEntry = { key: '/a', value, ...REVISIONS };
    const held = holdEntry('/a', holdValue(value), REVISIONS);
    assert.equal(valueText(held), text);
    assert.equal(valueText(plain), text);
    assert.equal(valueLength(held), valueLength(plain));
  }
});

test('holdValue() reads only its part of a buffer that is shared', () => {
  const shared = Buffer.from('xxvaluexx');
  assert.equal(holdValue(shared.subarray(2, 7)).bytes, 'value');
});
