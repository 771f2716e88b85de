/**
 * Asks upstream name servers: one after another, each over UDP and, when the answer is truncated, over TCP. The same
 * question asked by many at once goes out once.
 */
import { randomBytes, randomInt } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { type Clock, systemClock } from '#lib/clock.ts';
import { DecodeError } from '#lib/errors.ts';
import {
  FLAG_TC,
  HEADER_BYTES,
  RCODE_FORMERR,
  RCODE_MASK,
  RCODE_NOERROR,
  RCODE_NOTIMP,
  RCODE_NXDOMAIN,
  TYPE_HINFO,
  TYPE_NS,
  UDP_PAYLOAD_BYTES,
} from '#wire/dns/constants.ts';
import { encodeMessage, makeQuery, scanRecords } from '#wire/dns/message.ts';
import { canonicalName, isWithin, type Name, name, ROOT_NAME, skipName } from '#wire/dns/name.ts';
import { cacheKey } from './cache.ts';
import { DEFAULT_CONFIG, type DnsConfig, type ForwardRule } from './config.ts';
import { TlsPool } from './tls.ts';
import { askTcp, askUdp, formatUpstream, type Upstream, UpstreamError } from './upstream.ts';

/** CoreDNS's read_timeout; shorter than the five seconds after which a C library asks again. */
const TRY_TIMEOUT_MS = 2000;
/** Times the list of upstreams is gone through: once more for a datagram that got lost. */
const MAX_ROUNDS = 2;
/** No client waits longer, so nothing is tried after that. */
const MAX_TOTAL_MS = 5000;
/** An upstream that failed so often in a row is asked after the others… */
const MAX_FAILURES = 2;
/** …until it answers a question of ours. CoreDNS asks as often. */
const HEALTH_INTERVAL_MS = 500;
/**
 * How much shorter the wait for one that fails is, once: it would be for the moment in which it comes back, and a program
 * that is told that there is no answer can go on.
 */
const FAILING_PATIENCE = 1 / 2;
/** A question that comes back from an upstream: so long it is not asked again. */
const LOOP_AVOID_MS = 30_000;
/**
 * Names below it exist only in our probes for loops. Not in `.invalid`, which resolvers answer without forwarding, so that
 * a loop through one would not be seen.
 */
export const LOOP_ZONE = 'loop.tulle.dev.';
/** Upstreams whose state is remembered: more than any configuration names. Forgotten together. */
const MAX_KNOWN_UPSTREAMS = 4096;

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

/** Of the DNS configuration, what forwarding needs. */
export type ForwardConfig = Pick<
  DnsConfig,
  'zones' | 'forward' | 'maxConcurrent' | 'randomizeCase'
>;

export interface ForwarderOptions {
  /** For names that no rule is for. Asked for each question, so that a changed resolv.conf takes effect. */
  readonly upstreams: () => readonly Upstream[];
  /** Asked for each question, so that a changed configuration takes effect. */
  readonly config?: () => ForwardConfig | undefined;
  readonly observer?: ForwardObserver;
  readonly clock?: Clock;
  readonly timeoutMs?: number;
  /** In [0, 1). */
  readonly random?: () => number;
  /** Between two questions to an upstream that failed, whether it is back. */
  readonly healthIntervalMs?: number;
  /** Why a question got no answer, for the log. */
  readonly onFailure?: (question: ForwardQuestion, reason: string) => void;
}

