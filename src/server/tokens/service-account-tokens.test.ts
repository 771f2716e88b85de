import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { TokenRequest } from '#api/authentication/v1/reviews.ts';
import { SECRET } from '#api/core/v1/secret.ts';
import { SERVICE_ACCOUNT } from '#api/core/v1/service-account.ts';
import { AS_ADMIN, type Fixture, openFixture } from '../registry/test-registries.ts';
import { signToken, verifyToken } from './jwt.ts';
import { createServiceAccountTokens, jsonWebKeys } from './service-account-tokens.ts';
import { createSigningKey, openSigningKey } from './signing-key.ts';

const ISSUER = 'https://kubernetes.default.svc.cluster.local';
const KEY = createSigningKey();
const TARGET = { namespace: 'default', name: 'robot' };

async function withRobot(fixture: Fixture) {
  await fixture.create(SERVICE_ACCOUNT, account());
  const { store, clock } = fixture;
  return createServiceAccountTokens({ store, clock, key: KEY, issuer: ISSUER });
}

function account() {
  return { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'robot' } };
}

function request(spec: TokenRequest['spec'] = {}): TokenRequest {
  const apiVersion = 'authentication.k8s.io/v1';
  return { apiVersion, kind: 'TokenRequest', metadata: { name: '' }, spec };
}

test('a token says whose it is', async () => {
  await using fixture = await openFixture();
  const tokens = await withRobot(fixture);
  const { token } = await tokens.issue(TARGET, request());
  const verdict = await tokens.check(token);
  assert.ok(verdict.kind === 'valid');
  const { name, groups, uid } = verdict.principal;
  assert.equal(name, 'system:serviceaccount:default:robot');
  assert.deepEqual(groups, [
    'system:serviceaccounts',
    'system:serviceaccounts:default',
    'system:authenticated',
  ]);
  assert.match(uid ?? '', /^uid-/);
});

test('a token ends with its time', async () => {
  await using fixture = await openFixture();
  const tokens = await withRobot(fixture);
  const { token, expiresMs } = await tokens.issue(TARGET, request({ expirationSeconds: 600 }));
  assert.equal(expiresMs, fixture.clock.now() + 600_000);
  fixture.clock.advance(599_000);
  assert.equal((await tokens.check(token)).kind, 'valid');
  fixture.clock.advance(1_000);
  assert.deepEqual(await tokens.check(token), { kind: 'refused', why: 'it has expired' });
});

test('a token ends with its account, and another of the same name does not bring it back', async () => {
  await using fixture = await openFixture();
  const tokens = await withRobot(fixture);
  const { token } = await tokens.issue(TARGET, request());
  await fixture.of(SERVICE_ACCOUNT).delete(TARGET, AS_ADMIN);
  const gone = { kind: 'refused', why: 'its service account is gone' };
  assert.deepEqual(await tokens.check(token), gone);
  await fixture.create(SERVICE_ACCOUNT, account());
  assert.deepEqual(await tokens.check(token), gone);
});

test('a token that is bound ends with what it is bound to', async () => {
  await using fixture = await openFixture();
  const tokens = await withRobot(fixture);
  const boundObjectRef = { kind: 'Secret', apiVersion: 'v1', name: 's' };
  await assert.rejects(tokens.issue(TARGET, request({ boundObjectRef })), { status: 404 });
  await fixture.create(SECRET, { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's' } });
  const wrong = { ...boundObjectRef, uid: 'other' };
  await assert.rejects(tokens.issue(TARGET, request({ boundObjectRef: wrong })), { status: 409 });
  const { token } = await tokens.issue(TARGET, request({ boundObjectRef }));
  assert.equal((await tokens.check(token)).kind, 'valid');
  await fixture.of(SECRET).delete({ namespace: 'default', name: 's' }, AS_ADMIN);
  assert.deepEqual(await tokens.check(token), { kind: 'refused', why: 'its secret is gone' });
});

test('a token for somebody else is none for this API', async () => {
  await using fixture = await openFixture();
  const tokens = await withRobot(fixture);
  const { token } = await tokens.issue(TARGET, request({ audiences: ['vault', 'x'] }));
  assert.deepEqual(await tokens.check(token), {
    kind: 'refused',
    why: 'it is meant for somebody else',
  });
  const verdict = await tokens.check(token, ['vault']);
  assert.deepEqual(verdict.kind === 'valid' && verdict.audiences, ['vault']);
});

test('a token of another key, issuer or form is refused', async () => {
  await using fixture = await openFixture();
  const tokens = await withRobot(fixture);
  const { token } = await tokens.issue(TARGET, request());
  const [header = '', payload = '', signature = ''] = token.split('.');
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  const sub = {
    ...claims,
    'kubernetes.io': { ...claims['kubernetes.io'], namespace: 'kube-system' },
  };
  const bad: [string, string, RegExp][] = [
    ['another key', signToken(claims, createSigningKey()), /key that is not/],
    ['another issuer', signToken({ ...claims, iss: 'https://x' }, KEY), /somebody else/],
    ['other claims', `${header}.${encode(sub)}.${signature}`, /signature/],
    ['no signature', `${encode({ alg: 'none', kid: KEY.id })}.${payload}.`, /no signed token/],
    ['alg none', `${encode({ alg: 'none', kid: KEY.id })}.${payload}.x`, /ES256/],
    ['alg HS256', `${encode({ alg: 'HS256', kid: KEY.id })}.${payload}.${signature}`, /ES256/],
    ['claims of something else', signToken({ iss: ISSUER }, KEY), /not those of a service account/],
    ['in the future', signToken({ ...claims, nbf: claims.nbf + 60 }, KEY), /not hold yet/],
    ['much too long', 'a'.repeat(20_000), /too long/],
    ['empty', '', /no signed token/],
  ];
  for (const [what, text, why] of bad) {
    const verdict = await tokens.check(text);
    assert.equal(verdict.kind, 'refused', what);
    assert.match(verdict.kind === 'refused' ? verdict.why : '', why, what);
  }
});

test('verifyToken() answers for any text', async () => {
  const good = signToken({ a: 1 }, KEY);
  const find = async (id: string) => (id === KEY.id ? KEY.publicKey : undefined);
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.string({ maxLength: 300 }),
        fc
          .tuple(fc.nat(good.length - 1), fc.string({ minLength: 1, maxLength: 1 }))
          .map(([at, letter]) => good.slice(0, at) + letter + good.slice(at + 1)),
      ),
      async (text) => {
        const verdict = await verifyToken(text, find);
        if (verdict.kind === 'signed') assert.deepEqual(verdict.claims, { a: 1 });
      },
    ),
    { numRuns: 500 },
  );
});

test('openSigningKey() makes a key once, which only its owner reads, and refuses another kind', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-sa-key-'));
  try {
    const key = openSigningKey({ directory });
    assert.equal(statSync(join(directory, 'sa.key')).mode & 0o777, 0o600);
    assert.equal(openSigningKey({ directory }).id, key.id);
    const { keys } = jsonWebKeys([key]) as { keys: Record<string, unknown>[] };
    assert.equal(keys[0]?.kid, key.id);
    assert.equal(keys[0]?.d, undefined);
    writeFileSync(join(directory, 'sa.key'), 'no key');
    assert.throws(() => openSigningKey({ directory }), /Cannot open the key of service account/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
