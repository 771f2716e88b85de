/**
 * An API server in memory behind the port {@link ApiClient}, for tests of everything that uses one.
 *
 * It behaves: one growing resource version for all kinds, optimistic concurrency, writes that change nothing make no
 * event, status apart from the rest, finalizers, selectors that objects enter and leave, watches that resume and
 * expire. What it does not do is validate or fill in defaults: hand it objects as a server would return them.
 *
 * Beside the port it has handles for the test: `put`/`remove` act as "somebody else", `cutWatches`, `compact`,
 * `setReachable` and `failNext` make trouble, `requests` tells what was asked for.
 */

import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { apiVersionOf, type KindRef } from '#api/kind.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { KubeList, KubeObject, WatchEvent } from '#api/meta.ts';
import { objectKey } from '#api/meta.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { applyPatch, type Selection, selects } from './fake-rules.ts';
import type { ApiClient, ListOptions, PatchType, WatchOptions } from './port.ts';

export type FakeVerb = 'get' | 'list' | 'create' | 'update' | 'patch' | 'delete' | 'watch' | 'raw';

export interface FakeRequest {
  readonly verb: FakeVerb;
  /** Plural, or the path of a raw request. */
  readonly resource: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
  /** Object or patch, where the verb has one. */
  readonly body: unknown;
}

/** What happened to one object: the history that watches read. */
interface Change {
  readonly version: number;
  readonly collection: string;
  readonly old: KubeObject | undefined;
  readonly current: KubeObject | undefined;
}

interface Fault {
  readonly match: Partial<Pick<FakeRequest, 'verb' | 'resource' | 'name' | 'subresource'>>;
  readonly error: Error;
  /** Whether the request takes effect before it fails: an answer that was lost on the way. */
  readonly afterEffect: boolean;
  left: number;
}

interface Watcher {
  wake: () => void;
  cut: { error: Error | undefined } | undefined;
  bookmark: boolean;
}

/** As much as any test needs; more would only hide a test that never ends. Older changes are compacted. */
const MAX_HISTORY = 100_000;

/** Kinds with a status subresource, for callers that hand in a bare `KindRef`. */
const STATUS_RESOURCES = new Set(['namespaces', 'nodes', 'pods', 'services', 'ippools']);

export class FakeApi implements ApiClient {
  readonly #clock: Clock;
  readonly #collections = new Map<string, Map<string, KubeObject>>();
  readonly #watchers = new Set<Watcher>();
  readonly #held = new Set<string>();
  #history: Change[] = [];
  #compactedVersion = 0;
  #version = 0;
  #generated = 0;
  #faults: Fault[] = [];
  #unreachable: Error | undefined;
  #requests: FakeRequest[] = [];
  /** Answers {@link raw}; by default everything is missing. */
  onRaw: (method: string, path: string, body: unknown) => { status: number; body: string } =
    () => ({
      status: 404,
      body: '404 page not found',
    });

  constructor(options: { clock?: Clock } = {}) {
    this.#clock = options.clock ?? systemClock;
  }

  // ---- handles for the test ----

  /** All requests since the start or the last {@link clearRequests}, in order. */
  get requests(): readonly FakeRequest[] {
    return this.#requests;
  }

  /** The requests that write. */
  get writes(): readonly FakeRequest[] {
    return this.#requests.filter((r) => ['create', 'update', 'patch', 'delete'].includes(r.verb));
  }

  clearRequests(): void {
    this.#requests = [];
  }

