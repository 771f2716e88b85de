/**
 * Gives out addresses of IPPools on one node.
 *
 * A node allocates only out of blocks that it has claimed (strict affinity), so in the ordinary case one address
 * costs one write, which nobody contends for. The blocks are kept in memory between calls; every write is guarded by
 * the block's resourceVersion, and whoever loses reads the block again. What is asked for while a block is being
 * written goes into its next write together. Nothing here has to be durable on the node:
 * an address that was written but never heard of is found again by its handle.
 */
import type { Labels } from '#api/machinery/label-selector.ts';
import { IP_BLOCK, type IPAllocation, type IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient } from '#client/port.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { explainError, isAlreadyExists, isConflict, isNotFound } from '#lib/errors.ts';
import { cidr, cidrContains, type Family, familyOf, type Ip } from '#lib/ip.ts';
import { KeyedLock } from '#lib/keyed-lock.ts';
import type { Logger } from '#lib/log.ts';
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
  newBlock,
  releaseAddresses,
  takeAddress,
  withAffinity,
} from './block.ts';
import {
  blockAt,
  compare,
  explainExhaustion,
  familiesOf,
  planNewBlock,
  poolsFor,
  poolsOfFamily,
  reservedOf,
  usageOf,
} from './claim.ts';
import { GroupCommit } from './group-commit.ts';

/** Lost races in a row after which something else is wrong than contention. */
const MAX_CAS_RETRIES = 100;

export interface AllocatorOptions {
  readonly client: ApiClient;
  readonly node: string;
  /** The pools as they are known now. */
  readonly pools: () => readonly IPPool[];
  readonly log: Logger;
  readonly clock?: Clock;
  /** Default {@link DEFAULT_COOL_DOWN_MS}. */
  readonly coolDownMs?: number;
  /** The labels of this node, which pools may select by. */
  readonly nodeLabels?: () => Labels;
  /** The labels of a namespace; undefined if it does not exist. */
  readonly namespaceLabels?: (name: string) => Labels | undefined;
}

export interface OwnAllocation {
  readonly address: AllocatedAddress;
  readonly allocation: IPAllocation;
}

/** One family's part of an allocation. */
type One =
  | { readonly kind: 'allocated'; readonly address: AllocatedAddress; readonly isNew: boolean }
  | Refusal;
type Refusal = Exclude<AddressResult, { kind: 'allocated' }>;

type Signal = AbortSignal | undefined;
/** Told of one family's address while it is being written. */
type Choose = (address: AllocatedAddress) => void;
interface Asking {
  readonly owner: AddressOwner;
  readonly signal: Signal;
  readonly choose: Choose;
}

export class Allocator implements AddressSource {
  readonly #options: AllocatorOptions;
  readonly #client: ApiClient;
  readonly #node: string;
  readonly #pools: () => readonly IPPool[];
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #coolDownMs: number;
  readonly #lock = new KeyedLock();
  /** This node's blocks by name, as last read or written; undefined when they must be read again. */
  #blocks: Map<string, IPBlock> | undefined;
  /** By name of the block. A block stays a node's for long, and there are few. */
  readonly #writers = new Map<string, GroupCommit<IPBlock>>();
  /** Why the API could not be used the last time. */
  #failure: string | undefined;

  constructor(options: AllocatorOptions) {
    this.#options = options;
    this.#client = options.client;
    this.#node = options.node;
    this.#pools = options.pools;
    this.#log = options.log;
    this.#clock = options.clock ?? systemClock;
    this.#coolDownMs = options.coolDownMs ?? DEFAULT_COOL_DOWN_MS;
  }

