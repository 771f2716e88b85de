/**
 * Which addresses pods have been told for the domain names that policies allow. Pure: the time comes in from outside.
 *
 * ```text
 *  answer ──► address in the set ──(TTL)──► no more to be used ──(grace)──► out of the set ──► remembered, for what
 *                                                                                              is connected still
 * ```
 * A name is meant by its own pattern and by `*.` before each of its parents, so an answer costs its labels, not the
 * patterns that there are.
 */
import { type Family, familyOf, type Ip } from '#lib/ip.ts';
import { isWanted, patternsOf, type ToldAddress } from '../answer-watch.ts';

/** A program looks a name up and connects a little later: what it was told then works still. */
export const GRACE_MS = 30_000;
/**
 * How long an answer that is over may go on being given while upstreams do not answer: the DNS server asks again after
 * five seconds, and such an answer may be used for thirty (RFC 8767).
 */
const STALE_MS = 40_000 + GRACE_MS;
/** The longest that the DNS server can be told to go on giving what is over. */
const MAX_STALE_AGE_MS = 7 * 86_400_000;
/** Names of all patterns together. The one told longest ago goes first. */
const MAX_NAMES = 10_000;
/** Of one name: ten times what the API asks of an implementation. Those whose time was over first go first. */
const MAX_ADDRESSES = 1_000;

interface KnownName {
  readonly name: string;
  patterns: readonly string[];
  /** By address, until when clients may use it, in ms. */
  readonly untilMs: Map<Ip, number>;
  /** By family, until when clients may be told what is over. */
  readonly staleUntilMs: Map<Family, number>;
  /** What is in the sets. */
  active: readonly Ip[];
}

/** One address as people and files see it. */
export interface DomainEntry {
  readonly name: string;
  readonly address: Ip;
  /** Until when the answer may be used, in ms since 1970. */
  readonly untilMs: number;
}

export interface DomainState extends DomainEntry {
  readonly patterns: readonly string[];
  /** Connections to it are let begin. */
  readonly active: boolean;
}

/** Of the addresses of one name that a pattern means, what was open and what is now. */
export type OnResolved = (pattern: string, before: readonly Ip[], after: readonly Ip[]) => void;

export class DomainMemory {
  readonly #onResolved: OnResolved;
  #patterns: ReadonlySet<string> = new Set();
  /** In the order in which they were last answered. */
  readonly #names = new Map<string, KnownName>();
  /** Names that were forgotten because there were too many. */
  forgotten = 0;

  constructor(onResolved: OnResolved) {
    this.#onResolved = onResolved;
  }

