/**
 * The data types of set keys and map data, as `nft` knows them.
 *
 * The kernel needs only lengths. The rest (type number, byte order, `typeof`) is stored beside the set so that
 * `nft list ruleset` can print its elements: the number in `NFTA_SET_KEY_TYPE`, 6 bits a field, first field highest,
 * and the rest in user data (`userdata.ts`).
 */

type ByteOrder = 'host' | 'network';
interface DataType {
  /** nft's own number of the type. */
  readonly id: number;
  readonly bytes: number;
  readonly order: ByteOrder;
}

/** Types by the name that nft's `type` takes. */
export const DATA_TYPES = {
  nf_proto: { id: 2, bytes: 1, order: 'host' },
  ipv4_addr: { id: 7, bytes: 4, order: 'network' },
  ipv6_addr: { id: 8, bytes: 16, order: 'network' },
  ether_addr: { id: 9, bytes: 6, order: 'network' },
  ether_type: { id: 10, bytes: 2, order: 'network' },
  inet_proto: { id: 12, bytes: 1, order: 'network' },
  inet_service: { id: 13, bytes: 2, order: 'network' },
  icmp_type: { id: 14, bytes: 1, order: 'network' },
  mark: { id: 19, bytes: 4, order: 'host' },
  iface_index: { id: 20, bytes: 4, order: 'host' },
  ct_state: { id: 26, bytes: 4, order: 'host' },
  ct_status: { id: 28, bytes: 4, order: 'host' },
  icmpv6_type: { id: 29, bytes: 1, order: 'network' },
  fib_addrtype: { id: 38, bytes: 4, order: 'host' },
  ifname: { id: 41, bytes: 16, order: 'host' },
} as const satisfies Record<string, DataType>;

export type DataTypeName = keyof typeof DATA_TYPES;

/** nft's `integer`: has no fixed length, so it can be a field only through a `typeof` expression. */
const INTEGER_ID = 4;

/** nft's numbers of expressions in `typeof` user data. */
export const TYPEOF_KIND = { payload: 7, meta: 9, ct: 12, concat: 13, numgen: 23 } as const;

/** What `typeof` user data holds of one expression: the kind and its numbers. */
export interface TypeofEncoding {
  readonly kind: number;
  readonly numbers: readonly number[];
}

interface TypeofExpression extends TypeofEncoding {
  readonly type: DataTypeName;
}

/** No direction: `ct mark` rather than `ct original ip daddr`. */
const CT_NO_DIRECTION = 0xffffffff;
const payload = (protocol: number, field: number, type: DataTypeName): TypeofExpression => ({
  kind: TYPEOF_KIND.payload,
  numbers: [protocol, field],
  type,
});
const meta = (key: number, type: DataTypeName): TypeofExpression => ({
  kind: TYPEOF_KIND.meta,
  numbers: [key],
  type,
});
const ct = (key: number, type: DataTypeName): TypeofExpression => ({
  kind: TYPEOF_KIND.ct,
  numbers: [key, CT_NO_DIRECTION],
  type,
});

/** Expressions that a field can be the type of. Numbers of protocols and fields are nft's. */
const TYPEOF_EXPRESSIONS = {
  'ip protocol': payload(12, 9, 'inet_proto'),
  'ip saddr': payload(12, 11, 'ipv4_addr'),
  'ip daddr': payload(12, 12, 'ipv4_addr'),
  'ip6 nexthdr': payload(13, 6, 'inet_proto'),
  'ip6 saddr': payload(13, 8, 'ipv6_addr'),
  'ip6 daddr': payload(13, 9, 'ipv6_addr'),
  'th sport': payload(11, 1, 'inet_service'),
  'th dport': payload(11, 2, 'inet_service'),
  'tcp sport': payload(8, 1, 'inet_service'),
  'tcp dport': payload(8, 2, 'inet_service'),
  'udp sport': payload(6, 1, 'inet_service'),
  'udp dport': payload(6, 2, 'inet_service'),
  'sctp sport': payload(10, 1, 'inet_service'),
  'sctp dport': payload(10, 2, 'inet_service'),
  'ether daddr': payload(17, 1, 'ether_addr'),
  'ether saddr': payload(17, 2, 'ether_addr'),
  'icmp type': payload(4, 1, 'icmp_type'),
  'meta mark': meta(3, 'mark'),
  'meta iif': meta(4, 'iface_index'),
  'meta oif': meta(5, 'iface_index'),
  'meta iifname': meta(6, 'ifname'),
  'meta oifname': meta(7, 'ifname'),
  'meta nfproto': meta(15, 'nf_proto'),
  'meta l4proto': meta(16, 'inet_proto'),
  'ct state': ct(0, 'ct_state'),
  'ct status': ct(2, 'ct_status'),
  'ct mark': ct(3, 'mark'),
} as const satisfies Record<string, TypeofExpression>;

