/** Small constructors for protobuf tables, and the messages that have a JSON form of their own. */
import type { FieldTable, MessageTable } from '#wire/protobuf/message.ts';

type Type = FieldTable['type'];

/** A field that JSON leaves out when it is zero. */
export const one = (name: string, type: Type): FieldTable => ({ name, type, shape: 'one' });
/** A field whose zero is a value: a pointer in Go. */
export const optional = (name: string, type: Type): FieldTable => ({
  name,
  type,
  shape: 'optional',
});
export const list = (name: string, type: Type): FieldTable => ({ name, type, shape: 'list' });
export const map = (name: string, type: Type): FieldTable => ({ name, type, shape: 'map' });
/** A struct embedded in Go: a message on the wire, but its fields stand in the enclosing object. */
export const inline = (type: MessageTable): FieldTable => ({ name: '', type, shape: 'one' });

export const str = (name: string): FieldTable => one(name, 'string');
export const strings = (name: string): FieldTable => list(name, 'string');
export const stringMap = (name: string): FieldTable => map(name, 'string');
export const optStr = (name: string): FieldTable => optional(name, 'string');
export const int = (name: string): FieldTable => one(name, 'int32');
export const optInt = (name: string): FieldTable => optional(name, 'int32');
export const optLong = (name: string): FieldTable => optional(name, 'int64');
export const bool = (name: string): FieldTable => one(name, 'bool');
export const optBool = (name: string): FieldTable => optional(name, 'bool');

/** @param name the Go type's name, for messages */
export function message(
  name: string,
  fields: Readonly<Record<number, FieldTable>>,
  convert?: MessageTable['convert'],
): MessageTable {
  return { name, fields, ...(convert === undefined ? {} : { convert }) };
}

/** RFC 3339 in whole seconds. An empty message is Go's zero time: none. */
export const TIME = message('Time', { 1: optLong('seconds'), 2: optInt('nanos') }, ({ seconds }) =>
  timeText(seconds, 0),
);

/** RFC 3339 in microseconds. */
export const MICRO_TIME = message(
  'MicroTime',
  { 1: optLong('seconds'), 2: optInt('nanos') },
  ({ seconds, nanos }) => timeText(seconds, typeof nanos === 'number' ? nanos : 0),
);

function timeText(seconds: unknown, nanos: number): string | undefined {
  if (typeof seconds !== 'number') return undefined;
  const date = new Date(seconds * 1000);
  // A time that has no date in our calendar is left to validation to refuse.
  if (Number.isNaN(date.getTime())) return `${seconds}`;
  const whole = date.toISOString().replace(/\.000Z$/, '');
  const micros = String(Math.floor(nanos / 1000)).padStart(6, '0');
  return nanos === 0 ? `${whole}Z` : `${whole}.${micros}Z`;
}

const INT_OR_STRING_IS_TEXT = 1;
/** `type` says which of the two counts. */
const INT_OR_STRING_FIELDS = { 1: optInt('type'), 2: optInt('intVal'), 3: optStr('strVal') };

/** A number or a name whose zero is "not there": a struct in Go. */
export const INT_OR_STRING = message('IntOrString', INT_OR_STRING_FIELDS, (value) => {
  const meant = intOrString(value);
  return meant === 0 || meant === '' ? undefined : meant;
});

/** A number or a name whose zero is a value: a pointer in Go. */
export const OPTIONAL_INT_OR_STRING = message('IntOrString', INT_OR_STRING_FIELDS, intOrString);

function intOrString({ type, intVal, strVal }: Record<string, unknown>): unknown {
  return type === INT_OR_STRING_IS_TEXT ? (strVal ?? '') : (intVal ?? 0);
}

export const QUANTITY = message('Quantity', { 1: optStr('string') }, ({ string }) => string ?? '0');

/** JSON inside bytes. */
const FIELDS_V1 = message('FieldsV1', { 1: optional('raw', 'bytes') }, ({ raw }) => {
  if (typeof raw !== 'string') return undefined;
  try {
    return JSON.parse(Buffer.from(raw, 'base64').toString('utf8')) as unknown;
  } catch {
    // Who manages what is kept by the server anyhow: what a client says of it is only compared.
    return undefined;
  }
});

const OWNER_REFERENCE = message('OwnerReference', {
  1: str('kind'),
  3: str('name'),
  4: str('uid'),
  5: str('apiVersion'),
  6: optBool('controller'),
  7: optBool('blockOwnerDeletion'),
});

const MANAGED_FIELDS = message('ManagedFieldsEntry', {
  1: str('manager'),
  2: str('operation'),
  3: str('apiVersion'),
  4: optional('time', TIME),
  6: str('fieldsType'),
  7: optional('fieldsV1', FIELDS_V1),
  8: str('subresource'),
});

export const OBJECT_META = message('ObjectMeta', {
  1: str('name'),
  2: str('generateName'),
  3: str('namespace'),
  4: str('selfLink'),
  5: str('uid'),
  6: str('resourceVersion'),
  7: one('generation', 'int64'),
  8: one('creationTimestamp', TIME),
  9: optional('deletionTimestamp', TIME),
  10: optLong('deletionGracePeriodSeconds'),
  11: stringMap('labels'),
  12: stringMap('annotations'),
  13: list('ownerReferences', OWNER_REFERENCE),
  14: strings('finalizers'),
  17: list('managedFields', MANAGED_FIELDS),
});

export const LABEL_SELECTOR = message('LabelSelector', {
  1: stringMap('matchLabels'),
  2: list(
    'matchExpressions',
    message('LabelSelectorRequirement', {
      1: str('key'),
      2: str('operator'),
      3: strings('values'),
    }),
  ),
});

export const CONDITION = message('Condition', {
  1: str('type'),
  2: str('status'),
  3: one('observedGeneration', 'int64'),
  4: one('lastTransitionTime', TIME),
  5: str('reason'),
  6: str('message'),
});

export const OBJECT_REFERENCE = message('ObjectReference', {
  1: str('kind'),
  2: str('namespace'),
  3: str('name'),
  4: str('uid'),
  5: str('apiVersion'),
  6: str('resourceVersion'),
  7: str('fieldPath'),
});

export const LOCAL_OBJECT_REFERENCE = message('LocalObjectReference', { 1: str('name') });

/** The message of a kind: 1 is always the metadata. */
export function kindMessage(
  kind: string,
  fields: Readonly<Record<number, FieldTable>>,
): MessageTable {
  return message(kind, { 1: one('metadata', OBJECT_META), ...fields });
}
