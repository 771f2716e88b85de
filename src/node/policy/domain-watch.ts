/**
 * Domain names of policies over time: hears of answers, opens and closes addresses, and keeps what it knows on disk, so
 * that an agent that starts does not close what the one before had opened.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Clock, steady, systemClock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { type Family, parseIp } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { CompiledPolicy } from '#policy/model.ts';
import { DIRECTIONS } from '#policy/model.ts';
import type { AnswerWatch, ToldAddress } from '../answer-watch.ts';
import { type DomainEntry, DomainMemory, type OnResolved } from './domains.ts';

/** Addresses that are over may stay so much longer: one walk over the names for many of them. */
const MIN_EXPIRE_INTERVAL_MS = 1000;
/** What an agent that is killed may forget of the last answers. */
const MIN_WRITE_INTERVAL_MS = 1000;
const FILE_VERSION = 1;

export interface DomainsOptions {
  /** Undefined: nothing is kept. */
  readonly file: string | undefined;
  readonly onResolved: OnResolved;
  /** Something has to be programmed. From an answer: before this returns, because the answer leaves then. */
  readonly onChanged: () => void;
  /** Names are wanted that were not: answers that somebody holds for them must be asked for again. */
  readonly onNewPatterns: () => void;
  readonly log: Logger;
  readonly clock?: Clock;
}

export class Domains implements AnswerWatch, AsyncDisposable {
  readonly memory: DomainMemory;
  readonly #options: DomainsOptions;
  readonly #clock: Clock;
  readonly #writes: SyncLoop;
  /** Of an earlier agent, until the policies are known. */
  #remembered: readonly DomainEntry[];
  #changed = false;
  #cancelTimer: (() => void) | undefined;
  #armedForMs = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(options: DomainsOptions) {
    this.#options = options;
    this.#clock = steady(options.clock ?? systemClock);
    this.memory = new DomainMemory((pattern, before, after) => {
      this.#changed = true;
      options.onResolved(pattern, before, after);
    });
    this.#remembered = options.file === undefined ? [] : readEntries(options.file, options.log);
    this.#writes = new SyncLoop(() => this.#write(), {
      name: 'policy: remember domain names',
      log: options.log,
      clock: this.#clock,
      minIntervalMs: MIN_WRITE_INTERVAL_MS,
    });
  }

  /** @param policies all of them, at the first call too: what no pattern means is forgotten */
  setPolicies(policies: Iterable<CompiledPolicy>): void {
    const hasNew = this.memory.setPatterns(patternsOf(policies));
    if (this.#remembered.length > 0) {
      this.memory.restore(this.#remembered, this.#clock.now());
      this.#remembered = [];
    }
    if (hasNew) this.#options.onNewPatterns();
    this.#expire();
  }

  wanted(): ReadonlySet<string> {
    return this.memory.patterns;
  }

  asked(name: string, family: Family): void {
    this.#expireAt(this.memory.asked(name, family, this.#clock.now()));
    this.#tellChange();
  }

  answered(name: string, family: Family, addresses: readonly ToldAddress[] | undefined): void {
    this.#expireAt(this.memory.answered(name, { family, addresses }, this.#clock.now()));
    this.#tellChange();
    this.#writes.trigger();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#cancelTimer?.();
    await this.#writes[Symbol.asyncDispose]();
  }

  #tellChange(): void {
    if (!this.#changed) return;
    this.#changed = false;
    this.#options.onChanged();
  }

  #expire(): void {
    this.#expireAt(this.memory.expire(this.#clock.now()));
  }

  /** Looks again at this time, or earlier if something else is over earlier. */
  #expireAt(atMs: number | undefined): void {
    if (this.#closed || atMs === undefined || atMs >= this.#armedForMs) return;
    this.#cancelTimer?.();
    this.#armedForMs = atMs;
    const delayMs = Math.max(atMs - this.#clock.now(), MIN_EXPIRE_INTERVAL_MS);
    this.#cancelTimer = this.#clock.schedule(delayMs, () => {
      this.#armedForMs = Number.POSITIVE_INFINITY;
      this.#expire();
      this.#tellChange();
    });
  }

  async #write(): Promise<void> {
    const { file } = this.#options;
    if (file === undefined) return;
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const entries = [...this.memory.states()].map(({ name, address, untilMs }) => ({
      ...{ name, address, untilMs },
    }));
    const temporary = `${file}.new-${process.pid}`;
    await writeFile(temporary, JSON.stringify({ version: FILE_VERSION, entries }), { mode: 0o600 });
    await rename(temporary, file);
  }
}

/** The domain names that rules have as peers. */
export function patternsOf(policies: Iterable<CompiledPolicy>): Set<string> {
  const patterns = new Set<string>();
  for (const policy of policies)
    for (const direction of DIRECTIONS)
      for (const rule of policy[direction] ?? [])
        for (const peer of rule.peers ?? []) if (peer.kind === 'domain') patterns.add(peer.name);
  return patterns;
}

/** @returns nothing if there is no such file, or none that can be trusted */
function readEntries(file: string, log: Logger): DomainEntry[] {
  try {
    const value = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    if (value.version !== FILE_VERSION || !Array.isArray(value.entries))
      throw new Error('it is of another version');
    return value.entries.flatMap(({ name, address, untilMs }: Record<string, unknown>) => {
      const ip = parseIp(String(address));
      return typeof name === 'string' && ip !== undefined && typeof untilMs === 'number'
        ? [{ name, address: ip, untilMs }]
        : [];
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      log.warn(
        { file, reason: explainError(error) },
        'policy: cannot use what was remembered of domain names; pods have to ask for them again',
      );
    return [];
  }
}
