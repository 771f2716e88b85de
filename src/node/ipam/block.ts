/**
 * What can be done to an IPBlock, as pure functions from a block to the next one.
 *
 * Invariants, whatever the order of calls:
 * - every ordinal stands in exactly one of `allocations` and `free`;
 * - `free` is first in, first out, so the address that has been free for longest is used first;
 * - an address that was released is not given out again before the cool-down is over, because somebody may still
 *   hold it for the old pod's: a connection, a cached DNS answer, another node's route;
 * - `sequence` grows with every allocation, so a release that comes late cannot hit the address's next life.
 */
import { type IPAllocation, type IPBlock, ipBlockName } from '#api/tulle/v1alpha1/ip-block.ts';
import {
  type Cidr,
  cidr as checkedCidr,
  cidrAddress,
  cidrContains,
  cidrSize,
  cidrsOverlap,
  familyOf,
  type Ip,
  ipToBigInt,
  networkAddress,
} from '#lib/ip.ts';
import { type IpRange, rangeContains } from '#lib/ip-range.ts';
import type { AddressOwner, AllocatedAddress } from '../addresses.ts';

/** How long an address rests between two owners. */
export const DEFAULT_COOL_DOWN_MS = 30_000;

/** A block that no one has taken an address of. */
export function newBlock(of: { cidr: Cidr; pool: string; node: string }): IPBlock {
  return {
    apiVersion: 'tulle.dev/v1alpha1',
    kind: 'IPBlock',
    metadata: { name: ipBlockName(of.cidr) },
    spec: {
      cidr: of.cidr,
      pool: of.pool,
      node: of.node,
      affinity: 'Pending',
      sequence: 0,
      allocations: {},
      free: Array.from({ length: Number(cidrSize(of.cidr)) }, (_, ordinal) => ordinal),
      releasedAt: {},
    },
  };
}

/** Whether the node has an address of the block. */
export function hasAddressOf({ spec }: IPBlock, node: string): boolean {
  return Object.values(spec.allocations).some((it) => it.node === node);
}

/** The block with the node as its owner; `Pending` is the first step, `Confirmed` the second. */
export function withAffinity(
  block: IPBlock,
  node: string,
  affinity: 'Pending' | 'Confirmed',
): IPBlock {
  return { ...block, spec: { ...block.spec, node, affinity } };
}

export interface TakeOptions {
  readonly owner: AddressOwner;
  readonly node: string;
  readonly nowMs: number;
  readonly coolDownMs: number;
  /** This address and no other. Who names an address gets it also while it cools down. */
  readonly requested?: Ip;
  /** Prefixes whose addresses are given to nobody who does not ask for them. */
  readonly reserved?: readonly Cidr[];
  /** If given, only addresses of these. */
  readonly ranges?: readonly IpRange[];
  /** Whether the owner may have the requested address, which the node keeps warm. */
  readonly claimWarm?: (address: AllocatedAddress) => boolean;
}

export type Taken =
  | { readonly kind: 'taken'; readonly block: IPBlock; readonly address: AllocatedAddress }
  /** Nothing free; `cooling` of the addresses will be free when their cool-down is over. */
  | { readonly kind: 'full'; readonly cooling: number }
  /** The requested address is another's. */
  | { readonly kind: 'busy'; readonly allocation: IPAllocation };

/** Takes an address: the requested one, or the one that has been free for longest. */
export function takeAddress(block: IPBlock, options: TakeOptions): Taken {
  const { spec } = block;
  const prefix = checkedCidr(spec.cidr);
  let ordinal: number | undefined;
  if (options.requested !== undefined) {
    ordinal = ordinalOf(prefix, options.requested);
    const allocation = ordinal === undefined ? undefined : spec.allocations[ordinal];
    if (ordinal !== undefined && allocation !== undefined) {
      const address = addressAt(block, ordinal, allocation.sequence);
      const next = isWarmOf(allocation, options.node) && options.claimWarm?.(address);
      if (next !== true) return { kind: 'busy', allocation };
      return { kind: 'taken', block: reownAddress(block, address, options), address };
    }
  } else {
    const reserved = (options.reserved ?? []).filter((it) => cidrsOverlap(it, prefix));
    const { ranges } = options;
    const open = spec.free.filter((it) => {
      const address = cidrAddress(prefix, it);
      if (ranges !== undefined && !ranges.some((range) => rangeContains(range, address)))
        return false;
      return !reserved.some((other) => cidrContains(other, address));
    });
    ordinal = open.find((it) => !isCooling(spec.releasedAt[it], options));
    if (ordinal === undefined) return { kind: 'full', cooling: open.length };
  }
  if (ordinal === undefined) return { kind: 'full', cooling: 0 };

  const sequence = spec.sequence + 1;
  const next: IPBlock = {
    ...block,
    spec: {
      ...spec,
      sequence,
      allocations: { ...spec.allocations, [ordinal]: describe(options, sequence) },
      free: spec.free.filter((it) => it !== ordinal),
      releasedAt: releasesAfter(spec, options, ordinal),
    },
  };
  return { kind: 'taken', block: next, address: addressAt(next, ordinal, sequence) };
}

