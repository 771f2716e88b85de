/**
 * What the worker does with queries, apart from sockets and threads: the table, then the cache, then the forwarder's
 * thread. One {@link Responder} serves UDP and TCP.
 *
 * Nothing is allocated for a query that is answered at once: what the functions tell each other beside numbers stands in
 * records of the responder, filled for each query, and octets are copied without views of them.
 */
import { DecodeError } from '#lib/errors.ts';
import { FLAG_CD, RCODE_NXDOMAIN, RCODE_SERVFAIL } from '#wire/dns/constants.ts';
import type { ResourceRecord } from '#wire/dns/message.ts';
import { canonicalName, decodeName, nameFromWire, nameToWire, ROOT_NAME } from '#wire/dns/name.ts';
import {
  answerQuery,
  DROP,
  denialOf,
  FORWARD,
  type ForwardPlan,
  newAnswerer,
  planForward,
} from '../answer.ts';
import {
  type AnswerCache,
  ageS,
  type CachedAnswer,
  type CacheEntry,
  type CacheQuestion,
  isFresh,
  QUESTION_CD,
  QUESTION_DO,
  QUESTION_SEARCHED,
} from '../cache.ts';
import type { Cookies } from '../cookies.ts';
import type { ForwardQuestion } from '../forward.ts';
import { hashName, type Query, readQuery } from '../query.ts';
import type { RandomBelow } from '../random-below.ts';
import { prepareRelay, type Relay, writeAliasedRelay, writeRelay } from '../relay.ts';
import { rcodeOf, writeError, writeNegative, writeTruncated } from '../reply.ts';
import { newAnswerLabels, requestKey, Stats, sizeSlot } from '../stats.ts';
import { type NameTable, QUESTION_AT } from '../table.ts';
import { allow, type ClientState, Clients } from './clients.ts';
import { type Asked, type LoggedQuery, newGiving, type Request, type Send } from './request.ts';

/** Clients that wait for upstreams at once. Twice what is asked at once, because many ask the same. */
const MAX_WAITING = 2000;
/** The forwarder gives up earlier; whoever waits so long waits for one that is no more. */
export const MAX_WAIT_MS = 10_000;
/** After this a client gets a stale answer while the upstreams go on being asked (RFC 8767 section 5). */
export const STALE_AFTER_MS = 1800;
/** After a failure no upstream is asked again for so long while there is a stale answer to give. */
const RECHECK_MS = 5000;
/** An answer that was given so often is fetched anew before its time is over… */
const MIN_PREFETCH_HITS = 3;
/** …when less than this part of its time is left. CoreDNS's share. */
const PREFETCH_SHARE = 0.1;

interface Waiting extends Asked {
  /** `undefined`: nobody waits any more, or nobody did. */
  send: Send | undefined;
  readonly plan: ForwardPlan;
  readonly searched: boolean;
  readonly question: CacheQuestion;
  readonly sinceMs: number;
}

export interface ResponderOptions {
  readonly table: NameTable;
  readonly random: RandomBelow;
  readonly nowMs: () => number;
  /** Asks upstream; the answer comes back by {@link Responder.resolved}. */
  readonly forward: (token: number, question: ForwardQuestion) => void;
  /** Called for each query of a client whose log is on. */
  readonly log?: (query: LoggedQuery) => void;
  readonly cache: AnswerCache;
  readonly prefetch?: boolean;
  readonly cookies?: Cookies;
}

export class Responder {
  readonly stats = new Stats();
  prefetch: boolean;
  /** Whether cookies are answered. */
  cookies = true;
  // Of the query that is being answered.
  #client: ClientState = NOBODY;
  /** A cookie has proven the client's address. */
  #isProven = false;
  /** The answer is others' to know. */
  #isForwarded = false;
  #nowS = 0;
  readonly #options: ResponderOptions;
  readonly #answerer: ReturnType<typeof newAnswerer>;
  readonly #cache: AnswerCache;
  /** In the order in which they came. */
  readonly #waiting = new Map<number, Waiting>();
  /** For answers that come later. */
  readonly #late = new Uint8Array(0xffff);
  /** What is asked elsewhere, to be looked for in the cache; overwritten by the next query. */
  readonly #question = emptyQuestion();
  /** What the client asked, when that is a searched name. */
  readonly #asked = emptyQuestion();
  readonly #giving = newGiving();
  readonly #labels = newAnswerLabels();
  #nextToken = 1;

