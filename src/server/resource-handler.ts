/** Requests for objects: from the URL's words, parameters and bodies to the registry, and back to what the client reads. */
import type { KindDefinition } from '#api/kind.ts';
import {
  badRequest,
  methodNotAllowed,
  pathNotFound,
  successStatus,
} from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import { isNotFound } from '#lib/errors.ts';
import { decodeBody } from './body.ts';
import { handleEviction, isEviction } from './eviction.ts';
import { type Answer, headerOf, json } from './exchange.ts';
import { readApplyOptions, refuseForce } from './field-manager.ts';
import { checkFields, parseFieldValidation } from './fields.ts';
import { YAML_TYPE } from './negotiation.ts';
import { decodePatch, isApplyPatch } from './patch.ts';
import { listObjects } from './registry/list.ts';
import type { Written } from './registry/resource-registry.ts';
import { hasSubresource, returnsDeleted } from './registry/strategy.ts';
import {
  asObject,
  checkNamespace,
  readDeleteOptions,
  readObject,
  writeOptions,
} from './resource-body.ts';
import {
  type Call,
  integerOf,
  presenterOf,
  type ResourceExchange,
  type ResourceHandlerOptions,
  show,
} from './resource-call.ts';
import { handleScale } from './scale.ts';
import { createFilter } from './selectors.ts';
import { handleWatch } from './watch-handler.ts';

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
  const evicts = isEviction(kind, info.subresource);
  if (info.subresource !== '' && !evicts && !hasSubresource(kind, info.subresource))
    throw pathNotFound();
  if (kind.namespaced && info.namespace === '' && (info.name !== '' || info.verb === 'create'))
    throw badRequest(`the namespace is missing: ${kind.resource} are in namespaces`);
  const target = { namespace: info.namespace, name: info.name };
  const call: Call = { exchange, info, kind, registry, target, options };
  if (info.subresource === 'scale') return await handleScale(call);
  if (evicts) return await handleEviction(call);
  switch (info.verb) {
    case 'get':
      return await get(call);
    case 'list':
      return await list(call);
    case 'watch':
      return handleWatch(call);
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
  const options = { ...writeOptions(call), checkCreate: () => checkMayCreate(call) };
  const written = await registry.replace(target, object, options);
  return showWritten(call, written.created ? 201 : 200, written, warnings);
}

/** Who may change does not therefore create. @throws ApiError 403 */
function checkMayCreate({ exchange, info, options }: Call): void {
  const decision = options.authorizer.authorize(exchange.principal, { ...info, verb: 'create' });
  if (!decision.allowed) throw decision.error;
}

async function patch(call: Call): Promise<Answer> {
  const { exchange, info, kind, registry } = call;
  if (isApplyPatch(headerOf(exchange.headers, 'content-type'))) return await applyConfig(call);
  refuseForce(info.query);
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

/** Server-side apply: the body is what its manager wants of the object, in YAML or JSON. */
async function applyConfig(call: Call): Promise<Answer> {
  const { exchange, info, kind, registry, target } = call;
  const { force } = readApplyOptions(info.query);
  const mode = parseFieldValidation(info.query.get('fieldValidation'));
  const sent = decodeBody(await exchange.body(), YAML_TYPE);
  const { object, warnings } = checkFields(kind, asObject(kind, sent), mode);
  checkNamespace(call, object);
  const { name = info.name, managedFields } = object.metadata;
  if (name !== info.name)
    throw badRequest(
      `the name of the object (${name}) does not match the name on the URL (${info.name})`,
    );
  if (managedFields !== undefined) throw badRequest('metadata.managedFields must be nil');
  const config = { ...object, metadata: { ...object.metadata, name } };
  const where = { ...target, subresource: info.subresource };
  const options = { ...writeOptions(call), force, checkCreate: () => checkMayCreate(call) };
  const written = await registry.apply(where, config, options);
  return showWritten(call, written.created ? 201 : 200, written, warnings);
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
  if (!deleted.removed || returnsDeleted(kind)) return showWritten(call, 200, deleted, []);
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

function showWritten(
  call: Call,
  status: number,
  written: Written,
  warnings: readonly string[],
): Answer {
  const body = presenterOf(call).object(written.object);
  return show(call, status, body, [...warnings, ...written.warnings]);
}
