import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EVENT, type Event } from '#api/core/v1/event.ts';
import type { KubeObject } from '#api/meta.ts';
import { sweepExpired } from './expiry.ts';
import { objectKey } from './keys.ts';
import { AS_ADMIN, type Fixture, openFixture } from './test-registries.ts';

const HOUR_MS = 3_600_000;

const event = (name: string) => ({
  apiVersion: 'v1',
  kind: 'Event',
  metadata: { name, namespace: 'default' },
  involvedObject: { kind: 'Pod', name: 'p', namespace: 'default' },
  reason: 'Tried',
  message: 'x',
  type: 'Normal',
  count: 1,
});

const count = (stored: KubeObject) =>
  ({ ...(stored as Event), count: ((stored as Event).count ?? 0) + 1 }) as KubeObject;

async function names(fixture: Fixture): Promise<string[]> {
  const { entries } = await fixture.store.list('/registry/core/events/');
  return entries.map(({ key }) => key.slice(key.lastIndexOf('/') + 1));
}

/** What is due is deleted in the background of a store. */
async function until(fixture: Fixture, expected: readonly string[]): Promise<void> {
  for (let i = 0; i < 100; i++) {
    if (JSON.stringify(await names(fixture)) === JSON.stringify(expected)) return;
    await new Promise(setImmediate);
  }
  assert.deepEqual(await names(fixture), expected);
}

test('an event goes an hour after it was last written, and not before', async () => {
  await using fixture = await openFixture();
  await fixture.create(EVENT, event('once'));
  await fixture.create(EVENT, event('again'));
  fixture.clock.advance(HOUR_MS / 2);
  await fixture.of(EVENT).update({ namespace: 'default', name: 'again' }, count, AS_ADMIN);
  fixture.clock.advance(HOUR_MS / 2 - 1);
  await until(fixture, ['again', 'once']);
  // Many share a lease, which is therefore a minute longer.
  fixture.clock.advance(60_001);
  await until(fixture, ['again']);
  fixture.clock.advance(HOUR_MS / 2);
  await until(fixture, []);
});

test('a clock that is set takes no event, and keeps none', async () => {
  await using fixture = await openFixture();
  await fixture.create(EVENT, event('a'));
  fixture.clock.jump(24 * HOUR_MS);
  fixture.clock.advance(HOUR_MS / 2);
  await until(fixture, ['a']);
  fixture.clock.jump(-48 * HOUR_MS);
  fixture.clock.advance(HOUR_MS / 2 + 60_001);
  await until(fixture, []);
});

test('many events share a lease, for a while and up to a number', async () => {
  await using fixture = await openFixture();
  let granted = 0;
  const grant = fixture.store.grantLease.bind(fixture.store);
  fixture.store.grantLease = (ttlMs) => {
    granted++;
    return grant(ttlMs);
  };
  for (let i = 0; i < 1001; i++) await fixture.create(EVENT, event(`e${i}`));
  assert.equal(granted, 2);
  fixture.clock.advance(60_000);
  await fixture.create(EVENT, event('later'));
  assert.equal(granted, 3);
});

test('an event is written although its lease is gone', async () => {
  await using fixture = await openFixture();
  const granted: number[] = [];
  const grant = fixture.store.grantLease.bind(fixture.store);
  fixture.store.grantLease = async (ttlMs) => {
    const lease = await grant(ttlMs);
    granted.push(lease.id);
    return lease;
  };
  await fixture.create(EVENT, event('one'));
  await fixture.store.revokeLease(granted[0] ?? 0);
  await fixture.create(EVENT, event('two'));
  assert.deepEqual(await names(fixture), ['two']);
  assert.equal(granted.length, 2);
});

test('sweepExpired() takes old events that hang on no lease, and leaves what was seen lately', async () => {
  await using fixture = await openFixture();
  const { store, clock } = fixture;
  const at = (ms: number) => new Date(clock.now() - ms).toISOString();
  const restored = async (name: string, times: object, createdMs: number) => {
    const object = {
      ...event(name),
      metadata: { name, namespace: 'default', creationTimestamp: at(createdMs) },
      ...times,
    };
    const key = objectKey(EVENT, 'default', name);
    const value = Buffer.from(JSON.stringify(object));
    await store.transact([], [{ type: 'put', key, value }]);
  };
  await restored('old', {}, 2 * HOUR_MS);
  await restored('repeated', { lastTimestamp: at(1000) }, 2 * HOUR_MS);
  await restored('in-series', { series: { lastObservedTime: at(1000) } }, 2 * HOUR_MS);
  await restored('new', {}, 1000);
  await sweepExpired(EVENT, { store, clock });
  assert.deepEqual(await names(fixture), ['in-series', 'new', 'repeated']);
});
