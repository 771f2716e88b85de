/**
 * Where things lie in the store.
 *
 *     /registry/<group|core>/<resource>/[<namespace>/]<name>     the objects, as JSON
 *     /tulle/allocations/clusterips/<ip>                          who owns a service address
 *     /tulle/allocations/nodeports/<protocol>/<port>              who owns a port on all nodes
 *     /tulle/allocations/loadbalancerips/<ip>                     who shares a load balancer's address
 *     /tulle/guards/…                                             what concurrent transactions compare
 */
import type { KindDefinition, KindRef } from '#api/kind.ts';

export const REGISTRY_PREFIX = '/registry/';
export const CLUSTER_IP_PREFIX = '/tulle/allocations/clusterips/';
export const NODE_PORT_PREFIX = '/tulle/allocations/nodeports/';
export const LOAD_BALANCER_IP_PREFIX = '/tulle/allocations/loadbalancerips/';

/** A kind, or another face of one. */
type StoredKind = KindRef & Pick<Partial<KindDefinition>, 'storedAs'>;

/** Prefix of all objects of a kind, or of those in one namespace. Ends in a slash. */
export function collectionPrefix(asked: StoredKind, namespace = ''): string {
  const kind = asked.storedAs?.kind ?? asked;
  const base = `${REGISTRY_PREFIX}${kind.group === '' ? 'core' : kind.group}/${kind.resource}/`;
  return kind.namespaced && namespace !== '' ? `${base}${namespace}/` : base;
}

export function objectKey(kind: StoredKind, namespace: string, name: string): string {
  return `${collectionPrefix(kind, namespace)}${name}`;
}

/** Written by every change of the set of pools, so that two pools made at once cannot both miss each other. */
export const POOL_SET_GUARD = '/tulle/guards/ippools';

/** Written by every cluster IP taken out of a ServiceCIDR, so that the range cannot go at that moment. */
export function serviceCidrGuard(name: string): string {
  return `/tulle/guards/servicecidrs/${name}`;
}

/** Written by every address given out of a pool for load balancers, so that the pool cannot lose it at that moment. */
export function addressPoolGuard(pool: string): string {
  return `/tulle/guards/serviceaddresspools/${pool}`;
}

/** Written by every new block of a pool, so that a pool cannot go while a block of it comes. */
export function poolBlocksGuard(pool: string): string {
  return `/tulle/guards/ippool-blocks/${pool}`;
}
