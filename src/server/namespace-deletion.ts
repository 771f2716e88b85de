/**
 * Deletes what is in a namespace that is being deleted, and then lets the namespace go. Nothing new can come into it
 * meanwhile: `admission/namespace-exists.ts`.
 */

import { NAMESPACE, NAMESPACE_FINALIZER, type Namespace } from '#api/core/v1/namespace.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { Clock } from '#lib/clock.ts';
import { isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Store } from '#store/port.ts';
import { startKindLoop } from './kind-loop.ts';
import { deletionConditions, type Remains, withConditions } from './namespace-conditions.ts';
import { SERVER_PRINCIPAL } from './principal.ts';
import { decodeEntry } from './registry/codec.ts';
import { collectionPrefix } from './registry/keys.ts';
import type { ResourceRegistry } from './registry/resource-registry.ts';

export interface NamespaceDeletionOptions {
  readonly store: Store;
  /** Added kinds come and go: asked for at each pass. */
  readonly registries: { readonly all: readonly ResourceRegistry[] };
  readonly log: Logger;
  readonly clock: Clock;
}

/** Objects with finalizers of their own take their time: namespaces that wait for them are looked at again this often. */
const RESYNC_MS = 5_000;
const WRITE_OPTIONS = { principal: SERVER_PRINCIPAL, dryRun: false } as const;

/** Starts to empty namespaces; disposing ends it. */
export function startNamespaceDeletion(options: NamespaceDeletionOptions): AsyncDisposable {
  return startKindLoop(NAMESPACE, () => syncNamespaces(options), {
    ...options,
    name: 'namespace deletion',
    resyncMs: RESYNC_MS,
  });
}

/** One pass over all namespaces that are being deleted. */
export async function syncNamespaces(
  options: Pick<NamespaceDeletionOptions, 'store' | 'registries' | 'clock'>,
): Promise<void> {
  const namespaces = options.registries.all.find(
    ({ kind }) => kind.group === NAMESPACE.group && kind.resource === NAMESPACE.resource,
  );
  if (namespaces === undefined) return;
  const { entries } = await options.store.list(collectionPrefix(NAMESPACE));
  const failures: unknown[] = [];
  for (const entry of entries) {
    const namespace = decodeEntry(entry) as Namespace;
    if (namespace.metadata.deletionTimestamp === undefined) continue;
    try {
      failures.push(...(await deleteContent(options, namespaces, namespace)));
    } catch (error) {
      // The other namespaces do not wait for this one.
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** @returns what failed; then, and while finalizers hold objects, the namespace stays and says why */
async function deleteContent(
  { store, registries, clock }: Pick<NamespaceDeletionOptions, 'store' | 'registries' | 'clock'>,
  namespaces: ResourceRegistry,
  namespace: Namespace,
): Promise<readonly unknown[]> {
  const { name } = namespace.metadata;
  const remains: Remains = { resources: new Map(), finalizers: new Map(), failures: [] };
  const seen = new Set<string>();
  for (const registry of registries.all) {
    // The versions of a kind are the same objects.
    const prefix = collectionPrefix(registry.kind, name);
    if (!registry.kind.namespaced || seen.has(prefix)) continue;
    seen.add(prefix);
    try {
      await empty(store, registry, { name, remains });
    } catch (error) {
      remains.failures.push(error);
    }
  }
  const target = { namespace: '', name };
  if (remains.resources.size === 0 && remains.failures.length === 0)
    await unlessGone(() =>
      namespaces.update(
        { ...target, subresource: 'finalize' },
        (stored) => withoutFinalizer(stored as Namespace),
        WRITE_OPTIONS,
      ),
    );
  else {
    const now = formatTime(clock.now());
    await unlessGone(() =>
      namespaces.update(
        { ...target, subresource: 'status' },
        (stored) => withConditions(stored as Namespace, deletionConditions(remains), now),
        WRITE_OPTIONS,
      ),
    );
  }
  return remains.failures;
}

async function empty(
  store: Store,
  registry: ResourceRegistry,
  { name: namespace, remains }: { name: string; remains: Remains },
): Promise<void> {
  const { kind } = registry;
  const { entries } = await store.list(collectionPrefix(kind, namespace));
  for (const entry of entries) {
    const target = { namespace, name: decodeEntry(entry).metadata.name };
    const deleted = await unlessGone(() => registry.delete(target, WRITE_OPTIONS));
    if (deleted?.removed !== false) continue;
    const resource = kind.group === '' ? `${kind.resource}.` : `${kind.resource}.${kind.group}`;
    remains.resources.set(resource, (remains.resources.get(resource) ?? 0) + 1);
    for (const finalizer of deleted.object.metadata.finalizers ?? [])
      remains.finalizers.set(finalizer, (remains.finalizers.get(finalizer) ?? 0) + 1);
  }
}

function withoutFinalizer(namespace: Namespace): Namespace {
  const finalizers = (namespace.spec?.finalizers ?? []).filter(
    (finalizer) => finalizer !== NAMESPACE_FINALIZER,
  );
  return { ...namespace, spec: { ...namespace.spec, finalizers } };
}

async function unlessGone<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}
