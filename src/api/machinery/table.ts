/** `metav1.Table`: what `kubectl get` asks for, so that the server decides the columns. */
import type { KindDefinition, TableColumn } from '../kind.ts';
import type { KubeObject } from '../meta.ts';

export interface TableColumnDefinition {
  name: string;
  type: string;
  format: string;
  description: string;
  priority: number;
}

export interface TableRow {
  cells: (string | number)[];
  object?: unknown;
}

export interface Table {
  kind: 'Table';
  apiVersion: string;
  metadata: { resourceVersion?: string; continue?: string; remainingItemCount?: number };
  columnDefinitions: TableColumnDefinition[];
  rows: TableRow[];
}

/** What stands beside the cells: the query parameter `includeObject`. */
export type IncludeObject = 'None' | 'Metadata' | 'Object';

export interface TableOptions {
  /** For ages. */
  nowMs: number;
  /** Default `Metadata`, as upstream. */
  includeObject?: IncludeObject;
  /** Of the list; of the object for a table of one. */
  metadata?: Table['metadata'];
  /** The version asked for: `v1` or `v1beta1`. Default `v1`. */
  version?: string;
  /** In a watch only the first event carries the definitions. */
  omitColumns?: boolean;
}

const GROUP = 'meta.k8s.io';

/** A table of objects of one kind: all its columns, those of `-o wide` too; kubectl hides them. */
export function createTable<T extends KubeObject>(
  kind: KindDefinition<T>,
  objects: readonly T[],
  options: TableOptions,
): Table {
  const apiVersion = `${GROUP}/${options.version ?? 'v1'}`;
  return {
    kind: 'Table',
    apiVersion,
    metadata: options.metadata ?? {},
    columnDefinitions: options.omitColumns ? [] : kind.columns.map(defineColumn),
    rows: objects.map((object) => ({
      cells: kind.columns.map((column) => column.value(object, options.nowMs)),
      ...objectOf(object, options.includeObject ?? 'Metadata', apiVersion),
    })),
  };
}

/** Only the metadata of an object, as an object. */
export function partialObjectMetadata(
  object: KubeObject,
  apiVersion = `${GROUP}/v1`,
): { kind: 'PartialObjectMetadata'; apiVersion: string; metadata: KubeObject['metadata'] } {
  return { kind: 'PartialObjectMetadata', apiVersion, metadata: object.metadata };
}

function objectOf(
  object: KubeObject,
  include: IncludeObject,
  apiVersion: string,
): { object?: unknown } {
  switch (include) {
    case 'None':
      return {};
    case 'Object':
      return { object };
    case 'Metadata':
      return { object: partialObjectMetadata(object, apiVersion) };
  }
}

function defineColumn<T>(column: TableColumn<T>): TableColumnDefinition {
  const { name, type, format = '', description, priority } = column;
  return { name, type, format, description, priority };
}
