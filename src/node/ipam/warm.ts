/**
 * Warm addresses: a few addresses of this node's own blocks that the API has in the node's name already, so that a pod
 * gets one without waiting for the API. Which pod has it is written to the API right after.
 *
 * ```
 *              written                 taken, no waiting                written
 *   free ───────────────► Warm, ready ───────────────────► Warm, handed ────────► Pod
 *    ▲                        │ too many, pool not for it     │ pod gone before
 *    └────────────────────────┴──────────────────────────────┘
 * ```
 *
 * Nobody else is given a warm address: in the API it is allocated, with a sequence number of its own, which it keeps when
 * it becomes a pod's. What is ready stands in the memory of one process, whose warm addresses have a handle of their own:
 * the next process takes none of them over, because it cannot know which were handed out a moment before. Those that a
 * record on disk speaks of become that pod's; the others are left to the garbage collection, as every address is whose
 * owner is gone.
 */
import { randomBytes } from 'node:crypto';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { type Cidr, type Family, familyOf } from '#lib/ip.ts';
import type { AddressOwner, AllocatedAddress } from '../addresses.ts';
import { allocationsOf, releaseAddresses, reownAddress, takeAddress } from './block.ts';

/** Enough for what one workload starts at once; what comes beyond waits for the API. */
const DEFAULT_COUNT = 8;
/** After a burst, for the next one. */
const MAX_COUNT = 32;
/** So long a burst is remembered. */
const BURST_MS = 60_000;
/** Others may want to borrow: of what a block has beyond so many free addresses, half may be warm. */
const KEEP_FREE = 8;

export interface WarmInit {
  /** How many are kept of each family when nothing happens. Default 8; more after a burst. 0: none, ever. */
  readonly count?: number;
  /** Default 8. */
  readonly keepFree?: number;
}

/** What a block's warm addresses depend on. */
export interface WarmSituation {
  readonly nowMs: number;
  readonly coolDownMs: number;
  /** Whether an address may be kept for pods now: its pool is enabled, for everybody, and does not reserve it. */
  readonly suits: (address: AllocatedAddress) => boolean;
  readonly reserved: NonNullable<Parameters<typeof takeAddress>[1]['reserved']>;
}

export class WarmAddresses {
  /** In the API, of this process alone. */
  readonly handle: string;
  readonly #node: string;
  readonly #count: number;
  readonly #keepFree: number;
  /** By {@link keyOf}, oldest first. At most {@link MAX_COUNT} of each family, and what one write brought too many. */
  readonly #ready = new Map<string, AllocatedAddress>();
  /** Given to a pod of which the API does not know yet. Bounded by what was ready. */
  readonly #handed = new Map<string, { address: AllocatedAddress; owner: AddressOwner }>();
  /**
   * By block: the highest sequence of an address that was ever ready. What is not above it has had its turn: it cannot
   * become ready again, whatever an answer that comes late says.
   */
  readonly #seen = new Map<string, number>();
  /** When pods last asked, at most {@link MAX_COUNT} of each family. */
  readonly #asked = new Map<Family, number[]>();
  #isStopped = false;

  constructor(node: string, init: WarmInit) {
    this.#node = node;
    this.handle = `warm-${node}-${randomBytes(4).toString('hex')}`;
    this.#count = init.count ?? DEFAULT_COUNT;
    this.#keepFree = init.keepFree ?? KEEP_FREE;
  }

  /** From now on the next {@link plan} releases what is ready. */
  stop(): void {
    this.#isStopped = true;
  }

  /**
   * Gives an address to a pod, at once.
   * @returns undefined if none is ready that suits
   */
  take(
    family: Family,
    owner: AddressOwner,
    { nowMs, suits }: Pick<WarmSituation, 'nowMs' | 'suits'>,
  ): AllocatedAddress | undefined {
    this.#asked.set(family, [...(this.#asked.get(family) ?? []).slice(1 - MAX_COUNT), nowMs]);
    for (const [key, address] of this.#ready) {
      if (address.family !== family || !suits(address)) continue;
      this.#hand(key, address, owner);
      return address;
    }
    return undefined;
  }

