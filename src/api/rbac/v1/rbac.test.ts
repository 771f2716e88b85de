import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { CLUSTER_ROLE, type ClusterRole, ROLE, type Role } from './role.ts';
import {
  CLUSTER_ROLE_BINDING,
  type ClusterRoleBinding,
  ROLE_BINDING,
  type RoleBinding,
} from './role-binding.ts';
import type { PolicyRule, Subject } from './rules.ts';

const apiVersion = 'rbac.authorization.k8s.io/v1';
const metadata = { name: 'system:a', namespace: 'default' };
const GOOD: PolicyRule = { verbs: ['get'], apiGroups: [''], resources: ['pods'] };

function role(rule: PolicyRule): Role {
  return { apiVersion, kind: 'Role', metadata, rules: [rule] };
}

for (const [rule, ...errors] of [
  [GOOD],
  [{ ...GOOD, resourceNames: ['a'] }],
  [{ ...GOOD, verbs: [] }, 'rules[0].verbs: Required value: verbs must contain at least one value'],
  [
    { verbs: ['get'] },
    'rules[0].apiGroups: Required value: resource rules must supply at least one api group',
    'rules[0].resources: Required value: resource rules must supply at least one resource',
  ],
  [
    { verbs: ['get'], nonResourceURLs: ['/x'] },
    'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs',
  ],
] as const satisfies readonly (readonly [PolicyRule, ...string[]])[])
  test(`a role with the rule ${JSON.stringify(rule)} has ${errors.length} mistakes`, () => {
    assert.deepEqual(ROLE.validate(role(rule), undefined).map(formatFieldError), errors);
  });

test('a cluster role may name paths, but not with resources, and aggregates by something', () => {
  const check = (extra: Partial<ClusterRole>) =>
    CLUSTER_ROLE.validate(
      { apiVersion, kind: 'ClusterRole', metadata: { name: 'a' }, ...extra },
      undefined,
    ).length;
  assert.equal(check({ rules: [{ verbs: ['get'], nonResourceURLs: ['/x'] }] }), 0);
  assert.equal(check({ rules: [{ ...GOOD, nonResourceURLs: ['/x'] }] }), 1);
  assert.equal(check({ aggregationRule: {} }), 1);
  assert.equal(check({ aggregationRule: { clusterRoleSelectors: [{}] } }), 0);
});

test('names of roles are path segments', () => {
  for (const [name, mistakes] of [
    ['system:node', 0],
    ['a b', 0],
    ['..', 1],
    ['a/b', 1],
    ['a%2fb', 1],
  ] as const)
    assert.equal(
      ROLE.validate({ ...role(GOOD), metadata: { ...metadata, name } }, undefined).length,
      mistakes,
      name,
    );
});

function binding(
  subject: Partial<Subject>,
  ref: Partial<RoleBinding['roleRef']> = {},
): RoleBinding {
  return ROLE_BINDING.setDefaults({
    apiVersion,
    kind: 'RoleBinding',
    metadata,
    subjects: [{ kind: 'User', name: 'jane', ...subject }],
    roleRef: { apiGroup: '', kind: 'Role', name: 'r', ...ref },
  });
}

for (const [subject, ...fields] of [
  [{}],
  [{ kind: 'Group' }],
  [{ kind: 'ServiceAccount', namespace: 'a' }],
  [{ kind: 'ServiceAccount' }],
  [{ kind: 'ServiceAccount', namespace: 'a', name: 'Not_Good' }, 'subjects[0].name'],
  [{ kind: 'User', namespace: 'a' }],
  [{ kind: 'Robot' as 'User' }, 'subjects[0].kind'],
  [{ apiGroup: 'x' }, 'subjects[0].apiGroup'],
  [{ name: '' }, 'subjects[0].name'],
] as const)
  test(`a binding of ${JSON.stringify(subject)} is wrong in [${fields}]`, () => {
    const errors = ROLE_BINDING.validate(binding(subject), undefined);
    assert.deepEqual(
      errors.map(({ field }) => field),
      fields,
    );
  });

test('a service account in a binding of the whole cluster has to say its namespace', () => {
  const cluster = (subject: Partial<Subject>): ClusterRoleBinding => ({
    ...binding({ kind: 'ServiceAccount', ...subject }, { kind: 'ClusterRole' }),
    kind: 'ClusterRoleBinding',
    metadata: { name: 'b' },
  });
  const fields = (subject: Partial<Subject>) =>
    CLUSTER_ROLE_BINDING.validate(cluster(subject), undefined).map(({ field }) => field);
  assert.deepEqual(fields({ namespace: 'a' }), []);
  assert.deepEqual(fields({}), ['subjects[0].namespace']);
});

test('the role of a binding cannot be changed', () => {
  const old = binding({});
  assert.deepEqual(ROLE_BINDING.validate(binding({ name: 'jim' }), old), []);
  const [error] = ROLE_BINDING.validate(binding({}, { name: 'other' }), old);
  assert.equal(error?.detail, 'cannot change roleRef');
  assert.equal(ROLE_BINDING.validate(binding({}, { kind: 'X' as 'Role' }), undefined).length, 1);
});
