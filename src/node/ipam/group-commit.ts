/**
 * Combines changes that arrive while an earlier write is under way into one next write: thirty containers that start
 * together cost a few writes of a block and not thirty in a row.
 */

/** A pure step from one state to the next, with an answer for its caller. The same state means nothing to write. */
export type Change<S, T> = (state: S) => { readonly block: S; readonly value: T };

interface Waiting<S> {
  readonly apply: (state: S) => S;
  /** Tells of the value while it is being written. */
  readonly chosen: () => void;
  readonly settle: (written: boolean) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * @typeParam S the state that is written as a whole
 * @see GroupCommit.change
 */
export class GroupCommit<S> {
  readonly #write: (apply: (state: S) => S) => Promise<boolean>;
  /** Bounded by the calls that the agent handles at a time. */
  #waiting: Waiting<S>[] = [];
  #isBusy = false;

  /**
   * @param write reads the state, applies the function and writes the result; may apply it several times when it loses
   *   races. Resolves to false if there is no such state any more
   */
  constructor(write: (apply: (state: S) => S) => Promise<boolean>) {
    this.#write = write;
  }

  /**
   * @param onChosen called with the value while it is being written. A write that loses a race ends with another
   * @returns the change's value once it is written; undefined if there is no such state any more
   */
  change<T>(change: Change<S, T>, onChosen?: (value: T) => void): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      let value: T | undefined;
      this.#waiting.push({
        apply: (state) => {
          const result = change(state);
          value = result.value;
          return result.block;
        },
        chosen: () => {
          if (value !== undefined) onChosen?.(value);
        },
        settle: (written) => resolve(written ? value : undefined),
        fail: reject,
      });
      if (!this.#isBusy) void this.#drain();
    });
  }

  async #drain(): Promise<void> {
    this.#isBusy = true;
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      let isTold = false;
      try {
        const written = await this.#write((state) => {
          const next = group.reduce((now, { apply }) => apply(now), state);
          // In the next turn: first the write must be on its way.
          if (!isTold)
            setImmediate(() => {
              for (const { chosen } of group) chosen();
            });
          isTold = true;
          return next;
        });
        for (const { settle } of group) settle(written);
      } catch (error) {
        for (const { fail } of group) fail(error);
      }
    }
    this.#isBusy = false;
  }
}
