import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import type { KubeObject } from '#api/meta.ts';
import { FakeClock } from '#lib/clock.ts';
import { CompactedError, LaggedError, StoreWriteError } from '#store/port.ts';
import { createWatchSlots } from './limits.ts';
import { createPresenter } from './present.ts';
import type { WatchFrame } from './registry/watch.ts';
import { SIGN_OF_LIFE_MS, watchDurationMs, watchStream } from './watch-stream.ts';

const MINUTE_MS = 60_000;

/** One step: let time pass, then give these frames or fail. */
type Step = { afterMs?: number; jumpMs?: number; frames: readonly WatchFrame[] } | { error: Error };

async function linesOf(steps: readonly Step[], allowBookmarks: boolean) {
  const clock = new FakeClock();
  let lagged = 0;
  async function* frames() {
    for (const step of steps) {
      if ('error' in step) throw step.error;
      clock.jump(step.jumpMs ?? 0);
      clock.advance(step.afterMs ?? 0);
      yield step.frames;
    }
  }
  const presenter = createPresenter(
    CONFIG_MAP,
    { presentation: 'object', encoding: 'json' },
    { includeObject: 'Metadata', nowMs: () => clock.now() },
  );
  const onLagged = () => {
    lagged++;
  };
  const lines: string[] = [];
  for await (const text of watchStream(frames(), {
    kind: CONFIG_MAP,
    presenter,
    allowBookmarks,
    clock,
    onLagged,
  }))
    lines.push(text);
  return { lines, lagged };
}

const object = { kind: 'ConfigMap', metadata: { name: 'a', resourceVersion: '5' } } as KubeObject;
const progress = (revision: number): WatchFrame => ({ type: 'PROGRESS', revision });

test('watchStream() sends the events of one revision together', async () => {
  const frames: WatchFrame[] = [
    { type: 'ADDED', object },
    { type: 'DELETED', object },
  ];
  const { lines } = await linesOf([{ frames }], false);
  assert.equal(lines.length, 1);
  const events = lines[0]
    ?.trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(events, [
    { type: 'ADDED', object },
    { type: 'DELETED', object },
  ]);
});

test('watchStream() sends bookmarks every minute, to clients that asked', async () => {
  const steps = [
    { afterMs: MINUTE_MS - 1, frames: [progress(7)] },
    { afterMs: 1, frames: [progress(8)] },
    { afterMs: 1, frames: [progress(9)] },
  ];
  const { lines } = await linesOf(steps, true);
  const bookmarks = lines.filter((line) => line.trim() !== '').map((line) => JSON.parse(line));
  assert.deepEqual(
    bookmarks.map(({ type, object: { metadata } }) => [type, metadata.resourceVersion]),
    [['BOOKMARK', '8']],
  );
  const unasked = await linesOf(steps, false);
  assert.ok(unasked.lines.every((line) => line === '\n'));
});

test('watchStream() gives a sign of life only to a quiet watch', async () => {
  const steps = [
    { afterMs: SIGN_OF_LIFE_MS - 1, frames: [{ type: 'ADDED', object } as WatchFrame] },
    { afterMs: 1, frames: [progress(7)] },
    { afterMs: SIGN_OF_LIFE_MS - 1, frames: [progress(7)] },
  ];
  const { lines } = await linesOf(steps, false);
  assert.deepEqual(lines.slice(1), ['\n']);
});

test('watchStream() goes by no time of day: a clock that is set back silences no watch', async () => {
  const quiet = { afterMs: MINUTE_MS, frames: [progress(7)] };
  const { lines } = await linesOf([{ ...quiet, jumpMs: -86_400_000 }, quiet], true);
  assert.equal(lines.length, 2);
});

test('watchStream() ends initial events with a bookmark that says so', async () => {
  const { lines } = await linesOf([{ frames: [{ type: 'INITIAL_END', revision: 9 }] }], true);
  const { type, object: mark } = JSON.parse(lines[0] ?? '');
  assert.equal(type, 'BOOKMARK');
  assert.equal(mark.metadata.resourceVersion, '9');
  assert.equal(mark.metadata.annotations['k8s.io/initial-events-end'], 'true');
});

for (const [error, code, lagged] of [
  [new CompactedError(1, 5), 410, 0],
  [new LaggedError(1, 5), 410, 1],
  [new StoreWriteError('disk'), 503, 0],
  [new Error('broken'), 500, 0],
] as const)
  test(`watchStream() ends with ${code} after ${error.name} ${error.message}`, async () => {
    const result = await linesOf([{ error }], true);
    const event = JSON.parse(result.lines.at(-1) ?? '');
    assert.equal(event.type, 'ERROR');
    assert.equal(event.object.code, code);
    assert.equal(result.lagged, lagged);
  });

test('watchDurationMs() is what the client asked for, within bounds, or up to an hour', () => {
  assert.equal(watchDurationMs(7, Math.random), 7_000);
  assert.equal(watchDurationMs(1e9, Math.random), 24 * 60 * MINUTE_MS);
  assert.equal(
    watchDurationMs(undefined, () => 0),
    30 * MINUTE_MS,
  );
  assert.equal(
    watchDurationMs(0, () => 0.5),
    45 * MINUTE_MS,
  );
});

test('createWatchSlots() bounds each user and all together, and takes slots back once', () => {
  const slots = createWatchSlots({ perUser: 2, total: 3 });
  const first = slots.take('a');
  assert.ok(first && slots.take('a'));
  assert.equal(slots.take('a'), undefined);
  assert.ok(slots.take('b'));
  assert.equal(slots.take('b'), undefined);
  first();
  first();
  assert.ok(slots.take('b'));
  assert.equal(slots.take('a'), undefined);
});
