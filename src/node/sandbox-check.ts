/**
 * Finds pods that nobody will ever take down: their CRI runtime has lost them (somebody removed its state, or it died before
 * it wrote of them), so there is no DEL, and the network namespace stays until the machine is started again.
 */
import { type Clock, systemClock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Attachment } from './attachment.ts';

/** Nobody waits so long for a pod to start: a kubelet gives up after four minutes. */
export const MAX_SANDBOX_START_MS = 15 * 60_000;
/** One question for all pods of a sweep. A pod that comes later is being started, and not looked for. */
const LIST_VALID_MS = 5_000;

export interface SandboxRuntime {
  readonly name: string;
  /** Missing for a runtime that has none. */
  readonly daemon?: {
    startedAtMs(): number | undefined;
    list(): Promise<ReadonlySet<string>>;
  };
}

export interface SandboxCheckComponents {
  readonly runtimes: readonly SandboxRuntime[];
  /** Whether any process is in the network namespace. */
  readonly hasProcess: (netns: string) => boolean;
  readonly log: Logger;
  readonly clock?: Clock;
}

interface Listed {
  readonly atMs: number;
  /** Since when the first of them runs; infinite if none does. */
  readonly startedMs: number;
  /** Undefined if one of them cannot be asked. */
  readonly ids: ReadonlySet<string> | undefined;
}

/**
 * @returns tells whether the attachment's pod still exists: false only if no CRI runtime that runs can be starting it
 *   still or knows it, and no process is in its namespace; undefined if that cannot be told
 */
export function createSandboxCheck(
  components: SandboxCheckComponents,
): (attachment: Attachment) => Promise<boolean | undefined> {
  const { hasProcess, clock = systemClock } = components;
  let listed: Listed | undefined;
  return async ({ pod, containerId, createdAt, netns }) => {
    // Of an earlier agent, which did not write it down otherwise.
    if (!pod.sandbox && !pod.kubelet) return undefined;
    if (listed === undefined || clock.elapsed() - listed.atMs > LIST_VALID_MS)
      listed = await listAll(components, clock.elapsed());
    const { ids, startedMs } = listed;
    if (ids === undefined) return undefined;
    if (ids.has(containerId)) return true;
    const addedAtMs = Date.parse(createdAt);
    const isStarting = addedAtMs >= startedMs && clock.now() - addedAtMs < MAX_SANDBOX_START_MS;
    return isStarting || hasProcess(netns) ? undefined : false;
  };
}

async function listAll({ runtimes, log }: SandboxCheckComponents, atMs: number): Promise<Listed> {
  let startedMs = Number.POSITIVE_INFINITY;
  const ids = new Set<string>();
  for (const { name, daemon } of runtimes) {
    const since = daemon?.startedAtMs();
    if (daemon === undefined || since === undefined) continue;
    startedMs = Math.min(startedMs, since);
    try {
      for (const id of await daemon.list()) ids.add(id);
    } catch (error) {
      // It is just being started, or has no CRI: docker's containerd.
      log.debug(
        { runtime: name, reason: explainError(error) },
        'could not ask a runtime which pods it has',
      );
      return { atMs, startedMs, ids: undefined };
    }
  }
  return { atMs, startedMs, ids: startedMs === Number.POSITIVE_INFINITY ? undefined : ids };
}
