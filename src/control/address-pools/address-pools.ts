/** Takes address blocks back from nodes that were deleted. */
import { NODE, type Node } from '#api/core/v1/node.ts';
import { IP_BLOCK, type IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { planReclaim } from './plan.ts';

export interface AddressPoolsOptions {
  readonly client: ApiClient;
  readonly blocks: Cache<IPBlock>;
  readonly nodes: Cache<Node>;
  readonly log: Logger;
  readonly clock: Clock;
}

export function startAddressPools(options: AddressPoolsOptions): AddressPools {
  return new AddressPools(options);
}

export class AddressPools implements AsyncDisposable {
  readonly #options: AddressPoolsOptions;
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[];
  #missingSinceMs: ReadonlyMap<string, number> = new Map();
  #cancelTimer: (() => void) | undefined;
  #isClosed = false;

  constructor(options: AddressPoolsOptions) {
    const { blocks, nodes, log, clock } = options;
    this.#options = options;
    this.#loop = new SyncLoop(() => this.#sync(), { name: 'address-pools', log, clock });
    this.#stops = [
      nodes.onChange(({ old, current }) => {
        if (old === undefined || current === undefined) this.#loop.trigger();
      }),
      blocks.onChange(({ current }) => {
        const node = current?.spec.node ?? '';
        if (node !== '' && nodes.get(node) === undefined) this.#loop.trigger();
      }),
    ];
    this.#loop.trigger();
  }

  settled(): Promise<void> {
    return this.#loop.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    this.#cancelTimer?.();
    await this.#loop[Symbol.asyncDispose]();
  }

  async #sync(): Promise<void> {
    const { client, blocks, nodes, log, clock } = this.#options;
    await Promise.all([blocks.synced(), nodes.synced()]);
    const plan = planReclaim({
      blocks: blocks.values(),
      nodeExists: (name) => nodes.get(name) !== undefined,
      missingSinceMs: this.#missingSinceMs,
      nowMs: clock.now(),
    });
    this.#missingSinceMs = plan.missingSinceMs;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    for (const block of plan.orphan) {
      const node = blocks.get(block.metadata.name)?.spec.node ?? '';
      // A cache can be behind: the node may be there again.
      if (await exists(client, node)) continue;
      try {
        await client.update(IP_BLOCK, block);
        log.warn({ block: block.spec.cidr, node }, 'took the block of a deleted node back');
      } catch (error) {
        // Somebody else has changed it; the change brings us here again.
        if (!isConflict(error) && !isNotFound(error)) throw error;
      }
    }
    if (plan.nextAtMs !== undefined && !this.#isClosed)
      this.#cancelTimer = clock.schedule(plan.nextAtMs - clock.now(), () => this.#loop.trigger());
  }
}

async function exists(client: ApiClient, node: string): Promise<boolean> {
  try {
    await client.get(NODE, node);
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}