  /** The newest resource version. */
  get resourceVersion(): string {
    return String(this.#version);
  }

  /** How many watches are open. */
  get watchCount(): number {
    return this.#watchers.size;
  }

  /** Creates or replaces an object, status included, as somebody else would: not in `requests`, never refused. */
  put<T extends KubeObject>(kind: KindRef<T>, object: T): T {
    const old = this.#collection(kind).get(objectKey(object));
    const next = structuredClone(object);
    next.metadata = { ...this.#newMetadata(next), ...definedOnly(next.metadata) };
    if (old?.metadata.uid !== undefined && object.metadata.uid === undefined) {
      next.metadata.uid = old.metadata.uid;
      const created = old.metadata.creationTimestamp;
      if (created !== undefined) next.metadata.creationTimestamp = created;
    }
    return structuredClone(this.#commit(kind, old, next) as T);
  }

  /** Removes an object at once, as somebody else would. Removing what is not there does nothing. */
  remove(kind: KindRef, key: string): void {
    const old = this.#collection(kind).get(key);
    if (old !== undefined) this.#commit(kind, old, undefined);
  }

  /** All objects of a kind, sorted by key. */
  objects<T extends KubeObject>(kind: KindRef<T>): T[] {
    return [...this.#collection(kind).entries()]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => structuredClone(object as T));
  }

  /**
   * Lets the next matching requests fail.
   * @param options `times`: how many (1); `afterEffect`: the request takes effect, only its answer is lost
   */
  failNext(
    match: Fault['match'],
    error: Error,
    options: { times?: number; afterEffect?: boolean } = {},
  ): void {
    const { times = 1, afterEffect = false } = options;
    this.#faults.push({ match, error, left: times, afterEffect });
  }

  /** Ends all open watches: normally, or with `error`. */
  cutWatches(error?: Error): void {
    for (const watcher of this.#watchers) {
      watcher.cut = { error };
      watcher.wake();
    }
  }

  /** Sends a bookmark with the newest resource version to every watch. */
  sendBookmarks(): void {
    for (const watcher of this.#watchers) {
      watcher.bookmark = true;
      watcher.wake();
    }
  }

  /** Keeps back what happens to a kind from its watches, as a slow server does, until released. */
  holdWatches(kind: KindRef): void {
    this.#held.add(collectionOf(kind));
  }

  releaseWatches(kind: KindRef): void {
    this.#held.delete(collectionOf(kind));
    for (const watcher of this.#watchers) watcher.wake();
  }

  /** Forgets the history: a watch from a version before the newest is answered with 410. Open watches that are up to date go on. */
  compact(): void {
    this.#history = [];
    this.#compactedVersion = this.#version;
  }

  /** While unreachable every call fails like a refused connection, and open watches are cut. */
  setReachable(reachable: boolean): void {
    this.#unreachable = reachable
      ? undefined
      : Object.assign(new Error('connect ECONNREFUSED 192.0.2.1:6443'), { code: 'ECONNREFUSED' });
    if (!reachable) this.cutWatches(this.#unreachable);
  }

  // ---- the port ----

  async get<T extends KubeObject>(kind: KindRef<T>, name: string, namespace?: string): Promise<T> {
    return this.#request('get', kind, { name, namespace }, () =>
      structuredClone(this.#existing(kind, name, namespace)),
    );
  }

  async list<T extends KubeObject>(
    kind: KindRef<T>,
    options: ListOptions & { signal?: AbortSignal } = {},
  ): Promise<KubeList<T>> {
    const { namespace, limit, continue: from } = options;
    return this.#request('list', kind, { namespace }, () => {
      const [version = this.resourceVersion, after = ''] = from?.split(' ') ?? [];
      if (from !== undefined && Number(version) < this.#compactedVersion) throw expired();
      const matching = this.objects(kind).filter(
        (object) => objectKey(object) > after && selects(options, object),
      );
      const items = limit === undefined ? matching : matching.slice(0, limit);
      const last = items.at(-1);
      const cut = last !== undefined && items.length < matching.length;
      return {
        apiVersion: apiVersionOf(kind),
        kind: `${kind.kind}List`,
        metadata: {
          resourceVersion: version,
          ...(cut ? { continue: `${version} ${objectKey(last)}` } : {}),
        },
        items,
      };
    });
  }

  async create<T extends KubeObject>(kind: KindRef<T>, object: T): Promise<T> {
    const { name, namespace } = object.metadata;
    return this.#request('create', kind, { name, namespace, body: object }, () => {
      const next = structuredClone(object);
      next.metadata = { ...next.metadata, ...this.#newMetadata(next) };
      if (this.#collection(kind).has(objectKey(next)))
        throw new ApiError(
          409,
          'AlreadyExists',
          `${resourceName(kind)} "${next.metadata.name}" already exists`,
        );
      // A Node brings its status along; everything else gets it through the subresource.
      if (hasStatus(kind) && kind.resource !== 'nodes')
        delete (next as { status?: unknown }).status;
      return structuredClone(this.#commit(kind, undefined, next) as T);
    });
  }

  async update<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    options: { subresource?: 'status' } = {},
  ): Promise<T> {
    const { name, namespace } = object.metadata;
    const { subresource } = options;
    return this.#request('update', kind, { name, namespace, subresource, body: object }, () => {
      const old = this.#existing(kind, name, namespace);
      return this.#replace(kind, old, structuredClone(object), subresource);
    });
  }

  async patch<T extends KubeObject>(
    kind: KindRef<T>,
    target: { name: string; namespace?: string; subresource?: 'status' },
    patch: { type: PatchType; body: unknown },
  ): Promise<T> {
    return this.#request('patch', kind, { ...target, body: patch.body }, () => {
      const old = this.#existing(kind, target.name, target.namespace);
      const next = applyPatch(old, patch);
      return this.#replace(kind, old, next, target.subresource);
    });
  }

  async delete(
    kind: KindRef,
    target: { name: string; namespace?: string },
    options: { preconditions?: { uid?: string; resourceVersion?: string } } = {},
  ): Promise<void> {
    return this.#request('delete', kind, target, () => {
      const old = this.#existing(kind, target.name, target.namespace);
      const { uid, resourceVersion } = options.preconditions ?? {};
      if (uid !== undefined && uid !== old.metadata.uid) throw conflict(kind, target.name);
      if (resourceVersion !== undefined && resourceVersion !== old.metadata.resourceVersion)
        throw conflict(kind, target.name);
      if ((old.metadata.finalizers ?? []).length === 0) {
        this.#commit(kind, old, undefined);
        return;
      }
      if (old.metadata.deletionTimestamp !== undefined) return;
      const next = structuredClone(old);
      next.metadata.deletionTimestamp = formatTime(this.#clock.now());
      this.#commit(kind, old, next);
    });
  }

