/** Events under both groups that serve them: the same objects. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Event as CoreEvent } from '#api/core/v1/event.ts';
import { startServerFixture } from './test-server.ts';

const CORE = '/api/v1/namespaces/default/events';
const NEW = '/apis/events.k8s.io/v1/namespaces/default/events';
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json';
const CORE_EVENT = {
  apiVersion: 'v1',
  kind: 'Event',
  metadata: { name: 'old' },
  involvedObject: { kind: 'Pod', namespace: 'default', name: 'p' },
  reason: 'Started',
  message: 'it started',
  type: 'Normal',
  source: { component: 'agent' },
};
const NEW_EVENT = {
  apiVersion: 'events.k8s.io/v1',
  kind: 'Event',
  metadata: { name: 'new' },
  regarding: { kind: 'Pod', namespace: 'default', name: 'q' },
  eventTime: '2026-01-01T00:00:00.000000Z',
  reason: 'Stopped',
  action: 'Stop',
  note: 'it stopped',
  type: 'Warning',
  reportingController: 'agent',
  reportingInstance: 'm1',
};

test('an event written under one group is read, changed and deleted under the other', async () => {
  await using fixture = await startServerFixture();
  const as = fixture.admin;
  const call = async (method: string, path: string, body?: object, type = 'application/json') => {
    const options = body === undefined ? { as } : { as, body, headers: { 'content-type': type } };
    return await fixture.call(method, path, options);
  };
  assert.equal((await call('POST', CORE, CORE_EVENT)).status, 201);
  assert.equal((await call('POST', NEW, NEW_EVENT)).status, 201);

  const old = (await call('GET', `${NEW}/old`)).json();
  assert.equal(old.apiVersion, 'events.k8s.io/v1');
  assert.equal(old.note, 'it started');
  assert.deepEqual(old.deprecatedSource, { component: 'agent' });
  assert.equal(old.message, undefined);
  const made = (await call('GET', `${CORE}/new`)).json() as unknown as CoreEvent;
  assert.equal(made.apiVersion, 'v1');
  assert.deepEqual([made.message, made.involvedObject.name], ['it stopped', 'q']);
  const { metadata } = (await call('GET', `${NEW}/new`)).json() as unknown as CoreEvent;
  assert.equal(made.metadata.uid, metadata.uid);

  const series = { count: 2, lastObservedTime: '2026-01-01T00:01:00.000000Z' };
  const merge = 'application/merge-patch+json';
  const patched = await call('PATCH', `${NEW}/new`, { series }, merge);
  assert.equal(patched.status, 200, patched.text);
  assert.deepEqual((await call('GET', `${CORE}/new`)).json().series, series);
  const refused = await call('PATCH', `${NEW}/new`, { note: 'another' }, merge);
  assert.equal(refused.status, 422);
  assert.match(refused.text, /note: Invalid value/);

  const only = async (path: string, selector: string) =>
    (
      (await call('GET', `${path}?fieldSelector=${selector}`)).json() as unknown as {
        items: CoreEvent[];
      }
    ).items.map(({ metadata: { name } }) => name);
  assert.deepEqual(await only(NEW, 'regarding.name=q'), ['new']);
  assert.deepEqual(await only(CORE, 'involvedObject.name=q'), ['new']);
  const table = await fixture.call('GET', NEW, { as, headers: { accept: TABLE } });
  assert.deepEqual(
    (table.json() as unknown as { rows: { cells: unknown[] }[] }).rows.map(({ cells }) =>
      cells.slice(1, 4),
    ),
    [
      ['Warning', 'Stopped', 'pod/q'],
      ['Normal', 'Started', 'pod/p'],
    ],
  );

  assert.equal((await call('DELETE', `${NEW}/old`)).status, 200);
  assert.equal((await call('GET', `${CORE}/old`)).status, 404);
  const watched = await call('GET', `${NEW}?watch=true&timeoutSeconds=1&resourceVersion=0`);
  assert.deepEqual(
    watched.text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
      .map(({ type, object }) => [type, object.apiVersion, object.note]),
    [['ADDED', 'events.k8s.io/v1', 'it stopped']],
  );
});
