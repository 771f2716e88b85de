/** How everything in Tulle talks to a Kubernetes API, ours or another's. */
import type { KindRef } from '#api/kind.ts';
import type { KubeList, KubeObject, WatchEvent } from '#api/meta.ts';

export interface ListOptions {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  limit?: number;
  continue?: string;
  resourceVersion?: string;
}

export interface WatchOptions {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  /** Events after this one. */
  resourceVersion: string;
  /** The server ends the stream after about this time; without it the server decides. */
  timeoutSeconds?: number;
  signal: AbortSignal;
  /** Called when the server has accepted the watch: from here on it is up, even if nothing happens. */
  onOpen?: () => void;
}

export type PatchType =
  | 'application/merge-patch+json'
  | 'application/json-patch+json'
  | 'application/strategic-merge-patch+json';

/**
 * Every method rejects with `ApiError` for an answer that is no success, and with the network's error otherwise.
 * `signal` ends a call; so does the client's own request time limit.
 */
export interface ApiClient {
  get<T extends KubeObject>(
    kind: KindRef<T>,
    name: string,
    namespace?: string,
    options?: { signal?: AbortSignal },
  ): Promise<T>;
  list<T extends KubeObject>(
    kind: KindRef<T>,
    options?: ListOptions & { signal?: AbortSignal },
  ): Promise<KubeList<T>>;
  create<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    options?: { fieldValidation?: 'Strict' | 'Warn' | 'Ignore'; signal?: AbortSignal },
  ): Promise<T>;
  /** PUT. With `metadata.resourceVersion` set it is refused if the object changed since. */
  update<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    options?: { subresource?: 'status'; signal?: AbortSignal },
  ): Promise<T>;
  patch<T extends KubeObject>(
    kind: KindRef<T>,
    target: { name: string; namespace?: string; subresource?: 'status' },
    patch: { type: PatchType; body: unknown },
    options?: { fieldValidation?: 'Strict' | 'Warn' | 'Ignore'; signal?: AbortSignal },
  ): Promise<T>;
  delete(
    kind: KindRef,
    target: { name: string; namespace?: string },
    options?: {
      preconditions?: { uid?: string; resourceVersion?: string };
      gracePeriodSeconds?: number;
      signal?: AbortSignal;
    },
  ): Promise<void>;
  /**
   * Asks for bookmarks. Ends normally when the server closes the stream; the caller watches again from the last
   * resourceVersion it saw. An ERROR event in the stream is thrown as `ApiError` (`isExpired`: list again).
   * Rejects with the signal's reason when aborted.
   */
  watch<T extends KubeObject>(
    kind: KindRef<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>>;
  /** A plain request, for what is no resource. `path` starts with a slash. */
  raw(
    method: string,
    path: string,
    options?: { body?: unknown; contentType?: string; signal?: AbortSignal },
  ): Promise<{ status: number; body: string }>;
}

/** A change in a cache. `old` is missing for what is new, `current` for what is gone. */
export interface CacheChange<T> {
  readonly key: string;
  readonly old: T | undefined;
  readonly current: T | undefined;
}

/** A local copy of all objects of a kind, kept current by a watch. Objects are shared: never change them. */
export interface Cache<T extends KubeObject> {
  /** @param key `namespace/name`, or `name` for what has no namespace */
  get(key: string): T | undefined;
  /** In the order of {@link values}. */
  keys(): IterableIterator<string>;
  values(): IterableIterator<T>;
  readonly size: number;
  /** Resolves when the first full list is in. A cache that is not synced is not evidence that something does not exist. */
  synced(): Promise<void>;
  readonly isSynced: boolean;
  /** Whether the watch is up at this moment; while it is not, the cache is stale but still the best knowledge. */
  readonly isConnected: boolean;
  /** @returns a function that removes the listener. The listener is called synchronously, after the change is in. */
  onChange(listener: (change: CacheChange<T>) => void): () => void;
}
