/** Lists of one kind: a consistent snapshot, in pages if asked for. `kubernetes.io/docs/reference/using-api/api-concepts` */
import type { KindDefinition } from '#api/kind.ts';
import { badRequest, expired } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import { CompactedError, FutureRevisionError, type Store, type StoreEntry } from '#store/port.ts';
import { decodeAs } from './codec.ts';
import { formatContinueToken, parseContinueToken } from './continue-token.ts';
import { collectionPrefix, objectKey } from './keys.ts';

/** Which objects a client wants to see. */
export interface Filter {
  matches(object: KubeObject): boolean;
  /** Set if only the object of this name can match: then only it is looked at. */
  readonly name?: string;
}

export interface ListRequest {
  /** Empty: all namespaces. */
  readonly namespace: string;
  /** Missing: everything. */
  readonly filter?: Filter;
  /** 0 is no limit. */
  readonly limit?: number;
  readonly continueToken?: string;
  /** As the client sent it: empty, `0`, or a revision. */
  readonly resourceVersion?: string;
  readonly resourceVersionMatch?: string;
}

export interface ListPage {
  readonly items: readonly KubeObject[];
  readonly revision: number;
  /** Set if there is more. */
  readonly continueToken?: string;
  /** How many objects follow; known only without a filter. */
  readonly remaining?: number;
}

/** Entries read at once while a filter skips most of them. */
const FILTER_CHUNK = 500;

/**
 * Lists objects in the order of their keys: by namespace, then by name.
 * @throws ApiError 400 for parameters that make no sense, 410 when the snapshot is compacted;
 *   FutureRevisionError if the wanted revision has not happened
 */
export async function listObjects(
  kind: KindDefinition,
  store: Store,
  request: ListRequest,
): Promise<ListPage> {
  const start = await startOf(store, request);
  try {
    const { filter } = request;
    if (filter?.name !== undefined && (!kind.namespaced || request.namespace !== ''))
      return await listOne(kind, store, request, { name: filter.name, filter, ...start });
    return await scan(kind, store, request, start);
  } catch (error) {
    if (!(error instanceof CompactedError)) throw error;
    throw expired(
      request.continueToken === undefined
        ? `The resourceVersion for the provided list is too old: ${error.message}`
        : 'The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.',
    );
  }
}

interface Start {
  /** Missing: the newest. */
  readonly revision?: number;
  readonly after?: string;
}

async function startOf(store: Store, request: ListRequest): Promise<Start> {
  const { continueToken, resourceVersionMatch: match = '' } = request;
  const wanted = parseRevision(request.resourceVersion ?? '');
  if (continueToken !== undefined) {
    if (wanted > 0 || match !== '')
      throw badRequest('resourceVersion and resourceVersionMatch are forbidden with continue');
    return parseContinueToken(continueToken);
  }
  if (match === 'Exact') {
    if (wanted === 0)
      throw badRequest(
        'resourceVersionMatch "Exact" is forbidden without a resourceVersion above 0',
      );
    return { revision: wanted };
  }
  if (match !== '' && match !== 'NotOlderThan')
    throw badRequest(
      `resourceVersionMatch "${match}" is unknown; it may be "Exact" or "NotOlderThan"`,
    );
  if (match !== '' && (request.resourceVersion ?? '') === '')
    throw badRequest(`resourceVersionMatch "${match}" is forbidden without a resourceVersion`);
  // The newest state is never older than a revision that has happened.
  const current = wanted === 0 ? 0 : await store.revision();
  if (wanted > current) throw new FutureRevisionError(wanted, current);
  return {};
}

/** @returns 0 for "any" @throws ApiError 400 */
export function parseRevision(text: string): number {
  if (text === '') return 0;
  const revision = Number(text);
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(revision))
    throw badRequest(
      `resourceVersion "${text}" is invalid: it is not a number that this server gave out`,
    );
  return revision;
}

async function listOne(
  kind: KindDefinition,
  store: Store,
  request: ListRequest,
  wanted: Start & { name: string; filter: Filter },
): Promise<ListPage> {
  const revision = wanted.revision ?? (await store.revision());
  // A store that was never written has no revision to read at.
  const entry =
    revision === 0
      ? undefined
      : await store.get(objectKey(kind, request.namespace, wanted.name), revision);
  if (entry === undefined) return { items: [], revision };
  const object = decodeAs(kind, entry);
  return { items: wanted.filter.matches(object) ? [object] : [], revision };
}

async function scan(
  kind: KindDefinition,
  store: Store,
  request: ListRequest,
  start: Start,
): Promise<ListPage> {
  const prefix = collectionPrefix(kind, request.namespace);
  const limit = request.limit ?? 0;
  const { filter } = request;
  const items: KubeObject[] = [];
  let revision = start.revision;
  let startAfter = start.after === undefined ? undefined : prefix + start.after;
  for (;;) {
    const room = limit === 0 ? 0 : filter === undefined ? limit : Math.max(limit, FILTER_CHUNK);
    const result = await store.list(prefix, {
      limit: room,
      ...(revision === undefined ? {} : { revision }),
      ...(startAfter === undefined ? {} : { startAfter }),
    });
    revision ??= result.revision;
    let last: StoreEntry | undefined;
    for (const entry of result.entries) {
      last = entry;
      const object = decodeAs(kind, entry);
      if (filter === undefined || filter.matches(object)) items.push(object);
      if (limit > 0 && items.length === limit) break;
    }
    const cutInside = last !== undefined && last !== result.entries.at(-1);
    const isFull = limit > 0 && items.length === limit;
    if (isFull && last !== undefined && (cutInside || result.more))
      return {
        items,
        revision,
        continueToken: formatContinueToken({ revision, after: last.key.slice(prefix.length) }),
        ...(filter === undefined ? { remaining: result.remaining } : {}),
      };
    if (!result.more || last === undefined) return { items, revision };
    startAfter = last.key;
  }
}
