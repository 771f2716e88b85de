/**
 * Upstream's answers, kept for as long as their TTLs allow. Found by the octets of the question, without allocation.
 *
 * Answers and denials are bounded apart, so that a storm of questions for what does not exist pushes out no answer that
 * is in use. What was used longest ago goes first.
 */
import { canonicalName, type Name } from '#wire/dns/name.ts';
import { lowerOctet } from './query.ts';
import type { Relay } from './relay.ts';
import { sameName } from './table.ts';

/** A bound on the memory that one pod can make us use by asking for large answers. */
const MAX_CACHE_BYTES = 32 * 1024 * 1024;
/** What an entry costs beside its message: objects, the name, the offsets. A guess on the safe side. */
const ENTRY_OVERHEAD_BYTES = 512;

/** Bits of {@link CacheQuestion.flags}: everything beside name and type that can make an answer another. */
export const QUESTION_DO = 1;
export const QUESTION_CD = 2;
/** The answer to a searched name: it starts with our alias. */
export const QUESTION_SEARCHED = 4;

/** A question where it stands; the name may be in any case of letters. */
export interface CacheQuestion {
  bytes: Uint8Array;
  start: number;
  end: number;
  /** Of the name in lower case, by `hashName`. */
  hash: number;
  type: number;
  flags: number;
}

export interface CachedAnswer {
  readonly relay: Relay;
  readonly storedAtMs: number;
}

interface Entry extends CachedAnswer {
  readonly name: Uint8Array;
  readonly hash: number;
  readonly type: number;
  readonly flags: number;
  relay: Relay;
  storedAtMs: number;
  /** Times given since it was stored, at most 255. */
  hits: number;
  /** Its next answer is on the way. */
  refreshing: boolean;
  /** After a failure: until then no upstream is asked again (RFC 8767 section 5). */
  recheckAtMs: number;
  /** The next entry of the same hash. */
  chain: Entry | undefined;
  newer: Entry | undefined;
  older: Entry | undefined;
}
export type CacheEntry = Entry;

export interface CacheLimits {
  /** Answers, and as many denials. */
  readonly maxEntries: number;
  readonly maxStaleS: number;
}

/** Everything of a question that can make its answer another, as text: what the forwarder knows it by. */
export function cacheKey(
  name: Name,
  options: { type: number; dnssecOk: boolean; checkingDisabled: boolean },
): string {
  const flags = (options.dnssecOk ? 'd' : '') + (options.checkingDisabled ? 'c' : '');
  return `${options.type}${flags} ${canonicalName(name)}`;
}

export class AnswerCache {
  readonly #byHash = new Map<number, Entry>();
  readonly #success = new Recency();
  readonly #denial = new Recency();
  #limits: CacheLimits;
  /** Entries that went before their time, to make room. */
  evictions = 0;

  constructor(limits: CacheLimits) {
    this.#limits = limits;
  }

  /** Entries with an answer, and with a denial. */
  get sizes(): { success: number; denial: number } {
    return { success: this.#success.size, denial: this.#denial.size };
  }

  setLimits(limits: CacheLimits): void {
    this.#limits = limits;
    this.#trim(this.#success);
    this.#trim(this.#denial);
  }

  /** Forgets everything: other upstreams may know other things. */
  clear(): void {
    this.#byHash.clear();
    this.#success.clear();
    this.#denial.clear();
  }

  /** @returns the entry of a question, also when its time is over: see {@link isFresh} and {@link isStaleUsable} */
  find(question: CacheQuestion): Entry | undefined {
    const { bytes, start, end, type, flags } = question;
    let entry = this.#byHash.get(slotOf(question));
    for (; entry !== undefined; entry = entry.chain)
      if (entry.type === type && entry.flags === flags && sameName(entry.name, bytes, start, end))
        return entry;
    return undefined;
  }

  /** Notes that an entry was given to a client. */
  touch(entry: Entry): void {
    if (entry.hits < 255) entry.hits++;
    this.#recency(entry.relay).touch(entry);
  }

  /** @returns whether an entry's time is over, but not for so long that no answer would be better */
  isStaleUsable(entry: Entry, nowMs: number): boolean {
    const overMs = nowMs - entry.storedAtMs - entry.relay.lifetimeS * 1000;
    return overMs <= this.#limits.maxStaleS * 1000;
  }

  /** Keeps an answer, if it may be kept at all. */
  put(question: CacheQuestion, relay: Relay, nowMs: number): void {
    if (relay.lifetimeS <= 0 || this.#limits.maxEntries === 0) return;
    const old = this.find(question);
    if (old !== undefined) {
      this.#recency(old.relay).remove(old);
      Object.assign(old, { relay, storedAtMs: nowMs, hits: 0, refreshing: false, recheckAtMs: 0 });
      this.#recency(relay).add(old);
    } else {
      const entry = newEntry(question, relay, nowMs);
      const slot = slotOf(question);
      entry.chain = this.#byHash.get(slot);
      this.#byHash.set(slot, entry);
      this.#recency(relay).add(entry);
    }
    this.#trim(this.#recency(relay));
  }

  #recency(relay: Relay): Recency {
    return relay.negative ? this.#denial : this.#success;
  }

  #trim(recency: Recency): void {
    for (let oldest = recency.oldest; oldest !== undefined; oldest = recency.oldest) {
      const isFull = recency.size > this.#limits.maxEntries || recency.bytes > MAX_CACHE_BYTES / 2;
      if (!isFull) return;
      recency.remove(oldest);
      this.#unlink(oldest);
      this.evictions++;
    }
  }

