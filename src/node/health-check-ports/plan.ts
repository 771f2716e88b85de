/** Pure: which services' health this node tells on which port, and what it answers. As kube-proxy's `healthcheck` package. */
import { needsHealthCheckNodePort, type Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';

/** What is told on one port. */
export interface HealthCheckPort {
  readonly port: number;
  readonly namespace: string;
  readonly name: string;
}

/** The ports that the services ask for; of two that have one port only the first by name is told. */
export function planHealthCheckPorts(services: Iterable<Service>): Map<number, HealthCheckPort> {
  const ports = new Map<number, HealthCheckPort>();
  for (const { metadata, spec } of services) {
    const port = spec.healthCheckNodePort;
    if (!port || !needsHealthCheckNodePort(spec)) continue;
    const wanted = { port, namespace: metadata.namespace ?? '', name: metadata.name };
    const other = ports.get(port);
    if (other === undefined || keyOf(wanted) < keyOf(other)) ports.set(port, wanted);
  }
  return ports;
}

function keyOf({ namespace, name }: HealthCheckPort): string {
  return `${namespace}/${name}`;
}

/**
 * Endpoints on this node that may get new connections. One that is ending does not count, even if it still serves: the
 * load balancer shall go elsewhere. The same address in several slices is one endpoint.
 */
export function countLocalEndpoints(slices: Iterable<EndpointSlice>, nodeName: string): number {
  const local = new Set<string>();
  for (const slice of slices)
    for (const endpoint of slice.endpoints ?? [])
      if (endpoint.nodeName === nodeName && (endpoint.conditions?.ready ?? true))
        local.add(endpoint.targetRef?.uid ?? endpoint.addresses[0] ?? '');
  return local.size;
}

export interface HealthCheckAnswer {
  readonly status: 200 | 503;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** @param isProxyHealthy whether what is in the kernel is what the API says */
export function answerHealthCheck(
  { namespace, name }: HealthCheckPort,
  localEndpoints: number,
  isProxyHealthy: boolean,
): HealthCheckAnswer {
  return {
    status: localEndpoints > 0 && isProxyHealthy ? 200 : 503,
    headers: {
      'content-type': 'application/json',
      'x-content-type-options': 'nosniff',
      'x-load-balancing-endpoint-weight': String(localEndpoints),
    },
    body: JSON.stringify({
      service: { namespace, name },
      localEndpoints,
      serviceProxyHealthy: isProxyHealthy,
    }),
  };
}
