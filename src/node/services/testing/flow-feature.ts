/** The service feature over an API that has the services of the table of flows, as the tests of it start it. */
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { cidr } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { Ruleset } from '../../ruleset.ts';
import { Connections } from '../connections.ts';
import { Services } from '../services.ts';
import { ADDRESS, type FlowService, serviceObject, sliceObject } from './flows.ts';

/** The first two lie side by side. */
export const SERVICE_NETWORKS = ['10.96.0.0/16', '10.97.0.0/24', 'fd00:96::/112', 'fd00:97::/112'];

export interface FlowFeature {
  readonly api: FakeApi;
  readonly rulesets: readonly Ruleset[];
  readonly feature: Services;
  /** There with `conntrack`. */
  readonly connections: Connections | undefined;
}

/**
 * Resolves when the services are in the kernel, or in the fake.
 * @param stack ends all with it
 * @param options `conntrack`: entries that mislead are deleted there
 */
export async function startFlowFeature(
  stack: AsyncDisposableStack,
  nftables: Nftables,
  services: readonly FlowService[],
  options: { readonly conntrack?: Conntrack } = {},
): Promise<FlowFeature> {
  const api = new FakeApi();
  for (const service of services) {
    api.put(SERVICE, serviceObject(service));
    api.put(ENDPOINT_SLICE, sliceObject(service));
  }
  const log = silentLogger;
  const rulesets = (['ip', 'ip6'] as const).map((family) =>
    stack.use(new Ruleset({ nftables, log }, { family, table: 'tulle', parts: [] })),
  );
  const caches = {
    services: stack.use(startCache(api, SERVICE, { log })),
    slices: stack.use(startCache(api, ENDPOINT_SLICE, { log })),
  };
  const { conntrack } = options;
  const connections =
    conntrack === undefined
      ? undefined
      : stack.use(new Connections({ conntrack, services: () => feature, rulesets, log }));
  const feature: Services = stack.use(
    new Services(
      { rulesets, ...caches, log, onEndpointsLost: () => connections?.trigger() },
      {
        node: { nodeName: 'm1', zone: undefined },
        skipAddresses: [],
        nodePortAddresses: () => [ADDRESS[4].node, ADDRESS[6].node],
        serviceNetworks: () => SERVICE_NETWORKS.map(cidr),
      },
    ),
  );
  await feature.start();
  return { api, rulesets, feature, connections };
}
