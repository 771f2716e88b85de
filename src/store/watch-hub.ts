/**
 * All watches of a store. A watch is a place in the history that all watches share, not a queue of its own: a slow
 * consumer costs nothing, and is cut off when the changes it has not taken are compacted.
 *
 * A watch that waits is woken only by a change under its prefix; for any other its place just moves on, so that it
 * costs one string comparison.
 */
import type { Clock } from '#lib/clock.ts';
import type { Mvcc } from './mvcc.ts';
import { changesUnder } from './mvcc.ts';
import type { WatchBatch } from './port.ts';
import { CompactedError, FutureRevisionError, LaggedError } from './port.ts';

interface Watch {
  readonly prefix: string;
  /** Everything up to here was taken, or is not under the prefix. */
  revision: number;
  /** Set while it waits: ends the wait. */
  wake: (() => void) | undefined;
}

export class WatchHub implements Disposable {
  readonly #state: Mvcc;
  readonly #clock: Clock;
  readonly #watches = new Set<Watch>();
  /** Applied to the state, and not yet told: what was written in one turn of the event loop. */
  #untold: WatchBatch[] = [];
  #closed = false;
  /** The newest revision of a state that takes the place of this one, which is not carried on. */
  #replacedAt: number | undefined;

  constructor(state: Mvcc, clock: Clock) {
    this.#state = state;
    this.#clock = clock;
  }

  /** Tells the watches what was just applied to the state, once the event loop has nothing better to do. */
  notifySoon(records: readonly WatchBatch[]): void {
    if (records.length === 0) return;
    if (this.#untold.length === 0) setImmediate(() => this.notify());
    this.#untold.push(...records);
  }

  /** Tells the watches what they have not been told, and these. */
  notify(applied: readonly WatchBatch[] = []): void {
    const records = [...this.#untold, ...applied];
    this.#untold = [];
    for (const watch of this.#watches) {
      if (watch.wake === undefined) continue;
      for (const record of records) {
        // Taken before it was told.
        if (record.revision <= watch.revision) continue;
        if (changesUnder(watch.prefix, record).events.length > 0) {
          watch.wake();
          break;
        }
        watch.revision = record.revision;
      }
    }
  }

  /** Ends all watches. */
  [Symbol.dispose](): void {
    this.#closed = true;
    for (const watch of this.#watches) watch.wake?.();
  }

  /** Ends all watches with `LaggedError`: what lies between this state and its successor is not known. */
  cutOff(successorRevision: number): void {
    this.#replacedAt = successorRevision;
    for (const watch of this.#watches) watch.wake?.();
  }

  /** As `Store.watch`. */
  async *watch(
    prefix: string,
    afterRevision: number,
    options: { signal: AbortSignal; progressMs?: number },
  ): AsyncGenerator<WatchBatch, void, undefined> {
    if (afterRevision < this.#state.compactRevision)
      throw new CompactedError(afterRevision + 1, this.#state.compactRevision);
    if (afterRevision > this.#state.revision)
      throw new FutureRevisionError(afterRevision, this.#state.revision);
    const watch: Watch = { prefix, revision: afterRevision, wake: undefined };
    const onAbort = () => watch.wake?.();
    options.signal.addEventListener('abort', onAbort);
    this.#watches.add(watch);
    try {
      while (!options.signal.aborted && !this.#closed) {
        const batch = this.#take(watch);
        if (batch.events.length > 0) yield batch;
        else if ((await this.#wait(watch, options.progressMs)) === 'idle')
          yield { revision: watch.revision, events: [] };
      }
    } finally {
      this.#watches.delete(watch);
      options.signal.removeEventListener('abort', onAbort);
    }
  }

  #take(watch: Watch): WatchBatch {
    if (this.#replacedAt !== undefined) throw new LaggedError(watch.revision, this.#replacedAt);
    if (watch.revision < this.#state.compactRevision)
      throw new LaggedError(watch.revision, this.#state.revision);
    const batch = this.#state.changesAfter(watch.prefix, watch.revision);
    watch.revision = batch.revision;
    return batch;
  }

  /** @returns `idle` if `progressMs` went by without anything to take */
  #wait(watch: Watch, progressMs: number | undefined): Promise<'woken' | 'idle'> {
    return new Promise((resolve) => {
      const end = (why: 'woken' | 'idle') => {
        watch.wake = undefined;
        cancelTimer?.();
        resolve(why);
      };
      const cancelTimer =
        progressMs === undefined
          ? undefined
          : this.#clock.schedule(progressMs, () => {
              this.notify();
              end('idle');
            });
      watch.wake = () => end('woken');
    });
  }
}
