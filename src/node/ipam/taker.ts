/**
 * Takes one address of one family: which pool and block it comes out of, and what is said if there is none.
 */
import type { Labels } from '#api/machinery/label-selector.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { Clock } from '#lib/clock.ts';
import { cidr, cidrContains, type Family, familyOf, type Ip } from '#lib/ip.ts';
import { formatIpRange, type IpRange, rangeContains } from '#lib/ip-range.ts';
import { KeyedLock } from '#lib/keyed-lock.ts';
import type { AddressOwner, AddressResult, AllocatedAddress } from '../addresses.ts';
import { takeAddress } from './block.ts';
import type { BlockClaims } from './block-claims.ts';
import {
  explainExhaustion,
  hasAddressIn,
  planLenders,
  poolsFor,
  poolsOfFamily,
  reservedOf,
  usageOf,
} from './claim.ts';
import { MAX_CAS_RETRIES, type NodeBlocks, type Signal } from './node-blocks.ts';
import type { WarmAddresses } from './warm.ts';

/** One family's part of an allocation. */
export type One =
  | { readonly kind: 'allocated'; readonly address: AllocatedAddress; readonly isNew: boolean }
  | Refusal;
export type Refusal = Exclude<AddressResult, { kind: 'allocated' }>;

/** Told of one family's address while it is being written. */
export type Choose = (address: AllocatedAddress) => void;
export interface Asking {
  readonly owner: AddressOwner;
  readonly inUse?: boolean;
  /** Undefined: any address. */
  readonly ranges: readonly IpRange[] | undefined;
  readonly signal: Signal;
  readonly choose: Choose;
}

/** What decides out of which pools an address may come. */
export interface PoolFacts {
  readonly node: string;
  /** The pools as they are known now. */
  readonly pools: () => readonly IPPool[];
  /** The labels of this node, which pools may select by. */
  readonly nodeLabels?: () => Labels;
  /** The labels of a namespace; undefined if it does not exist. */
  readonly namespaceLabels?: (name: string) => Labels | undefined;
}

export interface TakerInit extends PoolFacts {
  readonly blocks: NodeBlocks;
  readonly claims: BlockClaims;
  readonly warm: WarmAddresses;
  readonly clock: Clock;
  readonly coolDownMs: number;
}

export class AddressTaker {
  readonly #init: TakerInit;
  readonly #lock = new KeyedLock();

  constructor(init: TakerInit) {
    this.#init = init;
  }

