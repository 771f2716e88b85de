/**
 * Gives out addresses of IPPools on one node.
 *
 * A node allocates out of blocks that it has claimed, so in the ordinary case one address costs one write, which
 * nobody contends for. Only when its own are full and none is left to claim does it borrow single addresses of other
 * nodes' blocks, unless the pool forbids it (`strictAffinity`). What is asked for while a block is being written goes into
 * its next write together. Nothing here has to be durable on the node: an address that was written but never heard of is
 * found again by its handle.
 */
import type { IPAllocation, IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient } from '#client/port.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { type Family, familyOf, type Ip } from '#lib/ip.ts';
import type { IpRange } from '#lib/ip-range.ts';
import { KeyedLock } from '#lib/keyed-lock.ts';
import type { Logger } from '#lib/log.ts';
import { Lull } from '#lib/lull.ts';
import type {
  AddressOwner,
  AddressRequest,
  AddressResult,
  AddressSource,
  AllocatedAddress,
} from '../addresses.ts';
import {
  addressesOfHandle,
  allocationsOf,
  DEFAULT_COOL_DOWN_MS,
  releaseAddresses,
  withAffinity,
} from './block.ts';
import { BlockClaims } from './block-claims.ts';
import { familiesOf, poolsOfFamily } from './claim.ts';
import { NodeBlocks, type Signal } from './node-blocks.ts';
import { AddressTaker, type Asking, type Choose, type One, type PoolFacts } from './taker.ts';
import type { WarmAddresses, WarmInit } from './warm.ts';
import { WarmKeeper } from './warm-keeper.ts';

export interface AllocatorOptions extends PoolFacts {
  readonly client: ApiClient;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Default {@link DEFAULT_COOL_DOWN_MS}. */
  readonly coolDownMs?: number;
  /** How many addresses are kept warm. Default: none. */
  readonly warm?: WarmInit;
  /** When the API is told of warm addresses that were handed out. */
  readonly lull?: Lull;
}

export interface OwnAllocation {
  readonly address: AllocatedAddress;
  readonly allocation: IPAllocation;
}

export class Allocator implements AddressSource, AsyncDisposable {
  readonly #node: string;
  readonly #pools: () => readonly IPPool[];
  readonly #clock: Clock;
  readonly #coolDownMs: number;
  readonly #lock = new KeyedLock();
  readonly #blocks: NodeBlocks;
  readonly #taker: AddressTaker;
  readonly #warm: WarmAddresses;
  readonly #keeper: WarmKeeper;
  /** Why the API could not be used the last time. */
  #failure: string | undefined;

  constructor(options: AllocatorOptions) {
    this.#node = options.node;
    this.#blocks = new NodeBlocks(options.client, options.node);
    this.#pools = options.pools;
    this.#clock = options.clock ?? systemClock;
    this.#coolDownMs = options.coolDownMs ?? DEFAULT_COOL_DOWN_MS;
    this.#keeper = new WarmKeeper(options.warm ?? { count: 0 }, {
      ...options,
      blocks: this.#blocks,
      clock: this.#clock,
      lull: options.lull ?? new Lull(this.#clock),
      coolDownMs: this.#coolDownMs,
    });
    this.#warm = this.#keeper.warm;
    this.#taker = new AddressTaker({
      ...options,
      ...{ blocks: this.#blocks, warm: this.#warm, clock: this.#clock },
      claims: new BlockClaims({ ...options, blocks: this.#blocks }),
      coolDownMs: this.#coolDownMs,
    });
  }

