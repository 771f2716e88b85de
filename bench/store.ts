/**
 * The embedded store: durable writes alone and in company, reads and watches, opening.
 *
 * usage: ./dev bench store      one JSON object a line, see docs/benchmarks.md
 *
 * The peer of the writes is SQLite itself in the same run: the same rows, one commit each, through `node:sqlite`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { openEmbeddedStore } from '#store/embedded/embedded-store.ts';
import type { Store } from '#store/port.ts';

const ROUNDS = 5;
const SEQUENTIAL_WRITES = 300;
const CONCURRENT_WRITES = 2000;
const CONCURRENCY = 64;
/** A multiple of CONCURRENT_WRITES, and within the history that is kept. */
const KEYS = 20_000;
const READS = 100_000;
const VALUE = new Uint8Array(1024).fill(120);

const directory = mkdtempSync(join(process.env.TULLE_BENCH_DIR ?? '/var/tmp', 'tulle-bench-'));
try {
  await benchWrites();
  await benchReads();
} finally {
  rmSync(directory, { recursive: true });
}

async function benchWrites(): Promise<void> {
  await using store = await openEmbeddedStore({ directory: join(directory, 'writes') });
  using peer = openPeer(join(directory, 'peer.db'));
  const ours: number[] = [];
  const grouped: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(await perSecond(SEQUENTIAL_WRITES, async () => peer.write(SEQUENTIAL_WRITES)));
    ours.push(await perSecond(SEQUENTIAL_WRITES, () => writeInLine(store, SEQUENTIAL_WRITES)));
    grouped.push(await perSecond(CONCURRENT_WRITES, () => writeInCompany(store)));
  }
  const peerValue = median(theirs);
  report('durable writes, one at a time, 1 KiB', median(ours), 'writes/s', peerValue);
  report(`durable writes, ${CONCURRENCY} at a time, 1 KiB`, median(grouped), 'writes/s', peerValue);
}

async function benchReads(): Promise<void> {
  const path = join(directory, 'reads');
  {
    await using store = await openEmbeddedStore({ directory: path });
    for (let from = 0; from < KEYS; from += CONCURRENT_WRITES) await fill(store, from);
    report('get', await perSecond(READS, () => getMany(store)), 'reads/s');
    report(`list of ${KEYS}`, await medianMs(() => store.list('/bench/')), 'ms');
    report('page of 500', await medianMs(() => store.list('/bench/', { limit: 500 })), 'ms');
    report('watch, catching up', await perSecond(KEYS, () => watchAll(store)), 'changes/s');
  }
  const elapsed = await milliseconds(async () => {
    await using store = await openEmbeddedStore({ directory: path });
    await store.revision();
  });
  report(`open and close with ${KEYS} keys of 1 KiB`, elapsed, 'ms');
}

function put(store: Store, key: string): Promise<unknown> {
  return store.transact([], [{ type: 'put', key, value: VALUE }]);
}

async function fill(store: Store, from: number): Promise<void> {
  const keys = Array.from({ length: CONCURRENT_WRITES }, (_, i) => `/bench/${from + i}`);
  await Promise.all(keys.map((key) => put(store, key)));
}

async function writeInLine(store: Store, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await put(store, `/line/${i}`);
}

async function writeInCompany(store: Store): Promise<void> {
  let next = 0;
  const one = async () => {
    while (next < CONCURRENT_WRITES) await put(store, `/company/${next++}`);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, one));
}

async function getMany(store: Store): Promise<void> {
  for (let i = 0; i < READS; i++) await store.get(`/bench/${i % KEYS}`);
}

async function watchAll(store: Store): Promise<void> {
  const end = new AbortController();
  let seen = 0;
  const first = (await store.revision()) - KEYS;
  for await (const batch of store.watch('/bench/', first, { signal: end.signal })) {
    seen += batch.events.length;
    if (seen === KEYS) end.abort();
  }
}

/** SQLite as it comes, with the same promise: one commit a row, on disk when it returns. */
function openPeer(path: string): Disposable & { write(count: number): void } {
  const db = new DatabaseSync(path);
  db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (k TEXT, v BLOB)');
  const insert = db.prepare('INSERT INTO t VALUES (?, ?)');
  return {
    write(count) {
      for (let i = 0; i < count; i++) insert.run(`/line/${i}`, VALUE);
    },
    [Symbol.dispose]: () => db.close(),
  };
}

async function medianMs(action: () => Promise<unknown>): Promise<number> {
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) rounds.push(await milliseconds(action));
  return median(rounds);
}

async function milliseconds(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

async function perSecond(count: number, action: () => Promise<unknown>): Promise<number> {
  return (count * 1000) / (await milliseconds(action));
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

function report(name: string, value: number, unit: string, peerValue?: number): void {
  const peer =
    peerValue === undefined
      ? { peer: null, peer_value: null, ratio: null }
      : { peer: 'node:sqlite', peer_value: peerValue, ratio: value / peerValue };
  console.log(JSON.stringify({ bench: 'store', case: name, value, unit, ...peer }));
}
