/**
 * OpenAPI v3 documents out of the kinds' schemas: one per group and version, and the index.
 *
 * Clients use them for little: kubectl looks in the PATCH operations for the `fieldValidation` parameter (then it
 * leaves validation to the server) and for strategic merge patches, in the components for merge keys, and
 * `kubectl explain` for the fields and their descriptions.
 */
import { createHash } from 'node:crypto';
import {
  type ArraySchema,
  apiVersionOf,
  type KindDefinition,
  type ObjectSchema,
  type Schema,
} from '../kind.ts';
import { listKeysOf } from './managed-fields/shape.ts';
import { OBJECT_META_SCHEMA } from './schema.ts';

export type OpenApiDocument = {
  openapi: '3.0.0';
  info: { title: string; version: string };
  paths: Record<string, unknown>;
  components: { schemas: Record<string, unknown> };
};

type JsonSchema = Record<string, unknown>;

const PATCH_TYPES = [
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/apply-patch+yaml',
];
const STRATEGIC_TYPE = 'application/strategic-merge-patch+json';
const JSON_TYPE = 'application/json';
const OBJECT_META = 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta';
const LIST_META = 'io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta';
const INT_OR_STRING = 'io.k8s.apimachinery.pkg.util.intstr.IntOrString';
const STATUS = 'io.k8s.apimachinery.pkg.apis.meta.v1.Status';

/**
 * The documents by their path under `/openapi/v3/`: `api/v1`, `apis/discovery.k8s.io/v1`.
 * @param options.version of the product, for people
 */
export function openApiDocuments(
  kinds: readonly KindDefinition[],
  options: { version: string },
): Map<string, OpenApiDocument> {
  const documents = new Map<string, OpenApiDocument>();
  for (const kind of kinds) {
    const path = pathOf(kind);
    let document = documents.get(path);
    if (document === undefined) {
      document = emptyDocument(options.version);
      documents.set(path, document);
    }
    Object.assign(document.paths, pathsOf(kind));
    Object.assign(document.components.schemas, componentsOf(kind));
  }
  return documents;
}

