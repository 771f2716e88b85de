/**
 * Pure: which address blocks belong to nodes that are no more, and what becomes of them.
 *
 * A node that was deleted cannot give anything back, so its addresses are released here and its blocks are anybody's.
 * It has to be missed for a while first: a node that is being made again keeps what it has.
 */
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { releaseOrdinals } from '#api/tulle/v1alpha1/ip-block-release.ts';

/** Longer than a node takes to come back, and than any pod lives on without its node's object. */
export const QUARANTINE_MS = 60_000;

export interface ReclaimInput {
  readonly blocks: Iterable<IPBlock>;
  readonly nodeExists: (name: string) => boolean;
  /** Nodes that are missed, and since when. */
  readonly missingSinceMs: ReadonlyMap<string, number>;
  readonly nowMs: number;
}

export interface ReclaimPlan {
  /** The next input's. */
  readonly missingSinceMs: ReadonlyMap<string, number>;
  /** Blocks as they are to be written. */
  readonly orphan: readonly IPBlock[];
  /** When the next quarantine ends; `undefined` if none runs. */
  readonly nextAtMs: number | undefined;
}

export function planReclaim(input: ReclaimInput): ReclaimPlan {
  const { blocks, nodeExists, nowMs } = input;
  const missingSinceMs = new Map<string, number>();
  const orphan: IPBlock[] = [];
  let nextAtMs: number | undefined;
  for (const block of blocks) {
    const { node } = block.spec;
    if (node === '' || nodeExists(node)) continue;
    const sinceMs = input.missingSinceMs.get(node) ?? nowMs;
    missingSinceMs.set(node, sinceMs);
    const dueAtMs = sinceMs + QUARANTINE_MS;
    if (dueAtMs > nowMs) nextAtMs = Math.min(nextAtMs ?? Infinity, dueAtMs);
    else orphan.push(orphaned(block, nowMs));
  }
  return { missingSinceMs, orphan, nextAtMs };
}

/** The block as nobody's, with every address free and cooling down. */
function orphaned(block: IPBlock, nowMs: number): IPBlock {
  const freed = releaseOrdinals(block, Object.keys(block.spec.allocations), nowMs);
  return { ...freed, spec: { ...freed.spec, node: '', affinity: 'Pending' } };
}
