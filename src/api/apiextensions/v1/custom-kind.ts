/** From a definition to kinds: one for each served version, like any other kind to the rest of the server. Pure. */
import {
  apiVersionOf,
  type FieldReader,
  type KindDefinition,
  type ObjectSchema,
  type Schema,
  type TableColumn,
} from '../../kind.ts';
import { formatAge } from '../../machinery/age.ts';
import { AGE_COLUMN, NAME_COLUMN } from '../../machinery/columns.ts';
import type { JsonObject } from '../../machinery/json.ts';
import {
  findByPath,
  formatFound,
  type JsonPath,
  parseJsonPath,
} from '../../machinery/json-path.ts';
import { OBJECT_META_SCHEMA, string } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import type {
  CustomResourceDefinition,
  CustomVersion,
  PrinterColumn,
} from './custom-resource-definition.ts';
import { decodeCustom, defaultFields } from './decode.ts';
import { additionalOf, EMBEDDED_FIELDS, type JsonSchema, keepsUnknown } from './json-schema.ts';
import { validateValue } from './validate-value.ts';

/** The kinds of the versions that are served, the version that clients should prefer first. */
export function customKinds(definition: CustomResourceDefinition): KindDefinition[] {
  const { versions } = definition.spec;
  const storage = versions.find((version) => version.storage)?.name ?? '';
  return versions
    .filter((version) => version.served)
    .toSorted((a, b) => compareVersions(a.name, b.name))
    .map((version) => customKind(definition, version, storage));
}

/** Stable before beta before alpha, higher before lower, then the rest by name. `k8s.io/apimachinery/pkg/version`. */
export function compareVersions(a: string, b: string): number {
  const rankOf = (version: string) => {
    const match = /^v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?$/.exec(version);
    if (match === null) return undefined;
    const stage = match[2] === undefined ? 2 : match[2] === 'beta' ? 1 : 0;
    return [stage, Number(match[1]), Number(match[3] ?? 0)] as const;
  };
  const [x, y] = [rankOf(a), rankOf(b)];
  if (x === undefined || y === undefined) {
    if (x !== undefined) return -1;
    if (y !== undefined) return 1;
    return a < b ? -1 : a > b ? 1 : 0;
  }
  return y[0] - x[0] || y[1] - x[1] || y[2] - x[2];
}

function customKind(
  definition: CustomResourceDefinition,
  version: CustomVersion,
  storageVersion: string,
): KindDefinition {
  const { group, names, scope } = definition.spec;
  const namespaced = scope === 'Namespaced';
  const schema: JsonSchema = version.schema?.openAPIV3Schema ?? {};
  const scale = version.subresources?.scale;
  const apiVersion = apiVersionOf({ group, version: version.name });
  return {
    group,
    version: version.name,
    kind: names.kind,
    resource: names.plural,
    singular: names.singular ?? names.kind.toLowerCase(),
    namespaced,
    shortNames: names.shortNames ?? [],
    categories: names.categories ?? [],
    subresources: [
      ...(version.subresources?.status === undefined ? [] : (['status'] as const)),
      ...(scale === undefined ? [] : (['scale'] as const)),
    ],
    schema: rootSchema(schema, names.kind),
    setDefaults: (object) => defaultFields(schema, object as unknown as JsonObject) as KubeObject,
    validate: (object) => [
      ...validateMeta(object.metadata, { namespaced, anyFinalizer: true }),
      ...validateValue(schema, object, '').map((error) => ({
        ...error,
        field: error.field || '(the whole object)',
      })),
    ],
    columns: columnsOf(version.additionalPrinterColumns),
    selectableFields: selectableOf(version),
    custom: {
      definition: definition.metadata.name,
      storageApiVersion: apiVersionOf({ group, version: storageVersion }),
      listKind: names.listKind ?? `${names.kind}List`,
      openApi: openApiOf(schema),
      decode: (sent) => decodeCustom(schema, sent),
      ...(scale === undefined ? {} : { scale }),
      ...(version.deprecated
        ? { warning: version.deprecationWarning || `${apiVersion} ${names.kind} is deprecated` }
        : {}),
    },
  };
}

/** The document of the schema, with what every object has. */
function openApiOf(schema: JsonSchema): JsonObject {
  const { properties, ...rest } = schema;
  return {
    ...rest,
    properties: {
      apiVersion: {
        type: 'string',
        description: 'The group and version of this representation of the object.',
      },
      kind: { type: 'string', description: 'The kind of the object, in CamelCase.' },
      ...properties,
    },
  };
}

