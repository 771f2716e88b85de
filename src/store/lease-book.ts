/**
 * Which leases a store has, until when, and which keys hang on them. In memory: the journal keeps that a lease is there and
 * what hangs on it, but not its end, so that an opened store gives every lease its whole time again.
 */
import type { Clock } from '#lib/clock.ts';
import { leaseOf } from './held-entry.ts';
import type { WatchBatch } from './port.ts';

interface BookedLease {
  readonly ttlMs: number;
  readonly keys: Set<string>;
  dueMs: number;
  cancel: () => void;
}

export class LeaseBook implements Disposable {
  readonly #clock: Clock;
  readonly #onDue: (id: number) => void;
  readonly #leases = new Map<number, BookedLease>();
  readonly #leaseByKey = new Map<string, number>();

  /** @param onDue called when the time of a lease is over; it stays until it is removed */
  constructor(clock: Clock, onDue: (id: number) => void) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  get size(): number {
    return this.#leases.size;
  }

  has(id: number): boolean {
    return this.#leases.has(id);
  }

  isDue(id: number): boolean {
    return (this.#leases.get(id)?.dueMs ?? Number.POSITIVE_INFINITY) <= this.#clock.elapsed();
  }

  countOf(id: number): number {
    return this.#leases.get(id)?.keys.size ?? 0;
  }

  keysOf(id: number): readonly string[] {
    return [...(this.#leases.get(id)?.keys ?? [])];
  }

  grant(id: number, ttlMs: number): void {
    const lease: BookedLease = { ttlMs, keys: new Set(), dueMs: 0, cancel: () => {} };
    this.#leases.set(id, lease);
    this.#arm(id, lease, ttlMs);
  }

  /** @returns false if there is no such lease */
  keepAlive(id: number): boolean {
    const lease = this.#leases.get(id);
    if (lease === undefined) return false;
    this.#arm(id, lease, lease.ttlMs);
    return true;
  }

  /** Says once more, after a while, that a lease is due: what was to be done then has failed. */
  remind(id: number, afterMs: number): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.cancel();
    lease.cancel = this.#clock.schedule(afterMs, () => this.#onDue(id));
  }

  remove(id: number): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.cancel();
    for (const key of lease.keys) this.#leaseByKey.delete(key);
    this.#leases.delete(id);
  }

  /** Takes note of what was written. */
  take(records: readonly WatchBatch[]): void {
    for (const { events } of records)
      for (const event of events) {
        if (event.type === 'put') this.attach(event.entry.key, leaseOf(event.entry));
        else this.attach(event.key, 0);
      }
  }

  /** @param id 0: the key hangs on no lease from now on */
  attach(key: string, id: number): void {
    const before = this.#leaseByKey.get(key);
    if (before !== undefined) {
      this.#leases.get(before)?.keys.delete(key);
      this.#leaseByKey.delete(key);
    }
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.keys.add(key);
    this.#leaseByKey.set(key, id);
  }

  [Symbol.dispose](): void {
    for (const lease of this.#leases.values()) lease.cancel();
    this.#leases.clear();
    this.#leaseByKey.clear();
  }

  #arm(id: number, lease: BookedLease, ms: number): void {
    lease.cancel();
    lease.dueMs = this.#clock.elapsed() + ms;
    lease.cancel = this.#clock.schedule(ms, () => this.#onDue(id));
  }
}
