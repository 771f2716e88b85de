/**
 * Power cuts: what a real store wrote under load is recorded at the system calls (strace), and replayed on a disk that
 * forgets what was not synced: all of it, or any sectors. `TULLE_POWER_CUTS` is the number of cuts (default 12).
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { openEmbeddedStore } from './embedded-store.ts';
import { assertPrefix } from './testing-prefix.ts';
import { type FileEvent, LossyDisk, parseTrace } from './testing-trace.ts';
import { HISTORY_REVISIONS } from './testing-writer.ts';

const CUTS = Number(process.env.TULLE_POWER_CUTS ?? 12);
/** Acknowledged transactions that are recorded: some checkpoints of the log are among them. */
const TRANSACTIONS = 5_000;
const skip =
  spawnSync('strace', ['-qq', '-o', '/dev/null', 'true']).status === 0
    ? false
    : 'there is no strace here, or it is not allowed';

const root = mkdtempSync(join(tmpdir(), 'tulle-power-'));
after(() => rmSync(root, { recursive: true }));
let events: readonly FileEvent[] = [];

before(async () => {
  if (skip === false) events = await record();
});

async function record(): Promise<FileEvent[]> {
  const directory = join(root, 'recorded');
  const trace = join(root, 'trace');
  const calls = 'trace=openat,close,write,pwrite64,fsync,fdatasync,ftruncate,unlink';
  const child = spawn(
    'strace',
    [
      ...['-f', '-qq', '-xx', '-s', '70000', '-e', calls, '-o', trace, process.execPath],
      ...['--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'testing-writer.ts')],
      directory,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], detached: true },
  );
  assert.ok(child.pid !== undefined);
  const exit = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout }))
    if (Number(line) >= TRANSACTIONS) break;
  process.kill(-child.pid, 'SIGKILL');
  await exit;
  return parseTrace(readFileSync(trace, 'latin1'), directory);
}

/** Cuts the power at random places, opens what is left, and checks it. @returns the number of cuts that lost something */
async function cutPower(recorded: readonly FileEvent[], keeps: () => boolean): Promise<number> {
  const places = new Set(
    Array.from({ length: CUTS }, () => Math.floor(Math.random() * recorded.length)),
  );
  const disk = new LossyDisk();
  let acknowledged = 0;
  let lossy = 0;
  for (const [index, event] of recorded.entries()) {
    disk.take(event);
    if (event.type === 'told') acknowledged = Math.max(acknowledged, Number(event.text) || 0);
    if (!places.has(index) || acknowledged === 0) continue;
    const directory = join(root, `cut-${index}`);
    mkdirSync(directory, { mode: 0o700 });
    for (const [name, content] of disk.afterPowerCut(keeps))
      writeFileSync(join(directory, name), content, { mode: 0o600 });
    {
      await using store = await openEmbeddedStore({
        directory,
        historyRevisions: HISTORY_REVISIONS,
      });
      const revision = await store.revision();
      if (revision < acknowledged) lossy++;
      else await assertPrefix(store, revision);
      // And it can be written on.
      await store.transact([], [{ type: 'put', key: '/after', value: new Uint8Array([1]) }]);
    }
    rmSync(directory, { recursive: true });
  }
  return lossy;
}

test('the record has writes, syncs and acknowledgements', { skip }, () => {
  const types = Map.groupBy(events, ({ type }) => type);
  for (const type of ['write', 'sync', 'told'] as const)
    assert.ok((types.get(type)?.length ?? 0) > 100, `${type}: ${types.get(type)?.length}`);
});

test('a power cut that drops every unsynced write loses no acknowledged one', {
  skip,
}, async () => {
  assert.equal(await cutPower(events, () => false), 0);
});

test('a power cut that keeps any sectors of the unsynced writes loses no acknowledged one', {
  skip,
}, async () => {
  assert.equal(await cutPower(events, () => Math.random() < 0.5), 0);
});

test('the check finds a store that acknowledges before it syncs', { skip }, async () => {
  // The same record as if every acknowledgement had come one sync too early.
  const early: FileEvent[] = [];
  const acknowledgements = events.filter((event) => event.type === 'told');
  let told = 0;
  for (const event of events)
    if (event.type === 'told') {
      told++;
      const sooner = acknowledgements[told + 40];
      if (sooner !== undefined) early.push(sooner);
    } else early.push(event);
  assert.ok((await cutPower(early, () => false)) > 0);
});
