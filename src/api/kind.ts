/**
 * What the API server, the client and the CLI know of a kind. One value per kind, beside its type;
 * `registry.ts` lists them all.
 */
import type { KubeObject } from './meta.ts';

/** A mistake in an object: which field, what was found, what is allowed. `k8s.io/apimachinery/pkg/util/validation/field`. */
export interface FieldError {
  type: 'Required' | 'Invalid' | 'NotSupported' | 'Duplicate' | 'Forbidden' | 'TooLong' | 'TooMany';
  /** Path as in the manifest: `spec.ports[0].port`. */
  field: string;
  value?: unknown;
  detail: string;
}

/** Identifies a kind and its place in the URL. All that a client needs. */
export interface KindRef<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  /** Plural in the URL: `services`. */
  readonly resource: string;
  readonly namespaced: boolean;
  /** Carries the type only; never set. */
  readonly type?: T;
}

/** A column of `kubectl get`. Priority 0 always, 1 only with `-o wide`. */
export interface TableColumn<T> {
  readonly name: string;
  readonly type: 'string' | 'integer' | 'date';
  readonly format?: string;
  readonly description: string;
  readonly priority: 0 | 1;
  /** @param nowMs for ages */
  readonly value: (object: T, nowMs: number) => string | number;
}

/** The shape of a kind's fields: what unknown-field checks, strategic merge and OpenAPI are made of. */
export type Schema =
  | { readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'int-or-string' | 'any' }
  | { readonly type: 'map'; readonly values: Schema }
  | {
      readonly type: 'array';
      readonly items: Schema;
      /** Strategic merge: the key by which elements are matched (`port`, `name`…); without it the list is replaced. */
      readonly mergeKey?: string;
      /** Strategic merge of lists of scalars that are sets (finalizers). */
      readonly mergeSet?: boolean;
    }
  | {
      readonly type: 'object';
      readonly fields: Readonly<Record<string, Schema>>;
      readonly required?: readonly string[];
      readonly description?: string;
    };

/** Everything about a kind. Functions are pure and never change their arguments. */
export interface KindDefinition<T extends KubeObject = KubeObject> extends KindRef<T> {
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  /** Which subresources there are. With `status`, writes to the main resource ignore `status` and the other way round. */
  readonly subresources: readonly ('status' | 'scale')[];
  readonly schema: Schema;
  /** Fills what a missing field means. Runs before validation, on create and update. */
  readonly setDefaults: (object: T) => T;
  /** @param old the stored object on update */
  readonly validate: (object: T, old: T | undefined) => readonly FieldError[];
  readonly columns: readonly TableColumn<T>[];
  /** Fields beside `metadata.name` and `metadata.namespace` that field selectors may name. */
  readonly selectableFields: Readonly<Record<string, (object: T) => string>>;
}

/** `v1` or `apps/v1`: how the group and version stand in `apiVersion`. */
export function apiVersionOf(kind: { group: string; version: string }): string {
  return kind.group === '' ? kind.version : `${kind.group}/${kind.version}`;
}
