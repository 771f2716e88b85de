/** The probes feature: asks the containers that want it whether they are ready, each at its own pace. */
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import type { Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import type { ProbeTarget, Readiness, ReadinessProbes } from '../readiness.ts';
import { ask, type ExecResult, type Question } from './probers.ts';
import { type Probe, parseProbe } from './settings.ts';
import { initialState, nextState, type ProbeResult, type ProbeState } from './state.ts';

/** Questions at a time, so that a node with many pods does not open a thousand connections in one moment. */
const MAX_QUESTIONS_AT_ONCE = 64;
/** Commands at a time: each is a process of the runtime's, which is heavy. */
const MAX_COMMANDS_AT_ONCE = 4;
/** Until it is ready for the first time a container is asked at least this often: people wait for it. */
const FIRST_PERIOD_MS = 1_000;
/** A reason that changes with every answer (a command that prints the time) is not told more often than this. */
const MIN_REASON_INTERVAL_MS = 10_000;

/** Runs a command in a container; only what is needed of a runtime. */
export interface ExecRuntime {
  readonly name: string;
  exec?(
    containerId: string,
    argv: readonly string[],
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<ExecResult>;
}

export interface ProbesComponents {
  readonly runtimes: readonly ExecRuntime[];
  readonly log: Logger;
  readonly clock?: Clock;
  /** For tests. */
  readonly ask?: (question: Question) => Promise<ProbeResult>;
}

interface Entry {
  readonly target: ProbeTarget;
  /** Undefined: what is asked for cannot be read. */
  readonly probe: Probe | undefined;
  readonly stop: AbortController;
  state: ProbeState;
  /** Until then a container that never was ready is asked more often. Milliseconds since the epoch. */
  readonly eagerUntilMs: number;
  wasEverReady: boolean;
  toldMs: number;
  cancelTimer: () => void;
}

export class Probes implements ReadinessProbes, AsyncDisposable {
  readonly #c: ProbesComponents;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #listeners = new Set<() => void>();
  readonly #work = new Set<Promise<void>>();
  readonly #questions = new Slots(MAX_QUESTIONS_AT_ONCE);
  readonly #commands = new Slots(MAX_COMMANDS_AT_ONCE);

  constructor(components: ProbesComponents) {
    this.#c = components;
    this.#clock = components.clock ?? systemClock;
  }

  follow(targets: readonly ProbeTarget[]): void {
    const wanted = new Map(targets.map((target) => [target.containerId, target]));
    for (const [id, entry] of this.#entries) {
      const target = wanted.get(id);
      if (target !== undefined && isSame(target, entry.target)) wanted.delete(id);
      else {
        end(entry);
        this.#entries.delete(id);
      }
    }
    for (const target of wanted.values()) this.#begin(target);
  }

  readinessOf(containerId: string): Readiness | undefined {
    const entry = this.#entries.get(containerId);
    if (entry === undefined) return undefined;
    const { ready, sinceMs, message } = entry.state;
    return { ready, since: new Date(sinceMs).toISOString(), message };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const entry of this.#entries.values()) end(entry);
    this.#entries.clear();
    await Promise.all(this.#work);
  }

  #begin(target: ProbeTarget): void {
    const parsed = parseProbe(target.settings);
    if (parsed.kind === 'none') return;
    const nowMs = this.#clock.now();
    const probe = parsed.kind === 'probe' ? parsed.probe : undefined;
    const { startPeriodMs = 0, periodMs = 0, failureThreshold = 0 } = probe ?? {};
    const entry: Entry = {
      target,
      probe,
      stop: new AbortController(),
      state: initialState(target.was, nowMs),
      eagerUntilMs: this.#clock.elapsed() + Math.max(startPeriodMs, periodMs * failureThreshold),
      wasEverReady: target.was?.ready === true,
      toldMs: Number.NEGATIVE_INFINITY,
      cancelTimer: () => {},
    };
    this.#entries.set(target.containerId, entry);
    if (parsed.kind !== 'malformed') {
      this.#schedule(entry, 0);
      return;
    }
    // A wish that cannot be read must not pass for a good answer.
    entry.state = { ...entry.state, ready: false, message: parsed.message };
    this.#c.log.warn(
      { container: target.containerId, reason: parsed.message },
      'a container asks for a readiness probe that cannot be read: it stays not ready',
    );
  }

  #schedule(entry: Entry, delayMs: number): void {
    entry.cancelTimer = this.#clock.schedule(delayMs, () => {
      const work = this.#ask(entry).finally(() => this.#work.delete(work));
      this.#work.add(work);
    });
  }

  async #ask(entry: Entry): Promise<void> {
    const { probe, target, stop } = entry;
    const [address] = target.addresses;
    if (probe === undefined) return;
    const slots = probe.action.kind === 'exec' ? this.#commands : this.#questions;
    const askedMs = this.#clock.elapsed();
    let result: ProbeResult = { ok: false, message: 'the pod has no address' };
    await slots.enter();
    try {
      if (stop.signal.aborted) return;
      if (address !== undefined)
        result = await (this.#c.ask ?? ask)(this.#question(entry, probe, address));
    } catch (error) {
      this.#c.log.error({ err: error, container: target.containerId }, 'a probe failed by itself');
      result = { ok: false, message: 'the probe failed' };
    } finally {
      slots.leave();
    }
    if (stop.signal.aborted) return;
    this.#learn(entry, probe, result);
    const nowMs = this.#clock.elapsed();
    const isEager = !entry.wasEverReady && nowMs < entry.eagerUntilMs;
    const periodMs = isEager ? Math.min(probe.periodMs, FIRST_PERIOD_MS) : probe.periodMs;
    this.#schedule(entry, Math.max(0, periodMs - (nowMs - askedMs)));
  }

  #question({ target, stop }: Entry, probe: Probe, address: Ip): Question {
    const runtime = this.#c.runtimes.find(({ name }) => name === target.runtime);
    return {
      probe,
      address,
      exec: runtime?.exec?.bind(runtime, target.containerId),
      signal: stop.signal,
    };
  }

  #learn(entry: Entry, probe: Probe, result: ProbeResult): void {
    const before = entry.state;
    const startedMs = Date.parse(entry.target.startedAt);
    const nowMs = this.#clock.now();
    entry.state = nextState(before, result, { probe, startedMs, nowMs });
    const { ready, message } = entry.state;
    if (ready) entry.wasEverReady = true;
    const isTold = ready === before.ready && message === before.message;
    const elapsedMs = this.#clock.elapsed();
    const isSoon = elapsedMs - entry.toldMs < MIN_REASON_INTERVAL_MS;
    if (isTold || (ready === before.ready && isSoon)) return;
    entry.toldMs = elapsedMs;
    if (ready !== before.ready)
      this.#c.log.info(
        { container: entry.target.containerId, ready, ...(ready ? {} : { reason: message }) },
        'the readiness of a container has changed',
      );
    for (const listener of this.#listeners) listener();
  }
}

function end(entry: Entry): void {
  entry.cancelTimer();
  entry.stop.abort(new Error('the container is not probed any more'));
}

/** `was` is only where a probe begins; what comes of it later is no reason to begin anew. */
function isSame(a: ProbeTarget, b: ProbeTarget): boolean {
  const text = ({ was: _, ...target }: ProbeTarget) => JSON.stringify(target);
  return text(a) === text(b);
}

/** At most so many at a time, the others in order. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];
  constructor(count: number) {
    this.#free = count;
  }
  async enter(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
