/**
 * What a principal may do, decided from the request alone. What depends on the content of objects (a node writes only
 * its own) is decided by admission: `admission/node-restriction.ts`.
 */

import { unauthorized } from '#api/machinery/status.ts';
import { ApiError } from '#lib/errors.ts';
import { JOIN_PATH } from './authn.ts';
import { qualifiedResource } from './errors.ts';
import { ANONYMOUS, MASTERS_GROUP, nodeNameOf, type Principal } from './principal.ts';
import type { PlainRequest, RequestInfo, ResourceRequest } from './request.ts';

/** Open to everyone, without a credential. */
const PUBLIC_PATHS: readonly (readonly [verb: string, path: string])[] = [
  ['get', '/healthz'],
  ['get', '/livez'],
  ['get', '/readyz'],
  ['get', '/version'],
  ['get', '/tulle/v1/ca'],
  ['post', JOIN_PATH],
];

/** Open to everyone who has a credential: what clients read to find their way. */
const DISCOVERY_PATTERN = /^\/(api|apis|openapi|version|healthz|livez|readyz)(\/|$)/;

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
      'endpoints',
      'endpointslices.discovery.k8s.io',
      'ipblocks.tulle.dev',
      'ippools.tulle.dev',
      'leases.coordination.k8s.io',
      'namespaces',
      'networkpolicies.networking.k8s.io',
      'nodes',
      'pods',
      'services',
    ],
  },
  // The configuration of DNS. Configuration elsewhere may be a workload's, and is none of a node's business.
  { verbs: READ, resources: ['configmaps'], namespace: 'kube-system' },
  { verbs: ['create', 'update', 'patch'], resources: ['nodes', 'events'] },
  { verbs: ['update', 'patch'], resources: ['nodes/status', 'pods/status'] },
  {
    verbs: ['create', 'update', 'patch', 'delete'],
    resources: ['pods', 'ipblocks.tulle.dev', 'leases.coordination.k8s.io'],
  },
];

export type Decision =
  | { readonly allowed: true }
  | { readonly allowed: false; readonly error: ApiError };

const ALLOWED: Decision = { allowed: true };

/** Decides over a request; a refusal holds the answer to give: 401 for who has shown no credential, else 403. */
export function authorize(principal: Principal, request: RequestInfo): Decision {
  if (principal.groups.includes(MASTERS_GROUP)) return ALLOWED;
  const allowed =
    request.type === 'plain'
      ? mayUsePath(principal, request)
      : nodeNameOf(principal) !== undefined && mayNode(request);
  if (allowed) return ALLOWED;
  if (principal === ANONYMOUS)
    return {
      allowed: false,
      error: unauthorized('Unauthorized: this needs a client certificate of the cluster'),
    };
  return { allowed: false, error: refusal(principal, request) };
}

function mayUsePath(principal: Principal, { verb, path }: PlainRequest): boolean {
  const isRead = verb === 'head' ? 'get' : verb;
  if (PUBLIC_PATHS.some(([v, p]) => v === isRead && p === path)) return true;
  return principal !== ANONYMOUS && isRead === 'get' && DISCOVERY_PATTERN.test(path);
}

function mayNode(request: ResourceRequest): boolean {
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
function refusal(principal: Principal, request: RequestInfo): ApiError {
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
