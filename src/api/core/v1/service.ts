/** Service: a name and a stable address for a set of endpoints. `k8s.io/api/core/v1`. */
import type { KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN, NONE, wideColumn } from '../../machinery/columns.ts';
import { formatLabels } from '../../machinery/label-selector.ts';
import {
  boolean,
  CONDITION_SCHEMA,
  int32,
  intOrString,
  kindSchema,
  list,
  object,
  oneOf,
  string,
  stringMap,
  strings,
} from '../../machinery/schema.ts';
import type { Condition, KubeObject } from '../../meta.ts';
import { PROTOCOLS, type Protocol } from './protocol.ts';
import { isReachedFromOutside, validateService } from './service-validation.ts';

export type ServiceType = 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName';
export type IpFamilyName = 'IPv4' | 'IPv6';
export type IpFamilyPolicy = 'SingleStack' | 'PreferDualStack' | 'RequireDualStack';
export type TrafficPolicy = 'Cluster' | 'Local';

export interface ServicePort {
  name?: string;
  protocol?: Protocol;
  appProtocol?: string;
  port: number;
  /** A port number, or the name of a port of the pods' containers. */
  targetPort?: number | string;
  nodePort?: number;
}

export interface ServiceSpec {
  ports?: ServicePort[];
  selector?: Record<string, string>;
  /** `None` for a headless service, empty for ExternalName. */
  clusterIP?: string;
  /** One per family, the primary first; `clusterIPs[0]` is `clusterIP`. */
  clusterIPs?: string[];
  type?: ServiceType;
  externalIPs?: string[];
  sessionAffinity?: 'None' | 'ClientIP';
  sessionAffinityConfig?: { clientIP?: { timeoutSeconds?: number } };
  loadBalancerIP?: string;
  loadBalancerSourceRanges?: string[];
  loadBalancerClass?: string;
  allocateLoadBalancerNodePorts?: boolean;
  externalName?: string;
  externalTrafficPolicy?: TrafficPolicy;
  internalTrafficPolicy?: TrafficPolicy;
  healthCheckNodePort?: number;
  publishNotReadyAddresses?: boolean;
  ipFamilies?: IpFamilyName[];
  ipFamilyPolicy?: IpFamilyPolicy;
  trafficDistribution?: string;
}

export interface LoadBalancerIngress {
  ip?: string;
  hostname?: string;
  ipMode?: 'VIP' | 'Proxy';
  ports?: { port: number; protocol: Protocol; error?: string }[];
}

export interface ServiceStatus {
  loadBalancer?: { ingress?: LoadBalancerIngress[] };
  conditions?: Condition[];
}

export interface Service extends KubeObject {
  apiVersion: 'v1';
  kind: 'Service';
  spec: ServiceSpec;
  status?: ServiceStatus;
}

/** Three hours, as upstream. */
export const DEFAULT_AFFINITY_SECONDS = 10800;

const POLICIES = ['Cluster', 'Local'];

const PORT_SCHEMA = object(
  'ServicePort',
  {
    name: string('Needed if the service has more than one port. A DNS label.'),
    protocol: { ...oneOf(PROTOCOLS, 'Default TCP.'), default: 'TCP' },
    appProtocol: string('What is spoken over the port, as a hint.'),
    port: int32('The port that clients use.'),
    targetPort: intOrString(
      'The port of the pods: a number, or the name of a port of their containers. Default: the value of port.',
    ),
    nodePort: int32(
      'The port on every node, for NodePort and LoadBalancer. Usually left to the server.',
    ),
  },
  { required: ['port'], description: 'A port of the service.' },
);

