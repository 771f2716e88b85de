/** Holds the connections of this node against the policies after each change, and cuts those that are not allowed. */
import { CT_MARK_CUT } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import { type CutContext, planCuts } from './cut.ts';

/** Changes within this time are one look; a look reads the whole connection table. */
const MIN_INTERVAL_MS = 200;
/** Most changes are pods that come or go; the walk keeps a processor from those who are at work on them. */
const FIRST_LOOK_MS = 50;
/** A packet that was judged by the old rules may enter its connection after we looked: look once more. */
const SECOND_LOOK_MS = 400;

export class Cutter implements AsyncDisposable {
  readonly #conntrack: Conntrack;
  readonly #context: () => CutContext;
  readonly #log: Logger;
  readonly #loop: SyncLoop;
  #first: NodeJS.Timeout | undefined;
  #lookedAtMs = -Infinity;
  #second: NodeJS.Timeout | undefined;
  #closed = false;
  #cut = 0;

  /** @param context read at each look */
  constructor(components: { conntrack: Conntrack; context: () => CutContext; log: Logger }) {
    this.#conntrack = components.conntrack;
    this.#context = components.context;
    this.#log = components.log;
    this.#loop = new SyncLoop(() => this.#look(), {
      name: 'policy: connections',
      log: components.log,
      minIntervalMs: MIN_INTERVAL_MS,
    });
  }

  /** What is allowed may have changed. Returns at once. */
  trigger(): void {
    if (this.#closed) return;
    this.#first ??= setTimeout(
      () => {
        this.#first = undefined;
        this.#loop.trigger();
      },
      Math.max(FIRST_LOOK_MS, this.#lookedAtMs + MIN_INTERVAL_MS - performance.now()),
    );
    if (this.#second !== undefined) clearTimeout(this.#second);
    this.#second = setTimeout(() => this.#loop.trigger(), SECOND_LOOK_MS);
  }

  get problem(): string | undefined {
    return this.#loop.lastError;
  }
  /** How many connections have been cut. */
  get cutCount(): number {
    return this.#cut;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#first);
    clearTimeout(this.#second);
    await this.#loop[Symbol.asyncDispose]();
  }

  async #look(): Promise<void> {
    // Each pod that comes or goes is a change; the walk over the table must not hold up its ADD.
    const entries = await this.#conntrack.listOnThread();
    this.#lookedAtMs = performance.now();
    const { cut, restore } = planCuts(entries, this.#context());
    this.#conntrack.mark(cut, { mask: CT_MARK_CUT, value: CT_MARK_CUT });
    this.#conntrack.mark(restore, { mask: CT_MARK_CUT, value: 0 });
    this.#cut += cut.length;
    if (cut.length > 0 || restore.length > 0)
      this.#log.info(
        { cut: cut.length, restored: restore.length },
        'policy: connections that are not allowed any more were cut',
      );
  }
}
