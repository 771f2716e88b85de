/** From an answer that is no success to an {@link ApiError}. */

import type { Status } from '#api/meta.ts';
import { ApiError } from '#lib/errors.ts';
import { nodeHttp } from '#lib/node-http.ts';

/** As much of a body that is no Status as helps a person; proxies answer with whole pages. */
const MAX_QUOTED_CHARACTERS = 500;

/** What the status means when the body does not say; `k8s.io/apimachinery/pkg/api/errors.NewGenericServerResponse`. */
const REASONS: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  406: 'NotAcceptable',
  409: 'Conflict',
  410: 'Expired',
  413: 'RequestEntityTooLarge',
  415: 'UnsupportedMediaType',
  422: 'Invalid',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
};

/**
 * @param what the request as a person would name it: `GET /api/v1/nodes`; used when the body does not explain itself
 */
export function apiErrorOf(status: number, body: string, what: string): ApiError {
  const reason = REASONS[status] ?? 'Unknown';
  const answer = parseStatus(body);
  if (answer !== undefined)
    return statusError({ ...answer, code: answer.code ?? status, reason: answer.reason || reason });
  const text = body.replace(/\s+/g, ' ').trim().slice(0, MAX_QUOTED_CHARACTERS);
  const name = nodeHttp.STATUS_CODES[status] ?? 'unknown status';
  return new ApiError(
    status,
    reason,
    `${what}: ${status} ${name}${text === '' ? '' : `: ${text}`}`,
  );
}

/** A `metav1.Status` as an error: the object of an ERROR event in a watch. */
export function statusError(status: Partial<Status>): ApiError {
  const { code = 500 } = status;
  const reason = status.reason || REASONS[code] || 'Unknown';
  return new ApiError(code, reason, status.message || reason, { details: status.details });
}

function parseStatus(body: string): Status | undefined {
  if (!body.trimStart().startsWith('{')) return undefined;
  try {
    const value = JSON.parse(body) as Partial<Status>;
    return value.kind === 'Status' ? (value as Status) : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
