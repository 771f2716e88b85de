/** Pruning and defaulting: what is left of an object of a custom kind, and what is added to it. Pure. */
import type { FieldError } from '../../kind.ts';
import { invalid } from '../../machinery/field-errors.ts';
import { copyJson, isObject, type JsonObject, setField } from '../../machinery/json.ts';
import { OBJECT_META_SCHEMA } from '../../machinery/schema.ts';
import {
  type DecodedFields,
  decodeFields,
  MAX_DEPTH,
  suggestName,
  type UnknownField,
} from '../../machinery/unknown-fields.ts';
import {
  additionalOf,
  EMBEDDED_FIELDS,
  type JsonSchema,
  keepsUnknown,
  propertyOf,
} from './json-schema.ts';

/** More than a person reads. */
const MAX_PROBLEMS = 100;

interface Walk {
  readonly unknownFields: UnknownField[];
  readonly typeErrors: FieldError[];
}

/** Reads a whole object: unknown fields are dropped and named, the metadata is what metadata is. */
export function decodeCustom(schema: JsonSchema, sent: JsonObject): DecodedFields {
  const walk: Walk = { unknownFields: [], typeErrors: [] };
  const object = prune(schema, sent, { field: '', depth: 0, walk, isWhole: true });
  return { object: isObject(object) ? object : {}, ...walk };
}

/** A value without the fields that its schema does not know. */
export function pruneFields(
  schema: JsonSchema,
  value: unknown,
  field: string,
): { value: unknown; unknownFields: readonly UnknownField[] } {
  const walk: Walk = { unknownFields: [], typeErrors: [] };
  return {
    value: prune(schema, value, { field, depth: 0, walk, isWhole: false }),
    unknownFields: walk.unknownFields,
  };
}

interface Place {
  readonly field: string;
  readonly depth: number;
  readonly walk: Walk;
  /** An object with metadata. */
  readonly isWhole: boolean;
}

function prune(schema: JsonSchema, value: unknown, place: Place): unknown {
  if (place.depth > MAX_DEPTH) {
    place.walk.typeErrors.push(
      invalid(place.field, '…', `must not be nested deeper than ${MAX_DEPTH}`),
    );
    return undefined;
  }
  if (Array.isArray(value))
    return value.map((item, i) =>
      prune(schema.items ?? KEEP_ALL, item, inside(place, `[${i}]`, schema.items)),
    );
  if (!isObject(value)) return value;
  const result: JsonObject = {};
  for (const [name, part] of Object.entries(value)) {
    const at = place.field === '' ? name : `${place.field}.${name}`;
    if (place.isWhole && EMBEDDED_FIELDS.some((field) => field === name)) {
      setField(result, name, name === 'metadata' ? pruneMetadata(part, at, place.walk) : part);
      continue;
    }
    const property =
      propertyOf(schema, name) ??
      additionalOf(schema) ??
      (keepsUnknown(schema) ? KEEP_ALL : undefined);
    if (property !== undefined) {
      // As upstream: `null` where it is not allowed is a missing field if there is a default.
      if (part === null && property.nullable !== true && property.default !== undefined) continue;
      setField(result, name, prune(property, part, { ...inside(place, '', property), field: at }));
    } else if (place.walk.unknownFields.length < MAX_PROBLEMS)
      place.walk.unknownFields.push({
        field: at,
        suggestion: suggestName(name, Object.keys(schema.properties ?? {})),
      });
  }
  return result;
}

const KEEP_ALL: JsonSchema = { 'x-kubernetes-preserve-unknown-fields': true };

function pruneMetadata(value: unknown, field: string, walk: Walk): unknown {
  if (!isObject(value)) {
    walk.typeErrors.push(invalid(field, value, 'must be an object'));
    return {};
  }
  const decoded = decodeFields(OBJECT_META_SCHEMA, value);
  walk.unknownFields.push(
    ...decoded.unknownFields.map((unknown) => ({ ...unknown, field: `${field}.${unknown.field}` })),
  );
  walk.typeErrors.push(
    ...decoded.typeErrors.map((error) => ({ ...error, field: `${field}.${error.field}` })),
  );
  return decoded.object;
}

function inside(place: Place, step: string, schema: JsonSchema | undefined): Place {
  return {
    field: place.field + step,
    depth: place.depth + 1,
    walk: place.walk,
    isWhole: schema?.['x-kubernetes-embedded-resource'] === true,
  };
}

/** A value with the defaults of what is missing in it. The argument is not changed; unchanged parts are shared. */
export function defaultFields(schema: JsonSchema, value: unknown): unknown {
  if (Array.isArray(value)) {
    const { items } = schema;
    if (items === undefined) return value;
    const filled = value.map((item) => defaultFields(items, item));
    return filled.some((item, i) => item !== value[i]) ? filled : value;
  }
  if (!isObject(value)) return value;
  let result: JsonObject | undefined;
  const change = (name: string, part: unknown) => {
    result ??= { ...value };
    setField(result, name, part);
  };
  for (const [name, property] of Object.entries(schema.properties ?? {}))
    if (property.default !== undefined && !Object.hasOwn(value, name)) {
      if (property.default === null && property.nullable !== true) continue;
      change(name, copyJson(property.default));
    }
  const additional = additionalOf(schema);
  for (const [name, part] of Object.entries(result ?? value)) {
    const property = propertyOf(schema, name) ?? additional;
    if (property === undefined) continue;
    const filled = defaultFields(property, part);
    if (filled !== part) change(name, filled);
  }
  return result ?? value;
}
