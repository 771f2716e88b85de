/** The one place where objects are written: one transaction for the object and all that belongs to it. */
import type { Compare, Store, WriteOp } from '#store/port.ts';
import type { AdmissionOutcome } from '../admission/admission.ts';

export type CommitResult =
  | { readonly kind: 'done' /** 0 in a dry run. */; readonly revision: number }
  | { readonly kind: 'object-changed' }
  /** Something that admission relied on. */
  | { readonly kind: 'surroundings-changed' };

/**
 * Writes an object with what admission adds, if nothing they rely on has changed.
 * @param change.expected `modRevision` of the stored object; 0: there is none
 */
export async function commit(
  store: Store,
  dryRun: boolean,
  change: { key: string; expected: number; operation: WriteOp; outcome: AdmissionOutcome },
): Promise<CommitResult> {
  const own: Compare = { key: change.key, modRevision: change.expected };
  if (dryRun) {
    const current = await store.get(change.key);
    return (current?.modRevision ?? 0) === change.expected
      ? { kind: 'done', revision: 0 }
      : { kind: 'object-changed' };
  }
  const result = await store.transact(
    [own, ...change.outcome.compares],
    [change.operation, ...change.outcome.operations],
  );
  if (result.succeeded) return { kind: 'done', revision: result.revision };
  return (result.conflicts[0]?.modRevision ?? 0) === change.expected
    ? { kind: 'surroundings-changed' }
    : { kind: 'object-changed' };
}
