/**
 * The order of transactions that name a common key: those that write it wait for all before, those that only compare it
 * wait for the last that writes it. So many creations in one namespace, which all compare the namespace, go side by side.
 */

interface Users {
  writer: Promise<unknown> | undefined;
  readonly readers: Set<Promise<unknown>>;
}

export class KeyOrder {
  readonly #users = new Map<string, Users>();

  /** Keys that transactions under way name. */
  get size(): number {
    return this.#users.size;
  }

  /** Runs `action` when all earlier transactions that it must follow have ended, well or badly. */
  async run<T>(
    keys: { readonly compared: Iterable<string>; readonly written: Iterable<string> },
    action: () => Promise<T>,
  ): Promise<T> {
    const written = new Set(keys.written);
    const compared = new Set([...keys.compared].filter((key) => !written.has(key)));
    const before = [
      ...[...written].flatMap((key) => {
        const { writer, readers } = this.#users.get(key) ?? { writer: undefined, readers: [] };
        return [...(writer === undefined ? [] : [writer]), ...readers];
      }),
      ...[...compared].flatMap((key) => this.#users.get(key)?.writer ?? []),
    ];
    const run = before.length === 0 ? action() : Promise.allSettled(before).then(action);
    for (const key of compared) this.#of(key).readers.add(run);
    for (const key of written) {
      const users = this.#of(key);
      // Who comes next waits for this one, which waits for the readers.
      users.writer = run;
      users.readers.clear();
    }
    try {
      return await run;
    } finally {
      for (const key of [...compared, ...written]) this.#leave(key, run);
    }
  }

  #of(key: string): Users {
    const known = this.#users.get(key);
    if (known !== undefined) return known;
    const users: Users = { writer: undefined, readers: new Set() };
    this.#users.set(key, users);
    return users;
  }

  #leave(key: string, run: Promise<unknown>): void {
    const users = this.#users.get(key);
    if (users === undefined) return;
    users.readers.delete(run);
    if (users.writer === run) users.writer = undefined;
    if (users.writer === undefined && users.readers.size === 0) this.#users.delete(key);
  }
}
