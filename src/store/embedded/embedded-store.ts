/**
 * The store of a single server: in memory, and on disk in one SQLite file.
 *
 *     <directory>/store.db        0600, locked for as long as the store is open
 *     <directory>/store.db-wal    what is not yet checkpointed; belongs to the data
 */
import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { syncDirectory } from '#lib/atomic-file.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError, UserError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { silentLogger } from '#lib/log.ts';
import { JournaledStore } from '../journaled-store.ts';
import { Mvcc } from '../mvcc.ts';
import type { Store } from '../port.ts';
import { RefusedError } from './database.ts';
import type { Refusal } from './protocol.ts';
import { openWriter } from './writer.ts';

export const STORE_FILE = 'store.db';

export interface EmbeddedStoreOptions {
  /** Made, with mode 0700, if it is missing. */
  readonly directory: string;
  readonly clock?: Clock;
  readonly log?: Logger;
  /** Revisions of history kept without being asked; see `MAX_HISTORY_REVISIONS`. */
  readonly historyRevisions?: number;
}

/**
 * Opens the store in a directory, alone: until it is closed or its process ends, nobody else can.
 * @throws UserError if another process has it open, it is of a newer format, damaged or no store, or cannot be made
 */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<Store> {
  const directory = resolve(options.directory);
  const path = join(directory, STORE_FILE);
  const log = options.log ?? silentLogger;
  createFile(directory, path);
  try {
    const { journal, snapshot } = await openWriter(path, log);
    const state = await restore(journal, snapshot);
    const { revision, compactRevision } = state;
    log.info({ path, revision, compactRevision }, 'store opened');
    return new JournaledStore(state, journal, { ...options, leases: snapshot.leases ?? [] });
  } catch (error) {
    throw error instanceof RefusedError ? userError(error.refusal, path, error) : error;
  }
}

async function restore(
  journal: AsyncDisposable,
  snapshot: ConstructorParameters<typeof Mvcc>[0],
): Promise<Mvcc> {
  try {
    return new Mvcc(snapshot);
  } catch (cause) {
    await journal[Symbol.asyncDispose]();
    throw new RefusedError({ reason: 'damaged', detail: explainError(cause) }, { cause });
  }
}

/** SQLite would make the file readable for all, as far as the umask lets it. Its log gets the mode of the file. */
export function createFile(directory: string, path: string): void {
  try {
    const made = mkdirSync(directory, { recursive: true, mode: 0o700 });
    // `wx`: a file that exists must not be opened here. Closing it again would drop every lock this process has on it.
    try {
      closeSync(openSync(path, 'wx', 0o600));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      chmodSync(path, 0o600);
    }
    syncDirectory(directory);
    if (made !== undefined) syncDirectory(dirname(made));
  } catch (cause) {
    throw new UserError(`Cannot make the store "${path}": ${explainError(cause)}`, {
      hint: 'Give a data directory that this user may write to, on a disk with space.',
      cause,
    });
  }
}

function userError(refusal: Refusal, path: string, cause: unknown): UserError {
  const make = (found: string, hint: string) =>
    new UserError(`Cannot open the store "${path}": ${found}`, { hint, cause });
  switch (refusal.reason) {
    case 'in-use':
      return make(
        'another process has it open',
        `Stop the server that runs on "${dirname(path)}", or give this one a data directory of its own.`,
      );
    case 'newer-format':
      return make(
        `its format is ${refusal.found}, this program knows formats up to ${refusal.known}`,
        'Run the newer version of Tulle that wrote it, or give an empty data directory.',
      );
    case 'not-a-store':
      return make(
        'the file is no store of Tulle',
        'Move the file away, or give another data directory.',
      );
    case 'damaged':
      return make(
        `it is damaged: ${refusal.detail}`,
        'Put back a copy of the data directory, or move it away to start with an empty store.',
      );
    case 'other':
      return make(refusal.detail, 'Check the disk and the permissions of the data directory.');
  }
}
