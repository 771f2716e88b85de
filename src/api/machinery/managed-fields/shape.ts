/**
 * How server-side apply sees a value: as one whole, as fields, or as a list whose elements have names of their own.
 * The schema decides; where it says nothing, objects are fields and lists are one whole.
 */
import type { ArraySchema, Schema } from '../../kind.ts';
import { isObject, type JsonObject } from '../json.ts';
import { fieldElement, keyElement, valueElement } from './path-element.ts';

export type Shape =
  | { readonly type: 'whole' }
  | { readonly type: 'fields'; readonly parts: readonly Part[] }
  | { readonly type: 'list'; readonly parts: readonly Part[]; readonly isSet: boolean };

export interface Part {
  /** The step from the value to this part. */
  readonly element: string;
  readonly value: unknown;
  readonly schema: Schema | undefined;
  /** True if the part's own path is in a set of all that it holds: keys of maps and elements of lists. */
  readonly isNamed: boolean;
  /** Of fields: the field. */
  readonly name: string;
}

const WHOLE: Shape = { type: 'whole' };

export function shapeOf(schema: Schema | undefined, value: unknown): Shape {
  if (Array.isArray(value)) return shapeOfList(schema, value);
  if (!isObject(value) || isAtomic(schema)) return WHOLE;
  return {
    type: 'fields',
    parts: Object.entries(value).map(([name, part]) => fieldPart(schema, name, part)),
  };
}

function isAtomic(schema: Schema | undefined): boolean {
  return (schema?.type === 'object' || schema?.type === 'map') && schema.atomic === true;
}

function fieldPart(schema: Schema | undefined, name: string, value: unknown): Part {
  const field =
    schema?.type === 'object' && Object.hasOwn(schema.fields, name)
      ? schema.fields[name]
      : undefined;
  const inMap = schema?.type === 'map' ? schema.values : undefined;
  return {
    element: fieldElement(name),
    value,
    schema: field ?? inMap,
    isNamed: field === undefined,
    name,
  };
}

/** How the elements of a list are told apart. */
export type ListKeys =
  | { readonly type: 'whole' }
  | { readonly type: 'set' }
  | {
      readonly type: 'map';
      readonly keys: readonly string[];
      readonly defaults: Readonly<Record<string, unknown>>;
    };

export function listKeysOf(schema: ArraySchema): ListKeys {
  if (schema.mergeSet) return { type: 'set' };
  const keys = schema.mapKeys ?? (schema.mergeKey === undefined ? [] : [schema.mergeKey]);
  const { items } = schema;
  if (keys.length === 0 || items.type !== 'object') return { type: 'whole' };
  const defaults: Record<string, unknown> = {};
  for (const key of keys) {
    const field = items.fields[key];
    if (field !== undefined && 'default' in field) defaults[key] = field.default;
  }
  return { type: 'map', keys, defaults };
}

function shapeOfList(schema: Schema | undefined, list: readonly unknown[]): Shape {
  if (schema?.type !== 'array') return WHOLE;
  const keys = listKeysOf(schema);
  if (keys.type === 'whole') return WHOLE;
  const elementOf = (item: unknown) =>
    keys.type === 'map' && isObject(item)
      ? keyElement(item, keys.keys, keys.defaults)
      : valueElement(item);
  const parts = list.map((value) => ({
    element: elementOf(value),
    value,
    schema: schema.items,
    isNamed: true,
    name: '',
  }));
  return { type: 'list', parts, isSet: keys.type === 'set' };
}

/** What is wrong with the lists of an applied configuration: elements without a key, or the same key twice. */
export function listProblems(schema: Schema | undefined, value: unknown, field = ''): string[] {
  const shape = shapeOf(schema, value);
  if (shape.type === 'whole') return [];
  const problems: string[] = [];
  const seen = new Set<string>();
  shape.parts.forEach((part, i) => {
    const at = shape.type === 'fields' ? `${field}.${part.name}` : `${field}[${i}]`;
    if (shape.type === 'list') {
      if (seen.has(part.element))
        problems.push(`${field}: duplicate entries for key [${part.element.slice(2)}]`);
      seen.add(part.element);
      const missing = missingKeys(schema, part.value);
      if (missing.length > 0)
        problems.push(
          `${at}: the element has no ${missing.join(', ')}, which tells elements apart`,
        );
    }
    problems.push(...listProblems(part.schema, part.value, at));
  });
  return problems;
}

function missingKeys(schema: Schema | undefined, item: unknown): string[] {
  if (schema?.type !== 'array') return [];
  const keys = listKeysOf(schema);
  if (keys.type !== 'map') return [];
  const object: JsonObject = isObject(item) ? item : {};
  const missing = keys.keys.filter(
    (key) => (object[key] ?? keys.defaults[key] ?? undefined) === undefined,
  );
  // One key of several is enough to tell elements apart, as with ports without a name.
  return missing.length === keys.keys.length ? missing : [];
}
