/** Whether a value is what a schema of a custom resource says. The words of messages are upstream's. Pure. */
import { parseCidr, parseIp } from '#lib/ip.ts';
import type { FieldError } from '../../kind.ts';
import { duplicate, invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { canonicalJson, isObject, ownField, sameJson } from '../../machinery/json.ts';
import { additionalOf, type JsonSchema, propertyOf } from './json-schema.ts';
import { compilePattern } from './pattern.ts';

/** More mistakes than a person reads; bounds the answer to a large bad object. */
const MAX_ERRORS = 100;

/** @param field where the value stands: `spec.rules[0]` */
export function validateValue(schema: JsonSchema, value: unknown, field: string): FieldError[] {
  const errors: FieldError[] = [];
  check(schema, value, { field, errors });
  return errors.slice(0, MAX_ERRORS);
}

interface Place {
  readonly field: string;
  readonly errors: FieldError[];
}

function check(schema: JsonSchema, value: unknown, place: Place): void {
  if (place.errors.length >= MAX_ERRORS) return;
  if (value === null && schema.nullable === true) return;
  if (!hasType(schema, value)) {
    const type = schema['x-kubernetes-int-or-string'] ? 'integer,string' : schema.type;
    place.errors.push(
      invalid(
        place.field,
        shown(value),
        `${place.field} in body must be of type ${type}: "${typeName(value)}"`,
      ),
    );
    return;
  }
  checkEnum(schema, value, place);
  if (typeof value === 'string') checkString(schema, value, place);
  else if (typeof value === 'number') checkNumber(schema, value, place);
  else if (Array.isArray(value)) checkList(schema, value, place);
  else if (isObject(value)) checkObject(schema, value, place);
  checkJunctors(schema, value, place);
}

function hasType(schema: JsonSchema, value: unknown): boolean {
  if (schema['x-kubernetes-int-or-string'] === true)
    return typeof value === 'string' || (typeof value === 'number' && Number.isInteger(value));
  switch (schema.type) {
    case undefined:
      return true;
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    case 'integer':
      return typeof value === 'number' && Number.isInteger(value);
    default:
      return typeof value === schema.type;
  }
}

function typeName(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value;
}

/** Whole objects would drown the message. */
function shown(value: unknown): unknown {
  return typeof value === 'object' && value !== null ? typeName(value) : value;
}

function checkEnum(schema: JsonSchema, value: unknown, { field, errors }: Place): void {
  if (schema.enum === undefined || schema.enum.some((allowed) => sameJson(allowed, value))) return;
  const words = schema.enum.map((word) => (typeof word === 'string' ? word : JSON.stringify(word)));
  errors.push(notSupported(field, value, words));
}

function checkString(schema: JsonSchema, value: string, { field, errors }: Place): void {
  const wrong = (detail: string) =>
    errors.push(invalid(field, value, `${field} in body ${detail}`));
  const length =
    schema.minLength === undefined && schema.maxLength === undefined ? 0 : [...value].length;
  if (schema.maxLength !== undefined && length > schema.maxLength) {
    errors.push({
      type: 'TooLong',
      field,
      value,
      detail: `may not be more than ${schema.maxLength} bytes`,
    });
    // A pattern is not tried on a text that is too long anyway.
    return;
  }
  if (schema.minLength !== undefined && length < schema.minLength)
    wrong(`should be at least ${schema.minLength} chars long`);
  if (schema.pattern !== undefined) {
    const pattern = compilePattern(schema.pattern);
    if (typeof pattern !== 'string' && !pattern.test(value))
      wrong(`should match '${schema.pattern}'`);
  }
  const check = schema.format === undefined ? undefined : FORMATS.get(schema.format);
  if (check !== undefined && !check(value))
    wrong(`must be of type ${schema.format}: ${JSON.stringify(value)}`);
}

const LABEL = '[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?';
const HOSTNAME = new RegExp(`^${LABEL}(\\.${LABEL})*\\.?$`);
const isTime = (text: string) =>
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text) &&
  !Number.isNaN(Date.parse(text));

/** Formats that are checked; as upstream, all others are words for people. */
const FORMATS: ReadonlyMap<string, (text: string) => boolean> = new Map([
  ['date-time', isTime],
  ['datetime', isTime],
  ['date', (text: string) => /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(Date.parse(text))],
  [
    'duration',
    (text: string) =>
      /^[-+]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$|^0$|^\d+ ?(second|minute|hour|day|week)s?$/.test(
        text,
      ),
  ],
  ['ipv4', (text: string) => parseIp(text) !== undefined && !text.includes(':')],
  ['ipv6', (text: string) => parseIp(text) !== undefined && text.includes(':')],
  ['cidr', (text: string) => parseCidr(text) !== undefined],
  ['hostname', (text: string) => text.length <= 253 && HOSTNAME.test(text)],
  ['uri', (text: string) => URL.canParse(text)],
  ['email', (text: string) => /^[^\s@]+@[^\s@]+$/.test(text)],
  ['uuid', (text: string) => /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(text)],
  [
    'byte',
    (text: string) => /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text),
  ],
  ['mac', (text: string) => /^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$/i.test(text)],
]);

