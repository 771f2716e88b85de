/**
 * Join tokens in the store, under `/tulle/tokens/<id>`. Their secrets are not there, only hashes of them.
 * One round of SHA-256 is enough: a secret has 82 random bits, which no list of likely words shortens.
 */
import { createHash, randomInt, timingSafeEqual } from 'node:crypto';
import { formatJoinToken, parseBearer } from '#client/join-token.ts';
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { ApiError, DecodeError, UserError } from '#lib/errors.ts';
import type { Store, StoreEntry } from '#store/port.ts';

export const TOKEN_PREFIX = '/tulle/tokens/';
/** What a token is good for. `join`: to become a node. */
export const TOKEN_USAGES = ['join'] as const;
export type TokenUsage = (typeof TOKEN_USAGES)[number];

/** Ids have 31 bits: a second try is rare, a fifth means that something else is wrong. */
const MAX_ID_TRIES = 5;
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789';
const ID_LENGTH = 6;
const SECRET_LENGTH = 16;
/** A day: long enough to set up machines with, short enough that a forgotten one does no harm. */
const DEFAULT_TTL_SECONDS = 24 * 3600;
/** A year: what is to last longer is made to last for ever, knowingly, on the server itself. */
const MAX_TTL_SECONDS = 365 * 24 * 3600;
const MAX_DESCRIPTION_LENGTH = 256;

export interface Token {
  readonly id: string;
  readonly description: string;
  readonly usages: readonly TokenUsage[];
  /** Milliseconds since the epoch. */
  readonly createdMs: number;
  /** `undefined`: it does not expire. */
  readonly expiresMs: number | undefined;
}

export type TokenCheck =
  | { readonly kind: 'valid'; readonly token: Token }
  /** There is none with this id and secret. Which of the two is wrong is not said. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'expired'; readonly token: Token }
  | { readonly kind: 'not-for-this'; readonly token: Token };

/**
 * Makes a token.
 * @param options.ttlMs time until it expires; `undefined` is never
 * @returns its record, and the text for the new machine, which cannot be had again
 */
export async function createToken(
  store: Store,
  options: {
    readonly caFingerprint: string;
    readonly description: string;
    readonly ttlMs: number | undefined;
    readonly usages?: readonly TokenUsage[];
    readonly clock?: Clock;
  },
): Promise<{ readonly text: string; readonly token: Token }> {
  const nowMs = (options.clock ?? systemClock).now();
  const secret = randomText(SECRET_LENGTH);
  for (let tries = 0; tries < MAX_ID_TRIES; tries++) {
    const token: Token = {
      id: randomText(ID_LENGTH),
      description: options.description,
      usages: options.usages ?? TOKEN_USAGES,
      createdMs: nowMs,
      expiresMs: options.ttlMs === undefined ? undefined : nowMs + options.ttlMs,
    };
    const key = TOKEN_PREFIX + token.id;
    const value = encodeToken(token, hashOf(secret));
    const result = await store.transact([{ key, modRevision: 0 }], [{ type: 'put', key, value }]);
    const { caFingerprint } = options;
    if (result.succeeded)
      return { text: formatJoinToken({ id: token.id, secret, caFingerprint }), token };
  }
  throw new UserError(`Cannot make a join token: ${MAX_ID_TRIES} random ids were all in use`, {
    hint: 'Revoke tokens that are not needed any more.',
  });
}

/** All tokens, expired ones too, by id. */
export async function listTokens(store: Store): Promise<Token[]> {
  const { entries } = await store.list(TOKEN_PREFIX);
  return entries.map((entry) => decodeToken(entry).token);
}

/** @returns false if there is no such token */
export async function revokeToken(store: Store, id: string): Promise<boolean> {
  const key = TOKEN_PREFIX + id;
  for (;;) {
    const entry = await store.get(key);
    if (entry === undefined) return false;
    const compare = { key, modRevision: entry.modRevision };
    if ((await store.transact([compare], [{ type: 'delete', key }])).succeeded) return true;
  }
}

/** Removes what has expired. @returns the ids removed */
export async function removeExpiredTokens(
  store: Store,
  clock: Clock = systemClock,
): Promise<string[]> {
  const nowMs = clock.now();
  const expired = (await listTokens(store)).filter((token) => isExpired(token, nowMs));
  for (const token of expired) await revokeToken(store, token.id);
  return expired.map((token) => token.id);
}

/**
 * Checks what a machine shows.
 * @param bearer `<id>.<secret>`
 */
export async function verifyToken(
  store: Store,
  bearer: string,
  options: { readonly usage: TokenUsage; readonly clock?: Clock },
): Promise<TokenCheck> {
  const shown = parseBearer(bearer);
  if (shown === undefined) return { kind: 'unknown' };
  const entry = await store.get(TOKEN_PREFIX + shown.id);
  if (entry === undefined) return { kind: 'unknown' };
  const { token, secretHash } = decodeToken(entry);
  if (!timingSafeEqual(hashOf(shown.secret), secretHash)) return { kind: 'unknown' };
  if (isExpired(token, (options.clock ?? systemClock).now())) return { kind: 'expired', token };
  if (!token.usages.includes(options.usage)) return { kind: 'not-for-this', token };
  return { kind: 'valid', token };
}

