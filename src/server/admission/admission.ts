/**
 * Admission: what decides over a change beyond the object's own rules, with a view of the rest of the store.
 *
 * A plugin may change the object, refuse it, and have more compares and writes made in the very transaction that writes
 * the object. So what it reserved and the object that holds it appear and go together, whatever is killed when.
 */
import type { FieldError, KindDefinition } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import type { Compare, StoreReader, WriteOp } from '#store/port.ts';
import type { Principal } from '../principal.ts';

interface ReviewBase {
  readonly kind: KindDefinition;
  /** Empty for the object itself. */
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  readonly principal: Principal;
  readonly dryRun: boolean;
  /** Read only: writes go into {@link AdmissionEffects}. */
  readonly store: StoreReader;
}

/** A change under review. `old` is shared and must not be changed, `object` is the plugin's to give back changed. */
export type AdmissionReview = ReviewBase &
  (
    | { readonly operation: 'CREATE'; readonly object: KubeObject; readonly old: undefined }
    | { readonly operation: 'UPDATE'; readonly object: KubeObject; readonly old: KubeObject }
    /** A wish to delete; with finalizers the object stays for a while. */
    | { readonly operation: 'DELETE'; readonly object: undefined; readonly old: KubeObject }
    /** The object leaves the store now, after DELETE or with its last finalizer. Too late to refuse. */
    | { readonly operation: 'REMOVE'; readonly object: undefined; readonly old: KubeObject }
  );

export interface AdmissionEffects {
  /** The object as it shall be instead; missing: unchanged. */
  readonly object?: KubeObject;
  /** If one of these does not hold at the end, the whole review is made again on fresh state. */
  readonly compares?: readonly Compare[];
  readonly operations?: readonly WriteOp[];
  /** What is wrong with the object; shown together with what validation finds. */
  readonly errors?: readonly FieldError[];
  /** Shown to the person by kubectl. */
  readonly warnings?: readonly string[];
}

export interface AdmissionPlugin {
  readonly name: string;
  /**
   * Reviews a change. Must have no effect but its result: it is called again when a transaction loses a race.
   * @returns nothing when the plugin has no part in it
   * @throws ApiError to refuse
   */
  review(review: AdmissionReview): Promise<AdmissionEffects | undefined>;
}

export interface AdmissionOutcome {
  readonly object: KubeObject | undefined;
  readonly compares: readonly Compare[];
  readonly operations: readonly WriteOp[];
  readonly errors: readonly FieldError[];
  readonly warnings: readonly string[];
}

/** Runs the plugins in order, each on what the one before it left. */
export async function admit(
  plugins: readonly AdmissionPlugin[],
  review: AdmissionReview,
): Promise<AdmissionOutcome> {
  let current = review;
  const compares: Compare[] = [];
  const operations: WriteOp[] = [];
  const errors: FieldError[] = [];
  const warnings: string[] = [];
  for (const plugin of plugins) {
    const effects = await plugin.review(current);
    if (effects === undefined) continue;
    if (effects.object !== undefined && current.object !== undefined)
      current = { ...current, object: effects.object } as AdmissionReview;
    compares.push(...(effects.compares ?? []));
    operations.push(...(effects.operations ?? []));
    errors.push(...(effects.errors ?? []));
    warnings.push(...(effects.warnings ?? []));
  }
  return { object: current.object, compares, operations, errors, warnings };
}
