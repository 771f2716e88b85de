/** The store without a disk: for tests, and for what may be lost with the process. */
import type { Clock } from '#lib/clock.ts';
import type { Journal } from '../journal.ts';
import { JournaledStore } from '../journaled-store.ts';
import { Mvcc } from '../mvcc.ts';
import type { Store } from '../port.ts';

export interface MemoryStoreOptions {
  readonly clock?: Clock;
  /** Revisions of history kept without being asked; see `MAX_HISTORY_REVISIONS`. */
  readonly historyRevisions?: number;
}

/** An empty store in memory. Everything of the port holds but durability. */
export function openMemoryStore(options: MemoryStoreOptions = {}): Store {
  return new JournaledStore(new Mvcc(), noJournal, options);
}

const noJournal: Journal = {
  commit: () => Promise.resolve(),
  [Symbol.asyncDispose]: () => Promise.resolve(),
};
