/** Removes join tokens that have expired, as upstream's token cleaner. */
import { type Clock, systemClock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Store } from '#store/port.ts';
import { removeExpiredTokens } from './tokens.ts';

/** An expired token is refused at once; only its record stays so long. */
const SWEEP_MS = 60_000;

/** Sweeps now and every minute, until it is disposed. Several servers may: a token goes once. */
export function startTokenCleaner(options: {
  readonly store: Store;
  readonly log: Logger;
  readonly clock?: Clock;
}): SyncLoop {
  const { store, log, clock = systemClock } = options;
  const loop = new SyncLoop(
    async () => {
      const removed = await removeExpiredTokens(store, clock);
      if (removed.length > 0) log.info({ ids: removed }, 'removed join tokens that had expired');
    },
    { name: 'expiry of join tokens', log, clock, resyncMs: SWEEP_MS },
  );
  loop.trigger();
  return loop;
}
