/**
 * Strategic merge patches: merge patches that know which lists are sets or maps in disguise.
 *
 * A list with a merge key is merged element by element; a list that is a set is united; other lists are replaced.
 * Directives, which may stand in a patch beside or inside the data:
 *
 *     $patch: replace                         in an object: it is replaced by the rest of the patch
 *     $patch: delete                          in an object: it is emptied; in a list's element: the element is removed
 *     - $patch: replace                       as an element: the list is replaced by the other elements
 *     $deleteFromPrimitiveList/FIELD: [...]   these values are removed from the set FIELD
 *     $setElementOrder/FIELD: [...]           the order of the elements, by value or by merge key
 *     $retainKeys: [...]                      all other fields of the object are removed (for unions)
 *
 * Follows `k8s.io/apimachinery/pkg/util/strategicpatch`.
 */
import { ApiError } from '#lib/errors.ts';
import type { ArraySchema, ObjectSchema, Schema } from '../kind.ts';
import { assertDepth } from './depth.ts';
import { isObject, type JsonObject, ownField, sameJson, setField } from './json.ts';

const PATCH = '$patch';
const RETAIN_KEYS = '$retainKeys';
const DELETE_PREFIX = '$deleteFromPrimitiveList/';
const ORDER_PREFIX = '$setElementOrder/';

/**
 * Applies a strategic merge patch. The arguments are not changed; the result may share parts with them.
 * @param schema of the kind; where it says nothing (`any`) objects are merged and lists replaced
 * @throws ApiError 400 for a patch that is none, 422 for one that does not fit the object
 */
export function applyStrategicMergePatch(
  schema: ObjectSchema,
  current: JsonObject,
  patch: unknown,
): JsonObject {
  if (!isObject(patch)) throw bad('it must be an object');
  assertDepth(patch, 'strategic merge patch');
  return mergeObject(schema, current, { patch, field: '' });
}

interface Part<P> {
  readonly patch: P;
  /** Where it stands, for messages. */
  readonly field: string;
}

function mergeObject(
  schema: Schema | undefined,
  current: JsonObject,
  part: Part<JsonObject>,
): JsonObject {
  const directive = ownField(part.patch, PATCH);
  if (directive === 'replace') return plain(schema, omit(part.patch, [PATCH]), part.field);
  if (directive === 'delete') return {};
  // "merge" is what happens without a directive.
  if (directive !== undefined && directive !== 'merge')
    throw bad(
      `${at(part.field, PATCH)} is ${JSON.stringify(directive)}, known are replace, delete, merge`,
    );
  const result = retainKeys({ ...current }, part);
  const orders = new Map<string, unknown[]>();
  const removals = new Map<string, unknown[]>();
  const fields: [string, unknown][] = [];
  for (const [key, value] of Object.entries(part.patch)) {
    if (key.startsWith(ORDER_PREFIX))
      orders.set(key.slice(ORDER_PREFIX.length), listOf(value, at(part.field, key)));
    else if (key.startsWith(DELETE_PREFIX))
      removals.set(key.slice(DELETE_PREFIX.length), listOf(value, at(part.field, key)));
    else if (key !== PATCH && key !== RETAIN_KEYS) fields.push([key, value]);
  }
  for (const [key, values] of removals) {
    const list = ownField(result, key);
    if (Array.isArray(list))
      setField(
        result,
        key,
        list.filter((item) => !values.some((value) => sameJson(item, value))),
      );
  }
  for (const [key, value] of fields) {
    if (value === null) {
      delete result[key];
      continue;
    }
    const where = at(part.field, key);
    const before = ownField(result, key);
    const merged = mergeValue(fieldSchema(schema, key), before, { patch: value, field: where });
    setField(result, key, merged);
  }
  for (const [key, order] of orders) {
    const list = ownField(result, key);
    if (!Array.isArray(list)) continue;
    const stored = ownField(current, key);
    const field = at(part.field, ORDER_PREFIX + key);
    const idOf = identify(fieldSchema(schema, key), field);
    setField(result, key, orderElements(list, { order, stored, idOf }));
  }
  return result;
}

function mergeValue(schema: Schema | undefined, current: unknown, part: Part<unknown>): unknown {
  const { patch, field } = part;
  if (isObject(patch)) {
    // A field that is new, or was something else, takes the patch without its directives.
    if (!isObject(current)) return mergeObject(schema, {}, { patch, field });
    return mergeObject(schema, current, { patch, field });
  }
  if (!Array.isArray(patch)) return patch;
  const list = schema?.type === 'array' ? schema : undefined;
  if (list?.mergeKey !== undefined)
    return mergeKeyedList({ ...list, mergeKey: list.mergeKey }, listOr(current), { patch, field });
  if (list?.mergeSet) return mergeSet(listOr(current), patch);
  return patch.map((item, i) => plainValue(list?.items, item, `${field}[${i}]`));
}

