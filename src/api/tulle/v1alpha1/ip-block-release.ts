/** Giving addresses of a block back without being its node: for controllers and administrators. Pure. */
import type { IPBlock } from './ip-block.ts';

/** The block with these ordinals free and cooling down. Those that are free already stay as they are. */
export function releaseOrdinals(
  block: IPBlock,
  ordinals: readonly string[],
  nowMs: number,
): IPBlock {
  const { spec } = block;
  const used = ordinals.filter((it) => it in spec.allocations);
  const gone = new Set(used);
  const at = new Date(nowMs).toISOString();
  return {
    ...block,
    spec: {
      ...spec,
      allocations: Object.fromEntries(
        Object.entries(spec.allocations).filter(([ordinal]) => !gone.has(ordinal)),
      ),
      free: [...spec.free, ...used.map(Number)],
      releasedAt: { ...spec.releasedAt, ...Object.fromEntries(used.map((it) => [it, at])) },
    },
  };
}
