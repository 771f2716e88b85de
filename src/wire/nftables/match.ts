/**
 * Writes rules so that they read like nft: sources of values, and what is done with them.
 *
 * ```ts
 * // ip daddr . meta l4proto . th dport vmap @frontends
 * verdictMap([ip.daddr, meta.l4proto, th.dport], 'frontends')
 * // ip saddr 10.0.0.0/8 tcp dport != 22 drop
 * [...inPrefix(ip.saddr, cidr('10.0.0.0/8')), ...isTcp, ...compare(th.dport, '!=', portBytes(22)), drop]
 * ```
 * All helpers use register 0 on, which is free again after each: a rule keeps no value from one match to the next
 * unless it names registers itself.
 */
import { type Cidr, ipToBytes, networkAddress, prefixLengthOf } from '#lib/ip.ts';
import type {
  Comparison,
  CtDirection,
  CtKey,
  Expression,
  MetaKey,
  PayloadBase,
  Register,
} from './expressions.ts';
import { META_KEYS } from './expressions.ts';
import { hostU32 } from './values.ts';

/** A value that a packet has: how it is loaded into registers, and its length. */
export interface Source {
  readonly bytes: number;
  readonly load: (to: Register) => Expression;
}

const REGISTER_BYTES = 4;
const REGISTERS = 16;
const IFNAME_BYTES = 16;

/** Part of a header. `bytes` from `offset` after the start of the link, network or transport header. */
export function payload(base: PayloadBase, offset: number, bytes: number): Source {
  return { bytes, load: (to) => ({ kind: 'payload', base, offset, bytes, to }) };
}

function metaSource(key: MetaKey): Source {
  const bytes =
    key === 'iifname' || key === 'oifname'
      ? IFNAME_BYTES
      : key === 'l4proto' || key === 'nfproto' || key === 'pkttype'
        ? 1
        : key === 'protocol' || key === 'iiftype' || key === 'oiftype'
          ? 2
          : REGISTER_BYTES;
  return { bytes, load: (to) => ({ kind: 'meta', key, to }) };
}

/** `meta …` */
export const meta: Readonly<Record<MetaKey, Source>> = Object.fromEntries(
  (Object.keys(META_KEYS) as MetaKey[]).map((key) => [key, metaSource(key)]),
) as Record<MetaKey, Source>;

/** `ip …`, RFC 791 section 3.1 */
export const ip = {
  protocol: payload('network', 9, 1),
  saddr: payload('network', 12, 4),
  daddr: payload('network', 16, 4),
} as const;
/** `ip6 …`, RFC 8200 section 3 */
export const ip6 = {
  nexthdr: payload('network', 6, 1),
  hopLimit: payload('network', 7, 1),
  saddr: payload('network', 8, 16),
  daddr: payload('network', 24, 16),
} as const;
/** `th …`: the ports of TCP, UDP and SCTP stand in the same place. */
export const th = {
  sport: payload('transport', 0, 2),
  dport: payload('transport', 2, 2),
} as const;
/** `icmp …` and `icmpv6 …` */
export const icmp = { type: payload('transport', 0, 1), code: payload('transport', 1, 1) } as const;

/** `ct …`; addresses and ports belong to a direction. */
export function ct(key: CtKey, direction?: CtDirection): Source {
  const bytes =
    key === 'ip6 saddr' || key === 'ip6 daddr' || key === 'label' || key === 'helper'
      ? 16
      : key === 'proto-src' || key === 'proto-dst' || key === 'zone'
        ? 2
        : key === 'direction' || key === 'l3proto' || key === 'protocol'
          ? 1
          : key === 'packets' || key === 'bytes' || key === 'avgpkt'
            ? 8
            : 4;
  return {
    bytes,
    load: (to) => ({ kind: 'ct', key, ...(direction === undefined ? {} : { direction }), to }),
  };
}

/** `fib daddr type`: how the routing table of this machine sees the address. */
export function fibType(...by: ['saddr' | 'daddr', ...('mark' | 'iif' | 'oif')[]]): Source {
  return { bytes: 4, load: (to) => ({ kind: 'fib', result: 'type', by, to }) };
}

/** `numgen random mod N` or `numgen inc mod N`: 0…modulus-1, 4 bytes in host order. */
export function numgen(mode: 'random' | 'inc', modulus: number, offset = 0): Source {
  return {
    bytes: 4,
    load: (to) => ({ kind: 'numgen', mode, modulus, ...(offset === 0 ? {} : { offset }), to }),
  };
}

/**
 * Loads the fields of a concatenation one after another, each padded to a register.
 * @param first register of the first field
 * @returns the expressions, the register where the key begins, and the first one after it
 * @throws RangeError if the key needs more than 16 registers
 */
export function loadConcat(
  sources: readonly Source[],
  first: Register = 0,
): { expressions: Expression[]; register: Register; next: Register } {
  const expressions: Expression[] = [];
  let next = first;
  for (const source of sources) {
    expressions.push(source.load(next));
    next += Math.ceil(source.bytes / REGISTER_BYTES);
  }
  if (next > REGISTERS)
    throw new RangeError(`a key of ${next - first} registers from ${first} exceeds ${REGISTERS}`);
  return { expressions, register: first, next };
}

/** `sources vmap @map` */
export function verdictMap(sources: readonly Source[], map: string): Expression[] {
  const { expressions, register } = loadConcat(sources);
  return [...expressions, { kind: 'lookup', set: map, from: register, to: 'verdict' }];
}

