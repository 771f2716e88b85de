import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatMicroTime, formatTime } from './time.ts';

const MOMENT = Date.UTC(2026, 0, 2, 3, 4, 5, 678);

test('formatTime() leaves parts of a second out', () => {
  assert.equal(formatTime(MOMENT), '2026-01-02T03:04:05Z');
});

test('formatMicroTime() has six digits of a second', () => {
  assert.equal(formatMicroTime(MOMENT), '2026-01-02T03:04:05.678000Z');
});
