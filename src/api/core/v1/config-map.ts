/** ConfigMap: `k8s.io/api/core/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import { duplicate, immutable, invalid } from '../../machinery/field-errors.ts';
import { sameJson } from '../../machinery/json.ts';
import { checkConfigMapKey } from '../../machinery/names.ts';
import { base64, boolean, kindSchema, map, stringMap } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';

export interface ConfigMap extends KubeObject {
  apiVersion: 'v1';
  kind: 'ConfigMap';
  data?: Record<string, string>;
  /** Values in base64. */
  binaryData?: Record<string, string>;
  immutable?: boolean;
}

/** Of all values together: etcd holds about that much in one value. As upstream. */
export const MAX_DATA_BYTES = 1024 * 1024;

const SCHEMA = kindSchema('ConfigMap', 'Configuration for programs to read.', {
  data: stringMap('Text values.'),
  binaryData: map(base64('Bytes.'), 'Values that are not text.'),
  immutable: boolean('The data can never be changed.'),
});

function validateConfigMap(object: ConfigMap, old: ConfigMap | undefined): FieldError[] {
  const errors = validateMeta(object.metadata, { namespaced: true });
  let bytes = 0;
  for (const field of ['data', 'binaryData'] as const)
    for (const [key, value] of Object.entries(object[field] ?? {})) {
      const wrong = checkConfigMapKey(key);
      if (wrong !== undefined) errors.push(invalid(`${field}[${key}]`, key, wrong));
      bytes += field === 'data' ? Buffer.byteLength(value) : Math.floor((value.length * 3) / 4);
    }
  for (const key of Object.keys(object.binaryData ?? {}))
    if (object.data?.[key] !== undefined) errors.push(duplicate(`binaryData[${key}]`, key));
  if (bytes > MAX_DATA_BYTES)
    errors.push({
      type: 'TooLong',
      field: 'data',
      detail: `may not be more than ${MAX_DATA_BYTES} bytes in all`,
    });
  if (old?.immutable === true) {
    if (object.immutable !== true) errors.push(immutable('immutable', object.immutable));
    for (const field of ['data', 'binaryData'] as const)
      if (!sameJson(object[field] ?? {}, old[field] ?? {}))
        errors.push({
          type: 'Forbidden',
          field,
          detail: 'field is immutable when `immutable` is set',
        });
  }
  return errors;
}

export const CONFIG_MAP: KindDefinition<ConfigMap> = {
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  resource: 'configmaps',
  singular: 'configmap',
  namespaced: true,
  shortNames: ['cm'],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults: (object) => object,
  validate: validateConfigMap,
  columns: [
    NAME_COLUMN,
    {
      ...column<ConfigMap>(
        'Data',
        'Number of values.',
        ({ data, binaryData }) =>
          Object.keys(data ?? {}).length + Object.keys(binaryData ?? {}).length,
      ),
      type: 'integer',
    },
    AGE_COLUMN,
  ],
  selectableFields: {},
};
