/**
 * Decodes the expressions of a rule; see `expression-encoder.ts` for the layout.
 *
 * The kernel gives back more than was sent (defaults, implied flags, the end of a range equal to its start).
 * What says nothing is left out, so that a rule read back equals the rule that was written.
 */
import { readAttributeList } from '#wire/netlink/reader.ts';
import { AttributeReader } from './attributes.ts';
import { NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM } from './constants.ts';
import {
  dataRegister,
  decodeData,
  decodeRegister,
  decodeValue,
  optionalRegister,
} from './data-codec.ts';
import * as A from './expression-attributes.ts';
import type { Expression, NatFlags } from './expressions.ts';
import {
  COMPARISONS,
  CT_KEYS,
  ICMPX_CODES,
  LIMIT_UNIT_SECONDS,
  META_KEYS,
  PAYLOAD_BASES,
} from './expressions.ts';
import { familyOfNumber } from './families.ts';

/** @returns undefined if the expression uses something that we have no name for */
type Decoder = (reader: AttributeReader) => Expression | undefined;

/**
 * @param bytes content of the list attribute
 * @throws DecodeError if an expression that we know lacks an attribute that it must have
 */
export function decodeExpressions(bytes: Buffer): Expression[] {
  const expressions: Expression[] = [];
  for (const { type, value } of readAttributeList(bytes))
    if (type === NFTA_LIST_ELEM) expressions.push(decodeExpression(value));
  return expressions;
}

function decodeExpression(bytes: Buffer): Expression {
  const item = new AttributeReader('expression', bytes);
  const name = item.requiredString(NFTA_EXPR_NAME, 'name');
  const data = item.bytes(NFTA_EXPR_DATA) ?? Buffer.alloc(0);
  const decode = DECODERS.get(name);
  return (
    decode?.(new AttributeReader(name, data)) ?? {
      kind: 'unknown',
      name,
      attributes: Uint8Array.from(data),
    }
  );
}

const DECODERS: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ['meta', decodeMeta],
  ['payload', decodePayload],
  ['ct', decodeCt],
  ['fib', decodeFib],
  ['numgen', decodeNumgen],
  ['hash', decodeHash],
  ['socket', decodeSocket],
  ['immediate', decodeImmediate],
  ['cmp', decodeCmp],
  ['range', decodeRange],
  ['bitwise', decodeBitwise],
  ['byteorder', decodeByteorder],
  ['lookup', decodeLookup],
  ['dynset', decodeDynset],
  ['counter', decodeCounter],
  ['limit', decodeLimit],
  ['log', decodeLog],
  ['reject', decodeReject],
  ['nat', decodeNat],
  ['masq', decodeMasquerade],
  ['redir', decodeRedirect],
  ['tproxy', decodeTproxy],
  ['notrack', () => ({ kind: 'notrack' })],
]);

function decodeMeta(r: AttributeReader): Expression | undefined {
  const key = nameOf(META_KEYS, r.requiredU32(A.NFTA_META_KEY, 'key'));
  if (key === undefined) return undefined;
  const from = optionalRegister(r, A.NFTA_META_SREG);
  if (from !== undefined) return { kind: 'set meta', key, from };
  return { kind: 'meta', key, to: dataRegister(r, A.NFTA_META_DREG) };
}

function decodePayload(r: AttributeReader): Expression | undefined {
  const base = nameOf(PAYLOAD_BASES, r.requiredU32(A.NFTA_PAYLOAD_BASE, 'base'));
  if (base === undefined) return undefined;
  const offset = r.requiredU32(A.NFTA_PAYLOAD_OFFSET, 'offset');
  const bytes = r.requiredU32(A.NFTA_PAYLOAD_LEN, 'length');
  const from = optionalRegister(r, A.NFTA_PAYLOAD_SREG);
  if (from === undefined)
    return { kind: 'payload', base, offset, bytes, to: dataRegister(r, A.NFTA_PAYLOAD_DREG) };
  const type = r.u32(A.NFTA_PAYLOAD_CSUM_TYPE) ?? 0;
  if (type !== 0 && type !== A.NFT_PAYLOAD_CSUM_INET) return undefined;
  const flags = r.u32(A.NFTA_PAYLOAD_CSUM_FLAGS) ?? 0;
  return {
    kind: 'set payload',
    base,
    offset,
    bytes,
    from,
    ...optional('checksumOffset', type === 0 ? undefined : r.u32(A.NFTA_PAYLOAD_CSUM_OFFSET)),
    ...((flags & A.NFT_PAYLOAD_L4CSUM_PSEUDOHDR) === 0 ? {} : { pseudoHeader: true }),
  };
}

