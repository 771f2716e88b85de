/**
 * The blocks that this node has or may have: claims one that is nobody's, or makes a new one.
 *
 * Done in two steps: a block that is `Pending` counts as absent for everybody else's routing.
 */
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { cidr, cidrContains, type Ip } from '#lib/ip.ts';
import type { IpRange } from '#lib/ip-range.ts';
import type { Logger } from '#lib/log.ts';
import { newBlock, withAffinity } from './block.ts';
import { blockAt, compare, hasAddressIn, planNewBlock } from './claim.ts';
import { MAX_CAS_RETRIES, type NodeBlocks, type Signal } from './node-blocks.ts';

export type Claim =
  | { readonly kind: 'claimed' }
  | { readonly kind: 'none'; readonly blocks: readonly IPBlock[] };

export interface BlockClaimsComponents {
  readonly blocks: NodeBlocks;
  readonly node: string;
  readonly log: Logger;
}

interface Wanted {
  readonly signal: Signal;
  /** Undefined: any address. */
  readonly ranges: readonly IpRange[] | undefined;
}

export class BlockClaims {
  readonly #blocks: NodeBlocks;
  readonly #node: string;
  readonly #log: Logger;

  constructor({ blocks, node, log }: BlockClaimsComponents) {
    this.#blocks = blocks;
    this.#node = node;
    this.#log = log;
  }

  /** Names of this node's blocks in the pools, confirmed ones first, then by prefix. */
  async own(pools: readonly IPPool[], { signal, ranges }: Wanted): Promise<string[]> {
    const names = new Set(pools.map((pool) => pool.metadata.name));
    const own = [...(await this.#blocks.known(signal)).values()].filter(
      ({ spec }) =>
        spec.node === this.#node && names.has(spec.pool) && hasAddressIn(spec.cidr, ranges),
    );
    const result: string[] = [];
    for (const block of own.sort((a, b) => compare(a.metadata.name, b.metadata.name))) {
      const isOurs =
        block.spec.affinity === 'Confirmed' ||
        (await this.#confirm(block.metadata.name, signal)) !== undefined;
      if (isOurs) result.push(block.metadata.name);
    }
    return result;
  }

  /** The block of the address, claimed for this node if it was nobody's. Undefined: a race was lost, look again. */
  async holding(address: Ip, pool: IPPool, signal: Signal): Promise<IPBlock | undefined> {
    const holds = (block: IPBlock) => cidrContains(cidr(block.spec.cidr), address);
    const own = [...(await this.#blocks.known(signal)).values()].find(
      (it) => it.spec.node === this.#node && holds(it),
    );
    if (own !== undefined) return own;
    const block = (await this.#blocks.readAll(signal)).find(holds);
    if (block !== undefined && block.spec.node !== '') {
      this.#blocks.noteForeign(block);
      return block;
    }
    const fresh = { cidr: blockAt(pool, address), pool: pool.metadata.name, node: this.#node };
    const name =
      block === undefined
        ? await this.#create(newBlock(fresh), signal)
        : await this.#adopt(block, signal);
    return name === undefined ? undefined : (await this.#blocks.known(signal)).get(name);
  }

  /**
   * Claims a block in one of the pools: one that is nobody's, else a new one.
   * @returns all blocks if there is none left to claim
   */
  async claim(pools: readonly IPPool[], { signal, ranges }: Wanted): Promise<Claim> {
    for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
      const all = await this.#blocks.readAll(signal);
      const names = new Set(pools.map((pool) => pool.metadata.name));
      const orphan = all.find(
        ({ spec }) =>
          spec.node === '' &&
          spec.free.length > 0 &&
          names.has(spec.pool) &&
          hasAddressIn(spec.cidr, ranges),
      );
      if (orphan !== undefined) {
        const name = await this.#adopt(orphan, signal);
        if (name !== undefined) return { kind: 'claimed' };
        continue;
      }
      const fresh = firstDefined(pools, (pool) => {
        const prefix = planNewBlock(pool, all, this.#node, ranges);
        return prefix === undefined
          ? undefined
          : newBlock({ cidr: prefix, pool: pool.metadata.name, node: this.#node });
      });
      if (fresh === undefined) return { kind: 'none', blocks: all };
      const name = await this.#create(fresh, signal);
      if (name !== undefined) return { kind: 'claimed' };
    }
    throw new Error(`Cannot claim an IPBlock: ${MAX_CAS_RETRIES} were taken by others in a row`);
  }

  /** @returns undefined if somebody else was faster */
  async #create(block: IPBlock, signal: Signal): Promise<string | undefined> {
    const isMade = await this.#blocks.create(block, signal);
    return isMade ? this.#confirm(block.metadata.name, signal) : undefined;
  }

  async #adopt(block: IPBlock, signal: Signal): Promise<string | undefined> {
    const isOurs = await this.#blocks.replace(withAffinity(block, this.#node, 'Pending'), signal);
    return isOurs ? this.#confirm(block.metadata.name, signal) : undefined;
  }

  async #confirm(name: string, signal: Signal): Promise<string | undefined> {
    const done = await this.#blocks.change<string | undefined>(name, signal, (block) => {
      if (block.spec.node !== this.#node) return { block, value: undefined };
      const { affinity, cidr } = block.spec;
      const next = affinity === 'Confirmed' ? block : withAffinity(block, this.#node, 'Confirmed');
      return { block: next, value: cidr };
    });
    if (done === undefined) return undefined;
    this.#log.info({ block: done, node: this.#node }, 'claimed an address block');
    return name;
  }
}

function firstDefined<T, R>(items: readonly T[], pick: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const picked = pick(item);
    if (picked !== undefined) return picked;
  }
  return undefined;
}
