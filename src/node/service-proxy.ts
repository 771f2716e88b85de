/** Services on this node, put together: the balancer, masquerade, the connections of lost endpoints, health-check ports. */
import { type Node, ZONE_LABEL } from '#api/core/v1/node.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Cidr, Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { count, type Health } from './health.ts';
import { HealthCheckPorts } from './health-check-ports/health-check-ports.ts';
import { HASH } from './kernel-features.ts';
import { Masquerade } from './masquerade/masquerade.ts';
import type { KernelGap } from './probe.ts';
import type { Ruleset } from './ruleset.ts';
import { Connections } from './services/connections.ts';
import { chooseNodePortAddresses } from './services/node-addresses.ts';
import { ServiceNetworks } from './services/service-networks.ts';
import { Services } from './services/services.ts';

export interface ServiceProxyComponents {
  readonly client: ApiClient;
  readonly stack: NetworkStack;
  readonly conntrack: Conntrack;
  readonly rulesets: readonly Ruleset[];
  readonly pools: Cache<IPPool>;
  readonly nodes: Cache<Node>;
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  readonly log: Logger;
}

export interface ServiceProxyInit {
  readonly nodeName: string;
  readonly nodeIp: Ip;
  /** Prefixes of the addresses on which node ports are open; none: the node's own address of each family. */
  readonly nodePortNetworks: readonly Cidr[];
  /** Until the node has a label that says it. */
  readonly zone: string | undefined;
  readonly kernelGaps: readonly KernelGap[];
  /** Cluster IPs that the node's DNS server answers on itself. */
  readonly dnsServiceIps: readonly Ip[];
}

/** Resolves when every service that the API has is in the ruleset. @param started ends it with the agent */
export async function startServiceProxy(
  started: AsyncDisposableStack,
  components: ServiceProxyComponents,
  init: ServiceProxyInit,
  health: Health,
): Promise<void> {
  const { client, stack, conntrack, rulesets, pools, nodes, services, slices, log } = components;
  const masquerade = started.use(new Masquerade({ rulesets, pools, log }));
  const connections = started.use(
    new Connections({ conntrack, services: () => balancer, rulesets, log }),
  );
  const nodePortAddresses = () =>
    chooseNodePortAddresses(stack.addresses.list(), [init.nodeIp], init.nodePortNetworks);
  const networks = started.use(
    new ServiceNetworks({ client, log }, { onChange: () => balancer.nodeChanged() }),
  );
  const balancer: Services = started.use(
    new Services(
      { rulesets, services, slices, log, onEndpointsLost: () => connections.trigger() },
      {
        node: { nodeName: init.nodeName, zone: init.zone },
        skipAddresses: init.dnsServiceIps,
        zone: () => zoneOf(nodes.get(init.nodeName)) ?? init.zone,
        nodePortAddresses,
        canHash: !init.kernelGaps.some(({ name }) => name === HASH),
        serviceNetworks: () => networks.list(),
      },
    ),
  );
  started.defer(
    stack.watch((event) => {
      if (event.type === 'address' || event.type === 'overrun') balancer.nodeChanged();
    }),
  );
  started.defer(
    nodes.onChange(({ key, old, current }) => {
      if (key === init.nodeName && zoneOf(old) !== zoneOf(current)) balancer.nodeChanged();
    }),
  );
  await networks.start();
  await Promise.all([masquerade.start(), balancer.start()]);
  const healthPorts = started.use(
    new HealthCheckPorts(
      { services, slices, isProxyHealthy: () => balancer.status().ready, log },
      { nodeName: init.nodeName, addresses: [init.nodeIp] },
    ),
  );
  healthPorts.start();
  health.add('ServicesReady', () => {
    const { ready, frontends, endpoints, problems } = balancer.status();
    const failures = [masquerade.problem, connections.problem, healthPorts.problem];
    const wrong = [...problems, ...failures.filter((it) => it !== undefined)];
    const counts = [count(frontends, 'frontend'), count(endpoints, 'endpoint')].join(', ');
    const message = [...(wrong.length > 0 ? wrong : [counts]), ...networks.notes()].join('; ');
    return { ready: ready && masquerade.problem === undefined, message };
  });
}

/** As the controller that writes hints knows it: people and clouds label nodes. */
function zoneOf(node: Node | undefined): string | undefined {
  return node?.metadata.labels?.[ZONE_LABEL];
}
