/**
 * Nobody gives away more than they have: a role may hold, and a binding may refer to, only rules that its writer has
 * too, unless somebody allowed the writer to `escalate` or to `bind`.
 */

import { sameJson } from '#api/machinery/json.ts';
import { forbidden, notFound } from '#api/machinery/status.ts';
import { CLUSTER_ROLE, type ClusterRole, ROLE, type Role } from '#api/rbac/v1/role.ts';
import type { RoleBinding } from '#api/rbac/v1/role-binding.ts';
import { type PolicyRule, RBAC_GROUP } from '#api/rbac/v1/rules.ts';
import type { Authorizer } from '../authz.ts';
import { isMaster, type Principal } from '../principal.ts';
import { formatRule, uncoveredRules } from '../rbac/rules.ts';
import { decodeEntry } from '../registry/codec.ts';
import { objectKey } from '../registry/keys.ts';
import type { AdmissionPlugin, AdmissionReview } from './admission.ts';

/** What a refusal lists; the rest is counted. */
const MAX_SHOWN_RULES = 10;

type Change = AdmissionReview & { operation: 'CREATE' | 'UPDATE' };

const EVERYTHING: readonly PolicyRule[] = [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }];

export function createRbacEscalation(authorizer: Authorizer): AdmissionPlugin {
  return {
    name: 'RbacEscalation',
    async review(review) {
      if (review.kind.group !== RBAC_GROUP || isMaster(review.principal)) return undefined;
      if (review.operation !== 'CREATE' && review.operation !== 'UPDATE') return undefined;
      if (review.kind.resource === 'roles' || review.kind.resource === 'clusterroles')
        checkRole(review, authorizer);
      else await checkBinding(review, authorizer);
      return undefined;
    },
  };
}

function checkRole(review: Change, authorizer: Authorizer): void {
  const role = review.object as Role | ClusterRole;
  const old = review.old as Role | ClusterRole | undefined;
  if (old !== undefined && sameJson(rulesPart(role), rulesPart(old))) return;
  if (
    may(authorizer, review, { verb: 'escalate', resource: review.kind.resource, name: review.name })
  )
    return;
  // Which rules an aggregated role will have, others decide: it takes who has everything.
  const wanted =
    'aggregationRule' in role && role.aggregationRule ? EVERYTHING : (role.rules ?? []);
  refuseUncovered(review, authorizer, wanted);
}

function rulesPart(role: Role | ClusterRole): object {
  return {
    rules: role.rules ?? [],
    aggregation: role.kind === 'ClusterRole' ? (role.aggregationRule ?? null) : null,
  };
}

async function checkBinding(review: Change, authorizer: Authorizer): Promise<void> {
  const { roleRef, subjects } = review.object as RoleBinding;
  const old = review.old as RoleBinding | undefined;
  // What is wrong with a reference is for validation to say.
  if (roleRef?.name === undefined) return;
  if (old !== undefined && sameJson([old.roleRef, old.subjects ?? []], [roleRef, subjects ?? []]))
    return;
  const isCluster = roleRef.kind === 'ClusterRole';
  const resource = isCluster ? 'clusterroles' : 'roles';
  if (may(authorizer, review, { verb: 'bind', resource, name: roleRef.name })) return;
  const kind = isCluster ? CLUSTER_ROLE : ROLE;
  const entry = await review.store.get(
    objectKey(kind, isCluster ? '' : review.namespace, roleRef.name),
  );
  if (entry === undefined) throw notFound(kind, roleRef.name);
  refuseUncovered(review, authorizer, (decodeEntry(entry) as Role).rules ?? []);
}

function may(
  authorizer: Authorizer,
  { principal, namespace }: Change,
  access: { verb: string; resource: string; name: string },
): boolean {
  return authorizer.decide(principal, {
    type: 'resource',
    group: RBAC_GROUP,
    subresource: '',
    namespace,
    ...access,
  }).allowed;
}

function refuseUncovered(
  review: Change,
  authorizer: Authorizer,
  wanted: readonly PolicyRule[],
): void {
  const { kind, name, principal, namespace } = review;
  const missing = uncoveredRules(authorizer.rulesOf(principal, namespace), wanted);
  if (missing?.length === 0) return;
  const why =
    missing === undefined
      ? 'the rules are too many to compare them with your own'
      : `user ${describe(principal)} is attempting to grant RBAC permissions not currently held:\n${formatMissing(missing)}`;
  throw forbidden(kind, name, why);
}

function describe({ name, groups }: Principal): string {
  return `${JSON.stringify(name)} (groups=${JSON.stringify(groups)})`;
}

function formatMissing(rules: readonly PolicyRule[]): string {
  const lines = rules.slice(0, MAX_SHOWN_RULES).map(formatRule);
  const more = rules.length - lines.length;
  return [...lines, ...(more > 0 ? [`and ${more} more`] : [])].join('\n');
}
