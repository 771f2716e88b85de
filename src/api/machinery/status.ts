/**
 * The errors of the API: an {@link ApiError} for each reason, with the HTTP status and the words that clients of
 * Kubernetes expect, and the `metav1.Status` that is sent. `k8s.io/apimachinery/pkg/api/errors`.
 */
import { ApiError } from '#lib/errors.ts';
import type { FieldError, KindRef } from '../kind.ts';
import type { Status, StatusCause } from '../meta.ts';
import { FIELD_ERROR_REASONS, formatFieldError, formatFieldErrorBody } from './field-errors.ts';

/** What a person reads in `Invalid`; the causes hold all. */
const MAX_SHOWN_ERRORS = 20;

type ResourceRef = Pick<KindRef, 'group' | 'resource'>;
type Details = NonNullable<Status['details']>;

export function notFound(kind: ResourceRef, name: string): ApiError {
  return new ApiError(404, 'NotFound', `${qualified(kind)} "${name}" not found`, {
    details: detailsOf(kind, name),
  });
}

/** For a path that is no resource. */
export function pathNotFound(): ApiError {
  return new ApiError(404, 'NotFound', 'the server could not find the requested resource', {
    details: {},
  });
}

export function alreadyExists(kind: ResourceRef, name: string): ApiError {
  return new ApiError(409, 'AlreadyExists', `${qualified(kind)} "${name}" already exists`, {
    details: detailsOf(kind, name),
  });
}

