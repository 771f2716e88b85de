/** Which block a node should claim next, and how full pools are. Pure. */
import { createHash } from 'node:crypto';
import { type Labels, matchLabelSelector } from '#api/machinery/label-selector.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { type IPPool, parseReserved } from '#api/tulle/v1alpha1/ip-pool.ts';
import {
  bitsOf,
  type Cidr,
  cidr as checkedCidr,
  cidrAddress,
  cidrContains,
  cidrOf,
  cidrSize,
  cidrsOverlap,
  type Family,
  familyOf,
  type Ip,
  ipToBigInt,
  networkAddress,
  prefixLengthOf,
} from '#lib/ip.ts';
import { formatIpRange, type IpRange, rangeOf, rangesOverlap } from '#lib/ip-range.ts';
import type { PoolUsage } from '../addresses.ts';

const DEFAULT_BLOCK_SIZE: Readonly<Record<Family, number>> = { 4: 26, 6: 122 };

/** The enabled pools of a family, in order of name. */
export function poolsOfFamily(pools: readonly IPPool[], family: Family): IPPool[] {
  return pools
    .filter((pool) => pool.spec.disabled !== true && poolFamily(pool) === family)
    .sort((a, b) => compare(a.metadata.name, b.metadata.name));
}

/** Whom an address is for, as far as pools select by it. */
export interface PoolUser {
  readonly nodeLabels: Labels;
  /** Undefined for what is of no namespace: the node's own addresses. */
  readonly namespaceLabels: Labels | undefined;
}

/**
 * The pools that may serve a user. A pool that selects namespaces is for their pods only, and where one selects a
 * namespace, pods there get addresses of nothing else in that family.
 */
export function poolsFor(pools: readonly IPPool[], user: PoolUser): IPPool[] {
  const here = pools.filter(
    ({ spec }) =>
      spec.nodeSelector === undefined || matchLabelSelector(spec.nodeSelector, user.nodeLabels),
  );
  const selecting = here.filter(
    ({ spec }) =>
      spec.namespaceSelector !== undefined &&
      user.namespaceLabels !== undefined &&
      matchLabelSelector(spec.namespaceSelector, user.namespaceLabels),
  );
  const dedicated = new Set(selecting.filter((it) => it.spec.disabled !== true).map(poolFamily));
  const common = here.filter(
    (pool) => pool.spec.namespaceSelector === undefined && !dedicated.has(poolFamily(pool)),
  );
  return [...selecting, ...common];
}

/** What of the pool only those get who ask for it by name. */
export function reservedOf(pool: IPPool | undefined): Cidr[] {
  return (pool?.spec.reserved ?? []).flatMap((text) => parseReserved(text) ?? []);
}

/** Families that have an enabled pool, IPv4 first. */
export function familiesOf(pools: readonly IPPool[]): Family[] {
  return ([4, 6] as const).filter((family) => poolsOfFamily(pools, family).length > 0);
}

function poolFamily(pool: IPPool): Family {
  return familyOf(checkedCidr(pool.spec.cidr));
}

/**
 * A block of the pool that does not exist yet.
 *
 * The search starts at a place that depends on the node, so that nodes that start together do not all reach for
 * the same block; it ends soon, because of n+1 different blocks at least one is not among n existing ones.
 * @param existing all blocks, of whatever pool and node
 * @param ranges if given, only a block with an address of these
 * @returns undefined if the pool, or what of it is in the ranges, is cut up completely
 */
