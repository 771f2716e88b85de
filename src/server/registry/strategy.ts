/**
 * What the server sets on an object whatever the client sent: identity, times, generation, and the wall between an
 * object and its status. Pure.
 */
import { CLEANUP_FINALIZER } from '#api/apiextensions/v1/custom-resource-definition.ts';
import { NAMESPACE_FINALIZER } from '#api/core/v1/namespace.ts';
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';
import { sameJson } from '#api/machinery/json.ts';
import type { KubeObject } from '#api/meta.ts';

/** A kind's own part in what happens on writes, beside the rules for all. */
interface KindStrategy {
  /** A deletion is answered with the object as it was, not with a word of success: typed clients decode it. */
  readonly returnsDeleted?: true;
  /** An update of what is not there makes it. */
  readonly createsOnUpdate?: true;
  /** An update must say which version it is of, even if its writer does not care. */
  readonly needsVersion?: true;
  /** Upstream lets a node register with its status in one request. */
  readonly keepsStatusOnCreate?: true;
  readonly initialize?: (object: LooseObject) => LooseObject;
  /** Keeps what an ordinary update may not touch. */
  readonly preserve?: (wanted: LooseObject, stored: LooseObject) => LooseObject;
  /** The next state that a write to a subresource of this kind's own makes. */
  readonly subresources?: Readonly<
    Record<string, (wanted: LooseObject, stored: LooseObject) => LooseObject>
  >;
  /** True while something beside `metadata.finalizers` keeps the object from going. */
  readonly isHeld?: (object: LooseObject) => boolean;
  /** Whole seconds that who runs the object has to end it; missing: it needs none. */
  readonly gracePeriod?: (object: LooseObject, wish: number | undefined) => number;
  /** How the object says that it is being deleted, beside its `deletionTimestamp`. */
  readonly markDeleting?: (object: LooseObject) => LooseObject;
}

/** Any object, with the fields that most have. */
export interface LooseObject extends KubeObject {
  spec?: Record<string, unknown>;
  status?: Record<string, unknown>;
}

const STRATEGIES: Readonly<Record<string, KindStrategy>> = {
  'core/nodes': { keepsStatusOnCreate: true },
  'core/pods': { returnsDeleted: true, gracePeriod: gracePeriodOfPod },
  'core/serviceaccounts': { returnsDeleted: true },
  'core/services': { returnsDeleted: true, createsOnUpdate: true },
  'core/endpoints': { createsOnUpdate: true },
  'core/events': { createsOnUpdate: true },
  'events.k8s.io/events': { createsOnUpdate: true },
  'coordination.k8s.io/leases': { createsOnUpdate: true, needsVersion: true },
  'rbac.authorization.k8s.io/roles': { createsOnUpdate: true },
  'rbac.authorization.k8s.io/rolebindings': { createsOnUpdate: true },
  'rbac.authorization.k8s.io/clusterroles': { createsOnUpdate: true },
  'rbac.authorization.k8s.io/clusterrolebindings': { createsOnUpdate: true },
  'apiextensions.k8s.io/customresourcedefinitions': {
    needsVersion: true,
    initialize: withCleanup,
    // A replace by a manifest that does not know of it must not let the definition go before its instances.
    preserve: (wanted, stored) =>
      stored.metadata.deletionTimestamp === undefined ? withCleanup(wanted) : wanted,
  },
  'core/namespaces': {
    initialize: (object) => withNamespaceFinalizers(object, [NAMESPACE_FINALIZER]),
    preserve: (wanted, stored) => withNamespaceFinalizers(wanted, stored.spec?.finalizers),
    subresources: {
      finalize: (wanted, stored) => withNamespaceFinalizers(stored, wanted.spec?.finalizers),
    },
    isHeld: (object) => {
      const finalizers = object.spec?.finalizers;
      return Array.isArray(finalizers) && finalizers.length > 0;
    },
    markDeleting: (object) => ({ ...object, status: { ...object.status, phase: 'Terminating' } }),
  },
};

