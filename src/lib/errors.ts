/** The few error classes of Tulle. Each has a literal `code`, its data, and keeps its `cause`. */

/**
 * A mistake a person can correct: says what was being done, where, what was found, and what to do.
 * The CLI prints it without a stack and exits with `exitCode`.
 */
export class UserError extends Error {
  readonly code = 'USER' as const;
  /** What the person can do about it: one imperative sentence. */
  readonly hint: string | undefined;
  readonly exitCode: number;
  constructor(
    message: string,
    options: { hint?: string; exitCode?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = 'UserError';
    this.hint = options.hint;
    this.exitCode = options.exitCode ?? 1;
  }
}

/** Bytes or text from outside do not follow their format. */
export class DecodeError extends Error {
  readonly code = 'DECODE' as const;
  readonly protocol: string;
  readonly field: string;
  /** Byte offset in the message, where known. */
  readonly offset: number | undefined;
  constructor(
    message: string,
    where: { protocol: string; field: string; offset?: number; cause?: unknown },
  ) {
    super(
      `Cannot decode ${where.protocol} ${where.field}${where.offset === undefined ? '' : ` at byte ${where.offset}`}: ${message}`,
      { cause: where.cause },
    );
    this.name = 'DecodeError';
    this.protocol = where.protocol;
    this.field = where.field;
    this.offset = where.offset;
  }
}

/** The kernel refused an operation. */
export class KernelError extends Error {
  readonly code = 'KERNEL' as const;
  /** What was being done, to what: `create link "tl12ab"`. */
  readonly op: string;
  /** Positive errno, `include/uapi/asm-generic/errno-base.h`. */
  readonly errno: number;
  /** Text of the netlink extended acknowledgement, if the kernel sent one. */
  readonly extack: string | undefined;
  /** Index of the failing message in a batch, if it was one. */
  readonly index: number | undefined;
  constructor(
    op: string,
    errno: number,
    details: { extack?: string | undefined; index?: number | undefined; cause?: unknown } = {},
  ) {
    const name = ERRNO_NAMES[errno] ?? `errno ${errno}`;
    super(`Cannot ${op}: ${name}${details.extack ? ` (kernel: ${details.extack})` : ''}`, {
      cause: details.cause,
    });
    this.name = 'KernelError';
    this.op = op;
    this.errno = errno;
    this.extack = details.extack;
    this.index = details.index;
  }
}

/** An answer of the Kubernetes API that is not a success. `status` is the HTTP status, `reason` that of `metav1.Status`. */
export class ApiError extends Error {
  readonly code = 'API' as const;
  readonly status: number;
  readonly reason: string;
  /** The `metav1.Status` object's `details`, if any. */
  readonly details: unknown;
  constructor(
    status: number,
    reason: string,
    message: string,
    options: { details?: unknown; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = 'ApiError';
    this.status = status;
    this.reason = reason;
    this.details = options.details;
  }
}

export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EAGAIN = 11;
export const EACCES = 13;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENOSPC = 28;
export const ERANGE = 34;
export const ENOPROTOOPT = 92;
export const EPROTONOSUPPORT = 93;
export const EOPNOTSUPP = 95;
export const EAFNOSUPPORT = 97;
export const EADDRNOTAVAIL = 99;
export const ENETDOWN = 100;
export const ENETUNREACH = 101;
export const ENOBUFS = 105;
export const EHOSTUNREACH = 113;
export const ESRCH = 3;
export const ERESTART = 85;

const ERRNO_NAMES: Readonly<Record<number, string>> = {
  [EPERM]: 'EPERM (operation not permitted)',
  [ENOENT]: 'ENOENT (no such object)',
  [ESRCH]: 'ESRCH (no such entry)',
  [EINTR]: 'EINTR (interrupted)',
  [EAGAIN]: 'EAGAIN (try again)',
  [EACCES]: 'EACCES (prohibited)',
  [EBUSY]: 'EBUSY (in use)',
  [EEXIST]: 'EEXIST (exists already)',
  [ENODEV]: 'ENODEV (no such device)',
  [EINVAL]: 'EINVAL (invalid argument)',
  [ENOSPC]: 'ENOSPC (no space left)',
  [ERANGE]: 'ERANGE (out of range)',
  [ERESTART]: 'ERESTART (the generation changed meanwhile)',
  [ENOPROTOOPT]: 'ENOPROTOOPT (not available)',
  [EPROTONOSUPPORT]: 'EPROTONOSUPPORT (protocol not supported by this kernel)',
  [EOPNOTSUPP]: 'EOPNOTSUPP (not supported by this kernel)',
  [EAFNOSUPPORT]: 'EAFNOSUPPORT (address of another family)',
  [EADDRNOTAVAIL]: 'EADDRNOTAVAIL (address not available)',
  [ENETDOWN]: 'ENETDOWN (network is down)',
  [ENETUNREACH]: 'ENETUNREACH (network unreachable)',
  [ENOBUFS]: 'ENOBUFS (receive buffer overrun)',
  [EHOSTUNREACH]: 'EHOSTUNREACH (no route to host)',
};

/** True if `error` is a {@link KernelError} with this errno. */
export function isErrno(error: unknown, errno: number): error is KernelError {
  return error instanceof KernelError && error.errno === errno;
}

/** True if the API answered that the object does not exist. */
export function isNotFound(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status === 404;
}

/** True if the object exists already (create). */
export function isAlreadyExists(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status === 409 && error.reason === 'AlreadyExists';
}

/** True if the object changed since it was read (optimistic concurrency). */
export function isConflict(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status === 409 && error.reason === 'Conflict';
}

/** True if the resource version is too old to watch or list from. */
export function isExpired(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status === 410;
}

/** One line for a person: the message and the messages of the chain of causes. */
export function explainError(error: unknown): string {
  const parts: string[] = [];
  for (let e: unknown = error, depth = 0; e !== undefined && depth < 5; depth++) {
    const text = messageOf(e);
    // Many a message ends with its cause already.
    if (text !== '' && !parts.some((part) => part.endsWith(text))) parts.push(text);
    e = e instanceof Error ? e.cause : undefined;
  }
  return parts.join(': ');
}

/** An aggregate without words of its own (Node's, of tries at several addresses) speaks by its members. */
function messageOf(e: unknown): string {
  if (!(e instanceof Error)) return String(e);
  if (e.message === '' && e instanceof AggregateError)
    return [...new Set(e.errors.map(messageOf))].join(', ') || e.name;
  return e.message || e.name;
}
