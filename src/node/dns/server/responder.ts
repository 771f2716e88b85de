/**
 * What the worker does with queries, apart from sockets and threads: the table, then the cache, then the main thread's
 * forwarder. One {@link Responder} serves UDP and TCP.
 */
import { DecodeError } from '#lib/errors.ts';
import { FLAG_CD, RCODE_SERVFAIL } from '#wire/dns/constants.ts';
import {
  answerQuery,
  DROP,
  FORWARD,
  type ForwardPlan,
  newAnswerer,
  planForward,
} from '../answer.ts';
import { AnswerCache, ageS, type CachedAnswer, cacheKey } from '../cache.ts';
import type { ForwardQuestion } from '../forward.ts';
import { readQuery } from '../query.ts';
import { prepareRelay, writeAliasedRelay, writeRelay } from '../relay.ts';
import { rcodeOf, writeError } from '../reply.ts';
import { requestKey, Stats } from '../stats.ts';
import type { NameTable } from '../table.ts';

/** Clients that wait for upstreams at once. Twice what is asked at once, because many ask the same. */
const MAX_WAITING = 2000;

/** Where a query came from, and how its answer gets there if it comes later. */
export interface Client {
  readonly transport: 'udp' | 'tcp';
  readonly family: 4 | 6;
  /** @param length 0 if there is no answer */
  send(reply: Uint8Array, length: number): void;
}

interface Waiting {
  readonly bytes: Uint8Array;
  readonly client: Client;
  readonly plan: ForwardPlan;
  readonly key: string;
  readonly sinceMs: number;
}

export interface ResponderOptions {
  readonly table: NameTable;
  readonly random: () => number;
  readonly nowMs: () => number;
  /** Asks upstream; the answer comes back by {@link Responder.resolved}. */
  readonly forward: (token: number, question: ForwardQuestion) => void;
  readonly cache?: AnswerCache;
}

export class Responder {
  readonly stats = new Stats();
  readonly #options: ResponderOptions;
  readonly #answerer: ReturnType<typeof newAnswerer>;
  readonly #cache: AnswerCache;
  readonly #waiting = new Map<number, Waiting>();
  /** For answers that come later. */
  readonly #late = new Uint8Array(0xffff);
  #nextToken = 1;

  constructor(options: ResponderOptions) {
    this.#options = options;
    this.#answerer = newAnswerer(options.table, options.random);
    this.#cache = options.cache ?? new AnswerCache();
  }

  get cacheSizes(): { success: number; denial: number } {
    return this.#cache.sizes;
  }

  /**
   * Answers a query now, if that is possible.
   * @param reply gets the answer; see `answerQuery` for its size
   * @param client makes the client if the answer comes later
   * @returns the answer's length; 0 if there is none, or none yet
   */
  respond(
    bytes: Uint8Array,
    options: { length: number; reply: Uint8Array; transport: 'udp' | 'tcp'; family: 4 | 6 },
    client: () => Client,
  ): number {
    const { reply, transport, family } = options;
    const length = answerQuery(this.#answerer, bytes, options);
    if (length === DROP) {
      this.stats.dropped++;
      return 0;
    }
    if (length !== FORWARD) {
      this.#count(reply, { transport, family, forwarded: false });
      return length;
    }
    return this.#respondFromElsewhere(bytes, options, client);
  }

  /** The forwarder's answer to a question with this token. */
  resolved(token: number, answer: Uint8Array | undefined): void {
    const waiting = this.#waiting.get(token);
    if (waiting === undefined) return;
    this.#waiting.delete(token);
    const now = this.#options.nowMs();
    const fresh = this.#store(waiting.key, answer, now);
    const stale = fresh === undefined ? this.#cache.getStale(waiting.key, now) : undefined;
    if (stale !== undefined) this.stats.staleServed++;
    const { bytes, client, plan } = waiting;
    // The answerer's scratch holds a later query by now.
    readQuery(bytes, bytes.length, this.#options.table.seed, this.#answerer.query);
    const length = this.#writeFound(bytes, this.#late, fresh ?? stale, plan, client.transport);
    this.#count(this.#late, {
      transport: client.transport,
      family: client.family,
      forwarded: true,
    });
    this.stats.observe((now - waiting.sinceMs) / 1000, 1);
    client.send(this.#late, length);
  }

  #respondFromElsewhere(
    bytes: Uint8Array,
    options: { length: number; reply: Uint8Array; transport: 'udp' | 'tcp'; family: 4 | 6 },
    client: () => Client,
  ): number {
    const { query } = this.#answerer;
    const { reply, transport, family } = options;
    const plan = planForward(this.#answerer, bytes);
    const question: ForwardQuestion = {
      name: plan.name,
      type: plan.type,
      dnssecOk: query.hasEdns && query.dnssecOk,
      checkingDisabled: (query.flags & FLAG_CD) !== 0,
    };
    const key = cacheKey(plan.name, question);
    const now = this.#options.nowMs();
    const cached = this.#cache.get(key, now);
    const isFull = this.#waiting.size >= MAX_WAITING;
    if (cached === undefined) this.stats.cacheMisses++;
    else this.stats.cacheHits++;
    if (cached !== undefined || isFull) {
      const length = this.#writeFound(bytes, reply, cached, plan, transport);
      this.#count(reply, { transport, family, forwarded: true });
      return length;
    }
    const token = this.#nextToken++;
    const kept = bytes.slice(0, options.length);
    this.#waiting.set(token, { bytes: kept, client: client(), plan, key, sinceMs: now });
    this.#options.forward(token, question);
    return 0;
  }

  #store(key: string, answer: Uint8Array | undefined, nowMs: number): CachedAnswer | undefined {
    if (answer === undefined) return undefined;
    try {
      const relay = prepareRelay(answer);
      this.#cache.put(key, relay, nowMs);
      return { relay, storedAtMs: nowMs };
    } catch (error) {
      // The forwarder has looked at it; what it cannot see, an OPT record in a wrong place, is treated as no answer.
      if (error instanceof DecodeError) return undefined;
      throw error;
    }
  }

  /** Without a found answer the client is told to try elsewhere or later: SERVFAIL (a REFUSED musl would wait on). */
  #writeFound(
    bytes: Uint8Array,
    reply: Uint8Array,
    found: CachedAnswer | undefined,
    plan: ForwardPlan,
    transport: 'udp' | 'tcp',
  ): number {
    const { query } = this.#answerer;
    if (found === undefined || found.relay.rcode > 0xf)
      return writeError(reply, bytes, query, RCODE_SERVFAIL);
    const age = ageS(found, this.#options.nowMs());
    const { relay } = found;
    const { aliases } = plan;
    try {
      return aliases.length === 0
        ? writeRelay(reply, bytes, query, { relay, ageS: age, transport })
        : writeAliasedRelay(reply, bytes, query, { relay, ageS: age, transport, aliases });
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return writeError(reply, bytes, query, RCODE_SERVFAIL); // its data are broken
    }
  }

  #count(
    reply: Uint8Array,
    labels: { transport: 'udp' | 'tcp'; family: 4 | 6; forwarded: boolean },
  ): void {
    const { type } = this.#answerer.query;
    this.stats.count(requestKey({ ...labels, rcode: rcodeOf(reply), type }));
  }
}