/** The answer of `/openapi/v3`. The hash in each URL lets clients keep a document until it changes. */
export function openApiIndex(documents: ReadonlyMap<string, OpenApiDocument>): {
  paths: Record<string, { serverRelativeURL: string }>;
} {
  const paths: Record<string, { serverRelativeURL: string }> = {};
  for (const [path, document] of documents)
    paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=${openApiHash(document)}` };
  return { paths };
}

/** Changes when the document does: for the index and for `ETag`. */
export function openApiHash(document: OpenApiDocument): string {
  return createHash('sha256').update(JSON.stringify(document)).digest('hex').toUpperCase();
}

function emptyDocument(version: string): OpenApiDocument {
  return {
    openapi: '3.0.0',
    info: { title: 'Tulle', version },
    paths: {},
    components: {
      schemas: {
        [OBJECT_META]: schemaOf(OBJECT_META_SCHEMA),
        [LIST_META]: {
          type: 'object',
          description: 'What all lists carry.',
          properties: {
            continue: { type: 'string', description: 'Where the next page begins.' },
            remainingItemCount: {
              type: 'integer',
              format: 'int64',
              description: 'How many items follow on later pages.',
            },
            resourceVersion: {
              type: 'string',
              description: 'The version of the whole list, to watch from.',
            },
          },
        },
        [INT_OR_STRING]: {
          oneOf: [{ type: 'integer' }, { type: 'string' }],
          format: 'int-or-string',
          description: 'A number or a name.',
        },
        [STATUS]: STATUS_SCHEMA,
      },
    },
  };
}

const STATUS_SCHEMA = {
  type: 'object',
  description: 'The result of a call that gives no other object.',
  properties: {
    apiVersion: { type: 'string', description: 'v1' },
    kind: { type: 'string', description: 'Status' },
    metadata: { type: 'object', description: 'Empty.' },
    status: { type: 'string', description: 'Success or Failure.' },
    message: { type: 'string', description: 'What happened, for people.' },
    reason: { type: 'string', description: 'What happened, in a word.' },
    details: { type: 'object', description: 'Which object, and which fields.' },
    code: { type: 'integer', format: 'int32', description: 'The HTTP status.' },
  },
};

function pathOf(kind: KindDefinition): string {
  return `${kind.group === '' ? 'api' : 'apis'}/${apiVersionOf(kind)}`;
}

/** `io.k8s.api.core.v1.Service`: the group's domain backwards, as upstream names them. */
function componentName(kind: { group: string; version: string; kind: string }): string {
  const isUpstream = kind.group === '' || kind.group.endsWith('.k8s.io');
  if (!isUpstream) return [...kind.group.split('.').reverse(), kind.version, kind.kind].join('.');
  const group = kind.group === '' ? 'core' : kind.group.split('.')[0];
  return `io.k8s.api.${group}.${kind.version}.${kind.kind}`;
}

function componentsOf(kind: KindDefinition): Record<string, unknown> {
  const gvk = [{ group: kind.group, version: kind.version, kind: kind.kind }];
  const name = componentName(kind);
  const schema = kind.custom?.openApi ?? schemaOf(kind.schema);
  const properties = { ...propertiesOf(schema), metadata: reference(OBJECT_META) };
  return {
    [name]: { ...schema, properties, 'x-kubernetes-group-version-kind': gvk },
    [`${name}List`]: {
      type: 'object',
      description: `A list of ${kind.resource}.`,
      required: ['items'],
      properties: {
        apiVersion: { type: 'string', description: 'The group and version.' },
        kind: { type: 'string', description: `${kind.kind}List` },
        metadata: reference(LIST_META),
        items: { type: 'array', items: reference(name), description: 'The items.' },
      },
      'x-kubernetes-group-version-kind': [
        { group: kind.group, version: kind.version, kind: `${kind.kind}List` },
      ],
    },
  };
}

function pathsOf(kind: KindDefinition): Record<string, unknown> {
  const prefix = `/${pathOf(kind)}/`;
  const collection = `${prefix}${kind.namespaced ? 'namespaces/{namespace}/' : ''}${kind.resource}`;
  const one = `${collection}/{name}`;
  const paths: Record<string, unknown> = {
    [collection]: {
      ...pathParameters(kind, { name: false }),
      get: operation(kind, 'list', { result: `${componentName(kind)}List` }),
      post: operation(kind, 'post', { body: [JSON_TYPE] }),
      delete: operation(kind, 'deletecollection', { result: STATUS }),
    },
    [one]: {
      ...pathParameters(kind, { name: true }),
      get: operation(kind, 'get', {}),
      put: operation(kind, 'put', { body: [JSON_TYPE] }),
      patch: operation(kind, 'patch', { body: patchTypesOf(kind) }),
      delete: operation(kind, 'delete', { result: STATUS }),
    },
  };
  if (kind.namespaced)
    paths[`${prefix}${kind.resource}`] = {
      get: operation(kind, 'list', { result: `${componentName(kind)}List` }),
    };
  for (const subresource of kind.subresources)
    paths[`${one}/${subresource}`] = {
      ...pathParameters(kind, { name: true }),
      get: operation(kind, 'get', {}),
      put: operation(kind, 'put', { body: [JSON_TYPE] }),
      patch: operation(kind, 'patch', { body: patchTypesOf(kind) }),
    };
  return paths;
}

function pathParameters(kind: KindDefinition, has: { name: boolean }): { parameters: unknown[] } {
  const names = [...(kind.namespaced ? ['namespace'] : []), ...(has.name ? ['name'] : [])];
  return {
    parameters: names.map((name) => ({
      name,
      in: 'path',
      required: true,
      schema: { type: 'string', uniqueItems: true },
    })),
  };
}

/**
 * A client that reads here that strategic merge patches are taken makes them by the schema alone, and fails on a part
 * the schema does not describe. For kinds with such parts the server takes these patches too, but does not say so
 * here: then clients use their own knowledge of the kind.
 */
function patchTypesOf(kind: KindDefinition): string[] {
  if (kind.custom !== undefined) return PATCH_TYPES;
  const { metadata: _, ...fields } = kind.schema.fields;
  return Object.values(fields).some(hasUndescribedPart)
    ? PATCH_TYPES
    : [...PATCH_TYPES, STRATEGIC_TYPE];
}

function hasUndescribedPart(schema: Schema): boolean {
  switch (schema.type) {
    case 'any':
      return true;
    case 'object':
      return schema.open === true || Object.values(schema.fields).some(hasUndescribedPart);
    case 'map':
      return hasUndescribedPart(schema.values);
    case 'array':
      return hasUndescribedPart(schema.items);
    default:
      return false;
  }
}

const WRITE_PARAMETERS = ['dryRun', 'fieldManager', 'fieldValidation'];

function operation(
  kind: KindDefinition,
  action: string,
  options: { body?: readonly string[]; result?: string },
): unknown {
  const component = componentName(kind);
  const isWrite = options.body !== undefined;
  const bodySchema = action === 'patch' ? { type: 'object' } : reference(component);
  return {
    tags: [apiVersionOf(kind)],
    ...(isWrite
      ? {
          parameters: WRITE_PARAMETERS.map((name) => ({
            name,
            in: 'query',
            schema: { type: 'string', uniqueItems: true },
          })),
          requestBody: {
            required: true,
            content: Object.fromEntries(
              (options.body ?? []).map((type) => [type, { schema: bodySchema }]),
            ),
          },
        }
      : {}),
    responses: {
      200: {
        description: 'OK',
        content: { [JSON_TYPE]: { schema: reference(options.result ?? component) } },
      },
    },
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': {
      group: kind.group,
      version: kind.version,
      kind: kind.kind,
    },
  };
}

function reference(component: string): JsonSchema {
  // A reference beside other keywords is not allowed in OpenAPI 3.0; upstream wraps it the same way.
  return { allOf: [{ $ref: `#/components/schemas/${component}` }] };
}

