/**
 * The expressions of a rule: small instructions over sixteen 32-bit registers and one verdict register.
 *
 * A rule runs its expressions in order; a comparison that fails ends the rule, a verdict ends the chain's evaluation.
 * Registers 0…15 are the kernel's `NFT_REG32_00`…`NFT_REG32_15`. A value longer than 4 bytes takes several registers
 * in a row, and so does a concatenation: each field begins in a register of its own.
 *
 * Most rules are written with the helpers of `match.ts`; these are what the kernel stores and a dump gives back.
 */

/** 0…15. */
export type Register = number;

export type Verdict =
  | { readonly kind: 'accept' | 'drop' | 'continue' | 'return' | 'break' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string };

/** Metadata of a packet by nft's names. `enum nft_meta_keys` */
export const META_KEYS = {
  length: 0,
  protocol: 1,
  priority: 2,
  mark: 3,
  iif: 4,
  oif: 5,
  iifname: 6,
  oifname: 7,
  iiftype: 8,
  oiftype: 9,
  skuid: 10,
  skgid: 11,
  nftrace: 12,
  rtclassid: 13,
  secmark: 14,
  nfproto: 15,
  l4proto: 16,
  ibrname: 17,
  obrname: 18,
  pkttype: 19,
  cpu: 20,
  iifgroup: 21,
  oifgroup: 22,
  cgroup: 23,
  random: 24,
  ipsec: 25,
  iifkind: 26,
  oifkind: 27,
} as const;
export type MetaKey = keyof typeof META_KEYS;

/** What conntrack knows of a packet's connection. `enum nft_ct_keys` */
export const CT_KEYS = {
  state: 0,
  direction: 1,
  status: 2,
  mark: 3,
  secmark: 4,
  expiration: 5,
  helper: 6,
  l3proto: 7,
  protocol: 10,
  'proto-src': 11,
  'proto-dst': 12,
  label: 13,
  packets: 14,
  bytes: 15,
  avgpkt: 16,
  zone: 17,
  event: 18,
  'ip saddr': 19,
  'ip daddr': 20,
  'ip6 saddr': 21,
  'ip6 daddr': 22,
  id: 23,
} as const;
export type CtKey = keyof typeof CT_KEYS;
/** Of a connection: the side that began it, or the answers. */
export type CtDirection = 'original' | 'reply';

/** Bits of `ct state`, `include/uapi/linux/netfilter/nf_conntrack_common.h`. */
export const CT_STATE = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;
/** Bits of `ct status`. */
export const CT_STATUS = {
  expected: 1,
  'seen-reply': 2,
  assured: 4,
  confirmed: 8,
  snat: 16,
  dnat: 32,
  dying: 512,
} as const;

export const PAYLOAD_BASES = { link: 0, network: 1, transport: 2 } as const;
export type PayloadBase = keyof typeof PAYLOAD_BASES;

export const COMPARISONS = { '==': 0, '!=': 1, '<': 2, '<=': 3, '>': 4, '>=': 5 } as const;
export type Comparison = keyof typeof COMPARISONS;

/** `enum nft_reject_inet_code` */
export const ICMPX_CODES = {
  'no-route': 0,
  'port-unreachable': 1,
  'host-unreachable': 2,
  'admin-prohibited': 3,
} as const;
export type IcmpxCode = keyof typeof ICMPX_CODES;

export const LIMIT_UNIT_SECONDS = {
  second: 1,
  minute: 60,
  hour: 3600,
  day: 86_400,
  week: 604_800,
} as const;
export type LimitUnit = keyof typeof LIMIT_UNIT_SECONDS;

/** Address types of `fib … type`: `RTN_…` of `include/uapi/linux/rtnetlink.h`. */
export const FIB_ADDRESS_TYPE = {
  unspec: 0,
  unicast: 1,
  local: 2,
  broadcast: 3,
  anycast: 4,
  multicast: 5,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
} as const;

export interface NatFlags {
  /** Choose the port at random. */
  readonly random?: boolean;
  /** Choose the port at random, without trying the original one first: fewer clashes when many connect at once. */
  readonly fullyRandom?: boolean;
  /** Give a client the same address each time. */
  readonly persistent?: boolean;
}

