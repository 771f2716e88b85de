import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authenticate } from './authn.ts';
import { createAuthorizer } from './authz.ts';
import { ANONYMOUS, type Principal } from './principal.ts';
import { DEFAULT_RBAC_OBJECTS } from './rbac/default-roles.ts';
import { createPolicy } from './rbac/policy.ts';
import { parseRequest } from './request.ts';

const PRINCIPALS: Readonly<Record<string, Principal>> = {
  admin: { name: 'admin', groups: ['system:masters', 'system:authenticated'] },
  node: { name: 'system:node:m1', groups: ['system:nodes', 'system:authenticated'] },
  'false node': { name: 'system:node:m1', groups: ['system:authenticated'] },
  user: { name: 'jane', groups: ['system:authenticated'] },
  nobody: ANONYMOUS,
};

const { authorize } = createAuthorizer(createPolicy(DEFAULT_RBAC_OBJECTS));

/** Who may do it; everybody else hears 403, and 401 without a credential. */
const TABLE: readonly (readonly [string, string, readonly string[]])[] = [
  ['GET', '/healthz', ['admin', 'node', 'false node', 'user', 'nobody']],
  ['GET', '/livez', ['admin', 'node', 'false node', 'user', 'nobody']],
  ['GET', '/readyz', ['admin', 'node', 'false node', 'user', 'nobody']],
  ['GET', '/version', ['admin', 'node', 'false node', 'user']],
  ['HEAD', '/version', ['admin', 'node', 'false node', 'user']],
  ['GET', '/tulle/v1/ca', ['admin', 'node', 'false node', 'user', 'nobody']],
  ['POST', '/tulle/v1/join', ['admin', 'node', 'false node', 'user', 'nobody']],
  ['POST', '/healthz', ['admin']],
  ['GET', '/tulle/v1/join', ['admin']],
  ['POST', '/tulle/v1/tokens', ['admin']],
  ['DELETE', '/tulle/v1/tokens/abcdef', ['admin']],
  ['GET', '/healthz/secret', ['admin']],
  ['GET', '/openid/v1/jwks', ['admin']],
  ['GET', '/.well-known/openid-configuration', ['admin']],
  ['GET', '/metrics', ['admin']],
  ['GET', '/api', ['admin', 'node', 'false node', 'user']],
  ['GET', '/apis/tulle.dev/v1alpha1', ['admin', 'node', 'false node', 'user']],
  ['GET', '/openapi/v3', ['admin', 'node', 'false node', 'user']],
  ['GET', '/apisecret', ['admin']],
  ['GET', '/api/v1/services', ['admin', 'node']],
  ['GET', '/api/v1/services?watch=true', ['admin', 'node']],
  ['POST', '/api/v1/namespaces/default/services', ['admin']],
  ['GET', '/api/v1/namespaces/default/secrets', ['admin']],
  ['GET', '/api/v1/namespaces/default/secrets/a', ['admin']],
  ['GET', '/api/v1/configmaps', ['admin']],
  ['GET', '/api/v1/namespaces/default/configmaps', ['admin']],
  ['GET', '/api/v1/namespaces/kube-system/configmaps?watch=true', ['admin', 'node']],
  ['PUT', '/api/v1/namespaces/kube-system/configmaps/tulle-dns', ['admin']],
  ['GET', '/apis/tulle.dev/v1alpha1/ippools', ['admin', 'node']],
  ['PUT', '/apis/tulle.dev/v1alpha1/ippools/a', ['admin']],
  ['PUT', '/apis/tulle.dev/v1alpha1/ipblocks/a', ['admin', 'node']],
  ['DELETE', '/apis/tulle.dev/v1alpha1/ipblocks/a', ['admin', 'node']],
  ['DELETE', '/apis/tulle.dev/v1alpha1/ipblocks', ['admin']],
  ['PATCH', '/apis/tulle.dev/v1alpha1/policyusages/a', ['admin', 'node']],
  ['DELETE', '/apis/tulle.dev/v1alpha1/policyusages/a', ['admin']],
  ['PATCH', '/api/v1/nodes/m1/status', ['admin', 'node']],
  ['DELETE', '/api/v1/nodes/m1', ['admin']],
  ['PATCH', '/api/v1/namespaces/default/pods/a/status', ['admin', 'node']],
  ['PATCH', '/api/v1/namespaces/default/pods/a/exec', ['admin']],
  ['POST', '/api/v1/namespaces/default/events', ['admin', 'node']],
  ['DELETE', '/api/v1/namespaces/default/events/a', ['admin']],
  ['GET', '/apis/other.io/v1/services', ['admin']],
  [
    'POST',
    '/apis/authentication.k8s.io/v1/selfsubjectreviews',
    ['admin', 'node', 'false node', 'user'],
  ],
  ['POST', '/apis/authentication.k8s.io/v1/tokenreviews', ['admin']],
  ['POST', '/apis/rbac.authorization.k8s.io/v1/clusterroles', ['admin']],
  ['POST', '/api/v1/namespaces/default/serviceaccounts/default/token', ['admin']],
];

