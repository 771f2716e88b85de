/** Ranges of addresses as people write them: a prefix (`192.0.2.0/28`), two ends (`192.0.2.10-192.0.2.20`), or one address. */
import {
  bitsOf,
  type Cidr,
  cidrSize,
  type Family,
  familyOf,
  type Ip,
  ipFromBigInt,
  ipToBigInt,
  networkAddress,
  parseCidr,
  parseIp,
  prefixLengthOf,
} from './ip.ts';

/** Both ends included. */
export interface IpRange {
  readonly family: Family;
  readonly first: bigint;
  readonly last: bigint;
}

/** @returns `undefined` if the text is no range, or its ends are the wrong way round */
export function parseIpRange(text: string): IpRange | undefined {
  const [from = '', to, ...more] = text.split('-').map((part) => part.trim());
  if (more.length > 0) return undefined;
  const prefix = to === undefined ? parseCidr(from) : undefined;
  if (prefix !== undefined) return rangeOf(prefix);
  const [a, b] = [parseIp(from), parseIp(to ?? from)];
  if (a === undefined || b === undefined || familyOf(a) !== familyOf(b)) return undefined;
  const [first, last] = [ipToBigInt(a), ipToBigInt(b)];
  return first <= last ? { family: familyOf(a), first, last } : undefined;
}

/** All addresses of a prefix. */
export function rangeOf(prefix: Cidr): IpRange {
  const first = ipToBigInt(networkAddress(prefix));
  return { family: familyOf(prefix), first, last: first + cidrSize(prefix) - 1n };
}

export function rangeContains(range: IpRange, address: Ip): boolean {
  if (familyOf(address) !== range.family) return false;
  const value = ipToBigInt(address);
  return value >= range.first && value <= range.last;
}

export function rangesOverlap(a: IpRange, b: IpRange): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}

/** How many addresses the range has. */
export function rangeSize({ first, last }: IpRange): bigint {
  return last - first + 1n;
}

/** The addresses from the lowest on. */
export function* addressesIn({ first, last, family }: IpRange): Iterable<Ip> {
  for (let value = first; value <= last; value++) yield ipFromBigInt(value, family);
}

/** `192.0.2.0/28` where the range is a prefix, else `first-last`. */
export function formatIpRange(range: IpRange): string {
  const { family, first, last } = range;
  const size = rangeSize(range);
  const start = ipFromBigInt(first, family);
  if ((size & (size - 1n)) === 0n && first % size === 0n) {
    const prefix = `${start}/${bitsOf(family) - (size.toString(2).length - 1)}`;
    const parsed = parseCidr(prefix);
    if (parsed !== undefined && prefixLengthOf(parsed) < bitsOf(family)) return parsed;
  }
  return size === 1n ? start : `${start}-${ipFromBigInt(last, family)}`;
}
