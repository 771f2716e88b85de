/**
 * Compares a decoded JSON value with a schema: which fields there should not be, which have the wrong type.
 * What is left is an object that the typed code can rely on: unknown fields and `null`s are gone
 * (in Kubernetes `null` is a missing field), everything has the type that the schema says.
 */
import type { FieldError, ObjectSchema, ScalarSchema, Schema } from '../kind.ts';
import { invalid } from './field-errors.ts';
import { isObject, type JsonObject, plainJson, setField } from './json.ts';

/** Deeper values have no use and would exhaust the stack of whoever walks them. */
export const MAX_DEPTH = 100;
/** More mistakes than a person reads; bounds the answer to a hostile body. */
const MAX_PROBLEMS = 100;
/** Edits up to which a name counts as a slip of another one. */
const MAX_SLIP = 2;

export interface UnknownField {
  /** `spec.ports[0].porrt` */
  readonly field: string;
  /** The name that was probably meant: `port`. */
  readonly suggestion: string | undefined;
}

export interface DecodedFields {
  /** The value without unknown fields and `null`s. Only to be used if there are no type errors. */
  readonly object: JsonObject;
  readonly unknownFields: readonly UnknownField[];
  /** Values of the wrong type: refused whatever `fieldValidation` says. */
  readonly typeErrors: readonly FieldError[];
}

/** @param value the result of a JSON or YAML parser */
export function decodeFields(schema: ObjectSchema, value: unknown): DecodedFields {
  const walk: Walk = { unknownFields: [], typeErrors: [] };
  const object = decodeValue(schema, value, { field: '', depth: 0, walk });
  return { object: isObject(object) ? object : {}, ...walk };
}

/** `unknown field "spec.ports[0].porrt" (did you mean "port"?)` */
export function formatUnknownField({ field, suggestion }: UnknownField): string {
  const hint = suggestion === undefined ? '' : ` (did you mean "${suggestion}"?)`;
  return `unknown field "${field}"${hint}`;
}

interface Walk {
  readonly unknownFields: UnknownField[];
  readonly typeErrors: FieldError[];
}

interface Place {
  readonly field: string;
  readonly depth: number;
  readonly walk: Walk;
}

function decodeValue(schema: Schema, value: unknown, place: Place): unknown {
  if (place.depth > MAX_DEPTH)
    return mismatch(place, '…', `must not be nested deeper than ${MAX_DEPTH}`);
  switch (schema.type) {
    case 'object':
      return isObject(value)
        ? decodeObject(schema, value, place)
        : mismatch(place, value, 'must be an object');
    case 'map': {
      if (!isObject(value)) return mismatch(place, value, 'must be an object');
      const result: JsonObject = {};
      for (const [key, item] of Object.entries(value))
        if (isGoodScalar(schema.values, item)) setField(result, key, item);
        else if (item !== null)
          setField(result, key, decodeValue(schema.values, item, inside(place, `[${key}]`)));
        // A label with `null` is an empty one, as in Go; other maps have no use for it.
        else if (schema.values.type === 'string') setField(result, key, '');
      return result;
    }
    case 'array':
      return Array.isArray(value)
        ? value.map((item, i) => decodeValue(schema.items, item, inside(place, `[${i}]`)))
        : mismatch(place, value, 'must be an array');
    case 'any':
      return decodeAny(value, place);
    default: {
      const wrong = checkScalar(schema, value);
      if (wrong === undefined) return value;
      return mismatch(place, schema.format === 'byte' ? '<hidden>' : value, wrong);
    }
  }
}

function decodeObject(schema: ObjectSchema, value: JsonObject, place: Place): JsonObject {
  const result: JsonObject = {};
  for (const key of Object.keys(value)) {
    const item = value[key];
    const field = Object.hasOwn(schema.fields, key) ? schema.fields[key] : undefined;
    if (field !== undefined && isGoodScalar(field, item)) {
      setField(result, key, item);
      continue;
    }
    const at = inside(place, place.field === '' ? key : `.${key}`);
    if (field === undefined) {
      if (schema.open) setField(result, key, decodeAny(item, at));
      else if (place.walk.unknownFields.length < MAX_PROBLEMS)
        place.walk.unknownFields.push({
          field: at.field,
          suggestion: suggestName(key, Object.keys(schema.fields)),
        });
    } else if (item !== null) setField(result, key, decodeValue(field, item, at));
  }
  return result;
}

