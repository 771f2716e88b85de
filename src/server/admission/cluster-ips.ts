/**
 * Addresses of services: a record in the store per address in use, written in the same transaction as the service that
 * uses it. The record is what makes two services never share one.
 *
 * Like kubernetes (KEP-3070), random choice keeps away from the low end of the range as long as it can, so that a person
 * who asks for `10.96.0.42` finds it free.
 */
import {
  type Cidr,
  cidrAddress,
  cidrContains,
  cidrSize,
  familyOf,
  type Ip,
  ipToBigInt,
  networkAddress,
} from '#lib/ip.ts';
import type { StoreReader } from '#store/port.ts';
import { CLUSTER_IP_PREFIX } from '../registry/keys.ts';

/** Random probes before the whole range is looked through: in a range that is half full, 1 in 65,000 tries gets there. */
const MAX_PROBES = 16;
/** Bounds of the low end that is kept for requested addresses, and its share of the range. */
const MIN_RESERVED = 16n;
const MAX_RESERVED = 256n;
const RESERVED_SHARE = 16n;
/** Addresses looked at in a range before it counts as full: a /96 of IPv6 must not become a walk over four billion. */
const MAX_SCAN = 1n << 20n;

/** What a record says. */
export interface ClusterIpOwner {
  readonly namespace: string;
  readonly name: string;
}

export type ClusterIpChoice =
  | { readonly kind: 'chosen'; readonly ip: Ip }
  | { readonly kind: 'exhausted'; readonly cidr: Cidr; readonly used: number };

export function clusterIpKey(ip: Ip): string {
  return CLUSTER_IP_PREFIX + ip;
}

/** The ordinals of a range that may be given out: not the network address, nor IPv4's broadcast address. */
export function usableOrdinals(cidr: Cidr): { first: bigint; last: bigint } {
  const size = cidrSize(cidr);
  if (size <= 2n) return { first: 0n, last: size - 1n };
  return { first: 1n, last: size - (familyOf(cidr) === 4 ? 2n : 1n) };
}

export function isUsable(cidr: Cidr, ip: Ip): boolean {
  if (!cidrContains(cidr, ip)) return false;
  const ordinal = ipToBigInt(ip) - ipToBigInt(networkAddress(cidr));
  const { first, last } = usableOrdinals(cidr);
  return ordinal >= first && ordinal <= last;
}

/** The first ordinal of the upper band, from which addresses are chosen first. */
export function upperBandStart(cidr: Cidr): bigint {
  const size = cidrSize(cidr);
  const { first, last } = usableOrdinals(cidr);
  // Kubernetes: no band in ranges of 16 and less, else min(max(16, size / 16), 256).
  if (size <= MIN_RESERVED) return first;
  const share = size / RESERVED_SHARE;
  const reserved =
    share < MIN_RESERVED ? MIN_RESERVED : share > MAX_RESERVED ? MAX_RESERVED : share;
  return reserved < last ? reserved : first;
}

/**
 * Chooses a free address at random: out of the upper band, and when that is full out of the lower.
 * The choice holds only if the transaction that writes its record finds no record there.
 * @param random a number in [0, 1)
 */
export async function chooseClusterIp(
  store: StoreReader,
  cidr: Cidr,
  random: () => number,
): Promise<ClusterIpChoice> {
  const { first, last } = usableOrdinals(cidr);
  const upper = upperBandStart(cidr);
  for (let probe = 0; probe < MAX_PROBES; probe++) {
    const ip = cidrAddress(cidr, randomOrdinal(upper, last, random));
    if ((await store.get(clusterIpKey(ip))) === undefined) return { kind: 'chosen', ip };
  }
  const used = await usedAddresses(store, cidr);
  const ip =
    firstFree(cidr, used, { first: upper, last, random }) ??
    (upper > first ? firstFree(cidr, used, { first, last: upper - 1n, random }) : undefined);
  return ip === undefined ? { kind: 'exhausted', cidr, used: used.size } : { kind: 'chosen', ip };
}

async function usedAddresses(store: StoreReader, cidr: Cidr): Promise<Set<string>> {
  const { entries } = await store.list(CLUSTER_IP_PREFIX);
  const used = new Set<string>();
  for (const { key } of entries) {
    const ip = key.slice(CLUSTER_IP_PREFIX.length) as Ip;
    if (cidrContains(cidr, ip)) used.add(ip);
  }
  return used;
}

/** Looks from a random place on, around the end of the band, for an address that is not used. */
function firstFree(
  cidr: Cidr,
  used: ReadonlySet<string>,
  band: { first: bigint; last: bigint; random: () => number },
): Ip | undefined {
  const size = band.last - band.first + 1n;
  const start = randomOrdinal(band.first, band.last, band.random) - band.first;
  const steps = size < MAX_SCAN ? size : MAX_SCAN;
  for (let step = 0n; step < steps; step++) {
    const ip = cidrAddress(cidr, band.first + ((start + step) % size));
    if (!used.has(ip)) return ip;
  }
  return undefined;
}

function randomOrdinal(first: bigint, last: bigint, random: () => number): bigint {
  const size = last - first + 1n;
  // 2^53 is as far as a number is exact; a wider range is chosen from in its first part.
  const reach = size > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(size);
  return first + BigInt(Math.floor(random() * reach));
}
