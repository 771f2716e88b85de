import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLUSTER_ROLE, type ClusterRole } from '#api/rbac/v1/role.ts';
import { CLUSTER_ROLE_BINDING, type ClusterRoleBinding } from '#api/rbac/v1/role-binding.ts';
import { openFixture } from '../registry/test-registries.ts';
import { aggregatedRules, syncAggregation } from './aggregation.ts';
import { bootstrapRbac } from './bootstrap.ts';
import { AUTO_UPDATE_ANNOTATION, completeDefault, DEFAULT_RBAC_OBJECTS } from './default-roles.ts';
import { createPolicy, type RbacObject } from './policy.ts';

function find(name: string, kind: string): RbacObject {
  const found = DEFAULT_RBAC_OBJECTS.find((o) => o.kind === kind && o.metadata.name === name);
  assert.ok(found, name);
  return found;
}

test('the default roles are good objects, and every binding has its role', () => {
  for (const object of DEFAULT_RBAC_OBJECTS) {
    const kind = object.kind === 'ClusterRole' ? CLUSTER_ROLE : CLUSTER_ROLE_BINDING;
    assert.deepEqual(kind.validate(object as never, undefined), [], object.metadata.name);
    if (object.kind === 'ClusterRoleBinding') find(object.roleRef.name, 'ClusterRole');
  }
});

test('completeDefault() puts back what is missing, keeps what was added, and heeds autoupdate=false', () => {
  const wanted = find('system:basic-user', 'ClusterRole') as ClusterRole;
  assert.equal(completeDefault(wanted, wanted), wanted);
  const own = { verbs: ['get'], apiGroups: [''], resources: ['x'] };
  const changed: ClusterRole = { ...wanted, rules: [own, ...(wanted.rules ?? []).slice(1)] };
  const healed = completeDefault(changed, wanted) as ClusterRole;
  assert.deepEqual(healed.rules?.slice(0, 1), [own]);
  for (const rule of wanted.rules ?? []) assert.ok(healed.rules?.includes(rule));
  const kept: ClusterRole = {
    ...changed,
    metadata: { ...changed.metadata, annotations: { [AUTO_UPDATE_ANNOTATION]: 'false' } },
  };
  assert.equal(completeDefault(kept, wanted), kept);
  const binding = find('system:discovery', 'ClusterRoleBinding') as ClusterRoleBinding;
  const emptied: ClusterRoleBinding = { ...binding, subjects: [] };
  assert.deepEqual(completeDefault(emptied, binding), binding);
});

test('bootstrapRbac() and syncAggregation() make the roles people know, twice the same', async () => {
  await using fixture = await openFixture();
  const { store, registries } = fixture;
  const options = { store, clusterRoles: registries.of(CLUSTER_ROLE) };
  for (let start = 0; start < 2; start++) {
    await bootstrapRbac({ registryOf: (kind) => registries.of(kind) });
    await syncAggregation(options);
  }
  const revision = await store.revision();
  await bootstrapRbac({ registryOf: (kind) => registries.of(kind) });
  await syncAggregation(options);
  assert.equal(await store.revision(), revision, 'a third start writes nothing');

  const roles = new Map<string, ClusterRole>();
  for (const name of ['admin', 'edit', 'view'])
    roles.set(name, (await options.clusterRoles.get({ namespace: '', name })) as ClusterRole);
  const policy = createPolicy([
    ...roles.values(),
    ...[...roles.keys()].map(
      (name): ClusterRoleBinding => ({
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRoleBinding',
        metadata: { name },
        subjects: [{ kind: 'User', name }],
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      }),
    ),
  ]);
  const may = (name: string, verb: string, resource: string, group = '') =>
    policy.allows(
      { name, groups: [] },
      { type: 'resource', verb, group, resource, subresource: '', namespace: 'a', name: '' },
    ) !== undefined;
  const networking = 'networking.k8s.io';
  const rbac = 'rbac.authorization.k8s.io';
  const table: [boolean[], string, string, string?][] = [
    // admin, edit, view
    [[true, true, true], 'get', 'services'],
    [[true, true, true], 'list', 'ingresses', networking],
    [[true, true, false], 'create', 'services'],
    [[true, true, false], 'get', 'secrets'],
    [[true, true, false], 'delete', 'networkpolicies', networking],
    [[true, false, false], 'create', 'rolebindings', rbac],
    [[false, false, false], 'create', 'clusterroles', rbac],
    [[false, false, false], 'get', 'nodes'],
    [[false, false, false], 'delete', 'namespaces'],
  ];
  for (const [expected, verb, resource, group] of table)
    assert.deepEqual(
      ['admin', 'edit', 'view'].map((name) => may(name, verb, resource, group)),
      expected,
      `${verb} ${resource}`,
    );
});

test('aggregatedRules() takes the rules of the roles that are selected, each once, and never its own', () => {
  const role = (name: string, labels: Record<string, string>, verbs: string[]): ClusterRole => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name, labels },
    rules: verbs.map((verb) => ({ verbs: [verb], apiGroups: [''], resources: ['pods'] })),
    aggregationRule: { clusterRoleSelectors: [{ matchLabels: { to: 'sum' } }] },
  });
  const sum = role('sum', { to: 'sum' }, ['own']);
  const all = [
    sum,
    role('a', { to: 'sum' }, ['get']),
    role('b', { to: 'sum' }, ['get', 'list']),
    role('c', {}, ['x']),
  ];
  assert.deepEqual(
    aggregatedRules(sum, all).map(({ verbs }) => verbs[0]),
    ['get', 'list'],
  );
});
