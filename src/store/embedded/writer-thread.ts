/**
 * The embedded store's writer: a thread of its own, so that waiting for the disk stops nothing else.
 * Speaks `protocol.ts` over its parent port.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { explainError } from '#lib/errors.ts';
import type { JournalRow } from '../journal.ts';
import type { Database } from './database.ts';
import { isDiskFull, openDatabase, RefusedError } from './database.ts';
import type { FromWriter, Refusal, ToWriter, WriterOptions } from './protocol.ts';
import { packRows, unpackRows } from './protocol.ts';

/** Rows are handed over in messages of about this size. */
const LOAD_MESSAGE_BYTES = 1024 * 1024;
/** And of at most so many rows, for when values are tiny. */
const LOAD_MESSAGE_ROWS = 4096;

const port = parentPort;
if (port === null) throw new Error('writer-thread.ts runs as a worker thread only');

function post(message: FromWriter): void {
  const moved = message.type === 'rows' ? [message.rows.values.buffer] : [];
  port?.postMessage(message, moved);
}

const { path, posted } = workerData as WriterOptions;
const opened = open();
if (opened !== undefined) {
  using database = opened;
  work(database);
}
port.close();

function open(): Database | undefined {
  let database: Database | undefined;
  try {
    database = openDatabase(path);
    load(database);
    return database;
  } catch (error) {
    database?.[Symbol.dispose]();
    post({ type: 'refused', refusal: refusalOf(error) });
    return undefined;
  }
}

/** Takes messages until one says that it is over. */
function work(database: Database): void {
  for (let taken = 0; ; taken++) {
    // The word is raised when the message is there: who finds it as it was sleeps until then.
    Atomics.wait(posted, 0, taken);
    const message = nextMessage();
    if (message.type === 'close') return;
    commit(database, message);
  }
}

function nextMessage(): ToWriter {
  const received = port === null ? undefined : receiveMessageOnPort(port);
  if (received === undefined) throw new Error('a message was announced and is not there');
  return received.message as ToWriter;
}

function load(database: Database): void {
  let rows: JournalRow[] = [];
  let bytes = 0;
  const flush = () => {
    post({ type: 'rows', rows: packRows(rows) });
    rows = [];
    bytes = 0;
  };
  for (const row of database.rows()) {
    rows.push(row);
    bytes += row.value?.length ?? 0;
    if (bytes >= LOAD_MESSAGE_BYTES || rows.length >= LOAD_MESSAGE_ROWS) flush();
  }
  flush();
  const { compactRevision, leases } = database;
  post({ type: 'opened', compactRevision, leases });
}

function commit(database: Database, message: ToWriter & { type: 'commit' }): void {
  try {
    database.commit({ ...message, rows: unpackRows(message.rows) });
    post({ type: 'committed' });
  } catch (error) {
    post({ type: 'failed', message: explainError(error), isOutOfSpace: isDiskFull(error) });
  }
}

function refusalOf(error: unknown): Refusal {
  if (error instanceof RefusedError) return error.refusal;
  // Reading the rows touches every page: what is broken is found here.
  return { reason: 'damaged', detail: explainError(error) };
}
