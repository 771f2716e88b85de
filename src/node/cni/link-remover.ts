/**
 * Deletes host links of containers together: the kernel waits tens of milliseconds for each deletion, and our thread with
 * it, but no longer for thirty than for one.
 */
import type { NetworkStack } from '#linux/network/port.ts';

export class LinkRemover {
  readonly #host: NetworkStack;
  /** Bounded by the calls that the agent handles at a time. */
  #waiting: { name: string; resolve: () => void; reject: (error: unknown) => void }[] = [];

  constructor(host: NetworkStack) {
    this.#host = host;
  }

  /** Resolves when the link is gone. Removing what is gone succeeds. @throws KernelError */
  remove(name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ name, resolve, reject });
      // After the calls that have come in meanwhile have got as far as this.
      if (this.#waiting.length === 1) setImmediate(() => this.#flush());
    });
  }

  #flush(): void {
    const group = this.#waiting;
    this.#waiting = [];
    try {
      const { links } = this.#host;
      links.deleteAll(group.flatMap(({ name }) => links.get(name)?.index ?? []));
      for (const { resolve } of group) resolve();
    } catch (error) {
      for (const { reject } of group) reject(error);
    }
  }
}
