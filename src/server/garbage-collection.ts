/**
 * Deletes what nobody owns any more (`metadata.ownerReferences`), and lets owners go as their deletion asked:
 *
 *     owner deleted, Background   ─► owner goes ─► what it owned goes
 *     owner deleted, Foreground   ─► what it owns goes ─► owner goes, when nothing that blocks it is left
 *     owner deleted, Orphan       ─► references to it are taken out ─► owner goes
 *
 * Nothing is deleted on a guess: an owner counts as gone only if the store has no object of its kind, name and UID, and a
 * kind that is not served says nothing. Deletions carry the UID and version that were judged.
 */
import type { KindDefinition } from '#api/kind.ts';
import type { KubeObject, OwnerReference } from '#api/meta.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError, isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { WorkQueue } from '#lib/work-queue.ts';
import { valueText } from '#store/held-entry.ts';
import type { Store, StoreEntry, StoreEvent } from '#store/port.ts';
import { concernsCollector, judge, type OwnerState, OwnershipGraph } from './ownership-graph.ts';
import { SERVER_PRINCIPAL } from './principal.ts';
import type { Registries } from './registries.ts';
import { decodeEntry } from './registry/codec.ts';
import { objectKey, REGISTRY_PREFIX } from './registry/keys.ts';
import {
  FOREGROUND_FINALIZER,
  ORPHAN_FINALIZER,
  type Propagation,
  propagationOf,
} from './registry/propagation.ts';
import type { ResourceRegistry } from './registry/resource-registry.ts';

export interface GarbageCollectionOptions {
  readonly store: Store;
  readonly registries: Registries;
  readonly log: Logger;
  readonly clock: Clock;
}

export interface GarbageCollection extends AsyncDisposable {
  /** Resolves when everything that is known now was looked at. For tests. */
  settled(): Promise<void>;
}

/** Entries read at once while the index is made: requests take their turns in between. */
const LIST_CHUNK = 500;
/** A watch that broke is begun again, with a new index, after this time. */
const RESTART_MS = 1_000;
const WRITE_OPTIONS = { principal: SERVER_PRINCIPAL, dryRun: false } as const;

export function startGarbageCollection(options: GarbageCollectionOptions): GarbageCollection {
  const { store, log, clock } = options;
  const stop = new AbortController();
  const graph = new OwnershipGraph();
  const queue: WorkQueue = new WorkQueue((key) => work(collector, key), {
    name: 'garbage collection',
    log,
    clock,
  });
  const collector: Collector = { ...options, graph, queue };
  let seen = 0;
  const run = async () => {
    while (!stop.signal.aborted) {
      try {
        seen = await index(collector, stop.signal);
        for await (const batch of store.watch(REGISTRY_PREFIX, seen, {
          signal: stop.signal,
          progressMs: 1_000,
        })) {
          for (const event of batch.events) note(collector, event);
          seen = batch.revision;
        }
      } catch (error) {
        log.warn(
          { error: explainError(error) },
          'garbage collection: the watch ended, it is begun again',
        );
        await pause(clock, stop.signal);
      }
    }
  };
  const running = run();
  return {
    async settled() {
      const wanted = await store.revision();
      while (seen < wanted) await pause(clock, stop.signal, 5);
      await queue.idle();
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
      await queue[Symbol.asyncDispose]();
    },
  };
}

interface Collector extends GarbageCollectionOptions {
  readonly graph: OwnershipGraph;
  readonly queue: WorkQueue;
}

/** Makes the index anew. @returns the revision it is of */
async function index(collector: Collector, signal: AbortSignal): Promise<number> {
  const { store, graph } = collector;
  graph.clear();
  let revision: number | undefined;
  let startAfter: string | undefined;
  while (!signal.aborted) {
    const page = await store.list(REGISTRY_PREFIX, {
      limit: LIST_CHUNK,
      ...(revision === undefined ? {} : { revision }),
      ...(startAfter === undefined ? {} : { startAfter }),
    });
    revision ??= page.revision;
    for (const entry of page.entries) noteEntry(collector, entry);
    startAfter = page.entries.at(-1)?.key;
    if (!page.more) break;
    await new Promise(setImmediate);
  }
  return revision ?? 0;
}

