/** A watch on its way to a client: frames to lines of JSON, bookmarks, signs of life, the end. */
import type { KindDefinition } from '#api/kind.ts';
import { expired, statusOf } from '#api/machinery/status.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { CompactedError, FutureRevisionError, LaggedError } from '#store/port.ts';
import { toApiError } from './errors.ts';
import type { Presenter } from './present.ts';
import type { WatchFrame } from './registry/watch.ts';

/**
 * A quiet watch sends an empty line this often. Clients skip it, and it keeps alive what counts seconds without bytes:
 * `@kubernetes/client-node` gives up after 30, load balancers after 60. A dead client is noticed by it too.
 */
export const SIGN_OF_LIFE_MS = 15_000;
/** As kube-apiserver: a client that resumes has at most the changes of a minute to read again. */
const BOOKMARK_MS = 60_000;
/** A client that names no time gets between half an hour and an hour, as upstream: clients spread over servers again. */
const MIN_WATCH_MS = 30 * 60_000;
/** The longest time a client can ask for. */
const MAX_WATCH_MS = 24 * 60 * 60_000;

export interface WatchStreamOptions {
  readonly kind: KindDefinition;
  readonly presenter: Presenter;
  /** Only clients that asked may get bookmarks: to others they look like objects. */
  readonly allowBookmarks: boolean;
  readonly clock: Clock;
  /** Called when the client did not keep up. */
  readonly onLagged: () => void;
}

/**
 * How long a watch may last.
 * @param timeoutSeconds as the client asked; 0 or missing leaves it to the server
 * @param random a number in [0, 1)
 */
export function watchDurationMs(timeoutSeconds: number | undefined, random: () => number): number {
  if (timeoutSeconds !== undefined && timeoutSeconds > 0)
    return Math.min(timeoutSeconds * 1000, MAX_WATCH_MS);
  return MIN_WATCH_MS * (1 + random());
}

/** Lines to send. An error becomes a last `ERROR` event, by which clients know to resume or to list again. */
export async function* watchStream(
  frames: AsyncIterable<readonly WatchFrame[]>,
  options: WatchStreamOptions,
): AsyncGenerator<string> {
  const { clock } = options;
  let lastSentMs = clock.elapsed();
  let lastBookmarkMs = clock.elapsed();
  try {
    for await (const batch of frames) {
      let lines = '';
      for (const frame of batch) {
        if (frame.type === 'PROGRESS') {
          const isDue = options.allowBookmarks && clock.elapsed() - lastBookmarkMs >= BOOKMARK_MS;
          if (isDue) {
            lastBookmarkMs = clock.elapsed();
            lines += bookmarkLine(options, frame.revision, false);
          } else if (clock.elapsed() - lastSentMs >= SIGN_OF_LIFE_MS) lines += '\n';
        } else if (frame.type === 'INITIAL_END') {
          if (options.allowBookmarks) lines += bookmarkLine(options, frame.revision, true);
        } else
          lines += `{"type":"${frame.type}","object":${options.presenter.watchObject(frame.object)}}\n`;
      }
      if (lines === '') continue;
      lastSentMs = clock.elapsed();
      yield lines;
    }
  } catch (error) {
    if (error instanceof LaggedError) options.onLagged();
    yield `${JSON.stringify({ type: 'ERROR', object: statusOf(watchError(error)) })}\n`;
  }
}

function bookmarkLine(options: WatchStreamOptions, revision: number, endsInitial: boolean): string {
  const object = options.presenter.bookmark(revision, endsInitial);
  return `${JSON.stringify({ type: 'BOOKMARK', object })}\n`;
}

/** What a client can only cure by listing again is 410 Expired, whatever the store calls it. */
function watchError(error: unknown) {
  const mustListAgain =
    error instanceof CompactedError ||
    error instanceof LaggedError ||
    // A revision that has not happened is one of a store that was restored from a copy.
    error instanceof FutureRevisionError;
  return mustListAgain
    ? expired(`too old resource version: ${explainError(error)}`)
    : toApiError(error);
}