  /** Gives back the warm addresses that nobody has, if the API answers. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#keeper[Symbol.asyncDispose]();
  }

  notReady(): string | undefined {
    if (familiesOf(this.#pools()).length === 0) return 'there is no enabled IPPool';
    return this.#failure === undefined
      ? undefined
      : `the API could not be used for the address blocks: ${this.#failure}`;
  }

  allocate(request: AddressRequest): Promise<AddressResult> {
    return this.#exclusively(request.owner.handle, async () => {
      const { requested = [], ranges = [] } = request;
      const named = new Set([...requested.map(familyOf), ...ranges.map((it) => it.family)]);
      const families =
        named.size > 0
          ? [...named]
          : (request.families ?? familiesOf(this.#taker.poolsFor(request.owner)));
      if (families.length === 0)
        return this.#taker.exhausted(4, { ...request, ranges: undefined, signal: request.signal });
      const choose = whenAllChosen(families.length, request.onChosen);
      // All are waited for, also when one fails: who releases by handle must find what the others got.
      const settled = await Promise.allSettled(
        families.map((family) => {
          const wanted = requested.find((it) => familyOf(it) === family);
          return this.#allocateOne(family, request, wanted, choose);
        }),
      );
      const got = settled.map((it) => {
        // What was had stays in the API; the caller releases by handle.
        if (it.status === 'rejected') throw it.reason;
        return it.value;
      });
      const refusal = got.find((one) => one.kind !== 'allocated');
      if (refusal !== undefined) {
        await this.#undo(got, request.signal);
        return refusal;
      }
      const addresses = got.flatMap((one) => (one.kind === 'allocated' ? [one.address] : []));
      return { kind: 'allocated', addresses: inOrder(addresses) };
    });
  }

  release(handle: string, addresses?: readonly AllocatedAddress[]): Promise<readonly Ip[]> {
    const foundIn = (block: IPBlock) => [
      ...addressesOfHandle(block, handle, this.#node),
      ...this.#warm.handedTo(handle).filter((it) => it.block === block.spec.cidr),
    ];
    return this.#exclusively(handle, async () => {
      const released: Ip[] = [];
      for (const [name, known] of await this.#blocks.known()) {
        // Nobody but this node takes addresses for its handles, so what memory does not have needs no write.
        if (foundIn(known).length === 0) continue;
        const given = await this.#blocks.change(name, undefined, (block) => {
          const found = foundIn(block);
          const wanted = addresses === undefined ? found : found.filter(isAmong(addresses));
          this.#warm.drop(wanted);
          const result = releaseAddresses(block, wanted, this.#clock.now());
          return { block: result.block, value: result.released };
        });
        released.push(...(given ?? []).map((it) => it.address));
      }
      return released;
    });
  }

  /**
   * The node's own address on the fabric, the same for as long as the node exists and the address's pool is enabled.
   * Traffic of the host itself to pods of other nodes needs a source that those nodes have a route for.
   * @returns undefined if there is no pool of the family
   */
  async tunnelAddress(family: Family, signal?: AbortSignal): Promise<AddressResult> {
    const owner: AddressOwner = { handle: tunnelHandle(this.#node), purpose: 'Tunnel' };
    const had = await this.#watched(() => this.#had(owner.handle, signal));
    const result = await this.allocate({
      owner,
      families: [family],
      ...(signal ? { signal } : {}),
    });
    if (result.kind !== 'allocated') return result;
    const left = had.filter(
      (it) => it.family === family && !result.addresses.some((now) => now.address === it.address),
    );
    if (left.length > 0) await this.release(owner.handle, left);
    return result;
  }

  /** Every address that this node has, borrowed ones too. Reads the blocks anew. */
  allocations(): Promise<readonly OwnAllocation[]> {
    return this.#watched(async () => {
      this.#blocks.forget();
      return [...(await this.#blocks.known()).values()]
        .flatMap(allocationsOf)
        .filter(({ allocation }) => allocation.node === this.#node);
    });
  }

  /** Names of own blocks that nobody has an address of. */
  async emptyBlocks(): Promise<readonly string[]> {
    const own = [...(await this.#blocks.known()).values()].filter(
      (block) => block.spec.node === this.#node && this.#isEmpty(block),
    );
    return own.map((it) => it.metadata.name);
  }

  /** Names the addresses in the API that this process keeps for pods to come. */
  get warmHandle(): string {
    return this.#warm.handle;
  }

  /** @see WarmKeeper.tend */
  tendWarm(): Promise<void> {
    return this.#keeper.tend();
  }

  /**
   * Leaves a block to whoever needs it.
   * @returns false if an address of it is in use again, or it is not ours
   */
  async giveBack(name: string): Promise<boolean> {
    return this.#watched(async () => {
      const given = await this.#blocks.change(name, undefined, (block) => {
        const value = block.spec.node === this.#node && this.#isEmpty(block);
        if (!value) return { block, value };
        const warm = allocationsOf(block).map((it) => it.address);
        this.#warm.drop(warm);
        const empty = releaseAddresses(block, warm, this.#clock.now()).block;
        return { block: withAffinity(empty, '', 'Pending'), value };
      });
      return given ?? false;
    });
  }

  /** Whether nobody has an address of it; those that are only kept ready are nobody's. */
  #isEmpty(block: IPBlock): boolean {
    return allocationsOf(block).every(({ address }) => this.#warm.isReady(address));
  }

  /** What is being taken for a handle must be there when it is released, or nobody would release it. */
  #exclusively<T>(handle: string, action: () => Promise<T>): Promise<T> {
    return this.#lock.run(`handle ${handle}`, () => this.#watched(action));
  }