/** @param why default: the object changed since it was read */
export function conflict(
  kind: ResourceRef,
  name: string,
  why = 'the object has been modified; please apply your changes to the latest version and try again',
): ApiError {
  return new ApiError(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${qualified(kind)} "${name}": ${why}`,
    { details: detailsOf(kind, name) },
  );
}

/** @param errors at least one */
export function invalidObject(
  kind: Pick<KindRef, 'group' | 'kind'>,
  name: string,
  errors: readonly FieldError[],
): ApiError {
  const texts = errors.map(formatFieldError);
  const more = texts.length - MAX_SHOWN_ERRORS;
  const shown = texts.slice(0, MAX_SHOWN_ERRORS);
  if (more > 0) shown.push(`and ${more} more`);
  const text = texts.length === 1 ? texts[0] : `[${shown.join(', ')}]`;
  const causes: StatusCause[] = errors.map((error) => ({
    reason: FIELD_ERROR_REASONS[error.type],
    message: formatFieldErrorBody(error),
    field: error.field,
  }));
  const gk = kind.group === '' ? kind.kind : `${kind.kind}.${kind.group}`;
  return new ApiError(422, 'Invalid', `${gk} "${name}" is invalid: ${text}`, {
    details: { name, group: kind.group, kind: kind.kind, causes },
  });
}

export function badRequest(message: string): ApiError {
  return new ApiError(400, 'BadRequest', message);
}

/** @param kind `undefined` for a path that is no resource */
export function forbidden(kind: ResourceRef | undefined, name: string, why: string): ApiError {
  const subject =
    kind === undefined ? 'forbidden' : `${qualified(kind)}${name && ` "${name}"`} is forbidden`;
  return new ApiError(403, 'Forbidden', `${subject}: ${why}`, {
    details: kind === undefined ? {} : detailsOf(kind, name),
  });
}

/** Nothing new comes into a namespace that is going. Clients tell it by the cause, as upstream's admission gives it. */
export function namespaceTerminating(kind: ResourceRef, name: string, namespace: string): ApiError {
  const why = `unable to create new content in namespace ${namespace} because it is being terminated`;
  const { status, reason, message } = forbidden(kind, name, why);
  const cause = {
    reason: NAMESPACE_TERMINATING,
    message: `namespace ${namespace} is being terminated`,
    field: 'metadata.namespace',
  };
  return new ApiError(status, reason, message, {
    details: { ...detailsOf(kind, name), causes: [cause] },
  });
}

/** `corev1.NamespaceTerminatingCause` */
const NAMESPACE_TERMINATING = 'NamespaceTerminating';

/** Whether an object could not be made because its namespace is not there, or is going. */
export function isNamespaceGone(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  const { kind, causes } = (error.details ?? {}) as { kind?: string; causes?: unknown };
  if (error.status === 404) return kind === 'namespaces';
  return (
    error.status === 403 &&
    Array.isArray(causes) &&
    causes.some((cause) => (cause as { reason?: string }).reason === NAMESPACE_TERMINATING)
  );
}

export function unauthorized(message = 'Unauthorized'): ApiError {
  return new ApiError(401, 'Unauthorized', message);
}

/** The resource version is too old to list or watch from. */
export function expired(message: string): ApiError {
  return new ApiError(410, 'Expired', message);
}

export function methodNotAllowed(kind: ResourceRef, verb: string): ApiError {
  return new ApiError(
    405,
    'MethodNotAllowed',
    `${verb} is not supported on resources of kind "${qualified(kind)}"`,
    { details: { group: kind.group, kind: kind.resource } },
  );
}

/** @param accepted the media types that would do */
export function unsupportedMediaType(type: string, accepted: readonly string[]): ApiError {
  return new ApiError(
    415,
    'UnsupportedMediaType',
    `the body of the request was in an unknown format (${type || 'no Content-Type'}) - accepted media types include: ${accepted.join(', ')}`,
  );
}

/** @param accepted the media types the server can answer with */
export function notAcceptable(accepted: readonly string[]): ApiError {
  return new ApiError(
    406,
    'NotAcceptable',
    `only the following media types are accepted: ${accepted.join(', ')}`,
  );
}

export function requestEntityTooLarge(maxBytes: number): ApiError {
  return new ApiError(
    413,
    'RequestEntityTooLarge',
    `Request entity too large: limit is ${maxBytes} bytes`,
  );
}

export function tooManyRequests(message: string, retryAfterSeconds: number): ApiError {
  return new ApiError(429, 'TooManyRequests', message, { details: { retryAfterSeconds } });
}

export function serviceUnavailable(message: string): ApiError {
  return new ApiError(503, 'ServiceUnavailable', message);
}

/** @param message may hold what happened inside, so nothing secret */
export function internalError(message: string, cause?: unknown): ApiError {
  return new ApiError(500, 'InternalError', `Internal error occurred: ${message}`, {
    details: { causes: [{ message }] },
    cause,
  });
}

/** The body that is sent for an error. What is no {@link ApiError} is an internal error without particulars. */
export function statusOf(error: unknown): Status {
  const known = error instanceof ApiError ? error : internalError('see the log of the server');
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: known.message,
    reason: known.reason,
    ...(isDetails(known.details) ? { details: known.details } : {}),
    code: known.status,
  };
}

/** The body of a delete that is done. */
export function successStatus(kind: ResourceRef, name: string, uid?: string): Status {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Success',
    details: { ...detailsOf(kind, name), ...(uid === undefined ? {} : { uid }) },
  };
}

/** The error that a `Status` body stands for. @param httpStatus used where the body says no code */
export function errorOfStatus(status: Partial<Status>, httpStatus: number): ApiError {
  return new ApiError(
    status.code ?? httpStatus,
    status.reason ?? 'Unknown',
    status.message ?? `the server answered ${httpStatus}`,
    { details: status.details },
  );
}

/** `services`, `leases.coordination.k8s.io` */
function qualified({ group, resource }: ResourceRef): string {
  return group === '' ? resource : `${resource}.${group}`;
}

function detailsOf({ group, resource }: ResourceRef, name: string): Details {
  return { name, ...(group === '' ? {} : { group }), kind: resource };
}

function isDetails(value: unknown): value is Details {
  return typeof value === 'object' && value !== null;
}
