/** Namespace: `k8s.io/api/core/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import { invalid } from '../../machinery/field-errors.ts';
import { checkDns1123Label } from '../../machinery/names.ts';
import {
  CONDITION_SCHEMA,
  kindSchema,
  list,
  object,
  oneOf,
  strings,
} from '../../machinery/schema.ts';
import { checkFinalizerName, validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject } from '../../meta.ts';

export interface Namespace extends KubeObject {
  apiVersion: 'v1';
  kind: 'Namespace';
  spec?: { finalizers?: string[] };
  status?: { phase?: 'Active' | 'Terminating'; conditions?: Condition[] };
}

/** A namespace is kept, being deleted, until nothing is in it: then whoever empties it removes this. */
export const NAMESPACE_FINALIZER = 'kubernetes';

const SCHEMA = kindSchema('Namespace', 'A space for names.', {
  spec: object('NamespaceSpec', {
    finalizers: strings('What must have cleaned up before the namespace goes away.'),
  }),
  status: object('NamespaceStatus', {
    phase: oneOf(['Active', 'Terminating'], 'Whether objects may be made in the namespace.'),
    conditions: list(CONDITION_SCHEMA, 'Why the namespace is not gone yet.', { mergeKey: 'type' }),
  }),
});

function setDefaults(namespace: Namespace): Namespace {
  const { metadata } = namespace;
  return {
    ...namespace,
    // Selectors choose namespaces by name through this label. A name still to be generated is labelled when it is there.
    metadata: metadata.name
      ? {
          ...metadata,
          labels: { ...metadata.labels, 'kubernetes.io/metadata.name': metadata.name },
        }
      : metadata,
    status: { phase: 'Active', ...namespace.status },
  };
}

function validateNamespace(namespace: Namespace, old: Namespace | undefined): FieldError[] {
  const { metadata, spec, status } = namespace;
  const errors = validateMeta(metadata, { namespaced: false, checkName: checkDns1123Label });
  (spec?.finalizers ?? []).forEach((finalizer, i) => {
    const wrong = checkFinalizerName(finalizer);
    if (wrong !== undefined) errors.push(invalid(`spec.finalizers[${i}]`, finalizer, wrong));
  });
  const isGoing = metadata.deletionTimestamp !== undefined;
  if (
    status?.phase === old?.status?.phase ||
    status?.phase === (isGoing ? 'Terminating' : 'Active')
  )
    return errors;
  return [
    ...errors,
    invalid(
      'status.phase',
      status?.phase,
      isGoing
        ? "may only be 'Terminating' if `deletionTimestamp` is not empty"
        : "may only be 'Active' if `deletionTimestamp` is empty",
    ),
  ];
}

export const NAMESPACE: KindDefinition<Namespace> = {
  group: '',
  version: 'v1',
  kind: 'Namespace',
  resource: 'namespaces',
  singular: 'namespace',
  namespaced: false,
  shortNames: ['ns'],
  categories: [],
  subresources: ['status'],
  schema: SCHEMA,
  setDefaults,
  validate: validateNamespace,
  columns: [
    NAME_COLUMN,
    column('Status', 'Whether objects may be made in it.', (object) => object.status?.phase ?? ''),
    AGE_COLUMN,
  ],
  selectableFields: { 'status.phase': (object) => object.status?.phase ?? '' },
};
