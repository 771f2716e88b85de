/**
 * Serves the kinds of CustomResourceDefinitions, from the moment they are accepted until their last instance is gone:
 *
 *     definition ─► names free? ─► NamesAccepted ─► served, Established ─► deleted: Terminating ─► instances go ─► gone
 *
 * Runs in every server: each serves by itself, and what they write is the same.
 */

import { customKinds } from '#api/apiextensions/v1/custom-kind.ts';
import {
  CLEANUP_FINALIZER,
  CUSTOM_RESOURCE_DEFINITION,
  type CustomResourceDefinition,
} from '#api/apiextensions/v1/custom-resource-definition.ts';
import type { KindDefinition } from '#api/kind.ts';
import { sameJson } from '#api/machinery/json.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { KubeObject } from '#api/meta.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Store, StoreEntry } from '#store/port.ts';
import { definitionStatus, nameConflicts } from './custom-names.ts';
import { SERVER_PRINCIPAL } from './principal.ts';
import type { Registries } from './registries.ts';
import { decodeEntry } from './registry/codec.ts';
import { collectionPrefix } from './registry/keys.ts';
import type { ResourceRegistry } from './registry/resource-registry.ts';

export interface CustomResourcesOptions {
  readonly store: Store;
  readonly registries: Registries;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Instances with finalizers take their time: definitions that wait for them are looked at again this often. */
const RESYNC_MS = 5_000;
/** A watch that broke is begun again after this time. */
const REWATCH_MS = 1_000;
const WRITE_OPTIONS = { principal: SERVER_PRINCIPAL, dryRun: false } as const;

/** @returns when what is defined now is served; disposing ends it */
export async function startCustomResources(
  options: CustomResourcesOptions,
): Promise<AsyncDisposable> {
  const { store, log, clock } = options;
  const stop = new AbortController();
  const made = new Map<string, Made>();
  const loop = new SyncLoop(() => syncCustomResources(options, made), {
    name: 'custom resources',
    log,
    clock,
    resyncMs: RESYNC_MS,
  });
  const prefix = collectionPrefix(CUSTOM_RESOURCE_DEFINITION);
  const watch = async () => {
    while (!stop.signal.aborted) {
      try {
        const revision = await store.revision();
        loop.trigger();
        for await (const batch of store.watch(prefix, revision, { signal: stop.signal }))
          if (batch.events.length > 0) loop.trigger();
      } catch (error) {
        log.warn(
          { error: explainError(error) },
          'custom resources: the watch ended, it is begun again',
        );
        await new Promise<void>((resolve) => {
          const cancel = clock.schedule(REWATCH_MS, resolve);
          stop.signal.addEventListener('abort', () => {
            cancel();
            resolve();
          });
        });
      }
    }
  };
  // What was defined before the server started is served with its first request.
  await syncCustomResources(options, made);
  const watching = watch();
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await loop[Symbol.asyncDispose]();
      await watching;
    },
  };
}

interface Made {
  readonly spec: unknown;
  readonly kinds: readonly KindDefinition[];
}

/** One pass over all definitions. @param made kinds from earlier passes: an unchanged definition keeps its own */
export async function syncCustomResources(
  { store, registries, clock }: Pick<CustomResourcesOptions, 'store' | 'registries' | 'clock'>,
  made: Map<string, Made> = new Map(),
): Promise<void> {
  const { entries } = await store.list(collectionPrefix(CUSTOM_RESOURCE_DEFINITION));
  const definitions = entries.map(
    (entry: StoreEntry) => decodeEntry(entry) as CustomResourceDefinition,
  );
  const conflicts = nameConflicts(
    definitions,
    registries.kinds.filter((kind) => kind.custom === undefined),
  );
  const isServed = ({ metadata }: CustomResourceDefinition) => !conflicts.has(metadata.name);
  registries.setCustom(
    definitions.filter(isServed).flatMap((definition) => kindsOf(definition, made)),
  );
  const names = new Set(definitions.map(({ metadata }) => metadata.name));
  for (const name of made.keys()) if (!names.has(name)) made.delete(name);
  const registry = registries.of(CUSTOM_RESOURCE_DEFINITION);
  const failures: unknown[] = [];
  for (const definition of definitions) {
    try {
      await settle(definition, {
        conflict: conflicts.get(definition.metadata.name),
        registry,
        registries,
        store,
        clock,
      });
    } catch (error) {
      // The others do not wait for this one.
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

function kindsOf(
  definition: CustomResourceDefinition,
  made: Map<string, Made>,
): readonly KindDefinition[] {
  const { name } = definition.metadata;
  const known = made.get(name);
  if (known !== undefined && sameJson(known.spec, definition.spec)) return known.kinds;
  const kinds = customKinds(definition);
  made.set(name, { spec: definition.spec, kinds });
  return kinds;
}

interface Settling {
  readonly conflict: string | undefined;
  readonly registry: ResourceRegistry;
  readonly registries: Registries;
  readonly store: Store;
  readonly clock: Clock;
}

/** Writes how the definition is; one that is being deleted is emptied. */
async function settle(definition: CustomResourceDefinition, context: Settling): Promise<void> {
  const { name } = definition.metadata;
  const { registry, clock, conflict } = context;
  const isDeleting = definition.metadata.deletionTimestamp !== undefined;
  const left = isDeleting ? await deleteInstances(definition, context) : 0;
  const now = formatTime(clock.now());
  const withStatus = (stored: KubeObject): KubeObject => {
    const current = stored as CustomResourceDefinition;
    return { ...current, status: definitionStatus(current, { conflict, left, now }) } as KubeObject;
  };
  if (!sameJson(withStatus(definition), definition))
    await unlessGone(() =>
      registry.update({ namespace: '', name, subresource: 'status' }, withStatus, WRITE_OPTIONS),
    );
  if (isDeleting && left === 0)
    await unlessGone(() => registry.update({ namespace: '', name }, withoutCleanup, WRITE_OPTIONS));
}

function withoutCleanup(stored: KubeObject): KubeObject {
  const finalizers = (stored.metadata.finalizers ?? []).filter(
    (finalizer) => finalizer !== CLEANUP_FINALIZER,
  );
  return { ...stored, metadata: { ...stored.metadata, finalizers } };
}

/** Instances deleted with one listing. */
const DELETE_CHUNK = 500;

/** @returns how many instances are still there, held by finalizers */
async function deleteInstances(
  definition: CustomResourceDefinition,
  { store, registries }: Settling,
): Promise<number> {
  const served = definition.spec.versions.map((version) => ({ ...version, served: true }));
  const [kind] = customKinds({ ...definition, spec: { ...definition.spec, versions: served } });
  if (kind === undefined) return 0;
  const instances = registries.create(kind);
  const prefix = collectionPrefix(kind);
  let held = 0;
  let startAfter = '';
  for (;;) {
    const page = await store.list(prefix, {
      limit: DELETE_CHUNK,
      ...(startAfter === '' ? {} : { startAfter }),
    });
    for (const entry of page.entries) {
      const { namespace = '', name } = decodeEntry(entry).metadata;
      const deleted = await unlessGone(() => instances.delete({ namespace, name }, WRITE_OPTIONS));
      if (deleted?.removed === false) held++;
    }
    startAfter = page.entries.at(-1)?.key ?? '';
    if (!page.more) return held;
  }
}

async function unlessGone<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}
