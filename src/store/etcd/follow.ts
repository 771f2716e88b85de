/**
 * Loads a mirror and keeps it up to date, across members that die, connections that break and compactions that come too
 * early.
 */
import { Backoff } from '#lib/backoff.ts';
import { type Clock, pause } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { EtcdAnswerTooLargeError, isCompacted } from './errors.ts';
import {
  decodeRange,
  decodeWatch,
  type EtcdEntry,
  METHODS,
  rangeRequest,
  watchRequest,
} from './messages.ts';
import type { Mirror, MirrorSnapshot } from './mirror.ts';
import type { EtcdTransport } from './transport.ts';

/** Entries asked for at once; fewer when they turn out to be large. */
const MAX_PAGE_ENTRIES = 1000;
/** A snapshot that is compacted away while it is loaded is begun again; in a row that means somebody compacts in a loop. */
const MAX_LOAD_ATTEMPTS = 10;
/** The first answer of a watch must come in this time: a member that is cut off takes the request and says nothing. */
const WATCH_CREATED_MS = 3_000;
const LOAD_TIMEOUT_MS = 60_000;

/** The start of the watch is compacted: what lies between is lost to us. */
export class FellBehindError extends Error {
  readonly code = 'FELL_BEHIND' as const;
}

/**
 * Reads the state at the oldest revision that is still to be had, but no older than wanted.
 * @throws EtcdError, EtcdConnectionError
 */
export async function loadSnapshot(
  transport: EtcdTransport,
  options: {
    readonly prefix: string;
    readonly revisionOffset: number;
    readonly historyRevisions: number;
    readonly signal: AbortSignal;
  },
): Promise<MirrorSnapshot> {
  const { prefix, revisionOffset, historyRevisions, signal } = options;
  const newest = async () =>
    decodeRange(
      await transport.call(METHODS.range, rangeRequest({ prefix, limit: 1, revision: 0 }), {
        signal,
      }),
    ).revision;
  let etcdRevision = Math.max(revisionOffset, (await newest()) - historyRevisions);
  for (let attempt = 1; ; attempt++) {
    try {
      const entries = await readAll(transport, { prefix, etcdRevision, signal });
      return { etcdRevision, entries };
    } catch (error) {
      if (!isCompacted(error) || attempt >= MAX_LOAD_ATTEMPTS) throw error;
      etcdRevision = Math.max(etcdRevision, await compactRevisionOf(transport, signal));
      // Somebody compacts right behind us: begin with the present.
      if (attempt > 2) etcdRevision = await newest();
    }
  }
}

async function readAll(
  transport: EtcdTransport,
  options: { prefix: string; etcdRevision: number; signal: AbortSignal },
): Promise<EtcdEntry[]> {
  const { prefix, etcdRevision: revision, signal } = options;
  const entries: EtcdEntry[] = [];
  let limit = MAX_PAGE_ENTRIES;
  for (;;) {
    const after = entries.at(-1)?.key;
    try {
      const request = rangeRequest({ prefix, after, limit, revision });
      const timeoutMs = LOAD_TIMEOUT_MS;
      const page = decodeRange(await transport.call(METHODS.range, request, { signal, timeoutMs }));
      for (const entry of page.entries) if (entry.key !== prefix) entries.push(entry);
      if (!page.more || page.entries.length === 0) return entries;
    } catch (error) {
      if (!(error instanceof EtcdAnswerTooLargeError) || limit === 1) throw error;
      limit = Math.ceil(limit / 8);
    }
  }
}

/** The oldest revision that can be read. etcd tells it only to a watch that begins too early. */
async function compactRevisionOf(transport: EtcdTransport, signal: AbortSignal): Promise<number> {
  const found = new AbortController();
  const limit = AbortSignal.timeout(WATCH_CREATED_MS);
  let revision = 0;
  try {
    await transport.stream(METHODS.watch, watchRequest(1), {
      signal: AbortSignal.any([signal, limit, found.signal]),
      onMessage: (message) => {
        const answer = decodeWatch(message);
        if (answer.created && !answer.canceled) return;
        // Events say that nothing is compacted.
        revision = answer.compactRevision;
        found.abort();
      },
    });
  } catch (error) {
    if (!found.signal.aborted) throw error;
  }
  return revision;
}

export interface FollowOptions {
  readonly transport: EtcdTransport;
  readonly revisionOffset: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly mirror: () => Mirror;
  /** Puts a newly loaded mirror in the place of one that cannot be carried on. */
  readonly reload: () => Promise<void>;
  /** Called with what ends the watch now under way. */
  readonly onWatch: (interrupt: (reason: Error) => void) => void;
}

/** Runs until the signal is aborted. Never rejects. */
export async function followEtcd(options: FollowOptions): Promise<void> {
  const { transport, clock, signal, log, mirror, reload } = options;
  const backoff = new Backoff({ minMs: 20, maxMs: 1_000 });
  let quiet = false;
  while (!signal.aborted) {
    const endpoint = transport.currentEndpoint;
    try {
      await watchOnce(options, mirror(), () => {
        backoff.reset();
        if (quiet) log.info({ endpoint }, 'etcd: the watch goes on');
        quiet = false;
      });
    } catch (error) {
      if (signal.aborted) return;
      if (!quiet)
        log.warn({ endpoint, reason: explainError(error) }, 'etcd: the watch ended, trying again');
      quiet = true;
      // A message that is too long to be read would be so again: the state can be had in smaller pieces.
      if (error instanceof FellBehindError || error instanceof EtcdAnswerTooLargeError) {
        try {
          await reload();
          continue;
        } catch (cause) {
          log.warn({ reason: explainError(cause) }, 'etcd: cannot load the state');
        }
      }
      transport.passOver(endpoint);
    }
    await pause(clock, backoff.next(), signal);
  }
}

async function watchOnce(
  { transport, revisionOffset, signal, onWatch }: FollowOptions,
  mirror: Mirror,
  onCreated: () => void,
): Promise<void> {
  const interrupt = new AbortController();
  onWatch((reason) => interrupt.abort(reason));
  const tooQuiet = setTimeout(
    () => interrupt.abort(new Error('the member did not begin the watch')),
    WATCH_CREATED_MS,
  );
  // From the revision that is known already, not the one behind it: if just that one has been compacted, etcd would
  // leave out its deletions without a word. As it is, it refuses.
  const start = mirror.revision + revisionOffset;
  try {
    await transport.stream(METHODS.watch, watchRequest(start), {
      signal: AbortSignal.any([signal, interrupt.signal]),
      onMessage: (message) => {
        const answer = decodeWatch(message);
        // Our own writes have gone on while the watch was not there yet: it can begin where they are.
        if (answer.compactRevision > 0 && mirror.revision + revisionOffset > start)
          throw new Error(`revision ${start} was compacted before the watch had begun`);
        if (answer.compactRevision > 0)
          throw new FellBehindError(
            `revision ${start} is compacted, history starts after ${answer.compactRevision}`,
          );
        if (answer.canceled) throw new Error(`etcd cancelled the watch: ${answer.reason}`);
        if (answer.created) {
          clearTimeout(tooQuiet);
          onCreated();
        }
        mirror.take(answer.events);
      },
    });
  } catch (error) {
    throw interrupt.signal.aborted ? interrupt.signal.reason : error;
  } finally {
    clearTimeout(tooQuiet);
  }
}
