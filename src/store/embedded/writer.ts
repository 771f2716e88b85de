/** The store's end of the writer thread: a journal on SQLite. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Logger } from '#lib/log.ts';
import { leaseOf } from '../held-entry.ts';
import type { Journal, JournalBatch, JournalRow, JournalSnapshot } from '../journal.ts';
import { type StoreEntry, StoreWriteError } from '../port.ts';
import { RefusedError } from './database.ts';
import type { FromWriter, PackedRows, ToWriter, WriterOptions } from './protocol.ts';
import { packRows, unpackRows } from './protocol.ts';

/**
 * Starts the thread on a database file, which must exist.
 * @returns what the file holds, and the journal that goes on writing it
 * @throws RefusedError
 */
export async function openWriter(
  path: string,
  log: Logger,
): Promise<{ journal: Journal; snapshot: JournalSnapshot }> {
  const posted = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const workerData: WriterOptions = { path, posted };
  const worker = new Worker(new URL('./writer-thread.ts', import.meta.url), { workerData });
  const packs: PackedRows[] = [];
  const { compactRevision, leases } = await new Promise<Opened>((resolve, reject) => {
    worker.on('message', function onMessage(message: FromWriter) {
      if (message.type === 'rows') packs.push(message.rows);
      if (message.type === 'refused') reject(new RefusedError(message.refusal));
      if (message.type !== 'opened') return;
      worker.off('message', onMessage);
      resolve(message);
    });
    worker.once('error', reject);
    worker.once('exit', () => reject(new Error('the writer thread ended before it had opened')));
  });
  worker.removeAllListeners('error').removeAllListeners('exit');
  return {
    journal: new Writer(worker, { path, posted, log }),
    snapshot: { compactRevision, leases, rows: rowsOf(packs) },
  };
}

type Opened = FromWriter & { readonly type: 'opened' };

class Writer implements Journal {
  readonly #worker: Worker;
  readonly #path: string;
  readonly #posted: Int32Array;
  readonly #log: Logger;
  /** The last commit failed. */
  #failing = false;
  /** The commit under way. */
  #pending: { resolve: () => void; reject: (error: StoreWriteError) => void } | undefined;
  /** Why the thread has ended, if it has. */
  #ended: { cause: unknown } | undefined;

  constructor(worker: Worker, options: WriterOptions & { readonly log: Logger }) {
    this.#worker = worker;
    this.#path = options.path;
    this.#posted = options.posted;
    this.#log = options.log;
    worker.on('message', (message: FromWriter) => this.#settle(message));
    worker.on('error', (cause) => this.#end(cause));
    worker.on('exit', () => this.#end(undefined));
  }

  commit(batch: JournalBatch): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#threadError(this.#ended.cause));
    const message: ToWriter = {
      type: 'commit',
      rows: packRows(rowsOfBatch(batch)),
      compactRevision: batch.compaction?.revision,
      dropped: batch.compaction?.dropped ?? [],
      leases: batch.leases,
    };
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#post(message, [message.rows.values.buffer]);
    });
  }

  #post(message: ToWriter, moved: readonly ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, moved);
    Atomics.add(this.#posted, 0, 1);
    Atomics.notify(this.#posted, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended !== undefined) return;
    const ended = once(this.#worker, 'exit');
    this.#post({ type: 'close' });
    await ended;
  }

  #settle(message: FromWriter): void {
    const pending = this.#pending;
    this.#pending = undefined;
    const failed = message.type === 'failed';
    if (failed !== this.#failing) this.#logTurn(failed ? message.message : undefined);
    this.#failing = failed;
    if (failed)
      pending?.reject(
        new StoreWriteError(`Cannot write to "${this.#path}": ${message.message}`, {
          isOutOfSpace: message.isOutOfSpace,
        }),
      );
    else pending?.resolve();
  }

  /** Once when writes begin to fail and once when they work again; each failure is told to who asked for the write. */
  #logTurn(problem: string | undefined): void {
    const path = this.#path;
    if (problem === undefined) this.#log.info({ path }, 'the store can be written again');
    else this.#log.error({ path, problem }, 'the store cannot be written; reads go on');
  }

  #end(cause: unknown): void {
    this.#ended ??= { cause };
    this.#pending?.reject(this.#threadError(cause));
    this.#pending = undefined;
  }

  #threadError(cause: unknown): StoreWriteError {
    return new StoreWriteError(
      `Cannot write to "${this.#path}": the thread that writes it has ended; restart the program`,
      { cause },
    );
  }
}

function* rowsOf(packs: readonly PackedRows[]): Generator<JournalRow, void, undefined> {
  for (const pack of packs) {
    yield* unpackRows(pack);
  }
}

function rowOf(entry: StoreEntry): JournalRow {
  const { key, value, createRevision, modRevision } = entry;
  return { revision: modRevision, key, createRevision, value, lease: leaseOf(entry) };
}

function rowsOfBatch(batch: JournalBatch): JournalRow[] {
  return batch.records.flatMap(({ revision, events }) =>
    events.map((event) =>
      event.type === 'put'
        ? rowOf(event.entry)
        : { revision, key: event.key, createRevision: 0, value: undefined },
    ),
  );
}
