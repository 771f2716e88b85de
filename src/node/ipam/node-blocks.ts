/**
 * The IPBlocks that concern one node, in memory and in the API: read when they must be, changed with compare-and-swap.
 *
 * Memory may be older than the API where other nodes write, which a lost race then tells; it is never older than what this
 * node has written itself, or an address of ours would be forgotten until the garbage collection finds it.
 */
import { IP_BLOCK, type IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { ApiClient } from '#client/port.ts';
import { isAlreadyExists, isConflict, isNotFound } from '#lib/errors.ts';
import { hasAddressOf } from './block.ts';
import { GroupCommit } from './group-commit.ts';

/** Lost races in a row after which something else is wrong than contention. */
export const MAX_CAS_RETRIES = 100;

export type Signal = AbortSignal | undefined;

export class NodeBlocks {
  readonly #client: ApiClient;
  readonly #node: string;
  /**
   * By name, as last read or written: the node's own blocks and others that it has addresses of. Undefined when they must
   * be read again. May have blocks of neither kind, so every change looks whose the block is now.
   */
  #known: Map<string, IPBlock> | undefined;
  /** Raised whenever memory is thrown away: what was being read then may be older than what went wrong. */
  #epoch = 0;
  /** What is written while the blocks are being read, for each reading: its answer may be older. */
  readonly #readings = new Set<Map<string, IPBlock>>();
  /** By name of the block. At most one for each block of the cluster, of those that this node took addresses of. */
  readonly #writers = new Map<string, GroupCommit<IPBlock>>();

  constructor(client: ApiClient, node: string) {
    this.#client = client;
    this.#node = node;
  }

  /** Like {@link known}, if they need not be read. */
  get inMemory(): ReadonlyMap<string, IPBlock> | undefined {
    return this.#known;
  }

  /** Those that concern the node, and maybe others. */
  async known(signal?: Signal): Promise<ReadonlyMap<string, IPBlock>> {
    for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
      if (this.#known !== undefined) return this.#known;
      const epoch = this.#epoch;
      const all = await this.#readAll(signal);
      if (epoch !== this.#epoch) continue;
      this.#known ??= new Map(
        all.filter((it) => this.#concerns(it)).map((it) => [it.metadata.name, it]),
      );
      return this.#known;
    }
    throw new Error(`Cannot read the IPBlocks: calls failed meanwhile ${MAX_CAS_RETRIES} times`);
  }

  /** All blocks of the cluster, read anew; memory learns what others have changed in those that it has. */
  async readAll(signal: Signal): Promise<readonly IPBlock[]> {
    const all = await this.#readAll(signal);
    for (const block of all) {
      const { name } = block.metadata;
      if (this.#concerns(block) || this.#known?.has(name) === true) this.#known?.set(name, block);
    }
    return all;
  }

  /** Another node's block as {@link readAll} found it, to be changed. */
  noteForeign(block: IPBlock): void {
    if (this.#known?.has(block.metadata.name) === false) this.#remember(block);
  }

  /** After a failure memory and API may differ: everything is read again. */
  forget(): void {
    this.#known = undefined;
    this.#epoch++;
  }

  /** Reads one block again. */
  async refresh(name: string, signal?: Signal): Promise<IPBlock | undefined> {
    const block = await this.#client
      .get(IP_BLOCK, name, undefined, withSignal(signal))
      .catch((error: unknown) => {
        if (isNotFound(error)) return undefined;
        throw error;
      });
    if (block !== undefined) this.#remember(block);
    else this.#known?.delete(name);
    return block;
  }

  /** @returns false if somebody else was faster */
  async create(block: IPBlock, signal: Signal): Promise<boolean> {
    try {
      this.#remember(await this.#client.create(IP_BLOCK, block, withSignal(signal)));
      return true;
    } catch (error) {
      if (isAlreadyExists(error)) return false;
      throw error;
    }
  }

  /** Writes a block as it is, if nobody has changed it since it was read. @returns false if somebody has */
  async replace(block: IPBlock, signal: Signal): Promise<boolean> {
    try {
      this.#remember(await this.#client.update(IP_BLOCK, block, withSignal(signal)));
      return true;
    } catch (error) {
      if (isConflict(error) || isNotFound(error)) return false;
      throw error;
    }
  }

  /**
   * Changes a block with compare-and-swap, together with other changes that wait for it.
   * @param change may run several times, and the block may have become another's in between; the same block as result
   *   means nothing to write
   * @param onChosen called with the value while it is being written; a write that loses a race ends with another
   * @returns undefined if there is no such block
   */
  change<T>(
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

  /** @returns false if there is no such block */
  async #write(name: string, apply: (block: IPBlock) => IPBlock): Promise<boolean> {
    for (let attempt = 0; attempt < MAX_CAS_RETRIES; attempt++) {
      const block = (await this.known()).get(name) ?? (await this.refresh(name));
      if (block === undefined) return false;
      const next = apply(block);
      if (next === block) return true;
      try {
        this.#remember(await this.#client.update(IP_BLOCK, next));
        return true;
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error;
        await this.refresh(name);
      }
    }
    throw new Error(
      `Cannot write IPBlock "${name}": it changed ${MAX_CAS_RETRIES} times in a row meanwhile`,
    );
  }

  /** All blocks, with what this node writes while they are being read. */
  async #readAll(signal: Signal): Promise<readonly IPBlock[]> {
    const written = new Map<string, IPBlock>();
    this.#readings.add(written);
    try {
      const { items } = await this.#client.list(IP_BLOCK, withSignal(signal));
      const others = items.filter((it) => !written.has(it.metadata.name));
      return [...others, ...written.values()];
    } finally {
      this.#readings.delete(written);
    }
  }

  #remember(block: IPBlock): void {
    this.#known?.set(block.metadata.name, block);
    for (const written of this.#readings) written.set(block.metadata.name, block);
  }

  #concerns(block: IPBlock): boolean {
    return block.spec.node === this.#node || hasAddressOf(block, this.#node);
  }
}

function withSignal(signal: Signal): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
