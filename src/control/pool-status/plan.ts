/** Pure: how full the address pools are. */
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool, IPPoolStatus } from '#api/tulle/v1alpha1/ip-pool.ts';

/** The pools whose status does not say what their blocks say, with what it should say. */
export function planPoolStatus(
  pools: Iterable<IPPool>,
  blocks: Iterable<IPBlock>,
): { pool: IPPool; status: IPPoolStatus }[] {
  const usage = new Map<string, { allocated: number; blocks: number }>();
  for (const { spec } of blocks) {
    const sum = usage.get(spec.pool) ?? { allocated: 0, blocks: 0 };
    usage.set(spec.pool, {
      allocated: sum.allocated + Object.keys(spec.allocations).length,
      blocks: sum.blocks + 1,
    });
  }
  return [...pools].flatMap((pool) => {
    const { allocated, blocks: count } = usage.get(pool.metadata.name) ?? {
      allocated: 0,
      blocks: 0,
    };
    if (pool.status?.allocated === allocated && pool.status.blocks === count) return [];
    return [{ pool, status: { ...pool.status, allocated, blocks: count } }];
  });
}
