import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatBearer, parseJoinToken } from '#client/join-token.ts';
import { FakeClock } from '#lib/clock.ts';
import { DecodeError } from '#lib/errors.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import {
  createToken,
  createTokenHandler,
  listTokens,
  removeExpiredTokens,
  revokeToken,
  TOKEN_PREFIX,
  verifyToken,
} from './tokens.ts';

const caFingerprint = `sha256:${'5a'.repeat(32)}`;
const HOUR_MS = 3_600_000;

async function make(store: Store, clock: FakeClock, ttlMs: number | undefined = HOUR_MS) {
  const made = await createToken(store, { caFingerprint, description: 'rack 7', ttlMs, clock });
  const parsed = parseJoinToken(made.text);
  return { ...made, bearer: formatBearer(parsed), parsed };
}

test('createToken() makes a token that verifies', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const { token, bearer, parsed } = await make(store, clock);
  assert.equal(parsed.caFingerprint, caFingerprint);
  assert.equal(parsed.id, token.id);
  assert.deepEqual(await verifyToken(store, bearer, { usage: 'join', clock }), {
    kind: 'valid',
    token,
  });
  assert.deepEqual(await listTokens(store), [token]);
  assert.equal(token.description, 'rack 7');
  assert.equal(token.expiresMs, clock.now() + HOUR_MS);
});

test('createToken() does not store the secret', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const { token, parsed } = await make(store, clock);
  const entry = await store.get(TOKEN_PREFIX + token.id);
  assert.ok(entry !== undefined);
  assert.ok(!Buffer.from(entry.value).toString().includes(parsed.secret));
});

test('verifyToken() knows neither another secret, nor another id, nor other text', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const { token, parsed } = await make(store, clock);
  const other = parsed.secret.startsWith('a') ? 'b' : 'a';
  for (const bearer of [
    `${token.id}.${other}${parsed.secret.slice(1)}`,
    `${token.id === 'aaaaaa' ? 'bbbbbb' : 'aaaaaa'}.${parsed.secret}`,
    `${token.id}.`,
    token.id,
    `../${token.id}.${parsed.secret}`,
    '',
  ])
    assert.deepEqual(await verifyToken(store, bearer, { usage: 'join', clock }), {
      kind: 'unknown',
    });
});

test('verifyToken() says that a token has expired, but only to who has its secret', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const { token, bearer } = await make(store, clock);
  clock.advance(HOUR_MS - 1);
  assert.equal((await verifyToken(store, bearer, { usage: 'join', clock })).kind, 'valid');
  clock.advance(1);
  const check = await verifyToken(store, bearer, { usage: 'join', clock });
  assert.deepEqual(check, { kind: 'expired', token });
  const guess = `${token.id}.${'0'.repeat(16)}`;
  assert.equal((await verifyToken(store, guess, { usage: 'join', clock })).kind, 'unknown');
});

test('verifyToken() wants the usage', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const options = { caFingerprint, description: '', ttlMs: undefined, usages: [], clock };
  const { text } = await createToken(store, options);
  const bearer = formatBearer(parseJoinToken(text));
  const check = await verifyToken(store, bearer, { usage: 'join', clock });
  assert.equal(check.kind, 'not-for-this');
});

test('a revoked token is unknown', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const { token, bearer } = await make(store, clock);
  assert.equal(await revokeToken(store, token.id), true);
  assert.equal(await revokeToken(store, token.id), false);
  assert.equal((await verifyToken(store, bearer, { usage: 'join', clock })).kind, 'unknown');
});

test('removeExpiredTokens() leaves those that are good, and those that never expire', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const short = await make(store, clock, 1000);
  const long = await make(store, clock, HOUR_MS);
  const options = { caFingerprint, description: '', ttlMs: undefined, clock };
  const endless = await createToken(store, options);
  clock.advance(1000);
  assert.deepEqual(await removeExpiredTokens(store, clock), [short.token.id]);
  assert.deepEqual(
    (await listTokens(store)).map((token) => token.id),
    [long.token.id, endless.token.id].toSorted(),
  );
});

test('what is no token under the prefix is said, not taken for one', async () => {
  const store = openMemoryStore();
  for (const text of ['no json', '{}', '{"description":"","usages":["join"],"createdMs":0}']) {
    const value = new TextEncoder().encode(text);
    await store.transact([], [{ type: 'put', key: `${TOKEN_PREFIX}aaaaaa`, value }]);
    const bearer = `aaaaaa.${'0'.repeat(16)}`;
    await assert.rejects(verifyToken(store, bearer, { usage: 'join' }), DecodeError);
  }
});

test('createTokenHandler() makes, lists and revokes tokens', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const handler = createTokenHandler({ ca: { fingerprint: caFingerprint }, store, clock });
  const body = { ttlSeconds: 60, description: 'rack 7' };
  const made = (await handler({ method: 'POST', id: undefined, body })) as { token: string };
  const { id } = parseJoinToken(made.token);
  const info = { id, description: 'rack 7', expires: '2026-01-01T00:01:00.000Z' };
  assert.deepEqual(made, { token: made.token, ...info });
  const get = { method: 'GET', id: undefined, body: undefined };
  assert.deepEqual(await handler(get), { tokens: [info] });
  assert.deepEqual(await handler({ method: 'DELETE', id, body: undefined }), {});
  assert.deepEqual(await handler(get), { tokens: [] });
  await assert.rejects(handler({ method: 'DELETE', id, body: undefined }), { status: 404 });
  await assert.rejects(handler({ method: 'PUT', id, body }), { status: 405 });
});

test('createTokenHandler() refuses what no token can be made of', async () => {
  const handler = createTokenHandler({
    ca: { fingerprint: caFingerprint },
    store: openMemoryStore(),
  });
  for (const body of [
    { ttlSeconds: 0 },
    { ttlSeconds: '60' },
    { ttlSeconds: 1e12 },
    { description: 7 },
    { description: 'x'.repeat(257) },
  ])
    await assert.rejects(handler({ method: 'POST', id: undefined, body }), { status: 422 });
  await handler({ method: 'POST', id: undefined, body: undefined });
});
