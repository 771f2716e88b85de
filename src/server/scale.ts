/** The `scale` subresource: a kind's number of replicas as `autoscaling/v1` Scale, whatever the kind calls it. */

import type { KindDefinition } from '#api/kind.ts';
import { isObject, type JsonObject, setField } from '#api/machinery/json.ts';
import { findByPath, type JsonPath, parseJsonPath } from '#api/machinery/json-path.ts';
import { badRequest, methodNotAllowed, pathNotFound } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import { decodeBody } from './body.ts';
import { type Answer, headerOf } from './exchange.ts';
import { decodePatch } from './patch.ts';
import { writeOptions } from './resource-body.ts';
import { type Call, show } from './resource-call.ts';

interface Scale extends KubeObject {
  spec: { replicas?: number };
  status: { replicas: number; selector?: string };
}

const API_VERSION = 'autoscaling/v1';

/** @throws ApiError */
export async function handleScale(call: Call): Promise<Answer> {
  const { info, kind, registry, target, exchange } = call;
  const { verb } = info;
  if (kind.custom?.scale === undefined) throw pathNotFound();
  if (verb === 'get') return show(call, 200, scaleOf(kind, await registry.get(target)));
  if (verb !== 'update' && verb !== 'patch') throw methodNotAllowed(kind, `${verb} of scale`);
  const type = headerOf(exchange.headers, 'content-type');
  const body = await exchange.body();
  const next =
    verb === 'update'
      ? () => decodeBody(body, type)
      : decodePatch({ ...kind, group: 'autoscaling', version: 'v1', kind: 'Scale' }, type, body);
  const change = (stored: KubeObject) => withScale(kind, stored, next(scaleOf(kind, stored)));
  const written = await registry.update(
    { ...target, subresource: 'scale' },
    change,
    writeOptions(call),
  );
  return show(call, 200, scaleOf(kind, written.object), written.warnings);
}

function scaleOf(kind: KindDefinition, object: KubeObject): Scale {
  const scale = kind.custom?.scale;
  const numberAt = (path: string | undefined) => {
    const [found] = findByPath(pathOf(path), object);
    return typeof found === 'number' ? found : undefined;
  };
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const replicas = numberAt(scale?.specReplicasPath);
  const [selector] =
    scale?.labelSelectorPath === undefined
      ? []
      : findByPath(pathOf(scale.labelSelectorPath), object);
  return {
    apiVersion: API_VERSION,
    kind: 'Scale',
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...(uid === undefined ? {} : { uid }),
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
    },
    spec: replicas === undefined ? {} : { replicas },
    status: {
      replicas: numberAt(scale?.statusReplicasPath) ?? 0,
      ...(typeof selector === 'string' ? { selector } : {}),
    },
  };
}

/** The object with the number that the Scale wants. @throws ApiError 400 */
function withScale(kind: KindDefinition, stored: KubeObject, scale: unknown): KubeObject {
  if (!isObject(scale) || (scale.kind ?? 'Scale') !== 'Scale')
    throw badRequest(`the body of the request must be a Scale of "${API_VERSION}"`);
  const metadata: JsonObject = isObject(scale.metadata) ? scale.metadata : {};
  const replicas = isObject(scale.spec) ? (scale.spec.replicas ?? 0) : 0;
  if (typeof replicas !== 'number' || !Number.isInteger(replicas) || replicas < 0)
    throw badRequest(
      `spec.replicas: Invalid value: ${JSON.stringify(replicas)}: should be a non-negative integer`,
    );
  if (metadata.name !== undefined && metadata.name !== stored.metadata.name)
    throw badRequest(
      `the name of the Scale (${String(metadata.name)}) does not match the name on the URL (${stored.metadata.name})`,
    );
  const { resourceVersion } = metadata;
  const changed = setAt(
    stored as unknown as JsonObject,
    pathOf(kind.custom?.scale?.specReplicasPath),
    replicas,
  );
  return {
    ...(changed as unknown as KubeObject),
    metadata: {
      ...stored.metadata,
      ...(typeof resourceVersion === 'string' && resourceVersion !== '' ? { resourceVersion } : {}),
    },
  };
}

/** A copy of the object with a value at a path of fields. */
function setAt(object: JsonObject, path: JsonPath, value: unknown): JsonObject {
  const [step, ...rest] = path;
  if (step?.type !== 'field') return object;
  const inner = object[step.name];
  const result = { ...object };
  setField(
    result,
    step.name,
    rest.length === 0 ? value : setAt(isObject(inner) ? inner : {}, rest, value),
  );
  return result;
}

function pathOf(text: string | undefined): JsonPath {
  const path = parseJsonPath(text ?? '');
  // Validation of the definition has read it before.
  return typeof path === 'string' ? [] : path;
}
