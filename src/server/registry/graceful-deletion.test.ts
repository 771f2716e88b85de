import assert from 'node:assert/strict';
import { test } from 'node:test';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { AS_ADMIN, DRY_RUN, openFixture } from './test-registries.ts';

const P = { namespace: 'default', name: 'p' };

function pod(spec: object = { nodeName: 'm1' }, metadata: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', ...metadata },
    spec: { containers: [{ name: 'c', image: 'i' }], ...spec },
  };
}

async function openPod(sent = pod()) {
  const fixture = await openFixture();
  await fixture.create(POD, sent);
  const registry = fixture.of(POD);
  return {
    fixture,
    registry,
    /** The state after a delete; undefined: it has gone. */
    async deleted(gracePeriodSeconds?: number, base: typeof AS_ADMIN | typeof DRY_RUN = AS_ADMIN) {
      const wish = gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds };
      const { object, removed } = await registry.delete(P, { ...base, ...wish });
      const { deletionTimestamp, deletionGracePeriodSeconds, generation } = object.metadata;
      return removed ? undefined : [deletionTimestamp, deletionGracePeriodSeconds, generation];
    },
    async [Symbol.asyncDispose]() {
      await fixture[Symbol.asyncDispose]();
    },
  };
}

test('delete() gives a pod that runs its time, which a later wish only makes shorter', async () => {
  await using it = await openPod();
  assert.deepEqual(await it.deleted(), ['2026-01-01T00:00:30Z', 30, 2]);
  it.fixture.clock.advance(10_000);
  assert.deepEqual(await it.deleted(60), ['2026-01-01T00:00:30Z', 30, 2]);
  assert.deepEqual(await it.deleted(), ['2026-01-01T00:00:30Z', 30, 2]);
  assert.deepEqual(await it.deleted(5), ['2026-01-01T00:00:05Z', 5, 2]);
  assert.deepEqual(await it.deleted(-7), ['2026-01-01T00:00:01Z', 1, 2]);
  assert.equal(await it.deleted(0), undefined);
  await assert.rejects(it.registry.get(P), { status: 404 });
});

test('delete() takes the time of the wish, and else that of the pod', async () => {
  await using own = await openPod(pod({ nodeName: 'm1', terminationGracePeriodSeconds: 7 }));
  assert.deepEqual((await own.deleted())?.[1], 7);
  await using wished = await openPod(pod({ nodeName: 'm1', terminationGracePeriodSeconds: 7 }));
  assert.deepEqual((await wished.deleted(60))?.[1], 60);
  // A date that no calendar has must not become an error of the server.
  await using forever = await openPod();
  assert.deepEqual((await forever.deleted(Number.MAX_SAFE_INTEGER))?.[1], 2 ** 31 - 1);
});

test('delete() removes at once what has nothing to end', async () => {
  await using unplaced = await openPod(pod({}));
  assert.equal(await unplaced.deleted(), undefined);
  await using impatient = await openPod();
  assert.equal(await impatient.deleted(0), undefined);
  for (const phase of ['Succeeded', 'Failed']) {
    await using over = await openPod();
    await over.registry.update(
      { ...P, subresource: 'status' },
      (stored) => ({ ...stored, status: { ...(stored as Pod).status, phase } }) as Pod,
      AS_ADMIN,
    );
    assert.equal(await over.deleted(), undefined, phase);
  }
});

test('delete() in a dry run says when the pod would be gone, and lets it be', async () => {
  await using it = await openPod();
  assert.deepEqual(await it.deleted(undefined, DRY_RUN), ['2026-01-01T00:00:30Z', 30, 2]);
  assert.equal((await it.registry.get(P)).metadata.deletionTimestamp, undefined);
});

test('a pod with finalizers goes when they are gone and somebody has ended it', async () => {
  const finalizers = ['tulle.dev/x'];
  const without = (stored: Pod) => ({
    ...stored,
    metadata: { ...stored.metadata, finalizers: [] },
  });
  await using first = await openPod(pod({ nodeName: 'm1' }, { finalizers }));
  await first.deleted();
  await first.registry.update(P, (stored) => without(stored as Pod), AS_ADMIN);
  assert.equal((await first.registry.get(P)).metadata.deletionGracePeriodSeconds, 30);
  assert.equal(await first.deleted(0), undefined);

  await using second = await openPod(pod({ nodeName: 'm1' }, { finalizers }));
  await second.deleted();
  assert.deepEqual((await second.deleted(0))?.[1], 0);
  await second.registry.update(P, (stored) => without(stored as Pod), AS_ADMIN);
  await assert.rejects(second.registry.get(P), { status: 404 });
});