for (const [method, target, allowed] of TABLE)
  test(`authorize() lets ${method} ${target} be done by ${allowed.join(', ')} only`, () => {
    for (const [who, principal] of Object.entries(PRINCIPALS)) {
      const decision = authorize(principal, parseRequest(method, target));
      assert.equal(decision.allowed, allowed.includes(who), who);
      if (!decision.allowed)
        assert.equal(decision.error.status, principal === ANONYMOUS ? 401 : 403, who);
    }
  });

test('authorize() says who cannot do what where', () => {
  const request = parseRequest('PATCH', '/apis/tulle.dev/v1alpha1/ippools/a');
  const decision = authorize({ name: 'system:node:m1', groups: ['system:nodes'] }, request);
  assert.ok(!decision.allowed);
  assert.equal(
    decision.error.message,
    'ippools.tulle.dev "a" is forbidden: User "system:node:m1" cannot patch resource "ippools" in API group "tulle.dev" at the cluster scope',
  );
});

const CERTIFICATE = { isTrusted: true, commonNames: ['jane'], organizations: ['dev', 'ops'] };

test('authenticate() takes user and groups from the certificate', () => {
  const { principal } = authenticate({ certificate: CERTIFICATE }, '/api');
  assert.deepEqual(principal, { name: 'jane', groups: ['dev', 'ops', 'system:authenticated'] });
});

test('authenticate() takes who shows nothing for anonymous', () => {
  assert.equal(authenticate({}, '/api').principal, ANONYMOUS);
});

for (const [what, credentials, path] of [
  [
    'a certificate that is not trusted',
    { certificate: { ...CERTIFICATE, isTrusted: false } },
    '/api',
  ],
  ['a certificate without a name', { certificate: { ...CERTIFICATE, commonNames: [] } }, '/api'],
  [
    'a certificate with two names',
    { certificate: { ...CERTIFICATE, commonNames: ['a', 'b'] } },
    '/api',
  ],
  ['a password', { authorization: 'Basic YTpi' }, '/tulle/v1/join'],
] as const)
  test(`authenticate() refuses ${what}, and does not fall back to anonymous`, () => {
    assert.throws(() => authenticate(credentials, path), { status: 401 });
  });

test('authenticate() hands on the token of who joins', () => {
  const { principal, joinToken } = authenticate({ authorization: 'Bearer a.b' }, '/tulle/v1/join');
  assert.equal(principal, ANONYMOUS);
  assert.equal(joinToken, 'a.b');
});

test('authenticate() hands on any other token to be checked, and takes nobody for its owner', () => {
  const { principal, bearer } = authenticate({ authorization: 'Bearer a.b.c' }, '/api');
  assert.equal(principal, ANONYMOUS);
  assert.equal(bearer, 'a.b.c');
});