/**
 * Gives an address that the node keeps warm to its owner. It is in the same life after it.
 * @returns the same block if the address is not warm, or in another life
 */
export function reownAddress(
  block: IPBlock,
  { address, sequence }: AllocatedAddress,
  options: Pick<TakeOptions, 'owner' | 'node' | 'nowMs'>,
): IPBlock {
  const { spec } = block;
  const ordinal = ordinalOf(checkedCidr(spec.cidr), address);
  const now = ordinal === undefined ? undefined : spec.allocations[ordinal];
  if (ordinal === undefined || now?.sequence !== sequence || !isWarmOf(now, options.node))
    return block;
  const allocations = { ...spec.allocations, [ordinal]: describe(options, sequence) };
  return { ...block, spec: { ...spec, allocations } };
}

/** Whether the node keeps it for a pod to come, this process of it or an earlier one. */
export function isWarmOf({ purpose, node }: IPAllocation, of: string): boolean {
  return purpose === 'Warm' && node === of;
}

/**
 * Gives addresses back. What is not allocated, or is in another life than the sequence says, stays as it is.
 * @returns the same block if there was nothing to do
 */
export function releaseAddresses(
  block: IPBlock,
  addresses: readonly AllocatedAddress[],
  nowMs: number,
): { readonly block: IPBlock; readonly released: readonly AllocatedAddress[] } {
  const { spec } = block;
  const prefix = checkedCidr(spec.cidr);
  const allocations = { ...spec.allocations };
  const releasedAt = { ...spec.releasedAt };
  const free = [...spec.free];
  const released: AllocatedAddress[] = [];
  for (const address of addresses) {
    const ordinal = ordinalOf(prefix, address.address);
    if (ordinal === undefined || allocations[ordinal]?.sequence !== address.sequence) continue;
    delete allocations[ordinal];
    releasedAt[ordinal] = new Date(nowMs).toISOString();
    free.push(ordinal);
    released.push(address);
  }
  if (released.length === 0) return { block, released };
  return { block: { ...block, spec: { ...spec, allocations, free, releasedAt } }, released };
}

/**
 * All addresses of the block that belong to the handle.
 * @param node where the handle is of: two machines may name their containers the same
 */
export function addressesOfHandle(
  block: IPBlock,
  handle: string,
  node: string,
): AllocatedAddress[] {
  return Object.entries(block.spec.allocations)
    .filter(([, allocation]) => allocation.handle === handle && allocation.node === node)
    .map(([ordinal, allocation]) => addressAt(block, Number(ordinal), allocation.sequence));
}

/** All allocations of the block with their addresses. */
export function allocationsOf(
  block: IPBlock,
): { readonly address: AllocatedAddress; readonly allocation: IPAllocation }[] {
  return Object.entries(block.spec.allocations).map(([ordinal, allocation]) => ({
    address: addressAt(block, Number(ordinal), allocation.sequence),
    allocation,
  }));
}

/** @returns undefined if the address is not of the prefix */
function ordinalOf(prefix: Cidr, address: Ip): number | undefined {
  if (!cidrContains(prefix, address)) return undefined;
  return Number(ipToBigInt(address) - ipToBigInt(networkAddress(prefix)));
}

function addressAt(block: IPBlock, ordinal: number, sequence: number): AllocatedAddress {
  const prefix = checkedCidr(block.spec.cidr);
  return {
    address: cidrAddress(prefix, ordinal),
    family: familyOf(prefix),
    pool: block.spec.pool,
    block: prefix,
    sequence,
  };
}

function isCooling(
  releasedAt: string | undefined,
  time: { nowMs: number; coolDownMs: number },
): boolean {
  if (releasedAt === undefined) return false;
  const ageMs = time.nowMs - Date.parse(releasedAt);
  // A release that lies in the future by more than the cool-down was written before the clock was set back;
  // waiting for it would keep the address away for as long as the clock was wrong.
  return ageMs < time.coolDownMs && ageMs >= -time.coolDownMs;
}

/**
 * Releases that still matter: what has cooled down needs no entry, and neither does what is taken now. Only the block's
 * own node tidies up: who borrows an address changes nothing but that address.
 */
function releasesAfter(
  { releasedAt, node }: IPBlock['spec'],
  by: { node: string; nowMs: number; coolDownMs: number },
  taken: number,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(releasedAt).filter(
      ([ordinal, at]) => ordinal !== String(taken) && (by.node !== node || isCooling(at, by)),
    ),
  );
}

function describe(
  { owner, node, nowMs }: Pick<TakeOptions, 'owner' | 'node' | 'nowMs'>,
  sequence: number,
): IPAllocation {
  return {
    handle: owner.handle,
    sequence,
    since: new Date(nowMs).toISOString(),
    node,
    purpose: owner.purpose,
    ...(owner.containerId === undefined ? {} : { containerID: owner.containerId }),
    ...(owner.ifName === undefined ? {} : { ifName: owner.ifName }),
    ...(owner.namespace === undefined ? {} : { namespace: owner.namespace }),
    ...(owner.pod === undefined ? {} : { pod: owner.pod }),
  };
}
