/** The kinds of the other groups: `k8s.io/api/<group>/v1/generated.proto`. */
import {
  bool,
  int,
  kindMessage,
  LABEL_SELECTOR,
  list,
  MICRO_TIME,
  map,
  message,
  OBJECT_REFERENCE,
  OPTIONAL_INT_OR_STRING,
  one,
  optBool,
  optInt,
  optional,
  optLong,
  optStr,
  str,
  stringMap,
  strings,
  TIME,
} from './table.ts';

const NAMED = (name: string) => message(name, { 1: str('name') });

export const ENDPOINT_SLICE_MESSAGE = kindMessage('EndpointSlice', {
  2: list(
    'endpoints',
    message('Endpoint', {
      1: strings('addresses'),
      2: one(
        'conditions',
        message('EndpointConditions', {
          1: optBool('ready'),
          2: optBool('serving'),
          3: optBool('terminating'),
        }),
      ),
      3: optStr('hostname'),
      4: optional('targetRef', OBJECT_REFERENCE),
      5: stringMap('deprecatedTopology'),
      6: optStr('nodeName'),
      7: optStr('zone'),
      8: optional(
        'hints',
        message('EndpointHints', {
          1: list('forZones', NAMED('ForZone')),
          2: list('forNodes', NAMED('ForNode')),
        }),
      ),
    }),
  ),
  3: list(
    'ports',
    message('EndpointPort', {
      1: optStr('name'),
      2: optStr('protocol'),
      3: optInt('port'),
      4: optStr('appProtocol'),
    }),
  ),
  4: str('addressType'),
});

export const LEASE_MESSAGE = kindMessage('Lease', {
  2: one(
    'spec',
    message('LeaseSpec', {
      1: optStr('holderIdentity'),
      2: optInt('leaseDurationSeconds'),
      3: optional('acquireTime', MICRO_TIME),
      4: optional('renewTime', MICRO_TIME),
      5: optInt('leaseTransitions'),
      6: optStr('strategy'),
      7: optStr('preferredHolder'),
    }),
  ),
});

const POLICY_PORTS = list(
  'ports',
  message('NetworkPolicyPort', {
    1: optStr('protocol'),
    2: optional('port', OPTIONAL_INT_OR_STRING),
    3: optInt('endPort'),
  }),
);
const POLICY_PEER = message('NetworkPolicyPeer', {
  1: optional('podSelector', LABEL_SELECTOR),
  2: optional('namespaceSelector', LABEL_SELECTOR),
  3: optional('ipBlock', message('IPBlock', { 1: str('cidr'), 2: strings('except') })),
});

export const NETWORK_POLICY_MESSAGE = kindMessage('NetworkPolicy', {
  2: one(
    'spec',
    message('NetworkPolicySpec', {
      1: optional('podSelector', LABEL_SELECTOR),
      2: list(
        'ingress',
        message('NetworkPolicyIngressRule', { 1: POLICY_PORTS, 2: list('from', POLICY_PEER) }),
      ),
      3: list(
        'egress',
        message('NetworkPolicyEgressRule', { 1: POLICY_PORTS, 2: list('to', POLICY_PEER) }),
      ),
      4: strings('policyTypes'),
    }),
  ),
});

const INGRESS_BACKEND = message('IngressBackend', {
  3: optional(
    'resource',
    message('TypedLocalObjectReference', { 1: optStr('apiGroup'), 2: str('kind'), 3: str('name') }),
  ),
  4: optional(
    'service',
    message('IngressServiceBackend', {
      1: str('name'),
      2: one('port', message('ServiceBackendPort', { 1: str('name'), 2: int('number') })),
    }),
  ),
});

const INGRESS_RULE_VALUE = {
  name: '',
  shape: 'one',
  type: message('IngressRuleValue', {
    1: optional(
      'http',
      message('HTTPIngressRuleValue', {
        1: list(
          'paths',
          message('HTTPIngressPath', {
            1: str('path'),
            2: one('backend', INGRESS_BACKEND),
            3: optStr('pathType'),
          }),
        ),
      }),
    ),
  }),
} as const;

export const INGRESS_MESSAGE = kindMessage('Ingress', {
  2: one(
    'spec',
    message('IngressSpec', {
      1: optional('defaultBackend', INGRESS_BACKEND),
      2: list('tls', message('IngressTLS', { 1: strings('hosts'), 2: str('secretName') })),
      3: list('rules', message('IngressRule', { 1: str('host'), 2: INGRESS_RULE_VALUE })),
      4: optStr('ingressClassName'),
    }),
  ),
  3: one(
    'status',
    message('IngressStatus', {
      1: one(
        'loadBalancer',
        message('IngressLoadBalancerStatus', {
          1: list(
            'ingress',
            message('IngressLoadBalancerIngress', {
              1: str('ip'),
              2: str('hostname'),
              4: list(
                'ports',
                message('IngressPortStatus', {
                  1: int('port'),
                  2: str('protocol'),
                  3: optStr('error'),
                }),
              ),
            }),
          ),
        }),
      ),
    }),
  ),
});

export const INGRESS_CLASS_MESSAGE = kindMessage('IngressClass', {
  2: one(
    'spec',
    message('IngressClassSpec', {
      1: str('controller'),
      2: optional(
        'parameters',
        message('IngressClassParametersReference', {
          1: optStr('apiGroup'),
          2: str('kind'),
          3: str('name'),
          4: optStr('scope'),
          5: optStr('namespace'),
        }),
      ),
    }),
  ),
});

