/**
 * Keeps a node's warm addresses in the API: tells it which pods have those that were handed out, right after their runtimes
 * were answered, and takes new ones for the pods to come, all of it in one write of each block.
 */
import type { Labels } from '#api/machinery/label-selector.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { cidr, cidrContains, type Family, familyOf } from '#lib/ip.ts';
import { type IpRange, rangeContains } from '#lib/ip-range.ts';
import type { Logger } from '#lib/log.ts';
import type { Lull } from '#lib/lull.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { AddressOwner, AllocatedAddress } from '../addresses.ts';
import { addressesOfHandle } from './block.ts';
import { poolsFor, reservedOf } from './claim.ts';
import type { NodeBlocks } from './node-blocks.ts';
import { WarmAddresses, type WarmInit } from './warm.ts';

/** Pods that come together are told to the API together. */
const TEND_INTERVAL_MS = 5;
/** A node that stops does not wait longer for the API; what it cannot give back, the next process's collection does. */
const MAX_STOP_MS = 1_000;

export interface WarmKeeperComponents {
  readonly node: string;
  readonly blocks: NodeBlocks;
  readonly pools: () => readonly IPPool[];
  readonly nodeLabels?: () => Labels;
  readonly coolDownMs: number;
  readonly clock: Clock;
  /** The answer to a runtime, and what it does next, come first. */
  readonly lull: Lull;
  readonly log: Logger;
}

export class WarmKeeper implements AsyncDisposable {
  readonly warm: WarmAddresses;
  readonly #components: WarmKeeperComponents;
  readonly #isOn: boolean;
  readonly #loop: SyncLoop;
  #cancelSoon: (() => void) | undefined;

  constructor(init: WarmInit, components: WarmKeeperComponents) {
    this.#components = components;
    this.#isOn = init.count !== 0;
    this.warm = new WarmAddresses(components.node, init);
    this.#loop = new SyncLoop(() => this.tend(), {
      name: 'warm addresses',
      log: components.log,
      clock: components.clock,
      minIntervalMs: TEND_INTERVAL_MS,
    });
  }

  /**
   * An address without waiting for the API. Who has one already, as far as memory knows, keeps that.
   * @param from the pools that the owner may use, and the ranges that it names
   */
  take(
    family: Family,
    owner: AddressOwner,
    from: { readonly pools: readonly IPPool[]; readonly ranges: readonly IpRange[] | undefined },
  ): AllocatedAddress | undefined {
    const { blocks, clock, lull, node } = this.#components;
    if (!this.#isOn) return undefined;
    const has = [...(blocks.inMemory?.values() ?? [])].some(
      (block) =>
        familyOf(cidr(block.spec.cidr)) === family &&
        addressesOfHandle(block, owner.handle, node).length > 0,
    );
    if (has) return undefined;
    const isOfPool = suitsOneOf(from.pools);
    const suits = (it: AllocatedAddress) =>
      isOfPool(it) && (from.ranges?.some((range) => rangeContains(range, it.address)) ?? true);
    const taken = this.warm.take(family, owner, { nowMs: clock.now(), suits });
    this.#cancelSoon ??= lull.schedule(() => {
      this.#cancelSoon = undefined;
      this.#loop.trigger();
    });
    return taken;
  }

  /** Makes the API say what is. @throws if it cannot be reached */
  async tend(): Promise<void> {
    const { blocks, node } = this.#components;
    if (!this.#isOn) return;
    try {
      for (const [name, { spec }] of [...(await blocks.known())])
        if (spec.node === node && spec.affinity === 'Confirmed') await this.#tendBlock(name);
    } catch (error) {
      // Memory and API may differ now.
      blocks.forget();
      throw error;
    }
  }

  /** Gives back what nobody has, if the API answers. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { clock, log } = this.#components;
    this.#cancelSoon?.();
    this.warm.stop();
    const gaveUp = Promise.withResolvers<void>();
    const cancel = clock.schedule(MAX_STOP_MS, gaveUp.resolve);
    await Promise.race([
      gaveUp.promise,
      this.#loop[Symbol.asyncDispose]()
        .then(() => this.tend())
        .catch((error: unknown) =>
          log.info({ reason: explainError(error) }, 'could not give warm addresses back'),
        ),
    ]);
    cancel();
  }

  async #tendBlock(name: string): Promise<void> {
    const { blocks, node, nodeLabels, clock, coolDownMs } = this.#components;
    // Those that are for everybody.
    const pools = poolsFor(this.#components.pools(), {
      nodeLabels: nodeLabels?.() ?? {},
      namespaceLabels: undefined,
    });
    const written = await blocks.change(name, undefined, (block) => {
      if (block.spec.node !== node) return { block, value: undefined };
      const pool = pools.find((it) => it.metadata.name === block.spec.pool);
      const next = this.warm.plan(block, {
        nowMs: clock.now(),
        coolDownMs,
        reserved: reservedOf(pool),
        suits: suitsOneOf(pools),
      });
      return { block: next, value: next };
    });
    if (written !== undefined) this.warm.written(written);
  }
}

/** Whether one of the pools gives out the address to whom it does not matter which. */
function suitsOneOf(pools: readonly IPPool[]): (address: AllocatedAddress) => boolean {
  return ({ address, pool: name }) => {
    const pool = pools.find((it) => it.metadata.name === name);
    return (
      pool !== undefined &&
      pool.spec.disabled !== true &&
      !reservedOf(pool).some((it) => cidrContains(it, address))
    );
  };
}
