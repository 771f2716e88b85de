/** The registries of all kinds over one store, with the plugins that guard them. */
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';
import type { Clock } from '#lib/clock.ts';
import type { Store } from '#store/port.ts';
import { createAddressPools } from './admission/address-pools.ts';
import type { AdmissionPlugin } from './admission/admission.ts';
import { createIpPools } from './admission/ip-pools.ts';
import { loadBalancerAddresses } from './admission/load-balancer-addresses.ts';
import { namespaceExists } from './admission/namespace-exists.ts';
import { DEFAULT_NODE_PORT_RANGE } from './admission/node-ports.ts';
import { nodeRestriction } from './admission/node-restriction.ts';
import { createServiceAddresses } from './admission/service-addresses.ts';
import { createServicePorts } from './admission/service-ports.ts';
import type { ClusterConfiguration } from './configuration.ts';
import { createResourceRegistry, type ResourceRegistry } from './registry/resource-registry.ts';

/** What names a resource in a URL. */
export interface ResourcePlace {
  readonly group: string;
  readonly version: string;
  readonly resource: string;
}

export interface Registries {
  readonly all: readonly ResourceRegistry[];
  /** @returns `undefined` if there is no such resource */
  find(place: ResourcePlace): ResourceRegistry | undefined;
  /** @throws TypeError for a kind that is not served: a mistake in the program */
  of(place: ResourcePlace): ResourceRegistry;
}

export interface RegistriesOptions {
  readonly kinds: readonly KindDefinition[];
  readonly store: Store;
  readonly clock: Clock;
  readonly configuration: Pick<ClusterConfiguration, 'serviceCidrs' | 'nodePortRange'>;
  readonly createUid: () => string;
  /** A number in [0, 1). */
  readonly random: () => number;
}

export function createRegistries(options: RegistriesOptions): Registries {
  const { kinds, configuration, ...context } = options;
  const plugins = createPlugins(configuration, options.random);
  const byPlace = new Map(
    kinds.map((kind) => [placeKey(kind), createResourceRegistry(kind, { ...context, plugins })]),
  );
  const find = (place: ResourcePlace) => byPlace.get(placeKey(place));
  return {
    all: [...byPlace.values()],
    find,
    of(place) {
      const registry = find(place);
      if (registry === undefined) throw new TypeError(`no kind is served as ${placeKey(place)}`);
      return registry;
    },
  };
}

/** In the order in which they review: who may, where, and only then what it takes. */
function createPlugins(
  { serviceCidrs, nodePortRange = DEFAULT_NODE_PORT_RANGE }: RegistriesOptions['configuration'],
  random: () => number,
): readonly AdmissionPlugin[] {
  return [
    nodeRestriction,
    namespaceExists,
    createIpPools({ serviceCidrs }),
    createAddressPools({ serviceCidrs: async () => serviceCidrs }),
    createServiceAddresses({ serviceCidrs, random }),
    createServicePorts({ nodePortRange, random }),
    loadBalancerAddresses,
  ];
}

function placeKey(place: ResourcePlace): string {
  return `${apiVersionOf(place)}/${place.resource}`;
}