export type TypeofName =
  | keyof typeof TYPEOF_EXPRESSIONS
  | `numgen random mod ${number}`
  | `numgen inc mod ${number}`;

/**
 * A field of a key or of data: by type (`inet_service`) or by the expression whose type it has (`th dport`).
 * Names of expressions have a space in them. Either all fields of a key are types or all are expressions.
 */
export type KeyField = DataTypeName | TypeofName;

export interface FieldInfo {
  readonly typeId: number;
  readonly bytes: number;
  readonly order: ByteOrder;
  /** Name of the type, undefined for nft's `integer` (a number generator). */
  readonly type: DataTypeName | undefined;
  /** Set if the field is named by an expression. */
  readonly typeOf: TypeofEncoding | undefined;
}

/** @throws TypeError for a name that is neither a type nor an expression */
export function fieldInfo(field: KeyField): FieldInfo {
  if (field in DATA_TYPES) {
    const type = field as DataTypeName;
    const { id, bytes, order } = DATA_TYPES[type];
    return { typeId: id, bytes, order, type, typeOf: undefined };
  }
  if (field in TYPEOF_EXPRESSIONS) {
    const { kind, numbers, type } = TYPEOF_EXPRESSIONS[field as keyof typeof TYPEOF_EXPRESSIONS];
    const { id, bytes } = DATA_TYPES[type];
    // nft notes the order of the expression, not of its type: metadata is in host order.
    const order = kind === TYPEOF_KIND.payload ? 'network' : 'host';
    return { typeId: id, bytes, order, type, typeOf: { kind, numbers } };
  }
  const numgen = /^numgen (random|inc) mod (\d+)$/.exec(field);
  if (numgen === null) throw new TypeError(`"${field}" is no data type and no typeof expression`);
  return {
    typeId: INTEGER_ID,
    bytes: 4,
    order: 'host',
    type: undefined,
    typeOf: {
      kind: TYPEOF_KIND.numgen,
      numbers: [numgen[1] === 'random' ? 1 : 0, Number(numgen[2]), 0],
    },
  };
}

/** @returns the expression's name, or undefined if it is none that we know */
export function typeofName(encoding: TypeofEncoding): TypeofName | undefined {
  const { kind, numbers } = encoding;
  if (kind === TYPEOF_KIND.numgen)
    return numbers[2] === 0
      ? `numgen ${numbers[0] === 1 ? 'random' : 'inc'} mod ${numbers[1] ?? 0}`
      : undefined;
  for (const [name, known] of Object.entries(TYPEOF_EXPRESSIONS))
    if (known.kind === kind && known.numbers.every((n, i) => n === numbers[i]))
      return name as TypeofName;
  return undefined;
}

/** Bits that nft gives a field's type in the number of a concatenation. */
const TYPE_BITS = 6;
const TYPE_MASK = (1 << TYPE_BITS) - 1;
/** More than nft can name in 32 bits, and all that fit the 64 bytes of a key. */
const MAX_NAMED_FIELDS = 5;

/** nft's number of a type or of a concatenation of types. */
export function typeIdOf(fields: readonly KeyField[]): number {
  let id = 0;
  for (const field of fields) id = ((id << TYPE_BITS) | fieldInfo(field).typeId) >>> 0;
  return id;
}

/** @returns the types in order; undefined if one is none that we know */
export function typesOfId(id: number): DataTypeName[] | undefined {
  const types: DataTypeName[] = [];
  for (let rest = id >>> 0, n = 0; rest !== 0; rest >>>= TYPE_BITS, n++) {
    const name = n < MAX_NAMED_FIELDS ? dataTypeName(rest & TYPE_MASK) : undefined;
    if (name === undefined) return undefined;
    types.unshift(name);
  }
  return types.length === 0 ? undefined : types;
}

function dataTypeName(id: number): DataTypeName | undefined {
  return (Object.keys(DATA_TYPES) as DataTypeName[]).find((name) => DATA_TYPES[name].id === id);
}

/** Bytes of a key: a single field as it is, the fields of a concatenation each padded to 4. */
export function keyBytes(fields: readonly KeyField[]): number {
  const [only] = fields;
  if (fields.length === 1 && only !== undefined) return fieldInfo(only).bytes;
  return fields.reduce((sum, field) => sum + ((fieldInfo(field).bytes + 3) & ~3), 0);
}
