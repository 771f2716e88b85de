/**
 * Encodes a transaction as one batch of netlink messages.
 *
 * ```text
 *  NFNL_MSG_BATCH_BEGIN  nfgenmsg { res_id = subsystem }  NFNL_BATCH_GENID u32?
 *  NFT_MSG_…             nfgenmsg { family }              attributes        one or more for each operation
 *  …
 *  NFNL_MSG_BATCH_END    nfgenmsg { res_id = subsystem }
 * ```
 * The last message before the end asks for an acknowledgement: older kernels do not acknowledge the end itself.
 * Source: `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h`.
 */
import { explainError } from '#lib/errors.ts';
import {
  NLA_HEADER_BYTES,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
  NLMSG_HEADER_BYTES,
} from '#wire/netlink/constants.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import * as N from './constants.ts';
import { fieldInfo, keyBytes, typeIdOf } from './data-types.ts';
import { ElementEncoder } from './element-codec.ts';
import { encodeExpressions } from './expression-encoder.ts';
import { FAMILY_NUMBERS, hookNumber } from './families.ts';
import { describeOperation } from './format.ts';
import type {
  Chain,
  NftFamily,
  NftSet,
  Operation,
  Rule,
  SetRef,
  Table,
  Transaction,
} from './objects.ts';
import { PackedElements } from './packed-elements.ts';
import { encodeComment, encodeSetUserdata } from './userdata.ts';

/** An attribute's length is 16 bits; a list of elements is closed before the next one could pass that. */
const MAX_ELEMENT_LIST_BYTES = 60_000;
const INITIAL_CAPACITY_BYTES = 16 * 1024;
/** A common element of the service maps; only a first guess at the size of the buffer. */
const TYPICAL_ELEMENT_BYTES = 72;
/** Byte offset of the flags in a netlink message. */
const MESSAGE_FLAGS_OFFSET = 6;
const MESSAGE_SEQUENCE_OFFSET = 8;
/** Begin and end. */
const BATCH_EDGES = 2;
/** In the begin message, which is the first: after its header, `nfgenmsg` and the attribute's header. */
const GENERATION_OFFSET = NLMSG_HEADER_BYTES + N.NFGENMSG_BYTES + NLA_HEADER_BYTES;

export interface EncodedTransaction {
  readonly bytes: Buffer;
  readonly beginSequence: number;
  /** Sequence number of the first message of each operation, in order. */
  readonly operationSequences: readonly number[];
  /** Sequence number of the message that is acknowledged. */
  readonly lastSequence: number;
  /** Count of sequence numbers used. */
  readonly messageCount: number;
  /** Messages without the edges; 0 if there is nothing to do. */
  readonly operationMessages: number;
}

/**
 * @param options `generation`: the kernel refuses the batch (ERESTART) unless this is the current one; `buffer`: may
 *   hold the result, so it is the caller's again only when the result is done with
 * @throws TypeError for a value that cannot be encoded; names the operation
 */
export function encodeTransaction(
  transaction: Transaction,
  options: { firstSequence?: number; generation?: number; buffer?: Buffer } = {},
): EncodedTransaction {
  const writer = new NetlinkWriter({
    capacityBytes: capacityFor(transaction),
    firstSequence: options.firstSequence ?? 1,
    ...(options.buffer === undefined ? {} : { buffer: options.buffer }),
  });
  const beginSequence = writer.nextSequence;
  encodeBatchEdge(writer, N.NFNL_MSG_BATCH_BEGIN, options.generation);
  const encoder = new OperationEncoder(writer);
  const operationSequences = transaction.map((operation) => {
    const sequence = writer.nextSequence;
    try {
      encoder.encode(operation);
    } catch (cause) {
      throw new TypeError(
        `Cannot encode "${describeOperation(operation)}": ${explainError(cause)}`,
        {
          cause,
        },
      );
    }
    return sequence;
  });
  const lastSequence = (writer.nextSequence - 1) >>> 0;
  encodeBatchEdge(writer, N.NFNL_MSG_BATCH_END, undefined);
  const bytes = writer.bytes();
  if (encoder.lastMessage !== undefined) {
    const at = encoder.lastMessage + MESSAGE_FLAGS_OFFSET;
    bytes.writeUInt16LE(bytes.readUInt16LE(at) | NLM_F_ACK, at);
  }
  const messageCount = writer.messageCount;
  return {
    bytes,
    beginSequence,
    operationSequences,
    lastSequence,
    messageCount,
    operationMessages: messageCount - BATCH_EDGES,
  };
}

