/** Services and pods for tests. */
import type { ContainerPort, Pod, PodPhase, PodSpec } from '#api/core/v1/pod.ts';
import type { Service, ServiceSpec } from '#api/core/v1/service.ts';

export function service(spec: ServiceSpec = {}, name = 'web'): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default', uid: `uid-${name}` },
    spec: {
      selector: { app: name },
      ports: [{ port: 80, targetPort: 8080 }],
      clusterIP: '10.96.0.1',
      ipFamilies: ['IPv4'],
      ...spec,
    },
  };
}

export function pod(
  name: string,
  options: {
    ip: string;
    ip6?: string;
    node?: string;
    namespace?: string;
    labels?: Record<string, string>;
    phase?: PodPhase;
    ready?: boolean | undefined;
    deleting?: boolean;
    ports?: ContainerPort[];
    spec?: Partial<PodSpec>;
  },
): Pod {
  const { ip, ip6, node, namespace = 'default', labels = { app: 'web' }, ports, spec } = options;
  const isReady = 'ready' in options ? options.ready : true;
  const podIPs = [ip, ip6].flatMap((address) => (address ? [{ ip: address }] : []));
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace,
      uid: `uid-${name}`,
      labels,
      ...(options.deleting ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}),
    },
    spec: {
      containers: [{ name: 'main', ...(ports === undefined ? {} : { ports }) }],
      ...(node === undefined ? {} : { nodeName: node }),
      ...spec,
    },
    status: {
      phase: options.phase ?? 'Running',
      podIPs,
      ...(isReady === undefined
        ? {}
        : { conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }] }),
    },
  };
}
