/**
 * Pure: turns what happened into Event objects without flooding the server. `k8s.io/client-go/tools/record/events_cache.go`
 * does the same in the same order:
 *
 *   1. too many events about one object: dropped (a bucket of tokens per object)
 *   2. many different messages of one reason: one event for all ("combined from similar events")
 *   3. the same once more: the count of the first one is raised
 */
import type { ObjectReference } from '#api/core/v1/object-reference.ts';

export interface Occurrence {
  readonly regarding: ObjectReference;
  readonly type: 'Normal' | 'Warning';
  /** CamelCase, for machines: `NodeNotReady`. */
  readonly reason: string;
  /** For people. */
  readonly message: string;
  readonly atMs: number;
}

/** What to record of an occurrence. `first` is the one whose Event object is to be counted up. */
export type Correlated =
  | { readonly type: 'drop' }
  | { readonly type: 'create'; readonly key: string; readonly message: string }
  | {
      readonly type: 'count';
      readonly key: string;
      readonly message: string;
      readonly count: number;
      readonly firstAtMs: number;
    };

/** Events about one object at once, and one more for each refill: upstream's figures. */
const SPAM_BURST = 25;
const SPAM_REFILL_MS = 300_000;
/** From this many different messages within the interval on they are combined. */
const MAX_SIMILAR = 10;
const SIMILAR_INTERVAL_MS = 600_000;
/** Objects, reasons and messages remembered; what is forgotten is only counted anew. */
const MAX_REMEMBERED = 4_096;

export class EventCorrelator {
  readonly #buckets = new BoundedMap<{ tokens: number; atMs: number }>(MAX_REMEMBERED);
  readonly #similar = new BoundedMap<{ messages: Set<string>; atMs: number }>(MAX_REMEMBERED);
  readonly #counts = new BoundedMap<{ count: number; firstAtMs: number }>(MAX_REMEMBERED);

  correlate(occurrence: Occurrence): Correlated {
    const { regarding, type, reason, atMs } = occurrence;
    const object = JSON.stringify([
      regarding.kind,
      regarding.namespace,
      regarding.name,
      regarding.uid,
    ]);
    if (!this.#takeToken(object, atMs)) return { type: 'drop' };
    const group = JSON.stringify([object, type, reason]);
    const isCombined = this.#isOneOfMany(group, occurrence);
    const message = isCombined
      ? `(combined from similar events): ${occurrence.message}`
      : occurrence.message;
    const key = isCombined ? group : JSON.stringify([group, message]);
    const known = this.#counts.get(key);
    if (known === undefined) {
      this.#counts.set(key, { count: 1, firstAtMs: atMs });
      return { type: 'create', key, message };
    }
    const count = known.count + 1;
    this.#counts.set(key, { ...known, count });
    return { type: 'count', key, message, count, firstAtMs: known.firstAtMs };
  }

  /** The Event object is not there (any more): the next of its kind is a first one. */
  forget(key: string): void {
    this.#counts.delete(key);
  }

  #takeToken(object: string, atMs: number): boolean {
    const bucket = this.#buckets.get(object) ?? { tokens: SPAM_BURST, atMs };
    const refilled = bucket.tokens + (atMs - bucket.atMs) / SPAM_REFILL_MS;
    const tokens = Math.min(SPAM_BURST, refilled);
    const isLet = tokens >= 1;
    this.#buckets.set(object, { tokens: isLet ? tokens - 1 : tokens, atMs });
    return isLet;
  }

  #isOneOfMany(group: string, { message, atMs }: Occurrence): boolean {
    let similar = this.#similar.get(group);
    if (similar === undefined || atMs - similar.atMs > SIMILAR_INTERVAL_MS)
      similar = { messages: new Set(), atMs };
    // No more than the limit are needed to know that it is passed.
    if (similar.messages.size < MAX_SIMILAR) similar.messages.add(message);
    this.#similar.set(group, { ...similar, atMs });
    return similar.messages.size >= MAX_SIMILAR;
  }
}

/** Forgets what was set longest ago. */
class BoundedMap<V> {
  readonly #map = new Map<string, V>();
  readonly #maxSize: number;

  constructor(maxSize: number) {
    this.#maxSize = maxSize;
  }

  get(key: string): V | undefined {
    return this.#map.get(key);
  }

  set(key: string, value: V): void {
    this.#map.delete(key);
    this.#map.set(key, value);
    if (this.#map.size <= this.#maxSize) return;
    for (const oldest of this.#map.keys()) {
      this.#map.delete(oldest);
      return;
    }
  }

  delete(key: string): void {
    this.#map.delete(key);
  }
}
