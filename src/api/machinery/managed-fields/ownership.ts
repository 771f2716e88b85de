/**
 * Server-side apply, as a calculation: an object, who manages what, and a configuration or an update come in; the next
 * object and who then manages what come out. `kubernetes.io/docs/reference/using-api/server-side-apply`.
 *
 * - Who *applies* owns what his configuration says. What he said before and says no more is removed, if nobody else owns
 *   it. What another owns and he would change is a conflict, unless he forces it.
 * - Who *updates* owns what he changed, and takes it from whoever had it.
 */
import type { ObjectSchema } from '../../kind.ts';
import type { JsonObject } from '../json.ts';
import {
  difference,
  EMPTY_SET,
  type FieldSet,
  intersection,
  isEmptySet,
  onlyBelow,
  sameSet,
  setOf,
  union,
  withoutBelow,
} from './field-set.ts';
import { type Comparison, compareFields, fieldsOf } from './fields-of.ts';
import { isSameManager, type Manager } from './managers.ts';
import { mergeConfig, withoutUnowned } from './merge.ts';

/** Whose fields an object without any managers has when the first configuration is applied to it. */
const BEFORE_FIRST_APPLY = 'before-first-apply';

/** Who writes: an entry without fields. */
export type Writer = Omit<Manager, 'fields'>;

export interface WriteScope {
  readonly schema: ObjectSchema;
  /** True if the kind has a status of its own: the object's own writes leave it alone. */
  readonly hasStatus: boolean;
  readonly writer: Writer;
}

export interface Conflict {
  readonly manager: Manager;
  readonly fields: FieldSet;
}

export type ApplyResult =
  | { readonly kind: 'applied'; readonly object: JsonObject; readonly managers: readonly Manager[] }
  | { readonly kind: 'conflicts'; readonly conflicts: readonly Conflict[] };

/** Fields that say which object it is, or that the server sets: nobody manages them. */
const UNMANAGED = setOf([
  ['f:apiVersion'],
  ['f:kind'],
  ['f:metadata'],
  ...[
    'name',
    'namespace',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'selfLink',
    'uid',
    'generation',
    'managedFields',
    'resourceVersion',
  ].map((name) => ['f:metadata', `f:${name}`]),
]);

/** Whose fields change when an object becomes another one by an update. */
export function trackUpdate(
  scope: WriteScope,
  change: { before: JsonObject | undefined; after: JsonObject; managers: readonly Manager[] },
): readonly Manager[] {
  const { writer } = scope;
  const comparison = compareManaged(scope, change.before, change.after);
  const written = union(comparison.added, comparison.modified);
  const others = lose(
    change.managers,
    comparison,
    (manager) => !isSameManager(manager, { ...writer, fields: EMPTY_SET }),
  );
  if (isEmptySet(written)) return others;
  return addFields(others, writer, written);
}

/**
 * Applies a configuration.
 * @param request.live `undefined`: there is no object yet
 * @param request.config complete with `apiVersion`, `kind` and `metadata.name`
 */
export function applyConfiguration(
  scope: WriteScope,
  request: {
    live: JsonObject | undefined;
    managers: readonly Manager[];
    config: JsonObject;
    force: boolean;
    /** Fields that are taken over without a conflict. */
    inherited?: FieldSet;
  },
): ApplyResult {
  const { schema, writer } = scope;
  const live = request.live ?? {};
  const managers = firstManagers(scope, request.live, request.managers);
  const self = { ...writer, fields: EMPTY_SET };
  const last = managers.find((manager) => isSameManager(manager, self));
  const others = managers.filter((manager) => manager !== last);
  const claimed = fieldsOf(schema, request.config);
  const merged = mergeConfig(schema, live, request.config) as JsonObject;
  const owned = others.reduce((all, manager) => union(all, manager.fields), claimed);
  const object =
    last === undefined
      ? merged
      : (withoutUnowned(schema, merged, { last: last.fields, owned }) as JsonObject);
  const comparison = compareManaged(scope, live, object);
  const conflicts = conflictsOf(others, comparison, request.inherited ?? EMPTY_SET);
  if (conflicts.length > 0 && !request.force) return { kind: 'conflicts', conflicts };
  const mine = managedPart(scope, claimed);
  const rest = lose(others, comparison, () => true);
  const isUnchanged =
    last !== undefined && last.apiVersion === writer.apiVersion && sameSet(last.fields, mine);
  // The time is when the fields, or their values, last changed.
  const entry = isUnchanged && !isDifferent(comparison) ? last : { ...writer, fields: mine };
  return { kind: 'applied', object, managers: isEmptySet(mine) ? rest : [...rest, entry] };
}

function isDifferent({ added, modified, removed }: Comparison): boolean {
  return ![added, modified, removed].every(isEmptySet);
}

/** An object from a time without managers gets one that has everything: else the first who applies could not conflict. */
function firstManagers(
  scope: WriteScope,
  live: JsonObject | undefined,
  managers: readonly Manager[],
): readonly Manager[] {
  if (live === undefined || managers.length > 0) return managers;
  const { time: _, ...writer } = scope.writer;
  const first: Writer = {
    ...writer,
    name: BEFORE_FIRST_APPLY,
    operation: 'Update',
    subresource: '',
  };
  const all = compareFields(scope.schema, {}, live).added;
  const fields = difference(all, UNMANAGED);
  return isEmptySet(fields) ? [] : [{ ...first, fields }];
}

function conflictsOf(
  managers: readonly Manager[],
  comparison: Comparison,
  inherited: FieldSet,
): Conflict[] {
  const changed = difference(union(comparison.added, comparison.modified), inherited);
  return managers.flatMap((manager) => {
    const fields = intersection(manager.fields, changed);
    return isEmptySet(fields) ? [] : [{ manager, fields }];
  });
}

/** What is gone belongs to nobody; what was written, only to who wrote it. */
function lose(
  managers: readonly Manager[],
  { added, modified, removed }: Comparison,
  isOther: (manager: Manager) => boolean,
): Manager[] {
  const written = union(added, modified);
  return managers.flatMap((manager) => {
    const taken = isOther(manager) ? union(written, removed) : removed;
    const fields = difference(manager.fields, taken);
    if (isEmptySet(fields)) return [];
    return [sameSet(fields, manager.fields) ? manager : { ...manager, fields }];
  });
}

function addFields(managers: readonly Manager[], writer: Writer, fields: FieldSet): Manager[] {
  const self = { ...writer, fields };
  const known = managers.find((manager) => isSameManager(manager, self));
  if (known === undefined) return [...managers, self];
  return managers.map((manager) =>
    manager === known ? { ...self, fields: union(known.fields, fields) } : manager,
  );
}

function compareManaged(
  scope: WriteScope,
  before: JsonObject | undefined,
  after: JsonObject,
): Comparison {
  const { added, modified, removed } = compareFields(scope.schema, before, after);
  return {
    added: managedPart(scope, added),
    modified: managedPart(scope, modified),
    removed: managedPart(scope, removed),
  };
}

/** The fields that a write to this place can change at all. */
function managedPart({ hasStatus, writer }: WriteScope, set: FieldSet): FieldSet {
  if (writer.subresource === 'status') return onlyBelow(set, ['f:status']);
  return difference(hasStatus ? withoutBelow(set, ['f:status']) : set, UNMANAGED);
}
