/** `kubectl --as`: who may, acts as somebody else. The headers are never ignored: a request that names somebody is his. */
import { badRequest } from '#api/machinery/status.ts';
import type { Authorizer } from './authz.ts';
import { ANONYMOUS, type Principal } from './principal.ts';
import type { AccessRequest } from './rbac/rules.ts';

type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

/** More are not a person's groups. */
const MAX_GROUPS = 100;
const EXTRA_PREFIX = 'impersonate-extra-';
const ACCOUNT_PATTERN = /^system:serviceaccount:([^:]+):([^:]+)$/;

/**
 * Whose request it is.
 * @throws ApiError 403 if the principal may not act as that user, or in one of these groups; 400 for headers without a user
 */
export function impersonate(
  principal: Principal,
  headers: Headers,
  authorizer: Authorizer,
): Principal {
  const [user] = valuesOf(headers, 'impersonate-user');
  const groups = valuesOf(headers, 'impersonate-group');
  const [uid] = valuesOf(headers, 'impersonate-uid');
  const extras = Object.keys(headers).filter((name) => name.startsWith(EXTRA_PREFIX));
  if (user === undefined) {
    if (groups.length > 0 || uid !== undefined || extras.length > 0)
      throw badRequest('requests that impersonate must name a user (Impersonate-User)');
    return principal;
  }
  if (groups.length > MAX_GROUPS)
    throw badRequest(`a request cannot impersonate more than ${MAX_GROUPS} groups`);
  const [, namespace = '', account = ''] = ACCOUNT_PATTERN.exec(user) ?? [];
  const check = (access: Partial<AccessRequest & { type: 'resource' }>) => {
    const decision = authorizer.authorize(principal, {
      type: 'resource',
      verb: 'impersonate',
      group: '',
      resource: 'users',
      subresource: '',
      namespace: '',
      name: '',
      ...access,
    });
    if (!decision.allowed) throw decision.error;
  };
  if (account === '') check({ name: user });
  else check({ resource: 'serviceaccounts', namespace, name: account });
  for (const name of groups) check({ resource: 'groups', name });
  const group = 'authentication.k8s.io';
  if (uid !== undefined) check({ group, resource: 'uids', name: uid });
  const extra: Record<string, string[]> = {};
  for (const header of extras) {
    const key = header.slice(EXTRA_PREFIX.length);
    for (const name of valuesOf(headers, header))
      check({ group, resource: 'userextras', subresource: key, name });
    extra[key] = valuesOf(headers, header);
  }
  return {
    name: user,
    groups: groupsOf(user, groups, namespace),
    ...(uid === undefined ? {} : { uid }),
    ...(extras.length === 0 ? {} : { extra }),
  };
}

function groupsOf(user: string, named: readonly string[], namespace: string): string[] {
  const groups = [...named];
  if (groups.length === 0 && namespace !== '')
    groups.push('system:serviceaccounts', `system:serviceaccounts:${namespace}`);
  const always = user === ANONYMOUS.name ? 'system:unauthenticated' : 'system:authenticated';
  return groups.includes(always) ? groups : [...groups, always];
}

/** Several headers of one name arrive as a list, or joined, depending on the protocol. */
function valuesOf(headers: Headers, name: string): string[] {
  const value = headers[name];
  const values = typeof value === 'string' ? value.split(', ') : (value ?? []);
  return values.filter((text) => text !== '');
}
