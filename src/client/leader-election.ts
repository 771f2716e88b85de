/**
 * One leader among several processes, by a Lease.
 *
 * Safe without equal clocks: what counts is how long we ourselves have seen no renewal. A leader that cannot renew
 * gives up before anybody else may take over:
 *
 *   leader:  renew ──── renew ──────✗ (no server) ── gives up after renewDeadline
 *   others:                     └────────── may take over after leaseDuration ─────►
 *
 * As `k8s.io/client-go/tools/leaderelection`; its limit is ours, too: a process that was stopped (SIGSTOP, a paused
 * machine) may act for a moment after it has lost the lease. What must never happen twice needs conditional writes.
 */

import { LEASE, type Lease } from '#api/coordination/v1/lease.ts';
import { formatMicroTime } from '#api/machinery/time.ts';
import { type Clock, pause, systemClock } from '#lib/clock.ts';
import { explainError, isAlreadyExists, isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { ApiClient } from './port.ts';

export interface LeaseTimes {
  /** How long a leader is believed in without a renewal. */
  readonly leaseDurationMs: number;
  /** How long a leader goes on without being able to renew: less than the lease's duration. */
  readonly renewDeadlineMs: number;
  /** Between two attempts. */
  readonly retryMs: number;
}

/** Upstream's. */
export const DEFAULT_LEASE_TIMES: LeaseTimes = {
  leaseDurationMs: 15_000,
  renewDeadlineMs: 10_000,
  retryMs: 2_000,
};

/** What we have seen of the lease. */
export interface LeaseObservation {
  /** Holder and time of renewal as they stand in the lease: another text is a renewal. */
  readonly record: string;
  /** When we first saw it, by our clock that nobody sets. */
  readonly seenAtMs: number;
}

export type LeaseDecision =
  | { readonly type: 'create'; readonly lease: Lease }
  | { readonly type: 'update'; readonly lease: Lease }
  /** Somebody else is the leader. */
  | { readonly type: 'wait'; readonly holder: string };

/** @returns `previous` if nothing has changed */
export function observeLease(
  previous: LeaseObservation | undefined,
  lease: Lease | undefined,
  elapsedMs: number,
): LeaseObservation {
  const { holderIdentity, renewTime, leaseTransitions } = lease?.spec ?? {};
  const record = JSON.stringify([lease?.metadata.uid, holderIdentity, renewTime, leaseTransitions]);
  return previous?.record === record ? previous : { record, seenAtMs: elapsedMs };
}

/** Pure: what a candidate does about the lease as it is. */
export function decideLease(input: {
  readonly identity: string;
  readonly name: string;
  readonly namespace: string;
  readonly lease: Lease | undefined;
  readonly observation: LeaseObservation;
  readonly times: LeaseTimes;
  /** The time of day, for what is written. */
  readonly nowMs: number;
  /** By the clock of the observation. */
  readonly elapsedMs: number;
}): LeaseDecision {
  const { identity, name, namespace, lease, observation, times, nowMs, elapsedMs } = input;
  const now = formatMicroTime(nowMs);
  const renewal = {
    holderIdentity: identity,
    leaseDurationSeconds: Math.ceil(times.leaseDurationMs / 1000),
    renewTime: now,
  };
  if (lease === undefined) {
    const spec = { ...renewal, acquireTime: now, leaseTransitions: 0 };
    const metadata = { name, namespace };
    const created: Lease = {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata,
      spec,
    };
    return { type: 'create', lease: created };
  }
  const { holderIdentity: holder = '', leaseTransitions = 0 } = lease.spec;
  if (holder === identity)
    return { type: 'update', lease: { ...lease, spec: { ...lease.spec, ...renewal } } };
  // The holder says for how long it is to be believed; it may have been configured otherwise than we are.
  const { leaseDurationSeconds = times.leaseDurationMs / 1000 } = lease.spec;
  const isExpired = elapsedMs - observation.seenAtMs >= leaseDurationSeconds * 1000;
  if (holder !== '' && !isExpired) return { type: 'wait', holder };
  const spec = { ...renewal, acquireTime: now, leaseTransitions: leaseTransitions + 1 };
  return { type: 'update', lease: { ...lease, spec } };
}

export interface LeaderElectionOptions {
  readonly client: ApiClient;
  readonly name: string;
  readonly namespace: string;
  /** Unique among the candidates: a host name and something random. */
  readonly identity: string;
  /**
   * Runs while we lead. The signal is aborted when we do no longer: it must end then, and soon. If it ends by itself
   * the lease is given back and the election ends.
   */
  readonly lead: (signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly times?: LeaseTimes;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
}

/**
 * Takes part in the election until the signal is aborted, leading each time it is our turn. When it ends the lease is
 * given back, so that another need not wait.
 */
export async function runLeaderElection(options: LeaderElectionOptions): Promise<void> {
  const { signal, log, name, times = DEFAULT_LEASE_TIMES, lead } = options;
  const candidate = new Candidate(options, times);
  while (!signal.aborted) {
    if (!(await candidate.tryHold(times.renewDeadlineMs))) {
      await candidate.rest();
      continue;
    }
    log.info({ lease: name }, 'became the leader');
    const term = new AbortController();
    const stop = () => term.abort(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    const work = lead(term.signal);
    const renewal = candidate.renewUntil(term);
    try {
      await Promise.race([work, renewal]);
      const endedByItself = !term.signal.aborted;
      term.abort(new Error('the lease is lost'));
      await work;
      if (endedByItself) return;
    } finally {
      signal.removeEventListener('abort', stop);
      term.abort();
      await renewal;
      await candidate.release();
      log.info({ lease: name }, 'is the leader no longer');
    }
  }
}

class Candidate {
  readonly #options: LeaderElectionOptions;
  readonly #times: LeaseTimes;
  readonly #clock: Clock;
  #observation: LeaseObservation | undefined;
  /** The lease as we have written it last; `undefined` while somebody else holds it. */
  #held: Lease | undefined;

  constructor(options: LeaderElectionOptions, times: LeaseTimes) {
    this.#options = options;
    this.#times = times;
    this.#clock = options.clock ?? systemClock;
  }

  /** Takes or renews the lease within a time limit. @returns whether we hold it now; failures are logged */
  async tryHold(limitMs: number): Promise<boolean> {
    const { client, identity, name, namespace, log } = this.#options;
    const limit = AbortSignal.timeout(limitMs);
    try {
      const lease = await this.#read(limit);
      this.#observation = observeLease(this.#observation, lease, this.#clock.elapsed());
      const decision = decideLease({
        identity,
        name,
        namespace,
        lease,
        observation: this.#observation,
        times: this.#times,
        nowMs: this.#clock.now(),
        elapsedMs: this.#clock.elapsed(),
      });
      if (decision.type === 'wait') {
        this.#held = undefined;
        log.debug({ lease: name, holder: decision.holder }, 'somebody else leads');
        return false;
      }
      this.#held =
        decision.type === 'create'
          ? await client.create(LEASE, decision.lease, { signal: limit })
          : await client.update(LEASE, decision.lease, { signal: limit });
      return true;
    } catch (error) {
      // Another candidate was quicker: no failure.
      if (isConflict(error) || isAlreadyExists(error)) log.debug({ lease: name }, 'was not first');
      else log.warn({ lease: name, reason: explainError(error) }, 'cannot take or renew the lease');
      return false;
    }
  }

  /** Renews until the term ends, or ends it when renewing has failed for too long. */
  async renewUntil(term: AbortController): Promise<void> {
    let deadlineMs = this.#clock.elapsed() + this.#times.renewDeadlineMs;
    while (!term.signal.aborted) {
      const leftMs = () => Math.max(1, deadlineMs - this.#clock.elapsed());
      await pause(this.#clock, Math.min(this.#times.retryMs, leftMs()), term.signal);
      if (term.signal.aborted) return;
      // The deadline counts from before the request: others count from when the server had it.
      const nextDeadlineMs = this.#clock.elapsed() + this.#times.renewDeadlineMs;
      if (await this.tryHold(leftMs())) deadlineMs = nextDeadlineMs;
      if (this.#held === undefined || this.#clock.elapsed() >= deadlineMs)
        term.abort(new Error('the lease is lost'));
    }
  }

  /** Gives the lease back if we hold it. */
  async release(): Promise<void> {
    const held = this.#held;
    this.#held = undefined;
    if (held === undefined) return;
    const { client, name, log } = this.#options;
    const spec = { ...held.spec, holderIdentity: '', leaseDurationSeconds: 1 };
    try {
      const signal = AbortSignal.timeout(this.#times.renewDeadlineMs);
      await client.update(LEASE, { ...held, spec }, { signal });
    } catch (error) {
      // It runs out by itself.
      log.debug({ lease: name, reason: explainError(error) }, 'could not give the lease back');
    }
  }

  /** Until the next attempt, spread so that candidates do not come all at once. */
  async rest(): Promise<void> {
    const { signal, random = Math.random } = this.#options;
    await pause(this.#clock, this.#times.retryMs * (1 + 0.2 * random()), signal);
  }

  async #read(signal: AbortSignal): Promise<Lease | undefined> {
    const { client, name, namespace } = this.#options;
    try {
      return await client.get(LEASE, name, namespace, { signal });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }
}
