/** Requests for objects: from the URL's words, parameters and bodies to the registry, and back to what the client reads. */
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';
import { isObject, type JsonObject } from '#api/machinery/json.ts';
import {
  badRequest,
  methodNotAllowed,
  pathNotFound,
  successStatus,
  tooManyRequests,
} from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import type { Clock } from '#lib/clock.ts';
import { isNotFound } from '#lib/errors.ts';
import type { Store } from '#store/port.ts';
import { decodeBody } from './body.ts';
import { type Answer, type Exchange, headerOf, json } from './exchange.ts';
import { checkFields, parseFieldValidation } from './fields.ts';
import type { WatchSlots } from './limits.ts';
import type { ServerMetrics } from './metrics.ts';
import { JSON_TYPE, negotiateObject } from './negotiation.ts';
import { decodePatch } from './patch.ts';
import { createPresenter, type Presenter } from './present.ts';
import { listObjects } from './registry/list.ts';
import type {
  ResourceRegistry,
  Target,
  WriteOptions,
  Written,
} from './registry/resource-registry.ts';
import { hasSubresource } from './registry/strategy.ts';
import { watchObjects } from './registry/watch.ts';
import { isTrue, type ResourceRequest } from './request.ts';
import { createFilter } from './selectors.ts';
import { SIGN_OF_LIFE_MS, watchDurationMs, watchStream } from './watch-stream.ts';
import { asYaml } from './yaml.ts';

export interface ResourceHandlerOptions {
  readonly store: Store;
  /** @returns `undefined` if there is no such resource */
  readonly registryOf: (place: {
    group: string;
    version: string;
    resource: string;
  }) => ResourceRegistry | undefined;
  readonly clock: Clock;
  readonly metrics: ServerMetrics;
  readonly watchSlots: WatchSlots;
  /** A number in [0, 1). */
  readonly random: () => number;
}

/** When a user with too many watches may try again: some end every few minutes. */
const RETRY_AFTER_SECONDS = 30;

type ResourceExchange = Exchange<ResourceRequest>;

interface Call {
  readonly exchange: ResourceExchange;
  readonly info: ResourceRequest;
  readonly kind: KindDefinition;
  readonly registry: ResourceRegistry;
  readonly target: Target;
  readonly options: ResourceHandlerOptions;
}

/** @throws ApiError for everything that is to be refused */
export async function handleResource(
  exchange: ResourceExchange,
  options: ResourceHandlerOptions,
): Promise<Answer> {
  const { info } = exchange;
  const registry = options.registryOf(info);
  if (registry === undefined) throw pathNotFound();
  const { kind } = registry;
  if (!kind.namespaced && info.namespace !== '') throw pathNotFound();
  if (info.subresource !== '' && !hasSubresource(kind, info.subresource)) throw pathNotFound();
  if (kind.namespaced && info.namespace === '' && (info.name !== '' || info.verb === 'create'))
    throw badRequest(`the namespace is missing: ${kind.resource} are in namespaces`);
  const target = { namespace: info.namespace, name: info.name };
  const call: Call = { exchange, info, kind, registry, target, options };
  switch (info.verb) {
    case 'get':
      return isTrue(info.query.get('watch') ?? 'false') ? watch(call) : await get(call);
    case 'list':
      return await list(call);
    case 'watch':
      return watch(call);
    case 'create':
      return await create(call);
    case 'update':
      return await replace(call);
    case 'patch':
      return await patch(call);
    case 'delete':
      return await remove(call);
    case 'deletecollection':
      return await removeCollection(call);
  }
}

function presenterOf({ exchange, kind, info, options }: Call): Presenter {
  const form = negotiateObject(headerOf(exchange.headers, 'accept'));
  return createPresenter(kind, form, {
    includeObject: info.query.get('includeObject') ?? 'Metadata',
    nowMs: () => options.clock.now(),
  });
}

function show(
  { exchange }: Call,
  status: number,
  body: unknown,
  warnings: readonly string[] = [],
): Answer {
  const { encoding } = negotiateObject(headerOf(exchange.headers, 'accept'));
  return encoding === 'yaml' ? asYaml(status, body) : json(status, body, warnings);
}

async function get(call: Call): Promise<Answer> {
  const presenter = presenterOf(call);
  const wanted = integerOf(call.info.query, 'resourceVersion') ?? 0;
  const object = await call.registry.get(call.target, wanted);
  return show(call, 200, presenter.object(object));
}

