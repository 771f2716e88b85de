/**
 * Objects that go by themselves: those of kinds with `expiresAfterMs` hang on leases of the store. As upstream, many of them
 * on one, which lasts a little longer than the last of them needs: a lease for each would cost more than the object.
 */
import type { KindDefinition } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Store, StoreLease } from '#store/port.ts';
import { decodeEntry } from './codec.ts';
import { collectionPrefix } from './keys.ts';

/** How long objects are hung on the same lease: an object may live so much longer than it should. */
const LEASE_REUSE_MS = 60_000;
/** Then the next lease is begun: what goes in one revision is one message to every watcher. */
const MAX_OBJECTS_PER_LEASE = 1_000;

export interface ObjectLeases {
  /** A lease that lasts at least so long from now. @throws StoreWriteError */
  lasting(ttlMs: number): Promise<number>;
  /** It is gone: another one is made. */
  forget(id: number): void;
}

export function createObjectLeases(store: Store, clock: Clock): ObjectLeases {
  interface Current {
    readonly lease: Promise<StoreLease>;
    readonly sinceMs: number;
    objects: number;
    id: number | undefined;
  }
  const byTtl = new Map<number, Current>();
  const begin = (ttlMs: number): Current => {
    const lease = store.grantLease(ttlMs + LEASE_REUSE_MS);
    const current: Current = { lease, sinceMs: clock.elapsed(), objects: 0, id: undefined };
    byTtl.set(ttlMs, current);
    lease.then(
      ({ id }) => {
        current.id = id;
      },
      // Those who wait for it are told; the next one tries again.
      () => byTtl.get(ttlMs) === current && byTtl.delete(ttlMs),
    );
    return current;
  };
  return {
    async lasting(ttlMs) {
      let current = byTtl.get(ttlMs);
      const isUsedUp =
        current === undefined ||
        current.objects >= MAX_OBJECTS_PER_LEASE ||
        clock.elapsed() - current.sinceMs >= LEASE_REUSE_MS;
      if (current === undefined || isUsedUp) current = begin(ttlMs);
      current.objects++;
      return (await current.lease).id;
    },
    forget(id) {
      for (const [ttlMs, current] of byTtl) if (current.id === id) byTtl.delete(ttlMs);
    },
  };
}

export interface ExpiryOptions {
  readonly store: Store;
  readonly kinds: readonly KindDefinition[];
  readonly log: Logger;
  readonly clock: Clock;
}

/**
 * Looks for objects that hang on no lease although they should, now and as often as they expire: those of a restored
 * backup, and of programs before there were leases.
 */
export function startExpirySweep(options: ExpiryOptions): AsyncDisposable {
  const { kinds, log, clock } = options;
  const stack = new AsyncDisposableStack();
  for (const kind of kinds) {
    if (kind.expiresAfterMs === undefined || kind.storedAs !== undefined) continue;
    const sweep = () => sweepExpired(kind, options);
    const name = `expiry of ${kind.resource}`;
    const loop = new SyncLoop(sweep, { name, log, clock, resyncMs: kind.expiresAfterMs });
    stack.use(loop);
    loop.trigger();
  }
  return stack;
}

/** Deletes what has not been written for longer than any lease lasts. */
export async function sweepExpired(
  kind: KindDefinition,
  { store, clock }: Pick<ExpiryOptions, 'store' | 'clock'>,
): Promise<void> {
  const endMs = clock.now() - (kind.expiresAfterMs ?? Number.POSITIVE_INFINITY) - LEASE_REUSE_MS;
  for (const entry of (await store.list(collectionPrefix(kind))).entries) {
    if (lastWrittenMs(decodeEntry(entry)) >= endMs) continue;
    const { key, modRevision } = entry;
    await store.transact([{ key, modRevision }], [{ type: 'delete', key }]);
  }
}

/** As far as the object says: the newest time in it that is no plan for the future. */
function lastWrittenMs(object: KubeObject): number {
  const { lastTimestamp, eventTime, series } = object as {
    lastTimestamp?: string | null;
    eventTime?: string | null;
    series?: { lastObservedTime?: string };
  };
  const times = [
    object.metadata.creationTimestamp,
    lastTimestamp,
    eventTime,
    series?.lastObservedTime,
  ].map((text) => Date.parse(text ?? ''));
  return Math.max(...times.filter((ms) => !Number.isNaN(ms)), 0);
}
