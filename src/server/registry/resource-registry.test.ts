import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIG_MAP, type ConfigMap } from '#api/core/v1/config-map.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import type { KubeObject } from '#api/meta.ts';
import { valueText } from '#store/held-entry.ts';
import { objectKey } from './keys.ts';
import { AS_ADMIN, configMap, DRY_RUN, openFixture } from './test-registries.ts';

const A = { namespace: 'default', name: 'a' };

function withData(data: Record<string, string>) {
  return (stored: KubeObject): KubeObject => ({ ...(stored as ConfigMap), data }) as KubeObject;
}

test('create() gives what only the server gives, and nothing the client said of it', async () => {
  await using fixture = await openFixture();
  const sent = configMap('a');
  const object = await fixture.create(CONFIG_MAP, {
    ...sent,
    metadata: { ...sent.metadata, uid: 'mine', generation: 7, deletionTimestamp: 'now' },
  });
  assert.equal(object.metadata.namespace, 'default');
  assert.match(object.metadata.uid ?? '', /^uid-/);
  assert.equal(object.metadata.creationTimestamp, '2026-01-01T00:00:00Z');
  assert.equal(object.metadata.generation, 1);
  assert.equal(object.metadata.deletionTimestamp, undefined);
  assert.equal(object.metadata.resourceVersion, String(await fixture.store.revision()));
  assert.deepEqual(await fixture.of(CONFIG_MAP).get(A), object);
});

test('create() refuses a name that is taken', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a'));
  await assert.rejects(fixture.create(CONFIG_MAP, configMap('a')), {
    status: 409,
    reason: 'AlreadyExists',
    message: 'configmaps "a" already exists',
  });
});

test('create() makes a name of generateName, and another one if that is taken', async () => {
  const values = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5];
  await using fixture = await openFixture({ random: () => values.shift() ?? 0.5 });
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { generateName: 'a-' } };
  assert.equal((await fixture.create(CONFIG_MAP, object)).metadata.name, 'a-bbbbb');
  assert.equal((await fixture.create(CONFIG_MAP, object)).metadata.name, 'a-rrrrr');
});

test('create() leaves the status to the status subresource, but not for nodes', async () => {
  await using fixture = await openFixture();
  const service = (await fixture.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'a' },
    spec: { ports: [{ port: 80 }] },
    status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
  })) as Service;
  assert.equal(service.status?.loadBalancer?.ingress, undefined);
  const node = (await fixture.create(NODE, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'm1' },
    status: { addresses: [{ type: 'InternalIP', address: '192.0.2.1' }] },
  })) as Node;
  assert.equal(node.status?.addresses?.[0]?.address, '192.0.2.1');
});

test('create() in a dry run answers as if, and stores nothing', async () => {
  await using fixture = await openFixture();
  const before = await fixture.store.revision();
  const { object } = await fixture
    .of(CONFIG_MAP)
    .create('default', configMap('a') as KubeObject, DRY_RUN);
  assert.equal(object.metadata.name, 'a');
  assert.equal(await fixture.store.revision(), before);
  await assert.rejects(fixture.of(CONFIG_MAP).get(A), { status: 404 });
});

test('create() refuses an object that breaks the rules of its kind, with the fields', async () => {
  await using fixture = await openFixture();
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'a' },
    spec: { ports: [{ port: 70000 }] },
  };
  await assert.rejects(fixture.create(SERVICE, service), {
    status: 422,
    reason: 'Invalid',
    message:
      /^Service "a" is invalid: .*spec\.ports\[0\]\.port: Invalid value: 70000: must be between 1 and 65535, inclusive/,
  });
});

test('create() refuses a namespace that does not exist', async () => {
  await using fixture = await openFixture();
  const object = { ...configMap('a'), metadata: { name: 'a', namespace: 'gone' } };
  await assert.rejects(fixture.create(CONFIG_MAP, object), {
    status: 404,
    message: 'namespaces "gone" not found',
  });
});

test('update() refuses a resourceVersion that is not the stored one', async () => {
  await using fixture = await openFixture();
  const first = await fixture.create(CONFIG_MAP, configMap('a'));
  const registry = fixture.of(CONFIG_MAP);
  await registry.update(A, withData({ x: '1' }), AS_ADMIN);
  await assert.rejects(
    registry.update(A, () => first, AS_ADMIN),
    {
      status: 409,
      reason: 'Conflict',
      message: /^Operation cannot be fulfilled on configmaps "a": the object has been modified/,
    },
  );
});

test('update() without a resourceVersion overwrites', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a', { data: { x: '1' } }));
  const { object } = await fixture
    .of(CONFIG_MAP)
    .update(A, () => configMap('a', { data: { y: '2' } }) as KubeObject, AS_ADMIN);
  assert.deepEqual((object as ConfigMap).data, { y: '2' });
});

