/** RoleBinding and ClusterRoleBinding: who is allowed what a role says. `k8s.io/api/rbac/v1`. */
import type { KindDefinition, TableColumn } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN, wideColumn } from '../../machinery/columns.ts';
import { checkPathSegmentName } from '../../machinery/names.ts';
import { kindSchema } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import {
  RBAC_GROUP,
  ROLE_REF_SCHEMA,
  type RoleRef,
  SUBJECTS_SCHEMA,
  type Subject,
  validateRoleRef,
  validateSubjects,
  withSubjectDefaults,
} from './rules.ts';

interface Binding extends KubeObject {
  subjects?: Subject[];
  roleRef: RoleRef;
}

export interface RoleBinding extends Binding {
  apiVersion: 'rbac.authorization.k8s.io/v1';
  kind: 'RoleBinding';
}

export interface ClusterRoleBinding extends Binding {
  apiVersion: 'rbac.authorization.k8s.io/v1';
  kind: 'ClusterRoleBinding';
}

function setDefaults<T extends Binding>(binding: T): T {
  const subjects = withSubjectDefaults(binding.subjects);
  return {
    ...binding,
    ...(subjects === undefined ? {} : { subjects }),
    ...(binding.roleRef === undefined
      ? {}
      : { roleRef: { ...binding.roleRef, apiGroup: binding.roleRef.apiGroup || RBAC_GROUP } }),
  };
}

function namesOf(binding: Binding, kind: Subject['kind']): string {
  return (binding.subjects ?? [])
    .filter((subject) => subject.kind === kind)
    .map(({ namespace, name }) => (kind === 'ServiceAccount' ? `${namespace ?? ''}/${name}` : name))
    .join(', ');
}

const COLUMNS: readonly TableColumn<Binding>[] = [
  NAME_COLUMN,
  column('Role', 'The role.', ({ roleRef }) => `${roleRef.kind}/${roleRef.name}`),
  AGE_COLUMN,
  wideColumn('Users', 'Users in the binding.', (binding) => namesOf(binding, 'User')),
  wideColumn('Groups', 'Groups in the binding.', (binding) => namesOf(binding, 'Group')),
  wideColumn('ServiceAccounts', 'Service accounts in the binding.', (binding) =>
    namesOf(binding, 'ServiceAccount'),
  ),
];

const COMMON = {
  group: RBAC_GROUP,
  version: 'v1',
  shortNames: [],
  categories: [],
  subresources: [],
};
const FIELDS = { subjects: SUBJECTS_SCHEMA, roleRef: ROLE_REF_SCHEMA };

export const ROLE_BINDING: KindDefinition<RoleBinding> = {
  ...COMMON,
  kind: 'RoleBinding',
  resource: 'rolebindings',
  singular: 'rolebinding',
  namespaced: true,
  schema: kindSchema('RoleBinding', 'Who is allowed what, in a namespace.', FIELDS, ['roleRef']),
  setDefaults,
  validate: (binding, old) => [
    ...validateMeta(binding.metadata, { namespaced: true, checkName: checkPathSegmentName }),
    ...validateRoleRef(binding.roleRef, ['Role', 'ClusterRole'], old?.roleRef),
    ...validateSubjects(binding.subjects, { namespaced: true }),
  ],
  columns: COLUMNS,
  selectableFields: {},
};

export const CLUSTER_ROLE_BINDING: KindDefinition<ClusterRoleBinding> = {
  ...COMMON,
  kind: 'ClusterRoleBinding',
  resource: 'clusterrolebindings',
  singular: 'clusterrolebinding',
  namespaced: false,
  schema: kindSchema('ClusterRoleBinding', 'Who is allowed what, everywhere.', FIELDS, ['roleRef']),
  setDefaults,
  validate: (binding, old) => [
    ...validateMeta(binding.metadata, { namespaced: false, checkName: checkPathSegmentName }),
    ...validateRoleRef(binding.roleRef, ['ClusterRole'], old?.roleRef),
    ...validateSubjects(binding.subjects, { namespaced: false }),
  ],
  columns: COLUMNS,
  selectableFields: {},
};