/** A pod that no node has, or that has ended, has nothing to end. Less than nothing is a second, as upstream. */
function gracePeriodOfPod({ spec, status }: LooseObject, wish: number | undefined): number {
  const isOver = status?.phase === 'Succeeded' || status?.phase === 'Failed';
  if ((spec?.nodeName ?? '') === '' || isOver) return 0;
  const own = spec?.terminationGracePeriodSeconds;
  const seconds = wish ?? (typeof own === 'number' ? own : 0);
  return seconds < 0 ? 1 : Math.min(seconds, MAX_GRACE_PERIOD_SECONDS);
}
/** 68 years: what is added to today's date must be a date. */
const MAX_GRACE_PERIOD_SECONDS = 2 ** 31 - 1;

function withCleanup(object: LooseObject): LooseObject {
  const finalizers = object.metadata.finalizers ?? [];
  if (finalizers.includes(CLEANUP_FINALIZER)) return object;
  return {
    ...object,
    metadata: { ...object.metadata, finalizers: [...finalizers, CLEANUP_FINALIZER] },
  };
}

function withNamespaceFinalizers(object: LooseObject, finalizers: unknown): LooseObject {
  return { ...object, spec: { ...object.spec, finalizers: finalizers ?? [] } };
}

function strategyOf(kind: KindDefinition): KindStrategy {
  return STRATEGIES[`${kind.group === '' ? 'core' : kind.group}/${kind.resource}`] ?? {};
}

/** Whether an update of what is not there makes it; upstream's `AllowCreateOnUpdate`. */
export function createsOnUpdate(kind: KindDefinition): boolean {
  return strategyOf(kind).createsOnUpdate === true;
}

/** Whether an update without a version is refused; the contrary of upstream's `AllowUnconditionalUpdate`. */
export function needsVersion(kind: KindDefinition): boolean {
  return kind.custom !== undefined || strategyOf(kind).needsVersion === true;
}

/** Whether the answer to a deletion is the object. */
export function returnsDeleted(kind: KindDefinition): boolean {
  return strategyOf(kind).returnsDeleted === true;
}

/**
 * Makes a client's object the new object that may be stored.
 * @param identity what only the server gives; `creationTimestamp` in RFC 3339 with whole seconds
 */
export function prepareForCreate(
  kind: KindDefinition,
  object: KubeObject,
  identity: { name: string; namespace: string; uid: string; creationTimestamp: string },
): KubeObject {
  const strategy = strategyOf(kind);
  const {
    resourceVersion: _rv,
    managedFields: _mf,
    deletionTimestamp: _dt,
    deletionGracePeriodSeconds: _dg,
    namespace: _ns,
    ...metadata
  } = object.metadata;
  const { status, ...rest } = object as LooseObject;
  const keepsStatus =
    status !== undefined &&
    (strategy.keepsStatusOnCreate === true || !kind.subresources.includes('status'));
  const created: LooseObject = {
    ...rest,
    apiVersion: apiVersionOf(kind),
    kind: kind.kind,
    metadata: {
      ...withoutEmpty(metadata),
      name: identity.name,
      ...(kind.namespaced ? { namespace: identity.namespace } : {}),
      uid: identity.uid,
      generation: 1,
      creationTimestamp: identity.creationTimestamp,
    },
    ...(keepsStatus ? { status } : {}),
  };
  return strategy.initialize?.(created) ?? created;
}

/**
 * Makes a client's object the next state of a stored one.
 * @param subresource empty, `status` (then nothing but the status changes), or one of the kind's own
 */
export function prepareForUpdate(
  kind: KindDefinition,
  subresource: string,
  object: KubeObject,
  old: KubeObject,
): KubeObject {
  const wanted = object as LooseObject;
  const stored = old as LooseObject;
  const strategy = strategyOf(kind);
  const own = strategy.subresources?.[subresource];
  if (own !== undefined) return own(wanted, stored);
  if (subresource === 'status') {
    const { status: _, ...rest } = stored;
    return wanted.status === undefined ? rest : ({ ...rest, status: wanted.status } as KubeObject);
  }
  const { status: wantedStatus, ...body } = wanted;
  const status = kind.subresources.includes('status') ? stored.status : wantedStatus;
  const { managedFields: _mf, ...metadata } = wanted.metadata;
  const next = {
    ...body,
    apiVersion: apiVersionOf(kind),
    kind: kind.kind,
    metadata: {
      ...withoutEmpty(metadata),
      ...ownedByServer(stored.metadata),
      name: stored.metadata.name,
      ...(kind.namespaced ? { namespace: stored.metadata.namespace ?? '' } : {}),
    },
    ...(status === undefined ? {} : { status }),
  } as LooseObject;
  return strategy.preserve?.(next, stored) ?? next;
}

