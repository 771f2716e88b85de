/**
 * Encodes the expressions of a rule: `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA { … } }` each.
 * Attribute names are those of `enum nft_<name>_attributes`, in `expression-attributes.ts`.
 */
import type { NetlinkWriter } from '#wire/netlink/writer.ts';
import { NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM } from './constants.ts';
import { encodeRegister, encodeValue, encodeVerdict } from './data-codec.ts';
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
import { FAMILY_NUMBERS } from './families.ts';
import type { NftFamily } from './objects.ts';

type Kind = Expression['kind'];
type Of<K extends Kind> = Extract<Expression, { kind: K }>;
interface Encoder<K extends Kind> {
  /** The kernel's name of the expression. */
  readonly name: string;
  encode(writer: NetlinkWriter, expression: Of<K>): void;
}

/** Writes the elements of a list of expressions; the list attribute itself is the caller's. */
export function encodeExpressions(writer: NetlinkWriter, expressions: readonly Expression[]): void {
  for (const expression of expressions) encodeExpression(writer, expression);
}

function encodeExpression(writer: NetlinkWriter, expression: Expression): void {
  const item = writer.beginNested(NFTA_LIST_ELEM);
  if (expression.kind === 'unknown') {
    writer.attributeString(NFTA_EXPR_NAME, expression.name);
    const data = writer.beginNested(NFTA_EXPR_DATA);
    writer.raw(expression.attributes);
    writer.endAttribute(data);
  } else {
    // The table pairs each kind with its encoder, which TypeScript cannot follow through an index.
    const encoder = ENCODERS[expression.kind] as Encoder<Kind>;
    writer.attributeString(NFTA_EXPR_NAME, encoder.name);
    const data = writer.beginNested(NFTA_EXPR_DATA);
    encoder.encode(writer, expression);
    writer.endAttribute(data);
  }
  writer.endAttribute(item);
}

