import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CompactedError,
  FutureRevisionError,
  LaggedError,
  StoreUnavailableError,
  StoreWriteError,
  TransactionTooLargeError,
} from '#store/port.ts';
import { toApiError } from './errors.ts';

const CASES: readonly [
  Error,
  status: number,
  reason: string,
  retryAfterSeconds: number | undefined,
][] = [
  [new StoreWriteError('disk'), 503, 'ServiceUnavailable', 5],
  [new StoreWriteError('disk', { isOutOfSpace: true }), 507, 'InsufficientStorage', undefined],
  // A client that repeated this by itself could do it twice.
  [new StoreWriteError('lost', { isUncertain: true }), 504, 'Timeout', undefined],
  [new StoreUnavailableError('away'), 503, 'ServiceUnavailable', 5],
  [new TransactionTooLargeError('large'), 413, 'RequestEntityTooLarge', undefined],
  [new CompactedError(1, 2), 410, 'Expired', undefined],
  [new LaggedError(1, 2), 410, 'Expired', undefined],
  [new FutureRevisionError(2, 1), 504, 'Timeout', 1],
];

for (const [error, status, reason, retryAfterSeconds] of CASES)
  test(`toApiError() makes ${status} ${reason} of ${error.name} "${error.message}"`, () => {
    const answer = toApiError(error);
    assert.deepEqual([answer.status, answer.reason], [status, reason]);
    const details = answer.details as { retryAfterSeconds?: number } | undefined;
    assert.equal(details?.retryAfterSeconds, retryAfterSeconds);
  });
