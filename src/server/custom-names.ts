/** Which definitions may have the names they ask for, and what their status says. Pure. */
import type { CustomResourceDefinition } from '#api/apiextensions/v1/custom-resource-definition.ts';
import { rulesOf } from '#api/apiextensions/v1/rules.ts';
import type { KindRef } from '#api/kind.ts';
import type { Condition } from '#api/meta.ts';

/**
 * Definitions whose names are taken, in their group, by a kind of the server or by an earlier definition.
 * @returns what is taken, by the definition's name
 */
export function nameConflicts(
  definitions: readonly CustomResourceDefinition[],
  fixed: readonly (KindRef & { singular: string; shortNames: readonly string[] })[],
): ReadonlyMap<string, string> {
  const taken = new Map<string, string>();
  for (const kind of fixed)
    for (const word of [kind.resource, kind.singular, ...kind.shortNames])
      taken.set(`${kind.group}/${word}`, kind.resource);
  for (const kind of fixed) taken.set(`${kind.group}/kind ${kind.kind}`, kind.resource);
  const conflicts = new Map<string, string>();
  for (const definition of definitions.toSorted(byAge)) {
    const { group, names } = definition.spec;
    const words = [names.plural, names.singular ?? '', ...(names.shortNames ?? [])].filter(
      (word) => word !== '',
    );
    const keys = [...words, `kind ${names.kind}`, `kind ${names.listKind ?? ''}`].map(
      (word) => `${group}/${word}`,
    );
    const conflict = keys.find((key) => taken.has(key));
    if (conflict !== undefined) {
      const word = conflict.slice(group.length + 1).replace(/^kind /, '');
      conflicts.set(
        definition.metadata.name,
        `"${word}" is already in use by ${taken.get(conflict)}`,
      );
    } else for (const key of keys) taken.set(key, definition.metadata.name);
  }
  return conflicts;
}

/** One that is accepted stays so; then the elder. */
function byAge(a: CustomResourceDefinition, b: CustomResourceDefinition): number {
  const keyOf = ({ metadata, status }: CustomResourceDefinition) => {
    const isAccepted = status?.conditions?.some(
      (c) => c.type === 'NamesAccepted' && c.status === 'True',
    );
    return `${isAccepted ? 0 : 1} ${metadata.creationTimestamp ?? ''} ${metadata.name}`;
  };
  const keys = [keyOf(a), keyOf(b)] as const;
  return keys[0] < keys[1] ? -1 : keys[0] > keys[1] ? 1 : 0;
}

/**
 * @param facts.conflict what name is taken
 * @param facts.left instances that a deletion still waits for
 * @param facts.now RFC 3339
 */
export function definitionStatus(
  definition: CustomResourceDefinition,
  facts: { conflict: string | undefined; left: number; now: string },
): NonNullable<CustomResourceDefinition['status']> {
  const { conflict, left, now } = facts;
  const old = definition.status?.conditions ?? [];
  const isAccepted = conflict === undefined;
  const wanted: Omit<Condition, 'lastTransitionTime'>[] = [
    isAccepted
      ? {
          type: 'NamesAccepted',
          status: 'True',
          reason: 'NoConflicts',
          message: 'no conflicts found',
        }
      : { type: 'NamesAccepted', status: 'False', reason: 'NameConflict', message: conflict },
    isAccepted
      ? {
          type: 'Established',
          status: 'True',
          reason: 'InitialNamesAccepted',
          message: 'the initial names have been accepted',
        }
      : {
          type: 'Established',
          status: 'False',
          reason: 'NotAccepted',
          message: 'not all names are accepted',
        },
  ];
  if (definition.metadata.deletionTimestamp !== undefined)
    wanted.push({
      type: 'Terminating',
      status: 'True',
      reason: 'InstanceDeletionInProgress',
      message:
        left === 0
          ? 'CustomResource deletion is in progress'
          : `${left} instances are held by finalizers`,
    });
  const rules = rulesOf(definition).length;
  if (rules > 0)
    wanted.push({
      type: 'RulesEvaluated',
      status: 'False',
      reason: 'NotSupported',
      message: `${rules} CEL rules (x-kubernetes-validations) are not evaluated by this server`,
    });
  const conditions = wanted.map((condition): Condition => {
    const before = old.find(({ type }) => type === condition.type);
    const isSame = before?.status === condition.status;
    return {
      ...condition,
      lastTransitionTime: (isSame ? before?.lastTransitionTime : undefined) ?? now,
    };
  });
  const others = old.filter(
    ({ type }) => !wanted.some((one) => one.type === type) && type !== 'RulesEvaluated',
  );
  const storage = definition.spec.versions
    .filter((version) => version.storage)
    .map((version) => version.name);
  const stored = new Set([...(definition.status?.storedVersions ?? []), ...storage]);
  return {
    conditions: [...others, ...conditions],
    acceptedNames: isAccepted
      ? definition.spec.names
      : (definition.status?.acceptedNames ?? { plural: '', kind: '' }),
    storedVersions: [...stored],
  };
}
