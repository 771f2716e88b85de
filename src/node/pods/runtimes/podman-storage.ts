/**
 * Whether podman has a container, by looking instead of asking: its storage has a folder for each. Asking is a process,
 * which costs more than attaching the container of another runtime does.
 *
 *     <graph root>/<driver>-containers/<id>/      also under the run root, for storage that is not kept
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, systemClock } from '#lib/clock.ts';
import { RunError, runOk } from '#proc/run.ts';

export interface PodmanStorage {
  /** True also when it cannot be told: then podman must be asked. */
  has(containerId: string): Promise<boolean>;
}

/** Podman may be installed, or its storage moved, while the agent runs. */
const LOOK_AGAIN_MS = 60_000;

/** @param command program and first arguments, for podmen with special settings */
export function createPodmanStorage(
  command: readonly string[] = ['podman'],
  clock: Clock = systemClock,
): PodmanStorage {
  let known:
    | { readonly roots: Promise<readonly string[] | undefined>; readonly atMs: number }
    | undefined;
  return {
    async has(containerId) {
      if (known === undefined || clock.elapsed() - known.atMs > LOOK_AGAIN_MS)
        known = { roots: storageRoots(command), atMs: clock.elapsed() };
      const roots = await known.roots;
      return roots === undefined || roots.some((root) => hasFolder(root, containerId));
    },
  };
}

/** @returns none if there is no podman, undefined if it does not say */
async function storageRoots(command: readonly string[]): Promise<readonly string[] | undefined> {
  const format = '{{.Store.GraphRoot}}\n{{.Store.RunRoot}}';
  try {
    const text = await runOk([...command, 'info', '--format', format]);
    const roots = text.split('\n').filter((line) => line.startsWith('/'));
    return roots.length > 0 ? roots : undefined;
  } catch (error) {
    if (!(error instanceof RunError)) throw error;
    return (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT' ? [] : undefined;
  }
}

function hasFolder(root: string, containerId: string): boolean {
  if (!existsSync(root)) return false;
  return readdirSync(root)
    .filter((name) => name.endsWith('-containers'))
    .some((name) => existsSync(join(root, name, containerId)));
}
