/** Who manages which fields of an object that is written: between the registry and `managed-fields/`. Pure. */
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';
import { isObject, type JsonObject, sameJson } from '#api/machinery/json.ts';
import { conflictError } from '#api/machinery/managed-fields/conflict-error.ts';
import {
  difference,
  EMPTY_SET,
  type FieldSet,
  union,
} from '#api/machinery/managed-fields/field-set.ts';
import { compareFields, fieldsOf } from '#api/machinery/managed-fields/fields-of.ts';
import {
  decodeManagers,
  encodeManagers,
  keptManagers,
  type Manager,
  type Operation,
} from '#api/machinery/managed-fields/managers.ts';
import {
  applyConfiguration,
  trackUpdate,
  type WriteScope,
} from '#api/machinery/managed-fields/ownership.ts';
import { listProblems } from '#api/machinery/managed-fields/shape.ts';
import { badRequest } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';

/** Who writes, and where. */
export interface FieldWriter {
  /** Missing: nobody whose fields are to be remembered, as with the server's own repairs. */
  readonly fieldManager: string | undefined;
  readonly subresource: string;
  /** RFC 3339. */
  readonly time: string;
}

/**
 * Kinds that one program writes again and again, and nobody applies: an entry of managers would be most of the object.
 * Upstream keeps them, at the price of a second write's work for each heartbeat.
 */
const UNTRACKED = new Set([
  'coordination.k8s.io/leases',
  '/events',
  'events.k8s.io/events',
  'tulle.dev/ipblocks',
  'tulle.dev/policyusages',
]);

/**
 * The object to be stored with its managers after an update or a creation.
 * @param write.sent as the client sent it: it may set the managers themselves
 * @param write.old `undefined` for a creation
 */
export function trackWrite(
  kind: KindDefinition,
  write: { next: KubeObject; sent: KubeObject; old: KubeObject | undefined } & FieldWriter,
): KubeObject {
  const { next, old, fieldManager } = write;
  const stored = old === undefined ? [] : managersOf(old);
  if (fieldManager === undefined || UNTRACKED.has(`${kind.group}/${kind.resource}`))
    return withManagers(next, stored);
  const given = write.subresource === '' ? givenManagers(write.sent, old, stored) : stored;
  if (given === 'reset') return withManagers(next, []);
  const managers = trackUpdate(scopeOf(kind, 'Update', { ...write, fieldManager }), {
    before: old === undefined ? undefined : asJson(old),
    after: asJson(next),
    managers: given,
  });
  return withManagers(next, managers);
}

/**
 * Puts an applied configuration into an object.
 * @param write.live `undefined` if there is none yet
 * @throws ApiError 409 with the fields that others manage, 400 for a configuration whose lists cannot be merged
 */
export function applyTo(
  kind: KindDefinition,
  write: { live: KubeObject | undefined; config: KubeObject; force: boolean } & FieldWriter,
): { object: KubeObject; managers: readonly Manager[] } {
  const { live, config, fieldManager = '' } = write;
  const [problem] = listProblems(kind.schema, config);
  if (problem !== undefined)
    throw badRequest(
      `failed to create typed patch object (${config.metadata.name}; ${apiVersionOf(kind)}, Kind=${kind.kind}): ${problem}`,
    );
  const result = applyConfiguration(scopeOf(kind, 'Apply', { ...write, fieldManager }), {
    live: live === undefined ? undefined : asJson(live),
    managers: live === undefined ? [] : managersOf(live),
    config: asJson(config),
    force: write.force,
    inherited: clientApplied(kind, { live, fieldManager }),
  });
  if (result.kind === 'conflicts') throw conflictError(result.conflicts);
  const object = result.object as unknown as KubeObject;
  return { object: rememberApplied(object, write), managers: result.managers };
}

/** Where `kubectl apply` without `--server-side` keeps what was applied. */
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';
/** The manager under whose name kubectl applies on the server. */
const KUBECTL = 'kubectl';

/**
 * What the same kubectl applied before, by itself, and nobody changed since: it may go on with it. Without this, going
 * over to server-side apply would be a conflict with oneself.
 */
function clientApplied(
  kind: KindDefinition,
  { live, fieldManager }: { live: KubeObject | undefined; fieldManager: string },
): FieldSet {
  const text = live?.metadata.annotations?.[LAST_APPLIED];
  if (live === undefined || text === undefined || fieldManager !== KUBECTL) return EMPTY_SET;
  let applied: unknown;
  try {
    applied = JSON.parse(text);
  } catch {
    // An annotation is anybody's text: one that is no configuration allows nothing.
    return EMPTY_SET;
  }
  const { modified, removed } = compareFields(kind.schema, applied, asJson(live));
  return difference(fieldsOf(kind.schema, applied), union(modified, removed));
}

/** Keeps the annotation true for those who go on with the client's apply. */
function rememberApplied(
  object: KubeObject,
  {
    live,
    config,
    fieldManager,
  }: { live: KubeObject | undefined; config: KubeObject } & FieldWriter,
): KubeObject {
  if (fieldManager !== KUBECTL || live?.metadata.annotations?.[LAST_APPLIED] === undefined)
    return object;
  const annotations = {
    ...object.metadata.annotations,
    [LAST_APPLIED]: `${JSON.stringify(config)}\n`,
  };
  return { ...object, metadata: { ...object.metadata, annotations } };
}

export function withManagers(object: KubeObject, managers: readonly Manager[]): KubeObject {
  const { managedFields: _, ...metadata } = object.metadata;
  const kept = keptManagers(managers);
  if (kept.length === 0) return { ...object, metadata };
  const managedFields = encodeManagers(kept);
  knownManagers.set(managedFields, kept);
  return { ...object, metadata: { ...metadata, managedFields } };
}

function scopeOf(
  kind: KindDefinition,
  operation: Operation,
  { fieldManager, subresource, time }: FieldWriter & { fieldManager: string },
): WriteScope {
  return {
    schema: kind.schema,
    hasStatus: kind.subresources.includes('status'),
    writer: { name: fieldManager, operation, apiVersion: apiVersionOf(kind), subresource, time },
  };
}

/** What lists of managers say, of those that were written here: objects of the store are never changed. */
const knownManagers = new WeakMap<object, readonly Manager[]>();

function managersOf({ metadata: { managedFields } }: KubeObject): readonly Manager[] {
  const known = managedFields === undefined ? [] : knownManagers.get(managedFields);
  if (known !== undefined) return known;
  try {
    return decodeManagers(managedFields);
  } catch {
    // What cannot be read tells nobody anything: the object is like one from a time without managers.
    return [];
  }
}

/** A client may rewrite the managers, as kubectl does when it goes over to server-side apply; leaving them out keeps them. */
function givenManagers(
  sent: KubeObject,
  old: KubeObject | undefined,
  stored: readonly Manager[],
): readonly Manager[] | 'reset' {
  const { managedFields } = sent.metadata;
  if (old === undefined || managedFields === undefined || managedFields.length === 0) return stored;
  // Who sends back what he read, as nearly all do, says nothing of them.
  if (sameJson(managedFields, old.metadata.managedFields)) return stored;
  const [first] = managedFields;
  if (managedFields.length === 1 && isObject(first) && Object.keys(first).length === 0)
    return 'reset';
  try {
    return decodeManagers(managedFields);
  } catch {
    // As upstream: what a client garbled is not taken, and not a reason to refuse the rest of the update.
    return stored;
  }
}

function asJson(object: KubeObject): JsonObject {
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}