async function list(call: Call): Promise<Answer> {
  const { info, kind, options } = call;
  const presenter = presenterOf(call);
  const { query } = info;
  const filter = createFilter(kind, query);
  const limit = integerOf(query, 'limit');
  const continueToken = query.get('continue');
  const page = await listObjects(kind, options.store, {
    namespace: info.namespace,
    ...(filter === undefined ? {} : { filter }),
    ...(limit === undefined ? {} : { limit }),
    ...(continueToken === null || continueToken === '' ? {} : { continueToken }),
    resourceVersion: query.get('resourceVersion') ?? '',
    resourceVersionMatch: query.get('resourceVersionMatch') ?? '',
  });
  return show(call, 200, presenter.list(page));
}

function watch(call: Call): Answer {
  const { info, kind, options, exchange } = call;
  const { query } = info;
  const presenter = presenterOf(call);
  const filter = createFilter(kind, query, info.name === '' ? undefined : info.name);
  const resourceVersion = query.get('resourceVersion') ?? '';
  const sendInitialEvents = readInitialEvents(query);
  const allowBookmarks = isTrue(query.get('allowWatchBookmarks') ?? 'false');
  const durationMs = watchDurationMs(integerOf(query, 'timeoutSeconds'), options.random);
  const release = options.watchSlots.take(exchange.principal.name);
  if (release === undefined)
    throw tooManyRequests(
      `"${exchange.principal.name}" has too many watches open; close some, or share them`,
      RETRY_AFTER_SECONDS,
    );
  const ended = options.metrics.watchStarted(kind);
  const timeout = new AbortController();
  const cancel = options.clock.schedule(durationMs, () => timeout.abort());
  const signal = AbortSignal.any([exchange.signal, timeout.signal]);
  const frames = watchObjects(kind, options.store, {
    namespace: info.namespace,
    ...(filter === undefined ? {} : { filter }),
    resourceVersion,
    sendInitialEvents,
    progressMs: SIGN_OF_LIFE_MS,
    signal,
  });
  const lines = watchStream(frames, {
    kind,
    presenter,
    allowBookmarks,
    clock: options.clock,
    onLagged: () => options.metrics.watchCut('lagged'),
  });
  let isOpen = true;
  const finish = () => {
    if (!isOpen) return;
    isOpen = false;
    cancel();
    release();
    ended();
  };
  // A generator that was never started runs no `finally`: a client that is gone before the first line ends here.
  signal.addEventListener('abort', finish, { once: true });
  const chunks = endingWith(lines, finish);
  return { type: 'stream', contentType: `${JSON_TYPE};stream=watch`, chunks };
}

async function* endingWith<T>(items: AsyncIterable<T>, atEnd: () => void): AsyncGenerator<T> {
  try {
    yield* items;
  } finally {
    atEnd();
  }
}

function readInitialEvents(query: URLSearchParams): boolean {
  const match = query.get('resourceVersionMatch') ?? '';
  const wanted = query.get('sendInitialEvents');
  if (wanted === null) {
    if (match !== '')
      throw badRequest(
        'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
      );
    return false;
  }
  if (match !== 'NotOlderThan')
    throw badRequest('sendInitialEvents requires setting resourceVersionMatch to NotOlderThan');
  return isTrue(wanted);
}

async function create(call: Call): Promise<Answer> {
  const { info, registry, kind } = call;
  if (info.name !== '') throw methodNotAllowed(kind, 'create with a name');
  const { object, warnings } = await readObject(call);
  checkNamespace(call, object);
  const written = await registry.create(info.namespace, object, writeOptions(call));
  return showWritten(call, 201, written, warnings);
}

async function replace(call: Call): Promise<Answer> {
  const { info, registry } = call;
  const { object, warnings } = await readObject(call);
  checkNamespace(call, object);
  if (object.metadata.name !== info.name)
    throw badRequest(
      `the name of the object (${object.metadata.name ?? ''}) does not match the name on the URL (${info.name})`,
    );
  const target = { ...call.target, subresource: info.subresource };
  const written = await registry.update(target, () => object, writeOptions(call));
  return showWritten(call, 200, written, warnings);
}

async function patch(call: Call): Promise<Answer> {
  const { exchange, info, kind, registry } = call;
  const mode = parseFieldValidation(info.query.get('fieldValidation'));
  const apply = decodePatch(
    kind,
    headerOf(exchange.headers, 'content-type'),
    await exchange.body(),
  );
  let warnings: readonly string[] = [];
  const change = (stored: KubeObject): KubeObject => {
    const checked = checkFields(kind, asObject(kind, apply(stored)), mode);
    warnings = checked.warnings;
    checkPatched(kind, checked.object, stored);
    return checked.object;
  };
  const target = { ...call.target, subresource: info.subresource };
  const written = await registry.update(target, change, writeOptions(call));
  return showWritten(call, 200, written, warnings);
}

/** A patch changes an object; it does not make another one of it. */
function checkPatched(kind: KindDefinition, object: KubeObject, stored: KubeObject): void {
  for (const field of ['name', 'namespace'] as const)
    if ((object.metadata[field] ?? '') !== (stored.metadata[field] ?? ''))
      throw badRequest(
        `the patch changes metadata.${field} of ${kind.resource} "${stored.metadata.name}", which cannot be changed`,
      );
}

