/**
 * What a wish to delete does to an object: it goes at once, it stays until its finalizers and its grace period let it go,
 * or it is waited for already. `k8s.io/apiserver/pkg/registry/rest/delete.go`. Pure.
 */

import type { KindDefinition } from '#api/kind.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { KubeObject } from '#api/meta.ts';
import { type Propagation, withPropagation } from './propagation.ts';
import { gracePeriodOf, isHeld, markDeleting } from './strategy.ts';

export interface DeletionWish {
  readonly propagation?: Propagation;
  /** Missing: the object's own. Kinds that need no time to end heed none. */
  readonly gracePeriodSeconds?: number;
}

export type DeletionStep =
  | { readonly kind: 'remove' }
  | { readonly kind: 'mark'; readonly object: KubeObject }
  | { readonly kind: 'pending' };

/** @param nowMs since the Unix epoch */
export function planDeletion(
  kind: KindDefinition,
  old: KubeObject,
  wish: DeletionWish,
  nowMs: number,
): DeletionStep {
  const { deletionTimestamp } = old.metadata;
  const wanted = withPropagation(old, wish.propagation);
  const grace = gracePeriodOf(kind, old, wish.gracePeriodSeconds);
  if (deletionTimestamp === undefined) {
    if (grace === 0 && !isHeld(kind, wanted)) return { kind: 'remove' };
    const at = formatTime(nowMs + grace * 1_000);
    return { kind: 'mark', object: markDeleting(kind, wanted, { at, grace }) };
  }
  const had = old.metadata.deletionGracePeriodSeconds ?? 0;
  if (had > 0) {
    // It can only be made shorter, and whoever says nothing does not want that.
    if (wish.gracePeriodSeconds === undefined || grace >= had) return { kind: 'pending' };
    if (grace === 0 && !isHeld(kind, wanted)) return { kind: 'remove' };
    const at = formatTime(Date.parse(deletionTimestamp) + (grace - had) * 1_000);
    return { kind: 'mark', object: withDeletion(wanted, at, grace) };
  }
  if (!isHeld(kind, wanted)) return { kind: 'remove' };
  return wanted === old ? { kind: 'pending' } : { kind: 'mark', object: wanted };
}

/** Whether an update lets the object go: nothing holds it any more, and nobody is given time to end it. */
export function isReleased(kind: KindDefinition, next: KubeObject, old: KubeObject): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds = 0 } = old.metadata;
  return deletionTimestamp !== undefined && deletionGracePeriodSeconds === 0 && !isHeld(kind, next);
}

function withDeletion(object: KubeObject, at: string, grace: number): KubeObject {
  const { metadata } = object;
  return {
    ...object,
    metadata: { ...metadata, deletionTimestamp: at, deletionGracePeriodSeconds: grace },
  };
}
