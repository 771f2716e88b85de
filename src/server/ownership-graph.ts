/**
 * Who owns whom, by UID: an index over all objects with owners, kept from the store's changes. It holds keys and UIDs
 * only; of objects without owners it holds nothing.
 */
import type { KubeObject, OwnerReference } from '#api/meta.ts';

export class OwnershipGraph {
  /** By the owner's UID, the keys of what it owns. */
  readonly #dependents = new Map<string, Set<string>>();
  /** By key, the UIDs of its owners. */
  readonly #owners = new Map<string, readonly string[]>();

  /** @returns whether the object's owners are others than before */
  set(key: string, owners: readonly OwnerReference[]): boolean {
    const uids = owners.map(({ uid }) => uid);
    const before = this.#owners.get(key) ?? [];
    if (before.length === uids.length && before.every((uid, i) => uid === uids[i])) return false;
    this.remove(key);
    if (uids.length === 0) return true;
    this.#owners.set(key, uids);
    for (const uid of uids) {
      const dependents = this.#dependents.get(uid);
      if (dependents === undefined) this.#dependents.set(uid, new Set([key]));
      else dependents.add(key);
    }
    return true;
  }

  remove(key: string): void {
    for (const uid of this.#owners.get(key) ?? []) {
      const dependents = this.#dependents.get(uid);
      dependents?.delete(key);
      if (dependents?.size === 0) this.#dependents.delete(uid);
    }
    this.#owners.delete(key);
  }

  has(key: string): boolean {
    return this.#owners.has(key);
  }

  clear(): void {
    this.#dependents.clear();
    this.#owners.clear();
  }

  dependentsOf(uid: string | undefined): readonly string[] {
    return uid === undefined ? [] : [...(this.#dependents.get(uid) ?? [])];
  }
}

const OWNERS_FIELD = '"ownerReferences":';
const DELETION_FIELD = '"deletionTimestamp":';

/** Whether the collector has to look into a stored object at all: most have no owner, and are not decoded for it. */
export function concernsCollector(json: string): boolean {
  return json.includes(OWNERS_FIELD) || json.includes(DELETION_FIELD);
}

/** How an owner stands, as far as can be said. */
export type OwnerState =
  | 'present'
  | 'absent'
  /** It is being deleted, and what it owns goes first. */
  | 'waiting';

export type Verdict =
  | { readonly kind: 'keep' }
  /** These references lead nowhere, or hold up an owner; another owner keeps the object. */
  | { readonly kind: 'release'; readonly uids: readonly string[] }
  | { readonly kind: 'delete'; readonly waits: boolean };

/** What becomes of an object with owners. Pure. @param stateOf asked once for each reference */
export function judge(object: KubeObject, stateOf: (owner: OwnerReference) => OwnerState): Verdict {
  const owners = object.metadata.ownerReferences ?? [];
  if (owners.length === 0 || object.metadata.deletionTimestamp !== undefined)
    return { kind: 'keep' };
  const states = owners.map((owner) => ({ owner, state: stateOf(owner) }));
  const gone = states.filter(({ state }) => state !== 'present');
  if (gone.length === 0) return { kind: 'keep' };
  if (gone.length < owners.length)
    return { kind: 'release', uids: gone.map(({ owner }) => owner.uid) };
  return { kind: 'delete', waits: gone.some(({ state }) => state === 'waiting') };
}
