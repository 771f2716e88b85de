/** Requests to watch: parameters, limits, and the stream's life from the first line to the last. */
import { badRequest, tooManyRequests } from '#api/machinery/status.ts';
import type { Answer } from './exchange.ts';
import { JSON_TYPE } from './negotiation.ts';
import { parseRevision } from './registry/list.ts';
import { watchObjects } from './registry/watch.ts';
import { isTrue } from './request.ts';
import { type Call, integerOf, presenterOf } from './resource-call.ts';
import { createFilter } from './selectors.ts';
import { SIGN_OF_LIFE_MS, watchDurationMs, watchStream } from './watch-stream.ts';

/** When a user with too many watches may try again: some end every few minutes. */
const RETRY_AFTER_SECONDS = 30;

/** @throws ApiError 400 for parameters that make no sense, 429 if the user has too many watches */
export function handleWatch(call: Call): Answer {
  const { info, kind, options, exchange } = call;
  const { query } = info;
  const presenter = presenterOf(call);
  const filter = createFilter(kind, query);
  const resourceVersion = query.get('resourceVersion') ?? '';
  // Refused here, and not in the stream, where clients only look for what may pass.
  parseRevision(resourceVersion);
  const sendInitialEvents = readInitialEvents(query);
  const allowBookmarks = isTrue(query.get('allowWatchBookmarks') ?? 'false');
  const durationMs = watchDurationMs(integerOf(query, 'timeoutSeconds'), options.random);
  const release = options.watchSlots.take(exchange.principal.name);
  if (release === undefined)
    throw tooManyRequests(
      `"${exchange.principal.name}" has too many watches open; close some, or share them`,
      RETRY_AFTER_SECONDS,
    );
  const ended = options.metrics.watchStarted(kind);
  const timeout = new AbortController();
  const cancel = options.clock.schedule(durationMs, () => timeout.abort());
  const signal = AbortSignal.any([exchange.signal, timeout.signal]);
  const frames = watchObjects(kind, options.store, {
    namespace: info.namespace,
    ...(filter === undefined ? {} : { filter }),
    resourceVersion,
    sendInitialEvents,
    progressMs: SIGN_OF_LIFE_MS,
    signal,
  });
  const lines = watchStream(frames, {
    kind,
    presenter,
    allowBookmarks,
    clock: options.clock,
    onLagged: () => options.metrics.watchCut('lagged'),
  });
  let isOpen = true;
  const finish = () => {
    if (!isOpen) return;
    isOpen = false;
    cancel();
    release();
    ended();
  };
  // A generator that was never started runs no `finally`: a client that is gone before the first line ends here.
  signal.addEventListener('abort', finish, { once: true });
  const chunks = endingWith(lines, finish);
  return { type: 'stream', contentType: JSON_TYPE, chunks };
}

async function* endingWith<T>(items: AsyncIterable<T>, atEnd: () => void): AsyncGenerator<T> {
  try {
    yield* items;
  } finally {
    atEnd();
  }
}

function readInitialEvents(query: URLSearchParams): boolean {
  const match = query.get('resourceVersionMatch') ?? '';
  const wanted = query.get('sendInitialEvents');
  if (wanted === null) {
    if (match !== '')
      throw badRequest(
        'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
      );
    return false;
  }
  if (match !== 'NotOlderThan')
    throw badRequest('sendInitialEvents requires setting resourceVersionMatch to NotOlderThan');
  return isTrue(wanted);
}
