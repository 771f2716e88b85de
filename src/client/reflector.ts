/**
 * Keeps a sink equal to the server's objects of one kind: list, then watch from the list's resource version.
 *
 *         ┌────────────── expired (410), or an event out of nowhere ─────────────┐
 *         ▼                                                                      │
 *   list (pages) ──► sink.replace() ──► watch from last version ──► sink.apply() ┘
 *                                          ▲               │
 *                                          └── cut, ended ─┘  (back-off, last version kept)
 *
 * The last version moves only with an event or bookmark that is in the sink, so that a cut at any byte loses nothing:
 * the server sends again what was not taken. It is an opaque text: never compared but for equality.
 */
import type { KindRef } from '#api/kind.ts';
import type { KubeObject, WatchEvent } from '#api/meta.ts';
import { Backoff } from '#lib/backoff.ts';
import { type Clock, pause } from '#lib/clock.ts';
import { ApiError, DecodeError, explainError, isExpired } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { ApiClient } from './port.ts';

/** Where a reflector writes. Called synchronously, in the order of the server's history. */
export interface ReflectorSink<T extends KubeObject> {
  /** The complete state; what is not in it does not exist any more. */
  replace(objects: readonly T[]): void;
  apply(event: { type: 'ADDED' | 'MODIFIED' | 'DELETED'; object: T }): void;
  /** The watch came up or went down. */
  setConnected(isConnected: boolean): void;
}

export interface ReflectorOptions {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
}

/** Objects in a page of a list: bounds what a server must hold for one answer; upstream clients use the same. */
const MAX_PAGE_OBJECTS = 500;
/** Pages in a list: 50 million objects. A server whose `continue` never ends must not keep us for ever. */
const MAX_LIST_PAGES = 100_000;
/** A watch lives 5 to 10 minutes, spread, so that the watches of many clients do not end together. */
const WATCH_MIN_SECONDS = 300;
const WATCH_SPREAD_SECONDS = 300;
/** How much longer than the server promised a silent watch is believed in. */
const WATCH_GRACE_MS = 30_000;
/** A watch that ends sooner than this without an event is a failure: else a broken proxy makes a tight loop. */
const WATCH_LEAST_LIFE_MS = 1_000;
const BACKOFF_MIN_MS = 100;
/** Short enough that a restarted server soon serves everybody, long enough that thousands of clients do not drown it. */
const BACKOFF_MAX_MS = 10_000;

/** Runs until the signal is aborted; resolves then. Never rejects: every failure is logged and tried again. */
export async function runReflector<T extends KubeObject>(
  client: ApiClient,
  kind: KindRef<T>,
  sink: ReflectorSink<T>,
  options: ReflectorOptions,
): Promise<void> {
  const { signal, log, clock, random = Math.random } = options;
  const backoff = new Backoff({ minMs: BACKOFF_MIN_MS, maxMs: BACKOFF_MAX_MS, random });
  let version: string | undefined;
  while (!signal.aborted) {
    try {
      version ??= await listInto(client, kind, sink, options);
      const watch = await watchInto(client, kind, sink, { ...options, random, version });
      version = watch.version;
      if (watch.wasUseful && !(watch.failure instanceof DecodeError)) backoff.reset();
      if (watch.failure !== undefined) throw watch.failure;
      if (watch.wasUseful) continue;
      log.debug({ kind: kind.kind }, 'watch ended at once');
    } catch (error) {
      if (signal.aborted) return;
      // What cannot be read would be sent again from the same version: only a list leads past it.
      if (isExpired(error) || error instanceof DecodeError) version = undefined;
      logFailure(log, kind, error);
    }
    await pause(clock, backoff.next(), signal);
  }
}

