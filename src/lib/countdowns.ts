/** Spans of time that run out. */
import type { Clock } from './clock.ts';

/** The longest that a timer of JavaScript can be set to; what lasts longer than these 24 days is over then. */
const MAX_TIMER_MS = 2 ** 31 - 1;

interface Countdown {
  readonly seconds: number;
  readonly cancel: () => void;
  isOver: boolean;
}

/**
 * Each span begins when it is first heard of and is counted by a timer, so that neither another machine's clock nor one
 * that is set changes how long it lasts.
 */
export class Countdowns implements Disposable {
  readonly #options: { readonly clock: Clock; readonly onOver: () => void };
  readonly #running = new Map<string, Countdown>();

  /** @param options.onOver called when one has run out: time to ask again */
  constructor(options: { readonly clock: Clock; readonly onOver: () => void }) {
    this.#options = options;
  }

  /**
   * @param wanted the seconds of each; what is not among them any more is forgotten, and another number begins anew
   * @returns those that have run out
   */
  follow(wanted: ReadonlyMap<string, number>): ReadonlySet<string> {
    for (const [name, { seconds, cancel }] of this.#running) {
      if (wanted.get(name) === seconds) continue;
      cancel();
      this.#running.delete(name);
    }
    const over = new Set<string>();
    for (const [name, seconds] of wanted) {
      const { isOver } = this.#running.get(name) ?? this.#begin(name, seconds);
      if (isOver) over.add(name);
    }
    return over;
  }

  [Symbol.dispose](): void {
    for (const { cancel } of this.#running.values()) cancel();
    this.#running.clear();
  }

  #begin(name: string, seconds: number): Countdown {
    const { clock, onOver } = this.#options;
    if (seconds <= 0) {
      const over = { seconds, cancel: () => {}, isOver: true };
      this.#running.set(name, over);
      return over;
    }
    const cancel = clock.schedule(Math.min(seconds * 1_000, MAX_TIMER_MS), () => {
      countdown.isOver = true;
      onOver();
    });
    const countdown: Countdown = { seconds, cancel, isOver: false };
    this.#running.set(name, countdown);
    return countdown;
  }
}
