/** The queries of single pods, for who asks to see them: nothing is collected of a pod that nobody follows. */
import type { LoggedQuery } from './server/request.ts';

export class QueryLog {
  readonly #switch: (pod: string, on: boolean) => void;
  readonly #listeners = new Map<string, Set<(query: LoggedQuery) => void>>();

  /** @param onOff called when the first follower of a pod comes and when its last goes */
  constructor(onOff: (pod: string, on: boolean) => void) {
    this.#switch = onOff;
  }

  /** @param pod `namespace/name` */
  follow(pod: string, listener: (query: LoggedQuery) => void): () => void {
    const listeners = this.#listeners.get(pod) ?? new Set();
    this.#listeners.set(pod, listeners);
    listeners.add(listener);
    if (listeners.size === 1) this.#switch(pod, true);
    return () => {
      if (!listeners.delete(listener) || listeners.size > 0) return;
      this.#listeners.delete(pod);
      this.#switch(pod, false);
    };
  }

  add(queries: readonly LoggedQuery[]): void {
    for (const query of queries)
      for (const listener of this.#listeners.get(query.pod) ?? []) listener(query);
  }
}
