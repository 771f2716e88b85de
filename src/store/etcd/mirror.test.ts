import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { put, remove, text } from '../contract.ts';
import { holdOp } from '../held-entry.ts';
import type { WatchBatch, WriteOp } from '../port.ts';
import type { EtcdEvent } from './messages.ts';
import { Mirror } from './mirror.ts';

const PREFIX = '/t';

function openMirror(): Mirror {
  return new Mirror(
    { etcdRevision: 10, entries: [] },
    {
      prefix: PREFIX,
      revisionOffset: 0,
      historyRevisions: 1000,
      historyBytes: 1e6,
      clock: new FakeClock(),
    },
  );
}

function wrote(mirror: Mirror, revision: number, ...operations: WriteOp[]): void {
  mirror.wrote(revision, operations.map(holdOp));
}

/** As the watch brings it. */
function event(key: string, value: string, modRevision: number, createRevision = modRevision) {
  const entry = { key: PREFIX + key, value: Buffer.from(value), createRevision, modRevision };
  return { type: 'put', entry } satisfies EtcdEvent;
}

async function seen(mirror: Mirror): Promise<string[]> {
  const stop = new AbortController();
  const found: string[] = [];
  const describe = ({ revision, events }: WatchBatch) =>
    `${revision} ${events.map((it) => (it.type === 'put' ? `${it.entry.key}=${text(it.entry.value)}@${it.entry.createRevision}` : `-${it.key}`)).join(' ')}`;
  for await (const batch of mirror.watches.watch('/', 10, { signal: stop.signal })) {
    found.push(describe(batch));
    if (batch.revision >= mirror.revision) stop.abort();
  }
  return found;
}

test('wrote() shows a write before the watch brings it, and its repetition changes nothing', async () => {
  const mirror = openMirror();
  wrote(mirror, 11, put('/a', '1'));
  assert.equal(mirror.revision, 11);
  mirror.take([event('/a', '1', 11), event('/a', '2', 12, 11)]);
  wrote(mirror, 13, put('/a', '3'), remove('/none'));
  assert.deepEqual(await seen(mirror), ['11 /a=1@11', '12 /a=2@11', '13 /a=3@11']);
});

test('wrote() waits for what others wrote before, in whatever order the answers come', async () => {
  const mirror = openMirror();
  wrote(mirror, 14, put('/d', '1'));
  wrote(mirror, 12, put('/b', '1'));
  assert.equal(mirror.revision, 10);
  const reached = mirror.reached(12);
  mirror.take([event('/a', '1', 11)]);
  await reached;
  assert.equal(mirror.revision, 12);
  mirror.take([event('/b', '1', 12), event('/c', '1', 13), event('/d', '1', 14)]);
  assert.equal(mirror.revision, 14);
  assert.deepEqual(await seen(mirror), ['11 /a=1@11', '12 /b=1@12', '13 /c=1@13', '14 /d=1@14']);
});

test('wrote() takes deletions alone from the watch: they may have changed nothing', () => {
  const mirror = openMirror();
  wrote(mirror, 11, remove('/none'));
  assert.equal(mirror.revision, 10);
  // It was somebody else's revision.
  mirror.take([event('/a', '1', 11)]);
  assert.equal(text(mirror.state.get('/a')?.value), '1');
});

test('a transaction with deletions is taken as etcd made it', async () => {
  const mirror = openMirror();
  wrote(mirror, 11, put('/a', '1'), put('/b', '1'));
  wrote(mirror, 12, remove('/a'), put('/b', '2'));
  wrote(mirror, 13, put('/a', '3'));
  assert.deepEqual(await seen(mirror), ['11 /a=1@11 /b=1@11', '12 -/a /b=2@11', '13 /a=3@13']);
});
