import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TokenRequest } from '#api/authentication/v1/reviews.ts';
import { SERVICE_ACCOUNT } from '#api/core/v1/service-account.ts';
import { type Fixture, openFixture } from '../registry/test-registries.ts';
import { createServiceAccountTokens } from './service-account-tokens.ts';
import { createSigningKey, type SigningKey } from './signing-key.ts';
import { createTokenKeys, MAX_TOKEN_KEYS, publishTokenKey } from './token-keys.ts';

const ISSUER = 'https://kubernetes.default.svc.cluster.local';
const TARGET = { namespace: 'default', name: 'robot' };
const REQUEST: TokenRequest = {
  apiVersion: 'authentication.k8s.io/v1',
  kind: 'TokenRequest',
  metadata: { name: '' },
  spec: {},
};

/** A server that starts with this key. */
async function start({ store, clock }: Fixture, key: SigningKey, forgetOthers = false) {
  await publishTokenKey(key, { store, clock, forgetOthers });
  return createServiceAccountTokens({ store, clock, key, issuer: ISSUER });
}

async function withRobot(): Promise<Fixture> {
  const fixture = await openFixture();
  const metadata = { name: 'robot' };
  await fixture.create(SERVICE_ACCOUNT, { apiVersion: 'v1', kind: 'ServiceAccount', metadata });
  return fixture;
}

test('tokens of an older key, and of another server’s, are accepted; one key signs', async () => {
  await using fixture = await withRobot();
  const [oldKey, newKey, otherKey] = [createSigningKey(), createSigningKey(), createSigningKey()];
  const { token: before } = await (await start(fixture, oldKey)).issue(TARGET, REQUEST);
  const other = await start(fixture, otherKey);
  const after = await start(fixture, newKey);
  const { token } = await after.issue(TARGET, REQUEST);
  for (const server of [other, after])
    for (const shown of [before, token]) assert.equal((await server.check(shown)).kind, 'valid');
  const ids = (await after.keys.list()).map(({ id }) => id);
  assert.deepEqual(ids.toSorted(), [oldKey.id, newKey.id, otherKey.id].toSorted());
});

test('keys that are forgotten are not accepted any more, nor by who remembers their tokens', async () => {
  await using fixture = await withRobot();
  const [stolen, fresh] = [createSigningKey(), createSigningKey()];
  const { token } = await (await start(fixture, stolen)).issue(TARGET, REQUEST);
  const other = await start(fixture, createSigningKey());
  assert.equal((await other.check(token)).kind, 'valid');
  const rotated = await start(fixture, fresh, true);
  for (const server of [rotated, other])
    assert.match(JSON.stringify(await server.check(token)), /a key that is not this cluster's/);
  const { token: own } = await rotated.issue(TARGET, REQUEST);
  assert.equal((await other.check(own)).kind, 'valid');
});

test('publishTokenKey() writes once, and keeps a bounded number of keys, the newest', async () => {
  await using fixture = await openFixture();
  const { store, clock } = fixture;
  const keys = Array.from({ length: MAX_TOKEN_KEYS + 2 }, createSigningKey);
  for (const key of keys) await publishTokenKey(key, { store, clock, forgetOthers: false });
  const [first, , third] = keys;
  const own = createSigningKey();
  const published = createTokenKeys(store, own);
  assert.equal(await published.find(first?.id ?? ''), undefined);
  assert.notEqual(await published.find(third?.id ?? ''), undefined);
  assert.equal((await published.list()).length, MAX_TOKEN_KEYS + 1);
  const revision = await store.revision();
  const last = keys.at(-1);
  assert.ok(last !== undefined);
  await publishTokenKey(last, { store, clock, forgetOthers: false });
  assert.equal(await store.revision(), revision);
});

test('find() looks for nothing but a hash', async () => {
  await using fixture = await openFixture();
  const keys = createTokenKeys(fixture.store, createSigningKey());
  for (const id of ['', '../x', 'a'.repeat(44), 'a'.repeat(43)])
    assert.equal(await keys.find(id), undefined);
});
