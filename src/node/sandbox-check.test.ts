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

/** A runtime that was started a second after the ADD. */
const runtime = (more: Partial<SandboxRuntime> = {}): SandboxRuntime => ({
  name: 'containerd',
  startedAtMs: () => ADDED_MS + 1_000,
  inspect: async () => undefined,
  ...more,
});
const PODMAN: SandboxRuntime = { name: 'podman', inspect: async () => undefined };

for (const [what, setting, expected] of [
  ['it was started after the ADD and does not know it', {}, false],
  ['it knows it', { runtimes: [runtime({ inspect: async () => ({}) })] }, true],
  ['it may be starting it', { runtimes: [runtime({ startedAtMs: () => ADDED_MS })] }, undefined],
  [
    'it was there at the ADD, but that is long ago',
    { runtimes: [runtime({ startedAtMs: () => ADDED_MS })], laterMs: MAX_SANDBOX_START_MS },
    false,
  ],
  ['a process is there', { hasProcess: true }, undefined],
  ['it does not run', { runtimes: [runtime({ startedAtMs: () => undefined })] }, undefined],
  ['there is no daemon', { runtimes: [PODMAN] }, undefined],
  [
    'it cannot answer yet',
    { runtimes: [runtime({ inspect: () => Promise.reject(new Error('not initialized')) })] },
    undefined,
  ],
  ['another one knows it', { runtimes: [runtime(), runtime({ inspect: async () => ({}) })] }, true],
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
