/** How objects of a kind are shown to a client: whole, as rows of a table, or their metadata alone. */
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';
import { badRequest } from '#api/machinery/status.ts';
import {
  createTable,
  type IncludeObject,
  partialObjectMetadata,
  type Table,
} from '#api/machinery/table.ts';
import type { KubeObject } from '#api/meta.ts';
import type { ObjectForm } from './negotiation.ts';
import { encodeShared } from './registry/codec.ts';
import type { ListPage } from './registry/list.ts';

export interface Presenter {
  object(object: KubeObject): object;
  list(page: ListPage): object;
  /** The JSON of an object in a watch event. */
  watchObject(object: KubeObject): string;
  /** An object that says only how far a watch has come. */
  bookmark(revision: number, endsInitialEvents: boolean): object;
}

export interface PresenterOptions {
  /** Query parameter of tables. */
  readonly includeObject: string;
  /** For ages in tables. */
  readonly nowMs: () => number;
}

/** Marks the bookmark after the initial events. */
const INITIAL_EVENTS_END = 'k8s.io/initial-events-end';
/** Some clients make the list they were not sent out of this: an empty list in base64. */
const LIST_BLUEPRINT = 'kubernetes.io/initial-events-list-blueprint';

const INCLUDES: readonly IncludeObject[] = ['None', 'Metadata', 'Object'];

/** @throws ApiError 400 for an unknown `includeObject` */
export function createPresenter(
  kind: KindDefinition,
  { presentation }: ObjectForm,
  options: PresenterOptions,
): Presenter {
  switch (presentation) {
    case 'object':
      return presentObjects(kind);
    case 'metadata':
      return presentMetadata(kind);
    case 'table':
      return presentTables(kind, options);
  }
}

function presentObjects(kind: KindDefinition): Presenter {
  const listKind = kind.custom?.listKind ?? `${kind.kind}List`;
  const list = { kind: listKind, apiVersion: apiVersionOf(kind) };
  return {
    object: (object) => object,
    list: (page) => ({ ...list, metadata: listMetadata(page), items: page.items }),
    watchObject: encodeShared,
    bookmark: (revision, ends) => ({
      kind: kind.kind,
      apiVersion: apiVersionOf(kind),
      metadata: bookmarkMetadata(revision, ends, list),
    }),
  };
}

function presentMetadata(kind: KindDefinition): Presenter {
  const list = { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1' };
  const one = { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1' };
  return {
    object: (object) => partialObjectMetadata(object),
    list: (page) => ({
      ...list,
      metadata: listMetadata(page),
      items: page.items.map((object) => partialObjectMetadata(object)),
    }),
    watchObject: (object) => JSON.stringify(partialObjectMetadata(object)),
    bookmark: (revision, ends) => ({
      ...one,
      metadata: bookmarkMetadata(revision, ends, { ...list, kind: `${kind.kind}List` }),
    }),
  };
}

function presentTables(
  kind: KindDefinition,
  { includeObject, nowMs }: PresenterOptions,
): Presenter {
  const include = INCLUDES.find((known) => known === includeObject);
  if (include === undefined)
    throw badRequest(
      `includeObject: Unsupported value: ${JSON.stringify(includeObject)}: supported values: ${INCLUDES.join(', ')}`,
    );
  const table = (
    objects: readonly KubeObject[],
    metadata: Table['metadata'],
    omitColumns = false,
  ) =>
    createTable(kind, objects, { nowMs: nowMs(), includeObject: include, metadata, omitColumns });
  const one = (object: KubeObject, omitColumns: boolean) =>
    table([object], { resourceVersion: object.metadata.resourceVersion ?? '' }, omitColumns);
  let hasColumns = false;
  return {
    object: (object) => one(object, false),
    list: (page) => table(page.items, listMetadata(page)),
    watchObject(object) {
      // The columns are said once, with the first event.
      const omit = hasColumns;
      hasColumns = true;
      return JSON.stringify(one(object, omit));
    },
    bookmark: (revision, ends) => {
      const list = { kind: `${kind.kind}List`, apiVersion: apiVersionOf(kind) };
      const object = {
        kind: kind.kind,
        apiVersion: apiVersionOf(kind),
        metadata: bookmarkMetadata(revision, ends, list),
      };
      const metadata = { resourceVersion: String(revision) };
      const rows = [{ cells: kind.columns.map(() => ''), object }];
      return { ...table([], metadata, hasColumns), rows };
    },
  };
}

function listMetadata(page: ListPage): {
  resourceVersion: string;
  continue?: string;
  remainingItemCount?: number;
} {
  return {
    resourceVersion: String(page.revision),
    ...(page.continueToken === undefined ? {} : { continue: page.continueToken }),
    ...(page.remaining === undefined ? {} : { remainingItemCount: page.remaining }),
  };
}

function bookmarkMetadata(
  revision: number,
  endsInitialEvents: boolean,
  list: { kind: string; apiVersion: string },
): object {
  const emptyList = { ...list, metadata: {}, items: [] };
  return {
    resourceVersion: String(revision),
    creationTimestamp: null,
    ...(endsInitialEvents
      ? {
          annotations: {
            [INITIAL_EVENTS_END]: 'true',
            [LIST_BLUEPRINT]: Buffer.from(JSON.stringify(emptyList)).toString('base64'),
          },
        }
      : {}),
  };
}
