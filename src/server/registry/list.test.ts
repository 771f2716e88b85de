import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { createFilter } from '../selectors.ts';
import { formatContinueToken, parseContinueToken } from './continue-token.ts';
import { type ListRequest, listObjects } from './list.ts';
import { AS_ADMIN, configMap, type Fixture, openFixture } from './test-registries.ts';

function list(fixture: Fixture, request: Partial<ListRequest> = {}, query = '') {
  const filter = createFilter(CONFIG_MAP, new URLSearchParams(query));
  return listObjects(CONFIG_MAP, fixture.store, {
    namespace: 'default',
    ...(filter === undefined ? {} : { filter }),
    ...request,
  });
}

async function openWith(...names: string[]): Promise<Fixture> {
  const fixture = await openFixture();
  for (const name of names)
    await fixture.create(CONFIG_MAP, configMap(name, { labels: { first: name.slice(0, 1) } }));
  return fixture;
}

const namesOf = (page: { items: readonly { metadata: { name: string } }[] }) =>
  page.items.map((item) => item.metadata.name);

test('listObjects() gives all, in the order of names, at one revision', async () => {
  await using fixture = await openWith('b', 'a', 'c');
  const page = await list(fixture);
  assert.deepEqual(namesOf(page), ['a', 'b', 'c']);
  assert.equal(page.revision, await fixture.store.revision());
  assert.equal(page.continueToken, undefined);
});

test('listObjects() pages over one snapshot, whatever is written meanwhile', async () => {
  await using fixture = await openWith('a', 'b', 'c', 'd', 'e');
  const first = await list(fixture, { limit: 2 });
  assert.equal(first.remaining, 3);
  await fixture.create(CONFIG_MAP, configMap('bb'));
  await fixture.of(CONFIG_MAP).delete({ namespace: 'default', name: 'd' }, AS_ADMIN);
  const second = await list(fixture, { limit: 2, continueToken: first.continueToken ?? '' });
  const third = await list(fixture, { limit: 2, continueToken: second.continueToken ?? '' });
  assert.deepEqual([first, second, third].map(namesOf), [['a', 'b'], ['c', 'd'], ['e']]);
  assert.deepEqual([second.revision, third.revision], [first.revision, first.revision]);
  assert.equal(third.continueToken, undefined);
});

test('listObjects() pages over what a filter leaves', async () => {
  await using fixture = await openWith('a1', 'b1', 'a2', 'b2', 'a3');
  const first = await list(fixture, { limit: 2 }, 'labelSelector=first=a');
  assert.deepEqual(namesOf(first), ['a1', 'a2']);
  assert.equal(first.remaining, undefined);
  const second = await list(
    fixture,
    { limit: 2, continueToken: first.continueToken ?? '' },
    'labelSelector=first=a',
  );
  assert.deepEqual(namesOf(second), ['a3']);
  assert.equal(second.continueToken, undefined);
});

test('listObjects() answers 410 when the snapshot of a token is compacted', async () => {
  await using fixture = await openWith('a', 'b', 'c');
  const first = await list(fixture, { limit: 1 });
  await fixture.create(CONFIG_MAP, configMap('d'));
  await fixture.store.compact(await fixture.store.revision());
  await assert.rejects(list(fixture, { limit: 1, continueToken: first.continueToken ?? '' }), {
    status: 410,
    reason: 'Expired',
    message: /must start a new list without the continue parameter/,
  });
});

test('listObjects() with resourceVersionMatch=Exact gives the past', async () => {
  await using fixture = await openWith('a');
  const then = await fixture.store.revision();
  await fixture.create(CONFIG_MAP, configMap('b'));
  const exact = { resourceVersion: String(then), resourceVersionMatch: 'Exact' };
  assert.deepEqual(namesOf(await list(fixture, exact)), ['a']);
  assert.deepEqual(namesOf(await list(fixture, { resourceVersion: String(then) })), ['a', 'b']);
});

test('listObjects() says that a revision has not happened', async () => {
  await using fixture = await openWith('a');
  await assert.rejects(list(fixture, { resourceVersion: '1000000' }), { code: 'FUTURE_REVISION' });
});

for (const [what, request] of [
  ['a resourceVersion that is no number', { resourceVersion: 'x' }],
  ['a token that is none', { continueToken: 'nonsense' }],
  ['a token with a resourceVersion', { continueToken: 'nonsense', resourceVersion: '7' }],
  ['an unknown match', { resourceVersionMatch: 'Sometimes', resourceVersion: '1' }],
  ['Exact without a resourceVersion', { resourceVersionMatch: 'Exact' }],
  ['a match without a resourceVersion', { resourceVersionMatch: 'NotOlderThan' }],
] as const)
  test(`listObjects() refuses ${what}`, async () => {
    await using fixture = await openWith('a');
    await assert.rejects(list(fixture, request), { status: 400 });
  });

test('listObjects() reads one object if the field selector names it', async () => {
  await using fixture = await openWith('a', 'ab');
  assert.deepEqual(namesOf(await list(fixture, {}, 'fieldSelector=metadata.name%3Da')), ['a']);
  assert.deepEqual(namesOf(await list(fixture, {}, 'fieldSelector=metadata.name%3Dx')), []);
  const all = await list(fixture, { namespace: '' }, 'fieldSelector=metadata.name%3Da');
  assert.deepEqual(namesOf(all), ['a']);
});

test('createFilter() refuses selectors that do not parse or name unknown fields', () => {
  for (const query of ['labelSelector=a+in+(', 'fieldSelector=spec.foo%3Dx'])
    assert.throws(() => createFilter(CONFIG_MAP, new URLSearchParams(query)), { status: 400 });
});

test('parseContinueToken() reads what formatContinueToken() wrote', () => {
  const token = { revision: 12, after: 'default/ä' };
  assert.deepEqual(parseContinueToken(formatContinueToken(token)), token);
});
