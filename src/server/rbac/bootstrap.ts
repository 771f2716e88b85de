/** Makes the default roles and bindings, and puts back what is missing in them. Safe at every start. */
import { CLUSTER_ROLE } from '#api/rbac/v1/role.ts';
import { CLUSTER_ROLE_BINDING } from '#api/rbac/v1/role-binding.ts';
import { isAlreadyExists, isNotFound } from '#lib/errors.ts';
import type { BootstrapOptions } from '../bootstrap.ts';
import { SERVER_PRINCIPAL } from '../principal.ts';
import { completeDefault, DEFAULT_RBAC_OBJECTS } from './default-roles.ts';
import type { RbacObject } from './policy.ts';

const WRITE_OPTIONS = { principal: SERVER_PRINCIPAL, dryRun: false } as const;

export async function bootstrapRbac({
  registryOf,
}: Pick<BootstrapOptions, 'registryOf'>): Promise<void> {
  for (const wanted of DEFAULT_RBAC_OBJECTS) {
    const registry = registryOf(
      wanted.kind === 'ClusterRole' ? CLUSTER_ROLE : CLUSTER_ROLE_BINDING,
    );
    const target = { namespace: '', name: wanted.metadata.name };
    try {
      await registry.update(
        target,
        (stored) => completeDefault(stored as RbacObject, wanted),
        WRITE_OPTIONS,
      );
      continue;
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    try {
      await registry.create('', wanted, WRITE_OPTIONS);
    } catch (error) {
      // Another server of the cluster was faster.
      if (!isAlreadyExists(error)) throw error;
    }
  }
}
