/** Runs a pass over what is stored whenever an object of a kind changes. */
import type { KindRef } from '#api/kind.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Store } from '#store/port.ts';
import { collectionPrefix } from './registry/keys.ts';

export interface KindLoopOptions {
  /** As messages call it. */
  readonly name: string;
  readonly store: Store;
  readonly log: Logger;
  readonly clock: Clock;
  /** Between passes that nothing has asked for, which also go on after a watch that ended. */
  readonly resyncMs: number;
}

/** Runs the first pass at once; disposing ends the loop. */
export function startKindLoop(
  kind: KindRef,
  sync: () => Promise<void>,
  { name, store, log, clock, resyncMs }: KindLoopOptions,
): AsyncDisposable {
  const stop = new AbortController();
  const loop = new SyncLoop(sync, { name, log, clock, resyncMs });
  loop.trigger();
  const watching = (async () => {
    const revision = await store.revision();
    for await (const batch of store.watch(collectionPrefix(kind), revision, {
      signal: stop.signal,
    }))
      if (batch.events.length > 0) loop.trigger();
  })().catch((error) =>
    // The resync goes on without it, slower.
    log.warn({ error: explainError(error) }, `${name}: the watch ended`),
  );
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await loop[Symbol.asyncDispose]();
      await watching;
    },
  };
}
