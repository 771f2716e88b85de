/**
 * Says of each ServiceCIDR whether it is ready, and lets go of one that is to go when no service has an address of it any
 * more. The server looks once more (`server/admission/service-cidrs.ts`), so a cache that is behind costs a refused write.
 */

import type { Service } from '#api/core/v1/service.ts';
import { formatTime } from '#api/machinery/time.ts';
import {
  SERVICE_CIDR,
  SERVICE_CIDR_FINALIZER,
  type ServiceCIDR,
} from '#api/networking/v1/service-cidr.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { type Controller, controllerOf } from '../controller.ts';
import { planServiceCidrs, type ServiceCidrChange } from './plan.ts';

/** Many services that go at once are one look. */
const MIN_INTERVAL_MS = 100;

export interface ServiceCidrsOptions {
  readonly client: ApiClient;
  readonly cidrs: Cache<ServiceCIDR>;
  readonly services: Cache<Service>;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startServiceCidrs(options: ServiceCidrsOptions): Controller {
  const { cidrs, services, log, clock } = options;
  const loop = new SyncLoop(
    async () => {
      await Promise.all([cidrs.synced(), services.synced()]);
      for (const change of planServiceCidrs(cidrs.values(), services.values()))
        await carryOut(options, change);
    },
    { name: 'service cidrs', log, clock, minIntervalMs: MIN_INTERVAL_MS },
  );
  const isWaiting = () =>
    [...cidrs.values()].some(({ metadata }) => metadata.deletionTimestamp !== undefined);
  const stops = [
    cidrs.onChange(() => loop.trigger()),
    services.onChange(() => {
      if (isWaiting()) loop.trigger();
    }),
  ];
  loop.trigger();
  return controllerOf(loop, stops);
}

/** Who has changed the range meanwhile brings us here again. */
async function carryOut(
  { client, clock, log }: ServiceCidrsOptions,
  { cidr, condition, isFree }: ServiceCidrChange,
): Promise<void> {
  const { metadata } = cidr;
  try {
    if (isFree) {
      const finalizers = metadata.finalizers?.filter((it) => it !== SERVICE_CIDR_FINALIZER) ?? [];
      await client.update(SERVICE_CIDR, { ...cidr, metadata: { ...metadata, finalizers } });
      log.info({ name: metadata.name }, 'a range of cluster IPs is gone');
    } else if (condition !== undefined) {
      const others = cidr.status?.conditions?.filter(({ type }) => type !== condition.type) ?? [];
      const lastTransitionTime = formatTime(clock.now());
      const status = { conditions: [...others, { ...condition, lastTransitionTime }] };
      const target = { name: metadata.name, subresource: 'status' as const };
      const patch = { type: 'application/merge-patch+json' as const, body: { status } };
      await client.patch(SERVICE_CIDR, target, patch);
    }
  } catch (error) {
    if (!isConflict(error) && !isNotFound(error)) throw error;
  }
}
