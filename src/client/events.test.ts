import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EVENT } from '#api/core/v1/event.ts';
import type { KubeObject } from '#api/meta.ts';
import { FakeClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { EventCorrelator, type Occurrence } from './event-correlator.ts';
import { createEventRecorder } from './events.ts';
import { FakeApi } from './fake.ts';

const node: KubeObject = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'm1', uid: 'uid-m1' },
};

function occurrence(message: string, atMs = 0, reason = 'Broken'): Occurrence {
  return { regarding: { kind: 'Node', name: 'm1' }, type: 'Warning', reason, message, atMs };
}

describe('EventCorrelator', () => {
  test('counts what happens again', () => {
    const correlator = new EventCorrelator();
    assert.equal(correlator.correlate(occurrence('a', 1)).type, 'create');
    const again = correlator.correlate(occurrence('a', 2));
    assert.deepEqual(
      [again.type, again.type === 'count' && [again.count, again.firstAtMs]],
      ['count', [2, 1]],
    );
    assert.equal(correlator.correlate(occurrence('b', 3)).type, 'create');
    assert.equal(correlator.correlate(occurrence('a', 3, 'Other')).type, 'create');
  });

  test('combines many that differ in their message only', () => {
    const correlator = new EventCorrelator();
    const types = Array.from({ length: 14 }, (_, i) => correlator.correlate(occurrence(`no ${i}`)));
    assert.deepEqual(
      types.map(({ type }) => type),
      [...Array(10).fill('create'), ...Array(4).fill('count')],
    );
    const last = types.at(-1);
    assert.match(last?.type === 'count' ? last.message : '', /^\(combined .*\): no 13$/);
    const later = correlator.correlate(occurrence('alone', 601_000));
    assert.equal(later.type === 'create' && later.message, 'alone');
  });

  test('drops what floods, and lets one through after a while', () => {
    const correlator = new EventCorrelator();
    const let_ = (atMs: number) => correlator.correlate(occurrence('a', atMs)).type !== 'drop';
    const passed = Array.from({ length: 100 }, () => let_(0)).filter(Boolean);
    assert.equal(passed.length, 25);
    assert.equal(let_(299_000), false);
    assert.equal(let_(301_000), true);
    assert.equal(let_(302_000), false);
  });
});

describe('createEventRecorder()', () => {
  function setUp() {
    const clock = new FakeClock();
    const api = new FakeApi({ clock });
    const options = { component: 'tester', host: 'm1', log: silentLogger, clock };
    const recorder = createEventRecorder(api, options);
    const record = (message: string, regarding = node) =>
      recorder.record(regarding, { type: 'Warning', reason: 'Broken', message });
    return { clock, api, recorder, record };
  }

  test('writes an event, and counts it up', async () => {
    const { clock, api, recorder, record } = setUp();
    record('cable out');
    await recorder.flushed();
    clock.advance(5_000);
    record('cable out');
    await recorder.flushed();
    const events = api.objects(EVENT);
    assert.equal(events.length, 1);
    const [event] = events;
    assert.equal(event?.metadata.namespace, 'default');
    assert.deepEqual(event?.involvedObject, {
      apiVersion: 'v1',
      kind: 'Node',
      name: 'm1',
      uid: 'uid-m1',
    });
    assert.deepEqual(
      [event?.count, event?.firstTimestamp, event?.lastTimestamp, event?.source],
      [2, '2026-01-01T00:00:00Z', '2026-01-01T00:00:05Z', { component: 'tester', host: 'm1' }],
    );
  });

  test('makes a new one when the old one has expired', async () => {
    const { api, recorder, record } = setUp();
    record('cable out');
    await recorder.flushed();
    for (const event of api.objects(EVENT)) api.remove(EVENT, `default/${event.metadata.name}`);
    record('cable out');
    await recorder.flushed();
    assert.equal(api.objects(EVENT).length, 1);
  });

  test('tries again when the server is away, and gives up what it refuses', async () => {
    const { clock, api, recorder, record } = setUp();
    api.failNext({ verb: 'create' }, new Error('away'), { times: 3 });
    record('one');
    const sent = recorder.flushed();
    while (api.objects(EVENT).length === 0) {
      clock.advance(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await sent;
    api.failNext({ verb: 'create' }, new ApiError(403, 'Forbidden', 'no'));
    record('two');
    record('three');
    await recorder.flushed();
    assert.deepEqual(
      api
        .objects(EVENT)
        .map(({ message }) => message)
        .toSorted(),
      ['one', 'three'],
    );
  });

  test('drops rather than piles up, and lets go when it is closed', async () => {
    const { api, recorder, record } = setUp();
    api.setReachable(false);
    for (let i = 0; i < 1_500; i++) record('cable out', { ...node, metadata: { name: `m${i}` } });
    await recorder[Symbol.asyncDispose]();
    record('too late');
    api.setReachable(true);
    await recorder.flushed();
    assert.deepEqual(api.objects(EVENT), []);
  });
});