function decodeCt(r: AttributeReader): Expression | undefined {
  const key = nameOf(CT_KEYS, r.requiredU32(A.NFTA_CT_KEY, 'key'));
  if (key === undefined) return undefined;
  const number = r.u8(A.NFTA_CT_DIRECTION);
  const direction = optional(
    'direction',
    number === undefined ? undefined : number === 0 ? ('original' as const) : ('reply' as const),
  );
  const from = optionalRegister(r, A.NFTA_CT_SREG);
  if (from !== undefined) return { kind: 'set ct', key, ...direction, from };
  return { kind: 'ct', key, ...direction, to: dataRegister(r, A.NFTA_CT_DREG) };
}

function decodeFib(r: AttributeReader): Expression | undefined {
  const result = nameOf(A.FIB_RESULTS, r.requiredU32(A.NFTA_FIB_RESULT, 'result'));
  const flags = r.u32(A.NFTA_FIB_FLAGS) ?? 0;
  if (result === undefined) return undefined;
  const names = Object.keys(A.FIB_FLAGS) as (keyof typeof A.FIB_FLAGS)[];
  return {
    kind: 'fib',
    result,
    by: names.filter((name) => (flags & A.FIB_FLAGS[name]) !== 0),
    ...((flags & A.NFTA_FIB_F_PRESENT) === 0 ? {} : { present: true }),
    to: dataRegister(r, A.NFTA_FIB_DREG),
  };
}

function decodeNumgen(r: AttributeReader): Expression {
  return {
    kind: 'numgen',
    mode: r.requiredU32(A.NFTA_NG_TYPE, 'type') === A.NFT_NG_RANDOM ? 'random' : 'inc',
    modulus: r.requiredU32(A.NFTA_NG_MODULUS, 'modulus'),
    ...nonZero('offset', r.u32(A.NFTA_NG_OFFSET)),
    to: dataRegister(r, A.NFTA_NG_DREG),
  };
}

function decodeHash(r: AttributeReader): Expression {
  const common = {
    modulus: r.requiredU32(A.NFTA_HASH_MODULUS, 'modulus'),
    ...nonZero('offset', r.u32(A.NFTA_HASH_OFFSET)),
    to: dataRegister(r, A.NFTA_HASH_DREG),
  };
  if (r.u32(A.NFTA_HASH_TYPE) === A.NFT_HASH_SYM) return { kind: 'symhash', ...common };
  return {
    kind: 'jhash',
    from: dataRegister(r, A.NFTA_HASH_SREG),
    bytes: r.requiredU32(A.NFTA_HASH_LEN, 'length'),
    ...optional('seed', r.u32(A.NFTA_HASH_SEED)),
    ...common,
  };
}

function decodeSocket(r: AttributeReader): Expression | undefined {
  const key = nameOf(A.SOCKET_KEYS, r.requiredU32(A.NFTA_SOCKET_KEY, 'key'));
  if (key === undefined) return undefined;
  return { kind: 'socket', key, to: dataRegister(r, A.NFTA_SOCKET_DREG) };
}

function decodeImmediate(r: AttributeReader): Expression {
  const data = decodeData(r, A.NFTA_IMMEDIATE_DATA);
  if ('verdict' in data) return { kind: 'verdict', verdict: data.verdict };
  return { kind: 'immediate', data: data.value, to: dataRegister(r, A.NFTA_IMMEDIATE_DREG) };
}

function decodeCmp(r: AttributeReader): Expression | undefined {
  const op = nameOf(COMPARISONS, r.requiredU32(A.NFTA_CMP_OP, 'operation'));
  if (op === undefined) return undefined;
  const from = dataRegister(r, A.NFTA_CMP_SREG);
  return { kind: 'cmp', from, op, data: decodeValue(r, A.NFTA_CMP_DATA) };
}

function decodeRange(r: AttributeReader): Expression {
  return {
    kind: 'range',
    from: dataRegister(r, A.NFTA_RANGE_SREG),
    op: r.requiredU32(A.NFTA_RANGE_OP, 'operation') === 0 ? '==' : '!=',
    low: decodeValue(r, A.NFTA_RANGE_FROM_DATA),
    high: decodeValue(r, A.NFTA_RANGE_TO_DATA),
  };
}

