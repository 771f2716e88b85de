/** Checks on `metadata`, the same for all kinds. `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`. */
import type { FieldError } from '../kind.ts';
import type { KubeObject, ObjectMeta } from '../meta.ts';
import { forbidden, immutable, invalid, required } from './field-errors.ts';
import {
  checkDns1123Label,
  checkDns1123Subdomain,
  checkLabelValue,
  checkQualifiedName,
} from './names.ts';

/** Of all annotations of an object together, keys and values: objects stay small enough for a watch. As upstream. */
export const MAX_ANNOTATIONS_BYTES = 256 * 1024;

type NameCheck = (name: string) => string | undefined;

/**
 * Checks an object's metadata.
 * @param options.namespaced whether the kind has namespaces
 * @param options.checkName the form of this kind's names; a DNS-1123 subdomain unless said otherwise
 * @param options.anyFinalizer finalizers may be a bare word; upstream allows that for kinds outside its own types
 */
export function validateMeta(
  meta: ObjectMeta,
  options: { namespaced: boolean; checkName?: NameCheck; anyFinalizer?: boolean },
): FieldError[] {
  return [
    ...validateName(meta, options.checkName ?? checkDns1123Subdomain),
    ...validateNamespace(meta, options.namespaced),
    ...validateLabels(meta.labels, 'metadata.labels'),
    ...validateAnnotations(meta.annotations),
    ...validateFinalizers(meta.finalizers, options.anyFinalizer === true),
    ...validateOwners(meta),
  ];
}

/** Checks what an update may not change in the metadata. */
export function validateMetaUpdate(object: KubeObject, old: KubeObject): FieldError[] {
  const errors: FieldError[] = [];
  const fields = ['name', 'namespace', 'uid', 'creationTimestamp'] as const;
  for (const field of fields) {
    const value = object.metadata[field];
    if ((value ?? '') !== (old.metadata[field] ?? ''))
      errors.push(immutable(`metadata.${field}`, value));
  }
  if (old.metadata.deletionTimestamp !== undefined) {
    const had = new Set(old.metadata.finalizers ?? []);
    const added = (object.metadata.finalizers ?? []).filter((finalizer) => !had.has(finalizer));
    if (added.length > 0)
      errors.push(
        forbidden(
          'metadata.finalizers',
          `no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
        ),
      );
  }
  return errors;
}

/** Checks keys and values of labels, or of a selector that is a map. */
export function validateLabels(
  labels: Readonly<Record<string, string>> | undefined,
  field: string,
): FieldError[] {
  return Object.entries(labels ?? {}).flatMap(([key, value]) => [
    ...wrong(field, key, checkQualifiedName(key)),
    ...wrong(field, value, checkLabelValue(value)),
  ]);
}

function validateName(meta: ObjectMeta, check: NameCheck): FieldError[] {
  const errors: FieldError[] = [];
  const prefix = meta.generateName ?? '';
  if (prefix !== '') {
    // The random suffix may make a prefix good that ends in `-`.
    errors.push(...wrong('metadata.generateName', prefix, check(prefix.replace(/-+$/, '') || 'a')));
  }
  if ((meta.name ?? '') === '') {
    if (prefix === '') errors.push(required('metadata.name', 'name or generateName is required'));
    return errors;
  }
  return [...errors, ...wrong('metadata.name', meta.name, check(meta.name))];
}

function validateNamespace(meta: ObjectMeta, namespaced: boolean): FieldError[] {
  const namespace = meta.namespace ?? '';
  if (!namespaced)
    return namespace === '' ? [] : [forbidden('metadata.namespace', 'not allowed on this type')];
  if (namespace === '') return [required('metadata.namespace')];
  return wrong('metadata.namespace', namespace, checkDns1123Label(namespace));
}

function validateAnnotations(annotations: Record<string, string> | undefined): FieldError[] {
  const errors: FieldError[] = [];
  let bytes = 0;
  for (const [key, value] of Object.entries(annotations ?? {})) {
    errors.push(...wrong('metadata.annotations', key, checkQualifiedName(key.toLowerCase())));
    bytes += Buffer.byteLength(key) + Buffer.byteLength(value);
  }
  if (bytes > MAX_ANNOTATIONS_BYTES)
    errors.push({
      type: 'TooLong',
      field: 'metadata.annotations',
      detail: `may not be more than ${MAX_ANNOTATIONS_BYTES} bytes`,
    });
  return errors;
}

/** Those without a domain before them that have a meaning. */
const STANDARD_FINALIZERS = ['foregroundDeletion', 'kubernetes', 'orphan'];

export function checkFinalizerName(finalizer: string): string | undefined {
  const malformed = checkQualifiedName(finalizer);
  if (malformed !== undefined) return malformed;
  return finalizer.includes('/') || STANDARD_FINALIZERS.includes(finalizer)
    ? undefined
    : 'name is neither a standard finalizer name nor is it fully qualified';
}

function validateFinalizers(
  finalizers: readonly string[] | undefined,
  anyWord: boolean,
): FieldError[] {
  if (finalizers === undefined) return [];
  const check = anyWord ? checkQualifiedName : checkFinalizerName;
  const field = 'metadata.finalizers';
  const errors = finalizers.flatMap((finalizer) => wrong(field, finalizer, check(finalizer)));
  if (finalizers.includes('orphan') && finalizers.includes('foregroundDeletion'))
    errors.push(
      invalid(field, finalizers, 'finalizers orphan and foregroundDeletion cannot be both set'),
    );
  return errors;
}

function validateOwners(meta: ObjectMeta): FieldError[] {
  const owners = meta.ownerReferences ?? [];
  const errors = owners.flatMap((owner, i) =>
    (['apiVersion', 'kind', 'name', 'uid'] as const).flatMap((field) =>
      owner[field]
        ? []
        : [invalid(`metadata.ownerReferences[${i}].${field}`, owner[field], 'must not be empty')],
    ),
  );
  owners.forEach(({ apiVersion = '', kind }, i) => {
    const field = `metadata.ownerReferences[${i}]`;
    if (apiVersion.split('/').length > 2)
      errors.push(
        invalid(
          `${field}.apiVersion`,
          apiVersion,
          'must be a version, or a group and a version: apps/v1',
        ),
      );
    // It goes by itself after a while, and would take with it what it owns.
    if (apiVersion === 'v1' && kind === 'Event')
      errors.push(invalid(field, kind, 'v1, Kind=Event is disallowed from being an owner'));
  });
  const controllers = owners.filter((owner) => owner.controller === true);
  if (controllers.length > 1)
    errors.push(
      invalid(
        'metadata.ownerReferences',
        controllers.map((owner) => `${owner.kind}/${owner.name}`),
        'only one reference can have controller set to true',
      ),
    );
  return errors;
}

function wrong(field: string, value: unknown, detail: string | undefined): FieldError[] {
  return detail === undefined ? [] : [invalid(field, value, detail)];
}
