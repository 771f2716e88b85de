/**
 * Decodes the messages of dumps and events: tables, chains, rules, sets, elements, generations.
 * The layout of each is that of the message which makes it, in `transaction-encoder.ts`.
 */
import { DecodeError } from '#lib/errors.ts';
import { readAttributeList } from '#wire/netlink/reader.ts';
import { AttributeReader } from './attributes.ts';
import * as N from './constants.ts';
import type { KeyField } from './data-types.ts';
import { typesOfId } from './data-types.ts';
import { decodeElement } from './element-codec.ts';
import { decodeExpressions } from './expression-decoder.ts';
import type { Expression } from './expressions.ts';
import { familyOfNumber, hookOfNumber } from './families.ts';
import type {
  BaseChain,
  Chain,
  NftFamily,
  NftSet,
  Rule,
  SetElement,
  SetRef,
  Table,
} from './objects.ts';
import { decodeComment, decodeSetUserdata } from './userdata.ts';

/** What `struct nfgenmsg` says. */
export interface Header {
  /** Undefined in messages that are of no family. */
  readonly family: NftFamily | undefined;
}

/** @throws DecodeError if the payload is too short */
export function decodeHeader(payload: Buffer): Header {
  if (payload.length < N.NFGENMSG_BYTES)
    throw new DecodeError(`${payload.length} bytes are not ${N.NFGENMSG_BYTES}`, {
      protocol: 'nftables',
      field: 'nfgenmsg',
    });
  return { family: familyOfNumber(payload.readUInt8(0)) };
}

function readerOf(payload: Buffer, where: string): { family: NftFamily; r: AttributeReader } {
  const { family } = decodeHeader(payload);
  const r = new AttributeReader(where, payload, N.NFGENMSG_BYTES);
  return { family: r.required(family, 'family'), r };
}

export interface DecodedTable extends Table {
  readonly handle: number;
}
export function decodeTable(payload: Buffer): DecodedTable {
  const { family, r } = readerOf(payload, 'table');
  const comment = decodeComment(r.bytes(N.NFTA_TABLE_USERDATA));
  return {
    family,
    table: r.requiredString(N.NFTA_TABLE_NAME, 'name'),
    handle: r.number(N.NFTA_TABLE_HANDLE) ?? 0,
    ...(comment === undefined ? {} : { comment }),
    ...(((r.u32(N.NFTA_TABLE_FLAGS) ?? 0) & N.NFT_TABLE_F_DORMANT) === 0 ? {} : { dormant: true }),
  };
}

export interface DecodedChain extends Chain {
  readonly handle: number;
}
export function decodeChain(payload: Buffer): DecodedChain {
  const { family, r } = readerOf(payload, 'chain');
  const comment = decodeComment(r.bytes(N.NFTA_CHAIN_USERDATA));
  const base = decodeBase(family, r);
  return {
    family,
    table: r.requiredString(N.NFTA_CHAIN_TABLE, 'table'),
    chain: r.requiredString(N.NFTA_CHAIN_NAME, 'name'),
    handle: r.number(N.NFTA_CHAIN_HANDLE) ?? 0,
    ...(base === undefined ? {} : { base }),
    ...(comment === undefined ? {} : { comment }),
  };
}

function decodeBase(family: NftFamily, r: AttributeReader): BaseChain | undefined {
  const hook = r.nested(N.NFTA_CHAIN_HOOK);
  if (hook === undefined) return undefined;
  const type = r.requiredString(N.NFTA_CHAIN_TYPE, 'type');
  if (type !== 'filter' && type !== 'nat' && type !== 'route')
    throw r.error('type', `"${type}" is no type of chain`);
  const number = hook.requiredU32(N.NFTA_HOOK_HOOKNUM, 'hook');
  const devices = hook.nested(N.NFTA_HOOK_DEVS);
  const device = hook.string(N.NFTA_HOOK_DEV) ?? devices?.string(N.NFTA_DEVICE_NAME);
  return {
    type,
    hook: r.required(hookOfNumber(family, number), `hook ${number}`),
    priority: hook.required(hook.i32(N.NFTA_HOOK_PRIORITY), 'priority'),
    policy: (r.u32(N.NFTA_CHAIN_POLICY) ?? 1) === 0 ? 'drop' : 'accept',
    ...(device === undefined ? {} : { device }),
  };
}