function decodeBitwise(r: AttributeReader): Expression | undefined {
  const op = r.u32(A.NFTA_BITWISE_OP) ?? A.NFT_BITWISE_MASK_XOR;
  const from = dataRegister(r, A.NFTA_BITWISE_SREG);
  const to = dataRegister(r, A.NFTA_BITWISE_DREG);
  if (op === A.NFT_BITWISE_MASK_XOR)
    return {
      kind: 'bitwise',
      from,
      to,
      mask: decodeValue(r, A.NFTA_BITWISE_MASK),
      xor: decodeValue(r, A.NFTA_BITWISE_XOR),
    };
  if (op !== A.NFT_BITWISE_LSHIFT && op !== A.NFT_BITWISE_RSHIFT) return undefined;
  const bits = decodeValue(r, A.NFTA_BITWISE_DATA);
  if (bits.length !== 4) throw r.error('shift', `${bits.length} bytes are not 4`);
  return {
    kind: 'shift',
    from,
    to,
    bytes: r.requiredU32(A.NFTA_BITWISE_LEN, 'length'),
    direction: op === A.NFT_BITWISE_LSHIFT ? 'left' : 'right',
    bits: Buffer.from(bits).readUInt32LE(0),
  };
}

function decodeByteorder(r: AttributeReader): Expression | undefined {
  const unit = r.requiredU32(A.NFTA_BYTEORDER_SIZE, 'size');
  if (unit !== 2 && unit !== 4 && unit !== 8) return undefined;
  return {
    kind: 'byteorder',
    from: dataRegister(r, A.NFTA_BYTEORDER_SREG),
    to: dataRegister(r, A.NFTA_BYTEORDER_DREG),
    op: r.requiredU32(A.NFTA_BYTEORDER_OP, 'operation') === 0 ? 'ntoh' : 'hton',
    bytes: r.requiredU32(A.NFTA_BYTEORDER_LEN, 'length'),
    unit,
  };
}

function decodeLookup(r: AttributeReader): Expression {
  const flags = r.u32(A.NFTA_LOOKUP_FLAGS) ?? 0;
  return {
    kind: 'lookup',
    set: r.requiredString(A.NFTA_LOOKUP_SET, 'set'),
    from: dataRegister(r, A.NFTA_LOOKUP_SREG),
    ...((flags & A.NFT_LOOKUP_F_INV) === 0 ? {} : { inverted: true }),
    ...optional('to', decodeRegister(r, A.NFTA_LOOKUP_DREG)),
  };
}

function decodeDynset(r: AttributeReader): Expression | undefined {
  const op = nameOf(A.DYNSET_OPS, r.requiredU32(A.NFTA_DYNSET_OP, 'operation'));
  // With expressions inside (a counter for each element) it is another program's.
  const inner = r.bytes(A.NFTA_DYNSET_EXPR) ?? r.bytes(A.NFTA_DYNSET_EXPRESSIONS);
  if (op === undefined || inner !== undefined) return undefined;
  const flags = r.u32(A.NFTA_DYNSET_FLAGS) ?? 0;
  return {
    kind: 'dynset',
    set: r.requiredString(A.NFTA_DYNSET_SET_NAME, 'set'),
    op,
    key: dataRegister(r, A.NFTA_DYNSET_SREG_KEY),
    ...optional('data', optionalRegister(r, A.NFTA_DYNSET_SREG_DATA)),
    ...nonZero('timeoutMs', r.number(A.NFTA_DYNSET_TIMEOUT)),
    ...((flags & A.NFT_DYNSET_F_INV) === 0 ? {} : { inverted: true }),
  };
}

function decodeCounter(r: AttributeReader): Expression {
  return {
    kind: 'counter',
    packets: r.u64(A.NFTA_COUNTER_PACKETS) ?? 0n,
    bytes: r.u64(A.NFTA_COUNTER_BYTES) ?? 0n,
  };
}

function decodeLimit(r: AttributeReader): Expression | undefined {
  const seconds = r.required(r.number(A.NFTA_LIMIT_UNIT), 'unit');
  const per = nameOf(LIMIT_UNIT_SECONDS, seconds);
  if (per === undefined) return undefined;
  const flags = r.u32(A.NFTA_LIMIT_FLAGS) ?? 0;
  return {
    kind: 'limit',
    rate: r.required(r.number(A.NFTA_LIMIT_RATE), 'rate'),
    per,
    burst: r.u32(A.NFTA_LIMIT_BURST) ?? 0,
    of: (r.u32(A.NFTA_LIMIT_TYPE) ?? 0) === 0 ? 'packets' : 'bytes',
    ...((flags & A.NFT_LIMIT_F_INV) === 0 ? {} : { over: true }),
  };
}

function decodeLog(r: AttributeReader): Expression {
  const level = r.u32(A.NFTA_LOG_LEVEL);
  return {
    kind: 'log',
    ...optional('prefix', r.string(A.NFTA_LOG_PREFIX)),
    ...optional('group', r.u16(A.NFTA_LOG_GROUP)),
    ...optional('snaplen', r.u32(A.NFTA_LOG_SNAPLEN)),
    ...nonZero('queueThreshold', r.u16(A.NFTA_LOG_QTHRESHOLD)),
    ...optional('level', level === A.NFT_LOGLEVEL_WARNING ? undefined : level),
    ...nonZero('flags', r.u32(A.NFTA_LOG_FLAGS)),
  };
}