/** A request under `/tulle/v1/tokens`. Who may make it is decided before. */
export interface TokenCall {
  readonly method: string;
  /** What stands behind `/tulle/v1/tokens/`, if anything. */
  readonly id: string | undefined;
  /** Parsed JSON of a POST. */
  readonly body: unknown;
}

/**
 * Makes what the API server calls for `/tulle/v1/tokens`:
 * - `POST` `{"ttlSeconds", "description"}`, both optional, answers `{"token", "id", "expires"}`;
 * - `GET` answers `{"tokens": [{"id", "description", "expires"}]}`; `expires` is RFC 3339, or `never`;
 * - `DELETE …/<id>` answers `{}`.
 *
 * The handler throws ApiError, which becomes the answer.
 */
export function createTokenHandler(options: {
  readonly ca: { readonly fingerprint: string };
  readonly store: Store;
  readonly clock?: Clock;
}): (call: TokenCall) => Promise<object> {
  const { ca, store } = options;
  const time = options.clock === undefined ? {} : { clock: options.clock };
  return async ({ method, id, body }) => {
    if (method === 'POST' && id === undefined) {
      const wanted = parseTokenBody(body);
      const made = await createToken(store, { caFingerprint: ca.fingerprint, ...wanted, ...time });
      return { token: made.text, ...tokenInfo(made.token) };
    }
    if (method === 'GET' && id === undefined)
      return { tokens: (await listTokens(store)).map(tokenInfo) };
    if (method === 'DELETE' && id !== undefined) {
      if (await revokeToken(store, id)) return {};
      throw new ApiError(404, 'NotFound', `there is no join token ${JSON.stringify(id)}`);
    }
    throw new ApiError(405, 'MethodNotAllowed', `tokens do not know ${method} here`);
  };
}

function tokenInfo(token: Token): { id: string; description: string; expires: string } {
  const { id, description, expiresMs } = token;
  return {
    id,
    description,
    expires: expiresMs === undefined ? 'never' : new Date(expiresMs).toISOString(),
  };
}

function parseTokenBody(body: unknown): { ttlMs: number; description: string } {
  const fields = (body ?? {}) as { ttlSeconds?: unknown; description?: unknown };
  const { ttlSeconds = DEFAULT_TTL_SECONDS, description = '' } = fields;
  if (typeof ttlSeconds !== 'number' || !(ttlSeconds > 0 && ttlSeconds <= MAX_TTL_SECONDS))
    throw invalid(`ttlSeconds: must be a number from 1 to ${MAX_TTL_SECONDS}`);
  if (typeof description !== 'string' || description.length > MAX_DESCRIPTION_LENGTH)
    throw invalid(`description: must be a text of at most ${MAX_DESCRIPTION_LENGTH} characters`);
  return { ttlMs: Math.round(ttlSeconds * 1000), description };
}

function invalid(message: string): ApiError {
  return new ApiError(422, 'Invalid', message);
}

function isExpired(token: Token, nowMs: number): boolean {
  return token.expiresMs !== undefined && token.expiresMs <= nowMs;
}

function hashOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

function randomText(length: number): string {
  return Array.from({ length }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
}

function encodeToken(token: Token, secretHash: Uint8Array): Uint8Array {
  const { id: _inKey, ...stored } = token;
  const hash = Buffer.from(secretHash).toString('hex');
  return new TextEncoder().encode(JSON.stringify({ ...stored, secretSha256: hash }));
}

/** @throws DecodeError if another program has written there */
function decodeToken(entry: StoreEntry): { token: Token; secretHash: Buffer } {
  const fail = (cause?: unknown) =>
    new DecodeError('the value is no token', { protocol: 'store', field: entry.key, cause });
  let stored: Record<string, unknown>;
  try {
    stored = JSON.parse(new TextDecoder().decode(entry.value));
  } catch (cause) {
    throw fail(cause);
  }
  const { description, usages, createdMs, expiresMs, secretSha256 } = stored;
  if (
    typeof description !== 'string' ||
    !Array.isArray(usages) ||
    typeof createdMs !== 'number' ||
    (expiresMs !== undefined && typeof expiresMs !== 'number') ||
    typeof secretSha256 !== 'string' ||
    !/^[0-9a-f]{64}$/.test(secretSha256)
  )
    throw fail();
  const known = TOKEN_USAGES.filter((usage) => usages.includes(usage));
  const id = entry.key.slice(TOKEN_PREFIX.length);
  return {
    token: { id, description, usages: known, createdMs, expiresMs },
    secretHash: Buffer.from(secretSha256, 'hex'),
  };
}
