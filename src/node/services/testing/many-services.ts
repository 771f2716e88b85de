/** As many services as wanted, all alike, for tests and benchmarks at size. */
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';

/** @param network first number of the address; more than 16 bits of the index add to the second */
export function addressOf(network: number, index: number, second = 0): string {
  return `${network}.${second + (index >>> 16)}.${(index >>> 8) & 255}.${index & 255}`;
}

export function clusterIpOf(index: number): string {
  return addressOf(10, index, 96);
}

export function serviceOf(index: number): Service {
  const clusterIP = clusterIpOf(index);
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `service-${index}`, namespace: 'default', uid: `uid-${index}` },
    spec: {
      ...{ type: 'ClusterIP', clusterIP, clusterIPs: [clusterIP], selector: { app: `a${index}` } },
      ports: [{ name: 'http', port: 80, protocol: 'TCP', targetPort: 8080 }],
    },
  };
}

/** @param generation gives the first endpoint another address */
export function sliceOf(index: number, endpoints: number, generation = 0): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `service-${index}-1`,
      namespace: 'default',
      uid: `slice-${index}`,
      labels: { 'kubernetes.io/service-name': `service-${index}` },
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    endpoints: Array.from({ length: endpoints }, (_, i) => ({
      addresses: [
        i === 0 && generation > 0
          ? addressOf(172, generation, 16)
          : addressOf(11, index * endpoints + i),
      ],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName: `m${1 + (i % 50)}`,
      targetRef: {
        kind: 'Pod',
        name: `pod-${index}-${i}`,
        namespace: 'default',
        uid: `${index}-${i}`,
      },
    })),
  };
}
