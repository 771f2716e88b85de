/** The roles and bindings that every cluster has, as people know them from Kubernetes. Made, and completed, at each start. */
import type { ClusterRole, Role } from '#api/rbac/v1/role.ts';
import type { ClusterRoleBinding } from '#api/rbac/v1/role-binding.ts';
import { type PolicyRule, RBAC_GROUP } from '#api/rbac/v1/rules.ts';
import type { RbacObject } from './policy.ts';

/** `false` on an object: the operator keeps it as it is, and a start leaves it alone. */
export const AUTO_UPDATE_ANNOTATION = 'rbac.authorization.kubernetes.io/autoupdate';

const API_VERSION = 'rbac.authorization.k8s.io/v1';
const READ = ['get', 'list', 'watch'];
const WRITE = ['create', 'delete', 'deletecollection', 'patch', 'update'];

const META = {
  labels: { 'kubernetes.io/bootstrapping': 'rbac-defaults' },
  annotations: { [AUTO_UPDATE_ANNOTATION]: 'true' },
};

function on(apiGroups: string[], resources: string[], verbs: string[]): PolicyRule {
  return { apiGroups, resources, verbs };
}

function clusterRole(
  name: string,
  rules: PolicyRule[],
  options: { labels?: Record<string, string>; aggregates?: string } = {},
): ClusterRole {
  const { labels, aggregates } = options;
  return {
    apiVersion: API_VERSION,
    kind: 'ClusterRole',
    metadata: { name, ...META, labels: { ...META.labels, ...labels } },
    rules,
    ...(aggregates === undefined
      ? {}
      : {
          aggregationRule: {
            clusterRoleSelectors: [{ matchLabels: { [aggregateLabel(aggregates)]: 'true' } }],
          },
        }),
  };
}

function aggregateLabel(role: string): string {
  return `rbac.authorization.k8s.io/aggregate-to-${role}`;
}

function bindGroup(name: string, group: string, role = name): ClusterRoleBinding {
  return {
    apiVersion: API_VERSION,
    kind: 'ClusterRoleBinding',
    metadata: { name, ...META },
    subjects: [{ kind: 'Group', apiGroup: RBAC_GROUP, name: group }],
    roleRef: { apiGroup: RBAC_GROUP, kind: 'ClusterRole', name: role },
  };
}

const CORE = [''];
const NETWORKING = ['networking.k8s.io'];
const DISCOVERY = ['discovery.k8s.io'];

/** What somebody who runs programs in a namespace sees; secrets are not among it, they are keys to more. */
const VIEWED: PolicyRule[] = [
  on(
    CORE,
    [
      ...['configmaps', 'endpoints', 'events', 'namespaces', 'namespaces/status'],
      ...['pods', 'pods/status', 'pods/log', 'serviceaccounts', 'services', 'services/status'],
    ],
    READ,
  ),
  on(DISCOVERY, ['endpointslices'], READ),
  on(NETWORKING, ['ingresses', 'ingresses/status', 'networkpolicies'], READ),
];

const EDITED: PolicyRule[] = [
  on(CORE, ['secrets'], READ),
  on(CORE, ['configmaps', 'events', 'pods', 'secrets', 'serviceaccounts', 'services'], WRITE),
  on(CORE, ['serviceaccounts'], ['impersonate']),
  on(CORE, ['pods/eviction'], ['create']),
  on(CORE, ['serviceaccounts/token'], ['create']),
  on(NETWORKING, ['ingresses', 'networkpolicies'], WRITE),
  on(
    ['coordination.k8s.io'],
    ['leases'],
    ['create', 'delete', 'deletecollection', ...READ, 'patch', 'update'],
  ),
];

const ADMINISTERED: PolicyRule[] = [
  on([RBAC_GROUP], ['roles', 'rolebindings'], [...WRITE, ...READ]),
  on(['authorization.k8s.io'], ['localsubjectaccessreviews'], ['create']),
];

/** As the node authorizer, for people to read: nodes are authorized without a binding. See `authz.ts`. */
const NODE_RULES: PolicyRule[] = [
  on(CORE, ['endpoints', 'namespaces', 'nodes', 'pods', 'services'], READ),
  on(DISCOVERY, ['endpointslices'], READ),
  on(NETWORKING, ['networkpolicies', 'servicecidrs'], READ),
  on(['tulle.dev'], ['ipblocks', 'ippools'], READ),
  on([...CORE, 'events.k8s.io'], ['events'], ['create', 'patch', 'update']),
  on(CORE, ['nodes'], ['create', 'patch', 'update']),
  on(CORE, ['nodes/status', 'pods/status'], ['patch', 'update']),
  on(CORE, ['pods'], ['create', 'delete', 'patch', 'update']),
  on(['tulle.dev'], ['ipblocks'], ['create', 'delete', 'patch', 'update']),
  on(['tulle.dev'], ['policyusages'], ['create', 'patch']),
  on(['coordination.k8s.io'], ['leases'], ['create', 'delete', ...READ, 'patch', 'update']),
];

const HEALTH = ['/healthz', '/livez', '/readyz'];

