import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { isAlreadyExists, isConflict, isExpired, isNotFound } from '#lib/errors.ts';
import { FakeApi } from './fake.ts';
import type { WatchOptions } from './port.ts';

function pod(name: string, labels: Record<string, string> = {}): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: { containers: [] },
  };
}

/** The next events as `TYPE name@version`. */
async function take(api: FakeApi, count: number, options: Partial<WatchOptions> = {}) {
  const signal = new AbortController().signal;
  const seen: string[] = [];
  for await (const { type, object } of api.watch(POD, {
    resourceVersion: '0',
    signal,
    ...options,
  })) {
    if (type !== 'ERROR')
      seen.push(`${type} ${object.metadata.name}@${object.metadata.resourceVersion}`);
    if (seen.length === count) break;
  }
  return seen;
}

describe('FakeApi', () => {
  test('creates, reads, changes and deletes', async () => {
    const api = new FakeApi();
    const created = await api.create(POD, pod('a'));
    assert.ok(created.metadata.uid && created.metadata.creationTimestamp);
    assert.equal(created.metadata.resourceVersion, '1');
    assert.deepEqual(await api.get(POD, 'a', 'default'), created);
    const changed = await api.update(POD, {
      ...created,
      metadata: { ...created.metadata, labels: { x: 'y' } },
    });
    assert.equal(changed.metadata.resourceVersion, '2');
    await api.delete(POD, { name: 'a', namespace: 'default' });
    await assert.rejects(api.get(POD, 'a', 'default'), (e) => isNotFound(e));
    await assert.rejects(api.update(POD, changed), (e) => isNotFound(e));
  });

  test('refuses what a server refuses', async () => {
    const api = new FakeApi();
    const created = await api.create(POD, pod('a'));
    await assert.rejects(api.create(POD, pod('a')), (e) => isAlreadyExists(e));
    api.put(POD, pod('a', { x: 'y' }));
    await assert.rejects(api.update(POD, created), (e) => isConflict(e));
    const target = { name: 'a', namespace: 'default' };
    const resourceVersion = created.metadata.resourceVersion ?? '';
    const body = { metadata: { resourceVersion } };
    const patch = { type: 'application/merge-patch+json', body } as const;
    await assert.rejects(api.patch(POD, target, patch), (e) => isConflict(e));
    await assert.rejects(api.delete(POD, target, { preconditions: { uid: 'other' } }), (e) =>
      isConflict(e),
    );
  });

  test('names objects with generateName', async () => {
    const api = new FakeApi();
    const nameless = {
      ...pod(''),
      metadata: { name: '', generateName: 'a-', namespace: 'default' },
    };
    const names = [await api.create(POD, nameless), await api.create(POD, nameless)].map(
      (created) => created.metadata.name,
    );
    assert.equal(new Set(names).size, 2);
    for (const name of names) assert.match(name, /^a-.{5}$/);
  });

  test('keeps status and the rest apart', async () => {
    const api = new FakeApi();
    const created = await api.create(POD, { ...pod('a'), status: { phase: 'Running' } });
    assert.equal(created.status, undefined);
    const withStatus = { ...created, status: { phase: 'Running' as const } };
    assert.equal((await api.update(POD, withStatus)).metadata.resourceVersion, '1');
    const updated = await api.update(
      POD,
      { ...withStatus, spec: { containers: [], nodeName: 'x' } },
      { subresource: 'status' },
    );
    assert.equal(updated.status?.phase, 'Running');
    assert.equal(updated.spec.nodeName, undefined);
  });

  test('a write that changes nothing makes no version and no event', async () => {
    const api = new FakeApi();
    const created = await api.create(POD, pod('a'));
    assert.deepEqual(await api.update(POD, created), created);
    const body = { metadata: { labels: {} } };
    const patch = { type: 'application/merge-patch+json', body } as const;
    await api.patch(POD, { name: 'a', namespace: 'default' }, patch);
    assert.equal(api.resourceVersion, '1');
  });

  test('deletes in two steps what has finalizers', async () => {
    const api = new FakeApi();
    api.put(POD, { ...pod('a'), metadata: { ...pod('a').metadata, finalizers: ['x/y'] } });
    await api.delete(POD, { name: 'a', namespace: 'default' });
    const deleting = await api.get(POD, 'a', 'default');
    assert.ok(deleting.metadata.deletionTimestamp);
    const { finalizers: _, ...metadata } = deleting.metadata;
    await api.update(POD, { ...deleting, metadata });
    assert.deepEqual(api.objects(POD), []);
  });

  test('lists in pages of one snapshot, by selectors', async () => {
    const api = new FakeApi();
    for (const name of ['a', 'b', 'c']) api.put(POD, pod(name, { even: String(name === 'b') }));
    const first = await api.list(POD, { limit: 2 });
    assert.deepEqual(
      first.items.map((p) => p.metadata.name),
      ['a', 'b'],
    );
    const rest = await api.list(POD, { limit: 2, continue: first.metadata.continue ?? '' });
    assert.deepEqual(
      rest.items.map((p) => p.metadata.name),
      ['c'],
    );
    assert.equal(rest.metadata.continue, undefined);
    assert.equal((await api.list(POD, { labelSelector: 'even=true' })).items.length, 1);
    assert.equal((await api.list(POD, { fieldSelector: 'metadata.name!=b' })).items.length, 2);
    assert.equal((await api.list(POD, { namespace: 'other' })).items.length, 0);
    await assert.rejects(api.list(POD, { labelSelector: 'a in' }), { status: 400 });
  });

  test('watches from any version, live and past, and by selectors', async () => {
    const api = new FakeApi();
    api.put(POD, pod('a', { x: '1' }));
    api.put(POD, pod('a', { x: '2' }));
    api.put(POD, pod('a', { x: '1' }));
    api.remove(POD, 'default/a');
    assert.deepEqual(await take(api, 4), [
      'ADDED a@1',
      'MODIFIED a@2',
      'MODIFIED a@3',
      'DELETED a@4',
    ]);
    assert.deepEqual(await take(api, 2, { resourceVersion: '2' }), ['MODIFIED a@3', 'DELETED a@4']);
    assert.deepEqual(await take(api, 4, { labelSelector: 'x=1' }), [
      'ADDED a@1',
      'DELETED a@2',
      'ADDED a@3',
      'DELETED a@4',
    ]);
    const live = take(api, 1, { resourceVersion: '4' });
    setImmediate(() => api.put(POD, pod('b')));
    assert.deepEqual(await live, ['ADDED b@5']);
    assert.equal(api.watchCount, 0);
  });

  test('a watch from before the history is expired', async () => {
    const api = new FakeApi();
    api.put(POD, pod('a'));
    api.compact();
    await assert.rejects(take(api, 1), (e) => isExpired(e));
    api.put(POD, pod('b'));
    assert.deepEqual(await take(api, 1, { resourceVersion: '1' }), ['ADDED b@2']);
  });

  test('makes trouble when asked to', async () => {
    const api = new FakeApi();
    api.failNext({ verb: 'create', resource: 'pods' }, new Error('lost'), { afterEffect: true });
    await assert.rejects(api.create(POD, pod('a')), /lost/);
    assert.equal((await api.get(POD, 'a', 'default')).metadata.name, 'a');
    api.setReachable(false);
    await assert.rejects(api.get(POD, 'a', 'default'), { code: 'ECONNREFUSED' });
    api.setReachable(true);
    const cut = take(api, 1, { resourceVersion: '1' });
    setImmediate(() => setImmediate(() => api.cutWatches(new Error('cut'))));
    await assert.rejects(cut, /cut/);
    assert.deepEqual(
      api.writes.map((r) => [r.verb, r.name]),
      [['create', 'a']],
    );
  });

  test('hands out copies', async () => {
    const api = new FakeApi();
    const mine = pod('a');
    const created = await api.create(POD, mine);
    created.metadata.name = 'changed';
    mine.metadata.name = 'changed';
    (await api.get(POD, 'a', 'default')).metadata.name = 'changed';
    assert.equal((await api.get(POD, 'a', 'default')).metadata.name, 'a');
  });
});