function schemaOf(schema: Schema): JsonSchema {
  const described = schema.description === undefined ? {} : { description: schema.description };
  switch (schema.type) {
    case 'object':
      return { ...objectSchemaOf(schema), ...described };
    case 'map':
      return {
        type: 'object',
        additionalProperties: schemaOf(schema.values),
        ...described,
        ...atomicMap(schema),
      };
    case 'array':
      return {
        type: 'array',
        items: schemaOf(schema.items),
        ...described,
        ...(schema.mergeKey === undefined
          ? {}
          : {
              'x-kubernetes-patch-merge-key': schema.mergeKey,
              'x-kubernetes-patch-strategy': 'merge',
            }),
        ...(schema.mergeSet ? { 'x-kubernetes-patch-strategy': 'merge' } : {}),
        ...listTypeOf(schema),
      };
    case 'any':
      return { ...described, 'x-kubernetes-preserve-unknown-fields': true };
    case 'int-or-string':
      return { ...reference(INT_OR_STRING), ...described };
    case 'integer':
      return { type: 'integer', format: schema.format ?? 'int32', ...described };
    default:
      return {
        type: schema.type,
        ...(schema.format === undefined ? {} : { format: schema.format }),
        ...(schema.enum === undefined ? {} : { enum: [...schema.enum] }),
        ...(schema.default === undefined ? {} : { default: schema.default }),
        ...described,
      };
  }
}

function objectSchemaOf(schema: ObjectSchema): JsonSchema {
  const properties = Object.fromEntries(
    Object.entries(schema.fields).map(([name, field]) => [name, schemaOf(field)]),
  );
  return {
    type: 'object',
    properties,
    ...(schema.required?.length ? { required: [...schema.required] } : {}),
    ...(schema.open ? { 'x-kubernetes-preserve-unknown-fields': true } : {}),
    ...atomicMap(schema),
  };
}

function atomicMap(schema: { readonly atomic?: boolean }): JsonSchema {
  return schema.atomic ? { 'x-kubernetes-map-type': 'atomic' } : {};
}

/** How server-side apply merges a list. */
function listTypeOf(schema: ArraySchema): JsonSchema {
  const keys = listKeysOf(schema);
  if (keys.type === 'whole') return { 'x-kubernetes-list-type': 'atomic' };
  if (keys.type === 'set') return { 'x-kubernetes-list-type': 'set' };
  return { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': [...keys.keys] };
}

function propertiesOf(schema: JsonSchema): JsonSchema {
  const { properties } = schema;
  return typeof properties === 'object' && properties !== null ? { ...properties } : {};
}