export type Expression =
  | { readonly kind: 'meta'; readonly key: MetaKey; readonly to: Register }
  | { readonly kind: 'set meta'; readonly key: MetaKey; readonly from: Register }
  | {
      readonly kind: 'payload';
      readonly base: PayloadBase;
      readonly offset: number;
      readonly bytes: number;
      readonly to: Register;
    }
  | {
      readonly kind: 'set payload';
      readonly base: PayloadBase;
      readonly offset: number;
      readonly bytes: number;
      readonly from: Register;
      /** Offset of the Internet checksum to correct, from the same base. */
      readonly checksumOffset?: number;
      /** The field is in the pseudo header, so the transport checksum changes with it. */
      readonly pseudoHeader?: boolean;
    }
  | {
      readonly kind: 'ct';
      readonly key: CtKey;
      readonly direction?: CtDirection;
      readonly to: Register;
    }
  | {
      readonly kind: 'set ct';
      readonly key: CtKey;
      readonly direction?: CtDirection;
      readonly from: Register;
    }
  | {
      readonly kind: 'fib';
      readonly result: 'oif' | 'oifname' | 'type';
      /** What is looked up, and with which restrictions. */
      readonly by: readonly ('saddr' | 'daddr' | 'mark' | 'iif' | 'oif')[];
      /** The result is only whether a route exists. */
      readonly present?: boolean;
      readonly to: Register;
    }
  | {
      readonly kind: 'numgen';
      readonly mode: 'random' | 'inc';
      readonly modulus: number;
      /** Added to the number. Default 0. */
      readonly offset?: number;
      readonly to: Register;
    }
  | {
      readonly kind: 'jhash';
      readonly from: Register;
      readonly bytes: number;
      readonly modulus: number;
      /** Without it the kernel chooses one at random. */
      readonly seed?: number;
      readonly offset?: number;
      readonly to: Register;
    }
  | {
      readonly kind: 'symhash';
      readonly modulus: number;
      readonly offset?: number;
      readonly to: Register;
    }
  | {
      readonly kind: 'socket';
      readonly key: 'transparent' | 'mark' | 'wildcard';
      readonly to: Register;
    }
  | { readonly kind: 'immediate'; readonly data: Uint8Array; readonly to: Register }
  | {
      readonly kind: 'cmp';
      readonly from: Register;
      readonly op: Comparison;
      readonly data: Uint8Array;
    }
  | {
      readonly kind: 'range';
      readonly from: Register;
      readonly op: '==' | '!=';
      readonly low: Uint8Array;
      readonly high: Uint8Array;
    }
  /** `to = (from & mask) ^ xor` */
  | {
      readonly kind: 'bitwise';
      readonly from: Register;
      readonly to: Register;
      readonly mask: Uint8Array;
      readonly xor: Uint8Array;
    }
  | {
      readonly kind: 'shift';
      readonly from: Register;
      readonly to: Register;
      readonly bytes: number;
      readonly direction: 'left' | 'right';
      readonly bits: number;
    }
  | {
      readonly kind: 'byteorder';
      readonly from: Register;
      readonly to: Register;
      readonly op: 'ntoh' | 'hton';
      readonly bytes: number;
      /** Size of each number that is swapped. */
      readonly unit: 2 | 4 | 8;
    }
  /** Ends the rule unless the key is in the set (or, `inverted`, if it is). */
  | {
      readonly kind: 'lookup';
      readonly set: string;
      readonly from: Register;
      readonly inverted?: boolean;
      /** Map: where the data goes; `verdict` carries the verdict out. */
      readonly to?: Register | 'verdict';
    }
  /** Writes to a set or map from the packet path. */
  | {
      readonly kind: 'dynset';
      readonly set: string;
      /** `update` also renews the timeout. */
      readonly op: 'add' | 'update' | 'delete';
      readonly key: Register;
      readonly data?: Register;
      readonly timeoutMs?: number;
      readonly inverted?: boolean;
    }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  | { readonly kind: 'counter'; readonly packets: bigint; readonly bytes: bigint }
  | {
      readonly kind: 'limit';
      readonly rate: number;
      readonly per: LimitUnit;
      readonly burst: number;
      /** What is counted. Default packets. */
      readonly of: 'packets' | 'bytes';
      /** Matches what is over the rate instead of what is within. */
      readonly over?: boolean;
    }
  | {
      readonly kind: 'log';
      readonly prefix?: string;
      /** NFLOG group; without it the packet goes to the kernel's log. */
      readonly group?: number;
      /** Bytes of the packet to copy. */
      readonly snaplen?: number;
      readonly queueThreshold?: number;
      /** syslog level of the kernel's log. */
      readonly level?: number;
      readonly flags?: number;
    }
  | {
      readonly kind: 'reject';
      readonly with: 'tcp reset' | { readonly icmpx: IcmpxCode } | { readonly icmp: number };
    }
  | {
      readonly kind: 'nat';
      readonly type: 'dnat' | 'snat';
      readonly family: 'ip' | 'ip6';
      readonly address?: Register;
      readonly addressMax?: Register;
      readonly port?: Register;
      readonly portMax?: Register;
      readonly flags?: NatFlags;
    }
  | {
      readonly kind: 'masquerade';
      readonly flags?: NatFlags;
      readonly port?: Register;
      readonly portMax?: Register;
    }
  | {
      readonly kind: 'redirect';
      readonly flags?: NatFlags;
      readonly port?: Register;
      readonly portMax?: Register;
    }
  | {
      readonly kind: 'tproxy';
      /** Only in the family `inet` it may be absent: for both. */
      readonly family?: 'ip' | 'ip6';
      readonly address?: Register;
      readonly port?: Register;
    }
  | { readonly kind: 'notrack' }
  /** An expression of another program that we do not know: its name and its attributes as they came. */
  | { readonly kind: 'unknown'; readonly name: string; readonly attributes: Uint8Array };

