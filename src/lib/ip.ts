/**
 * IP and MAC addresses and prefixes.
 *
 * An address is kept as its canonical text (RFC 5952 for IPv6), because that is what API objects hold
 * and what people read; bytes and big integers are made where a wire format or arithmetic needs them.
 */
import { isIPv4, isIPv6 } from 'node:net';

declare const brand: unique symbol;
/** An IPv4 or IPv6 address in canonical text form. Comes only out of {@link parseIp} and its kin. */
export type Ip = string & { readonly [brand]: 'Ip' };
/** A prefix in canonical form: the host bits are zero. Comes only out of {@link parseCidr} and its kin. */
export type Cidr = string & { readonly [brand]: 'Cidr' };
/** A 48-bit hardware address, lower case, colons. */
export type Mac = string & { readonly [brand]: 'Mac' };
export type Family = 4 | 6;

/**
 * Reads an address.
 * @returns the canonical address, or `undefined` if the text is none (leading zeros, zones and `a.b` forms are refused)
 */
export function parseIp(text: string): Ip | undefined {
  if (isIPv4(text)) return text as Ip;
  if (!isIPv6(text) || text.includes('%')) return undefined;
  return ipFromBytes(ipv6TextToBytes(text));
}

/** Like {@link parseIp}. @throws TypeError for text that is no address: for constants and checked input */
export function ip(text: string): Ip {
  const parsed = parseIp(text);
  if (parsed === undefined) throw new TypeError(`"${text}" is not an IP address`);
  return parsed;
}

export function familyOf(address: Ip | Cidr): Family {
  return address.includes(':') ? 6 : 4;
}

/** Number of bits of an address of the family: 32 or 128. */
export function bitsOf(family: Family): 32 | 128 {
  return family === 4 ? 32 : 128;
}

/** @returns 4 or 16 bytes in network order */
export function ipToBytes(address: Ip): Uint8Array {
  if (familyOf(address) === 6) return ipv6TextToBytes(address);
  const bytes = new Uint8Array(4);
  writeIp(address, bytes, 0);
  return bytes;
}

/** Writes what {@link ipToBytes} returns, for IPv4 without any array of its own. @returns the offset behind it */
export function writeIp(address: Ip, into: Uint8Array, offset: number): number {
  if (familyOf(address) === 6) {
    into.set(ipv6TextToBytes(address), offset);
    return offset + 16;
  }
  let value = 0;
  let at = offset;
  for (let i = 0; i < address.length; i++) {
    const c = address.charCodeAt(i);
    if (c === 46) {
      into[at++] = value;
      value = 0;
    } else value = value * 10 + (c - 48);
  }
  into[at] = value;
  return at + 1;
}

/** @param bytes 4 or 16 bytes in network order */
export function ipFromBytes(bytes: Uint8Array): Ip {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as Ip;
  if (bytes.length !== 16) throw new TypeError(`an address has 4 or 16 bytes, not ${bytes.length}`);
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  // RFC 5952 section 4.2: the longest run of two or more zero groups becomes "::", the first one of equals.
  let start = -1;
  let length = 1;
  for (let i = 0; i < 8; ) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) {
      start = i;
      length = end - i;
    }
    i = Math.max(end, i + 1);
  }
  const hex = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map((g) => g.toString(16))
      .join(':');
  if (start < 0) return hex(0, 8) as Ip;
  return `${hex(0, start)}::${hex(start + length, 8)}` as Ip;
}

export function ipToBigInt(address: Ip): bigint {
  let value = 0n;
  for (const byte of ipToBytes(address)) value = (value << 8n) | BigInt(byte);
  return value;
}

/** @throws RangeError if the value does not fit the family */
export function ipFromBigInt(value: bigint, family: Family): Ip {
  const bits = bitsOf(family);
  if (value < 0n || value >> BigInt(bits) !== 0n)
    throw new RangeError(`${value} is no IPv${family} address`);
  const bytes = new Uint8Array(bits / 8);
  for (let i = bytes.length - 1, rest = value; i >= 0; i--, rest >>= 8n)
    bytes[i] = Number(rest & 0xffn);
  return ipFromBytes(bytes);
}

/**
 * Reads a prefix in canonical form.
 * @returns `undefined` if the text is no prefix, or has host bits set (`10.0.0.1/8`)
 */
export function parseCidr(text: string): Cidr | undefined {
  const parts = splitCidr(text);
  if (parts === undefined) return undefined;
  const network = networkOf(parts.address, parts.prefixLength);
  return network === parts.address ? (`${network}/${parts.prefixLength}` as Cidr) : undefined;
}

/** Like {@link parseCidr}. @throws TypeError for text that is no canonical prefix */
export function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === undefined)
    throw new TypeError(`"${text}" is not a network prefix in canonical form`);
  return parsed;
}

/** Splits `address/length` where host bits may be set, as on an interface (`192.0.2.7/24`). */
export function splitCidr(text: string): { address: Ip; prefixLength: number } | undefined {
  const match = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text);
  if (!match) return undefined;
  const address = parseIp(match[1] ?? '');
  const prefixLength = Number(match[2]);
  if (address === undefined || prefixLength > bitsOf(familyOf(address))) return undefined;
  return { address, prefixLength };
}

