/**
 * What a server keeps in memory of an etcd: the state under our prefix and its recent history, carried on by one watch.
 *
 * The watch is over *all* keys of the etcd, not only ours, because then every revision shows itself: the next one must
 * be the last one plus one. A repeated revision is dropped and a missing one is found out, whatever the reason.
 */
import type { Clock } from '#lib/clock.ts';
import { type HeldOp, holdEntry, holdValue } from '../held-entry.ts';
import { Mvcc } from '../mvcc.ts';
import type { StoreEntry, StoreEvent, WatchBatch } from '../port.ts';
import { WatchHub } from '../watch-hub.ts';
import type { EtcdEntry, EtcdEvent } from './messages.ts';

/** All keys of ours at a revision; history begins there. */
export interface MirrorSnapshot {
  readonly etcdRevision: number;
  readonly entries: readonly EtcdEntry[];
}

/** The watch left out a revision. */
export class MissingRevisionError extends Error {
  readonly code = 'MISSING_REVISION' as const;
}

export interface MirrorOptions {
  readonly prefix: string;
  readonly revisionOffset: number;
  readonly historyRevisions: number;
  readonly historyBytes: number;
  readonly clock: Clock;
}

/** Least revisions that are forgotten at once: small, so that no single event pays for many. */
const COMPACTION_STEP_REVISIONS = 64;
/** While the watch stands still our own writes go on; those beyond this come by the watch, as others' do. */
const MAX_OWN = 1_000;

export class Mirror {
  readonly #options: MirrorOptions;
  readonly state: Mvcc;
  readonly watches: WatchHub;
  /** By revision, what this process wrote and what cannot be taken yet. */
  readonly #own = new Map<number, readonly HeldOp[]>();
  #waiting: { readonly revision: number; readonly resolve: () => void }[] = [];

  /** @throws DecodeError if the entries cannot be a state at that revision */
  constructor(snapshot: MirrorSnapshot, options: MirrorOptions) {
    this.#options = options;
    this.state = new Mvcc({
      compactRevision: snapshot.etcdRevision - options.revisionOffset,
      rows: snapshot.entries
        .toSorted((a, b) => a.modRevision - b.modRevision)
        .map((entry) => {
          const { key, value, createRevision, modRevision } = this.toEntry(entry);
          return { key, value, createRevision, revision: modRevision };
        }),
    });
    this.watches = new WatchHub(this.state, options.clock);
  }

  /** The newest revision that is known here. */
  get revision(): number {
    return this.state.revision;
  }

  /** An entry as the port has it. */
  toEntry(entry: EtcdEntry): StoreEntry {
    const { prefix, revisionOffset } = this.#options;
    return holdEntry(entry.key.slice(prefix.length), holdValue(entry.value), {
      createRevision: entry.createRevision - revisionOffset,
      modRevision: entry.modRevision - revisionOffset,
    });
  }

  /**
   * Takes events in order; those of a revision must come together.
   * @throws MissingRevisionError; what came before the gap was taken
   */
  take(events: readonly EtcdEvent[]): void {
    let from = 0;
    while (from < events.length) {
      const etcdRevision = revisionOf(events[from]);
      let to = from + 1;
      while (to < events.length && revisionOf(events[to]) === etcdRevision) to++;
      const revision = etcdRevision - this.#options.revisionOffset;
      const expected = this.revision + 1;
      if (revision > expected)
        throw new MissingRevisionError(
          `etcd's watch brought revision ${revision} where ${expected} should follow`,
        );
      // What is known already comes again where a watch begins anew.
      if (revision === expected) {
        this.#own.delete(revision);
        this.#apply({ revision, events: this.#eventsOf(events.slice(from, to)) });
        this.#takeOwn();
      }
      from = to;
    }
  }

  /**
   * Takes a transaction that this process made and etcd has confirmed: it need not wait until the watch brings it, which
   * then is a repetition. It is taken when everything before it is known.
   */
  wrote(revision: number, operations: readonly HeldOp[]): void {
    if (this.#own.size >= MAX_OWN) return;
    // Deletions alone may have changed nothing, and then the revision is somebody else's.
    if (revision <= this.revision || operations.every(({ type }) => type === 'delete')) return;
    this.#own.set(revision, operations);
    this.#takeOwn();
  }

  #takeOwn(): void {
    for (;;) {
      const revision = this.revision + 1;
      const operations = this.#own.get(revision);
      if (operations === undefined) return;
      this.#own.delete(revision);
      const stage = this.state.stage();
      stage.transact([], operations);
      for (const record of stage.records) this.#apply(record);
    }
  }

  /** Resolves when this revision is known here. */
  reached(revision: number): Promise<void> {
    if (this.revision >= revision) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ revision, resolve }));
  }

  /** Forgets history before a revision. */
  forget(revision: number): void {
    const compaction = this.state.planCompaction(Math.min(revision, this.revision));
    if (compaction !== undefined) this.state.compact(compaction);
  }

  /** This mirror is not carried on: those who wait look at its successor. */
  replace(successorRevision: number): void {
    this.watches.cutOff(successorRevision);
    this.#wake(Number.POSITIVE_INFINITY);
  }

  /** The changes of one revision to our own keys: none if it was another program's. */
  #eventsOf(events: readonly EtcdEvent[]): StoreEvent[] {
    const { prefix } = this.#options;
    const changes: StoreEvent[] = [];
    for (const event of events) {
      const full = event.type === 'put' ? event.entry.key : event.key;
      if (full.length <= prefix.length || !full.startsWith(prefix)) continue;
      const key = full.slice(prefix.length);
      const previous = this.state.get(key);
      if (event.type === 'put')
        changes.push({ type: 'put', entry: this.toEntry(event.entry), previous });
      else if (previous !== undefined) changes.push({ type: 'delete', key, previous });
    }
    return changes;
  }

  #apply(record: WatchBatch): void {
    this.state.apply([record]);
    this.watches.notify([record]);
    const { historyRevisions, historyBytes } = this.#options;
    const target = this.state.compactionTarget(historyRevisions, historyBytes);
    const isOver = this.state.historyBytes > historyBytes;
    if (isOver || target - this.state.compactRevision >= COMPACTION_STEP_REVISIONS)
      this.forget(target);
    this.#wake(this.revision);
  }

  #wake(revision: number): void {
    if (this.#waiting.length === 0) return;
    const due = this.#waiting.filter((waiting) => waiting.revision <= revision);
    if (due.length === 0) return;
    this.#waiting = this.#waiting.filter((waiting) => waiting.revision > revision);
    for (const { resolve } of due) resolve();
  }
}

function revisionOf(event: EtcdEvent | undefined): number {
  if (event === undefined) return Number.NaN;
  return event.type === 'put' ? event.entry.modRevision : event.modRevision;
}