  /** After any failure memory and API may differ, so the blocks are read again. */
  async #watched<T>(action: () => Promise<T>): Promise<T> {
    try {
      const result = await action();
      this.#failure = undefined;
      return result;
    } catch (error) {
      this.#blocks.forget();
      this.#failure = explainError(error);
      throw error;
    }
  }

  async #allocateOne(
    family: Family,
    request: AddressRequest,
    requested: Ip | undefined,
    choose: Choose,
  ): Promise<One> {
    const { owner, signal, inUse = false } = request;
    const isMeant = (it: AllocatedAddress) =>
      it.family === family && (requested === undefined || it.address === requested);
    const handed = this.#warm.handedTo(owner.handle).find(isMeant);
    if (handed !== undefined) return { kind: 'allocated', address: handed, isNew: false };
    if (requested === undefined && owner.purpose === 'Pod') {
      const warm = this.#keeper.take(family, owner, {
        pools: this.#taker.poolsFor(owner),
        ranges: rangesOf(family, request),
      });
      if (warm !== undefined) {
        choose(warm);
        return { kind: 'allocated', address: warm, isNew: true };
      }
    }
    const mine = (await this.#had(owner.handle, signal)).find(
      (it) => isMeant(it) && !this.#isRetired(it, owner),
    );
    if (mine !== undefined) return { kind: 'allocated', address: mine, isNew: false };
    const ranges = rangesOf(family, request);
    const asking: Asking = { owner, signal, choose, inUse, ranges };
    return requested === undefined
      ? this.#taker.takeAny(family, asking)
      : this.#taker.takeRequested(requested, asking);
  }

  /** What the handle has already. */
  async #had(handle: string, signal: Signal): Promise<AllocatedAddress[]> {
    const blocks = [...(await this.#blocks.known(signal)).values()];
    return blocks.flatMap((block) => addressesOfHandle(block, handle, this.#node));
  }

  /** A pod keeps its address for life; the node's own moves out of a disabled pool, which could never be deleted else. */
  #isRetired({ pool, family }: AllocatedAddress, owner: AddressOwner): boolean {
    if (owner.purpose !== 'Tunnel') return false;
    const enabled = poolsOfFamily(this.#taker.poolsFor(owner), family);
    return enabled.length > 0 && enabled.every((it) => it.metadata.name !== pool);
  }

  /** Gives back the families that were had before another one failed. */
  async #undo(got: readonly One[], signal: Signal): Promise<void> {
    for (const one of got) {
      if (one.kind !== 'allocated' || !one.isNew) continue;
      for (const name of [...(await this.#blocks.known(signal)).keys()])
        await this.#blocks.change(name, signal, (block) => {
          if (one.address.block === block.spec.cidr) this.#warm.drop([one.address]);
          const { block: next } = releaseAddresses(block, [one.address], this.#clock.now());
          return { block: next, value: undefined };
        });
    }
  }
}

/** Calls back when each of the families has chosen, if none of them has to look for another block meanwhile. */
function whenAllChosen(families: number, onChosen: AddressRequest['onChosen']): Choose {
  const chosen = new Map<Family, AllocatedAddress>();
  return (address) => {
    const isRepeated = chosen.has(address.family);
    chosen.set(address.family, address);
    if (!isRepeated && chosen.size === families) onChosen?.(inOrder([...chosen.values()]));
  };
}

/** IPv4 first. */
function inOrder(addresses: readonly AllocatedAddress[]): readonly AllocatedAddress[] {
  return addresses.toSorted((a, b) => a.family - b.family);
}

/** Undefined: any address of the family will do. */
function rangesOf(family: Family, { ranges }: AddressRequest): readonly IpRange[] | undefined {
  const ofFamily = ranges?.filter((it) => it.family === family) ?? [];
  return ofFamily.length > 0 ? ofFamily : undefined;
}

/** The handle of a node's own address on the fabric. */
export function tunnelHandle(node: string): string {
  return `vxlan-tunnel-addr-${node}`;
}

function isAmong(addresses: readonly AllocatedAddress[]): (found: AllocatedAddress) => boolean {
  return (found) =>
    addresses.some((it) => it.address === found.address && it.sequence === found.sequence);
}
