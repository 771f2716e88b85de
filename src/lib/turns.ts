/** Lets pieces of synchronous work take turns with the event loop: between two of them it does whatever else is ready. */
export class Turns {
  /** Bounded by who uses it. */
  #waiting: (() => void)[] = [];

  /** Resolves in a turn of the event loop in which nobody else is let on. In order of arrival. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#waiting.length === 1) setImmediate(() => this.#letOne());
    });
  }

  #letOne(): void {
    const [first, ...others] = this.#waiting;
    this.#waiting = others;
    if (others.length > 0) setImmediate(() => this.#letOne());
    first?.();
  }
}
