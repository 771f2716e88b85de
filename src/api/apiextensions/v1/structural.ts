/**
 * Whether a schema is *structural*: it says of every field what it is, in one place, so that objects can be pruned and
 * defaulted. `kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions`
 *
 * - every field and element has a type, but for int-or-string and what is preserved unknown;
 * - what `allOf`, `anyOf`, `oneOf` and `not` speak of is also said outside of them, and they add no structure themselves;
 * - `metadata` may only be restricted in `name` and `generateName`.
 */
import type { FieldError } from '../../kind.ts';
import { forbidden, invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { isObject, type JsonObject } from '../../machinery/json.ts';
import { defaultFields, pruneFields } from './decode.ts';
import { additionalOf, type JsonSchema } from './json-schema.ts';
import { compilePattern } from './pattern.ts';
import { validateValue } from './validate-value.ts';

const TYPES = ['array', 'boolean', 'integer', 'number', 'object', 'string'];
const LIST_TYPES = ['atomic', 'map', 'set'];
const MAP_TYPES = ['atomic', 'granular'];
/** Deeper schemas have no use; bounds the recursion of all who walk schemas. */
export const MAX_SCHEMA_DEPTH = 60;
/** More mistakes than a person reads. */
const MAX_ERRORS = 50;
/** Fields of JSON Schema that would make a schema more than a structure. */
const FORBIDDEN = [
  '$ref',
  'definitions',
  'dependencies',
  'patternProperties',
  'additionalItems',
  'id',
  '$schema',
];
/** What stands outside of `allOf` and the like. */
const STRUCTURE = ['type', 'description', 'title', 'default', 'additionalProperties', 'nullable'];
const JUNCTORS = ['allOf', 'anyOf', 'oneOf'] as const;
const COUNTS = [
  'minLength',
  'maxLength',
  'minItems',
  'maxItems',
  'minProperties',
  'maxProperties',
] as const;

interface Place {
  readonly field: string;
  readonly depth: number;
  readonly errors: FieldError[];
}

/** @param schema any JSON value, as a client sent it */
export function checkStructural(schema: unknown, field: string): FieldError[] {
  const errors: FieldError[] = [];
  const place = { field, depth: 0, errors };
  if (!isObject(schema)) return [required(field, 'schemas are required')];
  if (schema.type !== 'object')
    errors.push(invalid(`${field}.type`, schema.type, 'must be object at the root'));
  checkNode(schema, place);
  if (errors.length === 0) {
    checkMetadata(schema as JsonSchema, field, errors);
    checkDefaults(schema as JsonSchema, place);
  }
  return errors.slice(0, MAX_ERRORS);
}

function checkNode(schema: JsonObject, place: Place): void {
  const { errors, field, depth } = place;
  if (errors.length >= MAX_ERRORS) return;
  if (depth > MAX_SCHEMA_DEPTH) {
    errors.push(invalid(field, '…', `must not be nested deeper than ${MAX_SCHEMA_DEPTH}`));
    return;
  }
  const isIntOrString = schema['x-kubernetes-int-or-string'] === true;
  const isPreserved = schema['x-kubernetes-preserve-unknown-fields'] === true;
  if (isIntOrString && schema.type !== undefined)
    errors.push(forbidden(`${field}.type`, 'must be empty if x-kubernetes-int-or-string is true'));
  else if (schema.type === undefined && !isIntOrString && !isPreserved)
    errors.push(required(`${field}.type`, 'must not be empty for specified object fields'));
  else if (schema.type !== undefined && !TYPES.includes(String(schema.type)))
    errors.push(notSupported(`${field}.type`, schema.type, TYPES));
  checkWords(schema, place);
  checkProperties(schema, place);
  checkItems(schema, place);
  checkExtensions(schema, place);
  checkJunctors(schema, place, isIntOrString);
}

/** Words that stand for one value each. */
function checkWords(schema: JsonObject, { field, errors }: Place): void {
  for (const word of FORBIDDEN)
    if (schema[word] !== undefined) errors.push(forbidden(`${field}.${word}`, 'must not be set'));
  if (schema.uniqueItems === true)
    errors.push(
      forbidden(
        `${field}.uniqueItems`,
        'uniqueItems cannot be set to true since the runtime complexity becomes quadratic',
      ),
    );
  for (const word of COUNTS) {
    const value = schema[word];
    if (
      value !== undefined &&
      !(typeof value === 'number' && Number.isInteger(value) && value >= 0)
    )
      errors.push(
        invalid(`${field}.${word}`, value, 'must be a whole number that is not negative'),
      );
  }
  for (const word of ['minimum', 'maximum', 'multipleOf'])
    if (schema[word] !== undefined && typeof schema[word] !== 'number')
      errors.push(invalid(`${field}.${word}`, schema[word], 'must be a number'));
  if (schema.multipleOf !== undefined && !(Number(schema.multipleOf) > 0))
    errors.push(invalid(`${field}.multipleOf`, schema.multipleOf, 'must be greater than 0'));
  if (schema.enum !== undefined && (!Array.isArray(schema.enum) || schema.enum.length === 0))
    errors.push(invalid(`${field}.enum`, schema.enum, 'must be a list with at least one value'));
  checkStrings(schema.required, `${field}.required`, errors);
  if (schema.pattern !== undefined) {
    const compiled =
      typeof schema.pattern === 'string' ? compilePattern(schema.pattern) : 'it is no text';
    if (typeof compiled === 'string')
      errors.push(
        invalid(
          `${field}.pattern`,
          schema.pattern,
          `must be a valid regular expression, but isn't: ${compiled}`,
        ),
      );
  }
}

function checkStrings(value: unknown, field: string, errors: FieldError[]): void {
  if (value === undefined) return;
  if (!Array.isArray(value) || value.some((item) => typeof item !== 'string'))
    errors.push(invalid(field, value, 'must be a list of texts'));
}

function checkProperties(schema: JsonObject, place: Place): void {
  const { properties, additionalProperties } = schema;
  const { field, errors } = place;
  if (properties !== undefined && !isObject(properties)) {
    errors.push(invalid(`${field}.properties`, properties, 'must be an object'));
    return;
  }
  for (const [name, property] of Object.entries(properties ?? {}))
    checkChild(property, inside(place, `.properties[${name}]`));
  if (additionalProperties === undefined) return;
  if (properties !== undefined && Object.keys(properties).length > 0)
    errors.push(
      forbidden(
        `${field}.additionalProperties`,
        'additionalProperties and properties are mutual exclusive',
      ),
    );
  else if (additionalProperties === false)
    errors.push(forbidden(`${field}.additionalProperties`, 'must not be set to false'));
  else if (additionalProperties !== true)
    checkChild(additionalProperties, inside(place, '.additionalProperties'));
}

function checkItems(schema: JsonObject, place: Place): void {
  const { items, type } = schema;
  if (type === 'array' && items === undefined)
    place.errors.push(required(`${place.field}.items`, 'must be specified'));
  if (items === undefined) return;
  if (Array.isArray(items))
    place.errors.push(
      forbidden(`${place.field}.items`, 'items must be a schema object and not an array'),
    );
  else checkChild(items, inside(place, '.items'));
}

function checkChild(value: unknown, place: Place): void {
  if (isObject(value)) checkNode(value, place);
  else place.errors.push(invalid(place.field, value, 'must be a schema object'));
}

function checkExtensions(schema: JsonObject, { field, errors }: Place): void {
  const { type, properties } = schema;
  const listType = schema['x-kubernetes-list-type'];
  const mapType = schema['x-kubernetes-map-type'];
  const keys = schema['x-kubernetes-list-map-keys'];
  const preserve = schema['x-kubernetes-preserve-unknown-fields'];
  if (preserve !== undefined && preserve !== true)
    errors.push(
      invalid(
        `${field}.x-kubernetes-preserve-unknown-fields`,
        preserve,
        'must be true or undefined',
      ),
    );
  if (schema['x-kubernetes-embedded-resource'] === true) {
    if (type !== 'object')
      errors.push(
        invalid(`${field}.type`, type, 'must be object if x-kubernetes-embedded-resource is true'),
      );
    if (preserve !== true && (!isObject(properties) || Object.keys(properties).length === 0))
      errors.push(
        required(
          `${field}.properties`,
          'must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields',
        ),
      );
  }
  if (mapType !== undefined && !MAP_TYPES.includes(String(mapType)))
    errors.push(notSupported(`${field}.x-kubernetes-map-type`, mapType, MAP_TYPES));
  if (mapType !== undefined && type !== 'object')
    errors.push(
      invalid(`${field}.type`, type, 'must be object if x-kubernetes-map-type is specified'),
    );
  if (keys !== undefined && listType !== 'map')
    errors.push(
      forbidden(
        `${field}.x-kubernetes-list-map-keys`,
        'must be empty if x-kubernetes-list-type is not map',
      ),
    );
  if (listType === undefined) return;
  if (!LIST_TYPES.includes(String(listType)))
    errors.push(notSupported(`${field}.x-kubernetes-list-type`, listType, LIST_TYPES));
  if (type !== 'array')
    errors.push(
      invalid(`${field}.type`, type, 'must be array if x-kubernetes-list-type is specified'),
    );
  if (listType === 'map') checkMapKeys(schema, field, errors);
}

function checkMapKeys(schema: JsonObject, field: string, errors: FieldError[]): void {
  const keys = schema['x-kubernetes-list-map-keys'];
  const at = `${field}.x-kubernetes-list-map-keys`;
  if (!Array.isArray(keys) || keys.length === 0) {
    errors.push(required(at, 'must not be empty if x-kubernetes-list-type is map'));
    return;
  }
  const items = isObject(schema.items) ? (schema.items as JsonSchema) : {};
  if (items.type !== 'object') {
    errors.push(
      invalid(
        `${field}.items.type`,
        items.type,
        'must be object if parent array x-kubernetes-list-type is map',
      ),
    );
    return;
  }
  for (const key of keys.map(String)) {
    const property =
      isObject(items.properties) && Object.hasOwn(items.properties, key)
        ? items.properties[key]
        : undefined;
    if (property === undefined)
      errors.push(invalid(at, key, 'entries must all be names of item properties'));
    else if (property.type === 'object' || property.type === 'array')
      errors.push(
        invalid(
          `${field}.items.properties[${key}].type`,
          property.type,
          'must be a scalar type if parent array x-kubernetes-list-type is map',
        ),
      );
    else if (
      property.default === undefined &&
      !(Array.isArray(items.required) && items.required.includes(key))
    )
      errors.push(
        required(
          `${field}.items.properties[${key}].default`,
          'this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property',
        ),
      );
  }
}

function checkJunctors(schema: JsonObject, place: Place, isIntOrString: boolean): void {
  for (const junctor of JUNCTORS) {
    const branches = schema[junctor];
    if (branches === undefined) continue;
    if (!Array.isArray(branches)) {
      place.errors.push(
        invalid(`${place.field}.${junctor}`, branches, 'must be a list of schemas'),
      );
      continue;
    }
    for (const [i, branch] of branches.entries())
      checkBranch(schema, branch, { ...inside(place, `.${junctor}[${i}]`), isIntOrString });
  }
  if (schema.not !== undefined)
    checkBranch(schema, schema.not, { ...inside(place, '.not'), isIntOrString });
}

/** @param outside the schema that says the structure */
function checkBranch(
  outside: JsonObject | undefined,
  branch: unknown,
  place: Place & { isIntOrString: boolean },
): void {
  const { field, errors, depth } = place;
  if (depth > MAX_SCHEMA_DEPTH || errors.length >= MAX_ERRORS) return;
  if (!isObject(branch)) {
    errors.push(invalid(field, branch, 'must be a schema object'));
    return;
  }
  for (const word of STRUCTURE) {
    // The one exception: an int-or-string says what it is by anyOf integer, string.
    if (word === 'type' && place.isIntOrString) continue;
    if (branch[word] !== undefined)
      errors.push(forbidden(`${field}.${word}`, 'must be empty to be structural'));
  }
  for (const word of Object.keys(branch))
    if (word.startsWith('x-kubernetes-') && word !== 'x-kubernetes-validations')
      errors.push(forbidden(`${field}.${word}`, 'must be empty to be structural'));
  checkWords(branch, place);
  const known = isObject(outside?.properties) ? outside.properties : {};
  for (const [name, property] of Object.entries(
    isObject(branch.properties) ? branch.properties : {},
  )) {
    const at = `${field}.properties[${name}]`;
    const said = Object.hasOwn(known, name)
      ? known[name]
      : isObject(outside?.additionalProperties)
        ? outside.additionalProperties
        : undefined;
    if (!isObject(said))
      errors.push(
        required(
          `${place.field}.properties[${name}]`,
          `because it is defined in ${at}, it must also be said outside of it`,
        ),
      );
    else
      checkBranch(said, property, {
        ...place,
        field: at,
        depth: depth + 1,
        isIntOrString: said['x-kubernetes-int-or-string'] === true,
      });
  }
  if (branch.items !== undefined) {
    if (isObject(outside?.items))
      checkBranch(outside.items, branch.items, {
        ...place,
        field: `${field}.items`,
        depth: depth + 1,
        isIntOrString: outside.items['x-kubernetes-int-or-string'] === true,
      });
    else errors.push(required(`${field}.items`, 'it must also be said outside'));
  }
  checkJunctorsOfBranch(outside, branch, place);
}

function checkJunctorsOfBranch(
  outside: JsonObject | undefined,
  branch: JsonObject,
  place: Place & { isIntOrString: boolean },
): void {
  for (const junctor of JUNCTORS) {
    const inner = branch[junctor];
    if (inner === undefined) continue;
    if (!Array.isArray(inner)) {
      place.errors.push(invalid(`${place.field}.${junctor}`, inner, 'must be a list of schemas'));
      continue;
    }
    for (const [i, one] of inner.entries())
      checkBranch(outside, one, {
        ...place,
        field: `${place.field}.${junctor}[${i}]`,
        depth: place.depth + 1,
      });
  }
  if (branch.not !== undefined)
    checkBranch(outside, branch.not, {
      ...place,
      field: `${place.field}.not`,
      depth: place.depth + 1,
    });
}

function checkMetadata(schema: JsonSchema, field: string, errors: FieldError[]): void {
  const metadata = schema.properties?.metadata;
  for (const name of Object.keys(metadata?.properties ?? {}))
    if (name !== 'name' && name !== 'generateName')
      errors.push(
        forbidden(
          `${field}.properties[metadata].properties[${name}]`,
          'must not specify anything other than name and generateName, but metadata is implicitly specified',
        ),
      );
}

/** Defaults are values of their own schema: they are whole, and good. */
function checkDefaults(schema: JsonSchema, place: Place): void {
  if (schema.default !== undefined) {
    const at = `${place.field}.default`;
    const { unknownFields } = pruneFields(schema, schema.default, at);
    for (const unknown of unknownFields)
      place.errors.push(
        invalid(at, schema.default, `must not have unknown fields, found ${unknown.field}`),
      );
    place.errors.push(...validateValue(schema, defaultFields(schema, schema.default), at));
  }
  for (const [name, property] of Object.entries(schema.properties ?? {}))
    checkDefaults(property, inside(place, `.properties[${name}]`));
  const additional = additionalOf(schema);
  if (additional !== undefined) checkDefaults(additional, inside(place, '.additionalProperties'));
  if (schema.items !== undefined) checkDefaults(schema.items, inside(place, '.items'));
}

function inside(place: Place, step: string): Place {
  return { field: place.field + step, depth: place.depth + 1, errors: place.errors };
}