/** `… sources map @map`: the data replaces the key, from register `to` on. */
export function mapTo(sources: readonly Source[], map: string, to: Register = 0): Expression[] {
  const { expressions, register } = loadConcat(sources);
  return [...expressions, { kind: 'lookup', set: map, from: register, to }];
}

/** `sources @set` */
export function inSet(sources: readonly Source[], set: string): Expression[] {
  const { expressions, register } = loadConcat(sources);
  return [...expressions, { kind: 'lookup', set, from: register }];
}
/** `sources != @set` */
export function notInSet(sources: readonly Source[], set: string): Expression[] {
  const { expressions, register } = loadConcat(sources);
  return [...expressions, { kind: 'lookup', set, from: register, inverted: true }];
}

/** `source op value` @param value as many bytes as the source has, in its byte order */
export function compare(source: Source, op: Comparison, value: Uint8Array): Expression[] {
  return [source.load(0), { kind: 'cmp', from: 0, op, data: value }];
}
export const equals = (source: Source, value: Uint8Array): Expression[] =>
  compare(source, '==', value);

/** `source low-high`, both included */
export function between(source: Source, low: Uint8Array, high: Uint8Array): Expression[] {
  return [
    source.load(0),
    { kind: 'cmp', from: 0, op: '>=', data: low },
    { kind: 'cmp', from: 0, op: '<=', data: high },
  ];
}

/** `source low-high`, less the gaps: `source != low-high` for each. */
export function betweenExcept(
  source: Source,
  low: Uint8Array,
  high: Uint8Array,
  gaps: readonly { readonly low: Uint8Array; readonly high: Uint8Array }[],
): Expression[] {
  return [
    ...between(source, low, high),
    ...gaps.map((gap): Expression => ({ kind: 'range', from: 0, op: '!=', ...gap })),
  ];
}

/** `source prefix` or `source != prefix`. A prefix of length 0 matches all: no expression. */
export function inPrefix(source: Source, prefix: Cidr, op: '==' | '!=' = '=='): Expression[] {
  const length = prefixLengthOf(prefix);
  const network = ipToBytes(networkAddress(prefix));
  if (length === network.length * 8) return compare(source, op, network);
  if (length === 0 && op === '==') return [];
  const mask = new Uint8Array(network.length);
  for (let i = 0; i < mask.length; i++)
    mask[i] = 0xff << (8 - Math.min(8, Math.max(0, length - i * 8)));
  return [
    source.load(0),
    { kind: 'bitwise', from: 0, to: 0, mask, xor: new Uint8Array(mask.length) },
    { kind: 'cmp', from: 0, op, data: network },
  ];
}

/** `source & mask == value` for 32-bit values in host order: marks, `ct state`, `ct status`. */
export function masked(source: Source, mask: number, op: '==' | '!=', value: number): Expression[] {
  return [
    source.load(0),
    { kind: 'bitwise', from: 0, to: 0, mask: hostU32(mask), xor: hostU32(0) },
    { kind: 'cmp', from: 0, op, data: hostU32(value) },
  ];
}
/** True if any of these bits is set: `ct state new,established`, `ct status dnat`. */
export const anyBit = (source: Source, bits: number): Expression[] => masked(source, bits, '!=', 0);

/** `meta mark set meta mark & ~mask | value`: changes only the bits of `mask`. */
export function setMark(mask: number, value: number): Expression[] {
  return [...maskedLoad({ kind: 'meta', key: 'mark', to: 0 }, mask, value), setMeta('mark', 0)];
}
/** `ct mark set ct mark & ~mask | value` */
export function setCtMark(mask: number, value: number): Expression[] {
  return [
    ...maskedLoad({ kind: 'ct', key: 'mark', to: 0 }, mask, value),
    { kind: 'set ct', key: 'mark', from: 0 },
  ];
}
const setMeta = (key: MetaKey, from: Register): Expression => ({ kind: 'set meta', key, from });

function maskedLoad(load: Expression, mask: number, value: number): Expression[] {
  // A full mask needs no old value.
  if (mask >>> 0 === 0xffffffff) return [{ kind: 'immediate', data: hostU32(value), to: 0 }];
  return [
    load,
    { kind: 'bitwise', from: 0, to: 0, mask: hostU32(~mask), xor: hostU32(value & mask) },
  ];
}

/** Adds the key to a set with the flag `dynamic`, or renews it: `update @set { sources timeout … }`. */
export function updateSet(
  sources: readonly Source[],
  set: string,
  options: { timeoutMs?: number; op?: 'add' | 'update' } = {},
): Expression[] {
  const { expressions, register } = loadConcat(sources);
  return [
    ...expressions,
    {
      kind: 'dynset',
      set,
      op: options.op ?? 'update',
      key: register,
      ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    },
  ];
}

export const IPPROTO = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, sctp: 132 } as const;
/** `meta l4proto tcp` */
export const isTcp: readonly Expression[] = equals(meta.l4proto, Uint8Array.of(IPPROTO.tcp));
/** `meta l4proto udp` */
export const isUdp: readonly Expression[] = equals(meta.l4proto, Uint8Array.of(IPPROTO.udp));
/** `meta l4proto tcp tcp flags & syn == 0`: a packet of a connection that there is, RFC 9293 section 3.1 */
export const isTcpWithoutSyn: readonly Expression[] = [
  ...isTcp,
  payload('transport', 13, 1).load(0),
  { kind: 'bitwise', from: 0, to: 0, mask: Uint8Array.of(2), xor: Uint8Array.of(0) },
  { kind: 'cmp', from: 0, op: '==', data: Uint8Array.of(0) },
];
