/** Counts queries without allocating: each combination of labels is a place in an array. */
import { TYPE_NAMES } from '#wire/dns/constants.ts';
import type { StatsDelta } from './server/messages.ts';

/** CoreDNS's buckets, in seconds: 0.25 ms doubled fifteen times. */
export const DURATION_BUCKETS_S: readonly number[] = Array.from(
  { length: 16 },
  (_, i) => 0.00025 * 2 ** i,
);

/** CoreDNS's buckets of messages' sizes, in octets. */
export const SIZE_BUCKETS_BYTES: readonly number[] = [
  ...[0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291],
  ...[16_000, 32_000, 48_000, 64_000],
];
/** The buckets, one for what is larger, and the sum of the octets. */
export const SIZE_SLOTS = SIZE_BUCKETS_BYTES.length + 2;

/** Where the counts of one kind of message begin. */
export function sizeSlot(transport: 'udp' | 'tcp', direction: 'request' | 'response'): number {
  return ((transport === 'tcp' ? 2 : 0) + (direction === 'response' ? 1 : 0)) * SIZE_SLOTS;
}

/** The types with a label of their own; the others are "other", so that clients cannot make labels. */
const TYPES = Object.keys(TYPE_NAMES).map(Number);
const TYPE_INDEX = new Uint8Array(256).fill(TYPES.length);
for (const [index, type] of TYPES.entries()) TYPE_INDEX[type] = index;

const RCODES = 32;
const TYPE_SLOTS = 32;

export interface RequestLabels {
  readonly rcode: number;
  readonly type: string;
  readonly family: 4 | 6;
  readonly transport: 'udp' | 'tcp';
  readonly source: 'cluster' | 'forward';
}

/** Of one answer; the responder has one record of them, which it fills for each. */
export interface AnswerLabels {
  rcode: number;
  type: number;
  family: 4 | 6;
  transport: 'udp' | 'tcp';
  forwarded: boolean;
}

export function newAnswerLabels(): AnswerLabels {
  return { rcode: 0, type: 0, family: 4, transport: 'udp', forwarded: false };
}

export function requestKey(labels: Readonly<AnswerLabels>): number {
  const type = labels.type < 256 ? (TYPE_INDEX[labels.type] ?? TYPES.length) : TYPES.length;
  const flags =
    (labels.family === 6 ? 1 : 0) |
    (labels.transport === 'tcp' ? 2 : 0) |
    (labels.forwarded ? 4 : 0);
  return (flags * TYPE_SLOTS + type) * RCODES + (labels.rcode % RCODES);
}

export function requestLabels(key: number): RequestLabels {
  const flags = Math.floor(key / (RCODES * TYPE_SLOTS));
  const type = TYPES[Math.floor(key / RCODES) % TYPE_SLOTS];
  return {
    rcode: key % RCODES,
    type: type === undefined ? 'other' : (TYPE_NAMES[type] ?? 'other'),
    family: (flags & 1) !== 0 ? 6 : 4,
    transport: (flags & 2) !== 0 ? 'tcp' : 'udp',
    source: (flags & 4) !== 0 ? 'forward' : 'cluster',
  };
}

/** The worker's counters. */
export class Stats {
  readonly #requests = new Float64Array(8 * TYPE_SLOTS * RCODES);
  #buckets = emptyBuckets();
  #sumS = 0;
  readonly #sizes = new Float64Array(4 * SIZE_SLOTS);
  dnssecOk = 0;
  cacheHits = 0;
  cacheDenialHits = 0;
  prefetches = 0;
  evictions = 0;
  rateLimited = 0;
  cutForStrangers = 0;
  cacheMisses = 0;
  staleServed = 0;
  dropped = 0;
  sendErrors = 0;

  count(key: number): void {
    this.#requests[key] = (this.#requests[key] ?? 0) + 1;
  }

  /** Counts a message by its size. @param slot of {@link sizeSlot} */
  addSize(slot: number, bytes: number): void {
    let i = 0;
    while (i < SIZE_BUCKETS_BYTES.length && bytes > (SIZE_BUCKETS_BYTES[i] ?? 0)) i++;
    this.#sizes[slot + i] = (this.#sizes[slot + i] ?? 0) + 1;
    const sumAt = slot + SIZE_SLOTS - 1;
    this.#sizes[sumAt] = (this.#sizes[sumAt] ?? 0) + bytes;
  }

  /** @param count queries that took this long */
  observe(durationS: number, count: number): void {
    const i = bucketOf(durationS);
    this.#buckets[i] = (this.#buckets[i] ?? 0) + count;
    this.#sumS += durationS * count;
  }

  /** The counts since the last call. */
  take(sizes: { names: number; cacheSuccess: number; cacheDenial: number }): StatsDelta {
    const requests: [number, number][] = [];
    for (const [key, count] of this.#requests.entries()) if (count > 0) requests.push([key, count]);
    const delta: StatsDelta = {
      requests,
      durationBuckets: this.#buckets,
      durationSumS: this.#sumS,
      sizes: [...this.#sizes],
      dnssecOk: this.dnssecOk,
      cacheHits: this.cacheHits,
      cacheDenialHits: this.cacheDenialHits,
      prefetches: this.prefetches,
      evictions: this.evictions,
      rateLimited: this.rateLimited,
      cutForStrangers: this.cutForStrangers,
      cacheMisses: this.cacheMisses,
      staleServed: this.staleServed,
      dropped: this.dropped,
      sendErrors: this.sendErrors,
      ...sizes,
    };
    this.#requests.fill(0);
    this.#sizes.fill(0);
    this.dnssecOk = 0;
    this.#buckets = emptyBuckets();
    this.#sumS = 0;
    this.cacheHits = this.cacheMisses = this.staleServed = this.dropped = this.sendErrors = 0;
    this.cacheDenialHits = this.prefetches = this.evictions = 0;
    this.rateLimited = this.cutForStrangers = 0;
    return delta;
  }
}

/** The place of a duration among the buckets, and behind them. */
export function bucketOf(durationS: number): number {
  let i = 0;
  while (i < DURATION_BUCKETS_S.length && durationS > (DURATION_BUCKETS_S[i] ?? 0)) i++;
  return i;
}

export function emptyBuckets(): number[] {
  return new Array<number>(DURATION_BUCKETS_S.length + 1).fill(0);
}
