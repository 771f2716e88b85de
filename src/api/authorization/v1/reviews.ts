/** Questions about what somebody may do: created, answered, and not kept. `k8s.io/api/authorization/v1`. */
import { reviewKind } from '../../machinery/review.ts';
import { any, boolean, kindSchema, list, object, string, strings } from '../../machinery/schema.ts';
import type { KubeObject } from '../../meta.ts';
import type { PolicyRule } from '../../rbac/v1/rules.ts';

export interface ResourceAttributes {
  /** Empty: all namespaces, or the cluster scope. */
  namespace?: string;
  verb?: string;
  group?: string;
  version?: string;
  resource?: string;
  subresource?: string;
  name?: string;
}

export interface AccessSpec {
  resourceAttributes?: ResourceAttributes;
  nonResourceAttributes?: { path?: string; verb?: string };
}

export interface SubjectAccessReview extends KubeObject {
  spec: AccessSpec & {
    user?: string;
    groups?: string[];
    uid?: string;
    extra?: Record<string, string[]>;
  };
  status?: { allowed: boolean; denied?: boolean; reason?: string };
}

export interface SelfSubjectRulesReview extends KubeObject {
  spec: { namespace?: string };
  status?: {
    resourceRules: PolicyRule[];
    nonResourceRules: PolicyRule[];
    incomplete: boolean;
    evaluationError?: string;
  };
}

const ACCESS_FIELDS = {
  resourceAttributes: object(
    'ResourceAttributes',
    {
      namespace: string('Empty: all namespaces, or the cluster scope.'),
      verb: string('get, list, watch, create …; "*" is everything.'),
      group: string('Group of the resource; "*" is all.'),
      version: string('Version of the resource; "*" is all.'),
      resource: string('The resource; "*" is all.'),
      subresource: string('The subresource, if it is about one.'),
      name: string('Name of the object. Empty: all.'),
      fieldSelector: any('Kept, and not looked at: it could only narrow the question.'),
      labelSelector: any('Kept, and not looked at: it could only narrow the question.'),
    },
    { description: 'A question about objects.' },
  ),
  nonResourceAttributes: object(
    'NonResourceAttributes',
    { path: string('The path.'), verb: string('The method, in lower case.') },
    { description: 'A question about a path that is no object.' },
  ),
};

const ACCESS_STATUS = object('SubjectAccessReviewStatus', {
  allowed: boolean('Whether it is allowed.'),
  denied: boolean('Whether it is forbidden whatever else might allow it.'),
  reason: string('Why.'),
  evaluationError: string('What could not be looked at.'),
});

const SELF_SCHEMA = kindSchema('SelfSubjectAccessReview', 'Whether I may do something.', {
  spec: object('SelfSubjectAccessReviewSpec', ACCESS_FIELDS),
  status: ACCESS_STATUS,
});

const SUBJECT_FIELDS = {
  spec: object('SubjectAccessReviewSpec', {
    ...ACCESS_FIELDS,
    user: string('The user.'),
    groups: strings('The groups of the user.'),
    uid: string('UID of the user.'),
    extra: any('What else is known of the user.'),
  }),
  status: ACCESS_STATUS,
};

const RULES = (what: string) =>
  list(
    object('ResourceRule', {
      verbs: strings('What may be done.'),
      apiGroups: strings('Groups of the resources.'),
      resources: strings('The resources.'),
      resourceNames: strings('Names of the objects. Empty: all.'),
      nonResourceURLs: strings('Paths that are no resources.'),
    }),
    what,
  );

const RULES_SCHEMA = kindSchema('SelfSubjectRulesReview', 'All that I may do in a namespace.', {
  spec: object('SelfSubjectRulesReviewSpec', { namespace: string('The namespace.') }),
  status: object('SubjectRulesReviewStatus', {
    resourceRules: RULES('What may be done with objects.'),
    nonResourceRules: RULES('What may be done with paths.'),
    incomplete: boolean('Whether there may be more.'),
    evaluationError: string('Why there may be more.'),
  }),
});

const GROUP = 'authorization.k8s.io';

export const SELF_SUBJECT_ACCESS_REVIEW = reviewKind<SubjectAccessReview>(
  GROUP,
  'SelfSubjectAccessReview',
  SELF_SCHEMA,
);
export const SUBJECT_ACCESS_REVIEW = reviewKind<SubjectAccessReview>(
  GROUP,
  'SubjectAccessReview',
  kindSchema('SubjectAccessReview', 'Whether somebody may do something.', SUBJECT_FIELDS),
);
export const LOCAL_SUBJECT_ACCESS_REVIEW = reviewKind<SubjectAccessReview>(
  GROUP,
  'LocalSubjectAccessReview',
  kindSchema(
    'LocalSubjectAccessReview',
    'Whether somebody may do something in a namespace.',
    SUBJECT_FIELDS,
  ),
  { namespaced: true },
);
export const SELF_SUBJECT_RULES_REVIEW = reviewKind<SelfSubjectRulesReview>(
  GROUP,
  'SelfSubjectRulesReview',
  RULES_SCHEMA,
);
