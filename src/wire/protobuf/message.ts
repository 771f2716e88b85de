/**
 * Messages by tables: from bytes to the JSON form of the same value.
 *
 * Kubernetes writes protobuf 2 with every field that is not a pointer in Go, zero or not, and its JSON leaves zero
 * values out. So a table says of each field whether zero means "not there" (`one`) or is a value (`optional`).
 */
import { DecodeError } from '#lib/errors.ts';
import { readFields, readText, WIRE_LEN, WIRE_VARINT, type WireField } from './reader.ts';

/** Messages inside messages. The deepest kind of ours has eight; a schema that contains itself is the other reason. */
export const MAX_MESSAGE_DEPTH = 64;
/** Values in one message tree: two bytes can say "an empty element", which takes hundreds in memory. */
export const MAX_VALUES = 200_000;
/** Unknown fields are named to the client, but not without end. */
const MAX_UNKNOWN_FIELDS = 20;

export type ScalarType = 'string' | 'bytes' | 'int32' | 'int64' | 'bool';

export interface FieldTable {
  /** In JSON. Empty: the fields of the message stand in the enclosing object (an embedded struct). */
  readonly name: string;
  readonly type: ScalarType | MessageTable;
  /** `one`: left out when it is zero. `optional`: kept. `map`: keys are text, `type` is that of the values. */
  readonly shape: 'one' | 'optional' | 'list' | 'map';
}

export interface MessageTable {
  readonly name: string;
  readonly fields: Readonly<Record<number, FieldTable>>;
  /** Makes another value of it: a time, a quantity. @returns `undefined` for "not there" */
  readonly convert?: (value: Record<string, unknown>) => unknown;
}

export interface Decoded {
  readonly value: Record<string, unknown>;
  /** Fields that the table does not have, as `spec.containers[0].field 99`. */
  readonly unknownFields: readonly string[];
}

interface State {
  values: number;
  readonly unknown: string[];
}

/** @throws DecodeError for bytes that are not such a message, or that exceed the bounds above */
export function decodeMessage(bytes: Uint8Array, table: MessageTable): Decoded {
  const state: State = { values: 0, unknown: [] };
  return {
    value: fieldsOf(bytes, table, { path: '', depth: 0, state }),
    unknownFields: state.unknown,
  };
}

interface Place {
  readonly path: string;
  readonly depth: number;
  readonly state: State;
}

function fieldsOf(bytes: Uint8Array, table: MessageTable, place: Place): Record<string, unknown> {
  if (place.depth > MAX_MESSAGE_DEPTH)
    throw broken(
      place.path || table.name,
      `messages are nested more than ${MAX_MESSAGE_DEPTH} deep`,
    );
  const object: Record<string, unknown> = {};
  const maps = new Map<string, [string, unknown][]>();
  for (const field of readFields(bytes)) {
    if (++place.state.values > MAX_VALUES)
      throw broken(place.path || table.name, `it has more than ${MAX_VALUES} values`);
    const known = table.fields[field.number];
    if (known === undefined) noteUnknown(place, table, field.number);
    else addField(object, maps, known, { field, place });
  }
  for (const [name, entries] of maps) object[name] = Object.fromEntries(entries);
  return object;
}

function addField(
  object: Record<string, unknown>,
  maps: Map<string, [string, unknown][]>,
  known: FieldTable,
  { field, place }: { field: WireField; place: Place },
): void {
  const { name, shape } = known;
  const inside = (suffix: string): Place => ({
    ...place,
    path: joinPath(place.path, suffix),
    depth: place.depth + 1,
  });
  if (shape === 'list') {
    const list = (object[name] ?? []) as unknown[];
    const value = decodeValue(field, known.type, inside(`${name}[${list.length}]`));
    if (value !== undefined) list.push(value);
    object[name] = list;
  } else if (shape === 'map') {
    const entries = maps.get(name) ?? [];
    maps.set(name, entries);
    entries.push(entryOf(field, known.type, inside(name)));
  } else {
    const value = decodeValue(field, known.type, inside(name));
    if (name === '') Object.assign(object, value);
    else if (value === undefined || (shape === 'one' && isZero(value))) delete object[name];
    else object[name] = value;
  }
}

function decodeValue(field: WireField, type: FieldTable['type'], place: Place): unknown {
  if (typeof type === 'object') {
    const value = fieldsOf(bytesOf(field, place), type, place);
    return type.convert === undefined ? value : type.convert(value);
  }
  switch (type) {
    case 'string':
      return readText(bytesOf(field, place), place.path);
    case 'bytes':
      return Buffer.from(bytesOf(field, place)).toString('base64');
    case 'bool':
      return varintOf(field, place) !== 0n;
    case 'int32':
      return Number(BigInt.asIntN(32, varintOf(field, place)));
    case 'int64':
      return safeInteger(BigInt.asIntN(64, varintOf(field, place)), place);
  }
}

/** An entry of a map is a message of its own: 1 is the key, 2 the value. */
function entryOf(field: WireField, type: FieldTable['type'], place: Place): [string, unknown] {
  const table: MessageTable = {
    name: 'entry',
    fields: {
      1: { name: 'key', type: 'string', shape: 'optional' },
      2: { name: 'value', type, shape: 'optional' },
    },
  };
  const { key = '', value = zeroOf(type) } = fieldsOf(bytesOf(field, place), table, place);
  return [key as string, value];
}

function zeroOf(type: FieldTable['type']): unknown {
  if (typeof type === 'object') return type.convert === undefined ? {} : type.convert({});
  if (type === 'bool') return false;
  return type === 'string' || type === 'bytes' ? '' : 0;
}

function isZero(value: unknown): boolean {
  if (typeof value === 'object' && value !== null) return Object.keys(value).length === 0;
  return value === '' || value === 0 || value === false;
}

function bytesOf(field: WireField, place: Place): Uint8Array {
  if (field.wire === WIRE_LEN) return field.value;
  throw broken(place.path, `wire type ${field.wire} where text, bytes or a message belong`);
}

function varintOf(field: WireField, place: Place): bigint {
  if (field.wire === WIRE_VARINT) return field.value;
  throw broken(place.path, `wire type ${field.wire} where a number belongs`);
}

function safeInteger(value: bigint, place: Place): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw broken(place.path, `${value} is more than JSON numbers hold exactly`);
}

function noteUnknown({ path, state }: Place, table: MessageTable, number: number): void {
  if (state.unknown.length >= MAX_UNKNOWN_FIELDS) return;
  const name = joinPath(path, `field ${number} of ${table.name}`);
  if (!state.unknown.includes(name)) state.unknown.push(name);
}

function joinPath(path: string, name: string): string {
  if (name === '') return path;
  return path === '' ? name : `${path}.${name}`;
}

function broken(field: string, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'protobuf', field });
}