/** Lists page by page and puts the whole into the sink. @returns the version to watch from */
async function listInto<T extends KubeObject>(
  client: ApiClient,
  kind: KindRef<T>,
  sink: ReflectorSink<T>,
  options: ReflectorOptions,
): Promise<string> {
  const { signal } = options;
  const selection = selectionOf(options);
  const objects: T[] = [];
  let position: string | undefined;
  for (let page = 0; page < MAX_LIST_PAGES; page++) {
    const list = await client.list(kind, {
      ...selection,
      signal,
      limit: MAX_PAGE_OBJECTS,
      ...(position === undefined ? {} : { continue: position }),
    });
    signal.throwIfAborted();
    for (const item of list.items ?? []) objects.push(item);
    position = list.metadata.continue;
    if (position !== undefined && position !== '') continue;
    sink.replace(objects);
    return list.metadata.resourceVersion;
  }
  throw new Error(
    `Cannot list ${kind.resource}: the list did not end after ${MAX_LIST_PAGES} pages`,
  );
}

interface WatchOutcome {
  /** The version to go on from. */
  readonly version: string;
  /** Whether it lived long enough, or brought something: then the next one may follow at once. */
  readonly wasUseful: boolean;
  readonly failure: unknown;
}

/** Watches until the stream ends in any way, which is told and not thrown, because the version is needed all the same. */
async function watchInto<T extends KubeObject>(
  client: ApiClient,
  kind: KindRef<T>,
  sink: ReflectorSink<T>,
  options: ReflectorOptions & { random: () => number; version: string },
): Promise<WatchOutcome> {
  const { signal, clock, random } = options;
  let { version } = options;
  let openedAtMs: number | undefined;
  let sawEvent = false;
  let failure: unknown;
  const timeoutSeconds = WATCH_MIN_SECONDS + Math.floor(random() * WATCH_SPREAD_SECONDS);
  const attempt = new AbortController();
  const stop = () => attempt.abort(signal.reason);
  // A listener of the list's changes may have ended us already.
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  const cancelGuard = clock.schedule(timeoutSeconds * 1000 + WATCH_GRACE_MS, () =>
    attempt.abort(new Error('the server did not end the watch when it should have')),
  );
  try {
    const events = client.watch(kind, {
      ...selectionOf(options),
      resourceVersion: version,
      timeoutSeconds,
      signal: attempt.signal,
      onOpen() {
        openedAtMs = clock.elapsed();
        sink.setConnected(true);
      },
    });
    for await (const event of events) {
      signal.throwIfAborted();
      version = take(event, sink);
      sawEvent = true;
    }
  } catch (error) {
    failure = error;
  } finally {
    cancelGuard();
    signal.removeEventListener('abort', stop);
    sink.setConnected(false);
  }
  const isLongLived =
    openedAtMs !== undefined && clock.elapsed() - openedAtMs >= WATCH_LEAST_LIFE_MS;
  return { version, wasUseful: sawEvent || isLongLived, failure };
}

/** Puts one event into the sink. @returns its version @throws ApiError for an ERROR event */
function take<T extends KubeObject>(event: WatchEvent<T>, sink: ReflectorSink<T>): string {
  if (event.type === 'ERROR') {
    const { code = 500, reason = 'InternalError', message = 'the watch failed' } = event.object;
    throw new ApiError(code, reason, message, { details: event.object.details });
  }
  if (event.type !== 'BOOKMARK') sink.apply({ type: event.type, object: event.object });
  const version = event.object.metadata.resourceVersion;
  if (version === undefined || version === '')
    throw new ApiError(410, 'Expired', `the server sent a ${event.type} event without a version`);
  return version;
}

function selectionOf(options: ReflectorOptions) {
  const { namespace, labelSelector, fieldSelector } = options;
  return {
    ...(namespace === undefined ? {} : { namespace }),
    ...(labelSelector === undefined ? {} : { labelSelector }),
    ...(fieldSelector === undefined ? {} : { fieldSelector }),
  };
}

function logFailure(log: Logger, kind: KindRef, error: unknown): void {
  const fields = { kind: kind.kind, reason: explainError(error) };
  if (isExpired(error)) log.info(fields, 'watch expired, listing again');
  else if (error instanceof ApiError)
    log.warn(fields, 'the API refused a list or watch, will retry');
  else log.warn(fields, 'lost the connection to the API, will retry');
}
