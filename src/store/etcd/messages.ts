/**
 * The messages of etcd's gRPC services that we use, both ways. Pure.
 *
 * As protobuf 3 has it, a field with its zero value is left out, so that a missing field *is* zero. Bytes of an answer are
 * views into it.
 *
 * @see etcd `api/etcdserverpb/rpc.proto`, `api/mvccpb/kv.proto`
 */
import { DecodeError } from '#lib/errors.ts';
import { readFields, WIRE_LEN, WIRE_VARINT, type WireField } from '#wire/protobuf/reader.ts';
import {
  boolField,
  bytesField,
  messageField,
  numberField,
  type Pieces,
} from '#wire/protobuf/writer.ts';
import type { Compare, WriteOp } from '../port.ts';

/** The methods, by what they do. */
export const METHODS = {
  range: '/etcdserverpb.KV/Range',
  txn: '/etcdserverpb.KV/Txn',
  compact: '/etcdserverpb.KV/Compact',
  watch: '/etcdserverpb.Watch/Watch',
  leaseGrant: '/etcdserverpb.Lease/LeaseGrant',
  leaseKeepAlive: '/etcdserverpb.Lease/LeaseKeepAlive',
  leaseRevoke: '/etcdserverpb.Lease/LeaseRevoke',
  authenticate: '/etcdserverpb.Auth/Authenticate',
} as const;
export type Method = (typeof METHODS)[keyof typeof METHODS];

/** Revisions of etcd itself; those of the port are smaller by a constant, see `EtcdStoreOptions.revisionOffset`. */
export interface EtcdEntry {
  readonly key: string;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
}

export interface RangeAnswer {
  /** The newest revision of the store when it answered, whatever revision was read. */
  readonly revision: number;
  readonly entries: readonly EtcdEntry[];
  readonly more: boolean;
}

export interface TxnAnswer {
  readonly revision: number;
  readonly succeeded: boolean;
  /** If it did not succeed: what each compared key has. */
  readonly found: readonly (EtcdEntry | undefined)[];
}

export type EtcdEvent =
  | { readonly type: 'put'; readonly entry: EtcdEntry }
  | { readonly type: 'delete'; readonly key: string; readonly modRevision: number };

export interface WatchAnswer {
  readonly created: boolean;
  readonly canceled: boolean;
  /** Why it was cancelled, in etcd's words; often empty. */
  readonly reason: string;
  /** Not 0 if it was cancelled because the start is compacted. */
  readonly compactRevision: number;
  /** In order; all events of a revision are in one answer. */
  readonly events: readonly EtcdEvent[];
}

/** From the zero byte to the zero byte is how etcd spells "every key". */
const EVERY_KEY = Uint8Array.of(0);
/** `Compare.CompareTarget`: the revision of the last change. EQUAL, the result, is 0. */
const TARGET_MOD = 2;
/** `Event.EventType`. */
const EVENT_DELETE = 1;

/** Keys that start with `prefix`, from behind `after` on. */
export function rangeRequest(options: {
  readonly prefix: string;
  readonly after?: string | undefined;
  readonly limit: number;
  readonly revision: number;
}): Pieces {
  const { prefix, after, limit, revision } = options;
  return [
    ...bytesField(1, after === undefined ? prefix : `${after}\0`),
    ...bytesField(2, endOfPrefix(prefix)),
    ...numberField(3, limit),
    ...numberField(4, revision),
  ];
}

/** Asks for nothing but how far the cluster is: the answer comes when this read is ordered behind all earlier writes. */
export function revisionRequest(prefix: string): Pieces {
  return [...bytesField(1, prefix), ...boolField(9, true)];
}

export function txnRequest(
  prefix: string,
  compares: readonly (Compare & { readonly etcdRevision: number })[],
  operations: readonly WriteOp[],
): Pieces {
  return [
    ...compares.flatMap(({ key, etcdRevision }) =>
      // A revision of 0, which says that there is no such key, is what etcd takes a missing one for.
      messageField(
        1,
        numberField(2, TARGET_MOD),
        bytesField(3, prefix + key),
        numberField(6, etcdRevision),
      ),
    ),
    ...operations.flatMap((op) => messageField(2, requestOf(prefix, op))),
    ...compares.flatMap(({ key }) => messageField(3, messageField(1, bytesField(1, prefix + key)))),
  ];
}

function requestOf(prefix: string, op: WriteOp): Pieces {
  const key = bytesField(1, prefix + op.key);
  return op.type === 'put'
    ? messageField(2, key, bytesField(2, op.value), numberField(3, op.lease ?? 0))
    : messageField(3, key);
}

/** @param ttlMs etcd counts whole seconds */
export function leaseGrantRequest(id: number, ttlMs: number): Pieces {
  return [...numberField(1, Math.ceil(ttlMs / 1000)), ...numberField(2, id)];
}

/** For a keep-alive or a revocation. */
export function leaseRequest(id: number): Pieces {
  return numberField(1, id);
}

/** Of a grant or a keep-alive. @returns 0 if there is no such lease @throws DecodeError */
export function decodeLeaseTtlMs(answer: Uint8Array): number {
  let seconds = 0;
  for (const field of readFields(answer)) if (field.number === 3) seconds = numberOf(field, 'TTL');
  return 1000 * Math.max(0, seconds);
}

export function compactRequest(etcdRevision: number): Pieces {
  return numberField(1, etcdRevision);
}

export function authenticateRequest(name: string, password: string): Pieces {
  return [...bytesField(1, name), ...bytesField(2, password)];
}

