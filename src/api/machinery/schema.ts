/** Small constructors for {@link Schema}s, and the schemas of what all kinds share. */
import type { ArraySchema, MapSchema, ObjectSchema, ScalarSchema, Schema } from '../kind.ts';

export function string(description: string): ScalarSchema {
  return { type: 'string', description };
}

/** A text that is one of a few words. */
export function oneOf(values: readonly string[], description: string): ScalarSchema {
  return { type: 'string', enum: values, description };
}

/** RFC 3339. */
export function time(description: string): ScalarSchema {
  return { type: 'string', format: 'date-time', description };
}

/** Bytes in base64. */
export function base64(description: string): ScalarSchema {
  return { type: 'string', format: 'byte', description };
}

export function int32(description: string): ScalarSchema {
  return { type: 'integer', format: 'int32', description };
}

export function int64(description: string): ScalarSchema {
  return { type: 'integer', format: 'int64', description };
}

export function boolean(description: string): ScalarSchema {
  return { type: 'boolean', description };
}

export function intOrString(description: string): ScalarSchema {
  return { type: 'int-or-string', description };
}

/** A field that is kept but not looked into. */
export function any(description: string): ScalarSchema {
  return { type: 'any', description };
}

export function map(values: Schema, description: string): MapSchema {
  return { type: 'map', values, description };
}

/** A map from text to text. */
export function stringMap(description: string): MapSchema {
  return { type: 'map', values: { type: 'string' }, description };
}

/** @param options how strategic merge patches treat the list; without any they replace it */
export function list(
  items: Schema,
  description: string,
  options: { mergeKey?: string; mergeSet?: boolean; mapKeys?: readonly string[] } = {},
): ArraySchema {
  return { type: 'array', items, description, ...options };
}

export function strings(description: string, options: { mergeSet?: boolean } = {}): ArraySchema {
  return { type: 'array', items: { type: 'string' }, description, ...options };
}

/**
 * @param name the Go type's name, which messages use: `ServicePort`
 * @param options `retainKeys` for unions, of which a strategic merge patch names the fields to keep
 */
export function object(
  name: string,
  fields: Readonly<Record<string, Schema>>,
  options: {
    description?: string;
    required?: readonly string[];
    retainKeys?: boolean;
    atomic?: boolean;
  } = {},
): ObjectSchema {
  return { type: 'object', name, fields, ...options };
}

/** The schema of a whole kind: `apiVersion`, `kind` and `metadata` go before its own fields. */
export function kindSchema(
  kind: string,
  description: string,
  fields: Readonly<Record<string, Schema>>,
  required: readonly string[] = [],
): ObjectSchema {
  return {
    type: 'object',
    name: kind,
    description,
    fields: {
      apiVersion: string('The group and version of this representation of the object.'),
      kind: string('The kind of the object, in CamelCase. It cannot be changed.'),
      metadata: OBJECT_META_SCHEMA,
      ...Object.fromEntries(
        Object.entries(fields).map(([name, field]) => [name, describe(name, field)]),
      ),
    },
    required,
  };
}

/** What `spec` and `status` are is the same for all kinds. */
function describe(name: string, field: Schema): Schema {
  if (field.description !== undefined) return field;
  if (name === 'spec') return { ...field, description: 'What the object should be.' };
  return name === 'status'
    ? { ...field, description: 'What the object is; written by controllers.' }
    : field;
}

export const OBJECT_META_SCHEMA: ObjectSchema = object(
  'ObjectMeta',
  {
    name: string('Unique in the namespace, for its kind. It cannot be changed.'),
    generateName: string('A prefix: the server makes a unique name of it when no name is given.'),
    namespace: string('The space in which the name is unique. It cannot be changed.'),
    selfLink: string('Deprecated: always empty.'),
    uid: string('Unique in time and space. Set by the server.'),
    resourceVersion: string(
      'Opaque version of the object, for optimistic concurrency and watches. Set by the server.',
    ),
    generation: int64('Counts the changes of the desired state. Set by the server.'),
    creationTimestamp: time('When the object was created. Set by the server.'),
    deletionTimestamp: time('When the object goes away, once a delete was asked for.'),
    deletionGracePeriodSeconds: int64('Seconds given to the object to end.'),
    labels: stringMap('Keys and values by which selectors choose objects.'),
    annotations: stringMap('Keys and values for tools; selectors do not see them.'),
    ownerReferences: list(
      object(
        'OwnerReference',
        {
          apiVersion: string('API version of the owner.'),
          kind: string('Kind of the owner.'),
          name: string('Name of the owner.'),
          uid: string('UID of the owner.'),
          controller: boolean('True for the one owner that manages the object.'),
          blockOwnerDeletion: boolean('The owner is kept until this object is gone.'),
        },
        { required: ['apiVersion', 'kind', 'name', 'uid'] },
      ),
      'Objects this one depends on: when all are gone, it is collected.',
      { mergeKey: 'uid' },
    ),
    finalizers: strings('The object is kept until this list is empty.', { mergeSet: true }),
    managedFields: list(any('An entry of one manager.'), 'Which manager set which fields.'),
  },
  { description: 'What all objects carry.' },
);

export const CONDITION_SCHEMA: ObjectSchema = object(
  'Condition',
  {
    type: string('What the condition is about, in CamelCase.'),
    status: oneOf(['True', 'False', 'Unknown'], 'Whether it holds.'),
    reason: string('Why, in one CamelCase word, for programs.'),
    message: string('Why, for people.'),
    lastTransitionTime: time('When the status last changed.'),
    lastHeartbeatTime: time('When the condition was last confirmed.'),
    lastProbeTime: time('When the condition was last checked.'),
    observedGeneration: int64('The generation of the object that was looked at.'),
  },
  { required: ['type', 'status'] },
);

export const LABEL_SELECTOR_SCHEMA: ObjectSchema = object(
  'LabelSelector',
  {
    matchLabels: stringMap('Labels that must have exactly these values.'),
    matchExpressions: list(
      object(
        'LabelSelectorRequirement',
        {
          key: string('The label the requirement is about.'),
          operator: oneOf(['In', 'NotIn', 'Exists', 'DoesNotExist'], 'How values are compared.'),
          values: strings('The values of In and NotIn.'),
        },
        { required: ['key', 'operator'] },
      ),
      'Requirements that must all hold.',
    ),
  },
  { atomic: true },
);

export const OBJECT_REFERENCE_SCHEMA: ObjectSchema = object(
  'ObjectReference',
  {
    apiVersion: string('API version of the object.'),
    kind: string('Kind of the object.'),
    namespace: string('Namespace of the object.'),
    name: string('Name of the object.'),
    uid: string('UID of the object.'),
    resourceVersion: string('Version of the object.'),
    fieldPath: string('Part of the object.'),
  },
  { atomic: true },
);
