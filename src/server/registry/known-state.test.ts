/** Writes on a store that others write to as well: they are planned on what this server knows, which may be old. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIG_MAP, type ConfigMap } from '#api/core/v1/config-map.ts';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import type { KubeObject } from '#api/meta.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import { AS_ADMIN, configMap, openFixture } from './test-registries.ts';

const A = { namespace: 'default', name: 'a' };

interface SharedStore extends Store {
  /** From now on nothing new is known without asking. */
  lag(): Promise<void>;
  catchUp(): void;
  /** What was asked of the store. */
  readonly asked: string[];
}

function sharedStore(): SharedStore {
  const store = openMemoryStore();
  const asked: string[] = [];
  let knownRevision: number | undefined;
  return {
    known: {
      get: (key, at) => store.get(key, at ?? knownRevision),
      list: (prefix, options) =>
        store.list(prefix, {
          ...(knownRevision === undefined ? {} : { revision: knownRevision }),
          ...options,
        }),
    },
    async get(key, at) {
      asked.push('get');
      return await store.get(key, at);
    },
    async list(prefix, options) {
      asked.push('list');
      return await store.list(prefix, options);
    },
    async revision() {
      asked.push('revision');
      return await store.revision();
    },
    async transact(compares, operations) {
      asked.push('transact');
      return await store.transact(compares, operations);
    },
    watch: (prefix, after, options) => store.watch(prefix, after, options),
    compact: (revision) => store.compact(revision),
    grantLease: (ttlMs) => store.grantLease(ttlMs),
    keepLeaseAlive: (id) => store.keepLeaseAlive(id),
    revokeLease: (id) => store.revokeLease(id),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    async lag() {
      knownRevision = await store.revision();
    },
    catchUp() {
      knownRevision = undefined;
    },
    asked,
  };
}

const withData = (value: string) => (stored: KubeObject) =>
  ({ ...(stored as ConfigMap), data: { value } }) as KubeObject;

test('a write asks a store elsewhere for one transaction and nothing else', async () => {
  const store = sharedStore();
  await using fixture = await openFixture({ store });
  const cost = async (what: () => Promise<unknown>) => {
    store.asked.length = 0;
    await what();
    return store.asked.join(' ');
  };
  const registry = fixture.of(CONFIG_MAP);
  const service = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' } };
  const spec = { type: 'NodePort', ports: [{ port: 80 }] };
  assert.equal(await cost(() => fixture.create(CONFIG_MAP, configMap('a'))), 'transact');
  assert.equal(await cost(() => registry.update(A, withData('1'), AS_ADMIN)), 'transact');
  assert.equal(await cost(() => registry.delete(A, AS_ADMIN)), 'transact');
  assert.equal(await cost(() => fixture.create(SERVICE, { ...service, spec })), 'transact');
  const more = (stored: KubeObject): KubeObject => {
    const { spec } = stored as Service;
    const changed = { ...spec, ports: [{ port: 80 }, { name: 'b', port: 81 }] };
    return { ...stored, spec: changed } as KubeObject;
  };
  await assert.rejects(fixture.of(SERVICE).update(A, more, AS_ADMIN), { status: 422 });
  assert.equal(await cost(() => fixture.of(SERVICE).delete(A, AS_ADMIN)), 'transact');
});

test('what another server wrote meanwhile is found, changed, deleted and not made twice', async () => {
  const store = sharedStore();
  await using fixture = await openFixture({ store });
  const registry = fixture.of(CONFIG_MAP);
  await store.lag();
  await fixture.create(NAMESPACE, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'new' },
  });
  const made = await fixture.create(CONFIG_MAP, {
    ...configMap('a'),
    metadata: { name: 'a', namespace: 'new' },
  });
  const target = { namespace: 'new', name: 'a' };
  await assert.rejects(
    fixture.create(CONFIG_MAP, {
      ...configMap('a'),
      metadata: { name: 'a', namespace: 'new' },
    }),
    { reason: 'AlreadyExists' },
  );
  const { object } = await registry.update(target, withData('1'), AS_ADMIN);
  assert.deepEqual((object as ConfigMap).data, { value: '1' });
  assert.equal(object.metadata.uid, made.metadata.uid);
  // An update with the version that only the other server knows yet.
  const named = (stored: KubeObject): KubeObject => ({
    ...withData('2')(stored),
    metadata: {
      ...stored.metadata,
      resourceVersion: object.metadata.resourceVersion ?? '',
    },
  });
  assert.deepEqual(((await registry.update(target, named, AS_ADMIN)).object as ConfigMap).data, {
    value: '2',
  });
  assert.equal((await registry.delete(target, AS_ADMIN)).removed, true);
  await assert.rejects(registry.delete(target, AS_ADMIN), { status: 404 });
});

test('an update that would change nothing of what is known is made on what is there', async () => {
  const store = sharedStore();
  await using fixture = await openFixture({ store });
  const registry = fixture.of(CONFIG_MAP);
  await fixture.create(CONFIG_MAP, configMap('a', { data: { value: 'old' } }));
  await store.lag();
  await registry.update(A, withData('new'), AS_ADMIN);
  const { object } = await registry.update(A, withData('old'), AS_ADMIN);
  assert.deepEqual((object as ConfigMap).data, { value: 'old' });
  store.catchUp();
  assert.deepEqual(((await registry.get(A)) as ConfigMap).data, { value: 'old' });
});

test('what is gone is not brought back by what is known of it', async () => {
  const store = sharedStore();
  await using fixture = await openFixture({ store });
  const registry = fixture.of(CONFIG_MAP);
  await fixture.create(CONFIG_MAP, configMap('a'));
  await store.lag();
  await registry.delete(A, AS_ADMIN);
  await assert.rejects(registry.update(A, withData('1'), AS_ADMIN), { status: 404 });
  await assert.rejects(registry.get(A), { status: 404 });
});
