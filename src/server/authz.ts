/**
 * What a principal may do, decided from the request alone. What depends on the content of objects (a node writes only
 * its own) is decided by admission: `admission/node-restriction.ts`.
 */

import { unauthorized } from '#api/machinery/status.ts';
import type { PolicyRule } from '#api/rbac/v1/rules.ts';
import { ApiError } from '#lib/errors.ts';
import { JOIN_PATH } from './authn.ts';
import { qualifiedResource } from './errors.ts';
import { isAnonymous, isMaster, MASTERS_GROUP, nodeNameOf, type Principal } from './principal.ts';
import type { RbacPolicy } from './rbac/policy.ts';
import type { AccessRequest } from './rbac/rules.ts';

/** Open to everyone, without a credential: health, and what a machine needs to join. */
const PUBLIC_PATHS: readonly (readonly [verb: string, path: string])[] = [
  ['get', '/healthz'],
  ['get', '/livez'],
  ['get', '/readyz'],
  ['get', '/tulle/v1/ca'],
  ['post', JOIN_PATH],
];

const READ = ['get', 'list', 'watch'] as const;

/** What a node's agent may do, as far as the URL tells. Subresources are named by themselves. */
const NODE_RULES: readonly {
  readonly verbs: readonly string[];
  readonly resources: readonly string[];
  /** Only in this namespace. */
  readonly namespace?: string;
}[] = [
  {
    verbs: READ,
    resources: [
      'clusternetworkpolicies.policy.networking.k8s.io',
      'endpoints',
      'endpointslices.discovery.k8s.io',
      'ipblocks.tulle.dev',
      'ippools.tulle.dev',
      'leases.coordination.k8s.io',
      'namespaces',
      'networkpolicies.networking.k8s.io',
      'nodes',
      'pods',
      'servicecidrs.networking.k8s.io',
      'services',
    ],
  },
  // The configuration of DNS. Configuration elsewhere may be a workload's, and is none of a node's business.
  { verbs: READ, resources: ['configmaps'], namespace: 'kube-system' },
  { verbs: ['create', 'update', 'patch'], resources: ['nodes', 'events', 'events.events.k8s.io'] },
  { verbs: ['update', 'patch'], resources: ['nodes/status', 'pods/status'] },
  // Its conditions: what of a policy is not understood, and which node cannot carry it out.
  { verbs: ['update'], resources: ['clusternetworkpolicies.policy.networking.k8s.io/status'] },
  { verbs: ['create', 'patch'], resources: ['policyusages.tulle.dev'] },
  {
    verbs: ['create', 'update', 'patch', 'delete'],
    resources: ['pods', 'ipblocks.tulle.dev', 'leases.coordination.k8s.io'],
  },
];

export type Decision =
  | { readonly allowed: true }
  | { readonly allowed: false; readonly error: ApiError };

const ALLOWED: Decision = { allowed: true };

/** Decides who may do what. */
export interface Authorizer {
  /** Decides over a request; a refusal holds the answer to give: 401 for who has shown no credential, else 403. */
  authorize(principal: Principal, request: AccessRequest): Decision;
  /** Decides, and says why. */
  decide(principal: Principal, request: AccessRequest): { allowed: boolean; reason: string };
  /** All that is allowed in a namespace (empty: everywhere), as rules. */
  rulesOf(principal: Principal, namespace: string): readonly PolicyRule[];
}

/** In this order: the masters' group, what is public, nodes, and then roles. Each can only allow. */
export function createAuthorizer(policy: RbacPolicy): Authorizer {
  const decide: Authorizer['decide'] = (principal, request) => {
    if (isMaster(principal)) return { allowed: true, reason: `group "${MASTERS_GROUP}"` };
    if (request.type === 'plain' && isPublic(request)) return { allowed: true, reason: 'public' };
    if (request.type === 'resource' && nodeNameOf(principal) !== undefined && mayNode(request))
      return { allowed: true, reason: 'node' };
    const plainRead =
      request.type === 'plain' && request.verb === 'head' ? { ...request, verb: 'get' } : request;
    const by = policy.allows(principal, plainRead);
    return by === undefined
      ? { allowed: false, reason: '' }
      : { allowed: true, reason: `RBAC: allowed by ${by}` };
  };
  return {
    decide,
    authorize(principal, request) {
      if (decide(principal, request).allowed) return ALLOWED;
      if (isAnonymous(principal))
        return {
          allowed: false,
          error: unauthorized(
            'Unauthorized: this needs a credential: a client certificate of the cluster or a token of a service account',
          ),
        };
      return { allowed: false, error: refusal(principal, request) };
    },
    rulesOf: (principal, namespace) => [
      ...(isMaster(principal) ? EVERYTHING : []),
      ...(nodeNameOf(principal) === undefined ? [] : nodeRules(namespace)),
      ...policy.rulesOf(principal, namespace),
    ],
  };
}

const EVERYTHING: readonly PolicyRule[] = [
  { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
  { verbs: ['*'], nonResourceURLs: ['*'] },
];

function isPublic({ verb, path }: { verb: string; path: string }): boolean {
  const isRead = verb === 'head' ? 'get' : verb;
  return PUBLIC_PATHS.some(([v, p]) => v === isRead && p === path);
}

/** The same as RBAC's rules, for people to read. */
function nodeRules(namespace: string | undefined): PolicyRule[] {
  return NODE_RULES.filter(
    (rule) => rule.namespace === undefined || rule.namespace === namespace,
  ).flatMap(({ verbs, resources }) =>
    resources.map((qualified) => {
      const [resource = '', ...group] = qualified.split('.');
      return { verbs: [...verbs], apiGroups: [group.join('.')], resources: [resource] };
    }),
  );
}

type ResourceAccess = AccessRequest & { type: 'resource' };

function mayNode(request: ResourceAccess): boolean {
  const { verb, subresource, namespace } = request;
  const resource = qualifiedResource(request) + (subresource === '' ? '' : `/${subresource}`);
  return NODE_RULES.some(
    (rule) =>
      rule.verbs.includes(verb) &&
      rule.resources.includes(resource) &&
      (rule.namespace === undefined || rule.namespace === namespace),
  );
}

/** Upstream's wording, which people know how to read. */
function refusal(principal: Principal, request: AccessRequest): ApiError {
  const user = `User ${JSON.stringify(principal.name)}`;
  if (request.type === 'plain')
    return new ApiError(
      403,
      'Forbidden',
      `forbidden: ${user} cannot ${request.verb} path ${JSON.stringify(request.path)}`,
      { details: {} },
    );
  const { verb, group, resource, subresource, namespace, name } = request;
  const what = subresource === '' ? resource : `${resource}/${subresource}`;
  const where =
    namespace === '' ? 'at the cluster scope' : `in the namespace ${JSON.stringify(namespace)}`;
  return new ApiError(
    403,
    'Forbidden',
    `${qualifiedResource(request)}${name === '' ? '' : ` ${JSON.stringify(name)}`} is forbidden: ${user} cannot ${verb} resource ${JSON.stringify(what)} in API group ${JSON.stringify(group)} ${where}`,
    { details: { ...(name === '' ? {} : { name }), group, kind: resource } },
  );
}