  notReady(): string | undefined {
    if (familiesOf(this.#pools()).length === 0) return 'there is no enabled IPPool';
    return this.#failure === undefined
      ? undefined
      : `the API could not be used for the address blocks: ${this.#failure}`;
  }

  allocate(request: AddressRequest): Promise<AddressResult> {
    return this.#watched(async () => {
      const requested = request.requested ?? [];
      const families =
        requested.length > 0
          ? requested.map(familyOf)
          : (request.families ?? familiesOf(this.#poolsFor(request.owner)));
      if (families.length === 0)
        return this.#exhausted(4, { owner: request.owner, signal: request.signal });
      const choose = whenAllChosen(families.length, request.onChosen);
      // All are waited for, also when one fails: who releases by handle must find what the others got.
      const settled = await Promise.allSettled(
        families.map((family, i) => this.#allocateOne(family, request, requested[i], choose)),
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
    return this.#watched(async () => {
      const released: Ip[] = [];
      for (const [name, known] of await this.#own()) {
        // Nobody but this node writes its blocks, so what memory does not have needs no write.
        if (addressesOfHandle(known, handle).length === 0) continue;
        const given = await this.#change(name, undefined, (block) => {
          const found = addressesOfHandle(block, handle);
          const wanted = addresses === undefined ? found : found.filter(isAmong(addresses));
          const result = releaseAddresses(block, wanted, this.#clock.now());
          return { block: result.block, value: result.released };
        });
        released.push(...(given ?? []).map((it) => it.address));
      }
      return released;
    });
  }

  /**
   * The node's own address on the fabric, the same for as long as the node exists.
   * Traffic of the host itself to pods of other nodes needs a source that those nodes have a route for.
   * @returns undefined if there is no pool of the family
   */
  async tunnelAddress(family: Family, signal?: AbortSignal): Promise<AddressResult> {
    const owner: AddressOwner = { handle: tunnelHandle(this.#node), purpose: 'Tunnel' };
    return this.allocate({ owner, families: [family], ...(signal ? { signal } : {}) });
  }

  /** Every address that this node has given out. Reads the blocks anew. */
  allocations(): Promise<readonly OwnAllocation[]> {
    return this.#watched(async () => {
      this.#blocks = undefined;
      return [...(await this.#own()).values()].flatMap(allocationsOf);
    });
  }

  /** After any failure memory and API may differ, so the blocks are read again. */
  async #watched<T>(action: () => Promise<T>): Promise<T> {
    try {
      const result = await action();
      this.#failure = undefined;
      return result;
    } catch (error) {
      this.#blocks = undefined;
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
    const { owner, signal } = request;
    for (const block of (await this.#own(signal)).values()) {
      const mine = addressesOfHandle(block, owner.handle).find(
        (it) => it.family === family && (requested === undefined || it.address === requested),
      );
      if (mine !== undefined) return { kind: 'allocated', address: mine, isNew: false };
    }
    return requested === undefined
      ? this.#allocateAny(family, { owner, signal, choose })
      : this.#allocateRequested(requested, { owner, signal, choose });
  }

  async #allocateAny(family: Family, asking: Asking): Promise<One> {
    const { owner, signal } = asking;
    const pools = poolsOfFamily(this.#poolsFor(owner), family);
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
      for (const name of await this.#ownOf(pools, signal)) {
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
        if ((await this.#claim(pools, signal)) === undefined)
          return this.#exhausted(family, { owner, signal, cooling });
      }
      throw new Error(
        `Cannot allocate an IPv${family} address for "${owner.handle}": ${MAX_CAS_RETRIES} claimed blocks were lost or full`,
      );
    });
  }

  async #allocateRequested(requested: Ip, asking: Asking): Promise<One> {
    const { owner, signal } = asking;
    const refused = (reason: string): One => ({
      kind: 'refused',
      address: requested,
      message: `Cannot give the requested address ${requested}: ${reason}`,
    });
    const holds = (it: IPPool) => cidrContains(cidr(it.spec.cidr), requested);
    const pool = poolsOfFamily(this.#poolsFor(owner), familyOf(requested)).find(holds);
    if (pool === undefined) {
      const other = poolsOfFamily(this.#pools(), familyOf(requested)).find(holds);
      return refused(
        other === undefined
          ? 'it is in no enabled IPPool'
          : `IPPool "${other.metadata.name}" is not for this node or not for namespace "${owner.namespace ?? ''}"`,
      );
    }
    for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
      const block = await this.#blockOf(requested, pool, signal);
      if (block === undefined) continue;
      if (block.spec.node !== this.#node)
        return refused(`block ${block.spec.cidr} belongs to node "${block.spec.node}"`);
      const taken = await this.#take(block.metadata.name, { ...asking, requested });
      if (taken?.kind === 'taken')
        return { kind: 'allocated', address: taken.address, isNew: true };
      if (taken?.kind === 'busy') return refused(`it is in use by "${taken.allocation.handle}"`);
    }
    throw new Error(
      `Cannot allocate ${requested}: its block was lost to others ${MAX_CAS_RETRIES} times`,
    );
  }

  /** The block of the address, claimed for this node if it was nobody's. Undefined: a race was lost, look again. */
  async #blockOf(address: Ip, pool: IPPool, signal: Signal): Promise<IPBlock | undefined> {
    const holds = (block: IPBlock) => cidrContains(cidr(block.spec.cidr), address);
    const own = [...(await this.#own(signal)).values()].find(holds);
    const block = own ?? (await this.#listBlocks(signal)).find(holds);
    if (block !== undefined && block.spec.node !== '') return block;
    const fresh = { cidr: blockAt(pool, address), pool: pool.metadata.name, node: this.#node };
    const name =
      block === undefined
        ? await this.#create(newBlock(fresh), signal)
        : await this.#adopt(block, signal);
    return name === undefined ? undefined : this.#blocks?.get(name);
  }

  async #take(
    name: string,
    what: Asking & { requested?: Ip },
  ): Promise<ReturnType<typeof takeAddress> | undefined> {
    const { owner, requested, signal, choose } = what;
    const onChosen = (taken: ReturnType<typeof takeAddress>) => {
      if (taken.kind === 'taken') choose(taken.address);
    };
    const take = (block: IPBlock) => {
      const pool = this.#pools().find((it) => it.metadata.name === block.spec.pool);
      const taken = takeAddress(block, {
        owner,
        reserved: reservedOf(pool),
        node: this.#node,
        nowMs: this.#clock.now(),
        coolDownMs: this.#coolDownMs,
        ...(requested === undefined ? {} : { requested }),
      });
      return { block: taken.kind === 'taken' ? taken.block : block, value: taken };
    };
    return this.#change(name, signal, take, onChosen);
  }

  /**
   * Claims a block in one of the pools: one that is nobody's, else a new one.
   * Done in two steps: a block that is `Pending` counts as absent for everybody else's routing.
   * @returns its name, or undefined if there is none left
   */
  async #claim(pools: readonly IPPool[], signal: Signal): Promise<string | undefined> {
    for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
      const all = await this.#listBlocks(signal);
      const names = new Set(pools.map((pool) => pool.metadata.name));
      const orphan = all.find(
        (it) => it.spec.node === '' && it.spec.free.length > 0 && names.has(it.spec.pool),
      );
      if (orphan !== undefined) {
        const name = await this.#adopt(orphan, signal);
        if (name !== undefined) return name;
        continue;
      }
      const fresh = firstDefined(pools, (pool) => {
        const prefix = planNewBlock(pool, all, this.#node);
        return prefix === undefined
          ? undefined
          : newBlock({ cidr: prefix, pool: pool.metadata.name, node: this.#node });
      });
      if (fresh === undefined) return undefined;
      const name = await this.#create(fresh, signal);
      if (name !== undefined) return name;
    }
    throw new Error(`Cannot claim an IPBlock: ${MAX_CAS_RETRIES} were taken by others in a row`);
  }

  /** @returns undefined if somebody else was faster */
  async #create(block: IPBlock, signal: Signal): Promise<string | undefined> {
    try {
      const created = await this.#client.create(IP_BLOCK, block, options(signal));
      (await this.#own(signal)).set(created.metadata.name, created);
    } catch (error) {
      if (isAlreadyExists(error)) return undefined;
      throw error;
    }
    return this.#confirm(block.metadata.name, signal);
  }

  async #adopt(block: IPBlock, signal: Signal): Promise<string | undefined> {
    try {
      const pending = withAffinity(block, this.#node, 'Pending');
      const updated = await this.#client.update(IP_BLOCK, pending, options(signal));
      (await this.#own(signal)).set(updated.metadata.name, updated);
    } catch (error) {
      if (isConflict(error) || isNotFound(error)) return undefined;
      throw error;
    }
    return this.#confirm(block.metadata.name, signal);
  }

  async #confirm(name: string, signal: Signal): Promise<string | undefined> {
    const done = await this.#change(name, signal, (block) => ({
      block:
        block.spec.affinity === 'Confirmed' ? block : withAffinity(block, this.#node, 'Confirmed'),
      value: block.spec.cidr,
    }));
    if (done === undefined) return undefined;
    this.#log.info({ block: done, node: this.#node }, 'claimed an address block');
    return name;
  }

  /**
   * Changes one of the node's own blocks with compare-and-swap.
   * @param change may run several times; the same block as result means nothing to write
   * @returns undefined if the block is this node's no more
   */
  #change<T>(
    name: string,
    signal: Signal,
    change: (block: IPBlock) => { block: IPBlock; value: T },
    onChosen?: (value: T) => void,
  ): Promise<T | undefined> {
    signal?.throwIfAborted();
    const writer = this.#writers.get(name) ?? new GroupCommit((apply) => this.#write(name, apply));
    this.#writers.set(name, writer);
    return writer.change(change, onChosen);
  }

  /** @returns false if the block is this node's no more */
  async #write(name: string, apply: (block: IPBlock) => IPBlock): Promise<boolean> {
    for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
      const block = (await this.#own()).get(name);
      if (block === undefined) return false;
      const next = apply(block);
      if (next === block) return true;
      try {
        const written = await this.#client.update(IP_BLOCK, next);
        this.#blocks?.set(name, written);
        return true;
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error;
        await this.#refresh(name, undefined);
      }
    }
    throw new Error(
      `Cannot write IPBlock "${name}": it changed ${MAX_CAS_RETRIES} times in a row meanwhile`,
    );
  }

  async #refresh(name: string, signal: Signal): Promise<void> {
    const block = await this.#client
      .get(IP_BLOCK, name, undefined, options(signal))
      .catch((error: unknown) => {
        if (isNotFound(error)) return undefined;
        throw error;
      });
    const own = await this.#own(signal);
    if (block?.spec.node === this.#node) own.set(name, block);
    else own.delete(name);
  }

  /** Gives back the families that were had before another one failed. */
  async #undo(got: readonly One[], signal: Signal): Promise<void> {
    for (const one of got) {
      if (one.kind !== 'allocated' || !one.isNew) continue;
      for (const name of (await this.#own(signal)).keys())
        await this.#change(name, signal, (block) => ({
          block: releaseAddresses(block, [one.address], this.#clock.now()).block,
          value: undefined,
        }));
    }
  }

  /** The pools that may serve the owner. The node's own addresses come out of any pool if none is for everybody. */
  #poolsFor({ namespace, purpose }: AddressOwner): IPPool[] {
    const { nodeLabels, namespaceLabels } = this.#options;
    const isPod = purpose === 'Pod';
    const pools = poolsFor(this.#pools(), {
      nodeLabels: nodeLabels?.() ?? {},
      namespaceLabels: isPod ? (namespaceLabels?.(namespace ?? '') ?? {}) : undefined,
    });
    return isPod || pools.length > 0 ? pools : [...this.#pools()];
  }

  async #exhausted(
    family: Family,
    why: { owner: AddressOwner; signal: Signal; cooling?: number },
  ): Promise<Refusal> {
    const { owner, signal, cooling = 0 } = why;
    const pools = poolsOfFamily(this.#poolsFor(owner), family);
    const blocks = await this.#listBlocks(signal);
    const usage = usageOf(pools, blocks);
    const ownBlocks = (await this.#ownOf(pools, signal)).length;
    const message = explainExhaustion(family, usage, { node: this.#node, ownBlocks, cooling });
    return { kind: 'exhausted', family, pools: usage, message };
  }

  /** Names of this node's blocks in the pools, confirmed ones first, then by prefix. */
  async #ownOf(pools: readonly IPPool[], signal: Signal): Promise<string[]> {
    const names = new Set(pools.map((pool) => pool.metadata.name));
    const own = [...(await this.#own(signal)).values()].filter((it) => names.has(it.spec.pool));
    const result: string[] = [];
    for (const block of own.sort((a, b) => compare(a.metadata.name, b.metadata.name))) {
      const isOurs =
        block.spec.affinity === 'Confirmed' ||
        (await this.#confirm(block.metadata.name, signal)) !== undefined;
      if (isOurs) result.push(block.metadata.name);
    }
    return result;
  }

  async #own(signal?: Signal): Promise<Map<string, IPBlock>> {
    if (this.#blocks !== undefined) return this.#blocks;
    const all = await this.#listBlocks(signal);
    this.#blocks = new Map(
      all.filter((it) => it.spec.node === this.#node).map((it) => [it.metadata.name, it]),
    );
    return this.#blocks;
  }

  async #listBlocks(signal: Signal): Promise<readonly IPBlock[]> {
    return (await this.#client.list(IP_BLOCK, options(signal))).items;
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

/** The handle of a node's own address on the fabric. */
export function tunnelHandle(node: string): string {
  return `vxlan-tunnel-addr-${node}`;
}

function isAmong(addresses: readonly AllocatedAddress[]): (found: AllocatedAddress) => boolean {
  return (found) =>
    addresses.some((it) => it.address === found.address && it.sequence === found.sequence);
}

function options(signal: Signal): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

function firstDefined<T, R>(items: readonly T[], pick: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const picked = pick(item);
    if (picked !== undefined) return picked;
  }
  return undefined;
}