/** Makes a batch that was encoded for one generation into one for another. */
export function setGeneration(encoded: EncodedTransaction, generation: number): void {
  encoded.bytes.writeUInt32BE(generation >>> 0, GENERATION_OFFSET);
}

/**
 * The bytes of the message with this sequence number, from its header on.
 * @returns undefined if there is none
 */
export function messageOf(encoded: EncodedTransaction, sequence: number): Buffer | undefined {
  const { bytes } = encoded;
  for (let at = 0; at + NLMSG_HEADER_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    if (bytes.readUInt32LE(at + MESSAGE_SEQUENCE_OFFSET) === sequence)
      return bytes.subarray(at, at + length);
    at += (length + 3) & ~3;
  }
  return undefined;
}

/**
 * Which operation a message belongs to.
 * @returns its index, or undefined for the edges of the batch
 */
export function operationOf(encoded: EncodedTransaction, sequence: number): number | undefined {
  const { operationSequences, beginSequence, lastSequence } = encoded;
  const distance = (s: number) => (s - beginSequence) >>> 0;
  const at = distance(sequence);
  if (at === 0 || at > distance(lastSequence)) return undefined;
  let low = 0;
  let high = operationSequences.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (distance(operationSequences[middle] ?? 0) <= at) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** `struct nfgenmsg` */
export function encodeHeader(writer: NetlinkWriter, family: NftFamily | undefined): void {
  writer.u8(family === undefined ? 0 : FAMILY_NUMBERS[family]);
  writer.u8(N.NFNETLINK_V0);
  writer.u16Be(0);
}

function encodeBatchEdge(
  writer: NetlinkWriter,
  type: number,
  generation: number | undefined,
): void {
  const message = writer.beginMessage(type, NLM_F_REQUEST);
  writer.u8(0);
  writer.u8(N.NFNETLINK_V0);
  writer.u16Be(N.NFNL_SUBSYS_NFTABLES);
  if (generation !== undefined) writer.attributeU32Be(N.NFNL_BATCH_GENID, generation);
  writer.endMessage(message);
}

function capacityFor(transaction: Transaction): number {
  let elements = 0;
  for (const operation of transaction)
    if (
      operation.kind === 'elements' &&
      (Array.isArray(operation.elements) || operation.elements instanceof PackedElements)
    )
      elements += operation.elements.length;
  return INITIAL_CAPACITY_BYTES + elements * TYPICAL_ELEMENT_BYTES;
}

class OperationEncoder {
  readonly #writer: NetlinkWriter;
  /** Sets are numbered within a batch; the kernel insists although we always name them. */
  #setId = 0;
  /** Byte offset of the last message begun. */
  lastMessage: number | undefined;

  constructor(writer: NetlinkWriter) {
    this.#writer = writer;
  }

  encode(operation: Operation): void {
    switch (operation.kind) {
      case 'table':
        if ('object' in operation) this.#addTable(operation.object, operation.verb);
        else this.#removeTable(operation);
        break;
      case 'chain':
        if ('object' in operation) this.#addChain(operation.object, operation.verb);
        else this.#removeChain(operation);
        break;
      case 'set':
        if ('object' in operation) this.#addSet(operation.object, operation.verb);
        else this.#removeSet(operation);
        break;
      case 'rule':
        this.#rule(operation);
        break;
      case 'elements':
        this.#elements(operation);
        break;
    }
  }

  #begin(type: number, flags: number, family: NftFamily): number {
    const message = this.#writer.beginMessage(type, NLM_F_REQUEST | flags);
    this.lastMessage = message;
    encodeHeader(this.#writer, family);
    return message;
  }

  #addTable(table: Table, verb: 'add' | 'create'): void {
    const w = this.#writer;
    const message = this.#begin(N.NFT_MSG_NEWTABLE, createFlags(verb), table.family);
    w.attributeString(N.NFTA_TABLE_NAME, table.table);
    w.attributeU32Be(N.NFTA_TABLE_FLAGS, table.dormant === true ? N.NFT_TABLE_F_DORMANT : 0);
    attributeIfDefined(w, N.NFTA_TABLE_USERDATA, encodeComment(table.comment));
    w.endMessage(message);
  }

  #removeTable(operation: Extract<Operation, { kind: 'table'; ref: unknown }>): void {
    const { verb, ref } = operation;
    const w = this.#writer;
    if (verb === 'flush') {
      const message = this.#begin(N.NFT_MSG_DELRULE, 0, ref.family);
      w.attributeString(N.NFTA_RULE_TABLE, ref.table);
      w.endMessage(message);
      return;
    }
    const type = verb === 'delete' ? N.NFT_MSG_DELTABLE : N.NFT_MSG_DESTROYTABLE;
    const message = this.#begin(type, 0, ref.family);
    w.attributeString(N.NFTA_TABLE_NAME, ref.table);
    w.endMessage(message);
  }

  #addChain(chain: Chain, verb: 'add' | 'create'): void {
    const w = this.#writer;
    const { base } = chain;
    const message = this.#begin(N.NFT_MSG_NEWCHAIN, createFlags(verb), chain.family);
    w.attributeString(N.NFTA_CHAIN_TABLE, chain.table);
    w.attributeString(N.NFTA_CHAIN_NAME, chain.chain);
    if (base !== undefined) {
      const hook = w.beginNested(N.NFTA_CHAIN_HOOK);
      w.attributeU32Be(N.NFTA_HOOK_HOOKNUM, hookNumber(chain.family, base.hook));
      w.attributeU32Be(N.NFTA_HOOK_PRIORITY, base.priority);
      if (base.device !== undefined) w.attributeString(N.NFTA_HOOK_DEV, base.device);
      w.endAttribute(hook);
      w.attributeU32Be(N.NFTA_CHAIN_POLICY, base.policy === 'drop' ? 0 : 1);
      w.attributeString(N.NFTA_CHAIN_TYPE, base.type);
    }
    attributeIfDefined(w, N.NFTA_CHAIN_USERDATA, encodeComment(chain.comment));
    w.endMessage(message);
  }

  #removeChain(operation: Extract<Operation, { kind: 'chain'; ref: unknown }>): void {
    const { verb, ref } = operation;
    const w = this.#writer;
    if (verb === 'flush') {
      const message = this.#begin(N.NFT_MSG_DELRULE, 0, ref.family);
      w.attributeString(N.NFTA_RULE_TABLE, ref.table);
      w.attributeString(N.NFTA_RULE_CHAIN, ref.chain);
      w.endMessage(message);
      return;
    }
    const type = verb === 'delete' ? N.NFT_MSG_DELCHAIN : N.NFT_MSG_DESTROYCHAIN;
    const message = this.#begin(type, 0, ref.family);
    w.attributeString(N.NFTA_CHAIN_TABLE, ref.table);
    w.attributeString(N.NFTA_CHAIN_NAME, ref.chain);
    w.endMessage(message);
  }

  #rule(operation: Extract<Operation, { kind: 'rule' }>): void {
    const w = this.#writer;
    if ('ref' in operation) {
      const { verb, ref, handle } = operation;
      const type = verb === 'delete' ? N.NFT_MSG_DELRULE : N.NFT_MSG_DESTROYRULE;
      const message = this.#begin(type, 0, ref.family);
      w.attributeString(N.NFTA_RULE_TABLE, ref.table);
      w.attributeString(N.NFTA_RULE_CHAIN, ref.chain);
      w.attributeU64Be(N.NFTA_RULE_HANDLE, BigInt(handle));
      w.endMessage(message);
      return;
    }
    const rule: Rule = operation.object;
    const flags =
      operation.verb === 'replace'
        ? NLM_F_REPLACE
        : operation.verb === 'add'
          ? NLM_F_CREATE | NLM_F_APPEND
          : NLM_F_CREATE;
    const message = this.#begin(N.NFT_MSG_NEWRULE, flags, rule.family);
    w.attributeString(N.NFTA_RULE_TABLE, rule.table);
    w.attributeString(N.NFTA_RULE_CHAIN, rule.chain);
    if (operation.verb === 'replace')
      w.attributeU64Be(N.NFTA_RULE_HANDLE, BigInt(operation.handle));
    else if (operation.at !== undefined)
      w.attributeU64Be(N.NFTA_RULE_POSITION, BigInt(operation.at));
    const list = w.beginNested(N.NFTA_RULE_EXPRESSIONS);
    encodeExpressions(w, rule.expressions);
    w.endAttribute(list);
    attributeIfDefined(w, N.NFTA_RULE_USERDATA, encodeComment(rule.comment));
    w.endMessage(message);
  }

  #addSet(set: NftSet, verb: 'add' | 'create'): void {
    const w = this.#writer;
    const message = this.#begin(N.NFT_MSG_NEWSET, createFlags(verb), set.family);
    w.attributeString(N.NFTA_SET_TABLE, set.table);
    w.attributeString(N.NFTA_SET_NAME, set.set);
    w.attributeU32Be(N.NFTA_SET_FLAGS, setFlags(set));
    w.attributeU32Be(N.NFTA_SET_KEY_TYPE, typeIdOf(set.key));
    w.attributeU32Be(N.NFTA_SET_KEY_LEN, keyBytes(set.key));
    if (set.data === 'verdict') {
      w.attributeU32Be(N.NFTA_SET_DATA_TYPE, N.NFT_DATA_VERDICT);
      w.attributeU32Be(N.NFTA_SET_DATA_LEN, 0);
    } else if (set.data !== undefined) {
      w.attributeU32Be(N.NFTA_SET_DATA_TYPE, typeIdOf(set.data));
      w.attributeU32Be(N.NFTA_SET_DATA_LEN, keyBytes(set.data));
    }
    w.attributeU32Be(N.NFTA_SET_ID, ++this.#setId);
    this.#setDescription(set);
    if (set.timeoutMs !== undefined) w.attributeU64Be(N.NFTA_SET_TIMEOUT, BigInt(set.timeoutMs));
    if (set.gcIntervalMs !== undefined) w.attributeU32Be(N.NFTA_SET_GC_INTERVAL, set.gcIntervalMs);
    w.attributeBytes(N.NFTA_SET_USERDATA, encodeSetUserdata(set));
    w.endMessage(message);
  }

  /** The size, and for intervals of concatenations the length of each field. */
  #setDescription(set: NftSet): void {
    const fields = isConcatOfIntervals(set) ? set.key : [];
    if (set.size === undefined && fields.length === 0) return;
    const w = this.#writer;
    const description = w.beginNested(N.NFTA_SET_DESC);
    if (set.size !== undefined) w.attributeU32Be(N.NFTA_SET_DESC_SIZE, set.size);
    if (fields.length > 0) {
      const concat = w.beginNested(N.NFTA_SET_DESC_CONCAT);
      for (const field of fields) {
        const item = w.beginNested(N.NFTA_LIST_ELEM);
        w.attributeU32Be(N.NFTA_SET_FIELD_LEN, fieldInfo(field).bytes);
        w.endAttribute(item);
      }
      w.endAttribute(concat);
    }
    w.endAttribute(description);
  }

  #removeSet(operation: Extract<Operation, { kind: 'set'; ref: unknown }>): void {
    const { verb, ref } = operation;
    const w = this.#writer;
    if (verb === 'flush') {
      const message = this.#begin(N.NFT_MSG_DELSETELEM, 0, ref.family);
      w.attributeString(N.NFTA_SET_ELEM_LIST_TABLE, ref.table);
      w.attributeString(N.NFTA_SET_ELEM_LIST_SET, ref.set);
      w.endMessage(message);
      return;
    }
    const type = verb === 'delete' ? N.NFT_MSG_DELSET : N.NFT_MSG_DESTROYSET;
    const message = this.#begin(type, 0, ref.family);
    w.attributeString(N.NFTA_SET_TABLE, ref.table);
    w.attributeString(N.NFTA_SET_NAME, ref.set);
    w.endMessage(message);
  }

  /** No element, no message: to the kernel an empty list of deletions would mean "all". */
  #elements(operation: Extract<Operation, { kind: 'elements' }>): void {
    const w = this.#writer;
    const encoder = new ElementEncoder(w);
    if (operation.elements instanceof PackedElements) {
      const packed = operation.elements;
      for (let next = 0; next < packed.length; ) {
        const message = this.#beginElements(operation.verb, operation.ref);
        next = encoder.encodePacked(packed, next, message.list + MAX_ELEMENT_LIST_BYTES);
        this.#endElements(message);
      }
      return;
    }
    let message: ElementMessage | undefined;
    for (const element of operation.elements) {
      if (message !== undefined && w.length - message.list > MAX_ELEMENT_LIST_BYTES) {
        this.#endElements(message);
        message = undefined;
      }
      message ??= this.#beginElements(operation.verb, operation.ref);
      encoder.encode(element);
    }
    if (message !== undefined) this.#endElements(message);
  }

  #beginElements(verb: keyof typeof ELEMENT_MESSAGES, ref: SetRef): ElementMessage {
    const [type, flags] = ELEMENT_MESSAGES[verb];
    const w = this.#writer;
    const message = this.#begin(type, flags, ref.family);
    w.attributeString(N.NFTA_SET_ELEM_LIST_TABLE, ref.table);
    w.attributeString(N.NFTA_SET_ELEM_LIST_SET, ref.set);
    return { message, list: w.beginNested(N.NFTA_SET_ELEM_LIST_ELEMENTS) };
  }

  #endElements({ message, list }: ElementMessage): void {
    this.#writer.endAttribute(list);
    this.#writer.endMessage(message);
  }
}

