/**
 * Runs a level-based `sync`, one at a time: any number of `trigger()` calls while one runs lead to one more run.
 *
 * The dirty mark is cleared before `sync` reads its input and set again on failure; the other order would lose
 * an update that arrives during an await.
 */
import { Backoff } from './backoff.ts';
import type { Clock } from './clock.ts';
import { systemClock } from './clock.ts';
import { explainError } from './errors.ts';
import type { Logger } from './log.ts';

export interface SyncLoopOptions {
  name: string;
  log: Logger;
  clock?: Clock;
  /** Least time between the end of a run and the next, so that a storm of changes becomes few runs. */
  minIntervalMs?: number;
  /** A run at least this often, as backstop for lost events. 0 is never. */
  resyncMs?: number;
}

export class SyncLoop implements AsyncDisposable {
  readonly #options: SyncLoopOptions;
  readonly #sync: () => Promise<void> | void;
  readonly #clock: Clock;
  readonly #backoff = new Backoff({ minMs: 50, maxMs: 10_000 });
  #dirty = false;
  #running: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  #closed = false;
  #waiters: (() => void)[] = [];
  /** Text of the last failure; `undefined` while the last run succeeded. */
  lastError: string | undefined;
  /** Count of completed runs, failed ones included. */
  runs = 0;

  constructor(sync: () => Promise<void> | void, options: SyncLoopOptions) {
    this.#sync = sync;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Asks for a run; returns at once. */
  trigger(): void {
    if (this.#closed) return;
    this.#dirty = true;
    if (this.#running === undefined) this.#arm(0);
  }

  /** Asks for a run and resolves when one that started after this call has ended well. */
  settled(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      this.trigger();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#cancelTimer?.();
    await this.#running;
  }

  #arm(delayMs: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#clock.schedule(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#running = this.#run().finally(() => {
        this.#running = undefined;
        this.#afterRun();
      });
    });
  }

  async #run(): Promise<void> {
    const waiters = this.#waiters;
    this.#waiters = [];
    this.#dirty = false;
    try {
      await this.#sync();
      this.lastError = undefined;
      this.#backoff.reset();
      for (const resolve of waiters) resolve();
    } catch (error) {
      this.#dirty = true;
      this.#waiters.unshift(...waiters);
      this.lastError = explainError(error);
      // What fails in a known way is told in words; a stack is for faults of our own.
      const known = error instanceof Error && 'code' in error;
      this.#options.log.error(
        known ? { reason: this.lastError } : { err: error },
        `${this.#options.name}: sync failed, will retry`,
      );
    } finally {
      this.runs++;
    }
  }

  #afterRun(): void {
    if (this.#closed) return;
    if (this.lastError !== undefined) this.#arm(this.#backoff.next());
    else if (this.#dirty) this.#arm(this.#options.minIntervalMs ?? 0);
    else if ((this.#options.resyncMs ?? 0) > 0) this.#arm(this.#options.resyncMs ?? 0);
  }
}
