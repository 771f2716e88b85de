/**
 * Deletes what is in a namespace that is being deleted, and then lets the namespace go. Nothing new can come into it
 * meanwhile: `admission/namespace-exists.ts`.
 */
import { NAMESPACE, NAMESPACE_FINALIZER, type Namespace } from '#api/core/v1/namespace.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Store } from '#store/port.ts';
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
  const { store, log, clock } = options;
  const stop = new AbortController();
  const loop = new SyncLoop(() => syncNamespaces(options), {
    name: 'namespace deletion',
    log,
    clock,
    resyncMs: RESYNC_MS,
  });
  loop.trigger();
  const watching = (async () => {
    const revision = await store.revision();
    for await (const batch of store.watch(collectionPrefix(NAMESPACE), revision, {
      signal: stop.signal,
    }))
      if (batch.events.length > 0) loop.trigger();
  })().catch((error) =>
    // The resync goes on without it, slower.
    log.warn({ error: explainError(error) }, 'namespace deletion: the watch ended'),
  );
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await loop[Symbol.asyncDispose]();
      await watching;
    },
  };
}

/** One pass over all namespaces that are being deleted. */
export async function syncNamespaces(
  options: Pick<NamespaceDeletionOptions, 'store' | 'registries'>,
): Promise<void> {
  const namespaces = options.registries.all.find(
    ({ kind }) => kind.group === NAMESPACE.group && kind.resource === NAMESPACE.resource,
  );
  if (namespaces === undefined) return;
  const { entries } = await options.store.list(collectionPrefix(NAMESPACE));
  for (const entry of entries) {
    const namespace = decodeEntry(entry) as Namespace;
    if (namespace.metadata.deletionTimestamp === undefined) continue;
    const { name } = namespace.metadata;
    let left = 0;
    for (const registry of options.registries.all)
      if (registry.kind.namespaced) left += await empty(options.store, registry, name);
    if (left > 0) continue;
    await unlessGone(() =>
      namespaces.update(
        { namespace: '', name, subresource: 'finalize' },
        (stored) => withoutFinalizer(stored as Namespace),
        WRITE_OPTIONS,
      ),
    );
  }
}

/** @returns how many objects are still there, held by finalizers */
async function empty(store: Store, registry: ResourceRegistry, namespace: string): Promise<number> {
  const { entries } = await store.list(collectionPrefix(registry.kind, namespace));
  let held = 0;
  for (const entry of entries) {
    const target = { namespace, name: decodeEntry(entry).metadata.name };
    const deleted = await unlessGone(() => registry.delete(target, WRITE_OPTIONS));
    if (deleted?.removed === false) held++;
  }
  return held;
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