  /** Out of the own blocks, else of one that is claimed for it, else borrowed. */
  async takeAny(family: Family, asking: Asking): Promise<One> {
    const { owner, signal, ranges } = asking;
    const pools = poolsOfFamily(this.poolsFor(owner), family).filter((it) =>
      hasAddressIn(it.spec.cidr, ranges),
    );
    let cooling = 0;
    const take = async (name: string): Promise<One | undefined> => {
      const taken = await this.#take(name, asking);
      if (taken?.kind === 'full') cooling += taken.cooling;
      return taken?.kind === 'taken'
        ? { kind: 'allocated', address: taken.address, isNew: true }
        : undefined;
    };
    const takeOwn = async () => {
      cooling = 0;
      for (const name of await this.#init.claims.own(pools, asking)) {
        const one = await take(name);
        if (one !== undefined) return one;
      }
      return undefined;
    };
    const own = await takeOwn();
    if (own !== undefined) return own;
    // One claim at a time: who waited finds the block that the one before has got.
    return this.#lock.run(`claim IPv${family}`, async () => {
      for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
        const again = await takeOwn();
        if (again !== undefined) return again;
        const claim = await this.#init.claims.claim(pools, asking);
        if (claim.kind === 'claimed') continue;
        // The claim has read all blocks: who had borrowed of ours may have given back.
        const returned = await takeOwn();
        if (returned !== undefined) return returned;
        for (const lender of this.#lenders(pools, claim.blocks, ranges)) {
          const borrowed = await take(lender);
          if (borrowed !== undefined) return borrowed;
        }
        return this.exhausted(family, { owner, signal, ranges, cooling });
      }
      throw new Error(
        `Cannot allocate an IPv${family} address for "${owner.handle}": ${MAX_CAS_RETRIES} claimed blocks were lost or full`,
      );
    });
  }

  /** Out of the block that it is in, whose ever that is. */
  async takeRequested(requested: Ip, asking: Asking): Promise<One> {
    const { owner, signal, inUse = false, ranges } = asking;
    const refused = (reason: string): One => ({
      kind: 'refused',
      address: requested,
      message: `Cannot give the requested address ${requested}: ${reason}`,
    });
    if (ranges !== undefined && !ranges.some((it) => rangeContains(it, requested)))
      return refused(`it is not in the ranges ${ranges.map(formatIpRange).join(', ')}`);
    const holds = (it: IPPool) => cidrContains(cidr(it.spec.cidr), requested);
    const pool = inUse
      ? this.#init.pools().find(holds)
      : poolsOfFamily(this.poolsFor(owner), familyOf(requested)).find(holds);
    if (pool === undefined) {
      const other = poolsOfFamily(this.#init.pools(), familyOf(requested)).find(holds);
      return refused(
        other === undefined
          ? 'it is in no enabled IPPool'
          : `IPPool "${other.metadata.name}" is not for this node or not for namespace "${owner.namespace ?? ''}"`,
      );
    }
    for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
      const block = await this.#init.claims.holding(requested, pool, signal);
      if (block === undefined) continue;
      if (!this.#mayTakeOf(block, inUse))
        return refused(
          `block ${block.spec.cidr} belongs to node "${block.spec.node}", and ${
            pool.spec.strictAffinity === true
              ? `IPPool "${pool.metadata.name}" lets nobody borrow ("spec.strictAffinity")`
              : 'that node has not confirmed its claim yet'
          }`,
        );
      const taken = await this.#take(block.metadata.name, { ...asking, requested });
      if (taken?.kind === 'taken')
        return { kind: 'allocated', address: taken.address, isNew: true };
      if (taken?.kind !== 'busy') continue;
      const { handle, node } = taken.allocation;
      // Another node gives back without our hearing of it.
      if (node === this.#init.node || attempt > 0) return refused(`it is in use by "${handle}"`);
      await this.#init.blocks.refresh(block.metadata.name, signal);
    }
    throw new Error(
      `Cannot allocate ${requested}: its block was lost to others ${MAX_CAS_RETRIES} times`,
    );
  }

  async #take(
    name: string,
    what: Asking & { requested?: Ip },
  ): Promise<ReturnType<typeof takeAddress> | undefined> {
    const { owner, requested, inUse = false, ranges, signal, choose } = what;
    type Result = ReturnType<typeof takeAddress> | undefined;
    const onChosen = (taken: Result) => {
      // Of another node's block somebody else may get it first: nothing is made for it before it is ours.
      if (taken?.kind === 'taken' && taken.block.spec.node === this.#init.node)
        choose(taken.address);
    };
    const take = (block: IPBlock): { block: IPBlock; value: Result } => {
      if (!this.#mayTakeOf(block, inUse)) return { block, value: undefined };
      const pool = this.#init.pools().find((it) => it.metadata.name === block.spec.pool);
      const taken = takeAddress(block, {
        owner,
        reserved: reservedOf(pool),
        node: this.#init.node,
        nowMs: this.#init.clock.now(),
        coolDownMs: this.#init.coolDownMs,
        ...(ranges === undefined ? {} : { ranges }),
        claimWarm: (address) => this.#init.warm.claim(address, owner, inUse),
        ...(requested === undefined ? {} : { requested }),
      });
      return { block: taken.kind === 'taken' ? taken.block : block, value: taken };
    };
    return this.#init.blocks.change(name, signal, take, onChosen);
  }

  /** Whether this node may take addresses of the block as it is now; of one that it uses already it need not ask. */
  #mayTakeOf({ spec }: IPBlock, inUse = false): boolean {
    if (spec.node === this.#init.node) return true;
    const pool = this.#init.pools().find((it) => it.metadata.name === spec.pool);
    // A block that is only being claimed, or is nobody's, can be another node's in a moment.
    if (spec.node === '' || spec.affinity !== 'Confirmed') return false;
    return inUse || pool?.spec.strictAffinity !== true;
  }

  /** Names of other nodes' blocks with free addresses to borrow. */
  #lenders(
    pools: readonly IPPool[],
    blocks: readonly IPBlock[],
    ranges: Asking['ranges'],
  ): string[] {
    const lenders = planLenders(pools, blocks, this.#init.node).filter(
      (it) => this.#mayTakeOf(it) && hasAddressIn(it.spec.cidr, ranges),
    );
    for (const block of lenders) this.#init.blocks.noteForeign(block);
    return lenders.map((it) => it.metadata.name);
  }

  /** The pools that may serve the owner. The node's own addresses come out of any pool if none is for everybody. */
  poolsFor({ namespace, purpose }: AddressOwner): IPPool[] {
    const { nodeLabels, namespaceLabels } = this.#init;
    const isPod = purpose === 'Pod';
    const pools = poolsFor(this.#init.pools(), {
      nodeLabels: nodeLabels?.() ?? {},
      namespaceLabels: isPod ? (namespaceLabels?.(namespace ?? '') ?? {}) : undefined,
    });
    return isPod || pools.length > 0 ? pools : [...this.#init.pools()];
  }

  /** Why there is no address. */
  async exhausted(
    family: Family,
    why: Pick<Asking, 'owner' | 'signal' | 'ranges'> & { cooling?: number },
  ): Promise<Refusal> {
    const { owner, signal, ranges, cooling = 0 } = why;
    const pools = poolsOfFamily(this.poolsFor(owner), family).filter((it) =>
      hasAddressIn(it.spec.cidr, ranges),
    );
    const blocks = await this.#init.blocks.readAll(signal);
    const usage = usageOf(pools, blocks);
    const ownBlocks = (await this.#init.claims.own(pools, why)).length;
    const strict = pools.some((it) => it.spec.strictAffinity === true);
    const facts = { node: this.#init.node, ownBlocks, cooling, strict, ranges };
    const message = explainExhaustion(family, usage, facts);
    return { kind: 'exhausted', family, pools: usage, message };
  }
}