function checkNumber(schema: JsonSchema, value: number, { field, errors }: Place): void {
  const wrong = (detail: string) =>
    errors.push(invalid(field, value, `${field} in body ${detail}`));
  const { minimum, maximum, multipleOf } = schema;
  if (minimum !== undefined && (schema.exclusiveMinimum ? value <= minimum : value < minimum))
    wrong(`should be greater than ${schema.exclusiveMinimum ? '' : 'or equal to '}${minimum}`);
  if (maximum !== undefined && (schema.exclusiveMaximum ? value >= maximum : value > maximum))
    wrong(`should be less than ${schema.exclusiveMaximum ? '' : 'or equal to '}${maximum}`);
  if (multipleOf !== undefined && !Number.isInteger(Math.round((value / multipleOf) * 1e9) / 1e9))
    wrong(`should be a multiple of ${multipleOf}`);
  if (schema.format === 'int32' && (value > 2 ** 31 - 1 || value < -(2 ** 31)))
    wrong('must be of type int32');
}

function checkList(schema: JsonSchema, list: readonly unknown[], place: Place): void {
  const { field, errors } = place;
  if (schema.maxItems !== undefined && list.length > schema.maxItems) {
    errors.push({
      type: 'TooMany',
      field,
      value: list.length,
      detail: `must have at most ${schema.maxItems} items`,
    });
    return;
  }
  if (schema.minItems !== undefined && list.length < schema.minItems)
    errors.push(
      invalid(field, list.length, `${field} in body should have at least ${schema.minItems} items`),
    );
  checkUnique(schema, list, place);
  const { items } = schema;
  if (items !== undefined)
    for (const [i, item] of list.entries()) check(items, item, { field: `${field}[${i}]`, errors });
}

function checkUnique(schema: JsonSchema, list: readonly unknown[], { field, errors }: Place): void {
  const type = schema['x-kubernetes-list-type'];
  const keys = schema['x-kubernetes-list-map-keys'] ?? [];
  if (type !== 'set' && type !== 'map') return;
  const seen = new Set<string>();
  for (const [i, item] of list.entries()) {
    const id =
      type === 'set' || !isObject(item)
        ? item
        : Object.fromEntries(keys.map((key) => [key, ownField(item, key)]));
    const text = canonicalJson(id);
    if (seen.has(text)) errors.push(duplicate(`${field}[${i}]`, id));
    seen.add(text);
  }
}

function checkObject(schema: JsonSchema, object: Record<string, unknown>, place: Place): void {
  const { field, errors } = place;
  const names = Object.keys(object);
  if (schema.maxProperties !== undefined && names.length > schema.maxProperties)
    errors.push({
      type: 'TooMany',
      field,
      value: names.length,
      detail: `must have at most ${schema.maxProperties} items`,
    });
  if (schema.minProperties !== undefined && names.length < schema.minProperties)
    errors.push(
      invalid(
        field,
        names.length,
        `${field} in body should have at least ${schema.minProperties} properties`,
      ),
    );
  for (const name of schema.required ?? [])
    if (ownField(object, name) === undefined) errors.push(required(at(field, name)));
  const additional = additionalOf(schema);
  if (schema['x-kubernetes-embedded-resource'] === true)
    for (const name of ['apiVersion', 'kind'])
      if (typeof object[name] !== 'string' || object[name] === '')
        errors.push(required(at(field, name), 'must not be empty'));
  for (const [name, part] of Object.entries(object)) {
    const property = propertyOf(schema, name);
    if (property !== undefined) check(property, part, { field: at(field, name), errors });
    else if (additional !== undefined) check(additional, part, { field: at(field, name), errors });
  }
}

function checkJunctors(schema: JsonSchema, value: unknown, { field, errors }: Place): void {
  const wrong = (detail: string) =>
    errors.push(invalid(field, shown(value), `${JSON.stringify(field)} ${detail}`));
  const fits = (branch: JsonSchema) => validateValue(branch, value, field).length === 0;
  for (const branch of schema.allOf ?? []) check(branch, value, { field, errors });
  if (schema.anyOf !== undefined && schema.anyOf.length > 0 && !schema.anyOf.some(fits))
    wrong('must validate at least one schema (anyOf)');
  if (schema.oneOf !== undefined && schema.oneOf.length > 0) {
    const fitting = schema.oneOf.filter(fits).length;
    if (fitting !== 1)
      wrong(
        `must validate one and only one schema (oneOf). Found ${fitting === 0 ? 'none' : fitting} valid${fitting > 1 ? ' alternatives' : ''}`,
      );
  }
  if (schema.not !== undefined && fits(schema.not)) wrong('must not validate the schema (not)');
}

function at(field: string, name: string): string {
  return field === '' ? name : `${field}.${name}`;
}
