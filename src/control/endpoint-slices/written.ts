/**
 * Our own writes that the cache has not shown yet. Without them a second change right after the first would be planned on
 * the state before it: a refused update, or a slice made twice.
 *
 * Updates carry the resource version they are based on, so nothing of others can lie between two of our own. What the
 * cache shows of a slice after a write is therefore one of our writes, or newer than all of them.
 */
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { objectKey } from '#api/meta.ts';

interface Pending {
  /** `undefined`: removed. */
  readonly object: EndpointSlice | undefined;
  /** The versions of our writes that the cache has yet to show. */
  readonly versions: Set<string | undefined>;
  readonly service: string;
}

export class WrittenSlices {
  readonly #pending = new Map<string, Pending>();
  readonly #byService = new Map<string, Set<string>>();
  readonly #cached: (key: string) => EndpointSlice | undefined;

  /** @param cached what the cache has now */
  constructor(cached: (key: string) => EndpointSlice | undefined) {
    this.#cached = cached;
  }

  /** The slices of a service as they are after our writes. */
  view(service: string, cached: Iterable<EndpointSlice>): EndpointSlice[] {
    const keys = this.#byService.get(service);
    if (keys === undefined) return [...cached];
    const current = [...cached].filter((slice) => !keys.has(objectKey(slice)));
    for (const key of keys) {
      const object = this.#pending.get(key)?.object;
      if (object !== undefined) current.push(object);
    }
    return current;
  }

  /**
   * A write has succeeded.
   * @param basis what it was based on; `undefined` for a new slice
   * @param result what the server answered; `undefined` for a removed one
   */
  wrote(
    service: string,
    basis: EndpointSlice | undefined,
    result: EndpointSlice | undefined,
  ): void {
    const slice = result ?? basis;
    if (slice === undefined) return;
    const key = objectKey(slice);
    const known = this.#pending.get(key);
    const shown = this.#cached(key)?.metadata.resourceVersion;
    const isBehind = known !== undefined || shown === basis?.metadata.resourceVersion;
    const version = result?.metadata.resourceVersion;
    if (shown === version || !isBehind) {
      this.forget(key);
      return;
    }
    const versions = new Set([...(known?.versions ?? []), version]);
    this.#pending.set(key, { object: result, versions, service });
    const keys = this.#byService.get(service);
    if (keys === undefined) this.#byService.set(service, new Set([key]));
    else keys.add(key);
  }

  /**
   * The cache shows another state of a slice.
   * @returns whether it is one of our own writes, after which there is nothing to do
   */
  shown(key: string, current: EndpointSlice | undefined): boolean {
    const pending = this.#pending.get(key);
    if (pending === undefined) return false;
    const version = current?.metadata.resourceVersion;
    const isOurs = pending.versions.delete(version);
    if (!isOurs || pending.versions.size === 0) this.forget(key);
    return isOurs;
  }

  /** A write of this slice has failed: only the cache tells what it is. */
  forget(key: string): void {
    const pending = this.#pending.get(key);
    if (pending === undefined) return;
    this.#pending.delete(key);
    const keys = this.#byService.get(pending.service);
    keys?.delete(key);
    if (keys?.size === 0) this.#byService.delete(pending.service);
  }
}
