/** The registries of all kinds over one store, with the plugins that guard them. */
import { apiVersionOf, type KindDefinition } from '#api/kind.ts';
import type { Clock } from '#lib/clock.ts';
import type { Store } from '#store/port.ts';
import { createAddressPools } from './admission/address-pools.ts';
import type { AdmissionPlugin } from './admission/admission.ts';
import { customResources } from './admission/custom-resources.ts';
import { createIpPools } from './admission/ip-pools.ts';
import { loadBalancerAddresses } from './admission/load-balancer-addresses.ts';
import { namespaceExists } from './admission/namespace-exists.ts';
import { DEFAULT_NODE_PORT_RANGE } from './admission/node-ports.ts';
import { nodeRestriction } from './admission/node-restriction.ts';
import { createServiceAddresses } from './admission/service-addresses.ts';
import { createServiceCidrs, serviceRanges } from './admission/service-cidrs.ts';
import { createServicePorts } from './admission/service-ports.ts';
import type { ClusterConfiguration } from './configuration.ts';
import { createObjectLeases } from './registry/expiry.ts';
import { createResourceRegistry, type ResourceRegistry } from './registry/resource-registry.ts';

/** What names a resource in a URL. */
export interface ResourcePlace {
  readonly group: string;
  readonly version: string;
  readonly resource: string;
}

export interface Registries {
  /** What is served now: added kinds come and go. */
  readonly all: readonly ResourceRegistry[];
  /** The kinds of `all`, as one value that stays the same until they change. */
  readonly kinds: readonly KindDefinition[];
  /** Serves these beside the kinds that are always there, and no others that were added before. */
  setCustom(kinds: readonly KindDefinition[]): void;
  /** A registry for a kind that is not served, over the same store. */
  create(kind: KindDefinition): ResourceRegistry;
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
  /** Admission that decides who may, before all other. */
  readonly guards?: readonly AdmissionPlugin[];
}

export function createRegistries(options: RegistriesOptions): Registries {
  const { kinds, configuration, guards = [], ...context } = options;
  const plugins = [...guards, ...createPlugins(configuration, options.random)];
  const leases = createObjectLeases(context.store, context.clock);
  const create = (kind: KindDefinition) =>
    createResourceRegistry(kind, { ...context, plugins, leases });
  const fixed = kinds.map(create);
  let all = fixed;
  let served = kinds;
  let byPlace = placesOf(all);
  const find = (place: ResourcePlace) => byPlace.get(placeKey(place));
  return {
    get all() {
      return all;
    },
    get kinds() {
      return served;
    },
    setCustom(custom) {
      if (
        custom.length === all.length - fixed.length &&
        custom.every((kind) => served.includes(kind))
      )
        return;
      served = [...kinds, ...custom];
      all = [...fixed, ...custom.map(create)];
      byPlace = placesOf(all);
    },
    create,
    find,
    of(place) {
      const registry = find(place);
      if (registry === undefined) throw new TypeError(`no kind is served as ${placeKey(place)}`);
      return registry;
    },
  };
}

function placesOf(registries: readonly ResourceRegistry[]): Map<string, ResourceRegistry> {
  return new Map(registries.map((registry) => [placeKey(registry.kind), registry]));
}

/** In the order in which they review: who may, where, and only then what it takes. */
function createPlugins(
  { serviceCidrs, nodePortRange = DEFAULT_NODE_PORT_RANGE }: RegistriesOptions['configuration'],
  random: () => number,
): readonly AdmissionPlugin[] {
  return [
    nodeRestriction,
    namespaceExists,
    customResources,
    createIpPools({
      serviceCidrs: async (store) =>
        (await serviceRanges(store, serviceCidrs)).map(({ cidr }) => cidr),
    }),
    createServiceCidrs({ serviceCidrs }),
    createAddressPools({
      serviceCidrs: async (store) =>
        (await serviceRanges(store, serviceCidrs)).map(({ cidr }) => cidr),
    }),
    createServiceAddresses({ serviceCidrs, random }),
    createServicePorts({ nodePortRange, random }),
    loadBalancerAddresses,
  ];
}

function placeKey(place: ResourcePlace): string {
  return `${apiVersionOf(place)}/${place.resource}`;
}