  /** How many names are known, and how many addresses of them are open now. */
  get counts(): { names: number; addresses: number } {
    let addresses = 0;
    for (const { active } of this.#names.values()) addresses += active.length;
    return { names: this.#names.size, addresses };
  }

  get patterns(): ReadonlySet<string> {
    return this.#patterns;
  }

  wants(name: string): boolean {
    return isWanted(name, this.#patterns);
  }

  /**
   * The patterns that policies have.
   * @returns true if there are new ones: of what was answered for them until now nothing is known
   */
  setPatterns(patterns: ReadonlySet<string>): boolean {
    const hasNew = [...patterns].some((it) => !this.#patterns.has(it));
    this.#patterns = patterns;
    for (const known of this.#names.values()) {
      const before = known.patterns;
      known.patterns = patternsOf(known.name).filter((it) => patterns.has(it));
      for (const gone of before)
        if (!known.patterns.includes(gone)) this.#onResolved(gone, known.active, []);
      for (const added of known.patterns)
        if (!before.includes(added)) this.#onResolved(added, [], known.active);
      if (known.patterns.length === 0) this.#names.delete(known.name);
    }
    return hasNew;
  }

  /** @returns when the name's first address is over; undefined if none is open */
  asked(name: string, family: Family, nowMs: number): number | undefined {
    const known = this.#names.get(name);
    if (known === undefined) return undefined;
    known.staleUntilMs.set(family, nowMs + STALE_MS);
    this.#refresh(known, nowMs);
    return nextOver(known);
  }

  /** @returns when the name's first address is over; undefined if none is open */
  answered(
    name: string,
    answer: { family: Family; addresses: readonly ToldAddress[] | undefined },
    nowMs: number,
  ): number | undefined {
    const { family, addresses } = answer;
    // No answer leaves what `asked` allowed.
    if (addresses === undefined || !this.wants(name)) return undefined;
    const known = this.#know(name);
    known.staleUntilMs.delete(family);
    for (const { address, ttlS } of addresses) {
      const until = nowMs + ttlS * 1000;
      known.untilMs.set(address, Math.max(until, known.untilMs.get(address) ?? 0));
    }
    dropOldest(known.untilMs);
    this.#refresh(known, nowMs);
    return nextOver(known);
  }

  /** What an earlier agent knew. */
  restore(entries: Iterable<DomainEntry>, nowMs: number): void {
    for (const { name, address, untilMs } of entries) {
      if (!this.wants(name)) continue;
      const known = this.#know(name);
      known.untilMs.set(address, Math.max(untilMs, known.untilMs.get(address) ?? 0));
    }
    for (const known of this.#names.values()) this.#refresh(known, nowMs);
  }

  /** Takes out what is over. @returns when to come again, or undefined if there is nothing to wait for */
  expire(nowMs: number): number | undefined {
    let next: number | undefined;
    for (const known of this.#names.values()) {
      this.#refresh(known, nowMs);
      const over = nextOver(known);
      if (over !== undefined && (next === undefined || over < next)) next = over;
    }
    return next;
  }

  /** Addresses to which connections may begin; one that several names have is there several times. */
  resolved(pattern: string): Ip[] {
    return this.#of(pattern, (known) => known.active);
  }

  /** The same with those whose time is over: for connections that began in it. */
  everResolved(pattern: string): Ip[] {
    return this.#of(pattern, (known) => known.untilMs.keys());
  }

  *states(): Iterable<DomainState> {
    for (const { name, patterns, untilMs, active } of this.#names.values())
      for (const [address, until] of untilMs)
        yield { name, address, untilMs: until, patterns, active: active.includes(address) };
  }

  #of(pattern: string, addresses: (known: KnownName) => Iterable<Ip>): Ip[] {
    if (!pattern.startsWith('*.')) {
      const known = this.#names.get(pattern);
      return known === undefined ? [] : [...addresses(known)];
    }
    return [...this.#names.values()].flatMap((known) =>
      known.patterns.includes(pattern) ? [...addresses(known)] : [],
    );
  }

  #know(name: string): KnownName {
    const known: KnownName = this.#names.get(name) ?? {
      name,
      patterns: patternsOf(name).filter((it) => this.#patterns.has(it)),
      untilMs: new Map(),
      staleUntilMs: new Map(),
      active: [],
    };
    this.#names.delete(name);
    this.#names.set(name, known);
    for (const oldest of this.#names.values()) {
      if (this.#names.size <= MAX_NAMES) break;
      for (const pattern of oldest.patterns) this.#onResolved(pattern, oldest.active, []);
      this.#names.delete(oldest.name);
      this.forgotten++;
    }
    return known;
  }

  #refresh(known: KnownName, nowMs: number): void {
    const active = [...known.untilMs.keys()].filter((it) => openUntil(known, it) > nowMs);
    const before = known.active;
    if (active.length === before.length && active.every((address, i) => address === before[i]))
      return;
    known.active = active;
    for (const pattern of known.patterns) this.#onResolved(pattern, before, active);
  }
}

function nextOver(known: KnownName): number | undefined {
  const times = known.active.map((address) => openUntil(known, address));
  return times.length === 0 ? undefined : Math.min(...times);
}

function openUntil({ untilMs, staleUntilMs }: KnownName, address: Ip): number {
  const until = untilMs.get(address) ?? 0;
  const stale = staleUntilMs.get(familyOf(address)) ?? 0;
  return Math.max(until + GRACE_MS, stale - until > MAX_STALE_AGE_MS ? 0 : stale);
}

function dropOldest(untilMs: Map<Ip, number>): void {
  if (untilMs.size <= MAX_ADDRESSES) return;
  const oldest = [...untilMs].sort(([, a], [, b]) => a - b);
  for (const [address] of oldest.slice(0, untilMs.size - MAX_ADDRESSES)) untilMs.delete(address);
}
