/**
 * Podman, by its command line: it has no daemon that could be asked.
 *
 * `podman container inspect` waits for the container's lock, which podman holds while it calls the CNI plugin, so it
 * must never be waited for inside a CNI call.
 */
import { DecodeError } from '#lib/errors.ts';
import { RunError, run } from '#proc/run.ts';
import type { PodmanStorage } from './podman-storage.ts';
import type { ContainerInfo, ContainerRuntime } from './runtime.ts';

const INSPECT_TIMEOUT_MS = 10_000;
/** Of what a command in a container prints. */
const MAX_EXEC_OUTPUT_BYTES = 4_096;
/** What podman prints for a container that does not exist. */
const NO_SUCH_CONTAINER = /no such (container|object)/i;
/** The time that Go prints for "never". */
const ZERO_TIME = '0001-01-01T00:00:00Z';

/**
 * @param command program and first arguments, for podmen with special settings
 * @param options `storage`: spares asking for containers of other runtimes
 */
export function createPodmanRuntime(
  command: readonly string[] = ['podman'],
  options: { readonly storage?: PodmanStorage } = {},
): ContainerRuntime {
  return {
    name: 'podman',
    async inspect(containerId, signal) {
      if ((await options.storage?.has(containerId)) === false) return undefined;
      // After "--", so that an id cannot be taken for an option.
      const argv = [...command, 'container', 'inspect', '--', containerId];
      const result = await run(argv, {
        timeoutMs: INSPECT_TIMEOUT_MS,
        ...(signal === undefined ? {} : { signal }),
      });
      if (result.exitCode === 0) return parsePodmanInspect(result.stdout);
      if (NO_SUCH_CONTAINER.test(result.stderr)) return undefined;
      throw new RunError(
        `"${argv.join(' ')}" failed (${result.exitCode ?? result.signal}): ${result.stderr.trim()}`,
        argv,
        result,
      );
    },
    async exec(containerId, argv, { timeoutMs, signal }) {
      const result = await run([...command, 'exec', '--', containerId, ...argv], {
        timeoutMs,
        signal,
        maxOutputBytes: MAX_EXEC_OUTPUT_BYTES,
      });
      return { exitCode: result.exitCode, output: result.stderr || result.stdout };
    },
  };
}

/**
 * Reads the output of `podman container inspect ID`.
 * @returns undefined for an empty list
 * @throws DecodeError if it is something else
 */
export function parsePodmanInspect(output: string): ContainerInfo | undefined {
  let list: unknown;
  try {
    list = JSON.parse(output);
  } catch (cause) {
    throw decodeError('output', 'it is no JSON', cause);
  }
  if (!Array.isArray(list)) throw decodeError('output', 'it is no list');
  const [first] = list as unknown[];
  if (first === undefined) return undefined;
  const container = objectAt(first, 'container');
  const state = objectAt(container.State, 'State');
  const config = isObject(container.Config) ? container.Config : {};
  const pid = typeof state.Pid === 'number' && state.Pid > 0 ? state.Pid : undefined;
  const phase = stateOf(String(state.Status ?? ''));
  return {
    image: textAt(container.ImageName) ?? '',
    imageId: textAt(container.Image) ?? '',
    labels: stringMap(config.Labels),
    annotations: stringMap(config.Annotations),
    state: phase,
    pid: phase === 'running' ? pid : undefined,
    exitCode: phase === 'ended' && typeof state.ExitCode === 'number' ? state.ExitCode : undefined,
    startedAt: timeAt(state.StartedAt),
    finishedAt: timeAt(state.FinishedAt),
  };
}

/** Podman's states: `libpod/define/containerstate.go`. */
function stateOf(status: string): ContainerInfo['state'] {
  switch (status) {
    case 'running':
    case 'paused':
    case 'stopping':
      return 'running';
    case 'exited':
    case 'stopped':
    case 'removing':
      return 'ended';
    default:
      return 'starting';
  }
}

function timeAt(value: unknown): string | undefined {
  const text = textAt(value);
  if (text === undefined || text === ZERO_TIME || Number.isNaN(Date.parse(text))) return undefined;
  return new Date(text).toISOString();
}

function textAt(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function stringMap(value: unknown): Record<string, string> {
  if (!isObject(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter(
      (entry): entry is [string, string] => typeof entry[1] === 'string',
    ),
  );
}

function objectAt(value: unknown, field: string): Record<string, unknown> {
  if (isObject(value)) return value;
  throw decodeError(field, 'it is no object');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function decodeError(field: string, message: string, cause?: unknown): DecodeError {
  return new DecodeError(message, { protocol: 'podman inspect', field, cause });
}
