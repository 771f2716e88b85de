/**
 * The objects of one kind in the store: create, read, change, delete, with the guarantees that Kubernetes clients count
 * on (optimistic concurrency, two-phase deletion, generation, dry run). Knows nothing of HTTP.
 */

import type { FieldError, KindDefinition } from '#api/kind.ts';
import { invalid } from '#api/machinery/field-errors.ts';
import { plainJson, sameJson } from '#api/machinery/json.ts';
import type { Manager } from '#api/machinery/managed-fields/managers.ts';
import {
  alreadyExists,
  badRequest,
  conflict,
  invalidObject,
  notFound,
  pathNotFound,
} from '#api/machinery/status.ts';
import { formatTime } from '#api/machinery/time.ts';
import { validateMetaUpdate } from '#api/machinery/validate-meta.ts';
import type { KubeObject } from '#api/meta.ts';
import type { Clock } from '#lib/clock.ts';
import { isAlreadyExists, isNotFound } from '#lib/errors.ts';
import type { Store, StoreEntry, StoreReader } from '#store/port.ts';
import { type AdmissionPlugin, type AdmissionReview, admit } from '../admission/admission.ts';
import type { Principal } from '../principal.ts';
import { decodeAs, encodeAs, rememberEntry } from './codec.ts';
import type { ObjectLeases } from './expiry.ts';
import { type DeletionWish, isReleased, planDeletion } from './graceful-deletion.ts';
import { objectKey } from './keys.ts';
import { applyTo, trackWrite, withManagers } from './ownership.ts';
import {
  admitRemoval,
  type ChangePlan,
  commitLeased,
  commitPlan,
  planOn,
  reviewBase,
  written,
} from './planned-write.ts';
import {
  createsOnUpdate,
  generateName,
  hasSubresource,
  needsVersion,
  nextGeneration,
  prepareForCreate,
  prepareForUpdate,
} from './strategy.ts';

/**
 * A write that keeps losing races is given up with a conflict, which clients know how to handle. Each lost race means
 * that another writer won, so many in a row are a hot object, not bad luck.
 */
export const MAX_WRITE_ATTEMPTS = 30;

export interface RegistryContext {
  readonly store: Store;
  readonly clock: Clock;
  readonly plugins: readonly AdmissionPlugin[];
  readonly leases: ObjectLeases;
  /** A new UUID. */
  readonly createUid: () => string;
  /** A number in [0, 1). */
  readonly random: () => number;
}

export interface Target {
  /** Empty for cluster-scoped kinds. */
  readonly namespace: string;
  readonly name: string;
}

export interface WriteOptions {
  readonly principal: Principal;
  /** Everything is checked and answered, nothing is stored. */
  readonly dryRun: boolean;
  /** By which name the fields that are written are managed. Missing: it is not remembered who wrote them. */
  readonly fieldManager?: string;
}

/** Of a write that changes what is there, or makes it. */
export interface UpsertOptions extends WriteOptions {
  /** Called before an object that is not there is made: who may change may not therefore create. Throws to refuse. */
  readonly checkCreate?: () => void;
}

export interface ApplyOptions extends UpsertOptions {
  readonly fieldManager: string;
  /** Fields of other managers are taken over. */
  readonly force: boolean;
}

export interface DeleteOptions extends WriteOptions, DeletionWish {
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
}

export interface Written {
  readonly object: KubeObject;
  readonly warnings: readonly string[];
}

export interface Upserted extends Written {
  readonly created: boolean;
}

export interface Deleted extends Written {
  /** False if finalizers still hold it, or who runs it is given time to end it. */
  readonly removed: boolean;
}

