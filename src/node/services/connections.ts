/** Deletes conntrack entries that mislead, some time after they may have come to be; see `stale.ts`. */
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import type { Services } from './services.ts';
import { staleEntries } from './stale.ts';

/** The kernel can only be asked for its whole table, which may hold a million entries: a rolling update asks seldom. */
const MIN_CLEANUP_INTERVAL_MS = 200;

export class Connections implements AsyncDisposable {
  readonly #loop: SyncLoop;
  /** Count of entries deleted since the start. */
  deleted = 0;

  /** @param components `services`: asked when it runs */
  constructor(components: {
    conntrack: Conntrack;
    services: () => Pick<Services, 'targetsOf' | 'forgetGone'>;
    log: Logger;
  }) {
    const { conntrack, services, log } = components;
    const sync = () => {
      const stale = staleEntries(conntrack.list(), (frontend) => services().targetsOf(frontend));
      const deleted = conntrack.delete(stale);
      services().forgetGone();
      this.deleted += deleted;
      if (deleted > 0) log.info({ deleted }, 'services: ended connections to lost endpoints');
    };
    this.#loop = new SyncLoop(sync, {
      name: 'conntrack cleanup',
      log,
      minIntervalMs: MIN_CLEANUP_INTERVAL_MS,
    });
  }

  /** Asks for a cleanup; returns at once. */
  trigger(): void {
    this.#loop.trigger();
  }

  get problem(): string | undefined {
    return this.#loop.lastError;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop[Symbol.asyncDispose]();
  }
}