function note(collector: Collector, event: StoreEvent): void {
  const { graph, queue } = collector;
  const key = event.type === 'put' ? event.entry.key : event.key;
  const before =
    graph.has(key) && event.previous !== undefined ? decodeEntry(event.previous) : undefined;
  if (event.type === 'put') noteEntry(collector, event.entry);
  else graph.remove(key);
  // An owner that waits for this one may be free now.
  for (const owner of before?.metadata.ownerReferences ?? []) {
    const found = findOwner(collector, before, owner);
    if (found !== undefined && !graph.dependentsOf(owner.uid).includes(key)) queue.add(found.key);
  }
  if (event.type === 'put') return;
  const { uid } = decodeEntry(event.previous).metadata;
  for (const dependent of graph.dependentsOf(uid)) queue.add(dependent);
}

function noteEntry({ graph, queue }: Collector, entry: StoreEntry): void {
  if (!concernsCollector(valueText(entry))) {
    graph.remove(entry.key);
    return;
  }
  const { metadata } = decodeEntry(entry);
  const isChanged = graph.set(entry.key, metadata.ownerReferences ?? []);
  if (isChanged && graph.has(entry.key)) queue.add(entry.key);
  if (metadata.deletionTimestamp === undefined) return;
  const finalizers = metadata.finalizers ?? [];
  if (finalizers.includes(ORPHAN_FINALIZER) || finalizers.includes(FOREGROUND_FINALIZER))
    queue.add(entry.key);
}

/** Looks at one object: as one that is owned, or as an owner that is to go. */
async function work(collector: Collector, key: string): Promise<void> {
  const entry = await collector.store.get(key);
  if (entry === undefined) return;
  const object = decodeEntry(entry);
  const registry = registryFor(collector, object);
  if (registry === undefined) return;
  try {
    if (object.metadata.deletionTimestamp === undefined)
      await settleDependent(collector, registry, object);
    else if (propagationOf(object) === 'Orphan') await orphan(collector, registry, object);
    else if (propagationOf(object) === 'Foreground')
      await deleteForeground(collector, registry, object);
  } catch (error) {
    // Somebody changed it meanwhile: it is judged again as it is now.
    if (isConflict(error)) collector.queue.add(key);
    else if (!isNotFound(error)) throw error;
  }
}

async function settleDependent(
  collector: Collector,
  registry: ResourceRegistry,
  object: KubeObject,
): Promise<void> {
  const states = new Map<string, OwnerState>();
  for (const owner of object.metadata.ownerReferences ?? [])
    states.set(owner.uid, await stateOf(collector, object, owner));
  const verdict = judge(object, (owner) => states.get(owner.uid) ?? 'present');
  if (verdict.kind === 'release') await release(registry, object, verdict.uids);
  if (verdict.kind !== 'delete') return;
  const owns = collector.graph.dependentsOf(object.metadata.uid).length > 0;
  await deleteJudged(
    registry,
    object,
    verdict.waits && owns ? 'Foreground' : propagationOf(object),
  );
}

async function stateOf(
  collector: Collector,
  object: KubeObject,
  owner: OwnerReference,
): Promise<OwnerState> {
  const found = findOwner(collector, object, owner);
  // A kind that is not served may be served by somebody else: nothing is known of such an owner.
  if (found === undefined) return 'present';
  const entry = await collector.store.get(found.key);
  if (entry === undefined) return 'absent';
  const { metadata } = decodeEntry(entry);
  if (metadata.uid !== owner.uid) return 'absent';
  const waits =
    metadata.deletionTimestamp !== undefined && metadata.finalizers?.includes(FOREGROUND_FINALIZER);
  return waits ? 'waiting' : 'present';
}

async function orphan(
  collector: Collector,
  registry: ResourceRegistry,
  owner: KubeObject,
): Promise<void> {
  const { uid = '' } = owner.metadata;
  for (const { registry: of, object } of await dependentsOf(collector, owner))
    await release(of, object, [uid]);
  await dropFinalizer(registry, owner, ORPHAN_FINALIZER);
}

async function deleteForeground(
  collector: Collector,
  registry: ResourceRegistry,
  owner: KubeObject,
): Promise<void> {
  const dependents = await dependentsOf(collector, owner);
  for (const { object } of dependents)
    if (object.metadata.deletionTimestamp === undefined)
      collector.queue.add(keyOf(collector, object));
  const blocks = dependents.some(({ object }) =>
    object.metadata.ownerReferences?.some(
      (reference) => reference.uid === owner.metadata.uid && reference.blockOwnerDeletion === true,
    ),
  );
  // The last one that goes brings us here again.
  if (!blocks) await dropFinalizer(registry, owner, FOREGROUND_FINALIZER);
}