  async *watch<T extends KubeObject>(
    kind: KindRef<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    const { namespace, signal } = options;
    let position = await this.#request('watch', kind, { namespace }, () => {
      const from = Number(options.resourceVersion);
      if (from < this.#compactedVersion) throw expired();
      return from;
    });
    const watcher: Watcher = { wake: () => {}, cut: undefined, bookmark: false };
    const onAbort = () => watcher.wake();
    this.#watchers.add(watcher);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      options.onOpen?.();
      for (;;) {
        if (watcher.cut?.error !== undefined) throw watcher.cut.error;
        if (watcher.cut !== undefined) return;
        signal.throwIfAborted();
        if (position < this.#compactedVersion) throw expired();
        const change = this.#history[position - this.#compactedVersion];
        if (change !== undefined && !this.#held.has(collectionOf(kind))) {
          position = change.version;
          const event =
            change.collection === collectionOf(kind) ? eventOf(change, options) : undefined;
          if (event !== undefined) yield structuredClone(event) as WatchEvent<T>;
          continue;
        }
        if (watcher.bookmark) {
          watcher.bookmark = false;
          yield this.#bookmark(kind);
          continue;
        }
        await new Promise<void>((resolve) => {
          watcher.wake = resolve;
        });
      }
    } finally {
      this.#watchers.delete(watcher);
      signal.removeEventListener('abort', onAbort);
    }
  }

  async raw(
    method: string,
    path: string,
    options: { body?: unknown } = {},
  ): Promise<{ status: number; body: string }> {
    return this.#request('raw', { resource: path }, { body: options.body }, () =>
      this.onRaw(method, path, options.body),
    );
  }

  // ---- inside ----

  #collection(kind: KindRef): Map<string, KubeObject> {
    const name = collectionOf(kind);
    let collection = this.#collections.get(name);
    if (collection === undefined) {
      collection = new Map();
      this.#collections.set(name, collection);
    }
    return collection;
  }

  #existing<T extends KubeObject>(kind: KindRef<T>, name: string, namespace?: string): T {
    const metadata = namespace === undefined ? { name } : { name, namespace };
    const object = this.#collection(kind).get(objectKey({ metadata }));
    if (object === undefined)
      throw new ApiError(404, 'NotFound', `${resourceName(kind)} "${name}" not found`);
    return object as T;
  }

  /** Records the request, lets it fail if the test wants so, and runs it after one turn of the event loop. */
  async #request<R>(
    verb: FakeVerb,
    kind: { resource: string },
    details: { name?: string; namespace?: string; subresource?: string; body?: unknown } | object,
    effect: () => R,
  ): Promise<R> {
    const { name, namespace, subresource, body } = details as Partial<FakeRequest>;
    const request = { verb, resource: kind.resource, namespace, name, subresource, body };
    this.#requests.push(structuredClone(request));
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.#unreachable !== undefined) throw this.#unreachable;
    const fault = this.#takeFault(request);
    if (fault === undefined) return effect();
    if (fault.afterEffect) effect();
    throw fault.error;
  }

  #takeFault(request: FakeRequest): Fault | undefined {
    const fault = this.#faults.find(({ match, left }) => {
      if (left === 0) return false;
      return Object.entries(match).every(([key, value]) => request[key as 'verb'] === value);
    });
    if (fault !== undefined) fault.left--;
    return fault;
  }

  #replace<T extends KubeObject>(
    kind: KindRef<T>,
    old: T,
    wanted: T,
    subresource: string | undefined,
  ): T {
    const { resourceVersion, uid } = wanted.metadata;
    const name = old.metadata.name;
    if (resourceVersion !== undefined && resourceVersion !== old.metadata.resourceVersion)
      throw conflict(kind, name);
    if (uid !== undefined && uid !== old.metadata.uid) throw conflict(kind, name);
    const next = subresource === 'status' ? withStatusOf(old, wanted) : wanted;
    if (subresource === undefined && hasStatus(kind)) copyStatus(old, next);
    next.apiVersion = old.apiVersion;
    next.kind = old.kind;
    next.metadata = { ...next.metadata, ...serverMetadata(old) };
    const { spec: oldSpec } = old as { spec?: unknown };
    const { spec: nextSpec } = next as { spec?: unknown };
    if (old.metadata.generation !== undefined && !isDeepStrictEqual(oldSpec, nextSpec))
      next.metadata.generation = old.metadata.generation + 1;
    if (isDeepStrictEqual(old, next)) return structuredClone(old);
    const isLastFinalizerGone =
      next.metadata.deletionTimestamp !== undefined &&
      (old.metadata.finalizers ?? []).length > 0 &&
      (next.metadata.finalizers ?? []).length === 0;
    return structuredClone(this.#commit(kind, old, isLastFinalizerGone ? undefined : next) as T);
  }

  /** The one place where the state changes. Returns what was stored, or what was removed. */
  #commit(kind: KindRef, old: KubeObject | undefined, next: KubeObject | undefined): KubeObject {
    const version = ++this.#version;
    const object = next ?? old;
    if (object === undefined) throw new TypeError('a change needs an object');
    const collection = this.#collection(kind);
    if (next === undefined) collection.delete(objectKey(object));
    else {
      next.apiVersion = apiVersionOf(kind);
      next.kind = kind.kind;
      next.metadata.resourceVersion = String(version);
      collection.set(objectKey(next), next);
    }
    this.#history.push({ version, collection: collectionOf(kind), old, current: next });
    if (this.#history.length > MAX_HISTORY) this.compact();
    for (const watcher of this.#watchers) watcher.wake();
    return object;
  }

  #newMetadata(object: KubeObject): KubeObject['metadata'] {
    const { name, generateName } = object.metadata;
    const isNamed = name !== undefined && name !== '';
    return {
      name: isNamed ? name : `${generateName ?? ''}${String(++this.#generated).padStart(5, '0')}`,
      uid: randomUUID(),
      creationTimestamp: formatTime(this.#clock.now()),
      generation: 1,
    };
  }

  #bookmark<T extends KubeObject>(kind: KindRef<T>): WatchEvent<T> {
    const metadata = { name: '', resourceVersion: this.resourceVersion };
    const object = { apiVersion: apiVersionOf(kind), kind: kind.kind, metadata };
    return { type: 'BOOKMARK', object: object as KubeObject as T };
  }
}

