/**
 * Bytes of keys, data and comparisons.
 *
 * Addresses, ports and protocols are in network order; marks, interface indexes and generated numbers in host order.
 */
import type { Cidr, Ip } from '#lib/ip.ts';
import { familyOf, ipToBytes, networkAddress, prefixLengthOf } from '#lib/ip.ts';
import type { SetElement } from './objects.ts';

/** The family of the tables that an address is in. */
export function tableFamilyOf(address: Ip | Cidr): 'ip' | 'ip6' {
  return familyOf(address) === 4 ? 'ip' : 'ip6';
}

/** Longest interface name with its terminating zero byte (IFNAMSIZ). */
const IFNAME_BYTES = 16;

/** A 32-bit number in host order: marks, interface indexes, slots of `numgen`. */
export function hostU32(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
}
/** A port in network order. */
export function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >>> 8, port);
}
export function protocolBytes(protocol: number): Uint8Array {
  return Uint8Array.of(protocol);
}
/**
 * An interface name as `meta iifname` gives it.
 * @throws RangeError if the name has more than 15 bytes
 */
export function ifnameBytes(name: string): Uint8Array {
  const bytes = new Uint8Array(IFNAME_BYTES);
  const { read } = new TextEncoder().encodeInto(name, bytes.subarray(0, IFNAME_BYTES - 1));
  if (read !== name.length) throw new RangeError(`interface name "${name}" is too long`);
  return bytes;
}

/**
 * The key of a concatenation: each field followed by zeros up to a multiple of 4 bytes.
 * A key of one field alone is that field without padding.
 */
export function concat(fields: readonly Uint8Array[]): Uint8Array {
  const [only] = fields;
  if (fields.length === 1 && only !== undefined) return only;
  const bytes = new Uint8Array(fields.reduce((sum, f) => sum + ((f.length + 3) & ~3), 0));
  let at = 0;
  for (const field of fields) {
    bytes.set(field, at);
    at += (field.length + 3) & ~3;
  }
  return bytes;
}

/** What an element carries beside its key. */
type ElementValue = Omit<SetElement, 'key' | 'keyEnd' | 'intervalEnd' | 'catchAll'>;

/**
 * The elements that make one interval of a plain (not concatenated) interval set: its start, and the first value
 * after it. An interval up to the highest value has no end element.
 * @param first first value of the interval, in network order
 * @param last last value, included
 */
export function intervalElements(
  first: Uint8Array,
  last: Uint8Array,
  value: ElementValue = {},
): SetElement[] {
  const start: SetElement = { ...value, key: first };
  const after = increment(last);
  return after === undefined ? [start] : [start, { key: after, intervalEnd: true }];
}

/** The interval of a prefix; see {@link intervalElements}. */
export function prefixElements(prefix: Cidr, value: ElementValue = {}): SetElement[] {
  const { first, last } = prefixBounds(prefix);
  return intervalElements(first, last, value);
}

/** First and last address of a prefix: `key` and `keyEnd` of a field in a concatenation of intervals. */
export function prefixBounds(prefix: Cidr): { first: Uint8Array; last: Uint8Array } {
  const first = ipToBytes(networkAddress(prefix));
  const last = Uint8Array.from(first);
  const length = prefixLengthOf(prefix);
  for (let i = 0; i < last.length; i++)
    last[i] = (last[i] ?? 0) | (0xff >> Math.min(8, Math.max(0, length - i * 8)));
  return { first, last };
}

/** `concat([address, protocol, port])`, without the intermediate arrays: the key of the service maps. */
export function addressProtocolPort(address: Ip, protocol: number, port: number): Uint8Array {
  const bytes = ipToBytes(address);
  const key = new Uint8Array(bytes.length + 8);
  key.set(bytes);
  key[bytes.length] = protocol;
  key[bytes.length + 4] = port >>> 8;
  key[bytes.length + 5] = port;
  return key;
}

/** @returns the next value, or undefined after the highest */
function increment(value: Uint8Array): Uint8Array | undefined {
  const next = Uint8Array.from(value);
  for (let i = next.length - 1; i >= 0; i--) {
    const byte = ((next[i] ?? 0) + 1) & 0xff;
    next[i] = byte;
    if (byte !== 0) return next;
  }
  return undefined;
}
