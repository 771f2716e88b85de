/**
 * Finds pods that nobody will ever take down. A CRI runtime that is killed in the middle of starting a pod does not know of
 * it afterwards, so there is no DEL, and the network namespace stays until the machine is started again.
 */
import { type Clock, systemClock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Attachment } from './attachment.ts';

/** Nobody waits so long for a pod to start: a kubelet gives up after four minutes. */
export const MAX_SANDBOX_START_MS = 15 * 60_000;

export interface SandboxRuntime {
  readonly name: string;
  /** Missing for a runtime without a daemon. */
  startedAtMs?(): number | undefined;
  inspect(containerId: string): Promise<object | undefined>;
}

export interface SandboxCheckComponents {
  readonly runtimes: readonly SandboxRuntime[];
  /** Whether any process is in the network namespace. */
  readonly hasProcess: (netns: string) => boolean;
  readonly log: Logger;
  readonly clock?: Clock;
}

/**
 * @returns tells whether the attachment's pod still exists: false only if no CRI runtime that runs can be starting it
 *   still or knows it, and no process is in its namespace; undefined if that cannot be told
 */
export function createSandboxCheck(
  components: SandboxCheckComponents,
): (attachment: Attachment) => Promise<boolean | undefined> {
  const { runtimes, hasProcess, log, clock = systemClock } = components;
  return async ({ pod, containerId, createdAt, netns }) => {
    // Of an earlier agent, which did not write it down otherwise.
    if (!pod.sandbox && !pod.kubelet) return undefined;
    const running = runtimes.flatMap((runtime) => {
      const startedAtMs = runtime.startedAtMs?.();
      return startedAtMs === undefined ? [] : [{ runtime, startedAtMs }];
    });
    const addedAtMs = Date.parse(createdAt);
    const isStarting =
      clock.now() - addedAtMs < MAX_SANDBOX_START_MS &&
      running.some((it) => it.startedAtMs <= addedAtMs);
    if (running.length === 0 || isStarting) return undefined;
    for (const { runtime } of running)
      try {
        if ((await runtime.inspect(containerId)) !== undefined) return true;
      } catch (error) {
        // It is just being started, or has no CRI: docker's containerd.
        log.debug(
          { runtime: runtime.name, reason: explainError(error) },
          'could not ask a runtime whether a pod is there',
        );
        return undefined;
      }
    return hasProcess(netns) ? undefined : false;
  };
}
