import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import type { Attachment } from './attachment.ts';
import { createSandboxCheck, MAX_SANDBOX_START_MS, type SandboxRuntime } from './sandbox-check.ts';

const ADDED_MS = Date.UTC(2026, 0, 1);
const SANDBOX: Attachment['pod'] = {
  ...{ namespace: 'default', name: 'web', kubelet: false, sandbox: true },
};

/** A runtime that was started a second after the ADD, unless told otherwise. */
const runtime = (
  more: { knows?: string; startedAtMs?: number | null; failure?: Error } = {},
): SandboxRuntime => ({
  name: 'containerd',
  daemon: {
    startedAtMs: () =>
      (more.startedAtMs === undefined ? ADDED_MS + 1_000 : more.startedAtMs) ?? undefined,
    list: async () => {
      if (more.failure !== undefined) throw more.failure;
      return new Set(['another', more.knows ?? 'one more']);
    },
  },
});
const PODMAN: SandboxRuntime = { name: 'podman' };

for (const [what, setting, expected] of [
  ['it was started after the ADD and does not know it', {}, false],
  ['it knows it', { runtimes: [runtime({ knows: 's1' })] }, true],
  ['it may be starting it', { runtimes: [runtime({ startedAtMs: ADDED_MS })] }, undefined],
  [
    'it was there at the ADD, but that is long ago',
    { runtimes: [runtime({ startedAtMs: ADDED_MS })], laterMs: MAX_SANDBOX_START_MS },
    false,
  ],
  ['a process is there', { hasProcess: true }, undefined],
  ['it does not run', { runtimes: [runtime({ startedAtMs: null })] }, undefined],
  ['there is no daemon', { runtimes: [PODMAN] }, undefined],
  [
    'it cannot answer yet',
    { runtimes: [runtime({ failure: new Error('not initialized') })] },
    undefined,
  ],
  ['another one knows it', { runtimes: [runtime(), runtime({ knows: 's1' })] }, true],
  ['it is a pod of a kubelet', { pod: { ...SANDBOX, kubelet: true } }, false],
  [
    'it was written down by an earlier agent',
    { pod: { namespace: 'default', name: 'web', kubelet: true } },
    false,
  ],
  ['it is no sandbox', { pod: { namespace: 'default', name: 'web', kubelet: false } }, undefined],
] as const satisfies readonly [string, Setting, boolean | undefined][])
  test(`createSandboxCheck() says ${expected ?? 'nothing'} where ${what}`, async () => {
    const {
      runtimes = [PODMAN, runtime()],
      hasProcess = false,
      laterMs = 2_000,
    }: Setting = setting;
    const pod = ('pod' in setting ? setting.pod : undefined) ?? SANDBOX;
    const exists = createSandboxCheck({
      runtimes,
      hasProcess: () => hasProcess,
      log: silentLogger,
      clock: new FakeClock(ADDED_MS + laterMs),
    });
    const attachment = { pod, containerId: 's1', netns: '/run/netns/s1' } as Attachment;
    const createdAt = new Date(ADDED_MS).toISOString();
    assert.equal(await exists({ ...attachment, createdAt }), expected);
  });

interface Setting {
  readonly runtimes?: readonly SandboxRuntime[];
  readonly hasProcess?: boolean;
  readonly laterMs?: number;
  readonly pod?: Attachment['pod'];
}

test('createSandboxCheck() asks once for all pods of a sweep, and again for the next', async () => {
  const clock = new FakeClock(ADDED_MS + 2_000);
  let asked = 0;
  const { daemon } = runtime();
  const list = async () => {
    asked++;
    return new Set(['s1']);
  };
  const exists = createSandboxCheck({
    runtimes: daemon === undefined ? [] : [{ name: 'containerd', daemon: { ...daemon, list } }],
    hasProcess: () => false,
    log: silentLogger,
    clock,
  });
  const createdAt = new Date(ADDED_MS).toISOString();
  const attachment = { pod: SANDBOX, netns: '/run/netns/s1', createdAt } as Attachment;
  assert.equal(await exists({ ...attachment, containerId: 's1' }), true);
  assert.equal(await exists({ ...attachment, containerId: 's2' }), false);
  assert.equal(asked, 1);
  clock.advance(10_000);
  await exists({ ...attachment, containerId: 's1' });
  assert.equal(asked, 2);
});
