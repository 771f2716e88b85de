/** Upstream's answers, kept for as long as their TTLs allow. Bounded; what was used longest ago goes first. */
import { canonicalName, type Name } from '#wire/dns/name.ts';
import type { Relay } from './relay.ts';

/** CoreDNS keeps as many; a node's pods ask for a few hundred names. */
const MAX_ENTRIES = 10_000;
/** A bound on the memory that one pod can make us use by asking for large answers. */
const MAX_CACHE_BYTES = 32 * 1024 * 1024;
/** How long after its end an answer may still be given when no upstream answers (RFC 8767 says days; names of services move faster). */
const MAX_STALE_MS = 3600_000;

export interface CachedAnswer {
  readonly relay: Relay;
  readonly storedAtMs: number;
}

/** Everything of a question that can make its answer another. */
export function cacheKey(
  name: Name,
  options: { type: number; dnssecOk: boolean; checkingDisabled: boolean },
): string {
  const flags = (options.dnssecOk ? 'd' : '') + (options.checkingDisabled ? 'c' : '');
  return `${options.type}${flags} ${canonicalName(name)}`;
}

export class AnswerCache {
  /** In order of use: a Map keeps the order of insertion. */
  readonly #entries = new Map<string, CachedAnswer>();
  readonly #maxEntries: number;
  #bytes = 0;
  #negative = 0;

  constructor(options: { maxEntries?: number } = {}) {
    this.#maxEntries = options.maxEntries ?? MAX_ENTRIES;
  }

  /** Entries with an answer, and with a denial. */
  get sizes(): { success: number; denial: number } {
    return { success: this.#entries.size - this.#negative, denial: this.#negative };
  }

  /** @returns an answer whose time is not over */
  get(key: string, nowMs: number): CachedAnswer | undefined {
    const found = this.#entries.get(key);
    if (found === undefined || ageS(found, nowMs) >= found.relay.lifetimeS) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, found);
    return found;
  }

  /** @returns an answer whose time is over, but not for long: better than none */
  getStale(key: string, nowMs: number): CachedAnswer | undefined {
    const found = this.#entries.get(key);
    if (found === undefined) return undefined;
    return nowMs - found.storedAtMs - found.relay.lifetimeS * 1000 > MAX_STALE_MS
      ? undefined
      : found;
  }

  /** Keeps an answer, if it may be kept at all. */
  put(key: string, relay: Relay, nowMs: number): void {
    if (relay.lifetimeS <= 0) return;
    this.#remove(key);
    this.#entries.set(key, { relay, storedAtMs: nowMs });
    this.#bytes += relay.bytes.length;
    if (relay.negative) this.#negative++;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#maxEntries && this.#bytes <= MAX_CACHE_BYTES) break;
      this.#remove(oldest);
    }
  }

  #remove(key: string): void {
    const old = this.#entries.get(key);
    if (old === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= old.relay.bytes.length;
    if (old.relay.negative) this.#negative--;
  }
}

/** Seconds since the answer came; never negative when the clock is set back. */
export function ageS(answer: CachedAnswer, nowMs: number): number {
  return Math.max(0, (nowMs - answer.storedAtMs) / 1000);
}