  #unlink(entry: Entry): void {
    const slot = slotOf(entry);
    const first = this.#byHash.get(slot);
    if (first === entry) {
      if (entry.chain === undefined) this.#byHash.delete(slot);
      else this.#byHash.set(slot, entry.chain);
      return;
    }
    let before = first;
    while (before !== undefined && before.chain !== entry) before = before.chain;
    if (before !== undefined) before.chain = entry.chain;
  }
}

/** Whether the answer's time is not over. */
export function isFresh(answer: CachedAnswer, nowMs: number): boolean {
  return ageS(answer, nowMs) < answer.relay.lifetimeS;
}

/** Whole seconds since the answer came, as TTLs count; never negative when the clock is set back. */
export function ageS(answer: CachedAnswer, nowMs: number): number {
  return Math.max(0, Math.floor((nowMs - answer.storedAtMs) / 1000));
}

function slotOf({ hash, type, flags }: { hash: number; type: number; flags: number }): number {
  return (hash ^ Math.imul(type * 8 + flags, 0x9e3779b1)) & 0x3fffffff;
}

function newEntry(question: CacheQuestion, relay: Relay, storedAtMs: number): Entry {
  const { bytes, start, end, hash, type, flags } = question;
  const name = new Uint8Array(end - start);
  for (let i = 0; i < name.length; i++) name[i] = lowerOctet(bytes[start + i] ?? 0);
  const links = { chain: undefined, newer: undefined, older: undefined };
  const state = { hits: 0, refreshing: false, recheckAtMs: 0 };
  return { name, hash, type, flags, relay, storedAtMs, ...state, ...links };
}

/** Entries in order of use: a doubly linked list through the entries themselves. */
class Recency {
  #newest: Entry | undefined;
  oldest: Entry | undefined;
  size = 0;
  bytes = 0;

  add(entry: Entry): void {
    entry.newer = undefined;
    entry.older = this.#newest;
    if (this.#newest !== undefined) this.#newest.newer = entry;
    this.#newest = entry;
    this.oldest ??= entry;
    this.size++;
    this.bytes += sizeOf(entry);
  }

  remove(entry: Entry): void {
    if (entry.newer === undefined) this.#newest = entry.older;
    else entry.newer.older = entry.older;
    if (entry.older === undefined) this.oldest = entry.newer;
    else entry.older.newer = entry.newer;
    entry.newer = undefined;
    entry.older = undefined;
    this.size--;
    this.bytes -= sizeOf(entry);
  }

  touch(entry: Entry): void {
    if (entry === this.#newest) return;
    this.remove(entry);
    this.add(entry);
  }

  clear(): void {
    this.#newest = undefined;
    this.oldest = undefined;
    this.size = 0;
    this.bytes = 0;
  }
}

function sizeOf(entry: Entry): number {
  return entry.relay.bytes.length + entry.name.length + ENTRY_OVERHEAD_BYTES;
}
