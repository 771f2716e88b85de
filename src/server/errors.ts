/** Errors of what lies below on their way to a client. Those the server itself makes are in `machinery/status.ts`. */
import { expired, internalError, requestEntityTooLarge } from '#api/machinery/status.ts';
import { ApiError, explainError } from '#lib/errors.ts';
import {
  CompactedError,
  FutureRevisionError,
  LaggedError,
  MAX_TRANSACTION_BYTES,
  StoreUnavailableError,
  StoreWriteError,
  TransactionTooLargeError,
} from '#store/port.ts';

/** Seconds after which a client may try again what the store could not take. */
const STORE_RETRY_SECONDS = 5;

/** `services` or `ippools.tulle.dev`: how messages and rules name a resource. */
export function qualifiedResource(kind: { group: string; resource: string }): string {
  return kind.group === '' ? kind.resource : `${kind.resource}.${kind.group}`;
}

/** How the API answers an error of any kind; what has no meaning for clients becomes 500 with one line of explanation. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof CompactedError)
    return expired(`The resourceVersion for the provided request is too old: ${error.message}`);
  if (error instanceof FutureRevisionError)
    return new ApiError(504, 'Timeout', `Too large resource version: ${error.message}`, {
      details: {
        causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
        retryAfterSeconds: 1,
      },
      cause: error,
    });
  if (error instanceof LaggedError)
    return expired(`the watch was too slow and was ended: ${error.message}`);
  if (error instanceof TransactionTooLargeError)
    return requestEntityTooLarge(MAX_TRANSACTION_BYTES);
  if (error instanceof StoreWriteError) return writeRefused(error);
  if (error instanceof StoreUnavailableError)
    return new ApiError(
      503,
      'ServiceUnavailable',
      `the store cannot be reached at present: ${explainError(error)}`,
      { cause: error, details: { retryAfterSeconds: STORE_RETRY_SECONDS } },
    );
  return internalError(explainError(error), error);
}

function writeRefused(error: StoreWriteError): ApiError {
  const why = explainError(error);
  // No time to wait is named: clients would send it again by themselves, and it may have happened.
  if (error.isUncertain) return new ApiError(504, 'Timeout', why, { cause: error });
  // Nor here: kubectl would be silent for a minute per object while it tries again, and only a person makes space.
  if (error.isOutOfSpace)
    return new ApiError(
      507,
      'InsufficientStorage',
      `the store has no space left, so nothing can be written; reads go on. Make space on its disk: no restart is needed. ${why}`,
      { cause: error },
    );
  return new ApiError(503, 'ServiceUnavailable', `the store takes no writes at present: ${why}`, {
    cause: error,
    details: { retryAfterSeconds: STORE_RETRY_SECONDS },
  });
}
