import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { NODE } from '#api/core/v1/node.ts';
import type { KubeObject } from '#api/meta.ts';
import { systemClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { type GarbageCollection, startGarbageCollection } from './garbage-collection.ts';
import { judge, type OwnerState, OwnershipGraph } from './ownership-graph.ts';
import type { Propagation } from './registry/propagation.ts';
import { AS_ADMIN, configMap, type Fixture, openFixture } from './registry/test-registries.ts';

interface Setup extends AsyncDisposable {
  readonly fixture: Fixture;
  readonly collection: GarbageCollection;
  /** Makes a config map that these own. */
  make(
    name: string,
    owners?: readonly KubeObject[],
    extra?: { block?: boolean; finalizers?: string[] },
  ): Promise<KubeObject>;
  remove(name: string, propagation?: Propagation): Promise<void>;
  /** The names that are left when all is settled; those being deleted with a `-` behind. */
  left(): Promise<string[]>;
}

async function setUp(): Promise<Setup> {
  const fixture = await openFixture();
  const { store, registries } = fixture;
  const collection = startGarbageCollection({
    store,
    registries,
    log: silentLogger,
    clock: systemClock,
  });
  return {
    fixture,
    collection,
    make: (name, owners = [], { block, finalizers } = {}) =>
      fixture.create(CONFIG_MAP, {
        ...configMap(name),
        metadata: {
          name,
          ...(finalizers === undefined ? {} : { finalizers }),
          ownerReferences: owners.map((owner) => ({
            apiVersion: owner.apiVersion,
            kind: owner.kind,
            name: owner.metadata.name,
            uid: owner.metadata.uid,
            ...(block === undefined ? {} : { blockOwnerDeletion: block }),
          })),
        },
      }),
    async remove(name, propagation) {
      const target = { namespace: 'default', name };
      await fixture
        .of(CONFIG_MAP)
        .delete(target, { ...AS_ADMIN, ...(propagation === undefined ? {} : { propagation }) });
    },
    async left() {
      // What was collected may make more garbage.
      for (let before = -1; before !== (await store.revision()); ) {
        before = await store.revision();
        await collection.settled();
      }
      const { entries } = await store.list('/registry/core/configmaps/');
      const objects = await Promise.all(
        entries.map((entry) =>
          fixture
            .of(CONFIG_MAP)
            .get({ namespace: 'default', name: entry.key.split('/').at(-1) ?? '' }),
        ),
      );
      return objects.map(({ metadata }) =>
        metadata.deletionTimestamp === undefined ? metadata.name : `${metadata.name}-`,
      );
    },
    async [Symbol.asyncDispose]() {
      await collection[Symbol.asyncDispose]();
      await fixture[Symbol.asyncDispose]();
    },
  };
}

test('what nobody owns any more goes, and what that owned', async () => {
  await using setup = await setUp();
  const a = await setup.make('a');
  const b = await setup.make('b', [a]);
  await setup.make('c', [b]);
  await setup.make('other');
  assert.deepEqual(await setup.left(), ['a', 'b', 'c', 'other']);
  await setup.remove('a', 'Background');
  assert.deepEqual(await setup.left(), ['other']);
});

test('one of several owners is enough, and references to the others are taken out', async () => {
  await using setup = await setUp();
  const a = await setup.make('a');
  const b = await setup.make('b');
  await setup.make('c', [a, b]);
  await setup.remove('a');
  assert.deepEqual(await setup.left(), ['b', 'c']);
  const c = await setup.fixture.of(CONFIG_MAP).get({ namespace: 'default', name: 'c' });
  assert.deepEqual(
    c.metadata.ownerReferences?.map(({ name }) => name),
    ['b'],
  );
  await setup.remove('b');
  assert.deepEqual(await setup.left(), []);
});

test('Orphan keeps what was owned, without the owner', async () => {
  await using setup = await setUp();
  const a = await setup.make('a');
  await setup.make('b', [a]);
  await setup.remove('a', 'Orphan');
  assert.deepEqual(await setup.left(), ['b']);
  const b = await setup.fixture.of(CONFIG_MAP).get({ namespace: 'default', name: 'b' });
  assert.equal(b.metadata.ownerReferences, undefined);
});

test('Foreground lets the owner go last', async () => {
  await using setup = await setUp();
  const a = await setup.make('a');
  await setup.make('b', [a], { block: true, finalizers: ['example.org/hold'] });
  await setup.make('c', [a], { block: true });
  await setup.remove('a', 'Foreground');
  assert.deepEqual(await setup.left(), ['a-', 'b-']);
  await setup.fixture
    .of(CONFIG_MAP)
    .update(
      { namespace: 'default', name: 'b' },
      (stored) => ({ ...stored, metadata: { ...stored.metadata, finalizers: [] } }),
      AS_ADMIN,
    );
  assert.deepEqual(await setup.left(), []);
});

test('Foreground does not wait for what does not block, nor delete what another owns too', async () => {
  await using setup = await setUp();
  const a = await setup.make('a');
  const other = await setup.make('other');
  await setup.make('b', [a], { block: false, finalizers: ['example.org/hold'] });
  await setup.make('c', [a, other], { block: true });
  await setup.remove('a', 'Foreground');
  assert.deepEqual(await setup.left(), ['b-', 'c', 'other']);
});

test('a second wish takes the place of the first', async () => {
  await using setup = await setUp();
  const a = await setup.make('a', [], { finalizers: ['example.org/hold'] });
  await setup.make('b', [a], { block: true, finalizers: ['example.org/hold'] });
  await setup.remove('a', 'Foreground');
  await setup.remove('a', 'Background');
  const stored = await setup.fixture.of(CONFIG_MAP).get({ namespace: 'default', name: 'a' });
  assert.deepEqual(stored.metadata.finalizers, ['example.org/hold']);
});

test('what was made after its owner went, or for one of the same name, goes too', async () => {
  await using setup = await setUp();
  const a = await setup.make('a');
  await setup.remove('a');
  await setup.make('late', [a]);
  await setup.make('a');
  await setup.make('later', [a]);
  assert.deepEqual(await setup.left(), ['a']);
});

test('nothing is deleted on a guess', async () => {
  await using setup = await setUp();
  const unknown = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'x', uid: 'u' } };
  await setup.make('kept', [unknown]);
  const node = await setup.fixture.create(NODE, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'n' },
  });
  await setup.make('on-node', [node]);
  assert.deepEqual(await setup.left(), ['kept', 'on-node']);
  await setup.fixture.of(NODE).delete({ namespace: '', name: 'n' }, AS_ADMIN);
  assert.deepEqual(await setup.left(), ['kept']);
});

