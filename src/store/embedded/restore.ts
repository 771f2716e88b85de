/** Makes the database of an embedded store out of a backup. */
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { syncDirectory } from '#lib/atomic-file.ts';
import { UserError } from '#lib/errors.ts';
import type { Backup } from '../backup.ts';
import { IDS_PER_REVISION, openDatabase } from './database.ts';
import { createFile, openEmbeddedStore, STORE_FILE } from './embedded-store.ts';

/**
 * Revisions left out before those of a restored store. The copy is older than what clients have seen; after it no client
 * may meet a revision again, nor one that is lower. More than a busy cluster makes in a day.
 */
export const RESTORE_GAP = 1_000_000_000;
const MAX_REVISION = Math.floor(Number.MAX_SAFE_INTEGER / IDS_PER_REVISION) - 1;
const BATCH_ROWS = 1_000;

export interface Restored {
  readonly entries: number;
  /** The revision the store begins with: everything older is gone for clients, who list anew. */
  readonly revision: number;
  /** Where the store is that was there before. */
  readonly previous: string | undefined;
}

/**
 * Puts a backup in the place of a directory's store, which must not be in use. What was there is kept under another
 * name. A crash on the way leaves the old store or the new one.
 * @throws UserError if the store there is in use, or the file cannot be written
 */
export async function restoreEmbedded(
  backup: Backup,
  options: { readonly directory: string; readonly nowMs: number },
): Promise<Restored> {
  const directory = resolve(options.directory);
  const path = join(directory, STORE_FILE);
  const before = existsSync(path) ? await newestRevision(directory) : 0;
  const base = Math.max(backup.revision, before) + RESTORE_GAP;
  const revision = base + backup.entries.length;
  if (revision > MAX_REVISION)
    throw new UserError(`The revisions of the backup are too high to go on from: ${base}`, {
      hint: 'Make a new cluster, and apply the objects to it.',
    });
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const work = join(directory, 'restore');
  rmSync(work, { recursive: true, force: true });
  createFile(work, join(work, STORE_FILE));
  writeEntries(join(work, STORE_FILE), backup, base);
  let previous: string | undefined;
  if (existsSync(path)) {
    previous = `${path}.before-${new Date(options.nowMs).toISOString().replace(/[:.]/g, '-')}`;
    if (existsSync(`${path}-wal`)) renameSync(`${path}-wal`, `${previous}-wal`);
    renameSync(path, previous);
  }
  renameSync(join(work, STORE_FILE), path);
  syncDirectory(directory);
  rmSync(work, { recursive: true });
  return { entries: backup.entries.length, revision, previous };
}

/** Also makes sure that nobody uses it, and leaves all of it in the one file. */
async function newestRevision(directory: string): Promise<number> {
  try {
    await using store = await openEmbeddedStore({ directory });
    return await store.revision();
  } catch (error) {
    // What is damaged is what a backup is for; its newest revision is not to be had, and the gap must do.
    if (error instanceof UserError && /damaged|no store of Tulle/.test(error.message)) return 0;
    throw error;
  }
}

/** Every entry gets a revision of its own, above all that were: for clients it is new, as the whole state is. */
function writeEntries(path: string, { entries }: Backup, base: number): void {
  using database = openDatabase(path);
  const rows = entries.map(({ key, value }, i) => {
    const revision = base + 1 + i;
    return { key, value, createRevision: revision, revision };
  });
  for (let at = 0; at < rows.length; at += BATCH_ROWS)
    database.commit({ rows: rows.slice(at, at + BATCH_ROWS) });
  database.commit({ rows: [], compactRevision: base + rows.length });
}