/** The prefix of this length that holds the address. */
export function cidrOf(address: Ip, prefixLength: number): Cidr {
  return `${networkOf(address, prefixLength)}/${prefixLength}` as Cidr;
}

/** The prefix of one address: `/32` or `/128`. */
export function hostCidr(address: Ip): Cidr {
  return `${address}/${bitsOf(familyOf(address))}` as Cidr;
}

export function networkAddress(prefix: Cidr): Ip {
  return prefix.slice(0, prefix.indexOf('/')) as Ip;
}

export function prefixLengthOf(prefix: Cidr): number {
  return Number(prefix.slice(prefix.indexOf('/') + 1));
}

/** Number of addresses in the prefix. */
export function cidrSize(prefix: Cidr): bigint {
  return 1n << BigInt(bitsOf(familyOf(prefix)) - prefixLengthOf(prefix));
}

/** The address at this ordinal, 0 being the network address. @throws RangeError outside the prefix */
export function cidrAddress(prefix: Cidr, ordinal: bigint | number): Ip {
  const at = BigInt(ordinal);
  if (at < 0n || at >= cidrSize(prefix))
    throw new RangeError(`${prefix} has no address number ${ordinal}`);
  return ipFromBigInt(ipToBigInt(networkAddress(prefix)) + at, familyOf(prefix));
}

export function cidrContains(prefix: Cidr, address: Ip): boolean {
  if (familyOf(prefix) !== familyOf(address)) return false;
  const shift = BigInt(bitsOf(familyOf(prefix)) - prefixLengthOf(prefix));
  return ipToBigInt(networkAddress(prefix)) >> shift === ipToBigInt(address) >> shift;
}

export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return prefixLengthOf(a) <= prefixLengthOf(b)
    ? cidrContains(a, networkAddress(b))
    : cidrContains(b, networkAddress(a));
}

/** The prefixes that lie in no other of them, each once: what a set of intervals can hold. */
export function outermostCidrs(prefixes: readonly Cidr[]): Cidr[] {
  const byLength = [...new Set(prefixes)].sort((a, b) => prefixLengthOf(a) - prefixLengthOf(b));
  const outer: Cidr[] = [];
  for (const prefix of byLength)
    if (!outer.some((other) => cidrsOverlap(other, prefix))) outer.push(prefix);
  return outer;
}

/** @returns the canonical MAC, or `undefined` */
export function parseMac(text: string): Mac | undefined {
  return /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text) ? (text.toLowerCase() as Mac) : undefined;
}

/** Like {@link parseMac}. @throws TypeError */
export function mac(text: string): Mac {
  const parsed = parseMac(text);
  if (parsed === undefined) throw new TypeError(`"${text}" is not a MAC address`);
  return parsed;
}

export function macToBytes(address: Mac): Uint8Array {
  return Uint8Array.from(address.split(':'), (part) => Number.parseInt(part, 16));
}

export function macFromBytes(bytes: Uint8Array): Mac {
  return Array.from(bytes.subarray(0, 6), (b) => b.toString(16).padStart(2, '0')).join(':') as Mac;
}

function networkOf(address: Ip, prefixLength: number): Ip {
  const bytes = ipToBytes(address);
  for (let i = 0; i < bytes.length; i++) {
    const keep = Math.min(8, Math.max(0, prefixLength - i * 8));
    bytes[i] = (bytes[i] ?? 0) & (0xff << (8 - keep));
  }
  return ipFromBytes(bytes);
}

function ipv6TextToBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const [head = '', tail] = text.split('::');
  const left = groupsOf(head);
  const right = tail === undefined ? [] : groupsOf(tail);
  left.forEach((group, i) => {
    bytes[i * 2] = group >> 8;
    bytes[i * 2 + 1] = group & 0xff;
  });
  right.forEach((group, i) => {
    const at = 16 - (right.length - i) * 2;
    bytes[at] = group >> 8;
    bytes[at + 1] = group & 0xff;
  });
  return bytes;
}

/** The 16-bit groups of a part of an IPv6 address; an embedded IPv4 address gives two. */
function groupsOf(part: string): number[] {
  if (part === '') return [];
  return part.split(':').flatMap((group) => {
    if (!group.includes('.')) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = ipToBytes(group as Ip);
    return [(a << 8) | b, (c << 8) | d];
  });
}

/**
 * The link-local address that the kernel makes of a MAC unless it is told otherwise (`addr_gen_mode` 0).
 * @see RFC 4291 appendix A: the MAC's two halves around `ff:fe`, its universal/local bit inverted
 */
export function linkLocalAddress(mac: Mac): Ip {
  const [first = 0, ...rest] = macToBytes(mac);
  const host = [first ^ 0x02, ...rest.slice(0, 2), 0xff, 0xfe, ...rest.slice(2)];
  return ipFromBytes(Uint8Array.from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...host]));
}
