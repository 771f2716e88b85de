/** Keeps the status of the IPPools: how many addresses are in use, in how many blocks. */
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL, type IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { type Controller, controllerOf } from '../controller.ts';
import { planPoolStatus } from './plan.ts';

/** For people to look at: a second behind is no loss, and a storm of pods becomes few writes. */
const MIN_INTERVAL_MS = 1_000;

export interface PoolStatusOptions {
  readonly client: ApiClient;
  readonly pools: Cache<IPPool>;
  readonly blocks: Cache<IPBlock>;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startPoolStatus(options: PoolStatusOptions): Controller {
  const { client, pools, blocks, log, clock } = options;
  const loop = new SyncLoop(
    async () => {
      await Promise.all([pools.synced(), blocks.synced()]);
      for (const { pool, status } of planPoolStatus(pools.values(), blocks.values())) {
        const target = { name: pool.metadata.name, subresource: 'status' as const };
        const patch = { type: 'application/merge-patch+json' as const, body: { status } };
        await client.patch(IP_POOL, target, patch).catch((error: unknown) => {
          // Deleted meanwhile: then it has no status to keep.
          if (!isNotFound(error)) throw error;
        });
      }
    },
    { name: 'pool status', log, clock, minIntervalMs: MIN_INTERVAL_MS },
  );
  const trigger = () => loop.trigger();
  const stops = [pools.onChange(trigger), blocks.onChange(trigger)];
  trigger();
  return controllerOf(loop, stops);
}
