/**
 * Deletes host links of containers together: a deletion keeps the kernel busy for tens of milliseconds, but no longer for
 * thirty links than for one.
 */
import type { NetworkStack } from '#linux/network/port.ts';

/** Each has a thread of Node's pool, which has four; what comes meanwhile goes with the next. */
const MAX_DELETIONS_IN_FLIGHT = 2;

export class LinkRemover {
  readonly #host: NetworkStack;
  /** Bounded by the calls that the agent handles at a time. */
  #waiting: { name: string; resolve: () => void; reject: (error: unknown) => void }[] = [];
  #inFlight = 0;
  #isScheduled = false;

  constructor(host: NetworkStack) {
    this.#host = host;
  }

  /** Resolves when the link is gone. Removing what is gone succeeds. @throws KernelError */
  remove(name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ name, resolve, reject });
      this.#schedule();
    });
  }

  #schedule(): void {
    const isFull = this.#inFlight >= MAX_DELETIONS_IN_FLIGHT;
    if (this.#isScheduled || isFull || this.#waiting.length === 0) return;
    this.#isScheduled = true;
    // After the calls that have come in meanwhile have got as far as this.
    setImmediate(() => {
      this.#isScheduled = false;
      void this.#flush();
    });
  }

  async #flush(): Promise<void> {
    const group = this.#waiting;
    this.#waiting = [];
    this.#inFlight++;
    try {
      const { links } = this.#host;
      const { gone, freed } = links.deleteAll(
        group.flatMap(({ name }) => links.get(name)?.index ?? []),
      );
      gone.then(
        () => {
          for (const { resolve } of group) resolve();
        },
        (error: unknown) => {
          for (const { reject } of group) reject(error);
        },
      );
      await freed;
    } catch (error) {
      for (const { reject } of group) reject(error);
    } finally {
      this.#inFlight--;
      this.#schedule();
    }
  }
}
