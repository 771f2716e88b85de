/** Role and ClusterRole: what is allowed, in one namespace or everywhere. `k8s.io/api/rbac/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { column, NAME_COLUMN } from '../../machinery/columns.ts';
import { validateLabelSelector } from '../../machinery/label-selector.ts';
import { checkPathSegmentName } from '../../machinery/names.ts';
import { kindSchema, LABEL_SELECTOR_SCHEMA, list, object } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject, LabelSelector } from '../../meta.ts';
import { type PolicyRule, RBAC_GROUP, RULES_SCHEMA, validateRules } from './rules.ts';

export interface Role extends KubeObject {
  apiVersion: 'rbac.authorization.k8s.io/v1';
  kind: 'Role';
  rules?: PolicyRule[];
}

export interface ClusterRole extends KubeObject {
  apiVersion: 'rbac.authorization.k8s.io/v1';
  kind: 'ClusterRole';
  rules?: PolicyRule[];
  /** The rules are those of all cluster roles that one of these selects. */
  aggregationRule?: { clusterRoleSelectors?: LabelSelector[] };
}

const CREATED_AT = column<KubeObject>(
  'Created At',
  'When the object was created.',
  (object) => object.metadata.creationTimestamp ?? '',
);

export const ROLE: KindDefinition<Role> = {
  group: RBAC_GROUP,
  version: 'v1',
  kind: 'Role',
  resource: 'roles',
  singular: 'role',
  namespaced: true,
  shortNames: [],
  categories: [],
  subresources: [],
  schema: kindSchema('Role', 'What is allowed in a namespace.', { rules: RULES_SCHEMA }),
  setDefaults: (role) => role,
  validate: (role) => [
    ...validateMeta(role.metadata, { namespaced: true, checkName: checkPathSegmentName }),
    ...validateRules(role.rules, { namespaced: true }),
  ],
  columns: [NAME_COLUMN, CREATED_AT],
  selectableFields: {},
};

function validateClusterRole(role: ClusterRole): FieldError[] {
  const selectors = role.aggregationRule?.clusterRoleSelectors;
  const errors = [
    ...validateMeta(role.metadata, { namespaced: false, checkName: checkPathSegmentName }),
    ...validateRules(role.rules, { namespaced: false }),
    ...(selectors ?? []).flatMap((selector, i) =>
      validateLabelSelector(selector, `aggregationRule.clusterRoleSelectors[${i}]`),
    ),
  ];
  if (role.aggregationRule !== undefined && (selectors?.length ?? 0) === 0)
    errors.push({
      type: 'Required',
      field: 'aggregationRule.clusterRoleSelectors',
      detail: 'at least one clusterRoleSelector required if aggregationRule is non-nil',
    });
  return errors;
}

export const CLUSTER_ROLE: KindDefinition<ClusterRole> = {
  group: RBAC_GROUP,
  version: 'v1',
  kind: 'ClusterRole',
  resource: 'clusterroles',
  singular: 'clusterrole',
  namespaced: false,
  shortNames: [],
  categories: [],
  subresources: [],
  schema: kindSchema('ClusterRole', 'What is allowed, in a namespace or everywhere.', {
    rules: RULES_SCHEMA,
    aggregationRule: object(
      'AggregationRule',
      {
        clusterRoleSelectors: list(LABEL_SELECTOR_SCHEMA, 'Selectors of the cluster roles.'),
      },
      { description: 'The rules are those of other cluster roles.' },
    ),
  }),
  setDefaults: (role) => role,
  validate: validateClusterRole,
  columns: [NAME_COLUMN, CREATED_AT],
  selectableFields: {},
};