test('update() loses no change of concurrent writers', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a', { data: {} }));
  const registry = fixture.of(CONFIG_MAP);
  await Promise.all(
    Array.from({ length: 12 }, (_, i) =>
      registry.update(
        A,
        (stored) => withData({ ...(stored as ConfigMap).data, [`k${i}`]: 'x' })(stored),
        AS_ADMIN,
      ),
    ),
  );
  assert.equal(Object.keys(((await registry.get(A)) as ConfigMap).data ?? {}).length, 12);
});

test('update() that changes nothing writes nothing', async () => {
  await using fixture = await openFixture();
  const object = await fixture.create(CONFIG_MAP, configMap('a', { data: { x: '1' } }));
  const before = await fixture.store.revision();
  const result = await fixture.of(CONFIG_MAP).update(A, withData({ x: '1' }), AS_ADMIN);
  assert.deepEqual(result.object, object);
  assert.equal(await fixture.store.revision(), before);
});

test('update() leaves in memory what a reader of the stored bytes sees', async () => {
  await using fixture = await openFixture();
  await fixture.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'a' },
    spec: { ports: [{ port: 80 }] },
  });
  const writer = { ...AS_ADMIN, fieldManager: 'writer' };
  for (const port of [81, 82]) {
    const change = (stored: KubeObject): KubeObject => {
      const next: unknown = {
        ...stored,
        metadata: { ...stored.metadata, labels: { port: String(port) }, annotations: undefined },
        spec: { ...(stored as Service).spec, ports: [{ port }], externalName: undefined },
      };
      return next as KubeObject;
    };
    await fixture.of(SERVICE).update(A, change, writer);
    const key = objectKey(SERVICE, A.namespace, A.name);
    const entry = await fixture.store.get(key);
    assert.ok(entry !== undefined);
    const stored = JSON.parse(valueText(entry)) as KubeObject;
    stored.metadata.resourceVersion = String(entry.modRevision);
    assert.deepEqual(await fixture.of(SERVICE).get(A), stored);
    assert.equal(stored.metadata.managedFields?.length, 1);
  }
});

test('update() keeps spec and status apart, and counts generations of the spec only', async () => {
  await using fixture = await openFixture();
  await fixture.create(NODE, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'm1' } });
  const registry = fixture.of(NODE);
  const target = { namespace: '', name: 'm1' };
  const both = (podCIDR: string) => (stored: KubeObject) =>
    ({
      ...stored,
      spec: { podCIDR },
      status: { addresses: [{ type: 'InternalIP', address: '192.0.2.1' }] },
    }) as KubeObject;
  const spec = (await registry.update(target, both('10.244.0.0/24'), AS_ADMIN)).object as Node;
  assert.equal(spec.status?.addresses, undefined);
  assert.equal(spec.metadata.generation, 2);
  const status = (
    await registry.update({ ...target, subresource: 'status' }, both('10.244.9.0/24'), AS_ADMIN)
  ).object as Node;
  assert.equal(status.spec?.podCIDR, '10.244.0.0/24');
  assert.equal(status.status?.addresses?.[0]?.address, '192.0.2.1');
  assert.equal(status.metadata.generation, 2);
});

test('delete() keeps an object with finalizers until the last one is taken away', async () => {
  await using fixture = await openFixture();
  const registry = fixture.of(CONFIG_MAP);
  const sent = configMap('a');
  await fixture.create(CONFIG_MAP, {
    ...sent,
    metadata: { name: 'a', finalizers: ['tulle.dev/x'] },
  });
  const first = await registry.delete(A, AS_ADMIN);
  assert.equal(first.removed, false);
  assert.equal(first.object.metadata.deletionTimestamp, '2026-01-01T00:00:00Z');
  assert.equal((await registry.delete(A, AS_ADMIN)).removed, false);
  await assert.rejects(
    registry.update(
      A,
      (stored) => ({
        ...stored,
        metadata: { ...stored.metadata, finalizers: ['tulle.dev/x', 'tulle.dev/y'] },
      }),
      AS_ADMIN,
    ),
    { status: 422, message: /no new finalizers can be added/ },
  );
  await registry.update(
    A,
    (stored) => ({ ...stored, metadata: { ...stored.metadata, finalizers: [] } }),
    AS_ADMIN,
  );
  await assert.rejects(registry.get(A), { status: 404 });
});

test('delete() heeds its preconditions', async () => {
  await using fixture = await openFixture();
  const object = await fixture.create(CONFIG_MAP, configMap('a'));
  const registry = fixture.of(CONFIG_MAP);
  await assert.rejects(registry.delete(A, { ...AS_ADMIN, preconditions: { uid: 'other' } }), {
    status: 409,
  });
  await assert.rejects(
    registry.delete(A, { ...AS_ADMIN, preconditions: { resourceVersion: '1' } }),
    { status: 409 },
  );
  const { uid = '', resourceVersion = '' } = object.metadata;
  const preconditions = { uid, resourceVersion };
  assert.equal((await registry.delete(A, { ...AS_ADMIN, preconditions })).removed, true);
});

test('delete() in a dry run deletes nothing', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a'));
  await fixture.of(CONFIG_MAP).delete(A, DRY_RUN);
  assert.equal((await fixture.of(CONFIG_MAP).get(A)).metadata.name, 'a');
});
