/** Puts the allocator of addresses together with those who use them: the fabric's tunnel, and the pods. */
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { UserError } from '#lib/errors.ts';
import { type Family, familyOf, type Ip, parseCidr } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import type { Attachment } from './attachment.ts';
import type { Cni } from './cni/cni.ts';
import { type Allocator, tunnelHandle } from './ipam/allocator.ts';
import { createIpamGc, type HeldAddresses } from './ipam/gc.ts';
import { findOverlap, hostPrefixes } from './ipam/overlap.ts';

const GC_INTERVAL_MS = 30_000;

/** A pool that covers addresses the machine uses otherwise would cut it off from them. @throws UserError */
export function refuseOverlap(stack: NetworkStack, pools: readonly IPPool[]): void {
  const overlaps = findOverlap(
    pools.flatMap((pool) => {
      const prefix = parseCidr(pool.spec.cidr);
      return prefix === undefined ? [] : [{ name: pool.metadata.name, cidr: prefix }];
    }),
    hostPrefixes({
      links: stack.links.list(),
      addresses: stack.addresses.list(),
      routes: stack.routes.list(),
    }),
  );
  if (overlaps.length > 0)
    throw new UserError(
      `The pod network collides with this machine's: ${overlaps.map((o) => o.message).join('; ')}`,
    );
}

/** One for each family that has an enabled pool. @throws Error if the pools are exhausted */
export async function allocateTunnelAddresses(
  allocator: Allocator,
  pools: readonly IPPool[],
): Promise<Ip[]> {
  const prefixes = pools
    .filter((pool) => pool.spec.disabled !== true)
    .flatMap((pool) => parseCidr(pool.spec.cidr) ?? []);
  const families = [...new Set<Family>(prefixes.map(familyOf))].sort();
  const addresses: Ip[] = [];
  for (const family of families) {
    const result = await allocator.tunnelAddress(family);
    if (result.kind !== 'allocated') throw new Error(result.message);
    addresses.push(...result.addresses.map((it) => it.address));
  }
  return addresses;
}

/** Gives back, from time to time, what nobody on this node holds any more. */
export function startAddressGc(parts: {
  readonly node: string;
  readonly allocator: Allocator;
  readonly cni: Pick<Cni, 'handles' | 'list'>;
  /** The node's own on the fabric, which it keeps while it runs. */
  readonly tunnelAddresses: readonly Ip[];
  readonly log: Logger;
}): AsyncDisposable {
  const { node, allocator, cni, tunnelAddresses, log } = parts;
  const ofTunnel: HeldAddresses = {
    owner: { handle: tunnelHandle(node), purpose: 'Tunnel' },
    addresses: tunnelAddresses,
  };
  const collect = createIpamGc({
    node,
    allocator,
    liveHandles: () => cni.handles(),
    held: () => [ofTunnel, ...cni.list().map(heldBy)],
    log,
  });
  const collectAndTend = async () => {
    await collect();
    await allocator.tendWarm();
  };
  const loop = new SyncLoop(collectAndTend, {
    name: 'address garbage collection',
    log,
    resyncMs: GC_INTERVAL_MS,
  });
  loop.trigger();
  return loop;
}

function heldBy({ handle, containerId, ifName, pod, addresses }: Attachment): HeldAddresses {
  const { namespace, name } = pod;
  return {
    owner: { handle, purpose: 'Pod', containerId, ifName, namespace, pod: name },
    addresses: addresses.map((it) => it.address),
  };
}