export function planNewBlock(
  pool: IPPool,
  existing: readonly IPBlock[],
  node: string,
  ranges?: readonly IpRange[],
): Cidr | undefined {
  const whole = rangeOf(checkedCidr(pool.spec.cidr));
  if (ranges === undefined) return planBlockIn(whole, pool, existing, node);
  for (const range of ranges) {
    if (!rangesOverlap(range, whole)) continue;
    const first = range.first > whole.first ? range.first : whole.first;
    const last = range.last < whole.last ? range.last : whole.last;
    const found = planBlockIn({ ...whole, first, last }, pool, existing, node);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** @param window the part of the pool in which the block must begin, end, or both */
function planBlockIn(
  window: IpRange,
  pool: IPPool,
  existing: readonly IPBlock[],
  node: string,
): Cidr | undefined {
  const prefix = checkedCidr(pool.spec.cidr);
  const family = familyOf(prefix);
  const length = blockLengthOf(pool);
  const size = 1n << BigInt(bitsOf(family) - length);
  const taken = existing
    .map((block) => checkedCidr(block.spec.cidr))
    .filter((it) => cidrsOverlap(it, prefix));
  const takenSet = new Set<string>(taken);
  // Blocks of another size, left by a pool that was replaced, must be compared one by one.
  const odd = taken.filter((it) => prefixLengthOf(it) !== length);
  const reserved = reservedOf(pool);
  const base = ipToBigInt(networkAddress(prefix));
  const lowest = (window.first - base) / size;
  const count = (window.last - base) / size - lowest + 1n;
  const start = hashOf(`${node}/${pool.metadata.name}`) % count;
  for (let i = 0n; i < count; i++) {
    const at = lowest + ((start + i) % count);
    const candidate = cidrOf(cidrAddress(prefix, at * size), length);
    const covering = reserved.find((it) => covers(it, candidate));
    if (covering !== undefined) {
      // All of it at once: a reserved prefix can hold more blocks than anybody has time to count.
      const end = (ipToBigInt(networkAddress(covering)) - base + cidrSize(covering)) / size;
      i += (end < lowest + count ? end : lowest + count) - at - 1n;
      continue;
    }
    if (!takenSet.has(candidate) && !odd.some((it) => cidrsOverlap(it, candidate)))
      return candidate;
  }
  return undefined;
}

/**
 * Other nodes' blocks that have a free address, in the order in which to try them. The order depends on the node, so
 * that nodes which run out together do not all write the same block.
 */
export function planLenders(
  pools: readonly IPPool[],
  blocks: readonly IPBlock[],
  node: string,
): IPBlock[] {
  const names = new Set(pools.map((pool) => pool.metadata.name));
  return blocks
    .filter(({ spec }) => names.has(spec.pool) && spec.node !== node && spec.free.length > 0)
    .map((block) => ({ block, rank: hashOf(`${node}/${block.metadata.name}`) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ block }) => block);
}

function covers(outer: Cidr, inner: Cidr): boolean {
  return (
    prefixLengthOf(outer) <= prefixLengthOf(inner) && cidrContains(outer, networkAddress(inner))
  );
}

/** Whether the prefix has an address of the ranges, if there are any. */
export function hasAddressIn(prefix: string, ranges: readonly IpRange[] | undefined): boolean {
  if (ranges === undefined) return true;
  const whole = rangeOf(checkedCidr(prefix));
  return ranges.some((range) => rangesOverlap(range, whole));
}

/** The prefix of the pool's block that holds the address. */
export function blockAt(pool: IPPool, address: Ip): Cidr {
  return cidrOf(address, blockLengthOf(pool));
}

/** How many addresses of each pool are in use, by all nodes. */
export function usageOf(pools: readonly IPPool[], blocks: readonly IPBlock[]): PoolUsage[] {
  return pools.map((pool) => {
    const prefix = checkedCidr(pool.spec.cidr);
    const used = blocks
      .filter((block) => block.spec.pool === pool.metadata.name)
      .reduce((sum, block) => sum + Object.keys(block.spec.allocations).length, 0);
    return { name: pool.metadata.name, cidr: prefix, used: BigInt(used), total: cidrSize(prefix) };
  });
}

/** Why there is no address: one sentence that names the pools, the numbers and what can be done. */
export function explainExhaustion(
  family: Family,
  pools: readonly PoolUsage[],
  facts: {
    node: string;
    ownBlocks: number;
    cooling: number;
    strict: boolean;
    ranges?: readonly IpRange[] | undefined;
  },
): string {
  const among =
    facts.ranges === undefined
      ? ''
      : ` of the ranges ${facts.ranges.map(formatIpRange).join(', ')}`;
  if (pools.length === 0 && among !== '')
    return `no enabled IPPool for this pod has an IPv${family} address${among}`;
  if (pools.length === 0)
    return `there is no enabled IPPool for IPv${family}; create one, or enable one with "spec.disabled: false"`;
  const list = pools
    .map((it) => `"${it.name}" ${it.cidr}: ${it.used} of ${it.total} addresses in use`)
    .join('; ');
  const strict = facts.strict
    ? '; "spec.strictAffinity" keeps it from borrowing of other nodes'
    : ', and no other node has one to lend';
  const cooling =
    facts.cooling === 0
      ? ''
      : `; ${facts.cooling} released moments ago may be used again when their cool-down is over`;
  return (
    `no free IPv${family} address${among} for node "${facts.node}": IPPool ${list}; no block is left to claim, ` +
    `the node's own ${facts.ownBlocks} are full${strict}${cooling}. Add an IPPool or remove pods`
  );
}

function blockLengthOf(pool: IPPool): number {
  const prefix = checkedCidr(pool.spec.cidr);
  return Math.max(
    pool.spec.blockSize ?? DEFAULT_BLOCK_SIZE[familyOf(prefix)],
    prefixLengthOf(prefix),
  );
}

export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function hashOf(text: string): bigint {
  return createHash('sha256').update(text).digest().readBigUInt64BE();
}
