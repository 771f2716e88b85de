/**
 * Where a list that was cut goes on: the revision of its first page and the last key shown.
 *
 * The token is opaque to clients but not secret: it can only name a place inside the collection that is asked for, which
 * the caller may list anyway, so it needs no signature.
 */
import { badRequest } from '#api/machinery/status.ts';

export interface ContinueToken {
  readonly revision: number;
  /** Key of the last entry shown, relative to the collection's prefix. */
  readonly after: string;
}

const TOKEN_VERSION = 1;

export function formatContinueToken(token: ContinueToken): string {
  const json = JSON.stringify({ v: TOKEN_VERSION, rv: token.revision, after: token.after });
  return Buffer.from(json, 'utf8').toString('base64url');
}

/** @throws ApiError 400 for what is no token of ours */
export function parseContinueToken(text: string): ContinueToken {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
  } catch {
    throw badRequest('continue key is not valid: it is no token that this server made');
  }
  const token = value as { v?: unknown; rv?: unknown; after?: unknown } | null;
  if (
    token === null ||
    typeof token !== 'object' ||
    token.v !== TOKEN_VERSION ||
    typeof token.rv !== 'number' ||
    !Number.isSafeInteger(token.rv) ||
    token.rv < 1 ||
    typeof token.after !== 'string' ||
    token.after === ''
  )
    throw badRequest('continue key is not valid: it is no token that this server made');
  return { revision: token.rv, after: token.after };
}
