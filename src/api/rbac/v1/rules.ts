/** What all kinds of the group share: rules, subjects, references. `k8s.io/api/rbac/v1`. */
import type { FieldError, Schema } from '../../kind.ts';
import { invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { checkDns1123Subdomain, checkPathSegmentName } from '../../machinery/names.ts';
import { list, object, string, strings } from '../../machinery/schema.ts';

export const RBAC_GROUP = 'rbac.authorization.k8s.io';

export interface PolicyRule {
  verbs: string[];
  apiGroups?: string[];
  resources?: string[];
  resourceNames?: string[];
  nonResourceURLs?: string[];
}

export interface Subject {
  kind: 'User' | 'Group' | 'ServiceAccount';
  apiGroup?: string;
  name: string;
  namespace?: string;
}

export interface RoleRef {
  apiGroup: string;
  kind: 'Role' | 'ClusterRole';
  name: string;
}

export const RULES_SCHEMA: Schema = list(
  object(
    'PolicyRule',
    {
      verbs: strings('What may be done: get, list, watch, create …; "*" is everything.'),
      apiGroups: strings('Groups of the resources: "" is the core group, "*" all.'),
      resources: strings('Resources, "pods" or "pods/status"; "*" is all.'),
      resourceNames: strings('Names of the objects. Empty: all.'),
      nonResourceURLs: strings('Paths that are no resources; "*" at the end stands for the rest.'),
    },
    { required: ['verbs'] },
  ),
  'What is allowed.',
);

export const SUBJECTS_SCHEMA: Schema = list(
  object(
    'Subject',
    {
      kind: string('User, Group or ServiceAccount.'),
      apiGroup: string('Group of the kind; the default follows from it.'),
      name: string('Name of the subject.'),
      namespace: string('Of a service account.'),
    },
    { required: ['kind', 'name'] },
  ),
  'Who is allowed.',
);

export const ROLE_REF_SCHEMA: Schema = object(
  'RoleRef',
  {
    apiGroup: string('rbac.authorization.k8s.io'),
    kind: string('Role or ClusterRole.'),
    name: string('Name of the role.'),
  },
  {
    required: ['kind', 'name'],
    description: 'What is allowed, by the name of a role. It cannot be changed.',
  },
);

/** @param options.namespaced rules of a Role cannot name paths */
export function validateRules(
  rules: readonly PolicyRule[] | undefined,
  options: { namespaced: boolean },
): FieldError[] {
  return (rules ?? []).flatMap((rule, i) => {
    const field = `rules[${i}]`;
    const has = (values: readonly string[] | undefined) => (values?.length ?? 0) > 0;
    const errors: FieldError[] = [];
    if (!has(rule.verbs))
      errors.push(required(`${field}.verbs`, 'verbs must contain at least one value'));
    if (has(rule.nonResourceURLs)) {
      if (options.namespaced)
        errors.push(
          invalid(
            `${field}.nonResourceURLs`,
            rule.nonResourceURLs,
            'namespaced rules cannot apply to non-resource URLs',
          ),
        );
      if (has(rule.apiGroups) || has(rule.resources) || has(rule.resourceNames))
        errors.push(
          invalid(
            `${field}.nonResourceURLs`,
            rule.nonResourceURLs,
            'rules cannot apply to both regular resources and non-resource URLs',
          ),
        );
      return errors;
    }
    if (!has(rule.apiGroups))
      errors.push(
        required(`${field}.apiGroups`, 'resource rules must supply at least one api group'),
      );
    if (!has(rule.resources))
      errors.push(
        required(`${field}.resources`, 'resource rules must supply at least one resource'),
      );
    return errors;
  });
}

/** @param options.namespaced a service account without a namespace is then one of the binding's own */
export function validateSubjects(
  subjects: readonly Subject[] | undefined,
  options: { namespaced: boolean },
): FieldError[] {
  return (subjects ?? []).flatMap((subject, i) => {
    const field = `subjects[${i}]`;
    const errors: FieldError[] = [];
    if (!subject.name) errors.push(required(`${field}.name`));
    const isAccount = subject.kind === 'ServiceAccount';
    if (!['ServiceAccount', 'User', 'Group'].includes(subject.kind))
      return [
        ...errors,
        notSupported(`${field}.kind`, subject.kind, ['ServiceAccount', 'User', 'Group']),
      ];
    const group = isAccount ? '' : RBAC_GROUP;
    if ((subject.apiGroup ?? '') !== group)
      errors.push(notSupported(`${field}.apiGroup`, subject.apiGroup ?? '', [group]));
    if (!isAccount) return errors;
    const wrong = subject.name ? checkDns1123Subdomain(subject.name) : undefined;
    if (wrong !== undefined) errors.push(invalid(`${field}.name`, subject.name, wrong));
    if (!options.namespaced && !subject.namespace) errors.push(required(`${field}.namespace`));
    return errors;
  });
}

/** @param kinds of roles that such a binding may name */
export function validateRoleRef(
  ref: RoleRef | undefined,
  kinds: readonly string[],
  old: RoleRef | undefined,
): FieldError[] {
  if (ref === undefined) return [required('roleRef')];
  const errors: FieldError[] = [];
  if (ref.apiGroup !== RBAC_GROUP)
    errors.push(notSupported('roleRef.apiGroup', ref.apiGroup, [RBAC_GROUP]));
  if (!kinds.includes(ref.kind)) errors.push(notSupported('roleRef.kind', ref.kind, kinds));
  const wrong = ref.name ? checkPathSegmentName(ref.name) : undefined;
  if (!ref.name) errors.push(required('roleRef.name'));
  if (wrong !== undefined) errors.push(invalid('roleRef.name', ref.name, wrong));
  if (
    old !== undefined &&
    (old.kind !== ref.kind || old.name !== ref.name || old.apiGroup !== ref.apiGroup)
  )
    errors.push(invalid('roleRef', ref, 'cannot change roleRef'));
  return errors;
}

/** Fills what a missing group means. */
export function withSubjectDefaults(subjects: Subject[] | undefined): Subject[] | undefined {
  return subjects?.map((subject) =>
    subject.kind === 'ServiceAccount'
      ? subject
      : { ...subject, apiGroup: subject.apiGroup || RBAC_GROUP },
  );
}
