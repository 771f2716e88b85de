/**
 * The SQLite file of the embedded store: one table with every version of every key since the compact revision.
 *
 *     history   id (revision × 4096 + number of the change in it) │ key │ create_revision │ value (NULL: deleted) │ lease
 *     leases    id │ ttl_ms                                            what keys hang on; not until when
 *     meta      one row: compact_revision
 *
 * Rows are only appended, and taken away by compaction; the newest revision is that of the last row, or the compact
 * revision if it is greater. WAL with synchronous=FULL: a commit is on disk when it returns.
 */
import { DatabaseSync } from 'node:sqlite';
import type { DroppedVersion, JournalRow, LeaseChange } from '../journal.ts';
import type { StoreLease } from '../port.ts';
import type { Refusal } from './protocol.ts';

/** `PRAGMA application_id`, which tells `file` and us whose database it is: "Tull". */
const APPLICATION_ID = 0x54756c6c;
/** `PRAGMA user_version`. Raise it when an older program would misread the data, and convert on opening. */
export const FORMAT_VERSION = 2;
/** Changes of one revision have consecutive ids. Part of the format; leaves 2^41 revisions below 2^53. */
export const IDS_PER_REVISION = 4096;
/** The write-ahead log's file is cut back to this after a large batch; SQLite checkpoints it at 4 MB. */
const MAX_WAL_BYTES = 16 * 1024 * 1024;
const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;

const SCHEMA = `
  CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    create_revision INTEGER NOT NULL,
    value BLOB,
    lease INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE meta (compact_revision INTEGER NOT NULL) STRICT;
  INSERT INTO meta VALUES (0);
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${FORMAT_VERSION};
`;

/** Format 1 had no leases. */
const FROM_FORMAT_1 = `
  ALTER TABLE history ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;
  CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL) STRICT;
  PRAGMA user_version = ${FORMAT_VERSION};
`;

/** The database cannot be used. */
export class RefusedError extends Error {
  readonly refusal: Refusal;
  constructor(refusal: Refusal, options?: { cause?: unknown }) {
    super(refusal.reason, options);
    this.name = 'RefusedError';
    this.refusal = refusal;
  }
}

export interface Database extends Disposable {
  readonly compactRevision: number;
  readonly leases: readonly StoreLease[];
  /** Every version, in order. */
  rows(): Iterable<JournalRow>;
  /** Writes a batch as one SQLite transaction. @throws what SQLite says; nothing is written then */
  commit(batch: DatabaseBatch): void;
}

export interface DatabaseBatch {
  readonly rows: Iterable<JournalRow>;
  readonly compactRevision?: number | undefined;
  readonly dropped?: readonly DroppedVersion[];
  readonly leases?: readonly LeaseChange[];
}

/**
 * Opens the file, which must exist, and holds it alone until it is closed or the process ends.
 * @throws RefusedError
 */
export function openDatabase(path: string): Database {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path);
    prepareDatabase(db);
    return databaseOf(db);
  } catch (cause) {
    db?.close();
    if (cause instanceof RefusedError) throw cause;
    throw new RefusedError(refusalOf(cause), { cause });
  }
}

function prepareDatabase(db: DatabaseSync): void {
  // Exclusive before the first access: SQLite then keeps the lock, which the kernel frees with the process, and
  // needs no shared memory for the log's index.
  db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA trusted_schema = OFF;');
  const empty = numberOf(db, 'SELECT count(*) AS n FROM sqlite_schema') === 0;
  const applicationId = numberOf(db, 'SELECT application_id AS n FROM pragma_application_id');
  const version = numberOf(db, 'SELECT user_version AS n FROM pragma_user_version');
  if (!empty && applicationId !== APPLICATION_ID) throw new RefusedError({ reason: 'not-a-store' });
  if (version > FORMAT_VERSION)
    throw new RefusedError({ reason: 'newer-format', found: version, known: FORMAT_VERSION });
  db.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA journal_size_limit = ${MAX_WAL_BYTES};
    BEGIN EXCLUSIVE;
    ${empty ? SCHEMA : version < FORMAT_VERSION ? FROM_FORMAT_1 : ''}
    COMMIT;
  `);
}

function databaseOf(db: DatabaseSync): Database {
  const insert = db.prepare('INSERT INTO history VALUES (?, ?, ?, ?, ?)');
  const drop = db.prepare('DELETE FROM history WHERE id BETWEEN ? AND ? AND key = ?');
  const setCompactRevision = db.prepare('UPDATE meta SET compact_revision = ?');

  const grant = db.prepare('INSERT INTO leases VALUES (?, ?)');
  const revoke = db.prepare('DELETE FROM leases WHERE id = ?');

  function write({ rows, compactRevision, dropped = [], leases = [] }: DatabaseBatch): void {
    let revision = 0;
    let ordinal = 0;
    for (const row of rows) {
      ordinal = row.revision === revision ? ordinal + 1 : 0;
      revision = row.revision;
      insert.run(
        idOf(revision, ordinal),
        row.key,
        row.createRevision,
        row.value ?? null,
        row.lease ?? 0,
      );
    }
    for (const { revision, key } of dropped)
      drop.run(idOf(revision, 0), idOf(revision, IDS_PER_REVISION - 1), key);
    if (compactRevision !== undefined) setCompactRevision.run(compactRevision);
    for (const { id, ttlMs } of leases)
      if (ttlMs === undefined) revoke.run(id);
      else grant.run(id, ttlMs);
  }

  return {
    compactRevision: numberOf(db, 'SELECT compact_revision AS n FROM meta'),
    leases: db
      .prepare('SELECT id, ttl_ms FROM leases')
      .all()
      .map(({ id, ttl_ms }) => ({ id: Number(id), ttlMs: Number(ttl_ms) })),
    *rows() {
      const query = db.prepare(
        'SELECT id, key, create_revision, value, lease FROM history ORDER BY id',
      );
      for (const { id, key, create_revision, value, lease } of query.iterate()) {
        yield {
          revision: Math.floor(Number(id) / IDS_PER_REVISION),
          key: String(key),
          createRevision: Number(create_revision),
          lease: Number(lease),
          value: value instanceof Uint8Array ? value : undefined,
        };
      }
    },
    commit(batch) {
      db.exec('BEGIN IMMEDIATE');
      try {
        write(batch);
        db.exec('COMMIT');
      } catch (error) {
        // Some errors (disk full, I/O) have rolled back already.
        if (db.isTransaction) db.exec('ROLLBACK');
        throw error;
      }
    },
    [Symbol.dispose]() {
      db.close();
    },
  };
}

function idOf(revision: number, ordinal: number): number {
  return revision * IDS_PER_REVISION + ordinal;
}

function numberOf(db: DatabaseSync, query: string): number {
  return Number(db.prepare(query).get()?.n);
}

/** True if a commit failed because the disk, or the user's quota, is used up. */
export function isDiskFull(error: unknown): boolean {
  return ((error as { errcode?: number }).errcode ?? 0) % 256 === SQLITE_FULL;
}

function refusalOf(error: unknown): Refusal {
  const detail = error instanceof Error ? error.message : String(error);
  // The upper bytes of an extended code say more; the lowest is the kind.
  const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
  if (code === SQLITE_BUSY) return { reason: 'in-use' };
  if (code === SQLITE_NOTADB) return { reason: 'not-a-store' };
  if (code === SQLITE_CORRUPT) return { reason: 'damaged', detail };
  return { reason: 'other', detail };
}
