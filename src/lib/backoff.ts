/**
 * Exponential back-off with full jitter in its upper half: delays of 1/2 to 1 of the current step.
 * Half is kept so that a retry never comes at once; the other half spreads a crowd of clients.
 */
export class Backoff {
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #stepMs: number;
  constructor(options: { minMs: number; maxMs: number; random?: () => number }) {
    this.#minMs = options.minMs;
    this.#maxMs = options.maxMs;
    this.#random = options.random ?? Math.random;
    this.#stepMs = options.minMs;
  }
  /** The next delay in milliseconds. */
  next(): number {
    const step = this.#stepMs;
    this.#stepMs = Math.min(this.#maxMs, step * 2);
    return step / 2 + (step / 2) * this.#random();
  }
  /** Call after a success. */
  reset(): void {
    this.#stepMs = this.#minMs;
  }
}
