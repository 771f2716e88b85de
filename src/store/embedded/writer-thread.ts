/**
 * The embedded store's writer: a thread of its own, so that waiting for the disk stops nothing else.
 * Speaks `protocol.ts` over its parent port.
 */
import { parentPort, workerData } from 'node:worker_threads';
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

let opened: Database | undefined;
try {
  const database = openDatabase((workerData as WriterOptions).path);
  opened = database;
  load(database);
  port.on('message', (message: ToWriter) => {
    if (message.type === 'commit') commit(database, message);
    else {
      database[Symbol.dispose]();
      port.close();
    }
  });
} catch (error) {
  opened?.[Symbol.dispose]();
  post({ type: 'refused', refusal: refusalOf(error) });
  port.close();
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
