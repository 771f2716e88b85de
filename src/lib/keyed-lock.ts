/** Mutual exclusion by key for asynchronous work: calls with the same key run one after the other, in order of arrival. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  /** Runs `action` when all earlier calls with this key have ended, well or badly. */
  async run<T>(key: string, action: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const { promise: tail, resolve: release } = Promise.withResolvers<void>();
    this.#tails.set(key, tail);
    await before;
    try {
      return await action();
    } finally {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      release();
    }
  }

  /** Number of keys that are in use now. */
  get size(): number {
    return this.#tails.size;
  }
}