export const accept: Expression = { kind: 'verdict', verdict: { kind: 'accept' } };
export const drop: Expression = { kind: 'verdict', verdict: { kind: 'drop' } };
/** Goes back to the calling chain; in a base chain the policy decides. */
export const returnToCaller: Expression = { kind: 'verdict', verdict: { kind: 'return' } };
export const notrack: Expression = { kind: 'notrack' };

/** Verdict for {@link SetElement} and rules: evaluate `chain` and come back. */
export const jumpTo = (chain: string): Verdict => ({ kind: 'jump', chain });
/** Evaluate `chain` and do not come back. */
export const goTo = (chain: string): Verdict => ({ kind: 'goto', chain });
export const jump = (chain: string): Expression => ({ kind: 'verdict', verdict: jumpTo(chain) });
export const goto = (chain: string): Expression => ({ kind: 'verdict', verdict: goTo(chain) });

export const counter = (packets = 0n, bytes = 0n): Expression => ({
  kind: 'counter',
  packets,
  bytes,
});

/** `reject with tcp reset`: only for packets that are TCP. */
export const rejectWithReset: Expression = { kind: 'reject', with: 'tcp reset' };
/**
 * `reject with icmpx …`: ICMP or ICMPv6, as the packet needs. Only for the families inet, bridge and netdev: in a table
 * of the family ip or ip6 the kernel takes it, and drops without a word. See {@link rejectUnreachable}.
 */
export const rejectWith = (code: IcmpxCode = 'port-unreachable'): Expression => ({
  kind: 'reject',
  with: { icmpx: code },
});

/** `reject with icmp port-unreachable` or `icmpv6 port-unreachable`, for a table of that family. */
export const rejectUnreachable = (family: 'ip' | 'ip6'): Expression => ({
  kind: 'reject',
  // RFC 792 and RFC 4443 section 3.1 number it differently.
  with: { icmp: family === 'ip' ? 3 : 4 },
});

export const masquerade = (flags?: NatFlags): Expression =>
  flags === undefined ? { kind: 'masquerade' } : { kind: 'masquerade', flags };

/** @param options `address` and `port` are the registers that hold them */
export function dnat(
  family: 'ip' | 'ip6',
  options: { address?: Register; port?: Register; flags?: NatFlags },
): Expression {
  return { kind: 'nat', type: 'dnat', family, ...options };
}
export function snat(
  family: 'ip' | 'ip6',
  options: { address?: Register; port?: Register; flags?: NatFlags },
): Expression {
  return { kind: 'nat', type: 'snat', family, ...options };
}

/** @param options `burst` defaults to nft's 5 */
export function limit(
  rate: number,
  per: LimitUnit,
  options: { burst?: number; over?: boolean } = {},
): Expression {
  const base = { kind: 'limit', rate, per, burst: options.burst ?? 5, of: 'packets' } as const;
  return options.over === true ? { ...base, over: true } : base;
}

/** Sends a copy to the NFLOG group, or without `group` a line to the kernel's log. */
export function log(
  options: { prefix?: string; group?: number; snaplen?: number } = {},
): Expression {
  return { kind: 'log', ...options };
}