function decodeReject(r: AttributeReader): Expression | undefined {
  const type = r.requiredU32(A.NFTA_REJECT_TYPE, 'type');
  if (type === A.NFT_REJECT_TCP_RST) return { kind: 'reject', with: 'tcp reset' };
  const code = r.required(r.u8(A.NFTA_REJECT_ICMP_CODE), 'code');
  if (type === A.NFT_REJECT_ICMP_UNREACH) return { kind: 'reject', with: { icmp: code } };
  const icmpx = nameOf(ICMPX_CODES, code);
  return icmpx === undefined ? undefined : { kind: 'reject', with: { icmpx } };
}

function decodeNat(r: AttributeReader): Expression | undefined {
  const family = familyOfNumber(r.requiredU32(A.NFTA_NAT_FAMILY, 'family'));
  if (family !== 'ip' && family !== 'ip6') return undefined;
  return {
    kind: 'nat',
    type: r.requiredU32(A.NFTA_NAT_TYPE, 'type') === A.NFT_NAT_SNAT ? 'snat' : 'dnat',
    family,
    ...registerRange(r, 'address', A.NFTA_NAT_REG_ADDR_MIN, A.NFTA_NAT_REG_ADDR_MAX),
    ...registerRange(r, 'port', A.NFTA_NAT_REG_PROTO_MIN, A.NFTA_NAT_REG_PROTO_MAX),
    ...decodeNatFlags(r.u32(A.NFTA_NAT_FLAGS)),
  };
}

function decodeMasquerade(r: AttributeReader): Expression {
  return {
    kind: 'masquerade',
    ...decodeNatFlags(r.u32(A.NFTA_MASQ_FLAGS)),
    ...registerRange(r, 'port', A.NFTA_MASQ_REG_PROTO_MIN, A.NFTA_MASQ_REG_PROTO_MAX),
  };
}

function decodeRedirect(r: AttributeReader): Expression {
  return {
    kind: 'redirect',
    ...registerRange(r, 'port', A.NFTA_REDIR_REG_PROTO_MIN, A.NFTA_REDIR_REG_PROTO_MAX),
    ...decodeNatFlags(r.u32(A.NFTA_REDIR_FLAGS)),
  };
}

function decodeTproxy(r: AttributeReader): Expression | undefined {
  const number = r.u32(A.NFTA_TPROXY_FAMILY) ?? 0;
  const family = familyOfNumber(number);
  if (number !== 0 && family !== 'ip' && family !== 'ip6') return undefined;
  return {
    kind: 'tproxy',
    ...(family === 'ip' || family === 'ip6' ? { family } : {}),
    ...optional('address', optionalRegister(r, A.NFTA_TPROXY_REG_ADDR)),
    ...optional('port', optionalRegister(r, A.NFTA_TPROXY_REG_PORT)),
  };
}

/** The kernel fills in a maximum equal to the minimum, which says nothing. */
function registerRange<Name extends 'address' | 'port'>(
  r: AttributeReader,
  name: Name,
  minAttribute: number,
  maxAttribute: number,
): { [N in Name | `${Name}Max`]?: number } {
  const min = optionalRegister(r, minAttribute);
  const max = optionalRegister(r, maxAttribute);
  return {
    ...optional(name, min),
    ...optional(`${name}Max`, max === min ? undefined : max),
  } as { [N in Name | `${Name}Max`]?: number };
}

/** Bits that the kernel derives from the registers are left out. */
function decodeNatFlags(bits = 0): { flags?: NatFlags } {
  const flags: NatFlags = {
    ...((bits & A.NF_NAT_RANGE_PROTO_RANDOM) === 0 ? {} : { random: true }),
    ...((bits & A.NF_NAT_RANGE_PROTO_RANDOM_FULLY) === 0 ? {} : { fullyRandom: true }),
    ...((bits & A.NF_NAT_RANGE_PERSISTENT) === 0 ? {} : { persistent: true }),
  };
  return Object.keys(flags).length === 0 ? {} : { flags };
}

function nameOf<Name extends string>(
  table: Readonly<Record<Name, number>>,
  number: number,
): Name | undefined {
  return (Object.keys(table) as Name[]).find((name) => table[name] === number);
}

function optional<Name extends string, T>(name: Name, value: T | undefined): { [N in Name]?: T } {
  return (value === undefined ? {} : { [name]: value }) as { [N in Name]?: T };
}

function nonZero<Name extends string>(
  name: Name,
  value: number | undefined,
): { [N in Name]?: number } {
  return optional(name, value === 0 ? undefined : value);
}
