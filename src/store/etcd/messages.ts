/**
 * The messages of etcd's JSON gateway that we use (`/v3/kv/range`, `/v3/kv/txn`, `/v3/kv/compaction`, `/v3/watch`),
 * both ways. Pure.
 *
 * As protobuf's JSON mapping has it: bytes are base64, 64-bit integers are decimal strings, and a field with its zero
 * value is left out, so that a missing field *is* zero.
 *
 * @see etcd `api/etcdserverpb/rpc.proto`, `api/mvccpb/kv.proto`
 */
import { DecodeError } from '#lib/errors.ts';
import type { Compare, WriteOp } from '../port.ts';

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
const EVERY_KEY = Buffer.from([0]).toString('base64');

/** Keys that start with `prefix`, from behind `after` on. */
export function rangeRequest(options: {
  readonly prefix: string;
  readonly after?: string | undefined;
  readonly limit: number;
  readonly revision: number;
}): object {
  const { prefix, after, limit, revision } = options;
  return {
    key: after === undefined ? encodeText(prefix) : encodeText(`${after}\0`),
    range_end: endOfPrefix(prefix),
    limit: String(limit),
    revision: String(revision),
  };
}

/** Asks for nothing but how far the cluster is: the answer comes when this read is ordered behind all earlier writes. */
export function revisionRequest(prefix: string): object {
  return { key: encodeText(prefix), count_only: true };
}

export function txnRequest(
  prefix: string,
  compares: readonly (Compare & { readonly etcdRevision: number })[],
  operations: readonly WriteOp[],
): object {
  return {
    compare: compares.map(({ key, etcdRevision }) => ({
      key: encodeText(prefix + key),
      target: 'MOD',
      result: 'EQUAL',
      mod_revision: String(etcdRevision),
    })),
    success: operations.map((op) => {
      const key = encodeText(prefix + op.key);
      return op.type === 'put'
        ? {
            request_put: {
              key,
              value: Buffer.from(op.value).toString('base64'),
              ...(op.lease === undefined ? {} : { lease: String(op.lease) }),
            },
          }
        : { request_delete_range: { key } };
    }),
    failure: compares.map(({ key }) => ({ request_range: { key: encodeText(prefix + key) } })),
  };
}

/** @param ttlMs etcd counts whole seconds */
export function leaseGrantRequest(id: number, ttlMs: number): object {
  return { ID: String(id), TTL: String(Math.ceil(ttlMs / 1000)) };
}

/** Of a grant, or of a keep-alive, whose answer is one line of a stream. @returns 0 if there is no such lease */
export function decodeLeaseTtlMs(answer: unknown): number {
  const { result, ...own } = record(answer, 'lease');
  const { TTL } = result === undefined ? own : record(result, 'result');
  return 1000 * Math.max(0, integer(TTL, 'TTL'));
}

export function watchRequest(startRevision: number): object {
  return {
    create_request: {
      key: EVERY_KEY,
      range_end: EVERY_KEY,
      start_revision: String(startRevision),
    },
  };
}

/** @throws DecodeError */
export function decodeRange(answer: unknown): RangeAnswer {
  const { header, kvs = [], more = false } = record(answer, 'range');
  return {
    revision: decodeRevision(header),
    entries: list(kvs, 'kvs').map(decodeEntry),
    more: more === true,
  };
}

/** @throws DecodeError */
export function decodeTxn(answer: unknown): TxnAnswer {
  const { header, succeeded = false, responses = [] } = record(answer, 'txn');
  const isDone = succeeded === true;
  const found = isDone
    ? []
    : list(responses, 'responses').map((response) => {
        const range = record(record(response, 'response').response_range, 'response_range');
        const [kv] = list(range.kvs ?? [], 'kvs');
        return kv === undefined ? undefined : decodeEntry(kv);
      });
  return { revision: decodeRevision(header), succeeded: isDone, found };
}

/** @throws DecodeError */
export function decodeWatch(answer: unknown): WatchAnswer {
  const fields = record(answer, 'watch');
  return {
    created: fields.created === true,
    canceled: fields.canceled === true,
    reason: typeof fields.cancel_reason === 'string' ? fields.cancel_reason : '',
    compactRevision: integer(fields.compact_revision, 'compact_revision'),
    events: list(fields.events ?? [], 'events').map(decodeEvent),
  };
}

function decodeRevision(header: unknown): number {
  return integer(record(header, 'header').revision, 'revision');
}

function decodeEvent(event: unknown): EtcdEvent {
  const { type = 'PUT', kv } = record(event, 'event');
  if (type === 'PUT') return { type: 'put', entry: decodeEntry(kv) };
  if (type !== 'DELETE') throw problem('type', `${JSON.stringify(type)} is no type of event`);
  const { key, mod_revision } = record(kv, 'kv');
  return {
    type: 'delete',
    key: decodeKey(key),
    modRevision: integer(mod_revision, 'mod_revision'),
  };
}

function decodeEntry(kv: unknown): EtcdEntry {
  const { key, value, create_revision, mod_revision } = record(kv, 'kv');
  return {
    key: decodeKey(key),
    value: decodeBytes(value, 'value'),
    createRevision: integer(create_revision, 'create_revision'),
    modRevision: integer(mod_revision, 'mod_revision'),
  };
}

function decodeKey(key: unknown): string {
  return Buffer.from(decodeBytes(key, 'key')).toString('utf8');
}

/** Memory of its own: a slice of Node's pool would keep the whole of it. */
function decodeBytes(value: unknown, field: string): Uint8Array {
  if (value === undefined) return new Uint8Array();
  if (typeof value !== 'string') throw problem(field, 'it is no base64 text');
  return new Uint8Array(Buffer.from(value, 'base64'));
}

function encodeText(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

/** The first key behind all that start with `prefix`: its last byte raised by one (no UTF-8 byte is 0xff). */
function endOfPrefix(prefix: string): string {
  const bytes = Buffer.from(prefix, 'utf8');
  const last = bytes.length - 1;
  if (last < 0) return EVERY_KEY;
  bytes[last] = (bytes[last] ?? 0) + 1;
  return bytes.toString('base64');
}

function integer(value: unknown, field: string): number {
  if (value === undefined) return 0;
  const number = typeof value === 'string' ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw problem(field, `${JSON.stringify(value)} is no integer`);
  return number;
}

function list(value: unknown, field: string): readonly unknown[] {
  if (!Array.isArray(value)) throw problem(field, 'it is no list');
  return value;
}

function record(value: unknown, field: string): Readonly<Record<string, unknown>> {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw problem(field, 'it is no object');
  return value as Record<string, unknown>;
}

function problem(field: string, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'etcd JSON', field });
}
