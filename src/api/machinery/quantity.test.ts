import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalQuantity, parseQuantity } from './quantity.ts';

test('canonicalQuantity() writes an amount in its one form', () => {
  const table: [unknown, string][] = [
    ['0', '0'],
    [0, '0'],
    [2, '2'],
    [0.5, '500m'],
    ['0.5', '500m'],
    ['1000m', '1'],
    ['1500m', '1500m'],
    ['.1', '100m'],
    ['5.', '5'],
    ['100M', '100M'],
    ['1000k', '1M'],
    ['1e3', '1k'],
    ['1E3', '1k'],
    ['2E', '2E'],
    ['1024Mi', '1Gi'],
    ['1.5Gi', '1536Mi'],
    ['0.5Ki', '512'],
    ['0.1Ki', '102400m'],
    ['-1', '-1'],
    ['+3', '3'],
    ['1n', '1n'],
    ['0.5n', '1n'],
  ];
  for (const [value, form] of table) {
    assert.equal(canonicalQuantity(value), form, String(value));
    assert.equal(canonicalQuantity(form), form, `${form} again`);
  }
});

test('parseQuantity() refuses what is none', () => {
  for (const value of ['', ' ', 'x', '1x', '1 Gi', 'Gi', '1gi', '1K', '--1', '1.2.3', '1e', '1e99'])
    assert.equal(parseQuantity(value), undefined, JSON.stringify(value));
  for (const value of [null, undefined, {}, [], true, Number.NaN, '1'.repeat(100)])
    assert.equal(parseQuantity(value), undefined);
});
