/**
 * The heart of the store, in memory and without effects: every key with its versions since the compact revision,
 * and the log of all changes since then.
 *
 *     compact revision 4                                            newest revision 7
 *            │   /a: 3 ──────────────── 6                                │
 *            │   /b: 4 ──── 5 (deleted)                                  │
 *            │   log:      5: delete /b · 6: put /a · 7: put /c          │
 *
 * A change has two steps, so that a store can make it durable in between: {@link Mvcc.stage} evaluates transactions
 * without changing anything, {@link Mvcc.apply} makes what was staged the newest state. Nothing is ever rolled back.
 */
import { DecodeError } from '#lib/errors.ts';
import { type HeldOp, holdEntry, holdValue, valueLength } from './held-entry.ts';
import type { Compaction, DroppedVersion, JournalRow, JournalSnapshot } from './journal.ts';
import type {
  Compare,
  ListResult,
  StoreEntry,
  StoreEvent,
  TransactionResult,
  WatchBatch,
} from './port.ts';
import { CompactedError, FutureRevisionError } from './port.ts';
import { SortedList } from './sorted-list.ts';

/** What a change takes in memory beside its key and value, roughly: the objects that hold them. */
const CHANGE_OVERHEAD_BYTES = 200;
/** The log's array is cut only when so many of its slots are unused, because each cut moves the rest. */
const MAX_UNUSED_LOG_SLOTS = 1024;

interface Version {
  readonly revision: number;
  /** `undefined`: deleted at this revision. */
  readonly entry: StoreEntry | undefined;
}

interface KeyHistory {
  readonly key: string;
  /** Never empty, in order of revision. At most the first is at or below the compact revision, and then no deletion. */
  readonly versions: Version[];
}

/** Transactions that were evaluated one after the other and not yet applied. */
export interface Stage {
  /** Evaluates a transaction on top of what this stage holds already. Its arguments must be valid and are kept. */
  transact(compares: readonly Compare[], operations: readonly HeldOp[]): TransactionResult;
  /** One for each new revision. */
  readonly records: readonly WatchBatch[];
}

export class Mvcc {
  readonly #histories = new Map<string, KeyHistory>();
  readonly #sorted = new SortedList<KeyHistory>();
  /** `#log[#logHead + i]` is revision `compactRevision + 1 + i`. */
  #log: (WatchBatch | undefined)[] = [];
  #logHead = 0;
  #logBytes = 0;
  #revision = 0;
  #compactRevision = 0;

  /** @throws DecodeError if the rows cannot be a history: a revision without a row, rows out of order */
  constructor(snapshot?: JournalSnapshot) {
    if (snapshot === undefined) return;
    this.#compactRevision = snapshot.compactRevision;
    this.#revision = snapshot.compactRevision;
    this.#restore(snapshot.rows);
  }

  /** The newest revision; 0 if nothing was ever written. */
  get revision(): number {
    return this.#revision;
  }
  /** The oldest revision that can be read; changes after it can be watched. */
  get compactRevision(): number {
    return this.#compactRevision;
  }
  /** Keys that exist, or existed since the compact revision. */
  get keyCount(): number {
    return this.#sorted.size;
  }
  /** Memory that the changes since the compact revision take, roughly. */
  get historyBytes(): number {
    return this.#logBytes;
  }

  /** @throws CompactedError, FutureRevisionError */
  get(key: string, atRevision: number = this.#revision): StoreEntry | undefined {
    this.#checkRevision(atRevision);
    const history = this.#histories.get(key);
    return history === undefined ? undefined : entryAt(history, atRevision);
  }

  /** @throws CompactedError, FutureRevisionError */
  list(
    prefix: string,
    options: { revision?: number; limit?: number; startAfter?: string } = {},
  ): ListResult {
    const revision = options.revision ?? this.#revision;
    this.#checkRevision(revision);
    const limit = options.limit || Number.POSITIVE_INFINITY;
    const after = options.startAfter;
    const start = after !== undefined && after > prefix ? after : prefix;
    const entries: StoreEntry[] = [];
    let remaining = 0;
    for (const history of this.#sorted.from(start)) {
      if (!history.key.startsWith(prefix)) break;
      if (history.key === after) continue;
      const entry = entryAt(history, revision);
      if (entry === undefined) continue;
      if (entries.length < limit) entries.push(entry);
      else remaining++;
    }
    return { entries, revision, more: remaining > 0, remaining };
  }

