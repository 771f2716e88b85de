/**
 * Steps of a path through an object, in the text that FieldsV1 uses (`sigs.k8s.io/structured-merge-diff/fieldpath`):
 *
 *     f:NAME              a field of an object, or a key of a map
 *     k:{"port":80,…}     the element of a list that has these values in its key fields
 *     v:"text"            the element of a set that has this value
 *     i:3                 the element at this place; read, never made
 *
 * The JSON inside is canonical, so that equal steps are equal text.
 */
import { canonicalJson, isObject, type JsonObject, ownField } from '../json.ts';

export function fieldElement(name: string): string {
  return `f:${name}`;
}

export function valueElement(value: unknown): string {
  return `v:${canonicalJson(value)}`;
}

/**
 * @param keys the fields that tell elements apart
 * @param defaults what a missing key field means
 */
export function keyElement(
  item: JsonObject,
  keys: readonly string[],
  defaults: Readonly<Record<string, unknown>>,
): string {
  const key: JsonObject = {};
  for (const name of keys) {
    const value = ownField(item, name) ?? defaults[name];
    if (value !== undefined && value !== null) key[name] = value;
  }
  return `k:${canonicalJson(key)}`;
}

/** Reads a step as a client wrote it. @returns its canonical text @throws Error that says what is wrong */
export function parsePathElement(text: string): string {
  const body = text.slice(2);
  switch (text.slice(0, 2)) {
    case 'f:':
      return text;
    case 'v:':
      return valueElement(JSON.parse(body));
    case 'k:': {
      const key: unknown = JSON.parse(body);
      if (isObject(key)) return `k:${canonicalJson(key)}`;
      break;
    }
    case 'i:':
      if (/^\d{1,9}$/.test(body)) return text;
      break;
    default:
  }
  throw new Error(
    `Cannot read the path element ${JSON.stringify(text)}: it must begin with f:, k:, v: or i:`,
  );
}

/** A path as messages show it: `.spec.ports[port=80,protocol="TCP"].targetPort`. */
export function formatPath(path: readonly string[]): string {
  return path.map(formatElement).join('');
}

function formatElement(element: string): string {
  const body = element.slice(2);
  switch (element.slice(0, 2)) {
    case 'f:':
      return `.${body}`;
    case 'v:':
      return `[=${body}]`;
    case 'k:': {
      const key = JSON.parse(body) as JsonObject;
      const pairs = Object.entries(key).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
      return `[${pairs.join(',')}]`;
    }
    default:
      return `[${body}]`;
  }
}
