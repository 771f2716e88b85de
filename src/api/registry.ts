/** All kinds that Tulle knows, and how they are found. */
import { CUSTOM_RESOURCE_DEFINITION } from './apiextensions/v1/custom-resource-definition.ts';
import { LEASE } from './coordination/v1/lease.ts';
import { CONFIG_MAP } from './core/v1/config-map.ts';
import { ENDPOINTS } from './core/v1/endpoints.ts';
import { EVENT } from './core/v1/event.ts';
import { NAMESPACE } from './core/v1/namespace.ts';
import { NODE } from './core/v1/node.ts';
import { POD } from './core/v1/pod.ts';
import { SECRET } from './core/v1/secret.ts';
import { SERVICE } from './core/v1/service.ts';
import { SERVICE_ACCOUNT } from './core/v1/service-account.ts';
import { ENDPOINT_SLICE } from './discovery/v1/endpoint-slice.ts';
import { EVENTS_EVENT } from './events/v1/event.ts';
import { apiVersionOf, type KindDefinition } from './kind.ts';
import { INGRESS } from './networking/v1/ingress.ts';
import { INGRESS_CLASS } from './networking/v1/ingress-class.ts';
import { NETWORK_POLICY } from './networking/v1/network-policy.ts';
import { SERVICE_CIDR } from './networking/v1/service-cidr.ts';
import { CLUSTER_NETWORK_POLICY } from './policy/v1alpha2/cluster-network-policy.ts';
import { CLUSTER_ROLE, ROLE } from './rbac/v1/role.ts';
import { CLUSTER_ROLE_BINDING, ROLE_BINDING } from './rbac/v1/role-binding.ts';
import { IP_BLOCK } from './tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from './tulle/v1alpha1/ip-pool.ts';
import { POLICY_USAGE } from './tulle/v1alpha1/policy-usage.ts';
import { SERVICE_ADDRESS_POOL } from './tulle/v1alpha1/service-address-pool.ts';

/** In the order in which `kubectl api-resources` and name look-ups prefer them. */
export const KINDS: readonly KindDefinition[] = [
  CONFIG_MAP,
  ENDPOINTS,
  EVENT,
  NAMESPACE,
  NODE,
  POD,
  SECRET,
  SERVICE_ACCOUNT,
  SERVICE,
  EVENTS_EVENT,
  CUSTOM_RESOURCE_DEFINITION,
  LEASE,
  ENDPOINT_SLICE,
  INGRESS_CLASS,
  INGRESS,
  NETWORK_POLICY,
  SERVICE_CIDR,
  CLUSTER_ROLE_BINDING,
  CLUSTER_ROLE,
  ROLE_BINDING,
  ROLE,
  CLUSTER_NETWORK_POLICY,
  IP_BLOCK,
  IP_POOL,
  POLICY_USAGE,
  SERVICE_ADDRESS_POOL,
];

const BY_RESOURCE = new Map(
  KINDS.map((kind) => [`${apiVersionOf(kind)}/${kind.resource}`, kind] as const),
);
const BY_KIND = new Map(KINDS.map((kind) => [`${apiVersionOf(kind)}/${kind.kind}`, kind] as const));

/** Finds a kind by its place in the URL. @param group '' for the core group */
export function kindByResource(
  group: string,
  version: string,
  resource: string,
): KindDefinition | undefined {
  return BY_RESOURCE.get(`${apiVersionOf({ group, version })}/${resource}`);
}

/** Finds a kind by `apiVersion` and `kind` of an object. */
export function kindByApiVersion(apiVersion: string, kind: string): KindDefinition | undefined {
  return BY_KIND.get(`${apiVersion}/${kind}`);
}

/** Finds a kind by group, version and kind. @param group '' for the core group */
export function kindByGvk(
  group: string,
  version: string,
  kind: string,
): KindDefinition | undefined {
  return BY_KIND.get(`${apiVersionOf({ group, version })}/${kind}`);
}

/**
 * Finds a kind by what a person types: plural, singular, short name or kind, in any case, and optionally
 * with a part of the group: `svc`, `Services`, `endpointslices.discovery.k8s.io`.
 */
export function kindByName(name: string): KindDefinition | undefined {
  const [word = '', ...group] = name.toLowerCase().split('.');
  const groupPrefix = group.join('.');
  return KINDS.find(
    (kind) =>
      (groupPrefix === '' ||
        kind.group === groupPrefix ||
        kind.group.startsWith(`${groupPrefix}.`)) &&
      [kind.resource, kind.singular, kind.kind.toLowerCase(), ...kind.shortNames].includes(word),
  );
}