test('garbage from before the start is found', async () => {
  await using setup = await setUp();
  await setup.collection[Symbol.asyncDispose]();
  const a = await setup.make('a');
  await setup.make('b', [a]);
  await setup.make('c', [a]);
  await setup.remove('a');
  const { store, registries } = setup.fixture;
  await using again = startGarbageCollection({
    store,
    registries,
    log: silentLogger,
    clock: systemClock,
  });
  await again.settled();
  const { entries } = await store.list('/registry/core/configmaps/');
  assert.deepEqual(entries, []);
});

test('judge() keeps, releases and deletes', () => {
  const object = (owners: string[], isDeleting = false) => ({
    apiVersion: 'v1',
    kind: 'X',
    metadata: {
      name: 'x',
      ...(isDeleting ? { deletionTimestamp: 'now' } : {}),
      ownerReferences: owners.map((uid) => ({ apiVersion: 'v1', kind: 'Y', name: uid, uid })),
    },
  });
  const verdictOf = (...states: OwnerState[]) => {
    const owners = states.map((_, i) => String(i));
    return judge(object(owners), (owner) => states[Number(owner.uid)] ?? 'present');
  };
  assert.deepEqual(verdictOf(), { kind: 'keep' });
  assert.deepEqual(verdictOf('present', 'present'), { kind: 'keep' });
  assert.deepEqual(verdictOf('present', 'absent', 'waiting'), {
    kind: 'release',
    uids: ['1', '2'],
  });
  assert.deepEqual(verdictOf('absent'), { kind: 'delete', waits: false });
  assert.deepEqual(verdictOf('absent', 'waiting'), { kind: 'delete', waits: true });
  assert.deepEqual(
    judge(object(['0'], true), () => 'absent'),
    { kind: 'keep' },
  );
});

test('OwnershipGraph forgets what it is told to', () => {
  const graph = new OwnershipGraph();
  const owner = (uid: string) => ({ apiVersion: 'v1', kind: 'Y', name: uid, uid });
  assert.equal(graph.set('/a', [owner('1'), owner('2')]), true);
  assert.equal(graph.set('/a', [owner('1'), owner('2')]), false);
  graph.set('/b', [owner('1')]);
  assert.deepEqual(graph.dependentsOf('1'), ['/a', '/b']);
  graph.set('/a', [owner('2')]);
  assert.deepEqual(graph.dependentsOf('1'), ['/b']);
  graph.remove('/b');
  graph.set('/a', []);
  assert.deepEqual(
    [graph.dependentsOf('1'), graph.dependentsOf('2'), graph.has('/a')],
    [[], [], false],
  );
});
