/** `metadata.managedFields`: who manages which fields. `metav1.ManagedFieldsEntry`. */
import { isObject, type JsonObject } from '../json.ts';
import {
  decodeFieldsV1,
  EMPTY_SET,
  encodeFieldsV1,
  type FieldSet,
  isEmptySet,
  union,
} from './field-set.ts';

export type Operation = 'Apply' | 'Update';

/** One entry: the fields that one manager has by one kind of operation. */
export interface Manager {
  readonly name: string;
  readonly operation: Operation;
  readonly apiVersion: string;
  /** Empty for the object itself. */
  readonly subresource: string;
  /** RFC 3339. */
  readonly time?: string;
  readonly fields: FieldSet;
}

/** More managers that update than these are put together: each costs room in every object. As upstream. */
export const MAX_UPDATE_MANAGERS = 10;
const ANCIENT = 'ancient-changes';
/** Upstream's bound, for names that clients choose. */
export const MAX_MANAGER_LENGTH = 128;

/**
 * @param value of `metadata.managedFields`
 * @throws Error that says what is wrong
 */
export function decodeManagers(value: unknown): Manager[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new Error('Cannot read managedFields: it must be a list');
  return value.map((entry, i) => {
    if (!isObject(entry)) throw new Error(`Cannot read managedFields[${i}]: it must be an object`);
    const text = (field: string) => (typeof entry[field] === 'string' ? entry[field] : '');
    const operation = text('operation');
    if (operation !== 'Apply' && operation !== 'Update')
      throw new Error(
        `Cannot read managedFields[${i}]: the operation is "${operation}", it must be Apply or Update`,
      );
    return {
      name: text('manager'),
      operation,
      apiVersion: text('apiVersion'),
      subresource: text('subresource'),
      ...(text('time') === '' ? {} : { time: text('time') }),
      fields: entry.fieldsV1 === undefined ? EMPTY_SET : decodeFieldsV1(entry.fieldsV1),
    };
  });
}

/** As they are kept: who manages nothing goes, too many become one, in order of age. */
export function keptManagers(managers: readonly Manager[]): readonly Manager[] {
  return capManagers(managers.filter((manager) => !isEmptySet(manager.fields))).toSorted(byAge);
}

/** @param managers as {@link keptManagers} gives them */
export function encodeManagers(managers: readonly Manager[]): JsonObject[] {
  return managers.map((manager) => ({
    manager: manager.name,
    operation: manager.operation,
    apiVersion: manager.apiVersion,
    ...(manager.time === undefined ? {} : { time: manager.time }),
    fieldsType: 'FieldsV1',
    fieldsV1: encodeFieldsV1(manager.fields),
    ...(manager.subresource === '' ? {} : { subresource: manager.subresource }),
  }));
}

/** An entry is of the same manager if all but time and fields agree. One who applies keeps his entry in a new version. */
export function isSameManager(a: Manager, b: Manager): boolean {
  return (
    a.name === b.name &&
    a.operation === b.operation &&
    a.subresource === b.subresource &&
    (a.operation === 'Apply' || a.apiVersion === b.apiVersion)
  );
}

/** The oldest that update become one, so that short-lived names cannot fill an object. */
function capManagers(managers: readonly Manager[]): Manager[] {
  const updaters = managers.filter(({ operation }) => operation === 'Update').toSorted(byAge);
  const excess = updaters.length - MAX_UPDATE_MANAGERS;
  if (excess <= 0) return [...managers];
  // One more goes than is too many: the room for what they become.
  const old = new Set(updaters.slice(0, excess + 1));
  const ancient = new Map<string, Manager>();
  for (const manager of old) {
    const known = ancient.get(manager.apiVersion);
    ancient.set(manager.apiVersion, {
      ...manager,
      name: ANCIENT,
      subresource: '',
      fields: union(known?.fields ?? EMPTY_SET, manager.fields),
    });
  }
  return [...managers.filter((manager) => !old.has(manager)), ...ancient.values()];
}

function byAge(a: Manager, b: Manager): number {
  const keyOf = ({ operation, time = '', name, apiVersion, subresource }: Manager) =>
    [operation, time, name, apiVersion, subresource].join('\0');
  const keys = [keyOf(a), keyOf(b)] as const;
  return keys[0] < keys[1] ? -1 : keys[0] > keys[1] ? 1 : 0;
}
