/**
 * Asks upstream name servers: one after another, each over UDP and, when the answer is truncated, over TCP. The same
 * question asked by many at once goes out once.
 */
import { randomInt } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { type Clock, systemClock } from '#lib/clock.ts';
import { DecodeError } from '#lib/errors.ts';
import {
  FLAG_TC,
  RCODE_FORMERR,
  RCODE_MASK,
  RCODE_NOERROR,
  RCODE_NOTIMP,
  RCODE_NXDOMAIN,
  UDP_PAYLOAD_BYTES,
} from '#wire/dns/constants.ts';
import { encodeMessage, makeQuery, scanRecords } from '#wire/dns/message.ts';
import type { Name } from '#wire/dns/name.ts';
import { cacheKey } from './cache.ts';
import { askTcp, askUdp, formatUpstream, type Upstream, UpstreamError } from './upstream.ts';

/** Questions on their way at once, each with a socket; CoreDNS's default. More would only wait longer. */
export const MAX_CONCURRENT = 1000;
/** CoreDNS's read_timeout; shorter than the five seconds after which a C library asks again. */
const TRY_TIMEOUT_MS = 2000;
/** Times the list of upstreams is gone through: once more for a datagram that got lost. */
const MAX_ROUNDS = 2;
/** No client waits longer, so nothing is tried after that. */
const MAX_TOTAL_MS = 5000;
/** An upstream that failed so often in a row is asked after the others… */
const MAX_FAILURES = 2;
/** …until this time is over. */
const AVOID_MS = 5000;

export interface ForwardQuestion {
  readonly name: Name;
  readonly type: number;
  readonly dnssecOk: boolean;
  readonly checkingDisabled: boolean;
}

/** For metrics. */
export interface ForwardObserver {
  /** One try ended. `rcode` is undefined if there was no answer. */
  tried(upstream: string, rcode: number | undefined, durationMs: number): void;
  /** A question was refused because {@link MAX_CONCURRENT} are under way. */
  rejected(): void;
}

export interface ForwarderOptions {
  /** Asked for each question, so that a changed resolv.conf takes effect. */
  readonly upstreams: () => readonly Upstream[];
  readonly observer?: ForwardObserver;
  readonly clock?: Clock;
  readonly timeoutMs?: number;
  readonly maxConcurrent?: number;
  /** Why a question got no answer, for the log. */
  readonly onFailure?: (question: ForwardQuestion, reason: string) => void;
}

export class Forwarder implements AsyncDisposable {
  readonly #options: ForwarderOptions;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #pending = new Map<string, Promise<Uint8Array | undefined>>();
  readonly #failures = new Map<string, { count: number; lastAtMs: number }>();
  readonly #stop = new AbortController();

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#timeoutMs = options.timeoutMs ?? TRY_TIMEOUT_MS;
    // One listener for each question under way, which are bounded; Node would suspect a leak at eleven.
    setMaxListeners(0, this.#stop.signal);
  }

  /**
   * Asks the upstreams.
   * @returns the first good answer (NOERROR or NXDOMAIN) as it came; without one the last bad answer; `undefined` if
   *   there was none at all, no upstream is known, or too many questions are under way
   */
  resolve(question: ForwardQuestion): Promise<Uint8Array | undefined> {
    const key = cacheKey(question.name, question);
    const pending = this.#pending.get(key);
    if (pending !== undefined) return pending;
    if (this.#pending.size >= (this.#options.maxConcurrent ?? MAX_CONCURRENT)) {
      this.#options.observer?.rejected();
      return Promise.resolve(undefined);
    }
    const started = this.#ask(question).finally(() => this.#pending.delete(key));
    this.#pending.set(key, started);
    return started;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#pending.values());
  }

  async #ask(question: ForwardQuestion): Promise<Uint8Array | undefined> {
    const deadline = this.#clock.now() + MAX_TOTAL_MS;
    let refused: Uint8Array | undefined;
    let reason = 'no upstream name server is configured, and the host’s resolv.conf names none';
    for (let round = 0; round < MAX_ROUNDS; round++) {
      for (const upstream of this.#order()) {
        if (this.#stop.signal.aborted || this.#clock.now() >= deadline) break;
        const answer = await this.#try(upstream, question);
        if (typeof answer === 'string') {
          reason = answer;
          continue;
        }
        const rcode = (answer[3] ?? 0) & RCODE_MASK;
        if (rcode === RCODE_NOERROR || rcode === RCODE_NXDOMAIN) return answer;
        refused = answer;
      }
      // A server that answered, even badly, got the question; asking again would bring the same.
      if (refused !== undefined) return refused;
    }
    if (!this.#stop.signal.aborted) this.#options.onFailure?.(question, reason);
    return undefined;
  }

  /** In the order of configuration, those that failed lately last. With all of them failing all are tried. */
  #order(): Upstream[] {
    const now = this.#clock.now();
    const isAvoided = (upstream: Upstream) => {
      const failed = this.#failures.get(formatUpstream(upstream));
      return (
        failed !== undefined && failed.count >= MAX_FAILURES && now - failed.lastAtMs < AVOID_MS
      );
    };
    const all = this.#options.upstreams();
    return [...all.filter((u) => !isAvoided(u)), ...all.filter(isAvoided)];
  }

  /** @returns the answer, or in words why there is none */
  async #try(upstream: Upstream, question: ForwardQuestion): Promise<Uint8Array | string> {
    const to = formatUpstream(upstream);
    const startedMs = performance.now();
    try {
      let answer = await this.#exchange(upstream, encodeQuestion(question, true));
      const rcode = (answer[3] ?? 0) & RCODE_MASK;
      // An old server that does not know EDNS (RFC 6891 section 7).
      if (rcode === RCODE_FORMERR || rcode === RCODE_NOTIMP)
        answer = await this.#exchange(upstream, encodeQuestion(question, false));
      scanRecords(answer); // a broken answer is none
      this.#failures.delete(to);
      this.#observe(to, (answer[3] ?? 0) & RCODE_MASK, startedMs);
      return answer;
    } catch (error) {
      if (!(error instanceof UpstreamError) && !(error instanceof DecodeError)) throw error;
      const count = (this.#failures.get(to)?.count ?? 0) + 1;
      this.#failures.set(to, { count, lastAtMs: this.#clock.now() });
      this.#observe(to, undefined, startedMs);
      return error.message;
    }
  }

  async #exchange(upstream: Upstream, query: Uint8Array): Promise<Uint8Array> {
    const options = { timeoutMs: this.#timeoutMs, signal: this.#stop.signal };
    let answer: Uint8Array;
    try {
      answer = await askUdp(upstream, query, options);
    } catch (error) {
      if (!(error instanceof UpstreamError) || error.reason !== 'bogus') throw error;
      return askTcp(upstream, query, options);
    }
    const isTruncated = ((answer[2] ?? 0) & (FLAG_TC >> 8)) !== 0;
    return isTruncated ? askTcp(upstream, query, options) : answer;
  }

  #observe(upstream: string, rcode: number | undefined, startedMs: number): void {
    this.#options.observer?.tried(upstream, rcode, performance.now() - startedMs);
  }
}

function encodeQuestion(question: ForwardQuestion, withEdns: boolean): Uint8Array {
  const { name, type, dnssecOk, checkingDisabled } = question;
  const message = makeQuery(
    randomInt(0x10000),
    { name, type },
    withEdns ? { udpPayloadBytes: UDP_PAYLOAD_BYTES, dnssecOk } : undefined,
  );
  return encodeMessage({ ...message, checkingDisabled });
}
