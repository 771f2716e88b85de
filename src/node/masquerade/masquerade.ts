/** The masquerade feature: watches pools and the configuration file and keeps the sets of networks. */
import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { Cache } from '#client/port.ts';
import { isSpecChange } from '#client/spec-change.ts';
import { explainError } from '#lib/errors.ts';
import { parseCidr } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Ruleset } from '../ruleset.ts';
import { DEFAULT_CONFIG, type MasqueradeConfig, parseMasqueradeConfig } from './config.ts';
import { masqueradeElements, masqueradePart } from './plan.ts';

/** Name of this feature's part of the ruleset. */
export const MASQUERADE_PART = 'masquerade';
/** Where ip-masq-agent has it. */
export const MASQUERADE_FILE = '/etc/config/ip-masq-agent';
/** The file may be a link into a ConfigMap volume, which is swapped: only looking finds that. */
const FILE_LOOK_MS = 1_000;

export class Masquerade implements AsyncDisposable {
  readonly #rulesets: readonly Ruleset[];
  readonly #pools: Cache<IPPool>;
  readonly #file: string;
  readonly #log: Logger;
  readonly #loop: SyncLoop;
  #config: MasqueradeConfig = DEFAULT_CONFIG;
  #fileProblem: string | undefined;
  #stop: (() => void) | undefined;
  readonly #onFile = () => this.#loop.trigger();

  constructor(
    components: { rulesets: readonly Ruleset[]; pools: Cache<IPPool>; log: Logger },
    init: { file?: string } = {},
  ) {
    this.#rulesets = components.rulesets;
    this.#pools = components.pools;
    this.#log = components.log;
    this.#file = init.file ?? MASQUERADE_FILE;
    this.#loop = new SyncLoop(() => this.#sync(), { name: 'masquerade', log: components.log });
  }

  /** Resolves when the pools that the API has are in the ruleset. */
  async start(): Promise<void> {
    await this.#pools.synced();
    this.#stop = this.#pools.onChange((change) => {
      if (isSpecChange(change)) this.#loop.trigger();
    });
    watchFile(this.#file, { interval: FILE_LOOK_MS, persistent: false }, this.#onFile);
    await this.#loop.settled();
  }

  get problem(): string | undefined {
    return this.#loop.lastError ?? this.#fileProblem;
  }

  /** Stops watching; the rules stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop?.();
    unwatchFile(this.#file, this.#onFile);
    await this.#loop[Symbol.asyncDispose]();
  }

  #sync(): void {
    this.#readFile();
    const pools = [...this.#pools.values()].flatMap((pool) => {
      const prefix = parseCidr(pool.spec.cidr);
      return prefix === undefined
        ? []
        : [{ cidr: prefix, natOutgoing: pool.spec.natOutgoing ?? true }];
    });
    for (const ruleset of this.#rulesets) {
      ruleset.define(MASQUERADE_PART, masqueradePart(ruleset.family));
      for (const { set, elements } of masqueradeElements(
        pools,
        this.#config.exempt,
        ruleset.family,
      ))
        ruleset.stageAll(set, elements);
      ruleset.commit();
    }
  }

  /** A file with a mistake changes nothing: what was there before it goes on. */
  #readFile(): void {
    const before = this.#fileProblem;
    this.#fileProblem = undefined;
    try {
      this.#config = parseMasqueradeConfig(readFileSync(this.#file, 'utf8'), this.#file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') this.#config = DEFAULT_CONFIG;
      else this.#fileProblem = explainError(error);
    }
    if (this.#fileProblem !== undefined && this.#fileProblem !== before)
      this.#log.warn({ reason: this.#fileProblem }, 'masquerade: the file is not taken');
  }
}
