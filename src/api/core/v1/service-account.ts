/** ServiceAccount: `k8s.io/api/core/v1`. */
import type { KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import {
  boolean,
  kindSchema,
  list,
  OBJECT_REFERENCE_SCHEMA,
  object,
  string,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import type { ObjectReference } from './object-reference.ts';

export interface ServiceAccount extends KubeObject {
  apiVersion: 'v1';
  kind: 'ServiceAccount';
  secrets?: ObjectReference[];
  imagePullSecrets?: { name?: string }[];
  automountServiceAccountToken?: boolean;
}

const SCHEMA = kindSchema('ServiceAccount', 'Who a pod is.', {
  secrets: list(OBJECT_REFERENCE_SCHEMA, 'Secrets its pods may use.', { mergeKey: 'name' }),
  imagePullSecrets: list(
    object('LocalObjectReference', { name: string('Name of a secret.') }),
    'Secrets for pulling images.',
    { mergeKey: 'name' },
  ),
  automountServiceAccountToken: boolean('Whether pods get a token mounted.'),
});

export const SERVICE_ACCOUNT: KindDefinition<ServiceAccount> = {
  group: '',
  version: 'v1',
  kind: 'ServiceAccount',
  resource: 'serviceaccounts',
  singular: 'serviceaccount',
  namespaced: true,
  shortNames: ['sa'],
  categories: [],
  subresources: [],
  ownSubresources: [
    {
      name: 'token',
      responseKind: { group: 'authentication.k8s.io', version: 'v1', kind: 'TokenRequest' },
      verbs: ['create'],
    },
  ],
  schema: SCHEMA,
  setDefaults: (object) => object,
  validate: (object) => validateMeta(object.metadata, { namespaced: true }),
  columns: [
    NAME_COLUMN,
    {
      ...column<ServiceAccount>(
        'Secrets',
        'Number of secrets.',
        (object) => object.secrets?.length ?? 0,
      ),
      type: 'integer',
    },
    AGE_COLUMN,
  ],
  selectableFields: {},
};