const POLICY_RULE = message('PolicyRule', {
  1: strings('verbs'),
  2: strings('apiGroups'),
  3: strings('resources'),
  4: strings('resourceNames'),
  5: strings('nonResourceURLs'),
});
const SUBJECTS = list(
  'subjects',
  message('Subject', { 1: str('kind'), 2: str('apiGroup'), 3: str('name'), 4: str('namespace') }),
);
const ROLE_REF = one(
  'roleRef',
  message('RoleRef', { 1: str('apiGroup'), 2: str('kind'), 3: str('name') }),
);

export const ROLE_MESSAGE = kindMessage('Role', { 2: list('rules', POLICY_RULE) });
export const CLUSTER_ROLE_MESSAGE = kindMessage('ClusterRole', {
  2: list('rules', POLICY_RULE),
  3: optional(
    'aggregationRule',
    message('AggregationRule', { 1: list('clusterRoleSelectors', LABEL_SELECTOR) }),
  ),
});
export const ROLE_BINDING_MESSAGE = kindMessage('RoleBinding', { 2: SUBJECTS, 3: ROLE_REF });
export const CLUSTER_ROLE_BINDING_MESSAGE = kindMessage('ClusterRoleBinding', {
  2: SUBJECTS,
  3: ROLE_REF,
});

const EXTRA = map(
  'extra',
  message('ExtraValue', { 1: strings('items') }, ({ items }) => items ?? []),
);

const FIELD_SELECTOR = message('FieldSelectorAttributes', {
  1: str('rawSelector'),
  2: list(
    'requirements',
    message('FieldSelectorRequirement', {
      1: str('key'),
      2: str('operator'),
      3: strings('values'),
    }),
  ),
});

const ACCESS = {
  1: optional(
    'resourceAttributes',
    message('ResourceAttributes', {
      1: str('namespace'),
      2: str('verb'),
      3: str('group'),
      4: str('version'),
      5: str('resource'),
      6: str('subresource'),
      7: str('name'),
      8: optional('fieldSelector', FIELD_SELECTOR),
      9: optional('labelSelector', FIELD_SELECTOR),
    }),
  ),
  2: optional(
    'nonResourceAttributes',
    message('NonResourceAttributes', { 1: str('path'), 2: str('verb') }),
  ),
};
const ACCESS_STATUS = one(
  'status',
  message('SubjectAccessReviewStatus', {
    1: bool('allowed'),
    2: str('reason'),
    3: str('evaluationError'),
    4: bool('denied'),
  }),
);

export const SELF_SUBJECT_ACCESS_REVIEW_MESSAGE = kindMessage('SelfSubjectAccessReview', {
  2: one('spec', message('SelfSubjectAccessReviewSpec', ACCESS)),
  3: ACCESS_STATUS,
});

/** The same for the local one. */
export const SUBJECT_ACCESS_REVIEW_MESSAGE = kindMessage('SubjectAccessReview', {
  2: one(
    'spec',
    message('SubjectAccessReviewSpec', {
      ...ACCESS,
      3: str('user'),
      4: strings('groups'),
      5: EXTRA,
      6: str('uid'),
    }),
  ),
  3: ACCESS_STATUS,
});

export const SELF_SUBJECT_RULES_REVIEW_MESSAGE = kindMessage('SelfSubjectRulesReview', {
  2: one('spec', message('SelfSubjectRulesReviewSpec', { 1: str('namespace') })),
  3: one(
    'status',
    message('SubjectRulesReviewStatus', { 3: bool('incomplete'), 4: str('evaluationError') }),
  ),
});

const USER_INFO = message('UserInfo', {
  1: str('username'),
  2: str('uid'),
  3: strings('groups'),
  4: EXTRA,
});

export const SELF_SUBJECT_REVIEW_MESSAGE = kindMessage('SelfSubjectReview', {
  2: one('status', message('SelfSubjectReviewStatus', { 1: one('userInfo', USER_INFO) })),
});

export const TOKEN_REVIEW_MESSAGE = kindMessage('TokenReview', {
  2: one('spec', message('TokenReviewSpec', { 1: str('token'), 2: strings('audiences') })),
  3: one(
    'status',
    message('TokenReviewStatus', {
      1: bool('authenticated'),
      2: one('user', USER_INFO),
      3: str('error'),
      4: strings('audiences'),
    }),
  ),
});

export const TOKEN_REQUEST_MESSAGE = kindMessage('TokenRequest', {
  2: one(
    'spec',
    message('TokenRequestSpec', {
      1: strings('audiences'),
      3: optional(
        'boundObjectRef',
        message('BoundObjectReference', {
          1: str('kind'),
          2: str('apiVersion'),
          3: str('name'),
          4: str('uid'),
        }),
      ),
      4: optLong('expirationSeconds'),
    }),
  ),
  3: one(
    'status',
    message('TokenRequestStatus', { 1: str('token'), 2: one('expirationTimestamp', TIME) }),
  ),
});

/** `metav1.DeleteOptions`: clients send it under the group and version of what they delete. */
export const DELETE_OPTIONS_MESSAGE = message('DeleteOptions', {
  1: optLong('gracePeriodSeconds'),
  2: optional(
    'preconditions',
    message('Preconditions', { 1: optStr('uid'), 2: optStr('resourceVersion') }),
  ),
  3: optBool('orphanDependents'),
  4: optStr('propagationPolicy'),
  5: strings('dryRun'),
  6: optBool('ignoreStoreReadErrorWithClusterBreakingPotential'),
});

export const EVICTION_MESSAGE = kindMessage('Eviction', {
  2: optional('deleteOptions', DELETE_OPTIONS_MESSAGE),
});