const SPEC_SCHEMA = object(
  'ServiceSpec',
  {
    ports: list(PORT_SCHEMA, 'The ports of the service.', {
      mergeKey: 'port',
      mapKeys: ['port', 'protocol'],
    }),
    selector: {
      ...stringMap(
        'Labels of the pods that are the endpoints. Without one, endpoints are managed by somebody else.',
      ),
      atomic: true,
    },
    clusterIP: string(
      'The address of the service; "None" for a headless one. Usually left to the server.',
    ),
    clusterIPs: strings('The addresses of the service, at most one of each family.'),
    type: oneOf(
      ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'],
      'How the service is reached. Default ClusterIP.',
    ),
    externalIPs: strings('Addresses that nodes also take traffic for the service on.'),
    sessionAffinity: oneOf(
      ['None', 'ClientIP'],
      'Whether a client stays with one endpoint. Default None.',
    ),
    sessionAffinityConfig: object('SessionAffinityConfig', {
      clientIP: object('ClientIPConfig', {
        timeoutSeconds: int32(
          'How long a client that sends nothing is remembered: 1 to 86400. Default 10800.',
        ),
      }),
    }),
    loadBalancerIP: string('Deprecated: an address wished for at the load balancer.'),
    loadBalancerSourceRanges: strings('Prefixes from which the load balancer may be used.'),
    loadBalancerClass: string(
      'Which load balancer implementation takes the service. Cannot be changed.',
    ),
    allocateLoadBalancerNodePorts: boolean(
      'Whether a LoadBalancer gets node ports too. Default true.',
    ),
    externalName: string('For ExternalName: the DNS name the service is an alias of.'),
    externalTrafficPolicy: oneOf(
      POLICIES,
      'Local: traffic from outside stays on the node it came to and keeps its source.',
    ),
    internalTrafficPolicy: oneOf(
      POLICIES,
      'Local: traffic from pods goes to endpoints of their own node only.',
    ),
    healthCheckNodePort: int32('Port on which nodes say whether they have endpoints.'),
    publishNotReadyAddresses: boolean('Endpoints that are not ready are published as ready.'),
    ipFamilies: strings('Address families, the primary first.'),
    ipFamilyPolicy: oneOf(
      ['SingleStack', 'PreferDualStack', 'RequireDualStack'],
      'Whether one or both families are wanted.',
    ),
    trafficDistribution: string('Which endpoints are preferred: PreferSameZone, PreferSameNode.'),
  },
  { description: 'What the service should be.' },
);

const STATUS_SCHEMA = object('ServiceStatus', {
  loadBalancer: object('LoadBalancerStatus', {
    ingress: list(
      object('LoadBalancerIngress', {
        ip: string('Address of the load balancer.'),
        hostname: string('Name of the load balancer.'),
        ipMode: oneOf(
          ['VIP', 'Proxy'],
          'Whether packets arrive with the address (VIP) or not (Proxy).',
        ),
        ports: list(
          object('PortStatus', {
            port: int32('The port.'),
            protocol: oneOf(PROTOCOLS, 'The protocol.'),
            error: string('What is wrong with it.'),
          }),
          'State of the ports.',
        ),
      }),
      'Where the load balancer is reached.',
    ),
  }),
  conditions: list(CONDITION_SCHEMA, 'How the service is.', { mergeKey: 'type' }),
});

function setDefaults(service: Service): Service {
  const spec = service.spec ?? {};
  const type = spec.type || 'ClusterIP';
  const { sessionAffinityConfig, ...rest } = spec;
  const filled: ServiceSpec = {
    ...rest,
    type,
    sessionAffinity: spec.sessionAffinity || 'None',
    ...(spec.ports === undefined ? {} : { ports: spec.ports.map(setPortDefaults) }),
  };
  if (filled.sessionAffinity === 'ClientIP')
    filled.sessionAffinityConfig = {
      clientIP: {
        timeoutSeconds: sessionAffinityConfig?.clientIP?.timeoutSeconds ?? DEFAULT_AFFINITY_SECONDS,
      },
    };
  // Clients send back what they read: an empty config with "None" is dropped, a filled one is for validation to refuse.
  else if (sessionAffinityConfig?.clientIP !== undefined)
    filled.sessionAffinityConfig = sessionAffinityConfig;
  if (type !== 'ExternalName') filled.internalTrafficPolicy ??= 'Cluster';
  if (isReachedFromOutside(filled)) filled.externalTrafficPolicy ??= 'Cluster';
  if (type === 'LoadBalancer') filled.allocateLoadBalancerNodePorts ??= true;
  return { ...service, spec: filled, status: setStatusDefaults(service.status, type) };
}

/** Packets arrive with the address unless it is said otherwise. */
function setStatusDefaults(status: ServiceStatus | undefined, type: ServiceType): ServiceStatus {
  if (status === undefined) return { loadBalancer: {} };
  const points = status.loadBalancer?.ingress;
  if (type !== 'LoadBalancer' || !points?.some(({ ip, ipMode }) => ip && ipMode === undefined))
    return status;
  const ingress = points.map((point) =>
    point.ip && point.ipMode === undefined ? { ...point, ipMode: 'VIP' as const } : point,
  );
  return { ...status, loadBalancer: { ...status.loadBalancer, ingress } };
}

function setPortDefaults(port: ServicePort): ServicePort {
  const target = port.targetPort;
  return {
    ...port,
    protocol: port.protocol || 'TCP',
    targetPort: target === undefined || target === 0 || target === '' ? port.port : target,
  };
}

/**
 * Carries over from the stored service the ports that the server had filled in and a client that sends its manifest
 * again leaves out. What belongs to a type that the service no longer has is dropped, unless the client changed it
 * (then it is a mistake that validation reports). Addresses and families are not touched: they are given, kept and
 * taken back by admission.
 * As `patchAllocatedValues` and `dropTypeDependentFields` of `k8s.io/kubernetes/pkg/registry/core/service`.
 */
