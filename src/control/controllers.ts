/** All controllers, over one set of caches. */
import { LEASE } from '#api/coordination/v1/lease.ts';
import { ENDPOINTS } from '#api/core/v1/endpoints.ts';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, MANAGED_BY_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import { SERVICE_CIDR } from '#api/networking/v1/service-cidr.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { SERVICE_ADDRESS_POOL } from '#api/tulle/v1alpha1/service-address-pool.ts';
import { startCache } from '#client/cache.ts';
import { createEventRecorder } from '#client/events.ts';
import type { ApiClient } from '#client/port.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { startAddressPools } from './address-pools/address-pools.ts';
import { startEndpointSlices } from './endpoint-slices/endpoint-slices.ts';
import { startEndpoints } from './endpoint-slices/mirror.ts';
import { MIRRORED_BY } from './endpoint-slices/mirror-plan.ts';
import { MANAGED_BY } from './endpoint-slices/plan.ts';
import { startLoadBalancers } from './load-balancers/load-balancers.ts';
import { startNodeLifecycle } from './node-lifecycle/node-lifecycle.ts';
import { LEASE_NAMESPACE } from './node-lifecycle/plan.ts';
import { startPodGc } from './pod-gc/pod-gc.ts';
import { startPoolStatus } from './pool-status/pool-status.ts';
import { startServiceAccounts } from './service-accounts/service-accounts.ts';
import { startServiceCidrs } from './service-cidrs/service-cidrs.ts';

export interface ControllersOptions {
  readonly client: ApiClient;
  readonly log: Logger;
  readonly clock?: Clock;
}

export interface Controllers extends AsyncDisposable {
  /** What is wrong at the moment, a line each; empty if nothing is. */
  problems(): readonly string[];
  /** Resolves when every controller has done what it knows of. */
  settled(): Promise<void>;
}

/**
 * Starts the controllers. They do nothing until they know the whole state, and take up again whatever a run before left
 * unfinished. Only one set of them should run in a cluster; two would only be wasteful: every write is conditional.
 */
export function startControllers(options: ControllersOptions): Controllers {
  const { client, clock = systemClock } = options;
  const log = options.log.child({ component: 'controllers' });
  const stack = new AsyncDisposableStack();
  const common = { log, clock };
  const services = stack.use(startCache(client, SERVICE, common));
  const pods = stack.use(startCache(client, POD, common));
  const nodes = stack.use(startCache(client, NODE, common));
  const leases = stack.use(startCache(client, LEASE, { ...common, namespace: LEASE_NAMESPACE }));
  const slices = stack.use(
    startCache(client, ENDPOINT_SLICE, {
      ...common,
      labelSelector: `${MANAGED_BY_LABEL}=${MANAGED_BY}`,
    }),
  );
  const mirrored = stack.use(
    startCache(client, ENDPOINT_SLICE, {
      ...common,
      labelSelector: `${MANAGED_BY_LABEL}=${MIRRORED_BY}`,
    }),
  );
  const endpoints = stack.use(startCache(client, ENDPOINTS, common));
  const pools = stack.use(startCache(client, SERVICE_ADDRESS_POOL, common));
  const events = stack.use(
    createEventRecorder(client, { ...common, component: 'tulle-controllers' }),
  );
  const base = { ...common, client, pods, nodes };
  const endpointSlices = stack.use(startEndpointSlices({ ...base, services, slices }));
  const endpointsController = stack.use(
    startEndpoints({ ...common, client, services, endpoints, slices, mirrored }),
  );
  const loadBalancers = stack.use(
    startLoadBalancers({ ...common, client, services, pools, events }),
  );
  const nodeLifecycle = stack.use(startNodeLifecycle({ ...base, leases, events }));
  const podGc = stack.use(startPodGc(base));
  const ipPools = stack.use(startCache(client, IP_POOL, common));
  const blocks = stack.use(startCache(client, IP_BLOCK, common));
  const poolStatus = stack.use(startPoolStatus({ ...common, client, pools: ipPools, blocks }));
  const addressPools = stack.use(startAddressPools({ ...base, blocks, pools: ipPools }));
  const cidrs = stack.use(startCache(client, SERVICE_CIDR, common));
  const serviceCidrs = stack.use(startServiceCidrs({ ...common, client, cidrs, services }));
  const accounts = stack.use(startServiceAccounts({ ...common, client }));
  const caches = {
    ...{ services, pods, nodes, leases, endpointslices: slices },
    ...{ endpoints, serviceaddresspools: pools },
    'mirrored endpointslices': mirrored,
  };
  return {
    problems: () => [
      ...Object.entries(caches)
        .filter(([, cache]) => !cache.isConnected)
        .map(([resource]) => `the watch of ${resource} is down`),
      ...endpointSlices.failing.map((key) => `the endpoint slices of ${key} cannot be written`),
      ...endpointsController.failing.map((key) => `the Endpoints of ${key} cannot be written`),
      ...loadBalancers.failing.map((key) => `the load balancer of ${key} cannot be written`),
    ],
    async settled() {
      await Promise.all(
        [
          endpointSlices,
          endpointsController,
          loadBalancers,
          nodeLifecycle,
          podGc,
          poolStatus,
          addressPools,
          serviceCidrs,
          accounts,
        ].map((it) => it.settled()),
      );
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