  constructor(options: ResponderOptions) {
    this.#options = options;
    this.#answerer = newAnswerer(options.table, options.random);
    this.#cache = options.cache;
    this.#answerer.onCookie = (bytes, query) => this.#checkCookie(bytes, query);
    this.prefetch = options.prefetch ?? true;
  }

  /** Whether somebody waits for an upstream; then {@link tick} wants to be called. */
  get isWaiting(): boolean {
    return this.#waiting.size > 0;
  }

  /**
   * Answers a query now, if that is possible.
   * @param nowMs the time, of the whole batch
   * @returns the answer's length; 0 if there is none, or none yet
   */
  respond(request: Request, nowMs: number): number {
    const { client, bytes } = request;
    if (!allow(client, nowMs)) {
      this.stats.rateLimited++;
      return 0;
    }
    request.searchSuffix = client.searchSuffix;
    this.#begin(client, nowMs);
    let length = answerQuery(this.#answerer, bytes, request);
    if (length === DROP) {
      this.stats.dropped++;
      return 0;
    }
    this.#isForwarded = length === FORWARD;
    if (length === FORWARD) length = this.#respondFromElsewhere(request, nowMs);
    if (length === 0) return 0;
    return this.#finish(request, request.reply, length, nowMs);
  }

  /** Asks all that is waited for once more: of another forwarder than before. */
  askAgain(): void {
    for (const [token, waiting] of this.#waiting) this.#forward(token, waiting);
  }

  /**
   * The forwarder's answer to a question with this token.
   * @param keep whether it may be given to others too
   */
  resolved(token: number, answer: Uint8Array | undefined, { keep } = { keep: true }): void {
    const waiting = this.#waiting.get(token);
    if (waiting === undefined) return;
    this.#waiting.delete(token);
    const now = this.#options.nowMs();
    const relay = relayOf(answer);
    const old = this.#cache.find(waiting.question);
    const isFailure = relay === undefined || relay.rcode === RCODE_SERVFAIL;
    if (old !== undefined) {
      old.refreshing = false;
      if (isFailure) old.recheckAtMs = now + RECHECK_MS;
    }
    if (relay !== undefined && keep) this.#cache.put(waiting.question, relay, now);
    if (waiting.send === undefined) return;
    const isStale = isFailure && old !== undefined && this.#cache.isStaleUsable(old, now);
    if (isStale) this.stats.staleServed++;
    const fresh = relay === undefined ? undefined : { relay, storedAtMs: now };
    this.#answerLate(waiting, isStale ? old : fresh, now);
  }

  /** Gives clients that have waited long what there is: a stale answer, or for a searched name that there is none. */
  tick(nowMs: number): void {
    for (const [token, waiting] of this.#waiting) {
      if (nowMs - waiting.sinceMs < STALE_AFTER_MS) return;
      if (nowMs - waiting.sinceMs >= MAX_WAIT_MS) {
        this.resolved(token, undefined);
        continue;
      }
      if (waiting.send === undefined) continue;
      const old = this.#cache.find(waiting.question);
      const stale = old !== undefined && this.#cache.isStaleUsable(old, nowMs) ? old : undefined;
      if (stale === undefined && !waiting.searched) continue;
      if (stale !== undefined) this.stats.staleServed++;
      this.#answerLate(waiting, stale, nowMs);
    }
  }

  #answerLate(waiting: Waiting, found: CachedAnswer | undefined, nowMs: number): void {
    const { bytes, client, send, sinceMs } = waiting;
    waiting.send = undefined;
    // The answerer's scratch holds a later query by now.
    const { query } = this.#answerer;
    readQuery(bytes, bytes.length, this.#options.table.seed, query);
    this.#begin(client, nowMs);
    this.#isForwarded = true;
    if (query.cookieBytes > 0) this.#checkCookie(bytes, query);
    this.#setGiving(waiting, waiting.plan.aliases, waiting.searched);
    const written = this.#writeFound(bytes, this.#late, found, nowMs);
    const length = this.#finish(waiting, this.#late, written, sinceMs);
    this.stats.observe(Math.max(0, nowMs - sinceMs) / 1000, 1);
    send?.(this.#late, length);
  }

  #begin(client: ClientState, nowMs: number): void {
    this.#client = client;
    this.#isProven = false;
    this.#nowS = Math.floor(nowMs / 1000);
  }

  /** Cuts an answer to what the client may get, and counts it. @returns its length */
  #finish(asked: Asked, reply: Uint8Array, written: number, sinceMs: number): number {
    const length = this.#guard(asked, reply, written);
    this.#count(asked, reply, length);
    if (asked.client.logged) this.#log(asked, reply, length, sinceMs);
    return length;
  }

  #respondFromElsewhere(request: Request, nowMs: number): number {
    const { bytes, reply } = request;
    const { query, forwards } = this.#answerer;
    const searched = forwards === 'searched';
    const question = this.#question;
    question.type = query.type;
    question.flags =
      (query.hasEdns && query.dnssecOk ? QUESTION_DO : 0) |
      ((query.flags & FLAG_CD) !== 0 ? QUESTION_CD : 0);
    if (searched) {
      const known = this.#cache.find(this.#setAsked(bytes));
      if (known !== undefined && isFresh(known, nowMs)) {
        this.#cache.touch(known);
        this.stats.cacheHits++;
        this.#setGiving(request, NO_ALIASES, false); // those it has are in what was kept
        return this.#writeFound(bytes, reply, known, nowMs);
      }
    }
    const aliasPlan = forwards === 'alias' ? planForward(this.#answerer, bytes) : undefined;
    this.#setQuestion(bytes, aliasPlan);
    const entry = this.#cache.find(question);
    const usable = entry === undefined ? undefined : this.#usable(entry, nowMs);
    if (usable !== undefined) {
      const { aliases } =
        forwards === 'question' ? DIRECT : (aliasPlan ?? planForward(this.#answerer, bytes));
      this.#setGiving(request, aliases, searched);
      const length = this.#writeFound(bytes, reply, usable, nowMs);
      if (searched) this.#keepSearched(bytes, reply.subarray(0, length), nowMs);
      return length;
    }
    this.stats.cacheMisses++;
    if (this.#waiting.size >= MAX_WAITING) return writeError(reply, bytes, query, RCODE_SERVFAIL);
    this.#wait(request, aliasPlan ?? planForward(this.#answerer, bytes), nowMs);
    return 0;
  }

  /** @returns the entry if it may be given now; counts, and fetches it anew when its time is nearly over */
  #usable(entry: CacheEntry, nowMs: number): CacheEntry | undefined {
    if (isFresh(entry, nowMs)) {
      this.#cache.touch(entry);
      if (entry.relay.negative) this.stats.cacheDenialHits++;
      else this.stats.cacheHits++;
      if (this.prefetch) this.#prefetch(entry, nowMs);
      return entry;
    }
    if (entry.recheckAtMs <= nowMs || !this.#cache.isStaleUsable(entry, nowMs)) return undefined;
    this.stats.staleServed++;
    return entry;
  }

  #prefetch(entry: CacheEntry, nowMs: number): void {
    const { relay } = entry;
    if (entry.refreshing || entry.hits < MIN_PREFETCH_HITS || relay.negative) return;
    if (relay.lifetimeS - ageS(entry, nowMs) > relay.lifetimeS * PREFETCH_SHARE) return;
    if (this.#waiting.size >= MAX_WAITING || entry.recheckAtMs > nowMs) return;
    entry.refreshing = true;
    this.stats.prefetches++;
    const question = {
      bytes: entry.name,
      start: 0,
      end: entry.name.length,
      hash: entry.hash,
      type: entry.type,
      flags: entry.flags,
    };
    this.#ask({
      bytes: new Uint8Array(0),
      length: 0,
      transport: 'udp',
      client: NOBODY,
      send: undefined,
      plan: planOf(entry),
      searched: false,
      question,
      sinceMs: nowMs,
    });
  }

  #wait(request: Request, plan: ForwardPlan, nowMs: number): void {
    const { bytes, start, end, hash, type, flags } = this.#question;
    const name = bytes.slice(start, end);
    this.#ask({
      bytes: request.bytes.slice(0, request.length),
      length: request.length,
      transport: request.transport,
      client: request.client,
      send: request.defer(),
      plan,
      searched: this.#answerer.forwards === 'searched',
      question: { bytes: name, start: 0, end: name.length, hash, type, flags },
      sinceMs: nowMs,
    });
  }

  #ask(waiting: Waiting): void {
    const token = this.#nextToken++;
    this.#waiting.set(token, waiting);
    this.#forward(token, waiting);
  }

  #forward(token: number, { plan, question }: Waiting): void {
    this.#options.forward(token, {
      name: plan.name,
      type: plan.type,
      dnssecOk: (question.flags & QUESTION_DO) !== 0,
      checkingDisabled: (question.flags & QUESTION_CD) !== 0,
    });
  }

  /** Sets {@link #question} to what is asked elsewhere. */
  #setQuestion(bytes: Uint8Array, aliasPlan: ForwardPlan | undefined): void {
    const { query, search, forwards } = this.#answerer;
    const question = this.#question;
    if (forwards === 'searched') {
      question.bytes = search.bytes;
      question.start = 0;
      question.end = search.length;
      question.hash = search.hash;
    } else if (aliasPlan !== undefined) {
      question.bytes = nameToWire(canonicalName(aliasPlan.name));
      question.start = 0;
      question.end = question.bytes.length;
      question.hash = hashName(question.bytes, 0, question.end, this.#options.table.seed);
    } else {
      question.bytes = bytes;
      question.start = QUESTION_AT;
      question.end = query.nameEnd;
      question.hash = query.hash;
    }
  }

  /** The answer to a searched name as a whole, so that the next one is a copy. */
  #keepSearched(bytes: Uint8Array, answer: Uint8Array, nowMs: number): void {
    const relay = relayOf(answer);
    // "No such name" is said by the zone as it is now.
    if (relay === undefined || relay.rcode !== 0 || relay.negative) return;
    this.#cache.put(this.#setAsked(bytes), relay, nowMs);
  }

  #setAsked(bytes: Uint8Array): CacheQuestion {
    const { query } = this.#answerer;
    const asked = this.#asked;
    asked.bytes = bytes;
    asked.start = QUESTION_AT;
    asked.end = query.nameEnd;
    asked.hash = query.hash;
    asked.type = query.type;
    asked.flags = this.#question.flags | QUESTION_SEARCHED;
    return asked;
  }

  #setGiving({ transport }: Asked, aliases: readonly ResourceRecord[], searched: boolean): void {
    this.#giving.transport = transport;
    this.#giving.aliases = aliases;
    this.#giving.searched = searched;
  }

  /** Without a found answer the client is told to try elsewhere or later: SERVFAIL (a REFUSED musl would wait on). */
  #writeFound(
    bytes: Uint8Array,
    reply: Uint8Array,
    found: CachedAnswer | undefined,
    nowMs: number,
  ): number {
    const { query } = this.#answerer;
    const giving = this.#giving;
    const rcode = found?.relay.rcode ?? RCODE_SERVFAIL;
    // Whatever became of the target: the name itself, in our zone, does not exist. The client walks on.
    if (giving.searched && rcode !== 0) return this.#writeNoName(bytes, reply);
    if (found === undefined || rcode > 0xf) return writeError(reply, bytes, query, RCODE_SERVFAIL);
    giving.relay = found.relay;
    giving.ageS = ageS(found, nowMs);
    try {
      return giving.aliases.length === 0
        ? writeRelay(reply, bytes, query, giving)
        : writeAliasedRelay(reply, bytes, query, giving);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return writeError(reply, bytes, query, RCODE_SERVFAIL); // its data are broken
    }
  }

  #writeNoName(bytes: Uint8Array, reply: Uint8Array): number {
    const { query } = this.#answerer;
    const { table } = this.#options;
    const zoneAt = table.zoneOffset(bytes, QUESTION_AT, query.nameEnd);
    const denial = denialOf(this.#answerer, zoneAt, RCODE_NXDOMAIN);
    return writeNegative(reply, bytes, query, denial);
  }

  /** Over UDP an answer to an address that anybody can forge is never larger than the question. */
  #guard(asked: Asked, reply: Uint8Array, length: number): number {
    const isSafe = asked.client.trusted || this.#isProven || asked.transport === 'tcp';
    if (length <= asked.length || isSafe) return length;
    this.stats.cutForStrangers++;
    return writeTruncated(reply, asked.bytes, this.#answerer.query);
  }

  #checkCookie(bytes: Uint8Array, query: Query): void {
    const { cookies } = this.#options;
    if (cookies === undefined || !this.cookies) return;
    this.#isProven = cookies.check(bytes, query, this.#client.address, this.#nowS);
  }

  #count({ client, transport, length: askedBytes }: Asked, reply: Uint8Array, bytes: number): void {
    const { query } = this.#answerer;
    const { stats } = this;
    const labels = this.#labels;
    labels.rcode = rcodeOf(reply);
    labels.type = query.type;
    labels.family = client.address.length === 4 ? 4 : 6;
    labels.transport = transport;
    labels.forwarded = this.#isForwarded;
    stats.count(requestKey(labels));
    stats.addSize(sizeSlot(transport, 'request'), askedBytes);
    stats.addSize(sizeSlot(transport, 'response'), bytes);
    if (query.hasEdns && query.dnssecOk) stats.dnssecOk++;
  }

  #log(asked: Asked, reply: Uint8Array, length: number, sinceMs: number): void {
    const { query } = this.#answerer;
    if (query.nameEnd === 0) return;
    const atMs = this.#options.nowMs();
    this.#options.log?.({
      atMs,
      pod: asked.client.pod ?? '',
      transport: asked.transport,
      name: decodeName(asked.bytes, QUESTION_AT).name,
      type: query.type,
      rcode: rcodeOf(reply),
      bytes: length,
      durationMs: Math.max(0, atMs - sinceMs),
      from: this.#isForwarded ? 'forward' : 'cluster',
    });
  }
}

/** What most questions forwarded are: the client's own. Its name is not needed for an answer that is there. */
const NO_ALIASES: readonly ResourceRecord[] = [];
const DIRECT: ForwardPlan = { name: ROOT_NAME, type: 0, aliases: NO_ALIASES };
/** Who asks when nobody does. */
const NOBODY: ClientState = new Clients(ROOT_NAME).find(new Uint8Array(4), 0, 4);

function emptyQuestion(): CacheQuestion {
  return { bytes: new Uint8Array(0), start: 0, end: 0, hash: 0, type: 0, flags: 0 };
}

function planOf(entry: CacheEntry): ForwardPlan {
  return { name: nameFromWire(entry.name), type: entry.type, aliases: [] };
}

/** @returns `undefined` for no answer, and for one that is broken where the forwarder does not look */
function relayOf(answer: Uint8Array | undefined): Relay | undefined {
  if (answer === undefined) return undefined;
  try {
    return prepareRelay(answer);
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}
