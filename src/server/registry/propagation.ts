/**
 * What becomes of the objects that an object owns when it is deleted. The wish is kept as a finalizer, by which the garbage
 * collector knows what to do before the object goes. `k8s.io/apiserver/pkg/registry/generic/registry/store.go`. Pure.
 */
import type { KubeObject } from '#api/meta.ts';

export const PROPAGATIONS = ['Background', 'Foreground', 'Orphan'] as const;
/**
 * - `Background`: the object goes at once, what it owns a little later;
 * - `Foreground`: what it owns and blocks it goes first;
 * - `Orphan`: what it owns stays, without an owner.
 */
export type Propagation = (typeof PROPAGATIONS)[number];

export const FOREGROUND_FINALIZER = 'foregroundDeletion';
export const ORPHAN_FINALIZER = 'orphan';

/** The object with the finalizer that stands for the wish, and without that of another wish. */
export function withPropagation(
  object: KubeObject,
  propagation: Propagation | undefined,
): KubeObject {
  if (propagation === undefined) return object;
  const before = object.metadata.finalizers ?? [];
  const others = before.filter((one) => one !== FOREGROUND_FINALIZER && one !== ORPHAN_FINALIZER);
  const own =
    propagation === 'Foreground'
      ? [FOREGROUND_FINALIZER]
      : propagation === 'Orphan'
        ? [ORPHAN_FINALIZER]
        : [];
  const finalizers = [...others, ...own];
  if (finalizers.length === before.length && own.every((one) => before.includes(one)))
    return object;
  const { finalizers: _, ...metadata } = object.metadata;
  return { ...object, metadata: finalizers.length === 0 ? metadata : { ...metadata, finalizers } };
}

/** How an object that is being deleted treats what it owns. */
export function propagationOf(object: KubeObject): Propagation {
  const finalizers = object.metadata.finalizers ?? [];
  if (finalizers.includes(ORPHAN_FINALIZER)) return 'Orphan';
  return finalizers.includes(FOREGROUND_FINALIZER) ? 'Foreground' : 'Background';
}
