import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAge, formatDuration } from './age.ts';

const S = 1000;
const M = 60 * S;
const H = 60 * M;
const D = 24 * H;

test('formatDuration() rounds as kubectl does', () => {
  const table: [number, string][] = [
    [-3 * S, '<invalid>'],
    [-1 * S, '0s'],
    [-500, '0s'],
    [0, '0s'],
    [999, '0s'],
    [5 * S, '5s'],
    [119 * S, '119s'],
    [2 * M, '2m'],
    [2 * M + 30 * S, '2m30s'],
    [9 * M + 59 * S, '9m59s'],
    [10 * M + 59 * S, '10m'],
    [179 * M, '179m'],
    [3 * H, '3h'],
    [3 * H + 20 * M, '3h20m'],
    [8 * H + 20 * M, '8h'],
    [47 * H + 59 * M, '47h'],
    [48 * H, '2d'],
    [48 * H + 4 * H, '2d4h'],
    [8 * D + 5 * H, '8d'],
    [2 * 365 * D - D, '729d'],
    [2 * 365 * D, '2y'],
    [2 * 365 * D + 10 * D, '2y10d'],
    [8 * 365 * D + 10 * D, '8y'],
  ];
  for (const [ms, text] of table) assert.equal(formatDuration(ms), text, `${ms} ms`);
});

test('formatAge() counts from the timestamp', () => {
  const now = Date.parse('2026-01-01T00:01:05Z');
  assert.equal(formatAge('2026-01-01T00:00:00Z', now), '65s');
  for (const nothing of [undefined, null, '', 'yesterday'])
    assert.equal(formatAge(nothing, now), '<unknown>');
});
