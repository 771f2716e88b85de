/** What can go wrong between a store and its etcd, and what that says of a write. */

/** What etcd answered instead of a result. `grpcCode`: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
export class EtcdError extends Error {
  readonly code = 'ETCD' as const;
  readonly grpcCode: number;
  readonly endpoint: string;
  constructor(message: string, details: { grpcCode: number; endpoint: string }) {
    super(`etcd at ${details.endpoint}: ${message}`);
    this.name = 'EtcdError';
    this.grpcCode = details.grpcCode;
    this.endpoint = details.endpoint;
  }
}

/** No member answered, or the connection broke before the answer was complete. */
export class EtcdConnectionError extends Error {
  readonly code = 'ETCD_CONNECTION' as const;
  /** False if the request cannot have reached a member. */
  readonly wasSent: boolean;
  constructor(
    endpoint: string,
    message: string,
    details: { wasSent: boolean; cause?: unknown } = { wasSent: true },
  ) {
    super(`etcd at ${endpoint}: ${message}`, { cause: details.cause });
    this.name = 'EtcdConnectionError';
    this.wasSent = details.wasSent;
  }
}

/** An answer is larger than the caller can take. */
export class EtcdAnswerTooLargeError extends Error {
  readonly code = 'ETCD_ANSWER_TOO_LARGE' as const;
}

export function isCompacted(error: unknown): boolean {
  return error instanceof EtcdError && /required revision has been compacted/.test(error.message);
}

/** gRPC codes with which etcd says that it has surely not done what was asked. */
const REFUSED_CODES: ReadonlySet<number> = new Set([3, 5, 7, 8, 9, 11, 12, 16]);
const RESOURCE_EXHAUSTED = 8;
export const UNAUTHENTICATED = 16;
/** etcd says this, with code 3, when users or roles were changed since the token was made. */
const OLD_AUTH = /revision of auth store is old|invalid auth token/;

/** True if a failed write has surely not happened. */
export function isRefusal(error: unknown): boolean {
  if (error instanceof EtcdConnectionError) return !error.wasSent;
  return error instanceof EtcdError && REFUSED_CODES.has(error.grpcCode);
}

/** True if etcd takes no writes because its own disk quota is used up. */
export function isOutOfSpace(error: unknown): boolean {
  return (
    error instanceof EtcdError &&
    error.grpcCode === RESOURCE_EXHAUSTED &&
    /space/.test(error.message)
  );
}

/** gRPC codes: the answer says nothing of what was asked, or too late. */
const UNKNOWN = 2;
const DEADLINE_EXCEEDED = 4;
const INTERNAL = 13;
export const UNAVAILABLE = 14;

/** True if another member, or the same one a little later, may do better. */
export function isTransient(error: unknown): boolean {
  if (error instanceof EtcdError)
    return [UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE].includes(error.grpcCode);
  return error instanceof EtcdConnectionError;
}

/** True if the token that was shown is no longer good. */
export function isOldToken(error: unknown): boolean {
  return (
    error instanceof EtcdError &&
    (error.grpcCode === UNAUTHENTICATED || OLD_AUTH.test(error.message))
  );
}
