/** JSON merge patches, RFC 7386. */
import { assertDepth } from './depth.ts';
import { isObject, type JsonObject, ownField, sameJson, setField } from './json.ts';

/**
 * Applies a merge patch: objects are merged, `null` removes, everything else replaces.
 * Neither argument is changed; the result shares unchanged parts with them.
 * @throws ApiError 400 for a patch that is nested too deep
 * @see RFC 7386 section 2
 */
export function applyMergePatch(target: unknown, patch: unknown): unknown {
  assertDepth(patch, 'merge patch');
  return merge(target, patch);
}

/**
 * The merge patch that makes `to` out of `from`.
 * A `null` inside `to` cannot be expressed in a merge patch (RFC 7386 section 1) and is treated as missing.
 * @returns an empty object if they are equal
 */
export function createMergePatch(from: JsonObject, to: JsonObject): JsonObject {
  const patch: JsonObject = {};
  for (const key of Object.keys(from)) {
    const value = ownField(to, key);
    if (value === undefined || value === null) {
      if (from[key] !== undefined && from[key] !== null) setField(patch, key, null);
    }
  }
  for (const [key, value] of Object.entries(to)) {
    if (value === undefined || value === null) continue;
    const before = ownField(from, key);
    if (sameJson(before, value)) continue;
    if (isObject(before) && isObject(value)) {
      const inner = createMergePatch(before, value);
      if (Object.keys(inner).length > 0) setField(patch, key, inner);
    } else setField(patch, key, value);
  }
  return patch;
}

function merge(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else setField(result, key, merge(ownField(result, key), value));
  }
  return result;
}
