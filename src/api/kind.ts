/**
 * What the API server, the client and the CLI know of a kind. One value per kind, beside its type;
 * `registry.ts` lists them all.
 */
import type { DecodedFields } from './machinery/unknown-fields.ts';
import type { KubeObject } from './meta.ts';

/** A mistake in an object: which field, what was found, what is allowed. `k8s.io/apimachinery/pkg/util/validation/field`. */
export interface FieldError {
  type:
    | 'Required'
    | 'Invalid'
    | 'NotSupported'
    | 'NotFound'
    | 'Duplicate'
    | 'Forbidden'
    | 'TooLong'
    | 'TooMany';
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
  value(object: T, nowMs: number): string | number;
}

/** The shape of a kind's fields: what unknown-field checks, strategic merge and OpenAPI are made of. */
export type Schema = ScalarSchema | MapSchema | ArraySchema | ObjectSchema;

export interface ScalarSchema {
  /** `any` is what Tulle stores and gives back without looking at it. */
  readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'int-or-string' | 'any';
  /** `int32`, `int64`, `date-time`, `byte`: as OpenAPI names them. Integers without one are `int32`. */
  readonly format?: string;
  readonly enum?: readonly string[];
  /** What a missing field means, where it tells elements of a list apart: server-side apply fills it into keys. */
  readonly default?: string | number | boolean;
  readonly description?: string;
}

export interface MapSchema {
  readonly type: 'map';
  readonly values: Schema;
  /** Server-side apply: owned and replaced as a whole. */
  readonly atomic?: boolean;
  readonly description?: string;
}

export interface ArraySchema {
  readonly type: 'array';
  readonly items: Schema;
  /** Strategic merge: the key by which elements are matched (`port`, `name`…); without it the list is replaced. */
  readonly mergeKey?: string;
  /** Strategic merge of lists of scalars that are sets (finalizers). */
  readonly mergeSet?: boolean;
  /** Server-side apply: the fields that tell elements apart, if they are others than `mergeKey`; none: one whole. */
  readonly mapKeys?: readonly string[];
  readonly description?: string;
}

export interface ObjectSchema {
  readonly type: 'object';
  readonly fields: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  /** The Go type's name, for messages: `ServicePort`. */
  readonly name?: string;
  /** Fields beside those listed are kept as they are. */
  readonly open?: boolean;
  /** Strategic merge: `$retainKeys` is used for this object, as for unions. */
  readonly retainKeys?: boolean;
  /** Server-side apply: owned and replaced as a whole. */
  readonly atomic?: boolean;
  readonly description?: string;
}

/** Reads the value of a field that field selectors may name. */
export type FieldReader<T> = { read(object: T): string }['read'];

/**
 * Everything about a kind. Functions are pure and never change their arguments.
 *
 * The functions are methods, so that a list of kinds (`KindDefinition[]`) can hold definitions of more special
 * types: whoever finds a kind by name hands its functions only objects that were decoded as that kind.
 */
export interface KindDefinition<T extends KubeObject = KubeObject> extends KindRef<T> {
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  /** Which subresources there are. With `status`, writes to the main resource ignore `status` and the other way round. */
  readonly subresources: readonly ('status' | 'scale')[];
  /** What can be done with it; missing: everything. */
  readonly verbs?: readonly string[];
  /** Subresources of this kind alone that take and give another kind: for discovery. */
  readonly ownSubresources?: readonly {
    readonly name: string;
    readonly responseKind: Pick<KindRef, 'group' | 'version' | 'kind'>;
    readonly verbs: readonly string[];
  }[];
  readonly schema: ObjectSchema;
  /** Fills what a missing field means. Runs before validation, on create and update. */
  setDefaults(object: T): T;
  /**
   * Carries over from the stored object what the server filled in and a client's manifest leaves out.
   * Runs on update after the defaults and before admission.
   */
  prepareForUpdate?(object: T, old: T): T;
  /** @param old the stored object on update */
  validate(object: T, old: T | undefined): readonly FieldError[];
  readonly columns: readonly TableColumn<T>[];
  /** Fields beside `metadata.name` and `metadata.namespace` that field selectors may name. */
  readonly selectableFields: Readonly<Record<string, FieldReader<T>>>;
  /** Its objects go by themselves when they were not written for so long. */
  readonly expiresAfterMs?: number;
  /** Set for a kind that is another face of the objects of a kind that is stored. */
  readonly storedAs?: StoredForm;
  /** Set for a kind that a CustomResourceDefinition made. */
  readonly custom?: CustomKind;
}

/** The same objects are served as two kinds, and stored as one of them. Both ways lose nothing. */
export interface StoredForm {
  readonly kind: KindRef;
  toStored(object: KubeObject): KubeObject;
  fromStored(object: KubeObject): KubeObject;
}

/** What is different with a kind that was added while the server runs. */
export interface CustomKind {
  /** Name of its definition. */
  readonly definition: string;
  /** All versions are stored as this one: they differ in nothing but `apiVersion`. */
  readonly storageApiVersion: string;
  readonly listKind: string;
  /** Its schema as it was published, for clients. */
  readonly openApi: Readonly<Record<string, unknown>>;
  /** Drops the fields that its schema does not know, and names them. */
  decode(sent: { [key: string]: unknown }): DecodedFields;
  readonly scale?: {
    readonly specReplicasPath: string;
    readonly statusReplicasPath: string;
    readonly labelSelectorPath?: string;
  };
  /** Told to who uses the version. */
  readonly warning?: string;
}

/** `v1` or `apps/v1`: how the group and version stand in `apiVersion`. */
export function apiVersionOf(kind: { group: string; version: string }): string {
  return kind.group === '' ? kind.version : `${kind.group}/${kind.version}`;
}
