/**
 * All roles and bindings in memory, arranged by subject, so that a decision costs what the subject was granted and not
 * what exists. Followed by a watch on the store; a decision is as fresh as that watch, which is milliseconds.
 */
import type { ClusterRole, Role } from '#api/rbac/v1/role.ts';
import type { ClusterRoleBinding, RoleBinding } from '#api/rbac/v1/role-binding.ts';
import { type PolicyRule, RBAC_GROUP, type RoleRef, type Subject } from '#api/rbac/v1/rules.ts';
import { Backoff } from '#lib/backoff.ts';
import { type Clock, pause } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Store } from '#store/port.ts';
import type { Principal } from '../principal.ts';
import { decodeEntry } from '../registry/codec.ts';
import { REGISTRY_PREFIX } from '../registry/keys.ts';
import { type AccessRequest, ruleAllows } from './rules.ts';

export type RbacObject = Role | ClusterRole | RoleBinding | ClusterRoleBinding;

const PREFIX = `${REGISTRY_PREFIX}${RBAC_GROUP}/`;
const ACCOUNT_PREFIX = 'system:serviceaccount:';

/** That a subject has a role, in a namespace or (empty) everywhere. */
interface Grant {
  readonly namespace: string;
  readonly roleRef: RoleRef;
  /** For explanations: `ClusterRoleBinding "x"`. */
  readonly binding: string;
}

/** Reads of a set of roles and bindings. */
export interface RbacPolicy {
  /** @returns by which binding the request is allowed, or `undefined` */
  allows(principal: Principal, request: AccessRequest): string | undefined;
  /** All rules of the principal that count in a namespace; empty: those that count everywhere. */
  rulesOf(principal: Principal, namespace: string): readonly PolicyRule[];
}

/** A set of roles and bindings that never changes. */
export function createPolicy(objects: Iterable<RbacObject>): RbacPolicy {
  const roles = new Map<string, readonly PolicyRule[]>();
  const grants = new Map<string, Grant[]>();
  for (const object of objects) {
    const { namespace = '', name } = object.metadata;
    if (object.kind === 'Role' || object.kind === 'ClusterRole')
      roles.set(roleKey(object.kind, namespace, name), object.rules ?? []);
    else
      for (const subject of object.subjects ?? []) {
        const key = subjectKey(subject, namespace);
        const list = grants.get(key);
        const binding = `${object.kind} "${namespace === '' ? name : `${name}/${namespace}`}"`;
        const grant = { namespace, roleRef: object.roleRef, binding };
        if (list === undefined) grants.set(key, [grant]);
        else list.push(grant);
      }
  }
  function* grantsOf({ name, groups }: Principal, namespace: string): Generator<Grant> {
    for (const key of [`User:${name}`, ...groups.map((group) => `Group:${group}`)])
      for (const grant of grants.get(key) ?? [])
        if (grant.namespace === '' || grant.namespace === namespace) yield grant;
  }
  const rulesOfGrant = ({ namespace, roleRef }: Grant) =>
    roles.get(roleKey(roleRef.kind, namespace, roleRef.name)) ?? [];
  return {
    allows(principal, request) {
      const namespace = request.type === 'resource' ? request.namespace : '';
      for (const grant of grantsOf(principal, namespace))
        if (rulesOfGrant(grant).some((rule) => ruleAllows(rule, request)))
          return `${grant.binding} of ${grant.roleRef.kind} "${grant.roleRef.name}"`;
      return undefined;
    },
    rulesOf: (principal, namespace) => [...grantsOf(principal, namespace)].flatMap(rulesOfGrant),
  };
}

function roleKey(kind: RoleRef['kind'], namespace: string, name: string): string {
  return kind === 'ClusterRole' ? `ClusterRole:${name}` : `Role:${namespace}/${name}`;
}

/**
 * A service account is the user that its tokens authenticate as.
 * @param home the namespace of the binding, whose accounts need not say theirs
 */
function subjectKey({ kind, namespace, name }: Subject, home: string): string {
  return kind === 'ServiceAccount'
    ? `User:${ACCOUNT_PREFIX}${namespace || home}:${name}`
    : `${kind}:${name}`;
}

export interface LivePolicy extends RbacPolicy, AsyncDisposable {
  /** Reads everything anew: what was written before counts when this resolves. */
  reload(): Promise<void>;
}

/** A set of roles and bindings that is what the store says. Allows nothing before the first {@link LivePolicy.reload}. */
export function followPolicy(options: {
  readonly store: Store;
  readonly log: Logger;
  readonly clock: Clock;
}): LivePolicy {
  const { store, log, clock } = options;
  const stop = new AbortController();
  let objects = new Map<string, RbacObject>();
  let built: RbacPolicy | undefined;
  let revision = 0;
  const current = () => {
    // Built when it is asked for: a burst of changes is paid once.
    built ??= createPolicy(objects.values());
    return built;
  };
  const reload = async () => {
    const listed = await store.list(PREFIX);
    // A watch that was faster has what the list has, and more.
    if (listed.revision < revision) return;
    objects = new Map(
      listed.entries.map((entry) => [entry.key, decodeEntry(entry) as RbacObject] as const),
    );
    revision = listed.revision;
    built = undefined;
  };
  const follow = async () => {
    for await (const batch of store.watch(PREFIX, revision, { signal: stop.signal })) {
      if (batch.revision <= revision) continue;
      for (const event of batch.events)
        if (event.type === 'put')
          objects.set(event.entry.key, decodeEntry(event.entry) as RbacObject);
        else objects.delete(event.key);
      revision = batch.revision;
      built = undefined;
    }
  };
  const backoff = new Backoff({ minMs: 100, maxMs: 10_000 });
  const following = (async () => {
    while (!stop.signal.aborted)
      try {
        await reload();
        await follow();
        // It ends without an error only when the store or we end.
        return;
      } catch (error) {
        // A store that was restored from a copy may have gone back: what it says now counts.
        revision = 0;
        log.warn({ error: explainError(error) }, 'rbac: the watch ended; reading everything anew');
        await pause(clock, backoff.next(), stop.signal);
      }
  })();
  return {
    allows: (principal, request) => current().allows(principal, request),
    rulesOf: (principal, namespace) => current().rulesOf(principal, namespace),
    reload,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await following;
    },
  };
}