/** Marks of an unfinished message and of its list. */
interface ElementMessage {
  readonly message: number;
  readonly list: number;
}

const ELEMENT_MESSAGES = {
  add: [N.NFT_MSG_NEWSETELEM, NLM_F_CREATE],
  create: [N.NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL],
  delete: [N.NFT_MSG_DELSETELEM, 0],
  destroy: [N.NFT_MSG_DESTROYSETELEM, 0],
} as const;

function createFlags(verb: 'add' | 'create'): number {
  return verb === 'create' ? NLM_F_CREATE | NLM_F_EXCL : NLM_F_CREATE;
}

function isConcatOfIntervals(set: NftSet): boolean {
  return set.interval === true && set.key.length > 1;
}

function setFlags(set: NftSet): number {
  return (
    (set.constant === true ? N.NFT_SET_CONSTANT : 0) |
    (set.interval === true ? N.NFT_SET_INTERVAL : 0) |
    (set.data !== undefined ? N.NFT_SET_MAP : 0) |
    (set.timeout === true || set.timeoutMs !== undefined ? N.NFT_SET_TIMEOUT : 0) |
    (set.dynamic === true ? N.NFT_SET_EVAL : 0) |
    (isConcatOfIntervals(set) ? N.NFT_SET_CONCAT : 0)
  );
}

function attributeIfDefined(
  writer: NetlinkWriter,
  attribute: number,
  value: Uint8Array | undefined,
): void {
  if (value !== undefined) writer.attributeBytes(attribute, value);
}
