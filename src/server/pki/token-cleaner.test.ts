import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import { startTokenCleaner } from './token-cleaner.ts';
import { createToken, listTokens } from './tokens.ts';

test('startTokenCleaner() removes what has expired before it began and what expires later', async () => {
  const [store, clock] = [openMemoryStore(), new FakeClock()];
  const make = async (ttlMs: number | undefined) =>
    (await createToken(store, { caFingerprint: 'x', description: '', ttlMs, clock })).token.id;
  const idsLeft = async () => (await listTokens(store)).map(({ id }) => id).toSorted();
  await make(1_000);
  const later = await make(30_000);
  const never = await make(undefined);
  clock.advance(1_000);
  await using cleaner = startTokenCleaner({ store, log: silentLogger, clock });
  /** Until it has swept once more; the fake clock's timers fire in its own turns. */
  const swept = async (advanceMs: number) => {
    const { runs } = cleaner;
    clock.advance(advanceMs);
    await until(() => cleaner.runs !== runs);
  };
  await swept(0);
  assert.deepEqual(await idsLeft(), [later, never].toSorted());
  await swept(60_000);
  assert.deepEqual(await idsLeft(), [never]);
});