export class Forwarder implements AsyncDisposable {
  readonly #options: ForwarderOptions;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #pending = new Map<string, Promise<Uint8Array | undefined>>();
  readonly #upstreams = new Map<string, UpstreamState>();
  /** Turns of round robin, by zone. */
  readonly #turns = new Map<string, number>();
  readonly #tls = new TlsPool();
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
    const looping = this.#probedBy(question);
    if (looping !== undefined) {
      this.#noteLoop(looping);
      return Promise.resolve(undefined);
    }
    const pending = this.#pending.get(key);
    if (pending !== undefined) return pending;
    if (this.#pending.size >= this.#config.maxConcurrent) {
      this.#options.observer?.rejected();
      return Promise.resolve(undefined);
    }
    const started = this.#ask(question).finally(() => {
      if (this.#pending.get(key) === started) this.#pending.delete(key);
    });
    this.#pending.set(key, started);
    return started;
  }

  /** Upstreams have changed: who asks from now on gets no answer to what was asked before. */
  forgetPending(): void {
    this.#pending.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const state of this.#upstreams.values()) clearTimeout(state.healthTimer);
    await Promise.all(this.#pending.values());
    this.#tls[Symbol.dispose]();
  }

  /** Upstreams that send our questions back to us, and those that do not answer, in words. */
  problems(): string[] {
    const now = this.#clock.elapsed();
    return [...this.#upstreams].flatMap(([to, state]) => {
      if (now < state.loopUntilMs)
        return [`name server ${to} sends our questions back to us: it is not asked`];
      return state.failures >= MAX_FAILURES ? [`name server ${to} does not answer`] : [];
    });
  }

  get #config(): ForwardConfig {
    return this.#options.config?.() ?? DEFAULT_CONFIG;
  }

  /** The most specific rule for a name. */
  #ruleFor(name: Name): ForwardRule {
    const { zones, forward } = this.#config;
    const canonical = canonicalName(name);
    let best = forward;
    for (const rule of zones)
      if (rule.zone.length > best.zone.length && isWithin(canonical, rule.zone)) best = rule;
    return best.upstreams.length > 0 ? best : { ...best, upstreams: this.#options.upstreams() };
  }

  async #ask(question: ForwardQuestion): Promise<Uint8Array | undefined> {
    const deadline = this.#clock.elapsed() + MAX_TOTAL_MS;
    const rule = this.#ruleFor(question.name);
    let refused: Uint8Array | undefined;
    let reason = 'no upstream name server is configured, and the host’s resolv.conf names none';
    for (let round = 0; round < MAX_ROUNDS; round++) {
      for (const upstream of this.#order(rule)) {
        if (round > 0 && this.#isFailing(upstream)) continue;
        if (this.#stop.signal.aborted || this.#clock.elapsed() >= deadline) break;
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

  /** In the order of the policy, those that fail last; with all of them failing all are tried. Never one that loops. */
  #order(rule: ForwardRule): Upstream[] {
    const now = this.#clock.elapsed();
    const all = this.#arranged(rule).filter((u) => now >= this.#stateOf(u).loopUntilMs);
    const failing = all.filter((upstream) => this.#isFailing(upstream));
    return [...all.filter((upstream) => !failing.includes(upstream)), ...failing];
  }

  #isFailing(upstream: Upstream): boolean {
    return this.#stateOf(upstream).failures >= MAX_FAILURES;
  }

  #arranged({ zone, upstreams, policy }: ForwardRule): Upstream[] {
    switch (policy) {
      case 'sequential':
        return [...upstreams];
      case 'roundRobin': {
        const turn = (this.#turns.get(zone) ?? 0) % Math.max(1, upstreams.length);
        this.#turns.set(zone, turn + 1);
        return [...upstreams.slice(turn), ...upstreams.slice(0, turn)];
      }
      case 'random': {
        const random = this.#options.random ?? Math.random;
        return upstreams
          .map((upstream) => ({ upstream, place: random() }))
          .sort((a, b) => a.place - b.place)
          .map(({ upstream }) => upstream);
      }
    }
  }

  #stateOf(upstream: Upstream): UpstreamState {
    const to = formatUpstream(upstream);
    const known = this.#upstreams.get(to);
    if (known !== undefined) return known;
    if (this.#upstreams.size >= MAX_KNOWN_UPSTREAMS) this.#forgetUpstreams();
    const state: UpstreamState = {
      failures: 0,
      loopUntilMs: 0,
      probe: name(`${randomBytes(16).toString('hex')}.${LOOP_ZONE}`),
      probed: false,
      healthTimer: undefined,
    };
    this.#upstreams.set(to, state);
    return state;
  }

  #forgetUpstreams(): void {
    for (const state of this.#upstreams.values()) clearTimeout(state.healthTimer);
    this.#upstreams.clear();
  }

  /** The upstream that was asked for this name to see whether the question comes back. */
  #probedBy(question: ForwardQuestion): UpstreamState | undefined {
    if (question.type !== TYPE_HINFO) return undefined;
    const asked = canonicalName(question.name);
    return [...this.#upstreams.values()].find((state) => state.probed && state.probe === asked);
  }

  #noteLoop(state: UpstreamState): void {
    state.loopUntilMs = this.#clock.elapsed() + LOOP_AVOID_MS;
    state.probed = false;
  }

  /** Asks a new upstream for a name that only we know: who asks us for it shows that the upstream leads back here. */
  #probeForLoop(upstream: Upstream, state: UpstreamState): void {
    if (state.probed || this.#stop.signal.aborted) return;
    state.probed = true;
    const question = {
      name: state.probe,
      type: TYPE_HINFO,
      dnssecOk: false,
      checkingDisabled: false,
    };
    // What it answers does not matter; without an answer nothing is known.
    this.#exchange(upstream, encodeQuestion(question, { edns: false })).catch((error: unknown) => {
      if (!(error instanceof UpstreamError)) throw error;
      state.probed = false;
    });
  }

  /** Asks an upstream that failed from time to time, so that it is used again as soon as it is back. */
  #watchHealth(upstream: Upstream, state: UpstreamState): void {
    if (state.healthTimer !== undefined || this.#stop.signal.aborted) return;
    const again = () => {
      state.healthTimer = undefined;
      if (this.#stop.signal.aborted || state.failures < MAX_FAILURES) return;
      const question = {
        name: ROOT_NAME,
        type: TYPE_NS,
        dnssecOk: false,
        checkingDisabled: false,
      };
      this.#exchange(upstream, encodeQuestion(question, { edns: false })).then(
        () => {
          state.failures = 0;
        },
        (error: unknown) => {
          if (!(error instanceof UpstreamError)) throw error;
          this.#watchHealth(upstream, state);
        },
      );
    };
    const intervalMs = this.#options.healthIntervalMs ?? HEALTH_INTERVAL_MS;
    state.healthTimer = setTimeout(again, intervalMs).unref();
  }

  /** @returns the answer, or in words why there is none */
  async #try(upstream: Upstream, question: ForwardQuestion): Promise<Uint8Array | string> {
    const to = formatUpstream(upstream);
    const state = this.#stateOf(upstream);
    const startedMs = performance.now();
    // Beside the first question: where it comes back, no question is ever answered.
    this.#probeForLoop(upstream, state);
    try {
      const { randomizeCase } = this.#config;
      const timeoutMs = this.#timeoutMs * (this.#isFailing(upstream) ? FAILING_PATIENCE : 1);
      let answer = await this.#exchange(
        upstream,
        encodeQuestion(question, { edns: true, randomizeCase }),
        timeoutMs,
      );
      const rcode = (answer[3] ?? 0) & RCODE_MASK;
      // An old server that does not know EDNS (RFC 6891 section 7).
      if (rcode === RCODE_FORMERR || rcode === RCODE_NOTIMP)
        answer = await this.#exchange(
          upstream,
          encodeQuestion(question, { edns: false, randomizeCase }),
          timeoutMs,
        );
      scanRecords(answer); // a broken answer is none
      state.failures = 0;
      this.#observe(to, (answer[3] ?? 0) & RCODE_MASK, startedMs);
      return answer;
    } catch (error) {
      if (!(error instanceof UpstreamError) && !(error instanceof DecodeError)) throw error;
      state.failures++;
      if (state.failures >= MAX_FAILURES) this.#watchHealth(upstream, state);
      this.#observe(to, undefined, startedMs);
      return error.message;
    }
  }

  async #exchange(
    upstream: Upstream,
    query: Uint8Array,
    timeoutMs = this.#timeoutMs,
  ): Promise<Uint8Array> {
    const exactCase = this.#config.randomizeCase;
    const options = { timeoutMs, signal: this.#stop.signal, exactCase };
    if (upstream.tls !== undefined) return this.#tls.ask(upstream, query, options);
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

interface UpstreamState {
  /** In a row. */
  failures: number;
  /** It sends our questions back to us; not asked before this time. */
  loopUntilMs: number;
  readonly probe: Name;
  probed: boolean;
  healthTimer: NodeJS.Timeout | undefined;
}

function encodeQuestion(
  question: ForwardQuestion,
  options: { edns: boolean; randomizeCase?: boolean },
): Uint8Array {
  const { name, type, dnssecOk, checkingDisabled } = question;
  const message = makeQuery(
    randomInt(0x10000),
    { name, type },
    options.edns ? { udpPayloadBytes: UDP_PAYLOAD_BYTES, dnssecOk } : undefined,
  );
  const bytes = encodeMessage({ ...message, checkingDisabled });
  if (options.randomizeCase) randomizeCase(bytes);
  return bytes;
}

/** Each letter of the question's name in a random case, as one more secret (draft-vixie-dnsext-dns0x20). */
function randomizeCase(query: Uint8Array): void {
  const end = skipName(query, HEADER_BYTES);
  const coins = randomBytes(end - HEADER_BYTES);
  for (let at = HEADER_BYTES; at < end; at++) {
    const lower = (query[at] ?? 0) | 0x20;
    const isLetter = lower >= 0x61 && lower <= 0x7a;
    // Lengths of labels are below 64, so they are no letters.
    if (isLetter && ((coins[at - HEADER_BYTES] ?? 0) & 1) === 1)
      query[at] = (query[at] ?? 0) ^ 0x20;
  }
}
