/** Plain JSON values: copying and comparing. */

export type JsonObject = { [key: string]: unknown };

/** True for an object in the sense of JSON: neither `null` nor an array. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Deep equality of JSON values; the order of an object's keys does not matter, and `undefined` is a missing key. */
export function sameJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a))
    return Array.isArray(b) && a.length === b.length && a.every((item, i) => sameJson(item, b[i]));
  if (!isObject(a) || !isObject(b)) return false;
  for (const key of Object.keys(a)) if (!sameJson(a[key], ownField(b, key))) return false;
  for (const key of Object.keys(b))
    if (b[key] !== undefined && ownField(a, key) === undefined) return false;
  return true;
}

/** A field of the object itself, never of its prototype: keys come from outside and may be `constructor`. */
export function ownField(object: JsonObject, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/**
 * Sets a field in place. Unlike an assignment it makes a plain field of `__proto__` too,
 * so that no key from outside reaches a prototype.
 */
export function setField(object: JsonObject, key: string, value: unknown): void {
  if (key !== '__proto__') object[key] = value;
  else
    Object.defineProperty(object, key, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
}

/**
 * What would come out of the JSON of a value: nothing shared with it, no `undefined`.
 * @param value a JSON value no deeper than a decoded object is, but for fields that are `undefined`
 */
export function plainJson<T>(value: T): T;
export function plainJson(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => plainJson<unknown>(item) ?? null);
  if (!isObject(value)) return value;
  const copy: JsonObject = {};
  for (const key of Object.keys(value)) {
    const field = value[key];
    if (field !== undefined) setField(copy, key, plainJson(field));
  }
  return copy;
}

/** A deep copy of a JSON value. */
export function copyJson<T>(value: T): T {
  return structuredClone(value);
}

/** JSON text with the keys in order and `<`, `>` and `&` escaped: what Go writes for the same value. */
export function canonicalJson(value: unknown): string {
  const sorted = (_key: string, part: unknown): unknown =>
    isObject(part) ? Object.fromEntries(Object.entries(part).sort(byKey)) : part;
  return JSON.stringify(value, sorted).replace(
    /[<>&]/g,
    (c) => `\\u00${c.charCodeAt(0).toString(16)}`,
  );
}

function byKey([a]: [string, unknown], [b]: [string, unknown]): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
