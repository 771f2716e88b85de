/**
 * Deletes conntrack entries that mislead, some time after they may have come to be; see `stale.ts`.
 *
 * What comes next on a TCP connection that was forgotten must be reset. Another endpoint would do that too, unless it has
 * a connection of the same addresses and ports by another service, or had one that it does not know to be dead: then it
 * answers, and both ends wait for the rest of a quarter of an hour. So such connections are written into a set first.
 */
import { KernelError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import { type ConntrackEntry, TCP_CONNTRACK } from '#wire/conntrack/codec.ts';
import { tableFamilyOf } from '#wire/nftables/values.ts';
import type { Ruleset } from '../ruleset.ts';
import { endedElement } from './elements.ts';
import { ENDED } from './program.ts';
import type { Services } from './services.ts';
import { staleEntries } from './stale.ts';

/** The kernel can only be asked for its whole table, which may hold a million entries: a rolling update asks seldom. */
const MIN_CLEANUP_INTERVAL_MS = 200;
/** Of one family and one cleanup; an element takes the kernel some hundred bytes. */
const MAX_ENDED = 65_536;

export class Connections implements AsyncDisposable {
  readonly #loop: SyncLoop;
  /** Count of entries deleted since the start. */
  deleted = 0;

  readonly #stops: readonly (() => void)[];
  #wasRepaired = false;

  /** @param components `services`: asked when it runs; `rulesets`: after each repair of them it runs */
  constructor(components: {
    conntrack: Conntrack;
    services: () => Pick<Services, 'targetsOf' | 'forgetGone'>;
    rulesets: readonly Pick<Ruleset, 'family' | 'onRepaired' | 'addExpiring'>[];
    log: Logger;
  }) {
    const { conntrack, services, rulesets, log } = components;
    const sync = () => {
      const unanswered = this.#wasRepaired;
      const stale = staleEntries(conntrack.list(), (frontend) => services().targetsOf(frontend), {
        unanswered,
      });
      for (const ruleset of rulesets) rememberEnded(ruleset, stale, log);
      const deleted = conntrack.delete(stale);
      if (unanswered) this.#wasRepaired = false;
      services().forgetGone();
      this.deleted += deleted;
      if (deleted > 0) log.info({ deleted }, 'services: forgot connections that led astray');
    };
    this.#loop = new SyncLoop(sync, {
      name: 'conntrack cleanup',
      log,
      minIntervalMs: MIN_CLEANUP_INTERVAL_MS,
    });
    this.#stops = rulesets.map((ruleset) =>
      ruleset.onRepaired(() => {
        this.#wasRepaired = true;
        this.trigger();
      }),
    );
  }

  /** Count of cleanups since the start. */
  get runs(): number {
    return this.#loop.runs;
  }

  /** Asks for a cleanup; returns at once. */
  trigger(): void {
    this.#loop.trigger();
  }

  get problem(): string | undefined {
    return this.#loop.lastError;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#loop[Symbol.asyncDispose]();
  }
}

function rememberEnded(
  ruleset: Pick<Ruleset, 'family' | 'addExpiring'>,
  entries: readonly ConntrackEntry[],
  log: Logger,
): void {
  const ended = entries
    .filter((it) => isOpen(it) && tableFamilyOf(it.original.source) === ruleset.family)
    .slice(0, MAX_ENDED);
  try {
    ruleset.addExpiring(
      ENDED,
      ended.map(({ original }) => endedElement(original)),
    );
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    // Without it they are still forgotten, and nearly all of them reset by another endpoint.
    log.warn({ err: error }, 'services: cannot note which connections have ended');
  }
}

/** True for a TCP connection on which the client may still send. */
function isOpen({ tcpState }: ConntrackEntry): boolean {
  const { established, finWait, closeWait } = TCP_CONNTRACK;
  return tcpState === established || tcpState === finWait || tcpState === closeWait;
}
