/**
 * Work by key: a key that was added is worked on soon, never twice at the same time, and again if it was added
 * meanwhile. Any number of `add()` calls in one turn of the event loop become one run: a change costs what it touches.
 *
 *   add(k) ─► waiting ─► running ─► done
 *               ▲          │ failed: after a back-off of its own
 *               └──────────┘ added while running: at once
 */
import { Backoff } from './backoff.ts';
import { type Clock, systemClock } from './clock.ts';
import { explainError } from './errors.ts';
import type { Logger } from './log.ts';

export interface WorkQueueOptions {
  name: string;
  log: Logger;
  clock?: Clock;
  /** How many keys are worked on at the same time. */
  concurrency?: number;
  /** Back-off of a key that fails. */
  retryMinMs?: number;
  retryMaxMs?: number;
}

export class WorkQueue implements AsyncDisposable {
  readonly #work: (key: string) => Promise<void> | void;
  readonly #options: WorkQueueOptions;
  readonly #clock: Clock;
  readonly #concurrency: number;
  /** In order of arrival. */
  readonly #waiting = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();
  /** Only keys whose last run failed. */
  readonly #failures = new Map<string, { backoff: Backoff; cancel: (() => void) | undefined }>();
  #isPumpDue = false;
  #closed = false;
  #idleWaiters: (() => void)[] = [];

  constructor(work: (key: string) => Promise<void> | void, options: WorkQueueOptions) {
    this.#work = work;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#concurrency = options.concurrency ?? 8;
  }

  /** Asks for a run for this key; returns at once. A key in back-off runs at once, too: something has changed. */
  add(key: string): void {
    if (this.#closed) return;
    this.#waiting.add(key);
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    setImmediate(() => {
      this.#isPumpDue = false;
      this.#pump();
    });
  }

  /** Keys that wait, run, or will be tried again. */
  get size(): number {
    return new Set([...this.#waiting, ...this.#running.keys(), ...this.#failures.keys()]).size;
  }

  /** Keys whose last run failed. */
  get failing(): readonly string[] {
    return [...this.#failures.keys()];
  }

  /** Resolves when nothing waits, runs or is to be tried again. */
  idle(): Promise<void> {
    if (this.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Resolves when what runs has ended; nothing runs afterwards. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#waiting.clear();
    for (const { cancel } of this.#failures.values()) cancel?.();
    this.#failures.clear();
    await Promise.all(this.#running.values());
  }

  #pump(): void {
    if (this.#closed) return;
    for (const key of this.#waiting) {
      if (this.#running.size >= this.#concurrency) return;
      // Stays waiting; its end pumps again.
      if (this.#running.has(key)) continue;
      this.#waiting.delete(key);
      this.#running.set(key, this.#run(key));
    }
  }

  async #run(key: string): Promise<void> {
    // Work that throws at once must not end before #pump() has noted that it runs.
    await Promise.resolve();
    this.#failures.get(key)?.cancel?.();
    try {
      await this.#work(key);
      this.#failures.delete(key);
    } catch (error) {
      this.#retryLater(key, error);
    } finally {
      this.#running.delete(key);
    }
    this.#pump();
    if (this.size > 0) return;
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  #retryLater(key: string, error: unknown): void {
    if (this.#closed) return;
    const { name, log, retryMinMs = 10, retryMaxMs = 30_000 } = this.#options;
    const failure = this.#failures.get(key) ?? {
      backoff: new Backoff({ minMs: retryMinMs, maxMs: retryMaxMs }),
      cancel: undefined,
    };
    const delayMs = failure.backoff.next();
    log.warn({ key, reason: explainError(error), delayMs }, `${name}: failed, will retry`);
    failure.cancel = this.#clock.schedule(delayMs, () => {
      failure.cancel = undefined;
      this.add(key);
    });
    this.#failures.set(key, failure);
  }
}