/** Copies what no schema describes. `null` has its own meaning there and stays. */
function decodeAny(value: unknown, place: Place): unknown {
  return isWithin(value, MAX_DEPTH - place.depth)
    ? plainJson(value)
    : mismatch(place, '…', `must not be nested deeper than ${MAX_DEPTH}`);
}

/** Whether a value has at most so many levels below its own. */
function isWithin(value: unknown, levels: number): boolean {
  if (levels < 0) return false;
  if (Array.isArray(value)) return value.every((item) => isWithin(item, levels - 1));
  if (!isObject(value)) return true;
  for (const key in value) if (!isWithin(value[key], levels - 1)) return false;
  return true;
}

const BASE64_PATTERN = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
/** RFC 3339 section 5.6. */
const TIME_PATTERN = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

/** Most values are; where they stand need not be known then. */
function isGoodScalar(schema: Schema, value: unknown): boolean {
  if (schema.type === 'string' && schema.format === undefined) return typeof value === 'string';
  return schema.type === 'boolean' && typeof value === 'boolean';
}

function checkScalar(schema: ScalarSchema, value: unknown): string | undefined {
  switch (schema.type) {
    case 'string':
      if (typeof value !== 'string') return 'must be a string';
      if (
        schema.format === 'date-time' &&
        (!TIME_PATTERN.test(value) || Number.isNaN(Date.parse(value)))
      )
        return 'must be a time (e.g. "2006-01-02T15:04:05Z")';
      if (schema.format === 'byte' && !BASE64_PATTERN.test(value.replace(/[\r\n]/g, '')))
        return 'must be base64';
      return undefined;
    case 'boolean':
      return typeof value === 'boolean' ? undefined : 'must be true or false';
    case 'number':
      return typeof value === 'number' ? undefined : 'must be a number';
    case 'integer':
      return checkInteger(value, schema.format);
    case 'int-or-string':
      return typeof value === 'string' ? undefined : checkIntOrString(value);
    case 'any':
      return undefined;
  }
}

const MAX_INT32 = 2 ** 31 - 1;

function checkInteger(value: unknown, format: string | undefined): string | undefined {
  if (typeof value !== 'number' || !Number.isInteger(value)) return 'must be an integer';
  const max = format === 'int64' ? Number.MAX_SAFE_INTEGER : MAX_INT32;
  return Math.abs(value) <= max ? undefined : `must be between -${max} and ${max}, inclusive`;
}

function checkIntOrString(value: unknown): string | undefined {
  return checkInteger(value, 'int32') === undefined ? undefined : 'must be an integer or a string';
}

function mismatch(place: Place, value: unknown, wanted: string): undefined {
  if (place.walk.typeErrors.length < MAX_PROBLEMS)
    place.walk.typeErrors.push(invalid(place.field || '(the whole object)', shown(value), wanted));
  return undefined;
}

/** Whole objects would drown the message. */
function shown(value: unknown): unknown {
  if (Array.isArray(value)) return '[…]';
  return isObject(value) ? '{…}' : value;
}

function inside(place: Place, step: string): Place {
  return { field: place.field + step, depth: place.depth + 1, walk: place.walk };
}

/** The one of the names that `name` is most likely a slip of. */
export function suggestName(name: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.min(MAX_SLIP, Math.floor(name.length / 2)) + 1;
  for (const candidate of names) {
    if (Math.abs(candidate.length - name.length) >= bestDistance) continue;
    const distance =
      candidate.toLowerCase() === name.toLowerCase() ? 0 : editDistance(name, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next[j] = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, swap);
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