export interface ResourceRegistry {
  readonly kind: KindDefinition;
  /** @throws ApiError NotFound; FutureRevisionError if `notOlderThan` has not happened */
  get(target: Target, notOlderThan?: number): Promise<KubeObject>;
  /** @throws ApiError AlreadyExists, Invalid, or what admission refuses with */
  create(namespace: string, object: KubeObject, options: WriteOptions): Promise<Written>;
  /**
   * Reads, changes and writes until no other writer comes between.
   * @param change makes the next state of a stored object, which it must not modify. A `resourceVersion` in it that is not
   * the stored one's is a conflict; none at all overwrites whatever is there.
   * @throws ApiError NotFound, Conflict, Invalid, or what admission refuses with
   */
  update(
    target: Target & { readonly subresource?: string },
    change: (stored: KubeObject) => KubeObject,
    options: WriteOptions,
  ): Promise<Written>;
  /**
   * Makes the object what was sent, or creates it where the kind's updates do.
   * @throws ApiError as {@link update}
   */
  replace(
    target: Target & { readonly subresource?: string },
    object: KubeObject,
    options: UpsertOptions,
  ): Promise<Upserted>;
  /**
   * Server-side apply: makes the object what the configuration says, or creates it.
   * @throws ApiError Conflict with the fields that others manage; NotFound for a subresource of what is not there;
   *   Invalid, or what admission refuses with
   */
  apply(
    target: Target & { readonly subresource?: string },
    config: KubeObject,
    options: ApplyOptions,
  ): Promise<Upserted>;
  /** @throws ApiError NotFound; Conflict if a precondition does not hold */
  delete(target: Target, options: DeleteOptions): Promise<Deleted>;
}

export function createResourceRegistry(
  kind: KindDefinition,
  context: RegistryContext,
): ResourceRegistry {
  return {
    kind,
    get: (target, notOlderThan) => getObject(kind, context, target, notOlderThan),
    create: (namespace, object, options) => create(kind, context, namespace, object, options),
    update: (target, change, options) =>
      update(kind, context, target, (stored) => ({ wanted: change(stored) }), options),
    replace: (target, object, options) => replace(kind, context, target, object, options),
    apply: (target, config, options) => apply(kind, context, target, config, options),
    delete: (target, options) => remove(kind, context, target, options),
  };
}

async function getObject(
  kind: KindDefinition,
  { store }: RegistryContext,
  target: Target,
  notOlderThan = 0,
): Promise<KubeObject> {
  if (notOlderThan > 0 && notOlderThan > (await store.revision()))
    // Reading at a revision that has not happened makes the store say so in its own error.
    await store.get(objectKey(kind, target.namespace, target.name), notOlderThan);
  return decodeAs(kind, await getEntry(kind, store, target));
}

async function getEntry(
  kind: KindDefinition,
  store: StoreReader,
  target: Target,
): Promise<StoreEntry> {
  const entry = await store.get(objectKey(kind, target.namespace, target.name));
  if (entry === undefined) throw notFound(kind, target.name);
  return entry;
}

async function create(
  kind: KindDefinition,
  context: RegistryContext,
  namespace: string,
  sent: KubeObject,
  options: WriteOptions & { readonly managers?: readonly Manager[] },
): Promise<Written> {
  const { metadata } = sent;
  if ((metadata.resourceVersion ?? '') !== '')
    throw badRequest('resourceVersion should not be set on objects to be created');
  const isGenerated = (metadata.name ?? '') === '' && (metadata.generateName ?? '') !== '';
  const identity = {
    namespace,
    uid: context.createUid(),
    creationTimestamp: timestamp(context.clock),
  };
  const plan = async (store: StoreReader) => {
    const name = isGenerated
      ? generateName(metadata.generateName ?? '', context.random)
      : (metadata.name ?? '');
    const prepared = kind.setDefaults(prepareForCreate(kind, sent, { ...identity, name }));
    const review = reviewBase(kind, store, { namespace, name }, options);
    const outcome = await admit(context.plugins, {
      ...review,
      operation: 'CREATE',
      object: withOwners(kind, context, { next: prepared, sent, old: undefined }, options),
      old: undefined,
    });
    const object = outcome.object ?? prepared;
    throwIfInvalid(kind, name, [...outcome.errors, ...kind.validate(object, undefined)]);
    return { name, object, outcome };
  };
  for (let attempt = 0; attempt < MAX_WRITE_ATTEMPTS; attempt++) {
    const { name, object, outcome } = await planOn(context.store, attempt, plan);
    const key = objectKey(kind, namespace, name);
    const result = await commitLeased(kind, context, options.dryRun, {
      key,
      expected: 0,
      operation: { type: 'put', key, value: encodeAs(kind, object) },
      outcome,
    });
    if (result.kind === 'done') return written(object, result.revision, outcome);
    if (result.kind === 'object-changed' && !isGenerated) throw alreadyExists(kind, name);
  }
  throw conflict(kind, metadata.name ?? metadata.generateName ?? '');
}

