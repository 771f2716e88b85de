import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import type { KubeObject } from '#api/meta.ts';
import { createFilter } from '../selectors.ts';
import { AS_ADMIN, configMap, type Fixture, openFixture } from './test-registries.ts';
import { type WatchFrame, type WatchRequest, watchObjects } from './watch.ts';

const HOUR_MS = 3_600_000;

function watch(fixture: Fixture, request: Partial<WatchRequest>, query = '') {
  const filter = createFilter(CONFIG_MAP, new URLSearchParams(query));
  return watchObjects(CONFIG_MAP, fixture.store, {
    namespace: 'default',
    resourceVersion: '',
    sendInitialEvents: false,
    progressMs: HOUR_MS,
    signal: new AbortController().signal,
    ...(filter === undefined ? {} : { filter }),
    ...request,
  });
}

/** The first frames, `TYPE name` each; progress is left out. */
async function take(
  frames: AsyncIterable<readonly WatchFrame[]>,
  count: number,
): Promise<string[]> {
  const seen: string[] = [];
  for await (const batch of frames) {
    for (const frame of batch)
      if ('object' in frame) seen.push(`${frame.type} ${frame.object.metadata.name}`);
      else if (frame.type === 'INITIAL_END') seen.push(frame.type);
    if (seen.length >= count) break;
  }
  return seen;
}

async function setLabels(fixture: Fixture, name: string, labels: Record<string, string>) {
  const target = { namespace: 'default', name };
  const change = (stored: KubeObject) => ({ ...stored, metadata: { ...stored.metadata, labels } });
  await fixture.of(CONFIG_MAP).update(target, change, AS_ADMIN);
}

test('watchObjects() shows every change after a revision', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a'));
  const resourceVersion = String(await fixture.store.revision());
  await fixture.create(CONFIG_MAP, configMap('b'));
  await setLabels(fixture, 'a', { x: '1' });
  await fixture.of(CONFIG_MAP).delete({ namespace: 'default', name: 'b' }, AS_ADMIN);
  assert.deepEqual(await take(watch(fixture, { resourceVersion }), 3), [
    'ADDED b',
    'MODIFIED a',
    'DELETED b',
  ]);
});

test('watchObjects() makes of objects that enter and leave the selector ADDED and DELETED', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a'));
  const resourceVersion = String(await fixture.store.revision());
  await setLabels(fixture, 'a', { app: 'web' });
  await setLabels(fixture, 'a', { app: 'web', more: '1' });
  await setLabels(fixture, 'a', { app: 'db' });
  await setLabels(fixture, 'a', { app: 'db', more: '1' });
  await setLabels(fixture, 'a', { app: 'web' });
  const frames = watch(fixture, { resourceVersion }, 'labelSelector=app%3Dweb');
  assert.deepEqual(await take(frames, 4), ['ADDED a', 'MODIFIED a', 'DELETED a', 'ADDED a']);
});

test('watchObjects() shows of what left its last matching state, at the revision of the change', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a', { labels: { app: 'web' } }));
  const resourceVersion = String(await fixture.store.revision());
  await setLabels(fixture, 'a', { app: 'db' });
  for await (const [frame] of watch(fixture, { resourceVersion }, 'labelSelector=app%3Dweb')) {
    assert.ok(frame?.type === 'DELETED');
    assert.deepEqual(frame.object.metadata.labels, { app: 'web' });
    assert.equal(frame.object.metadata.resourceVersion, String(await fixture.store.revision()));
    break;
  }
});

test('watchObjects() of one name does not see longer names that begin with it', async () => {
  await using fixture = await openFixture();
  const resourceVersion = String(await fixture.store.revision());
  await fixture.create(CONFIG_MAP, configMap('ab'));
  await fixture.create(CONFIG_MAP, configMap('a'));
  const frames = watch(fixture, { resourceVersion }, 'fieldSelector=metadata.name%3Da');
  assert.deepEqual(await take(frames, 1), ['ADDED a']);
});

test('watchObjects() without a revision begins with what is there', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a'));
  await fixture.create(CONFIG_MAP, configMap('b'));
  const frames = watch(fixture, {});
  const seen = take(frames, 3);
  await fixture.create(CONFIG_MAP, configMap('c'));
  assert.deepEqual(await seen, ['ADDED a', 'ADDED b', 'ADDED c']);
});

test('watchObjects() with initial events says where they end', async () => {
  await using fixture = await openFixture();
  await fixture.create(CONFIG_MAP, configMap('a'));
  const frames = watch(fixture, { sendInitialEvents: true });
  assert.deepEqual(await take(frames, 2), ['ADDED a', 'INITIAL_END']);
});

test('watchObjects() with initial events of nothing says so at once', async () => {
  await using fixture = await openFixture();
  assert.deepEqual(await take(watch(fixture, { sendInitialEvents: true }), 1), ['INITIAL_END']);
});

test('watchObjects() from a compacted revision fails', async () => {
  await using fixture = await openFixture();
  for (const name of ['a', 'b', 'c']) await fixture.create(CONFIG_MAP, configMap(name));
  await fixture.store.compact(await fixture.store.revision());
  await assert.rejects(take(watch(fixture, { resourceVersion: '1' }), 1), { code: 'COMPACTED' });
});

test('watchObjects() ends when its signal is aborted', async () => {
  await using fixture = await openFixture();
  const stop = new AbortController();
  const resourceVersion = String(await fixture.store.revision());
  const seen = take(watch(fixture, { resourceVersion, signal: stop.signal }), 1);
  stop.abort();
  assert.deepEqual(await seen, []);
});
