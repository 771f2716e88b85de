/**
 * Brings the plan to the kernel, in one transaction over both families. A policy that the kernel refuses is left out
 * and the pods that it selects are closed, so that the others are carried out; now and then it is tried again.
 */
import { Backoff } from '#lib/backoff.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { EAGAIN, EINTR, ENOBUFS, ERESTART, isErrno } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { type Refusal, Ruleset } from '../ruleset.ts';
import { isolate, ownersOf } from './isolate.ts';
import type { PolicyPlanner } from './planner.ts';

/** Name of this feature's part of the ruleset. */
export const POLICY_PART = 'policy';
/** A refused policy is tried again so soon and so seldom: each try may write the whole table several times. */
const RETRY = { minMs: 4_000, maxMs: 300_000 } as const;
/**
 * Each try writes all tables, and the agent does nothing else meanwhile: pods are not attached, names are not answered. What
 * is not found in this time is looked for when refused policies are tried again, among those that are left.
 */
const MAX_TRYING_MS = 2_000;
/** Others commit without pause, or an answer was lost: nothing was said of what we want. */
const NOBODYS_FAULT = [ERESTART, EAGAIN, EINTR, ENOBUFS];
const NOBODY: ReadonlyMap<string, string> = new Map();

export interface ProgrammerComponents {
  readonly planner: PolicyPlanner;
  /** One per family. */
  readonly rulesets: readonly Ruleset[];
  readonly log: Logger;
  /** It is time to call {@link Programmer.program}, though nothing has changed. */
  readonly onRetry: () => void;
  readonly clock?: Clock;
}

export class Programmer implements Disposable {
  readonly #c: ProgrammerComponents;
  readonly #backoff = new Backoff(RETRY);
  #refused = NOBODY;
  #cancelRetry: (() => void) | undefined;
  #isRetryDue = false;

  constructor(components: ProgrammerComponents) {
    this.#c = components;
  }

  /** Why each policy is not in the kernel that it has refused. */
  get refused(): ReadonlyMap<string, string> {
    return this.#refused;
  }

  /**
   * Programs what the planner holds, less the policies that the kernel refuses.
   * @param changed policies since everything was in the kernel: one that was refused gets another chance
   * @throws what the kernel said, if it refuses what no policy wants; it then has what it had
   */
  program(changed: ReadonlySet<string>): void {
    const { planner } = this.#c;
    const before = new Map(
      [...this.#refused].filter(([id]) => !changed.has(id) && planner.policy(id) !== undefined),
    );
    const known = this.#isRetryDue ? NOBODY : before;
    const suspects = new Set([...changed, ...(this.#isRetryDue ? before.keys() : [])]);
    this.#isRetryDue = false;
    const tryWithout = (refused: ReadonlySet<string>) => this.#tryWithout(refused);
    const left = new Set(known.keys());
    // The second is written from scratch: the mirror may have been wrong, or what packets wrote was refused.
    const refusal = tryWithout(left) && tryWithout(left) && tryWithout(left);
    if (refusal === undefined) {
      this.#keep(known);
      return;
    }
    if (NOBODYS_FAULT.some((errno) => isErrno(refusal.error, errno))) {
      this.#keep(before);
      throw refusal.error;
    }
    const clock = this.#c.clock ?? systemClock;
    const endMs = clock.elapsed() + MAX_TRYING_MS;
    const isolation = isolate(refusal, known, {
      isTimeUp: () => clock.elapsed() >= endMs,
      tryWithout,
      ownersOf: (operation) => ownersOf(operation, planner.policies),
      suspects: [...suspects].filter((id) => planner.policy(id) !== undefined),
    });
    if (isolation.kind === 'failed') {
      this.#keep(before);
      throw isolation.error;
    }
    // The same refusal in other words says nothing new.
    this.#keep(new Map([...isolation.refused].map(([id, why]) => [id, before.get(id) ?? why])));
  }

  [Symbol.dispose](): void {
    this.#cancelRetry?.();
  }

  #tryWithout(refused: ReadonlySet<string>): Refusal | undefined {
    const { planner, rulesets } = this.#c;
    planner.leaveOut(refused);
    stagePlan(planner, rulesets);
    // The mirror holds what was staged: after a refusal the next try makes the tables anew from it.
    return Ruleset.tryCommit(rulesets);
  }

  #keep(refused: ReadonlyMap<string, string>): void {
    for (const [id, reason] of refused)
      if (this.#refused.get(id) !== reason)
        this.#c.log.error(
          { policy: id, reason },
          'policy: the kernel refuses a policy; the pods that it selects are closed until it takes it',
        );
    this.#refused = refused;
    if (refused.size === 0) {
      this.#cancelRetry?.();
      this.#cancelRetry = undefined;
      this.#backoff.reset();
      return;
    }
    this.#cancelRetry ??= (this.#c.clock ?? systemClock).schedule(this.#backoff.next(), () => {
      this.#cancelRetry = undefined;
      this.#isRetryDue = true;
      this.#c.onRetry();
    });
  }
}

/** Stages what has changed in the plan; families without a ruleset are left out. */
export function stagePlan(planner: PolicyPlanner, rulesets: readonly Ruleset[]): void {
  for (const { family, part, elements } of planner.take()) {
    const ruleset = rulesets.find((candidate) => candidate.family === family);
    if (ruleset === undefined) continue;
    if (part !== undefined) ruleset.define(POLICY_PART, part);
    for (const { set, add, remove } of elements) ruleset.stage(set, { add, remove });
  }
}