function collectionOf(kind: KindRef): string {
  return `${kind.group}/${kind.resource}`;
}

/** `services`, or `leases.coordination.k8s.io`: how servers name a resource in messages. */
function resourceName(kind: KindRef): string {
  return kind.group === '' ? kind.resource : `${kind.resource}.${kind.group}`;
}

function hasStatus(kind: KindRef): boolean {
  const { subresources } = kind as { subresources?: readonly string[] };
  return subresources?.includes('status') ?? STATUS_RESOURCES.has(kind.resource);
}

function withStatusOf<T extends KubeObject>(old: T, wanted: T): T {
  const next = structuredClone(old);
  copyStatus(wanted, next);
  return next;
}

function copyStatus(fromObject: KubeObject, toObject: KubeObject): void {
  const { status } = fromObject as { status?: unknown };
  const to = toObject as { status?: unknown };
  if (status === undefined) delete to.status;
  else to.status = structuredClone(status);
}

/** What only the server may set, so that a write cannot change it. */
function serverMetadata(old: KubeObject): Partial<KubeObject['metadata']> {
  const { uid, resourceVersion, creationTimestamp, deletionTimestamp, generation } = old.metadata;
  return definedOnly({ uid, resourceVersion, creationTimestamp, deletionTimestamp, generation });
}

function definedOnly<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]: Exclude<T[K], undefined> };
}

/** The event a watcher with this selection sees: what leaves the selection is DELETED, what enters it ADDED. */
function eventOf(change: Change, selection: Selection): WatchEvent<KubeObject> | undefined {
  const { old, current, version } = change;
  const wasIn = old !== undefined && selects(selection, old);
  const isIn = current !== undefined && selects(selection, current);
  if (isIn) return { type: wasIn ? 'MODIFIED' : 'ADDED', object: current };
  if (!wasIn) return undefined;
  // A DELETED event carries the last state, with the version of the deletion.
  const metadata = { ...old.metadata, resourceVersion: String(version) };
  return { type: 'DELETED', object: { ...old, metadata } };
}

function conflict(kind: KindRef, name: string): ApiError {
  return new ApiError(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${resourceName(kind)} "${name}": the object has been modified; ` +
      'please apply your changes to the latest version and try again',
  );
}

function expired(): ApiError {
  return new ApiError(410, 'Expired', 'too old resource version');
}