async function update(
  kind: KindDefinition,
  context: RegistryContext,
  target: Target & { readonly subresource?: string },
  change: (stored: KubeObject) => Change,
  options: WriteOptions,
): Promise<Written> {
  const subresource = target.subresource ?? '';
  if (subresource !== '' && !hasSubresource(kind, subresource)) throw pathNotFound();
  const plan = async (store: StoreReader): Promise<ChangePlan> => {
    const entry = await getEntry(kind, store, target);
    const old = decodeAs(kind, entry);
    const { wanted, managers } = change(old);
    checkIdentity(kind, target.name, wanted, old);
    const next = plainJson(nextState(kind, subresource, wanted, old));
    const review: AdmissionReview = {
      ...reviewBase(kind, store, target, options),
      subresource,
      operation: 'UPDATE',
      object: withOwners(
        kind,
        context,
        { next, sent: wanted, old, subresource },
        managers === undefined ? options : { ...options, managers },
      ),
      old,
    };
    const outcome = await admit(context.plugins, review);
    const admitted = outcome.object ?? review.object;
    const object = withGeneration(admitted === review.object ? admitted : plainJson(admitted), old);
    throwIfInvalid(kind, target.name, [
      ...outcome.errors,
      ...validateMetaUpdate(object, old),
      ...kind.validate(object, old),
    ]);
    const { warnings } = outcome;
    if (sameJson(object, old)) return { entry, object: old, warnings, isSame: true };
    const removes = isReleased(kind, object, old);
    const effects = removes
      ? await admitRemoval(kind, context, { object, review }, options)
      : outcome;
    return { entry, object, warnings, outcome: effects, removes };
  };
  for (let attempt = 0; attempt < MAX_WRITE_ATTEMPTS; attempt++) {
    const planned = await planOn(context.store, attempt, plan);
    if (planned.isSame === true) return planned;
    const result = await commitPlan(kind, context, planned, options);
    if (result.kind !== 'done') continue;
    const change = written(planned.object, result.revision, planned);
    // What is updated is updated again, and watched.
    const entry = await context.store.known.get(planned.entry.key);
    if (entry?.modRevision === result.revision) rememberEntry(kind, entry, change.object);
    return change;
  }
  throw conflict(kind, target.name);
}

/** The next state that somebody wants. */
interface Change {
  readonly wanted: KubeObject;
  /** Who then manages what; missing: the writer manages what he changes. */
  readonly managers?: readonly Manager[];
}

function withOwners(
  kind: KindDefinition,
  { clock }: RegistryContext,
  write: { next: KubeObject; sent: KubeObject; old: KubeObject | undefined; subresource?: string },
  options: WriteOptions & { readonly managers?: readonly Manager[] },
): KubeObject {
  const { fieldManager, managers } = options;
  if (managers !== undefined) return withManagers(write.next, managers);
  return trackWrite(kind, { subresource: '', ...write, fieldManager, time: timestamp(clock) });
}

async function apply(
  kind: KindDefinition,
  context: RegistryContext,
  target: Target & { readonly subresource?: string },
  config: KubeObject,
  options: ApplyOptions,
): Promise<Upserted> {
  const { fieldManager, force } = options;
  const { subresource = '' } = target;
  const merge = (live: KubeObject | undefined) =>
    applyTo(kind, {
      live,
      config,
      force,
      fieldManager,
      subresource,
      time: timestamp(context.clock),
    });
  const change = (stored: KubeObject): Change => {
    const { object, managers } = merge(stored);
    return { wanted: object, managers };
  };
  return await changeOrCreate(kind, target, config, {
    change: () => update(kind, context, target, change, options),
    create: () => {
      options.checkCreate?.();
      const { object, managers } = merge(undefined);
      return create(kind, context, target.namespace, object, { ...options, managers });
    },
  });
}

async function replace(
  kind: KindDefinition,
  context: RegistryContext,
  target: Target & { readonly subresource?: string },
  object: KubeObject,
  options: UpsertOptions,
): Promise<Upserted> {
  const change = () => update(kind, context, target, () => ({ wanted: object }), options);
  if (!createsOnUpdate(kind)) return { ...(await change()), created: false };
  return await changeOrCreate(kind, target, object, {
    change,
    create: () => {
      options.checkCreate?.();
      return create(kind, context, target.namespace, object, options);
    },
  });
}