function mergeKeyedList(
  schema: ArraySchema & { mergeKey: string },
  current: readonly unknown[],
  part: Part<unknown[]>,
): unknown[] {
  const { mergeKey, items } = schema;
  const { patch, field } = part;
  const elements = patch.map((item, i) => {
    if (!isObject(item)) throw bad(`${field}[${i}] must be an object`);
    return { item, field: `${field}[${i}]` };
  });
  const isReplaced = elements.some(({ item }) => item[PATCH] === 'replace');
  // Elements by merge key; a stored element without one keeps its place under a key of its own.
  const result = new Map<unknown, unknown>();
  if (!isReplaced)
    for (const element of current) {
      const key = isObject(element) ? ownField(element, mergeKey) : undefined;
      result.set(key === undefined || result.has(idText(key)) ? element : idText(key), element);
    }
  const order: unknown[] = [];
  for (const { item, field: where } of elements) {
    const directive = item[PATCH];
    // The element that only says "replace" carries no data.
    if (directive === 'replace' && Object.keys(item).length === 1) continue;
    const key = ownField(item, mergeKey);
    if (key === undefined || key === null)
      throw unfit(`${where} does not contain its merge key "${mergeKey}"`);
    const id = idText(key);
    const before = result.get(id);
    if (directive === 'delete') {
      for (const [other, element] of result)
        if (other === id || (isObject(element) && sameJson(element[mergeKey], key)))
          result.delete(other);
      continue;
    }
    const data = { patch: omit(item, [PATCH]), field: where };
    result.set(id, mergeObject(items, isObject(before) ? before : {}, data));
    order.push(item);
  }
  return orderElements([...result.values()], {
    order,
    stored: current,
    idOf: identify(schema, field),
  });
}

function mergeSet(current: readonly unknown[], patch: readonly unknown[]): unknown[] {
  const values = new Map([...current, ...patch].map((value) => [idText(value), value] as const));
  return orderElements([...values.values()], {
    order: patch,
    stored: current,
    idOf: (value) => value,
  });
}

/**
 * Puts the elements named by `order` into that order. Elements that it does not name keep their place relative to
 * each other, and go before a named element unless that one stood before them in the stored list.
 */
function orderElements(
  elements: readonly unknown[],
  options: {
    order: readonly unknown[];
    stored: unknown;
    idOf: (element: unknown) => unknown;
  },
): unknown[] {
  const indexIn = (list: readonly unknown[]) => {
    const indexes = new Map<string, number>();
    list.forEach((element, i) => {
      const id = idText(options.idOf(element));
      if (!indexes.has(id)) indexes.set(id, i);
    });
    return (element: unknown) => indexes.get(idText(options.idOf(element))) ?? -1;
  };
  const orderIndex = indexIn(options.order);
  const storedIndex = indexIn(listOr(options.stored));
  const named = elements
    .filter((element) => orderIndex(element) >= 0)
    .sort((a, b) => orderIndex(a) - orderIndex(b));
  const others = elements.filter((element) => orderIndex(element) < 0);
  const result: unknown[] = [];
  let next = 0;
  for (const element of named) {
    const place = storedIndex(element);
    while (next < others.length) {
      const otherPlace = storedIndex(others[next]);
      if (place >= 0 && otherPlace >= 0 && place < otherPlace) break;
      result.push(others[next++]);
    }
    result.push(element);
  }
  return [...result, ...others.slice(next)];
}

function idText(id: unknown): string {
  return JSON.stringify(id) ?? '';
}

/** How elements of a list are told apart: by merge key, or by value. */
function identify(schema: Schema | undefined, field: string): (element: unknown) => unknown {
  const mergeKey = schema?.type === 'array' ? schema.mergeKey : undefined;
  if (mergeKey === undefined) return (element) => element;
  return (element) => {
    const id = isObject(element) ? ownField(element, mergeKey) : undefined;
    if (id === undefined) throw unfit(`an element of ${field} has no merge key "${mergeKey}"`);
    return id;
  };
}

function retainKeys(current: JsonObject, part: Part<JsonObject>): JsonObject {
  const keys = ownField(part.patch, RETAIN_KEYS);
  if (keys === undefined) return current;
  const where = at(part.field, RETAIN_KEYS);
  const retained = new Set(listOf(keys, where));
  for (const [key, value] of Object.entries(part.patch)) {
    if (key.startsWith('$') || value === null || retained.has(key)) continue;
    throw bad(`${where} does not list "${key}", which the patch sets`);
  }
  for (const key of Object.keys(current)) if (!retained.has(key)) delete current[key];
  return current;
}

/** The data of a patch that meets nothing: directives and `null`s are gone. */
function plain(schema: Schema | undefined, patch: JsonObject, field: string): JsonObject {
  return mergeObject(schema, {}, { patch, field });
}

function plainValue(schema: Schema | undefined, value: unknown, field: string): unknown {
  return isObject(value) ? plain(schema, value, field) : value;
}

function fieldSchema(schema: Schema | undefined, key: string): Schema | undefined {
  if (schema?.type === 'map') return schema.values;
  if (schema?.type !== 'object' || !Object.hasOwn(schema.fields, key)) return undefined;
  return schema.fields[key];
}

function omit(object: JsonObject, keys: readonly string[]): JsonObject {
  const result = { ...object };
  for (const key of keys) delete result[key];
  return result;
}

function listOr(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function listOf(value: unknown, field: string): unknown[] {
  if (Array.isArray(value)) return value;
  throw bad(`${field} must be a list`);
}

function at(field: string, key: string): string {
  return field === '' ? key : `${field}.${key}`;
}

function bad(message: string): ApiError {
  return new ApiError(400, 'BadRequest', `Cannot read strategic merge patch: ${message}`);
}

function unfit(message: string): ApiError {
  return new ApiError(422, 'Invalid', `Cannot apply strategic merge patch: ${message}`);
}
