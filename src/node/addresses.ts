/** How a feature of the agent gets addresses for pods, without knowing how they are managed. */

import type { Cidr, Family, Ip } from '#lib/ip.ts';
import type { IpRange } from '#lib/ip-range.ts';

/** What an address is given for; stands in the block, for people and for the garbage collection. */
export interface AddressOwner {
  /** Unique for the attachment; the same handle asks again for the same addresses. */
  readonly handle: string;
  readonly purpose: 'Pod' | 'Tunnel' | 'Warm';
  readonly containerId?: string;
  readonly ifName?: string;
  readonly namespace?: string;
  readonly pod?: string;
}

export interface AddressRequest {
  readonly owner: AddressOwner;
  /** These addresses and no others; empty for any address of each family that has a pool. */
  readonly requested?: readonly Ip[];
  /**
   * The requested addresses are in use already, and only the API does not know: they are taken whatever the pools say of
   * new ones.
   */
  readonly inUse?: boolean;
  /** Only addresses of these, one of each family that they have; whatever is requested must be in them too. */
  readonly ranges?: readonly IpRange[];
  /** Default: every family for which there is an enabled pool. */
  readonly families?: readonly Family[];
  /**
   * Called once at most, with the addresses while they are being written: the caller may prepare for them, and
   * must not let anybody use them before they are the result. The result may be another, or none.
   */
  readonly onChosen?: (addresses: readonly AllocatedAddress[]) => void;
  readonly signal?: AbortSignal;
}

export interface AllocatedAddress {
  readonly address: Ip;
  readonly family: Family;
  readonly pool: string;
  readonly block: Cidr;
  /** The block's sequence of this allocation: tells it from an earlier or later life of the address. */
  readonly sequence: number;
}

/** How full a pool is, as far as it can be known to one node. */
export interface PoolUsage {
  readonly name: string;
  readonly cidr: Cidr;
  readonly used: bigint;
  readonly total: bigint;
}

export type AddressResult =
  /** One address of each family, IPv4 first. */
  | { readonly kind: 'allocated'; readonly addresses: readonly AllocatedAddress[] }
  | {
      readonly kind: 'exhausted';
      readonly family: Family;
      readonly pools: readonly PoolUsage[];
      /** One sentence for a person, naming pools and numbers. */
      readonly message: string;
    }
  /** A requested address cannot be had. */
  | { readonly kind: 'refused'; readonly address: Ip; readonly message: string };

export interface AddressSource {
  /**
   * All or nothing. Rejects if the API cannot be reached; then it is not known what was written, and the caller
   * releases the handle.
   */
  allocate(request: AddressRequest): Promise<AddressResult>;
  /**
   * Gives back everything that belongs to the handle. Releasing what is gone succeeds.
   * @param addresses if given, only these lives of these addresses
   * @returns what was released
   */
  release(handle: string, addresses?: readonly AllocatedAddress[]): Promise<readonly Ip[]>;
  /** A reason why no address can be given now, or `undefined`. */
  notReady(): string | undefined;
}