async function dependentsOf(
  collector: Collector,
  owner: KubeObject,
): Promise<{ registry: ResourceRegistry; object: KubeObject }[]> {
  const found = [];
  for (const key of collector.graph.dependentsOf(owner.metadata.uid)) {
    const entry = await collector.store.get(key);
    const object = entry === undefined ? undefined : decodeEntry(entry);
    const registry = object === undefined ? undefined : registryFor(collector, object);
    if (object !== undefined && registry !== undefined) found.push({ registry, object });
  }
  return found;
}

/** Takes references out of an object. */
async function release(
  registry: ResourceRegistry,
  object: KubeObject,
  uids: readonly string[],
): Promise<void> {
  const without = (stored: KubeObject): KubeObject => {
    const kept = (stored.metadata.ownerReferences ?? []).filter(({ uid }) => !uids.includes(uid));
    return { ...stored, metadata: { ...stored.metadata, ownerReferences: kept } };
  };
  await unlessGone(() => registry.update(targetOf(object), without, WRITE_OPTIONS));
}

async function dropFinalizer(
  registry: ResourceRegistry,
  object: KubeObject,
  name: string,
): Promise<void> {
  const without = (stored: KubeObject): KubeObject => {
    const finalizers = (stored.metadata.finalizers ?? []).filter((finalizer) => finalizer !== name);
    return { ...stored, metadata: { ...stored.metadata, finalizers } };
  };
  await unlessGone(() => registry.update(targetOf(object), without, WRITE_OPTIONS));
}

async function deleteJudged(
  registry: ResourceRegistry,
  object: KubeObject,
  propagation: Propagation,
): Promise<void> {
  const { uid = '', resourceVersion = '' } = object.metadata;
  const preconditions = { uid, resourceVersion };
  await unlessGone(() =>
    registry.delete(targetOf(object), { ...WRITE_OPTIONS, preconditions, propagation }),
  );
}

function findOwner(
  collector: Collector,
  object: KubeObject | undefined,
  { apiVersion, kind, name }: OwnerReference,
): { key: string } | undefined {
  const registry = registryFor(collector, { apiVersion, kind });
  if (registry === undefined) return undefined;
  const namespace = object?.metadata.namespace ?? '';
  // What has no namespace cannot be owned by what is in one: such a reference says nothing.
  if (registry.kind.namespaced && namespace === '') return undefined;
  return { key: objectKey(registry.kind, registry.kind.namespaced ? namespace : '', name) };
}

const BY_KIND = new WeakMap<readonly KindDefinition[], Map<string, KindDefinition>>();

/** The registry of a group's kind, in whatever version: all versions are the same objects. */
function registryFor(
  { registries }: Collector,
  { apiVersion, kind }: { apiVersion: string; kind: string },
): ResourceRegistry | undefined {
  let byKind = BY_KIND.get(registries.kinds);
  if (byKind === undefined) {
    byKind = new Map(registries.kinds.map((known) => [`${known.group}/${known.kind}`, known]));
    BY_KIND.set(registries.kinds, byKind);
  }
  const slash = apiVersion.indexOf('/');
  const found = byKind.get(`${slash < 0 ? '' : apiVersion.slice(0, slash)}/${kind}`);
  return found === undefined ? undefined : registries.find(found);
}

function keyOf(collector: Collector, object: KubeObject): string {
  const { namespace = '', name } = object.metadata;
  const registry = registryFor(collector, object);
  return registry === undefined ? '' : objectKey(registry.kind, namespace, name);
}

function targetOf({ metadata }: KubeObject): { namespace: string; name: string } {
  return { namespace: metadata.namespace ?? '', name: metadata.name };
}

async function unlessGone(call: () => Promise<unknown>): Promise<void> {
  try {
    await call();
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

function pause(clock: Clock, signal: AbortSignal, ms = RESTART_MS): Promise<void> {
  return new Promise((resolve) => {
    const cancel = clock.schedule(ms, resolve);
    signal.addEventListener(
      'abort',
      () => {
        cancel();
        resolve();
      },
      { once: true },
    );
    if (signal.aborted) resolve();
  });
}
