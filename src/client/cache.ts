/** A {@link Cache} kept current by a reflector, and indexes over caches. */
import type { KindRef } from '#api/kind.ts';
import { type KubeObject, objectKey } from '#api/meta.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import type { ApiClient, Cache, CacheChange } from './port.ts';
import { type ReflectorSink, runReflector } from './reflector.ts';

export interface CacheOptions<T extends KubeObject = KubeObject> {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Ends the cache, as disposing does. */
  readonly signal?: AbortSignal;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
  /** Makes smaller what is kept of an object. It must leave name, namespace, uid and resourceVersion. */
  readonly trim?: (object: T) => T;
}

/** Objects by arbitrary keys: `index.get('node-1')`. */
export interface Index<T> {
  readonly name: string;
  /** The objects with this key now; empty if there are none. Shared: never change them, nor the set. */
  get(key: string): ReadonlySet<T>;
  keys(): IterableIterator<string>;
  /** Stops following the cache and forgets all. */
  [Symbol.dispose](): void;
}

/**
 * Starts a local copy of all objects of a kind (in a namespace, matching selectors). It fills and follows in the
 * background, for ever, through any failure of the server; what was learnt stays readable while it is away.
 *
 * The objects are shared among all readers and must not be changed.
 */
export function startCache<T extends KubeObject>(
  client: ApiClient,
  kind: KindRef<T>,
  options: CacheOptions<T>,
): Cache<T> & AsyncDisposable {
  const cache = new ReflectedCache<T>(kind, options);
  const abort = new AbortController();
  const stop = () => abort.abort();
  if (options.signal?.aborted) stop();
  else options.signal?.addEventListener('abort', stop, { once: true });
  const ended = runReflector(client, kind, cache, {
    ...options,
    clock: options.clock ?? systemClock,
    signal: abort.signal,
  });
  cache.onDispose(async () => {
    options.signal?.removeEventListener('abort', stop);
    stop();
    await ended;
  });
  return cache;
}

/**
 * Who manages which fields is much of an object and nothing that a reader of a cache acts on. An update that leaves it
 * out changes nothing of it.
 */
function withoutManagers<T extends KubeObject>(object: T): T {
  if (object.metadata.managedFields === undefined) return object;
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}

class ReflectedCache<T extends KubeObject> implements Cache<T>, ReflectorSink<T>, AsyncDisposable {
  readonly #kind: KindRef<T>;
  readonly #log: Logger;
  readonly #trim: (object: T) => T;
  readonly #objects = new Map<string, T>();
  readonly #listeners = new Set<(change: CacheChange<T>) => void>();
  readonly #synced = Promise.withResolvers<void>();
  #isSynced = false;
  #isConnected = false;
  #dispose: () => Promise<void> = async () => {};

  constructor(kind: KindRef<T>, options: CacheOptions<T>) {
    this.#kind = kind;
    this.#log = options.log;
    this.#trim = options.trim ?? ((object) => object);
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }
  keys(): IterableIterator<string> {
    return this.#objects.keys();
  }
  values(): IterableIterator<T> {
    return this.#objects.values();
  }
  get size(): number {
    return this.#objects.size;
  }
  synced(): Promise<void> {
    return this.#synced.promise;
  }
  get isSynced(): boolean {
    return this.#isSynced;
  }
  get isConnected(): boolean {
    return this.#isConnected;
  }
  onChange(listener: (change: CacheChange<T>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  onDispose(dispose: () => Promise<void>): void {
    this.#dispose = dispose;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose();
    this.#listeners.clear();
  }

  replace(objects: readonly T[]): void {
    // What is gone goes first: an address it had may belong to something new.
    const keys = new Set(objects.map(objectKey));
    for (const key of [...this.#objects.keys()]) if (!keys.has(key)) this.#remove(key);
    for (const object of objects) this.#set(object);
    if (this.#isSynced) return;
    this.#isSynced = true;
    this.#synced.resolve();
  }

  apply(event: { type: 'ADDED' | 'MODIFIED' | 'DELETED'; object: T }): void {
    if (event.type === 'DELETED') this.#remove(objectKey(event.object));
    else this.#set(event.object);
  }

  setConnected(isConnected: boolean): void {
    this.#isConnected = isConnected;
  }

  #set(received: T): void {
    const key = objectKey(received);
    const old = this.#objects.get(key);
    if (old !== undefined && isSameVersion(old, received)) return;
    if (old !== undefined && old.metadata.uid !== received.metadata.uid) {
      // Deleted and made again while nobody watched: two things happened, and listeners are told both.
      this.#remove(key);
      this.#set(received);
      return;
    }
    const object = this.#trim(withoutManagers(received));
    this.#objects.set(key, object);
    this.#tell({ key, old, current: object });
  }

  #remove(key: string): void {
    const old = this.#objects.get(key);
    if (old === undefined) return;
    this.#objects.delete(key);
    this.#tell({ key, old, current: undefined });
  }

  #tell(change: CacheChange<T>): void {
    for (const listener of this.#listeners) {
      try {
        listener(change);
      } catch (error) {
        // One listener's defect must not keep the change from the others, nor stop the reflector.
        this.#log.error(
          { err: error, kind: this.#kind.kind, key: change.key },
          'a cache listener failed',
        );
      }
    }
  }
}

function isSameVersion(a: KubeObject, b: KubeObject): boolean {
  const { resourceVersion, uid } = a.metadata;
  return (
    resourceVersion !== undefined &&
    resourceVersion === b.metadata.resourceVersion &&
    uid === b.metadata.uid
  );
}

const NOTHING: ReadonlySet<never> = new Set();

/**
 * Follows a cache and finds its objects by keys of one's own. Listeners of the cache that were added after the index see it
 * up to date.
 * @param keysOf pure; an object may have any number of keys, none included
 */
export function indexCache<T extends KubeObject>(
  cache: Cache<T>,
  name: string,
  keysOf: (object: T) => readonly string[],
): Index<T> {
  const sets = new Map<string, Set<T>>();
  const insert = (object: T) => {
    for (const key of keysOf(object)) {
      const set = sets.get(key);
      if (set === undefined) sets.set(key, new Set([object]));
      else set.add(object);
    }
  };
  const remove = (object: T) => {
    for (const key of keysOf(object)) {
      const set = sets.get(key);
      set?.delete(object);
      if (set?.size === 0) sets.delete(key);
    }
  };
  for (const object of cache.values()) insert(object);
  const stop = cache.onChange(({ old, current }) => {
    if (old !== undefined) remove(old);
    if (current !== undefined) insert(current);
  });
  return {
    name,
    get: (key) => sets.get(key) ?? NOTHING,
    keys: () => sets.keys(),
    [Symbol.dispose]() {
      stop();
      sets.clear();
    },
  };
}