async function remove(call: Call): Promise<Answer> {
  const { registry, info, kind, target } = call;
  if (info.subresource !== '') throw methodNotAllowed(kind, `delete of ${info.subresource}`);
  const wish = await readDeleteOptions(call);
  const deleted = await registry.delete(target, wish);
  if (!deleted.removed) return showWritten(call, 200, deleted, []);
  const { name, uid } = deleted.object.metadata;
  return json(200, successStatus(kind, name, uid), deleted.warnings);
}

async function removeCollection(call: Call): Promise<Answer> {
  const { registry, info, kind, options } = call;
  const presenter = presenterOf(call);
  const wish = await readDeleteOptions(call);
  const filter = createFilter(kind, info.query);
  const page = await listObjects(kind, options.store, {
    namespace: info.namespace,
    ...(filter === undefined ? {} : { filter }),
  });
  for (const { metadata } of page.items) {
    const target = { namespace: metadata.namespace ?? '', name: metadata.name };
    try {
      await registry.delete(target, wish);
    } catch (error) {
      // Somebody else deleted it: that is what was asked for.
      if (!isNotFound(error)) throw error;
    }
  }
  return show(call, 200, presenter.list({ items: page.items, revision: page.revision }));
}

async function readDeleteOptions(call: Call) {
  const { exchange, info } = call;
  const body = await exchange.body();
  const sent =
    body.length === 0 ? {} : decodeBody(body, headerOf(exchange.headers, 'content-type'));
  if (!isObject(sent)) throw badRequest('the body of a DELETE must be a DeleteOptions object');
  const bodyDryRun = Array.isArray(sent.dryRun) ? sent.dryRun.map(String) : [];
  const preconditions = isObject(sent.preconditions) ? sent.preconditions : {};
  const { uid, resourceVersion } = preconditions;
  return {
    principal: exchange.principal,
    dryRun: isDryRun([...info.query.getAll('dryRun'), ...bodyDryRun]),
    preconditions: {
      ...(typeof uid === 'string' ? { uid } : {}),
      ...(typeof resourceVersion === 'string' ? { resourceVersion } : {}),
    },
  };
}

function showWritten(
  call: Call,
  status: number,
  written: Written,
  warnings: readonly string[],
): Answer {
  const body = presenterOf(call).object(written.object);
  return show(call, status, body, [...warnings, ...written.warnings]);
}

async function readObject(
  call: Call,
): Promise<{ object: KubeObject; warnings: readonly string[] }> {
  const { exchange, kind, info } = call;
  const mode = parseFieldValidation(info.query.get('fieldValidation'));
  const sent = decodeBody(await exchange.body(), headerOf(exchange.headers, 'content-type'));
  return checkFields(kind, asObject(kind, sent), mode);
}

/** An object of this kind, as far as can be said without looking at its fields. */
function asObject(kind: KindDefinition, value: unknown): JsonObject {
  if (!isObject(value)) throw badRequest(`the body of the request must be a ${kind.kind} object`);
  const apiVersion = apiVersionOf(kind);
  const { apiVersion: saidVersion = apiVersion, kind: saidKind = kind.kind } = value;
  if (saidVersion !== apiVersion || saidKind !== kind.kind)
    throw badRequest(
      `the object is a ${JSON.stringify(saidKind)} of ${JSON.stringify(saidVersion)}, but this URL takes a "${kind.kind}" of "${apiVersion}"`,
    );
  if (value.metadata !== undefined && !isObject(value.metadata))
    throw badRequest('metadata must be an object');
  return { apiVersion, kind: kind.kind, ...value, metadata: value.metadata ?? {} };
}

function checkNamespace({ info, kind }: Call, object: KubeObject): void {
  const said = object.metadata.namespace ?? '';
  if (kind.namespaced && said !== '' && said !== info.namespace)
    throw badRequest(
      `the namespace of the provided object (${said}) does not match the namespace sent on the request (${info.namespace})`,
    );
}

function writeOptions({ exchange, info }: Call): WriteOptions {
  return { principal: exchange.principal, dryRun: isDryRun(info.query.getAll('dryRun')) };
}

function isDryRun(values: readonly string[]): boolean {
  for (const value of values)
    if (value !== 'All')
      throw badRequest(
        `dryRun: Unsupported value: ${JSON.stringify(value)}: supported values: "All"`,
      );
  return values.length > 0;
}

/** A parameter that is a whole number. @returns `undefined` if it is missing or empty @throws ApiError 400 */
function integerOf(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  const value = Number(text);
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(value))
    throw badRequest(`the parameter ${name}=${text} must be a whole number`);
  return value;
}