  /** What the handle has and the API does not know of. */
  handedTo(handle: string): AllocatedAddress[] {
    return [...this.#handed.values()]
      .filter(({ owner }) => owner.handle === handle)
      .map(({ address }) => address);
  }

  /**
   * For a pod that asks for this address by name.
   * @returns false if it is not for it to have
   */
  claim(address: AllocatedAddress, owner: AddressOwner, inUse: boolean): boolean {
    const key = keyOf(address);
    if (this.#ready.has(key)) this.#hand(key, address, owner);
    const holder = this.#handed.get(key)?.owner.handle;
    // Of an earlier process, and a record says that it was handed out.
    return holder === undefined ? inUse : holder === owner.handle;
  }

  /** Whether nobody has the allocation, and this process would know. */
  isReady(address: AllocatedAddress): boolean {
    return this.#ready.has(keyOf(address));
  }

  /** The addresses are released: call while that is being written, or they could be given out meanwhile. */
  drop(addresses: readonly AllocatedAddress[]): void {
    for (const address of addresses) {
      this.#ready.delete(keyOf(address));
      this.#handed.delete(keyOf(address));
    }
  }

  /**
   * The next state of an own block: what was handed out is the pods', what is too much is free, what is missing is taken.
   * Pure but for {@link drop}; may be called again if its result could not be written.
   * @returns the same block if there is nothing to do
   */
  plan(block: IPBlock, situation: WarmSituation): IPBlock {
    let next = block;
    for (const { address, owner } of this.#handed.values()) {
      const { nowMs } = situation;
      const isHere = address.block === block.spec.cidr;
      if (isHere) next = reownAddress(next, address, { owner, nowMs, node: this.#node });
    }
    const surplus = this.#surplus(next, situation);
    this.drop(surplus);
    next = releaseAddresses(next, surplus, situation.nowMs).block;
    return this.#fill(next, situation);
  }

  /** The block is in the API as {@link plan} said, or as somebody else has made it after that. */
  written(block: IPBlock): void {
    for (const [key, { address }] of this.#handed) {
      if (address.block !== block.spec.cidr) continue;
      const now = allocationsOf(block).find((it) => keyOf(it.address) === key)?.allocation;
      // If it is not its owner's either, somebody took it by hand: the garbage collection takes it again.
      if (now?.handle !== this.handle) this.#handed.delete(key);
    }
    const seen = this.#seen.get(block.spec.cidr) ?? 0;
    for (const address of this.#own(block)) {
      if (address.sequence <= seen) continue;
      this.#ready.set(keyOf(address), address);
      this.#seen.set(
        block.spec.cidr,
        Math.max(address.sequence, this.#seen.get(block.spec.cidr) ?? 0),
      );
    }
  }

  #hand(key: string, address: AllocatedAddress, owner: AddressOwner): void {
    this.#ready.delete(key);
    this.#handed.set(key, { address, owner });
  }

  /** Addresses of the block that are of this process and nobody's. */
  #own(block: IPBlock): AllocatedAddress[] {
    return allocationsOf(block)
      .filter(({ address, allocation }) => {
        return allocation.handle === this.handle && !this.#handed.has(keyOf(address));
      })
      .map(({ address }) => address);
  }

  #surplus(block: IPBlock, { suits, nowMs }: WarmSituation): AllocatedAddress[] {
    const own = this.#own(block);
    const seen = this.#seen.get(block.spec.cidr) ?? 0;
    // Neither ready nor to become ready: it was to be released, and the write failed.
    const stale = own.filter((it) => it.sequence <= seen && !this.#ready.has(keyOf(it)));
    const good = own.filter((it) => !stale.includes(it));
    const unsuited = good.filter((it) => !suits(it));
    const left = good.filter(suits);
    const family = familyOf(block.spec.cidr as Cidr);
    const over = Math.max(
      0,
      this.#countOf(family) - this.#wanted(family, nowMs),
      left.length - this.#allowed(block, own.length),
    );
    return [...stale, ...unsuited, ...left.slice(0, over)];
  }

  #fill(block: IPBlock, situation: WarmSituation): IPBlock {
    const family = familyOf(block.spec.cidr as Cidr);
    const seen = this.#seen.get(block.spec.cidr) ?? 0;
    const own = this.#own(block);
    const coming = own.filter((it) => it.sequence > seen).length;
    const missing = this.#wanted(family, situation.nowMs) - this.#countOf(family) - coming;
    const room = this.#allowed(block, own.length) - own.length;
    const owner: AddressOwner = { handle: this.handle, purpose: 'Warm' };
    let next = block;
    for (let i = 0; i < Math.min(missing, room); i++) {
      const taken = takeAddress(next, { ...situation, owner, node: this.#node });
      if (taken.kind !== 'taken' || !situation.suits(taken.address)) break;
      next = taken.block;
    }
    return next;
  }

  /** How many of a block may be warm: half of what there is beyond those that are kept free. */
  #allowed({ spec }: IPBlock, warm: number): number {
    return Math.max(0, Math.floor((spec.free.length + warm - this.#keepFree) / 2));
  }

  #countOf(family: Family): number {
    return [...this.#ready.values()].filter((it) => it.family === family).length;
  }

  #wanted(family: Family, nowMs: number): number {
    if (this.#isStopped || this.#count === 0) return 0;
    const lately = this.#asked.get(family)?.filter((it) => nowMs - it < BURST_MS).length ?? 0;
    return Math.max(this.#count, lately);
  }
}

function keyOf({ address, sequence }: AllocatedAddress): string {
  return `${address}#${sequence}`;
}
