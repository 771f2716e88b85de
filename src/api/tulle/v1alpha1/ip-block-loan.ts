/** Addresses of a block that are used on another node than the block's own. Pure. */
import { isDeepStrictEqual } from 'node:util';
import { type Cidr, cidrAddress, type Ip, parseCidr } from '#lib/ip.ts';
import type { IPAllocation, IPBlock } from './ip-block.ts';

export interface Loan {
  readonly address: Ip;
  /** Where the address is used. */
  readonly node: string;
  readonly allocation: IPAllocation;
}

/**
 * The addresses that no route to the whole block leads to: those of other nodes, and all of them while the block is
 * nobody's or not yet confirmed.
 */
export function loansOf({ spec }: IPBlock): Loan[] {
  const block = parseCidr(spec.cidr);
  if (block === undefined) return [];
  const owner = spec.affinity === 'Confirmed' ? spec.node : '';
  return Object.entries(spec.allocations)
    .filter(([, { node }]) => node !== '' && node !== owner)
    .map(([ordinal, allocation]) => ({
      address: addressAt(block, ordinal),
      node: allocation.node,
      allocation,
    }));
}

/**
 * Whether a change of another node's block does nothing but take and give back addresses for one node: what a node may
 * do that borrows.
 */
export function isOwnLoan(old: IPBlock, changed: IPBlock, node: string): boolean {
  const [a, b] = [old.spec, changed.spec];
  if (a.node !== b.node || a.affinity !== 'Confirmed' || b.affinity !== 'Confirmed') return false;
  if (!sameMetadata(old, changed)) return false;
  const ordinals = new Set([...Object.keys(a.allocations), ...Object.keys(b.allocations)]);
  const touched = new Set<string>();
  for (const ordinal of ordinals) {
    const [before, after] = [a.allocations[ordinal], b.allocations[ordinal]];
    if (isDeepStrictEqual(before, after)) continue;
    if ([before, after].some((it) => it !== undefined && it.node !== node)) return false;
    touched.add(ordinal);
  }
  const untouched = (spec: IPBlock['spec']) => ({
    free: spec.free.filter((it) => !touched.has(String(it))),
    releasedAt: Object.fromEntries(
      Object.entries(spec.releasedAt).filter(([ordinal]) => !touched.has(ordinal)),
    ),
  });
  return isDeepStrictEqual(untouched(a), untouched(b)) && b.sequence <= a.sequence + touched.size;
}

/** What others read of an object's metadata, and what deletes it. */
function sameMetadata({ metadata: a }: IPBlock, { metadata: b }: IPBlock): boolean {
  return (['labels', 'annotations', 'ownerReferences', 'finalizers'] as const).every((field) =>
    isDeepStrictEqual(a[field] ?? undefined, b[field] ?? undefined),
  );
}

function addressAt(block: Cidr, ordinal: string): Ip {
  return cidrAddress(block, Number(ordinal));
}