function prepareForUpdate(service: Service, old: Service): Service {
  const spec: ServiceSpec = { ...service.spec };
  const was = old.spec;
  if (spec.ports !== undefined)
    spec.ports = spec.ports.map((port) =>
      needsNodePorts(spec) ? inheritNodePort(port, was.ports) : dropNodePort(port, { spec, was }),
    );
  if (!isReachedFromOutside(spec)) dropIfSame(spec, was, 'externalTrafficPolicy');
  if (spec.type !== 'LoadBalancer') {
    dropIfSame(spec, was, 'allocateLoadBalancerNodePorts');
    dropIfSame(spec, was, 'loadBalancerClass');
  }
  if (!needsHealthCheckNodePort(spec)) dropIfSame(spec, was, 'healthCheckNodePort');
  else if (!spec.healthCheckNodePort && was.healthCheckNodePort !== undefined)
    spec.healthCheckNodePort = was.healthCheckNodePort;
  return { ...service, spec };
}

/** Whether every port of the service gets a node port. */
export function needsNodePorts(spec: ServiceSpec): boolean {
  return (
    spec.type === 'NodePort' ||
    (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false)
  );
}

/** Whether nodes say on a port of their own if they have endpoints of the service. */
export function needsHealthCheckNodePort(spec: ServiceSpec): boolean {
  return spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local';
}

function inheritNodePort(port: ServicePort, was: readonly ServicePort[] | undefined): ServicePort {
  if (port.nodePort) return port;
  const before = was?.find((other) => other.port === port.port && other.protocol === port.protocol);
  return before?.nodePort ? { ...port, nodePort: before.nodePort } : port;
}

/** A port that was given goes when none is needed any more; one that was asked for without need stays. */
function dropNodePort(
  port: ServicePort,
  { spec, was }: { spec: ServiceSpec; was: ServiceSpec },
): ServicePort {
  const isOld = was.ports?.some((other) => other.nodePort === port.nodePort) ?? false;
  const wasAskedFor = spec.type === 'LoadBalancer' && !needsNodePorts(was);
  if (!port.nodePort || !isOld || wasAskedFor) return port;
  const { nodePort: _, ...rest } = port;
  return rest;
}

function dropIfSame(spec: ServiceSpec, was: ServiceSpec, key: keyof ServiceSpec): void {
  if (spec[key] === was[key]) delete spec[key];
}

function formatExternalIp(service: Service): string {
  const { spec, status } = service;
  const external = spec.externalIPs ?? [];
  if (spec.type === 'ExternalName') return spec.externalName ?? '';
  if (spec.type !== 'LoadBalancer') return external.join(',') || NONE;
  const ingress = (status?.loadBalancer?.ingress ?? []).map((at) => at.ip || at.hostname || '');
  return [...new Set([...ingress, ...external])].filter((at) => at !== '').join(',') || '<pending>';
}

function formatPorts(service: Service): string {
  const ports = (service.spec.ports ?? []).map(({ port, nodePort, protocol }) =>
    nodePort ? `${port}:${nodePort}/${protocol ?? 'TCP'}` : `${port}/${protocol ?? 'TCP'}`,
  );
  return ports.join(',') || NONE;
}

export const SERVICE: KindDefinition<Service> = {
  group: '',
  version: 'v1',
  kind: 'Service',
  resource: 'services',
  singular: 'service',
  namespaced: true,
  shortNames: ['svc'],
  categories: ['all'],
  subresources: ['status'],
  schema: kindSchema('Service', 'A name and a stable address for a set of endpoints.', {
    spec: SPEC_SCHEMA,
    status: STATUS_SCHEMA,
  }),
  setDefaults,
  prepareForUpdate,
  validate: validateService,
  columns: [
    NAME_COLUMN,
    column('Type', 'How the service is reached.', ({ spec }) => spec.type ?? 'ClusterIP'),
    column(
      'Cluster-IP',
      'Address of the service.',
      ({ spec }) => spec.clusterIPs?.[0] || spec.clusterIP || NONE,
    ),
    column('External-IP', 'Addresses outside the cluster.', formatExternalIp),
    column('Port(s)', 'Ports of the service, with those of the nodes.', formatPorts),
    AGE_COLUMN,
    wideColumn('Selector', 'Labels of the endpoints.', ({ spec }) => formatLabels(spec.selector)),
  ],
  selectableFields: {
    'spec.clusterIP': ({ spec }) => spec.clusterIP ?? '',
    'spec.type': ({ spec }) => spec.type ?? '',
  },
};
