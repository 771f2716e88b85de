/** Takes addresses and blocks back from nodes that were deleted, and removes the blocks of pools that are to go. */
import type { Node } from '#api/core/v1/node.ts';
import { IP_BLOCK, type IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { MissingNodes } from '../missing-nodes.ts';
import { nodesOf, planReclaim } from './plan.ts';

export interface AddressPoolsOptions {
  readonly client: ApiClient;
  readonly blocks: Cache<IPBlock>;
  readonly pools: Cache<IPPool>;
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
  readonly #missing: MissingNodes;
  readonly #stops: (() => void)[];

  constructor(options: AddressPoolsOptions) {
    const { blocks, pools, nodes, log, clock } = options;
    this.#options = options;
    this.#loop = new SyncLoop(() => this.#sync(), { name: 'address-pools', log, clock });
    const trigger = () => this.#loop.trigger();
    this.#missing = new MissingNodes({ ...options, onDue: trigger });
    this.#stops = [
      nodes.onChange(({ old, current }) => {
        if (old === undefined || current === undefined) trigger();
      }),
      pools.onChange(({ old, current }) => {
        if (old?.spec.disabled !== current?.spec.disabled) trigger();
      }),
      blocks.onChange(({ current }) => {
        if (current === undefined) return;
        const isNobodys = current.spec.node === '';
        if (isNobodys || nodesOf(current).some((name) => nodes.get(name) === undefined)) trigger();
      }),
    ];
    trigger();
  }

  settled(): Promise<void> {
    return this.#loop.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    this.#missing[Symbol.dispose]();
    await this.#loop[Symbol.asyncDispose]();
  }

  async #sync(): Promise<void> {
    const { client, blocks, pools, log, clock } = this.#options;
    await Promise.all([blocks.synced(), pools.synced()]);
    const gone = await this.#missing.gone(new Set([...blocks.values()].flatMap(nodesOf)));
    const plan = planReclaim({
      blocks: blocks.values(),
      pools: pools.values(),
      gone,
      nowMs: clock.now(),
    });
    for (const { block, released } of plan.update)
      await unlessChanged(async () => {
        await client.update(IP_BLOCK, block);
        const { cidr, node } = block.spec;
        log.warn({ block: cidr, node, released }, 'took back what a deleted node had of a block');
      });
    for (const block of plan.remove)
      await unlessChanged(async () => {
        const { name, uid, resourceVersion } = block.metadata;
        // Only as it was seen: a node may have claimed it if the pool was enabled again.
        const preconditions = {
          ...(uid === undefined ? {} : { uid }),
          ...(resourceVersion === undefined ? {} : { resourceVersion }),
        };
        await client.delete(IP_BLOCK, { name }, { preconditions });
        log.info({ block: block.spec.cidr }, 'removed an empty block of a disabled pool');
      });
  }
}

/** Who has changed the block meanwhile brings us here again. */
async function unlessChanged(write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (!isConflict(error) && !isNotFound(error)) throw error;
  }
}
