/** What every implementation checks of a transaction before it evaluates it. */
import type { Compare, WriteOp } from './port.ts';
import {
  MAX_TRANSACTION_BYTES,
  MAX_TRANSACTION_OPERATIONS,
  TransactionTooLargeError,
} from './port.ts';

/** @returns the size of the operations in bytes @throws TypeError for a key that is none, or is written twice; TransactionTooLargeError */
export function checkTransaction(
  compares: readonly Compare[],
  operations: readonly WriteOp[],
): number {
  checkCount('compares', compares.length);
  checkCount('operations', operations.length);
  for (const compare of compares) checkKey(compare.key);
  const keys = new Set<string>();
  for (const { key } of operations) {
    checkKey(key);
    if (keys.has(key)) throw new TypeError(`The key "${key}" is written twice in one transaction`);
    keys.add(key);
  }
  const bytes = sizeOfOperations(operations);
  if (bytes > MAX_TRANSACTION_BYTES)
    throw new TransactionTooLargeError(
      `The transaction has ${bytes} bytes, ${MAX_TRANSACTION_BYTES} are allowed`,
    );
  return bytes;
}

/** Bytes of the keys and values of the operations. Keys are taken for ASCII. */
export function sizeOfOperations(operations: readonly WriteOp[]): number {
  let bytes = 0;
  for (const op of operations) bytes += op.key.length + (op.type === 'put' ? op.value.length : 0);
  return bytes;
}

function checkCount(what: string, count: number): void {
  if (count > MAX_TRANSACTION_OPERATIONS)
    throw new TransactionTooLargeError(
      `The transaction has ${count} ${what}, ${MAX_TRANSACTION_OPERATIONS} are allowed`,
    );
}

function checkKey(key: string): void {
  if (key === '') throw new TypeError('A key of the store must not be empty');
  if (!key.isWellFormed() || key.includes('\0'))
    throw new TypeError(`The key ${JSON.stringify(key)} has a NUL or half of a surrogate pair`);
}
