/** A write between its plan and the store: planned on what is known, admitted, committed in one transaction. */
import type { KindDefinition } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import {
  LeaseNotFoundError,
  type Store,
  type StoreEntry,
  type StoreReader,
  type WriteOp,
} from '#store/port.ts';
import { type AdmissionOutcome, type AdmissionReview, admit } from '../admission/admission.ts';
import { atRevision, encodeAs } from './codec.ts';
import { type CommitResult, commit } from './commit.ts';
import type { RegistryContext, Target, WriteOptions, Written } from './resource-registry.ts';

/** What becomes of a stored object. */
export type ChangePlan = Written & { readonly entry: StoreEntry } & (
    | { readonly isSame: true }
    | {
        readonly isSame?: never;
        readonly outcome: AdmissionOutcome;
        /** It leaves the store; `object` is its last state. */
        readonly removes: boolean;
      }
  );

/**
 * Plans a write first on what this server knows, which saves a question to a store elsewhere: the transaction compares
 * what the plan was made on. A refusal, and that nothing is to be done, are said only of the newest state.
 */
export async function planOn<T extends object>(
  store: Store,
  attempt: number,
  plan: (store: StoreReader) => Promise<T>,
): Promise<T> {
  if (attempt > 0 || store.known === store) return await plan(store);
  try {
    const planned = await plan(store.known);
    if (!('isSame' in planned)) return planned;
  } catch {
    // Whether it is right is seen when the same is planned on the newest state.
  }
  return await plan(store);
}

/** Writes, or takes away, what was planned for a stored object, if that is still as it was. */
export function commitPlan(
  kind: KindDefinition,
  context: RegistryContext,
  { entry, object, outcome, removes }: ChangePlan & { readonly isSame?: never },
  { dryRun }: WriteOptions,
): Promise<CommitResult> {
  const { key, modRevision: expected } = entry;
  const operation: WriteOp = removes
    ? { type: 'delete', key }
    : { type: 'put', key, value: encodeAs(kind, object) };
  return commitLeased(kind, context, dryRun, { key, expected, operation, outcome });
}

/** Objects of a kind that expires are hung on a lease with every write. */
export async function commitLeased(
  kind: KindDefinition,
  { store, leases }: RegistryContext,
  dryRun: boolean,
  change: Parameters<typeof commit>[2],
): Promise<CommitResult> {
  const { operation } = change;
  const { expiresAfterMs } = kind;
  if (expiresAfterMs === undefined || dryRun || operation.type === 'delete')
    return await commit(store, dryRun, change);
  const withLease = (lease: number) =>
    commit(store, dryRun, { ...change, operation: { ...operation, lease } });
  const lease = await leases.lasting(expiresAfterMs);
  try {
    return await withLease(lease);
  } catch (error) {
    if (!(error instanceof LeaseNotFoundError)) throw error;
    // Revoked by hand, or etcd was put back: the next one is new.
    leases.forget(lease);
    return await withLease(await leases.lasting(expiresAfterMs));
  }
}

/** What goes with an object that leaves the store. A wish to delete it is reviewed first. */
export async function admitRemoval(
  kind: KindDefinition,
  context: RegistryContext,
  { object, review }: { object: KubeObject; review: AdmissionReview },
  options: WriteOptions,
): Promise<AdmissionOutcome> {
  const wish = review.operation === 'DELETE' ? await admit(context.plugins, review) : EMPTY_OUTCOME;
  const target = { namespace: review.namespace, name: review.name };
  const removal = await admit(context.plugins, {
    ...reviewBase(kind, review.store, target, options),
    operation: 'REMOVE',
    object: undefined,
    old: object,
  });
  return {
    ...wish,
    compares: [...wish.compares, ...removal.compares],
    operations: [...wish.operations, ...removal.operations],
    warnings: [...wish.warnings, ...removal.warnings],
  };
}

const EMPTY_OUTCOME: AdmissionOutcome = {
  object: undefined,
  compares: [],
  operations: [],
  errors: [],
  warnings: [],
};

/** What every review says. */
export function reviewBase(
  kind: KindDefinition,
  store: StoreReader,
  { namespace, name }: Target,
  { principal, dryRun }: WriteOptions,
) {
  return { kind, subresource: '', namespace, name, principal, dryRun, store } as const;
}

/** What a write is answered with. @param revision 0: nothing was stored */
export function written(
  object: KubeObject,
  revision: number,
  { warnings }: Pick<Written, 'warnings'>,
): Written {
  return { object: revision === 0 ? object : atRevision(object, revision), warnings };
}