const ENCODERS: { readonly [K in Exclude<Kind, 'unknown'>]: Encoder<K> } = {
  meta: {
    name: 'meta',
    encode(w, e) {
      w.attributeU32Be(A.NFTA_META_KEY, META_KEYS[e.key]);
      encodeRegister(w, A.NFTA_META_DREG, e.to);
    },
  },
  'set meta': {
    name: 'meta',
    encode(w, e) {
      w.attributeU32Be(A.NFTA_META_KEY, META_KEYS[e.key]);
      encodeRegister(w, A.NFTA_META_SREG, e.from);
    },
  },
  payload: {
    name: 'payload',
    encode(w, e) {
      encodeRegister(w, A.NFTA_PAYLOAD_DREG, e.to);
      encodeField(w, e);
    },
  },
  'set payload': {
    name: 'payload',
    encode(w, e) {
      encodeRegister(w, A.NFTA_PAYLOAD_SREG, e.from);
      encodeField(w, e);
      if (e.checksumOffset !== undefined) {
        w.attributeU32Be(A.NFTA_PAYLOAD_CSUM_TYPE, A.NFT_PAYLOAD_CSUM_INET);
        w.attributeU32Be(A.NFTA_PAYLOAD_CSUM_OFFSET, e.checksumOffset);
      }
      if (e.pseudoHeader === true)
        w.attributeU32Be(A.NFTA_PAYLOAD_CSUM_FLAGS, A.NFT_PAYLOAD_L4CSUM_PSEUDOHDR);
    },
  },
  ct: {
    name: 'ct',
    encode(w, e) {
      w.attributeU32Be(A.NFTA_CT_KEY, CT_KEYS[e.key]);
      encodeRegister(w, A.NFTA_CT_DREG, e.to);
      encodeDirection(w, e.direction);
    },
  },
  'set ct': {
    name: 'ct',
    encode(w, e) {
      w.attributeU32Be(A.NFTA_CT_KEY, CT_KEYS[e.key]);
      encodeRegister(w, A.NFTA_CT_SREG, e.from);
      encodeDirection(w, e.direction);
    },
  },
  fib: {
    name: 'fib',
    encode(w, e) {
      const flags = e.by.reduce((bits, by) => bits | A.FIB_FLAGS[by], 0);
      w.attributeU32Be(A.NFTA_FIB_FLAGS, e.present === true ? flags | A.NFTA_FIB_F_PRESENT : flags);
      w.attributeU32Be(A.NFTA_FIB_RESULT, A.FIB_RESULTS[e.result]);
      encodeRegister(w, A.NFTA_FIB_DREG, e.to);
    },
  },
  numgen: {
    name: 'numgen',
    encode(w, e) {
      encodeRegister(w, A.NFTA_NG_DREG, e.to);
      w.attributeU32Be(A.NFTA_NG_MODULUS, e.modulus);
      w.attributeU32Be(
        A.NFTA_NG_TYPE,
        e.mode === 'random' ? A.NFT_NG_RANDOM : A.NFT_NG_INCREMENTAL,
      );
      w.attributeU32Be(A.NFTA_NG_OFFSET, e.offset ?? 0);
    },
  },
  jhash: {
    name: 'hash',
    encode(w, e) {
      encodeRegister(w, A.NFTA_HASH_SREG, e.from);
      encodeRegister(w, A.NFTA_HASH_DREG, e.to);
      w.attributeU32Be(A.NFTA_HASH_LEN, e.bytes);
      w.attributeU32Be(A.NFTA_HASH_MODULUS, e.modulus);
      if (e.seed !== undefined) w.attributeU32Be(A.NFTA_HASH_SEED, e.seed);
      w.attributeU32Be(A.NFTA_HASH_OFFSET, e.offset ?? 0);
      w.attributeU32Be(A.NFTA_HASH_TYPE, A.NFT_HASH_JENKINS);
    },
  },
  symhash: {
    name: 'hash',
    encode(w, e) {
      encodeRegister(w, A.NFTA_HASH_DREG, e.to);
      w.attributeU32Be(A.NFTA_HASH_MODULUS, e.modulus);
      w.attributeU32Be(A.NFTA_HASH_OFFSET, e.offset ?? 0);
      w.attributeU32Be(A.NFTA_HASH_TYPE, A.NFT_HASH_SYM);
    },
  },
  socket: {
    name: 'socket',
    encode(w, e) {
      w.attributeU32Be(A.NFTA_SOCKET_KEY, A.SOCKET_KEYS[e.key]);
      encodeRegister(w, A.NFTA_SOCKET_DREG, e.to);
    },
  },
  immediate: {
    name: 'immediate',
    encode(w, e) {
      encodeRegister(w, A.NFTA_IMMEDIATE_DREG, e.to);
      encodeValue(w, A.NFTA_IMMEDIATE_DATA, e.data);
    },
  },
  verdict: {
    name: 'immediate',
    encode(w, e) {
      encodeRegister(w, A.NFTA_IMMEDIATE_DREG, 'verdict');
      encodeVerdict(w, A.NFTA_IMMEDIATE_DATA, e.verdict);
    },
  },
  cmp: {
    name: 'cmp',
    encode(w, e) {
      encodeRegister(w, A.NFTA_CMP_SREG, e.from);
      w.attributeU32Be(A.NFTA_CMP_OP, COMPARISONS[e.op]);
      encodeValue(w, A.NFTA_CMP_DATA, e.data);
    },
  },
  range: {
    name: 'range',
    encode(w, e) {
      encodeRegister(w, A.NFTA_RANGE_SREG, e.from);
      w.attributeU32Be(A.NFTA_RANGE_OP, e.op === '==' ? 0 : 1);
      encodeValue(w, A.NFTA_RANGE_FROM_DATA, e.low);
      encodeValue(w, A.NFTA_RANGE_TO_DATA, e.high);
    },
  },
  bitwise: {
    name: 'bitwise',
    encode(w, e) {
      encodeRegister(w, A.NFTA_BITWISE_SREG, e.from);
      encodeRegister(w, A.NFTA_BITWISE_DREG, e.to);
      w.attributeU32Be(A.NFTA_BITWISE_OP, A.NFT_BITWISE_MASK_XOR);
      w.attributeU32Be(A.NFTA_BITWISE_LEN, e.mask.length);
      encodeValue(w, A.NFTA_BITWISE_MASK, e.mask);
      encodeValue(w, A.NFTA_BITWISE_XOR, e.xor);
    },
  },
  shift: {
    name: 'bitwise',
    encode(w, e) {
      encodeRegister(w, A.NFTA_BITWISE_SREG, e.from);
      encodeRegister(w, A.NFTA_BITWISE_DREG, e.to);
      w.attributeU32Be(
        A.NFTA_BITWISE_OP,
        e.direction === 'left' ? A.NFT_BITWISE_LSHIFT : A.NFT_BITWISE_RSHIFT,
      );
      w.attributeU32Be(A.NFTA_BITWISE_LEN, e.bytes);
      const bits = Buffer.alloc(4);
      bits.writeUInt32LE(e.bits);
      encodeValue(w, A.NFTA_BITWISE_DATA, bits);
    },
  },
  byteorder: {
    name: 'byteorder',
    encode(w, e) {
      encodeRegister(w, A.NFTA_BYTEORDER_SREG, e.from);
      encodeRegister(w, A.NFTA_BYTEORDER_DREG, e.to);
      w.attributeU32Be(A.NFTA_BYTEORDER_OP, e.op === 'ntoh' ? 0 : 1);
      w.attributeU32Be(A.NFTA_BYTEORDER_LEN, e.bytes);
      w.attributeU32Be(A.NFTA_BYTEORDER_SIZE, e.unit);
    },
  },
  lookup: {
    name: 'lookup',
    encode(w, e) {
      encodeRegister(w, A.NFTA_LOOKUP_SREG, e.from);
      if (e.to !== undefined) encodeRegister(w, A.NFTA_LOOKUP_DREG, e.to);
      w.attributeString(A.NFTA_LOOKUP_SET, e.set);
      if (e.inverted === true) w.attributeU32Be(A.NFTA_LOOKUP_FLAGS, A.NFT_LOOKUP_F_INV);
    },
  },
  dynset: {
    name: 'dynset',
    encode(w, e) {
      encodeRegister(w, A.NFTA_DYNSET_SREG_KEY, e.key);
      if (e.data !== undefined) encodeRegister(w, A.NFTA_DYNSET_SREG_DATA, e.data);
      w.attributeU32Be(A.NFTA_DYNSET_OP, A.DYNSET_OPS[e.op]);
      if (e.timeoutMs !== undefined) w.attributeU64Be(A.NFTA_DYNSET_TIMEOUT, BigInt(e.timeoutMs));
      w.attributeString(A.NFTA_DYNSET_SET_NAME, e.set);
      if (e.inverted === true) w.attributeU32Be(A.NFTA_DYNSET_FLAGS, A.NFT_DYNSET_F_INV);
    },
  },
  counter: {
    name: 'counter',
    encode(w, e) {
      w.attributeU64Be(A.NFTA_COUNTER_BYTES, e.bytes);
      w.attributeU64Be(A.NFTA_COUNTER_PACKETS, e.packets);
    },
  },
  limit: {
    name: 'limit',
    encode(w, e) {
      w.attributeU64Be(A.NFTA_LIMIT_RATE, BigInt(e.rate));
      w.attributeU64Be(A.NFTA_LIMIT_UNIT, BigInt(LIMIT_UNIT_SECONDS[e.per]));
      w.attributeU32Be(A.NFTA_LIMIT_BURST, e.burst);
      w.attributeU32Be(A.NFTA_LIMIT_TYPE, e.of === 'packets' ? 0 : 1);
      w.attributeU32Be(A.NFTA_LIMIT_FLAGS, e.over === true ? A.NFT_LIMIT_F_INV : 0);
    },
  },
  log: {
    name: 'log',
    encode(w, e) {
      if (e.prefix !== undefined) w.attributeString(A.NFTA_LOG_PREFIX, e.prefix);
      if (e.group !== undefined) w.attributeU16Be(A.NFTA_LOG_GROUP, e.group);
      if (e.snaplen !== undefined) w.attributeU32Be(A.NFTA_LOG_SNAPLEN, e.snaplen);
      if (e.queueThreshold !== undefined) w.attributeU16Be(A.NFTA_LOG_QTHRESHOLD, e.queueThreshold);
      if (e.level !== undefined) w.attributeU32Be(A.NFTA_LOG_LEVEL, e.level);
      if (e.flags !== undefined) w.attributeU32Be(A.NFTA_LOG_FLAGS, e.flags);
    },
  },
  reject: {
    name: 'reject',
    encode(w, e) {
      if (e.with === 'tcp reset') {
        w.attributeU32Be(A.NFTA_REJECT_TYPE, A.NFT_REJECT_TCP_RST);
        return;
      }
      const icmpx = 'icmpx' in e.with;
      w.attributeU32Be(
        A.NFTA_REJECT_TYPE,
        icmpx ? A.NFT_REJECT_ICMPX_UNREACH : A.NFT_REJECT_ICMP_UNREACH,
      );
      w.attributeU8(
        A.NFTA_REJECT_ICMP_CODE,
        'icmpx' in e.with ? ICMPX_CODES[e.with.icmpx] : e.with.icmp,
      );
    },
  },
  nat: {
    name: 'nat',
    encode(w, e) {
      w.attributeU32Be(A.NFTA_NAT_TYPE, e.type === 'snat' ? A.NFT_NAT_SNAT : A.NFT_NAT_DNAT);
      w.attributeU32Be(A.NFTA_NAT_FAMILY, FAMILY_NUMBERS[e.family satisfies NftFamily]);
      if (e.address !== undefined) encodeRegister(w, A.NFTA_NAT_REG_ADDR_MIN, e.address);
      if (e.addressMax !== undefined) encodeRegister(w, A.NFTA_NAT_REG_ADDR_MAX, e.addressMax);
      if (e.port !== undefined) encodeRegister(w, A.NFTA_NAT_REG_PROTO_MIN, e.port);
      if (e.portMax !== undefined) encodeRegister(w, A.NFTA_NAT_REG_PROTO_MAX, e.portMax);
      encodeNatFlags(w, A.NFTA_NAT_FLAGS, e.flags);
    },
  },
  masquerade: {
    name: 'masq',
    encode(w, e) {
      encodeNatFlags(w, A.NFTA_MASQ_FLAGS, e.flags);
      if (e.port !== undefined) encodeRegister(w, A.NFTA_MASQ_REG_PROTO_MIN, e.port);
      if (e.portMax !== undefined) encodeRegister(w, A.NFTA_MASQ_REG_PROTO_MAX, e.portMax);
    },
  },
  redirect: {
    name: 'redir',
    encode(w, e) {
      if (e.port !== undefined) encodeRegister(w, A.NFTA_REDIR_REG_PROTO_MIN, e.port);
      if (e.portMax !== undefined) encodeRegister(w, A.NFTA_REDIR_REG_PROTO_MAX, e.portMax);
      encodeNatFlags(w, A.NFTA_REDIR_FLAGS, e.flags);
    },
  },
  tproxy: {
    name: 'tproxy',
    encode(w, e) {
      w.attributeU32Be(A.NFTA_TPROXY_FAMILY, e.family === undefined ? 0 : FAMILY_NUMBERS[e.family]);
      if (e.address !== undefined) encodeRegister(w, A.NFTA_TPROXY_REG_ADDR, e.address);
      if (e.port !== undefined) encodeRegister(w, A.NFTA_TPROXY_REG_PORT, e.port);
    },
  },
  notrack: { name: 'notrack', encode() {} },
};

function encodeField(w: NetlinkWriter, e: Of<'payload'> | Of<'set payload'>): void {
  w.attributeU32Be(A.NFTA_PAYLOAD_BASE, PAYLOAD_BASES[e.base]);
  w.attributeU32Be(A.NFTA_PAYLOAD_OFFSET, e.offset);
  w.attributeU32Be(A.NFTA_PAYLOAD_LEN, e.bytes);
}

function encodeDirection(w: NetlinkWriter, direction: 'original' | 'reply' | undefined): void {
  if (direction !== undefined) w.attributeU8(A.NFTA_CT_DIRECTION, direction === 'original' ? 0 : 1);
}

function encodeNatFlags(w: NetlinkWriter, attribute: number, flags: NatFlags | undefined): void {
  const bits =
    (flags?.random === true ? A.NF_NAT_RANGE_PROTO_RANDOM : 0) |
    (flags?.persistent === true ? A.NF_NAT_RANGE_PERSISTENT : 0) |
    (flags?.fullyRandom === true ? A.NF_NAT_RANGE_PROTO_RANDOM_FULLY : 0);
  if (bits !== 0) w.attributeU32Be(attribute, bits);
}