/** @returns the token; empty if the answer has none @throws DecodeError */
export function decodeToken(answer: Uint8Array): string {
  let token = '';
  for (const field of readFields(answer)) if (field.number === 2) token = textOf(field, 'token');
  return token;
}

export function watchRequest(startRevision: number): Pieces {
  return messageField(
    1,
    bytesField(1, EVERY_KEY),
    bytesField(2, EVERY_KEY),
    numberField(3, startRevision),
  );
}

/** Of any answer: which cluster gave it. @returns `undefined` if it does not say @throws DecodeError */
export function decodeClusterId(answer: Uint8Array): bigint | undefined {
  for (const header of readFields(answer)) {
    // It is the first field of every answer.
    if (header.number !== 1) return undefined;
    for (const field of readFields(bytesOf(header, 'header')))
      if (field.number === 1 && field.wire === WIRE_VARINT) return field.value;
    return undefined;
  }
  return undefined;
}

/** @throws DecodeError */
export function decodeRange(answer: Uint8Array): RangeAnswer {
  let revision = 0;
  let more = false;
  const entries: EtcdEntry[] = [];
  for (const field of readFields(answer)) {
    if (field.number === 1) revision = decodeRevision(field);
    else if (field.number === 2) entries.push(decodeEntry(field));
    else if (field.number === 3) more = numberOf(field, 'more') !== 0;
  }
  return { revision, entries, more };
}

/** @throws DecodeError */
export function decodeTxn(answer: Uint8Array): TxnAnswer {
  let revision = 0;
  let succeeded = false;
  const found: (EtcdEntry | undefined)[] = [];
  for (const field of readFields(answer)) {
    if (field.number === 1) revision = decodeRevision(field);
    else if (field.number === 2) succeeded = numberOf(field, 'succeeded') !== 0;
    else if (field.number === 3) found.push(decodeFound(field));
  }
  // What a transaction that was made has to say of its own operations is of no use.
  return { revision, succeeded, found: succeeded ? [] : found };
}

/** A `ResponseOp`: of those that we ask for only a range has something in it. */
function decodeFound(response: WireField): EtcdEntry | undefined {
  for (const field of readFields(bytesOf(response, 'responses')))
    if (field.number === 1) return decodeRange(bytesOf(field, 'response_range')).entries[0];
  return undefined;
}

/** @throws DecodeError */
export function decodeWatch(answer: Uint8Array): WatchAnswer {
  let created = false;
  let canceled = false;
  let compactRevision = 0;
  let reason = '';
  const events: EtcdEvent[] = [];
  for (const field of readFields(answer))
    switch (field.number) {
      case 3:
        created = numberOf(field, 'created') !== 0;
        break;
      case 4:
        canceled = numberOf(field, 'canceled') !== 0;
        break;
      case 5:
        compactRevision = numberOf(field, 'compact_revision');
        break;
      case 6:
        reason = textOf(field, 'cancel_reason');
        break;
      case 11:
        events.push(decodeEvent(field));
        break;
      default:
    }
  return { created, canceled, reason, compactRevision, events };
}

function decodeEvent(event: WireField): EtcdEvent {
  let type = 0;
  let entry: EtcdEntry | undefined;
  for (const field of readFields(bytesOf(event, 'events'))) {
    if (field.number === 1) type = numberOf(field, 'type');
    else if (field.number === 2) entry = decodeEntry(field);
  }
  if (entry === undefined) throw problem('kv', 'an event has none');
  if (type === EVENT_DELETE)
    return { type: 'delete', key: entry.key, modRevision: entry.modRevision };
  if (type !== 0) throw problem('type', `${type} is no type of event`);
  return { type: 'put', entry };
}

function decodeRevision(header: WireField): number {
  for (const field of readFields(bytesOf(header, 'header')))
    if (field.number === 3) return numberOf(field, 'revision');
  return 0;
}

function decodeEntry(kv: WireField): EtcdEntry {
  let key = '';
  let value: Uint8Array = new Uint8Array();
  let createRevision = 0;
  let modRevision = 0;
  for (const field of readFields(bytesOf(kv, 'kv')))
    switch (field.number) {
      case 1:
        key = textOf(field, 'key');
        break;
      case 2:
        createRevision = numberOf(field, 'create_revision');
        break;
      case 3:
        modRevision = numberOf(field, 'mod_revision');
        break;
      case 5:
        value = bytesOf(field, 'value');
        break;
      default:
    }
  return { key, value, createRevision, modRevision };
}

/** The first key behind all that start with `prefix`: its last byte raised by one (no UTF-8 byte is 0xff). */
function endOfPrefix(prefix: string): Uint8Array {
  const bytes = Buffer.from(prefix, 'utf8');
  const last = bytes.length - 1;
  if (last < 0) return EVERY_KEY;
  bytes[last] = (bytes[last] ?? 0) + 1;
  return bytes;
}

function bytesOf(field: WireField, name: string): Uint8Array {
  if (field.wire !== WIRE_LEN) throw problem(name, `wire type ${field.wire} where bytes belong`);
  return field.value;
}

function textOf(field: WireField, name: string): string {
  const { buffer, byteOffset, byteLength } = bytesOf(field, name);
  return Buffer.from(buffer, byteOffset, byteLength).toString('utf8');
}

/** An `int64`, or a `bool`, which is 0 or 1. */
function numberOf(field: WireField, name: string): number {
  if (field.wire !== WIRE_VARINT)
    throw problem(name, `wire type ${field.wire} where a number belongs`);
  const number = Number(BigInt.asIntN(64, field.value));
  if (!Number.isSafeInteger(number)) throw problem(name, `${field.value} is too large`);
  return number;
}

function problem(field: string, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'etcd', field });
}
