/** Columns that several kinds share. */
import type { TableColumn } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { formatAge } from './age.ts';

/** What kubectl prints for a cell without a value. */
export const NONE = '<none>';

export const NAME_COLUMN: TableColumn<KubeObject> = {
  name: 'Name',
  type: 'string',
  format: 'name',
  description: 'Name of the object, unique in its namespace.',
  priority: 0,
  value: (object) => object.metadata.name,
};

export const AGE_COLUMN: TableColumn<KubeObject> = {
  name: 'Age',
  type: 'string',
  description: 'Time since the object was created.',
  priority: 0,
  value: (object, nowMs) => formatAge(object.metadata.creationTimestamp, nowMs),
};

/** A column of text that is always shown. */
export function column<T>(
  name: string,
  description: string,
  value: (object: T, nowMs: number) => string | number,
): TableColumn<T> {
  return { name, type: 'string', description, priority: 0, value };
}

/** A column of text that `-o wide` adds. */
export function wideColumn<T>(
  name: string,
  description: string,
  value: (object: T, nowMs: number) => string | number,
): TableColumn<T> {
  return { name, type: 'string', description, priority: 1, value };
}

/**
 * Joins values for a cell and shortens a long list as kubectl does: `a,b,c + 2 more...`.
 * @returns `<none>` for no values
 */
export function joinForCell(values: readonly string[], max = 3): string {
  if (values.length === 0) return NONE;
  const shown = values.slice(0, max).join(',');
  return values.length > max ? `${shown} + ${values.length - max} more...` : shown;
}
