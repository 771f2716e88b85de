/** A {@link Cache} without an API, for tests and benchmarks of what reads one. */
import { type KubeObject, objectKey } from '#api/meta.ts';
import type { Cache, CacheChange } from './port.ts';

/** It holds what it is handed, and tells of it at once. */
export class HandCache<T extends KubeObject> implements Cache<T> {
  readonly #objects = new Map<string, T>();
  readonly #listeners = new Set<(change: CacheChange<T>) => void>();
  readonly #synced = Promise.withResolvers<void>();
  isSynced = false;
  isConnected = true;
  get size(): number {
    return this.#objects.size;
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
  synced(): Promise<void> {
    return this.#synced.promise;
  }
  onChange(listener: (change: CacheChange<T>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  sync(): void {
    this.isSynced = true;
    this.#synced.resolve();
  }
  put(object: T): void {
    const key = objectKey(object);
    const old = this.#objects.get(key);
    this.#objects.set(key, object);
    for (const listener of this.#listeners) listener({ key, old, current: object });
  }
  remove(key: string): void {
    const old = this.#objects.get(key);
    this.#objects.delete(key);
    for (const listener of this.#listeners) listener({ key, old, current: undefined });
  }
}
