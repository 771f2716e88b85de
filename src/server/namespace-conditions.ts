/** Why a namespace that is being deleted is not gone yet, in the conditions and words of Kubernetes. Pure. */
import type { Namespace } from '#api/core/v1/namespace.ts';
import type { Condition } from '#api/meta.ts';
import { explainError } from '#lib/errors.ts';

/** What a pass over a namespace left behind. */
export interface Remains {
  /** Objects that are still there, by resource. */
  readonly resources: Map<string, number>;
  /** Objects that a finalizer holds, by finalizer. */
  readonly finalizers: Map<string, number>;
  readonly failures: unknown[];
}

type Said = Pick<Condition, 'type' | 'status' | 'reason' | 'message'>;

export function deletionConditions({ resources, finalizers, failures }: Remains): readonly Said[] {
  const [failure] = failures;
  const list = (counts: Map<string, number>, text: (name: string, count: number) => string) =>
    [...counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, count]) => text(name, count))
      .join(', ');
  const left = list(resources, (name, count) => `${name} has ${count} resource instances`);
  const held = list(finalizers, (name, count) => `${name} in ${count} resource instances`);
  return [
    failure === undefined
      ? {
          type: 'NamespaceDeletionContentFailure',
          status: 'False',
          reason: 'ContentDeleted',
          message: 'All content successfully deleted, may be waiting on finalization',
        }
      : {
          type: 'NamespaceDeletionContentFailure',
          status: 'True',
          reason: 'ContentDeletionFailed',
          message: `Failed to delete all resource types, ${failures.length} remaining: ${explainError(failure)}`,
        },
    left === ''
      ? {
          type: 'NamespaceContentRemaining',
          status: 'False',
          reason: 'ContentRemoved',
          message: 'All content successfully removed',
        }
      : {
          type: 'NamespaceContentRemaining',
          status: 'True',
          reason: 'SomeResourcesRemain',
          message: `Some resources are remaining: ${left}`,
        },
    held === ''
      ? {
          type: 'NamespaceFinalizersRemaining',
          status: 'False',
          reason: 'ContentHasNoFinalizers',
          message: 'All content-preserving finalizers finished',
        }
      : {
          type: 'NamespaceFinalizersRemaining',
          status: 'True',
          reason: 'SomeFinalizersRemain',
          message: `Some content in the namespace has finalizers remaining: ${held}`,
        },
  ];
}

/** @param now RFC 3339; a condition that stays as it is keeps its time */
export function withConditions(
  namespace: Namespace,
  said: readonly Said[],
  now: string,
): Namespace {
  const old = namespace.status?.conditions ?? [];
  const conditions = said.map((condition) => {
    const before = old.find(({ type }) => type === condition.type);
    const since = before?.status === condition.status ? before.lastTransitionTime : undefined;
    return { ...condition, lastTransitionTime: since ?? now };
  });
  const others = old.filter(({ type }) => !said.some((condition) => condition.type === type));
  return { ...namespace, status: { ...namespace.status, conditions: [...others, ...conditions] } };
}
