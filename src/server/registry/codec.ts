/**
 * Objects in the store: JSON without `resourceVersion`, which is the entry's own revision.
 *
 * One change is read by every watcher of its kind, so what was decoded lately is remembered, and its encoding with it.
 */
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import { RecentMap } from '#lib/recent-map.ts';
import { valueLength, valueText } from '#store/held-entry.ts';
import type { StoreEntry } from '#store/port.ts';

const encoder = new TextEncoder();
/**
 * Of stored bytes, for each of the two halves: an object takes some five times as much. Enough for what all watchers
 * read at the same time; all objects of a large cluster would be most of the server's memory.
 */
const MAX_REMEMBERED_BYTES = 4 * 1024 * 1024;
const decodedEntries = new RecentMap<StoreEntry, KubeObject>(MAX_REMEMBERED_BYTES);
const encodedObjects = new WeakMap<object, string>();

/** The object of an entry. It is shared: never change it, {@link structuredClone} it first. */
export function decodeEntry(entry: StoreEntry): KubeObject {
  const bytes = valueLength(entry);
  const known = decodedEntries.get(entry, bytes);
  if (known !== undefined) return known;
  const object = JSON.parse(valueText(entry)) as KubeObject;
  object.metadata.resourceVersion = String(entry.modRevision);
  decodedEntries.set(entry, object, bytes);
  return object;
}

/** Says what an entry holds that was just written: whoever reads it next need not decode it. The object is shared then. */
export function rememberEntry(kind: KindDefinition, entry: StoreEntry, object: KubeObject): void {
  if (kind.custom !== undefined || kind.storedAs !== undefined) return;
  decodedEntries.set(entry, object, valueLength(entry));
}

const otherForms = new WeakMap<KubeObject, Map<KindDefinition, KubeObject>>();

/**
 * The object of an entry as an object of this kind. Kinds that were added are stored in one version and shown in all,
 * with the defaults that the schema has now; some kinds are another face of one that is stored. Shared, as {@link decodeEntry}.
 */
export function decodeAs(kind: KindDefinition, entry: StoreEntry): KubeObject {
  const object = decodeEntry(entry);
  if (kind.custom === undefined && kind.storedAs === undefined) return object;
  const forms = otherForms.get(object) ?? new Map<KindDefinition, KubeObject>();
  otherForms.set(object, forms);
  const known = forms.get(kind);
  if (known !== undefined) return known;
  const shown = kind.setDefaults(
    kind.storedAs?.fromStored(object) ?? { ...object, apiVersion: apiVersionOf(kind) },
  );
  forms.set(kind, shown);
  return shown;
}

/** @returns the value to store for an object of this kind */
export function encodeAs(kind: KindDefinition, object: KubeObject): Uint8Array {
  if (kind.storedAs !== undefined) return encodeObject(kind.storedAs.toStored(object));
  if (kind.custom === undefined) return encodeObject(object);
  return encodeObject({ ...object, apiVersion: kind.custom.storageApiVersion });
}

/** @returns the value to store: everything but `resourceVersion` */
export function encodeObject(object: KubeObject): Uint8Array {
  const { resourceVersion: _, ...metadata } = object.metadata;
  return encoder.encode(JSON.stringify({ ...object, metadata }));
}

/** The JSON of a shared object that is sent to many. */
export function encodeShared(object: object): string {
  const known = encodedObjects.get(object);
  if (known !== undefined) return known;
  const json = JSON.stringify(object);
  encodedObjects.set(object, json);
  return json;
}

/** The same object as it stands at another revision: what a watch shows of an object that is gone. */
export function atRevision<T extends KubeObject>(object: T, revision: number): T {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } };
}

const deletedObjects = new WeakMap<KubeObject, KubeObject>();

/** What a watch shows of an object that is gone: its last state, at the revision that took it away. Shared. */
export function decodeDeleted(
  kind: KindDefinition,
  last: StoreEntry,
  deleteRevision: number,
): KubeObject {
  const object = decodeAs(kind, last);
  const known = deletedObjects.get(object);
  if (known?.metadata.resourceVersion === String(deleteRevision)) return known;
  const gone = atRevision(object, deleteRevision);
  deletedObjects.set(object, gone);
  return gone;
}