const CLUSTER_ROLES: readonly ClusterRole[] = [
  clusterRole('cluster-admin', [on(['*'], ['*'], ['*']), { nonResourceURLs: ['*'], verbs: ['*'] }]),
  clusterRole('admin', [], { aggregates: 'admin' }),
  clusterRole('edit', [], { aggregates: 'edit', labels: { [aggregateLabel('admin')]: 'true' } }),
  clusterRole('view', [], { aggregates: 'view', labels: { [aggregateLabel('edit')]: 'true' } }),
  clusterRole('system:aggregate-to-admin', ADMINISTERED, {
    labels: { [aggregateLabel('admin')]: 'true' },
  }),
  clusterRole('system:aggregate-to-edit', EDITED, { labels: { [aggregateLabel('edit')]: 'true' } }),
  clusterRole('system:aggregate-to-view', VIEWED, { labels: { [aggregateLabel('view')]: 'true' } }),
  clusterRole('system:discovery', [
    {
      nonResourceURLs: [
        ...['/api', '/api/*', '/apis', '/apis/*', '/openapi', '/openapi/*'],
        ...[...HEALTH, '/version', '/version/'],
      ],
      verbs: ['get'],
    },
  ]),
  clusterRole('system:basic-user', [
    on(
      ['authorization.k8s.io'],
      ['selfsubjectaccessreviews', 'selfsubjectrulesreviews'],
      ['create'],
    ),
    on(['authentication.k8s.io'], ['selfsubjectreviews'], ['create']),
  ]),
  clusterRole('system:public-info-viewer', [
    { nonResourceURLs: [...HEALTH, '/version', '/version/'], verbs: ['get'] },
  ]),
  clusterRole('system:service-account-issuer-discovery', [
    {
      nonResourceURLs: [
        ...['/.well-known/openid-configuration', '/.well-known/openid-configuration/'],
        ...['/openid/v1/jwks', '/openid/v1/jwks/'],
      ],
      verbs: ['get'],
    },
  ]),
  clusterRole('system:monitoring', [
    { nonResourceURLs: [...HEALTH, '/livez/*', '/readyz/*', '/metrics'], verbs: ['get'] },
  ]),
  clusterRole('system:auth-delegator', [
    on(['authentication.k8s.io'], ['tokenreviews'], ['create']),
    on(['authorization.k8s.io'], ['subjectaccessreviews'], ['create']),
  ]),
  clusterRole('system:node', NODE_RULES),
];

/**
 * Upstream binds `system:public-info-viewer` to `system:unauthenticated` too. Here who shows no credential gets health and
 * nothing else, and that from the program, not from a binding; an operator can bind more.
 */
const CLUSTER_ROLE_BINDINGS: readonly ClusterRoleBinding[] = [
  bindGroup('cluster-admin', 'system:masters'),
  bindGroup('system:basic-user', 'system:authenticated'),
  bindGroup('system:discovery', 'system:authenticated'),
  bindGroup('system:public-info-viewer', 'system:authenticated'),
  bindGroup('system:monitoring', 'system:monitoring'),
  bindGroup('system:service-account-issuer-discovery', 'system:serviceaccounts'),
];

export const DEFAULT_RBAC_OBJECTS: readonly (ClusterRole | ClusterRoleBinding)[] = [
  ...CLUSTER_ROLES,
  ...CLUSTER_ROLE_BINDINGS,
];

/**
 * What a start makes of an object that is there already: rules and subjects that are missing are put back, others stay.
 * @returns the same object if nothing is to be done
 */
export function completeDefault(stored: RbacObject, wanted: RbacObject): RbacObject {
  if (stored.metadata.annotations?.[AUTO_UPDATE_ANNOTATION] === 'false') return stored;
  if (isRole(stored) && isRole(wanted)) {
    const isAggregated = 'aggregationRule' in wanted;
    // The rules of an aggregated role are others' rules: whoever aggregates writes them.
    const missing = isAggregated ? [] : missingOf(stored.rules ?? [], wanted.rules ?? []);
    const labels = { ...stored.metadata.labels, ...wanted.metadata.labels };
    const lacksLabels = Object.keys(labels).some(
      (key) => stored.metadata.labels?.[key] !== labels[key],
    );
    if (missing.length === 0 && !lacksLabels) return stored;
    return {
      ...stored,
      metadata: { ...stored.metadata, labels },
      rules: [...(stored.rules ?? []), ...missing],
    };
  }
  if (isRole(stored) || isRole(wanted)) return stored;
  const missing = missingOf(stored.subjects ?? [], wanted.subjects ?? []);
  if (missing.length === 0) return stored;
  return { ...stored, subjects: [...(stored.subjects ?? []), ...missing] } as RbacObject;
}

function isRole(object: RbacObject): object is Role | ClusterRole {
  return object.kind === 'Role' || object.kind === 'ClusterRole';
}

function missingOf<T>(stored: readonly T[], wanted: readonly T[]): T[] {
  const has = new Set(stored.map((value) => sortedJson(value)));
  return wanted.filter((value) => !has.has(sortedJson(value)));
}

function sortedJson(value: unknown): string {
  return JSON.stringify(value, Object.keys(value as object).sort());
}
