/**
 * The client's side of `kubectl apply`: what to send so that the live object becomes what the manifest says,
 * without touching what others have set.
 *
 *     in the manifest                        → set
 *     not in it, but in the last manifest    → removed: we had set it
 *     in neither                             → left as it is: somebody else's
 */
import type { ArraySchema, ObjectSchema, Schema } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { canonicalJson, isObject, type JsonObject, ownField, sameJson, setField } from './json.ts';
import { createMergePatch } from './merge-patch.ts';

/** The annotation that keeps the manifest for the next time. */
export const LAST_APPLIED_ANNOTATION = 'kubectl.kubernetes.io/last-applied-configuration';

/**
 * The merge patch (RFC 7386) that applies a manifest.
 *
 * Merge patches replace lists, so lists with a merge key are merged here, against the live object. Send the live
 * object's `resourceVersion` with the patch where a change in between must not be lost.
 *
 * @param options.lastApplied the manifest of the last time; `undefined` if there is none
 * @param options.schema of the kind; without one lists are replaced
 * @returns an empty object if there is nothing to do
 */
export function createApplyPatch(options: {
  lastApplied: JsonObject | undefined;
  live: JsonObject;
  desired: JsonObject;
  schema?: ObjectSchema;
}): JsonObject {
  const { lastApplied, live, desired, schema } = options;
  return createMergePatch(live, mergeObjects(schema, { last: lastApplied ?? {}, live, desired }));
}

/** The manifest with the annotation that holds it, as the object to create or to apply. */
export function withLastApplied<T extends KubeObject>(manifest: T): T {
  const { [LAST_APPLIED_ANNOTATION]: _, ...annotations } = manifest.metadata.annotations ?? {};
  const bare = { ...manifest, metadata: { ...manifest.metadata, annotations } };
  // Written as kubectl writes it, so that the two tools do not rewrite each other's annotation.
  const text = `${canonicalJson(bare)}\n`;
  return {
    ...manifest,
    metadata: {
      ...manifest.metadata,
      annotations: { ...annotations, [LAST_APPLIED_ANNOTATION]: text },
    },
  };
}

/** The manifest of the last time, out of the live object. @returns `undefined` if there is none that can be read */
export function lastAppliedOf(live: KubeObject): JsonObject | undefined {
  const text = live.metadata.annotations?.[LAST_APPLIED_ANNOTATION];
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    // Somebody changed it by hand. Without it nothing is removed, which is the safe side.
    return undefined;
  }
}

interface ThreeWays<T> {
  readonly last: T;
  readonly live: T;
  readonly desired: T;
}

function mergeObjects(schema: Schema | undefined, ways: ThreeWays<JsonObject>): JsonObject {
  const { last, live, desired } = ways;
  const result: JsonObject = { ...live };
  for (const key of Object.keys(last)) if (ownField(desired, key) === undefined) delete result[key];
  for (const [key, value] of Object.entries(desired)) {
    if (value === null) delete result[key];
    else
      setField(
        result,
        key,
        mergeValues(fieldSchema(schema, key), {
          last: ownField(last, key),
          live: ownField(live, key),
          desired: value,
        }),
      );
  }
  return result;
}

function mergeValues(schema: Schema | undefined, ways: ThreeWays<unknown>): unknown {
  const { last, live, desired } = ways;
  if (isObject(desired) && isObject(live))
    return mergeObjects(schema, { last: isObject(last) ? last : {}, live, desired });
  if (Array.isArray(desired) && Array.isArray(live) && schema?.type === 'array')
    return mergeLists(schema, { last: Array.isArray(last) ? last : [], live, desired });
  return desired;
}

function mergeLists(schema: ArraySchema, ways: ThreeWays<unknown[]>): unknown[] {
  const { last, live, desired } = ways;
  const includes = (list: unknown[], value: unknown) => list.some((item) => sameJson(item, value));
  if (schema.mergeSet) {
    const others = live.filter((value) => !includes(last, value) && !includes(desired, value));
    // Keeps the live order, so that an unchanged set makes no patch.
    const kept = live.filter((value) => includes(desired, value) || includes(others, value));
    return [...kept, ...desired.filter((value) => !includes(live, value))];
  }
  const idOf = identityOf(schema, ways);
  // Elements that cannot be told apart cannot be merged: the manifest's list it is.
  if (idOf === undefined) return desired;
  const byId = (list: unknown[]) => new Map(list.map((item) => [idOf(item), item] as const));
  const [oldById, liveById, desiredById] = [byId(last), byId(live), byId(desired)];
  const merged = desired.map((item) =>
    mergeValues(schema.items, {
      last: oldById.get(idOf(item)),
      live: liveById.get(idOf(item)),
      desired: item,
    }),
  );
  const others = live.filter((item) => !desiredById.has(idOf(item)) && !oldById.has(idOf(item)));
  return [...merged, ...others];
}

/** Ports of a service may share a number (DNS over UDP and TCP): then the protocol or the name tells them apart. */
const EXTRA_KEYS = [undefined, 'protocol', 'name'];

/** How elements are told apart in all three lists. @returns `undefined` if they cannot be */
function identityOf(
  schema: ArraySchema,
  ways: ThreeWays<unknown[]>,
): ((item: unknown) => string) | undefined {
  const { mergeKey } = schema;
  if (mergeKey === undefined) return undefined;
  for (const extra of EXTRA_KEYS) {
    const idOf = (item: unknown) => {
      const object = isObject(item) ? item : {};
      return JSON.stringify([ownField(object, mergeKey), extra && ownField(object, extra)]);
    };
    const areDistinct = [ways.last, ways.live, ways.desired].every(
      (list) => new Set(list.map(idOf)).size === list.length,
    );
    if (areDistinct) return idOf;
  }
  return undefined;
}

function fieldSchema(schema: Schema | undefined, key: string): Schema | undefined {
  if (schema?.type === 'map') return schema.values;
  if (schema?.type !== 'object' || !Object.hasOwn(schema.fields, key)) return undefined;
  return schema.fields[key];
}
