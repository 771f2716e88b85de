/** Deletes conntrack entries that mislead, some time after they may have come to be; see `stale.ts`. */
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import type { Ruleset } from '../ruleset.ts';
import type { Services } from './services.ts';
import { staleEntries } from './stale.ts';

/** The kernel can only be asked for its whole table, which may hold a million entries: a rolling update asks seldom. */
const MIN_CLEANUP_INTERVAL_MS = 200;

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
    rulesets: readonly Pick<Ruleset, 'onRepaired'>[];
    log: Logger;
  }) {
    const { conntrack, services, rulesets, log } = components;
    const sync = () => {
      const unanswered = this.#wasRepaired;
      const stale = staleEntries(conntrack.list(), (frontend) => services().targetsOf(frontend), {
        unanswered,
      });
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
