/** Secret: `k8s.io/api/core/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import { immutable, invalid, required } from '../../machinery/field-errors.ts';
import { isObject, sameJson } from '../../machinery/json.ts';
import { checkConfigMapKey } from '../../machinery/names.ts';
import { base64, boolean, kindSchema, map, string, stringMap } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import { MAX_DATA_BYTES } from './config-map.ts';

export interface Secret extends KubeObject {
  apiVersion: 'v1';
  kind: 'Secret';
  type?: string;
  /** Values in base64. */
  data?: Record<string, string>;
  /** Write only: merged into `data` when defaults are set. */
  stringData?: Record<string, string>;
  immutable?: boolean;
}

const SCHEMA = kindSchema('Secret', 'Values that only some may read.', {
  type: string(
    'What the secret is for; programs rely on the keys that a type has. Default Opaque.',
  ),
  data: map(base64('Bytes.'), 'The values.'),
  stringData: stringMap('Values as text, put into data on write; never given back.'),
  immutable: boolean('The data can never be changed.'),
});

function setDefaults(secret: Secret): Secret {
  const { stringData, ...rest } = secret;
  if (stringData === undefined) return { ...rest, type: secret.type || 'Opaque' };
  const encoded = Object.entries(stringData).map(([key, value]) => [
    key,
    Buffer.from(value).toString('base64'),
  ]);
  return {
    ...rest,
    type: secret.type || 'Opaque',
    data: { ...secret.data, ...Object.fromEntries(encoded) },
  };
}

function validateSecret(secret: Secret, old: Secret | undefined): FieldError[] {
  const errors = validateMeta(secret.metadata, { namespaced: true });
  let bytes = 0;
  for (const [key, value] of Object.entries(secret.data ?? {})) {
    const wrong = checkConfigMapKey(key);
    if (wrong !== undefined) errors.push(invalid(`data[${key}]`, key, wrong));
    bytes += Math.floor((value.length * 3) / 4);
  }
  if (bytes > MAX_DATA_BYTES)
    errors.push({
      type: 'TooLong',
      field: 'data',
      detail: `may not be more than ${MAX_DATA_BYTES} bytes in all`,
    });
  errors.push(...validateType(secret));
  if (old !== undefined && old.type !== secret.type) errors.push(immutable('type', secret.type));
  if (old?.immutable === true) {
    if (secret.immutable !== true) errors.push(immutable('immutable', secret.immutable));
    if (!sameJson(secret.data ?? {}, old.data ?? {}))
      errors.push({
        type: 'Forbidden',
        field: 'data',
        detail: 'field is immutable when `immutable` is set',
      });
  }
  return errors;
}

const ACCOUNT_ANNOTATION = 'kubernetes.io/service-account.name';
/** Keys that programs rely on. Of basic-auth one is enough. */
const KEYS_OF_TYPE: Readonly<Record<string, readonly string[]>> = {
  'kubernetes.io/dockercfg': ['.dockercfg'],
  'kubernetes.io/dockerconfigjson': ['.dockerconfigjson'],
  'kubernetes.io/ssh-auth': ['ssh-privatekey'],
  'kubernetes.io/tls': ['tls.crt', 'tls.key'],
};

function validateType({ type = '', data = {}, metadata }: Secret): FieldError[] {
  if (type === 'kubernetes.io/service-account-token')
    return metadata.annotations?.[ACCOUNT_ANNOTATION]
      ? []
      : [required(`metadata.annotations[${ACCOUNT_ANNOTATION}]`)];
  if (type === 'kubernetes.io/basic-auth')
    return data.username === undefined && data.password === undefined
      ? [required('data[username]'), required('data[password]')]
      : [];
  const keys = Object.hasOwn(KEYS_OF_TYPE, type) ? (KEYS_OF_TYPE[type] ?? []) : [];
  return keys.flatMap((key) => {
    const value = data[key];
    if (value === undefined) return [required(`data[${key}]`)];
    if (key === 'ssh-privatekey') return value === '' ? [required(`data[${key}]`)] : [];
    return key.startsWith('.docker') && !isJsonObject(Buffer.from(value, 'base64').toString())
      ? [invalid(`data[${key}]`, '<secret contents redacted>', 'must be a JSON object')]
      : [];
  });
}

function isJsonObject(text: string): boolean {
  try {
    return isObject(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

export const SECRET: KindDefinition<Secret> = {
  group: '',
  version: 'v1',
  kind: 'Secret',
  resource: 'secrets',
  singular: 'secret',
  namespaced: true,
  shortNames: [],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults,
  validate: validateSecret,
  columns: [
    NAME_COLUMN,
    column('Type', 'What the secret is for.', (secret) => secret.type ?? 'Opaque'),
    {
      ...column<Secret>(
        'Data',
        'Number of values.',
        (secret) => Object.keys(secret.data ?? {}).length,
      ),
      type: 'integer',
    },
    AGE_COLUMN,
  ],
  selectableFields: { type: (secret) => secret.type ?? 'Opaque' },
};
