import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { NAMESPACE, type Namespace } from '#api/core/v1/namespace.ts';
import { SECRET } from '#api/core/v1/secret.ts';
import { isNotFound } from '#lib/errors.ts';
import { syncNamespaces } from './namespace-deletion.ts';
import { AS_ADMIN, configMap, openFixture } from './registry/test-registries.ts';

test('a namespace that is not gone yet says what holds it, and goes when nothing does', async () => {
  await using fixture = await openFixture();
  const { store, registries, clock } = fixture;
  const sync = () => syncNamespaces({ store, registries, clock });
  await fixture.create(NAMESPACE, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'team' },
  });
  const held = {
    ...configMap('held'),
    metadata: { name: 'held', namespace: 'team', finalizers: ['example.org/hold'] },
  };
  await fixture.create(CONFIG_MAP, held);
  await fixture.create(SECRET, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 's', namespace: 'team' },
  });
  const target = { namespace: '', name: 'team' };
  await fixture.of(NAMESPACE).delete(target, AS_ADMIN);
  await sync();
  const namespace = (await fixture.of(NAMESPACE).get(target)) as Namespace;
  const conditions = Object.fromEntries(
    (namespace.status?.conditions ?? []).map((one) => [one.type, [one.status, one.message]]),
  );
  assert.deepEqual(conditions, {
    NamespaceDeletionContentFailure: [
      'False',
      'All content successfully deleted, may be waiting on finalization',
    ],
    NamespaceContentRemaining: [
      'True',
      'Some resources are remaining: configmaps. has 1 resource instances',
    ],
    NamespaceFinalizersRemaining: [
      'True',
      'Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances',
    ],
  });
  await assert.rejects(fixture.of(SECRET).get({ namespace: 'team', name: 's' }), isNotFound);
  const revision = await store.revision();
  await sync();
  assert.equal(await store.revision(), revision, 'a pass that changes nothing writes nothing');
  await fixture
    .of(CONFIG_MAP)
    .update(
      { namespace: 'team', name: 'held' },
      (stored) => ({ ...stored, metadata: { ...stored.metadata, finalizers: [] } }),
      AS_ADMIN,
    );
  await sync();
  await assert.rejects(fixture.of(NAMESPACE).get(target), isNotFound);
});

test('a kind that cannot be deleted does not keep the others, and is named', async () => {
  await using fixture = await openFixture();
  const { store, registries, clock } = fixture;
  await fixture.create(NAMESPACE, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'team' },
  });
  await fixture.create(CONFIG_MAP, {
    ...configMap('a'),
    metadata: { name: 'a', namespace: 'team' },
  });
  await fixture.create(SECRET, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 's', namespace: 'team' },
  });
  await fixture.of(NAMESPACE).delete({ namespace: '', name: 'team' }, AS_ADMIN);
  const broken = registries.all.map((registry) =>
    registry.kind.resource === 'configmaps'
      ? { ...registry, delete: () => Promise.reject(new Error('the disk is full')) }
      : registry,
  );
  await assert.rejects(
    syncNamespaces({ store, registries: { all: broken }, clock }),
    /the disk is full/,
  );
  await assert.rejects(fixture.of(SECRET).get({ namespace: 'team', name: 's' }), isNotFound);
  const namespace = (await fixture.of(NAMESPACE).get({ namespace: '', name: 'team' })) as Namespace;
  const failure = namespace.status?.conditions?.find(
    ({ type }) => type === 'NamespaceDeletionContentFailure',
  );
  assert.match(failure?.message ?? '', /the disk is full/);
});
