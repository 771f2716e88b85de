/**
 * Keeps the settings of the whole node that pods need: that it forwards. Whoever turns that off (another program's
 * `sysctl --system`, a tool that hardens the machine) cuts every pod off.
 */
import type { Clock } from '#lib/clock.ts';
import type { Family } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { NetworkEvent, NetworkStack } from '#linux/network/port.ts';
import { enableForwarding } from './link.ts';

/** Backstop for lost events. */
const RESYNC_MS = 30_000;

/** In force when it returns. */
export function keepForwarding(
  { host, log, clock }: { host: NetworkStack; log: Logger; clock?: Clock },
  families: readonly Family[],
): AsyncDisposable {
  enableForwarding(host, families);
  const loop = new SyncLoop(
    () => {
      const changed = enableForwarding(host, families);
      if (changed.length > 0) log.warn({ settings: changed }, 'put settings of the node right');
    },
    {
      name: 'cni: forwarding',
      log,
      resyncMs: RESYNC_MS,
      ...(clock === undefined ? {} : { clock }),
    },
  );
  const unwatch = host.watch((event) => {
    if (concerns(event)) loop.trigger();
  });
  loop.trigger();
  return {
    async [Symbol.asyncDispose]() {
      unwatch();
      await loop[Symbol.asyncDispose]();
    },
  };
}

/**
 * Of a single link it is told too when `all` is changed, and a card whose forwarding was turned off alone is its owner's
 * wish.
 */
function concerns(event: NetworkEvent): boolean {
  if (event.type === 'overrun') return true;
  return event.type === 'setting' && event.setting === 'forwarding' && event.link === 'all';
}