/** Changes what is there, or makes it; somebody else may make or delete it at any moment between. */
async function changeOrCreate(
  kind: KindDefinition,
  { name, subresource = '' }: Target & { readonly subresource?: string },
  { metadata }: KubeObject,
  ways: { readonly change: () => Promise<Written>; readonly create: () => Promise<Written> },
): Promise<Upserted> {
  const { uid = '', resourceVersion = '' } = metadata;
  // Whoever names a version or a subresource means an object that is there.
  const mayCreate = subresource === '' && uid === '' && resourceVersion === '';
  for (let attempt = 0; attempt < MAX_WRITE_ATTEMPTS; attempt++) {
    try {
      return { ...(await ways.change()), created: false };
    } catch (error) {
      if (!isNotFound(error) || !mayCreate) throw error;
    }
    try {
      return { ...(await ways.create()), created: true };
    } catch (error) {
      // Somebody else made it at this moment: then it is there to be changed.
      if (!isAlreadyExists(error)) throw error;
    }
  }
  throw conflict(kind, name);
}

/** The state that a client wants, complete: defaults filled in, and what belonged to another type of it dropped. */
function nextState(
  kind: KindDefinition,
  subresource: string,
  wanted: KubeObject,
  old: KubeObject,
): KubeObject {
  const next = kind.setDefaults(plainJson(prepareForUpdate(kind, subresource, wanted, old)));
  return subresource === '' ? (kind.prepareForUpdate?.(next, old) ?? next) : next;
}

/** What a client sent must be about the object that is stored, as the client last saw it. */
function checkIdentity(
  kind: KindDefinition,
  name: string,
  wanted: KubeObject,
  old: KubeObject,
): void {
  const { resourceVersion = '', uid = '' } = wanted.metadata;
  if (resourceVersion === '' && needsVersion(kind))
    throw invalidObject(kind, name, [
      invalid('metadata.resourceVersion', 0, 'must be specified for an update'),
    ]);
  if (resourceVersion !== '' && resourceVersion !== old.metadata.resourceVersion)
    throw conflict(kind, name);
  if (uid !== '' && uid !== old.metadata.uid)
    throw conflict(
      kind,
      name,
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid ?? ''}`,
    );
}

async function remove(
  kind: KindDefinition,
  context: RegistryContext,
  target: Target,
  options: DeleteOptions,
): Promise<Deleted> {
  const plan = async (store: StoreReader): Promise<ChangePlan> => {
    const entry = await getEntry(kind, store, target);
    const old = decodeAs(kind, entry);
    checkPreconditions(kind, old, options.preconditions);
    const review: AdmissionReview = {
      ...reviewBase(kind, store, target, options),
      operation: 'DELETE',
      object: undefined,
      old,
    };
    const step = planDeletion(kind, old, options, context.clock.now());
    if (step.kind === 'remove') {
      const outcome = await admitRemoval(kind, context, { object: old, review }, options);
      return { entry, object: old, warnings: outcome.warnings, outcome, removes: true };
    }
    if (step.kind === 'pending') return { entry, object: old, warnings: [], isSame: true };
    const outcome = await admit(context.plugins, review);
    const { object } = step;
    return { entry, object, warnings: outcome.warnings, outcome, removes: false };
  };
  for (let attempt = 0; attempt < MAX_WRITE_ATTEMPTS; attempt++) {
    const planned = await planOn(context.store, attempt, plan);
    if (planned.isSame === true) return { ...planned, removed: false };
    const result = await commitPlan(kind, context, planned, options);
    if (result.kind === 'done')
      return { ...written(planned.object, result.revision, planned), removed: planned.removes };
  }
  throw conflict(kind, target.name);
}

function checkPreconditions(
  kind: KindDefinition,
  object: KubeObject,
  preconditions: DeleteOptions['preconditions'],
): void {
  const { uid, resourceVersion } = preconditions ?? {};
  const { name, uid: hasUid = '', resourceVersion: hasVersion = '' } = object.metadata;
  if (uid !== undefined && uid !== hasUid)
    throw conflict(
      kind,
      name,
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${hasUid}`,
    );
  if (resourceVersion !== undefined && resourceVersion !== hasVersion)
    throw conflict(
      kind,
      name,
      `Precondition failed: ResourceVersion in precondition: ${resourceVersion}, ResourceVersion in object meta: ${hasVersion}`,
    );
}

function withGeneration(object: KubeObject, old: KubeObject): KubeObject {
  const generation = nextGeneration(object, old);
  if (generation === undefined) return object;
  return { ...object, metadata: { ...object.metadata, generation } };
}

function throwIfInvalid(kind: KindDefinition, name: string, errors: readonly FieldError[]): void {
  if (errors.length > 0) throw invalidObject(kind, name, errors);
}

function timestamp(clock: Clock): string {
  return formatTime(clock.now());
}
