/** What clients send about objects, as the registry takes it: objects, and wishes how to write or delete them. */
import { apiVersionOf, type FieldError, type KindDefinition } from '#api/kind.ts';
import { invalid, notSupported } from '#api/machinery/field-errors.ts';
import { isObject, type JsonObject } from '#api/machinery/json.ts';
import { badRequest, invalidObject } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import { decodeBody, decodeSent } from './body.ts';
import { headerOf } from './exchange.ts';
import { readFieldManager } from './field-manager.ts';
import { checkFields, parseFieldValidation } from './fields.ts';
import { PROPAGATIONS, type Propagation } from './registry/propagation.ts';
import type { DeleteOptions, WriteOptions } from './registry/resource-registry.ts';
import type { Call } from './resource-call.ts';

/**
 * Reads an object and checks its fields.
 * @param kindOf what kind is sent, if it is not that of the URL
 * @throws ApiError 400, 413, 415
 */
export async function readObject(
  call: Call,
  kindOf: (sent: unknown) => KindDefinition = () => call.kind,
): Promise<{ object: KubeObject; warnings: readonly string[] }> {
  const { exchange, info } = call;
  const mode = parseFieldValidation(info.query.get('fieldValidation'));
  const sent = decodeSent(await exchange.body(), headerOf(exchange.headers, 'content-type'));
  const kind = kindOf(sent.value);
  const { object, warnings } = checkFields(kind, asObject(kind, sent.value), mode);
  return { object, warnings: [...sent.warnings, ...warnings] };
}

/** An object of this kind, as far as can be said without looking at its fields. */
export function asObject(kind: KindDefinition, value: unknown): JsonObject {
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

/** The namespace of the body, if it names one, is that of the URL. @throws ApiError 400 */
export function checkNamespace({ info, kind }: Call, object: KubeObject): void {
  const said = object.metadata.namespace ?? '';
  if (kind.namespaced && said !== '' && said !== info.namespace)
    throw badRequest(
      `the namespace of the provided object (${said}) does not match the namespace sent on the request (${info.namespace})`,
    );
}

/** Who writes, and whether it is only a try. @throws ApiError 400 */
export function writeOptions({ exchange, info }: Call): WriteOptions & { fieldManager: string } {
  return {
    principal: exchange.principal,
    dryRun: isDryRun(info.query.getAll('dryRun')),
    fieldManager: readFieldManager(info.query, headerOf(exchange.headers, 'user-agent')),
  };
}

/** Reads the `DeleteOptions` of the body and the URL. @throws ApiError 400, 413, 415 */
export async function readDeleteOptions(call: Call): Promise<DeleteOptions> {
  const { exchange, info } = call;
  const body = await exchange.body();
  const sent =
    body.length === 0 ? {} : decodeBody(body, headerOf(exchange.headers, 'content-type'));
  if (!isObject(sent)) throw badRequest('the body of a DELETE must be a DeleteOptions object');
  return deleteOptionsOf(call, sent, info.query);
}

/** What a `DeleteOptions` and a URL's parameters say together. @throws ApiError 400, 422 */
export function deleteOptionsOf(
  { exchange }: Call,
  sent: JsonObject,
  query: URLSearchParams,
): DeleteOptions {
  const bodyDryRun = Array.isArray(sent.dryRun) ? sent.dryRun.map(String) : [];
  const preconditions = isObject(sent.preconditions) ? sent.preconditions : {};
  const { uid, resourceVersion } = preconditions;
  return {
    principal: exchange.principal,
    dryRun: isDryRun([...query.getAll('dryRun'), ...bodyDryRun]),
    ...readPropagation(query, sent),
    ...readGracePeriod(query, sent),
    preconditions: {
      ...(typeof uid === 'string' ? { uid } : {}),
      ...(typeof resourceVersion === 'string' ? { resourceVersion } : {}),
    },
  };
}

/** @throws ApiError 400 */
function readGracePeriod(
  query: URLSearchParams,
  sent: JsonObject,
): { gracePeriodSeconds?: number } {
  const said = sent.gracePeriodSeconds ?? query.get('gracePeriodSeconds') ?? '';
  if (said === '') return {};
  const gracePeriodSeconds = typeof said === 'string' ? Number(said) : said;
  if (typeof gracePeriodSeconds === 'number' && Number.isSafeInteger(gracePeriodSeconds))
    return { gracePeriodSeconds };
  throw badRequest(`gracePeriodSeconds: ${JSON.stringify(said)} is not a whole number of seconds`);
}

/** `propagationPolicy`, or `orphanDependents` of old clients. @throws ApiError 422 */
function readPropagation(query: URLSearchParams, sent: JsonObject): { propagation?: Propagation } {
  const text = sent.propagationPolicy ?? query.get('propagationPolicy') ?? '';
  const orphan = sent.orphanDependents ?? query.get('orphanDependents') ?? '';
  const isOrphan = orphan === '' ? undefined : orphan === true || orphan === 'true';
  const bad = (error: FieldError) =>
    invalidObject({ group: 'meta.k8s.io', kind: 'DeleteOptions' }, '', [error]);
  if (text === '') {
    if (isOrphan === undefined) return {};
    return { propagation: isOrphan ? 'Orphan' : 'Background' };
  }
  if (isOrphan !== undefined)
    throw bad(
      invalid(
        'propagationPolicy',
        text,
        'orphanDependents and deletionPropagation cannot be both set',
      ),
    );
  const propagation = PROPAGATIONS.find((known) => known === text);
  if (propagation === undefined) throw bad(notSupported('propagationPolicy', text, PROPAGATIONS));
  return { propagation };
}

function isDryRun(values: readonly string[]): boolean {
  for (const value of values)
    if (value !== 'All')
      throw badRequest(
        `dryRun: Unsupported value: ${JSON.stringify(value)}: supported values: "All"`,
      );
  return values.length > 0;
}