  /** Begins to evaluate transactions on the newest state. Valid until the next {@link apply}. */
  stage(): Stage {
    const overlay = new Map<string, StoreEntry | undefined>();
    const records: WatchBatch[] = [];
    const current = (key: string) => (overlay.has(key) ? overlay.get(key) : this.get(key));
    const newest = () => this.#revision + records.length;
    return {
      records,
      transact(compares, operations) {
        const found = compares.map((compare) => current(compare.key));
        const holds = compares.every((c, i) => (found[i]?.modRevision ?? 0) === c.modRevision);
        if (!holds) return { succeeded: false, revision: newest(), conflicts: found };
        const revision = newest() + 1;
        const events = operations.flatMap((op) => eventOf(op, current(op.key), revision));
        if (events.length === 0) return { succeeded: true, revision: newest() };
        for (const event of events) overlay.set(keyOf(event), entryOf(event));
        records.push({ revision, events });
        return { succeeded: true, revision };
      },
    };
  }

  /** Makes staged records the newest state. They must follow the newest revision. */
  apply(records: readonly WatchBatch[]): void {
    for (const record of records) {
      if (record.revision !== this.#revision + 1)
        throw new RangeError(`revision ${record.revision} cannot follow ${this.#revision}`);
      for (const event of record.events)
        this.#append(keyOf(event), { revision: record.revision, entry: entryOf(event) });
      this.#appendLog(record);
    }
  }

  /**
   * What a compaction would forget. The walk is over the forgotten changes only, not over the state.
   * @returns `undefined` if the revision is compacted already
   * @throws FutureRevisionError
   */
  planCompaction(revision: number): Compaction | undefined {
    if (revision > this.#revision) throw new FutureRevisionError(revision, this.#revision);
    if (revision <= this.#compactRevision) return undefined;
    const dropped: DroppedVersion[] = [];
    for (let r = this.#compactRevision + 1; r <= revision; r++) {
      for (const event of this.#logged(r).events) {
        const key = keyOf(event);
        if (event.previous !== undefined)
          dropped.push({ revision: event.previous.modRevision, key });
        if (event.type === 'delete') dropped.push({ revision: r, key });
      }
    }
    return { revision, dropped };
  }

  /** Does what {@link planCompaction} said. */
  compact(compaction: Compaction): void {
    const { revision, dropped } = compaction;
    for (const { key } of dropped) this.#forgetVersions(key, revision);
    for (let r = this.#compactRevision + 1; r <= revision; r++) {
      this.#logBytes -= bytesOf(this.#logged(r));
      this.#log[this.#logHead++] = undefined;
      this.#compactRevision = r;
    }
    if (this.#logHead > MAX_UNUSED_LOG_SLOTS) {
      this.#log.splice(0, this.#logHead);
      this.#logHead = 0;
    }
  }

  /**
   * How far the log can be cut while at most `maxRevisions` and `maxBytes` of it are kept.
   * @returns a revision for {@link planCompaction}
   */
  compactionTarget(maxRevisions: number, maxBytes: number): number {
    let target = Math.max(this.#compactRevision, this.#revision - maxRevisions);
    let bytes = this.#logBytes;
    if (bytes <= maxBytes) return target;
    for (let r = this.#compactRevision + 1; r <= this.#revision && bytes > maxBytes; r++) {
      bytes -= bytesOf(this.#logged(r));
      target = Math.max(target, r);
    }
    return target;
  }

  /**
   * The next changes after a revision under a prefix.
   * @param afterRevision not below the compact revision
   * @returns no events, and the newest revision, if there are none yet
   */
  changesAfter(prefix: string, afterRevision: number): WatchBatch {
    for (let r = afterRevision + 1; r <= this.#revision; r++) {
      const batch = changesUnder(prefix, this.#logged(r));
      if (batch.events.length > 0) return batch;
    }
    return { revision: this.#revision, events: [] };
  }

  #checkRevision(revision: number): void {
    if (revision < this.#compactRevision) throw new CompactedError(revision, this.#compactRevision);
    if (revision > this.#revision) throw new FutureRevisionError(revision, this.#revision);
  }

  #logged(revision: number): WatchBatch {
    const record = this.#log[this.#logHead + revision - this.#compactRevision - 1];
    if (record === undefined) throw new RangeError(`revision ${revision} is not in the log`);
    return record;
  }

  #append(key: string, version: Version): void {
    const history = this.#histories.get(key);
    if (history !== undefined) {
      history.versions.push(version);
      return;
    }
    const created = { key, versions: [version] };
    this.#histories.set(key, created);
    this.#sorted.insert(created);
  }

  #appendLog(record: WatchBatch): void {
    this.#log.push(record);
    this.#logBytes += bytesOf(record);
    this.#revision = record.revision;
  }

  /** Drops what of a key was superseded by `revision`, and the key itself if nothing of it is left. */
  #forgetVersions(key: string, revision: number): void {
    const versions = this.#histories.get(key)?.versions;
    if (versions === undefined) return;
    let keep = 0;
    while ((versions[keep + 1]?.revision ?? Number.POSITIVE_INFINITY) <= revision) keep++;
    const first = versions[keep];
    if (first !== undefined && first.revision <= revision && first.entry === undefined) keep++;
    if (keep === 1) versions.shift();
    else versions.splice(0, keep);
    if (versions.length > 0) return;
    this.#histories.delete(key);
    this.#sorted.delete(key);
  }

  #restore(rows: Iterable<JournalRow>): void {
    let record: { revision: number; events: StoreEvent[] } | undefined;
    for (const row of rows) {
      const { key, revision } = row;
      const entry = entryOfRow(row);
      if (revision <= this.#compactRevision) {
        if (entry === undefined || this.#histories.has(key))
          throw damaged('compacted state', `"${key}" has history at revision ${revision}`);
        this.#append(key, { revision, entry });
        continue;
      }
      if (record?.revision !== revision) {
        if (record !== undefined) this.apply([record]);
        if (revision !== this.#revision + 1)
          throw damaged('revision', `${revision} where ${this.#revision + 1} should follow`);
        record = { revision, events: [] };
      }
      record.events.push(eventOfRow(key, entry, this.get(key)));
    }
    if (record !== undefined) this.apply([record]);
  }
}

/** The part of a revision's changes that is under a prefix. */
export function changesUnder(prefix: string, record: WatchBatch): WatchBatch {
  const inside = (event: StoreEvent) => keyOf(event).startsWith(prefix);
  if (record.events.every(inside)) return record;
  return { revision: record.revision, events: record.events.filter(inside) };
}

export function keyOf(event: StoreEvent): string {
  return event.type === 'put' ? event.entry.key : event.key;
}

function entryOf(event: StoreEvent): StoreEntry | undefined {
  return event.type === 'put' ? event.entry : undefined;
}

function entryAt(history: KeyHistory, revision: number): StoreEntry | undefined {
  // Nearly every read is of the newest revision, and nearly every older one of one shortly before it.
  for (let i = history.versions.length - 1; i >= 0; i--) {
    const version = history.versions[i];
    if (version !== undefined && version.revision <= revision) return version.entry;
  }
  return undefined;
}

/** @returns nothing for the deletion of a missing key */
function eventOf(op: HeldOp, previous: StoreEntry | undefined, revision: number): StoreEvent[] {
  if (op.type === 'delete')
    return previous === undefined ? [] : [{ type: 'delete', key: op.key, previous }];
  const entry = holdEntry(op.key, op.value, {
    createRevision: previous?.createRevision ?? revision,
    modRevision: revision,
    lease: op.lease,
  });
  return [{ type: 'put', entry, previous }];
}

function entryOfRow(row: JournalRow): StoreEntry | undefined {
  if (row.value === undefined) return undefined;
  const { key, value, createRevision, revision, lease = 0 } = row;
  return holdEntry(key, holdValue(value), { createRevision, modRevision: revision, lease });
}

function eventOfRow(
  key: string,
  entry: StoreEntry | undefined,
  previous: StoreEntry | undefined,
): StoreEvent {
  if (entry !== undefined) return { type: 'put', entry, previous };
  if (previous === undefined)
    throw damaged('key', `"${key}" is deleted, but there is no version before`);
  return { type: 'delete', key, previous };
}

function damaged(field: string, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'store history', field });
}

function bytesOf(record: WatchBatch): number {
  let bytes = 0;
  for (const event of record.events) {
    bytes += CHANGE_OVERHEAD_BYTES + keyOf(event).length;
    if (event.type === 'put') bytes += valueLength(event.entry);
  }
  return bytes;
}