/** Whether writes to `subresource` of the kind have a meaning. */
export function hasSubresource(kind: KindDefinition, subresource: string): boolean {
  return (
    kind.subresources.some((known) => known === subresource) ||
    strategyOf(kind).subresources?.[subresource] !== undefined
  );
}

/** An empty map or list of the metadata is the same as none, and is left out, as in Go's `omitempty`. */
function withoutEmpty<T extends Partial<KubeObject['metadata']>>(metadata: T): T {
  const kept = { ...metadata };
  for (const field of EMPTIABLE_FIELDS) {
    const value = kept[field];
    if (value !== undefined && Object.keys(value).length === 0) delete kept[field];
  }
  return kept;
}
const EMPTIABLE_FIELDS = ['labels', 'annotations', 'finalizers', 'ownerReferences'] as const;

/** Metadata that no client can change, with `undefined` standing for "not there" so that it covers what was sent. */
function ownedByServer(stored: KubeObject['metadata']): Partial<KubeObject['metadata']> {
  const kept: Record<string, unknown> = {};
  for (const field of SERVER_FIELDS) kept[field] = stored[field];
  return kept as Partial<KubeObject['metadata']>;
}
const SERVER_FIELDS = [
  'uid',
  'creationTimestamp',
  'generation',
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
  'resourceVersion',
  'generateName',
] as const;

/**
 * The generation of the next state: one more if anything but metadata and status changed, or if the deletion began.
 */
export function nextGeneration(object: KubeObject, old: KubeObject): number | undefined {
  const was = old.metadata.generation;
  if (was === undefined) return undefined;
  return sameJson(desiredPart(object), desiredPart(old)) ? was : was + 1;
}

function desiredPart(object: KubeObject): object {
  const { metadata: _m, status: _s, ...rest } = object as LooseObject;
  return rest;
}

/** True while finalizers keep a deleted object. */
export function isHeld(kind: KindDefinition, object: KubeObject): boolean {
  return (
    (object.metadata.finalizers?.length ?? 0) > 0 ||
    (strategyOf(kind).isHeld?.(object as LooseObject) ?? false)
  );
}

/** How many seconds the object is given to end, if somebody wishes so many. */
export function gracePeriodOf(
  kind: KindDefinition,
  object: KubeObject,
  wish: number | undefined,
): number {
  return strategyOf(kind).gracePeriod?.(object as LooseObject, wish) ?? 0;
}

/**
 * The object as it waits for its finalizers, and to be ended.
 * @param deletion.at when it may be gone, RFC 3339
 * @param deletion.grace whole seconds given to it
 */
export function markDeleting(
  kind: KindDefinition,
  object: KubeObject,
  deletion: { readonly at: string; readonly grace: number },
): KubeObject {
  const marked: LooseObject = {
    ...object,
    metadata: {
      ...object.metadata,
      deletionTimestamp: deletion.at,
      deletionGracePeriodSeconds: deletion.grace,
      ...(object.metadata.generation === undefined
        ? {}
        : { generation: object.metadata.generation + 1 }),
    },
  };
  return strategyOf(kind).markDeleting?.(marked) ?? marked;
}

/** Upstream's alphabet: no vowels and no look-alikes, so that no word and no misreading comes out. */
const SUFFIX_ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';
const SUFFIX_LENGTH = 5;
/** A DNS label's 63 characters, less the suffix. */
const MAX_GENERATED_BASE_LENGTH = 63 - SUFFIX_LENGTH;

/** @param random a number in [0, 1) */
export function generateName(base: string, random: () => number): string {
  let suffix = '';
  for (let i = 0; i < SUFFIX_LENGTH; i++)
    suffix += SUFFIX_ALPHABET[Math.floor(random() * SUFFIX_ALPHABET.length)];
  return base.slice(0, MAX_GENERATED_BASE_LENGTH) + suffix;
}
