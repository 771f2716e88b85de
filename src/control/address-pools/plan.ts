/**
 * Pure: what becomes of the addresses and blocks of nodes that are no more, and of the blocks of pools that are to go.
 *
 * A node that was deleted cannot give anything back, so its addresses are released here, those that it had borrowed too,
 * and its blocks are anybody's; what others have borrowed of them stays theirs. A disabled pool gives out nothing, so its
 * empty blocks are removed: a pool can be deleted when it has none.
 */
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { releaseOrdinals } from '#api/tulle/v1alpha1/ip-block-release.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';

export interface ReclaimInput {
  readonly blocks: Iterable<IPBlock>;
  readonly pools: Iterable<IPPool>;
  readonly gone: ReadonlySet<string>;
  readonly nowMs: number;
}

export interface ReclaimPlan {
  /** Blocks as they are to be written, and what of them was taken back. */
  readonly update: readonly { readonly block: IPBlock; readonly released: number }[];
  readonly remove: readonly IPBlock[];
}

export function planReclaim({ blocks, pools, gone, nowMs }: ReclaimInput): ReclaimPlan {
  const disabled = new Set(
    [...pools].filter((it) => it.spec.disabled === true).map((it) => it.metadata.name),
  );
  const update: ReclaimPlan['update'][number][] = [];
  const remove: IPBlock[] = [];
  for (const block of blocks) {
    const { node, pool, allocations } = block.spec;
    const lost = Object.keys(allocations).filter((it) => gone.has(allocations[it]?.node ?? ''));
    if (lost.length > 0 || gone.has(node)) {
      const freed = releaseOrdinals(block, lost, nowMs);
      const next = gone.has(node) ? nobodys(freed) : freed;
      update.push({ block: next, released: lost.length });
    } else if (node === '' && disabled.has(pool) && Object.keys(allocations).length === 0)
      remove.push(block);
  }
  return { update, remove };
}

/** The nodes that the block is kept for. */
export function nodesOf({ spec }: IPBlock): string[] {
  return [spec.node, ...Object.values(spec.allocations).map((it) => it.node)];
}

function nobodys(block: IPBlock): IPBlock {
  return { ...block, spec: { ...block.spec, node: '', affinity: 'Pending' } };
}
