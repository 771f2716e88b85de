/**
 * Lets work wait that nobody waits for. While calls come in they have the processors first; what has to follow each of
 * them is done in the lull after them, once for all.
 */
import type { Clock } from './clock.ts';

/** Calls that come closer together belong to one burst. */
const QUIET_MS = 10;
/** However long a burst is, what waits is done after so long. */
const MAX_WAIT_MS = 100;

interface Waiting {
  readonly deadlineMs: number;
  readonly callback: () => void;
}

export class Lull {
  readonly #clock: Clock;
  /** Bounded by who schedules: each has at most a few at a time. */
  readonly #waiting = new Set<Waiting>();
  #calls = 0;
  #lastCallMs = Number.NEGATIVE_INFINITY;
  #cancelTimer: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A call has come. @returns what its end has to call; once more does nothing */
  begin(): () => void {
    let isOver = false;
    this.#calls++;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#calls--;
      this.#lastCallMs = this.#clock.elapsed();
      if (this.#calls === 0) this.#arm();
    };
  }

  /**
   * Calls back once no call has been under way for {@link QUIET_MS}, counted from now at the earliest, and after
   * {@link MAX_WAIT_MS} in any case.
   * @returns a function that cancels
   */
  schedule(callback: () => void): () => void {
    const now = this.#clock.elapsed();
    const waiting = { deadlineMs: now + MAX_WAIT_MS, callback };
    this.#waiting.add(waiting);
    if (this.#calls === 0) this.#lastCallMs = now;
    if (this.#cancelTimer === undefined) this.#arm();
    return () => void this.#waiting.delete(waiting);
  }

  /** Resolves when {@link schedule} would call back. */
  next(): Promise<void> {
    return new Promise((resolve) => this.schedule(resolve));
  }

  /** Does what waits at once: somebody waits for it now. */
  end(): void {
    this.#run(() => true);
  }

  #arm(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const [first] = this.#waiting;
    if (first === undefined) return;
    const quietMs = this.#calls > 0 ? Number.POSITIVE_INFINITY : this.#lastCallMs + QUIET_MS;
    const atMs = Math.min(first.deadlineMs, quietMs);
    this.#cancelTimer = this.#clock.schedule(Math.max(0, atMs - this.#clock.elapsed()), () => {
      const now = this.#clock.elapsed();
      const isQuiet = this.#calls === 0 && now >= this.#lastCallMs + QUIET_MS;
      this.#run(({ deadlineMs }) => isQuiet || deadlineMs <= now);
    });
  }

  #run(isDue: (waiting: Waiting) => boolean): void {
    const due = [...this.#waiting].filter(isDue);
    for (const waiting of due) this.#waiting.delete(waiting);
    this.#arm();
    for (const { callback } of due) callback();
  }
}
