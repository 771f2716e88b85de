/** Time as a port: the real clock, and one for tests that moves only when told. */

export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /**
   * Whole milliseconds since some moment, by a clock that nobody sets: how long something lasts is counted with it, and not with
   * the time of day, which jumps.
   */
  elapsed(): number;
  /** Calls back once after `delayMs`; the returned function cancels. */
  schedule(delayMs: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  // Whole ones, as timers want them.
  elapsed: () => Math.floor(performance.now()),
  schedule(delayMs, callback) {
    if (delayMs <= 0) {
      // A timer waits for a millisecond at least.
      const immediate = setImmediate(callback);
      return () => clearImmediate(immediate);
    }
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

/**
 * The time of day of now, moved on by the clock that nobody sets: for moments that are compared with each other, and are kept
 * or told as times of day as well.
 */
export function steady(clock: Clock): Clock {
  const startMs = clock.now() - clock.elapsed();
  return {
    now: () => startMs + clock.elapsed(),
    elapsed: () => clock.elapsed(),
    schedule: (delayMs, callback) => clock.schedule(delayMs, callback),
  };
}

export class FakeClock implements Clock {
  #elapsed: number;
  /** What was set since the start. */
  #offset = 0;
  #timers: { at: number; callback: () => void }[] = [];
  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#elapsed = startMs;
  }
  now(): number {
    return this.#elapsed + this.#offset;
  }
  elapsed(): number {
    return this.#elapsed;
  }
  /** Sets the time of day, forward or back. No timer falls due. */
  jump(ms: number): void {
    this.#offset += ms;
  }
  schedule(delayMs: number, callback: () => void): () => void {
    const timer = { at: this.#elapsed + delayMs, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((t) => t !== timer);
    };
  }
  /** Moves time forward and runs, in order, what falls due. */
  advance(ms: number): void {
    const end = this.#elapsed + ms;
    for (;;) {
      const due = this.#timers.filter((t) => t.at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((t) => t !== due);
      this.#elapsed = Math.max(this.#elapsed, due.at);
      due.callback();
    }
    this.#elapsed = end;
  }
}

/** Resolves after `ms`, or rejects with the signal's reason if it is aborted first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** Resolves after `delayMs` on the clock, or at once when the signal is aborted: the caller looks at the signal itself. */
export function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.schedule(delayMs, done);
    signal.addEventListener('abort', done, { once: true });
  });
}