export interface DecodedRule extends Rule {
  readonly handle: number;
}
export function decodeRule(payload: Buffer): DecodedRule {
  const { family, r } = readerOf(payload, 'rule');
  const comment = decodeComment(r.bytes(N.NFTA_RULE_USERDATA));
  const list = r.bytes(N.NFTA_RULE_EXPRESSIONS);
  const expressions: Expression[] = list === undefined ? [] : decodeExpressions(list);
  return {
    family,
    table: r.requiredString(N.NFTA_RULE_TABLE, 'table'),
    chain: r.requiredString(N.NFTA_RULE_CHAIN, 'chain'),
    handle: r.required(r.number(N.NFTA_RULE_HANDLE), 'handle'),
    expressions,
    ...(comment === undefined ? {} : { comment }),
  };
}

export interface DecodedSet extends NftSet {
  readonly handle: number;
  readonly anonymous?: boolean;
}
/** Fields that another program named in a way we do not know give an empty `key` or `data`. */
export function decodeSet(payload: Buffer): DecodedSet {
  const { family, r } = readerOf(payload, 'set');
  const flags = r.u32(N.NFTA_SET_FLAGS) ?? 0;
  const userdata = decodeSetUserdata(r.bytes(N.NFTA_SET_USERDATA));
  const data = decodeDataFields(r, flags, userdata.dataTypeof);
  const size = r.nested(N.NFTA_SET_DESC)?.u32(N.NFTA_SET_DESC_SIZE);
  const timeoutMs = r.number(N.NFTA_SET_TIMEOUT);
  const gcIntervalMs = r.u32(N.NFTA_SET_GC_INTERVAL);
  return {
    family,
    table: r.requiredString(N.NFTA_SET_TABLE, 'table'),
    set: r.requiredString(N.NFTA_SET_NAME, 'name'),
    handle: r.number(N.NFTA_SET_HANDLE) ?? 0,
    key: userdata.keyTypeof ?? typesOfId(r.u32(N.NFTA_SET_KEY_TYPE) ?? 0) ?? [],
    ...(data === undefined ? {} : { data }),
    ...((flags & N.NFT_SET_ANONYMOUS) === 0 ? {} : { anonymous: true }),
    ...((flags & N.NFT_SET_CONSTANT) === 0 ? {} : { constant: true }),
    ...((flags & N.NFT_SET_INTERVAL) === 0 ? {} : { interval: true }),
    ...((flags & N.NFT_SET_TIMEOUT) === 0 ? {} : { timeout: true }),
    ...((flags & N.NFT_SET_EVAL) === 0 ? {} : { dynamic: true }),
    ...(size === undefined ? {} : { size }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(gcIntervalMs === undefined ? {} : { gcIntervalMs }),
    ...(userdata.comment === undefined ? {} : { comment: userdata.comment }),
  };
}

function decodeDataFields(
  r: AttributeReader,
  flags: number,
  named: KeyField[] | undefined,
): 'verdict' | KeyField[] | undefined {
  if ((flags & N.NFT_SET_MAP) === 0) return undefined;
  const type = r.u32(N.NFTA_SET_DATA_TYPE) ?? 0;
  if (type === N.NFT_DATA_VERDICT) return 'verdict';
  return named ?? typesOfId(type) ?? [];
}

/** How many elements a set has, if the kernel says so. */
export function decodeSetCount(payload: Buffer): number | undefined {
  return new AttributeReader('set', payload, N.NFGENMSG_BYTES).u32(N.NFTA_SET_COUNT);
}

/** A message with elements of one set; a large set comes in many. */
export function decodeElements(payload: Buffer): SetRef & { elements: SetElement[] } {
  const { family, r } = readerOf(payload, 'elements');
  const list = r.bytes(N.NFTA_SET_ELEM_LIST_ELEMENTS);
  return {
    family,
    table: r.requiredString(N.NFTA_SET_ELEM_LIST_TABLE, 'table'),
    set: r.requiredString(N.NFTA_SET_ELEM_LIST_SET, 'set'),
    elements:
      list === undefined ? [] : readAttributeList(list).map((item) => decodeElement(item.value)),
  };
}

export interface Generation {
  readonly generation: number;
  /** Who made it, in events and answers. */
  readonly pid: number;
  readonly processName: string;
}
export function decodeGeneration(payload: Buffer): Generation {
  decodeHeader(payload);
  const r = new AttributeReader('generation', payload, N.NFGENMSG_BYTES);
  return {
    generation: r.requiredU32(N.NFTA_GEN_ID, 'id'),
    pid: r.u32(N.NFTA_GEN_PROC_PID) ?? 0,
    processName: r.string(N.NFTA_GEN_PROC_NAME) ?? '',
  };
}

/** Which object a message is about; without reading the rest of it. */
export interface ObjectName {
  readonly verb: 'add' | 'delete';
  readonly kind: 'table' | 'chain' | 'rule' | 'set' | 'elements';
  readonly family: NftFamily;
  readonly table: string;
  readonly name: string | undefined;
}

const OBJECT_MESSAGES: ReadonlyMap<
  number,
  Pick<ObjectName, 'verb' | 'kind'> & { readonly nameAttribute: number | undefined }
> = new Map([
  [N.NFT_MSG_NEWTABLE, { verb: 'add', kind: 'table', nameAttribute: undefined }],
  [N.NFT_MSG_DELTABLE, { verb: 'delete', kind: 'table', nameAttribute: undefined }],
  [N.NFT_MSG_NEWCHAIN, { verb: 'add', kind: 'chain', nameAttribute: N.NFTA_CHAIN_NAME }],
  [N.NFT_MSG_DELCHAIN, { verb: 'delete', kind: 'chain', nameAttribute: N.NFTA_CHAIN_NAME }],
  [N.NFT_MSG_NEWRULE, { verb: 'add', kind: 'rule', nameAttribute: N.NFTA_RULE_CHAIN }],
  [N.NFT_MSG_DELRULE, { verb: 'delete', kind: 'rule', nameAttribute: N.NFTA_RULE_CHAIN }],
  [N.NFT_MSG_NEWSET, { verb: 'add', kind: 'set', nameAttribute: N.NFTA_SET_NAME }],
  [N.NFT_MSG_DELSET, { verb: 'delete', kind: 'set', nameAttribute: N.NFTA_SET_NAME }],
  [
    N.NFT_MSG_NEWSETELEM,
    { verb: 'add', kind: 'elements', nameAttribute: N.NFTA_SET_ELEM_LIST_SET },
  ],
  [
    N.NFT_MSG_DELSETELEM,
    { verb: 'delete', kind: 'elements', nameAttribute: N.NFTA_SET_ELEM_LIST_SET },
  ],
]);
/** The table's name is the first attribute of all of them. */
const TABLE_ATTRIBUTE = 1;

/** @returns undefined for messages about anything else (stateful objects, flow tables, traces) */
export function decodeObjectName(type: number, payload: Buffer): ObjectName | undefined {
  const known = OBJECT_MESSAGES.get(type);
  if (known === undefined) return undefined;
  const { family, r } = readerOf(payload, known.kind);
  const { verb, kind, nameAttribute } = known;
  return {
    verb,
    kind,
    family,
    table: r.requiredString(TABLE_ATTRIBUTE, 'table'),
    name: nameAttribute === undefined ? undefined : r.requiredString(nameAttribute, 'name'),
  };
}
