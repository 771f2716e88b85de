/**
 * Gives back addresses of this node whose pod is gone without a word: the runtime was killed, the machine was
 * rebooted, the agent died between two steps.
 *
 * An allocation must be seen without its attachment twice, at least the grace period apart, before it is released,
 * and it is checked once more right before. What is not understood is taken to be alive. Blocks that have become empty
 * are given back by the same two looks.
 */
import { type Clock, systemClock } from '#lib/clock.ts';
import type { Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import type { AddressOwner } from '../addresses.ts';
import type { Allocator, OwnAllocation } from './allocator.ts';

/** Longer than any ADD takes, and long enough for a runtime that restarts. */
export const DEFAULT_GC_GRACE_MS = 60_000;

export interface GcState {
  /** When an allocation was first seen without its attachment, by {@link lifeOf}. */
  readonly suspects: ReadonlyMap<string, number>;
}

export interface GcInput {
  readonly node: string;
  readonly allocations: readonly OwnAllocation[];
  readonly live: ReadonlySet<string>;
  /** Addresses in use: a record has one from the moment it is handed out, the API hears of it a little later. */
  readonly inUse: ReadonlySet<Ip>;
  readonly state: GcState;
  readonly nowMs: number;
  readonly graceMs: number;
}

/** Decides which allocations are given back now and which are suspects until the next look. */
export function planGc(input: GcInput): {
  readonly release: readonly OwnAllocation[];
  readonly state: GcState;
} {
  const suspects = new Map<string, number>();
  const release: OwnAllocation[] = [];
  for (const own of input.allocations) {
    if (!isOrphan(own, input)) continue;
    const life = lifeOf(own);
    const since = input.state.suspects.get(life);
    if (since !== undefined && input.nowMs - since >= input.graceMs) release.push(own);
    // Stays a suspect while it is released: if that fails, the next look tries again at once.
    suspects.set(life, since ?? input.nowMs);
  }
  return { release, state: { suspects } };
}

/**
 * Addresses of pods of this node only, and those that an earlier process kept for pods: the tunnel's address lives as long
 * as the node.
 */
function isOrphan({ address, allocation }: OwnAllocation, input: GcInput): boolean {
  const { purpose, node, handle } = allocation;
  if (purpose === 'Tunnel' || node !== input.node || input.live.has(handle)) return false;
  return purpose === 'Pod' || !input.inUse.has(address.address);
}

/** One life of an address: a later owner of the same address is another. */
function lifeOf({ address }: OwnAllocation): string {
  return `${address.address}#${address.sequence}`;
}

/**
 * Which blocks without an address in use the node leaves to others: those that two looks, the grace period apart, found
 * empty. Pure.
 */
export function planGiveBack(
  empty: readonly string[],
  emptySinceMs: ReadonlyMap<string, number>,
  nowMs: number,
  graceMs: number,
): { readonly giveBack: readonly string[]; readonly emptySinceMs: ReadonlyMap<string, number> } {
  const since = new Map(empty.map((name) => [name, emptySinceMs.get(name) ?? nowMs]));
  const giveBack = empty.filter((name) => nowMs - (since.get(name) ?? nowMs) >= graceMs);
  return { giveBack, emptySinceMs: since };
}

/** What an attachment has, and for whom. */
export interface HeldAddresses {
  readonly owner: AddressOwner;
  readonly addresses: readonly Ip[];
}

/**
 * Addresses in use that no allocation speaks of. Pure.
 * @param warmHandle whose are about to be told to the API anyway
 */
export function planRetake(
  held: Iterable<HeldAddresses>,
  allocations: readonly OwnAllocation[],
  warmHandle: string,
): { owner: AddressOwner; address: Ip }[] {
  const known = new Set(
    allocations.map(({ address, allocation }) => `${allocation.handle} ${address.address}`),
  );
  return [...held].flatMap(({ owner, addresses }) =>
    addresses
      .filter(
        (address) =>
          !known.has(`${owner.handle} ${address}`) && !known.has(`${warmHandle} ${address}`),
      )
      .map((address) => ({ owner, address })),
  );
}

export interface IpamGcOptions {
  readonly node: string;
  readonly allocator: Pick<
    Allocator,
    'allocations' | 'release' | 'allocate' | 'emptyBlocks' | 'giveBack' | 'warmHandle'
  >;
  /** Handles of all attachments that exist or are being made. */
  readonly liveHandles: () => Iterable<string>;
  /**
   * Addresses that are in use on this node. Those that the API does not know of, because its store is an older copy, are
   * taken there again before anybody else gets them.
   */
  readonly held?: () => Iterable<HeldAddresses>;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Default {@link DEFAULT_GC_GRACE_MS}. */
  readonly graceMs?: number;
}

/**
 * @returns a function that looks once and releases what two looks agree on; call it a few times per grace period.
 *   It resolves to the released addresses and rejects if the API cannot be reached.
 */
export function createIpamGc(options: IpamGcOptions): () => Promise<readonly Ip[]> {
  const { allocator, log } = options;
  const clock = options.clock ?? systemClock;
  const graceMs = options.graceMs ?? DEFAULT_GC_GRACE_MS;
  let state: GcState = { suspects: new Map() };
  let emptySinceMs: ReadonlyMap<string, number> = new Map();
  const giveBlocksBack = async () => {
    const plan = planGiveBack(
      await allocator.emptyBlocks(),
      emptySinceMs,
      clock.elapsed(),
      graceMs,
    );
    emptySinceMs = plan.emptySinceMs;
    for (const name of plan.giveBack)
      if (await allocator.giveBack(name)) log.info({ block: name }, 'gave an empty block back');
  };
  const heldNow = () => [...(options.held?.() ?? [])];
  const addressesInUse = () => new Set(heldNow().flatMap((it) => it.addresses));
  const liveNow = () => new Set([...options.liveHandles(), allocator.warmHandle]);
  return async () => {
    // In this order: an attachment announces itself before it asks for an address, so an allocation that is
    // seen here has its handle in the live set if the attachment is not gone.
    // Read first: what is attached meanwhile has its allocation.
    const held = heldNow();
    const allocations = await allocator.allocations();
    await retake(options, planRetake(held, allocations, allocator.warmHandle));
    const plan = planGc({
      node: options.node,
      allocations,
      live: liveNow(),
      inUse: addressesInUse(),
      state,
      nowMs: clock.elapsed(),
      graceMs,
    });
    state = plan.state;
    const released: Ip[] = [];
    for (const own of plan.release) {
      const { address, allocation } = own;
      const isWarmInUse = allocation.purpose === 'Warm' && addressesInUse().has(address.address);
      if (isWarmInUse || liveNow().has(allocation.handle)) {
        state = withoutSuspect(state, lifeOf(own));
        continue;
      }
      released.push(...(await allocator.release(allocation.handle, [address])));
      log.warn(
        { address: address.address, handle: allocation.handle, since: allocation.since },
        'released an address whose pod is gone',
      );
    }
    await giveBlocksBack();
    return released;
  };
}

async function retake(
  { allocator, held, log }: IpamGcOptions,
  missing: readonly { owner: AddressOwner; address: Ip }[],
): Promise<void> {
  for (const { owner, address } of missing) {
    // It may have gone while we were looking. What goes from here on releases what is taken now.
    if (![...(held?.() ?? [])].some((it) => it.owner.handle === owner.handle)) continue;
    const result = await allocator.allocate({ owner, requested: [address], inUse: true });
    if (result.kind === 'allocated')
      log.warn(
        { address, handle: owner.handle },
        'took an address in use that the API did not know to be',
      );
    else
      log.error(
        { address, handle: owner.handle, reason: result.message },
        `an address in use here is not ours by the API; ${owner.purpose === 'Tunnel' ? 'this agent must be started' : 'the pod must be made'} anew`,
      );
  }
}

function withoutSuspect(state: GcState, life: string): GcState {
  return { suspects: new Map([...state.suspects].filter(([key]) => key !== life)) };
}
