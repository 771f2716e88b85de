/**
 * Watches of one kind: what the store changes, as the events a client with its selectors sees.
 *
 *     matched before │ matches now │ event
 *     ───────────────┼─────────────┼──────────────────────────────────────────
 *     no             │ yes         │ ADDED
 *     yes            │ yes         │ MODIFIED
 *     yes            │ no, or gone │ DELETED, with the last state that matched
 *     no             │ no          │ none
 */
import type { KindDefinition } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import type { Store, StoreEvent } from '#store/port.ts';
import { decodeAs, decodeDeleted } from './codec.ts';
import { collectionPrefix, objectKey } from './keys.ts';
import { type Filter, listObjects, parseRevision } from './list.ts';

export interface WatchRequest {
  /** Empty: all namespaces. */
  readonly namespace: string;
  readonly filter?: Filter;
  /** Events after this revision. Empty or `0`: first everything that is there. */
  readonly resourceVersion: string;
  /** True: first everything that is there, and then a word that this was all. */
  readonly sendInitialEvents: boolean;
  /** At least this often, without changes, a {@link WatchFrame} of type `PROGRESS`. */
  readonly progressMs: number;
  readonly signal: AbortSignal;
}

export type WatchFrame =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: KubeObject }
  /** Everything up to this revision was delivered. */
  | { readonly type: 'PROGRESS'; readonly revision: number }
  /** What was there at this revision was delivered; from here on come changes. */
  | { readonly type: 'INITIAL_END'; readonly revision: number };

/** Initial events given out at once: enough to fill network packets, few enough to take turns with other watches. */
const INITIAL_CHUNK = 500;

/**
 * Events until `signal` is aborted, those of one revision together. Objects are shared: never change them.
 * @throws what the store's watch throws: CompactedError, LaggedError, FutureRevisionError
 */
export async function* watchObjects(
  kind: KindDefinition,
  store: Store,
  request: WatchRequest,
): AsyncGenerator<readonly WatchFrame[]> {
  let after = parseRevision(request.resourceVersion);
  if (request.sendInitialEvents || after === 0) {
    const { resourceVersion, ...rest } = request;
    const page = await listObjects(kind, store, { ...rest, resourceVersion });
    for (let i = 0; i < page.items.length; i += INITIAL_CHUNK)
      yield page.items.slice(i, i + INITIAL_CHUNK).map((object) => ({ type: 'ADDED', object }));
    after = page.revision;
    if (request.sendInitialEvents) yield [{ type: 'INITIAL_END', revision: after }];
  }
  const batches = store.watch(watchedPrefix(kind, request), after, {
    signal: request.signal,
    progressMs: request.progressMs,
  });
  for await (const batch of batches) {
    const frames = batch.events.flatMap(
      (event) => frameOf(kind, event, batch.revision, request.filter) ?? [],
    );
    // A batch of which nothing is for this client still says how far the watch has come.
    yield frames.length > 0 ? frames : [{ type: 'PROGRESS', revision: batch.revision }];
  }
}

function watchedPrefix(kind: KindDefinition, { namespace, filter }: WatchRequest): string {
  // A longer name shares the prefix of a shorter one; the filter tells them apart.
  if (filter?.name !== undefined && (!kind.namespaced || namespace !== ''))
    return objectKey(kind, namespace, filter.name);
  return collectionPrefix(kind, namespace);
}

function frameOf(
  kind: KindDefinition,
  event: StoreEvent,
  revision: number,
  filter: Filter | undefined,
): WatchFrame | undefined {
  const previous = event.previous;
  const matched =
    previous !== undefined && (filter === undefined || filter.matches(decodeAs(kind, previous)));
  const object = event.type === 'put' ? decodeAs(kind, event.entry) : undefined;
  const matches = object !== undefined && (filter === undefined || filter.matches(object));
  if (matches) return { type: matched ? 'MODIFIED' : 'ADDED', object };
  if (matched) return { type: 'DELETED', object: decodeDeleted(kind, previous, revision) };
  return undefined;
}