/** The schema as server-side apply and patches need it. */
function rootSchema(schema: JsonSchema, kind: string): ObjectSchema {
  const { apiVersion: _a, kind: _k, metadata: _m, ...properties } = schema.properties ?? {};
  return {
    type: 'object',
    name: kind,
    open: keepsUnknown(schema),
    fields: {
      apiVersion: string('The group and version.'),
      kind: string('The kind.'),
      metadata: OBJECT_META_SCHEMA,
      ...Object.fromEntries(
        Object.entries(properties).map(([name, property]) => [name, schemaOf(property)]),
      ),
    },
  };
}

function schemaOf(schema: JsonSchema): Schema {
  const described = schema.description === undefined ? {} : { description: schema.description };
  if (schema['x-kubernetes-int-or-string']) return { type: 'int-or-string', ...described };
  switch (schema.type) {
    case 'object':
      return { ...objectSchema(schema), ...described };
    case 'array':
      return {
        type: 'array',
        items: schemaOf(schema.items ?? {}),
        ...mergeOf(schema),
        ...described,
      };
    case 'string':
    case 'integer':
    case 'number':
    case 'boolean':
      return {
        type: schema.type,
        ...(isScalar(schema.default) ? { default: schema.default } : {}),
        ...described,
      };
    default:
      return { type: 'any', ...described };
  }
}

function isScalar(value: unknown): value is string | number | boolean {
  return ['string', 'number', 'boolean'].includes(typeof value);
}

function objectSchema(schema: JsonSchema): Schema {
  const atomic = schema['x-kubernetes-map-type'] === 'atomic' ? { atomic: true } : {};
  const additional = additionalOf(schema);
  if (additional !== undefined) return { type: 'map', values: schemaOf(additional), ...atomic };
  if (schema.properties === undefined && keepsUnknown(schema))
    return { type: 'map', values: { type: 'any' }, ...atomic };
  const embedded =
    schema['x-kubernetes-embedded-resource'] === true
      ? EMBEDDED_FIELDS.map(
          (name) => [name, name === 'metadata' ? OBJECT_META_SCHEMA : string('')] as const,
        )
      : [];
  const own = Object.entries(schema.properties ?? {}).map(
    ([name, property]) => [name, schemaOf(property)] as const,
  );
  return {
    type: 'object',
    fields: Object.fromEntries<Schema>([...own, ...embedded]),
    open: keepsUnknown(schema),
    ...atomic,
  };
}

function mergeOf(schema: JsonSchema): { mapKeys?: readonly string[]; mergeSet?: boolean } {
  switch (schema['x-kubernetes-list-type']) {
    case 'map':
      return { mapKeys: schema['x-kubernetes-list-map-keys'] ?? [] };
    case 'set':
      return { mergeSet: true };
    default:
      return {};
  }
}

function columnsOf(columns: readonly PrinterColumn[] | undefined): TableColumn<KubeObject>[] {
  if (columns === undefined || columns.length === 0) return [NAME_COLUMN, AGE_COLUMN];
  return [
    NAME_COLUMN,
    ...columns.map((column): TableColumn<KubeObject> => {
      const path = pathOf(column.jsonPath);
      return {
        name: column.name,
        type: column.type === 'integer' || column.type === 'date' ? column.type : 'string',
        ...(column.format === undefined ? {} : { format: column.format }),
        description:
          column.description ??
          `Custom resource definition column (in JSONPath format): ${column.jsonPath}`,
        priority: (column.priority ?? 0) > 0 ? 1 : 0,
        value: (object, nowMs) => cellOf(column.type, findByPath(path, object), nowMs),
      };
    }),
  ];
}

function cellOf(type: string, found: readonly unknown[], nowMs: number): string | number {
  const [value] = found;
  if (value === undefined) return '';
  if (type === 'date') return formatAge(typeof value === 'string' ? value : undefined, nowMs);
  if ((type === 'integer' || type === 'number') && typeof value === 'number') return value;
  return formatFound(found);
}

function selectableOf(version: CustomVersion): Record<string, FieldReader<KubeObject>> {
  return Object.fromEntries(
    (version.selectableFields ?? []).map(({ jsonPath }) => {
      const path = pathOf(jsonPath);
      return [
        jsonPath.replace(/^\./, ''),
        (object: KubeObject) => formatFound(findByPath(path, object)),
      ];
    }),
  );
}

/** Validation has read the path before; one that cannot be read leads nowhere. */
function pathOf(text: string): JsonPath {
  const path = parseJsonPath(text);
  return typeof path === 'string'
    ? [{ type: 'filter', path: [], operator: 'none', value: undefined }]
    : path;
}
