/** Pod: `k8s.io/api/core/v1`. Typed is what a network needs of a pod; the schema knows the other fields too. */
import { parseIp } from '#lib/ip.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { NOT_AN_IP } from '../../machinery/addresses.ts';
import {
  duplicate,
  forbidden,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import {
  checkDns1123Label,
  checkDns1123Subdomain,
  checkIanaServiceName,
  checkPortNumber,
} from '../../machinery/names.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject } from '../../meta.ts';
import { POD_COLUMNS } from './pod-columns.ts';
import { POD_SCHEMA } from './pod-schema.ts';
import { PROTOCOLS, type Protocol } from './protocol.ts';

export interface ContainerPort {
  name?: string;
  containerPort: number;
  hostPort?: number;
  hostIP?: string;
  protocol?: Protocol;
}

export interface Container {
  name: string;
  image?: string;
  command?: string[];
  args?: string[];
  ports?: ContainerPort[];
  /** What Tulle does not read: environment, resources, probes, mounts and the like. */
  [field: string]: unknown;
}

export interface PodSpec {
  containers: Container[];
  initContainers?: Container[];
  nodeName?: string;
  hostNetwork?: boolean;
  hostname?: string;
  subdomain?: string;
  serviceAccountName?: string;
  restartPolicy?: 'Always' | 'OnFailure' | 'Never';
  dnsPolicy?: 'ClusterFirst' | 'ClusterFirstWithHostNet' | 'Default' | 'None';
  schedulerName?: string;
  terminationGracePeriodSeconds?: number;
  readinessGates?: { conditionType: string }[];
  /** What Tulle does not read: volumes, affinity, tolerations and the like. */
  [field: string]: unknown;
}

export interface ContainerState {
  waiting?: { reason?: string; message?: string };
  running?: { startedAt?: string };
  terminated?: {
    exitCode: number;
    signal?: number;
    reason?: string;
    message?: string;
    startedAt?: string;
    finishedAt?: string;
    containerID?: string;
  };
}

export interface ContainerStatus {
  name: string;
  state?: ContainerState;
  lastState?: ContainerState;
  ready: boolean;
  restartCount: number;
  image: string;
  imageID: string;
  containerID?: string;
  started?: boolean;
  /** Resources, volumes and users as the kubelet reports them. */
  [field: string]: unknown;
}

export type PodPhase = 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';

export interface PodStatus {
  phase?: PodPhase;
  conditions?: Condition[];
  message?: string;
  reason?: string;
  nominatedNodeName?: string;
  hostIP?: string;
  hostIPs?: { ip: string }[];
  podIP?: string;
  podIPs?: { ip: string }[];
  startTime?: string;
  containerStatuses?: ContainerStatus[];
  initContainerStatuses?: ContainerStatus[];
  qosClass?: string;
  observedGeneration?: number;
  /** What Tulle does not read. */
  [field: string]: unknown;
}

export interface Pod extends KubeObject {
  apiVersion: 'v1';
  kind: 'Pod';
  spec: PodSpec;
  status?: PodStatus;
}

const RESTART_POLICIES = ['Always', 'OnFailure', 'Never'];
const DNS_POLICIES = ['ClusterFirstWithHostNet', 'ClusterFirst', 'Default', 'None'];

function setDefaults(pod: Pod): Pod {
  const spec: PodSpec = { ...pod.spec };
  for (const list of ['containers', 'initContainers'] as const) {
    const containers = spec[list];
    if (containers !== undefined) spec[list] = containers.map(setContainerDefaults);
  }
  spec.restartPolicy ??= 'Always';
  spec.dnsPolicy ??= 'ClusterFirst';
  spec.terminationGracePeriodSeconds ??= 30;
  return { ...pod, spec, status: { phase: 'Pending', ...pod.status } };
}

function setContainerDefaults(container: Container): Container {
  if (container.ports === undefined) return container;
  return {
    ...container,
    ports: container.ports.map((port) => ({ ...port, protocol: port.protocol || 'TCP' })),
  };
}

/**
 * Checks what the network relies on. Tulle does not start pods: what is only for who does
 * (images, volumes, probes …) is not looked at.
 */
function validatePod(pod: Pod, old: Pod | undefined): FieldError[] {
  const { spec } = pod;
  if (spec === undefined) return [required('spec')];
  const errors = validateMeta(pod.metadata, { namespaced: true });
  if (!spec.containers?.length) errors.push(required('spec.containers'));
  errors.push(...validateContainers(spec));
  for (const field of ['hostname', 'subdomain'] as const)
    errors.push(...wrong(`spec.${field}`, spec[field], checkDns1123Label));
  for (const field of ['nodeName', 'serviceAccountName'] as const)
    errors.push(...wrong(`spec.${field}`, spec[field], checkDns1123Subdomain));
  if (spec.restartPolicy !== undefined && !RESTART_POLICIES.includes(spec.restartPolicy))
    errors.push(notSupported('spec.restartPolicy', spec.restartPolicy, RESTART_POLICIES));
  if (spec.dnsPolicy !== undefined && !DNS_POLICIES.includes(spec.dnsPolicy))
    errors.push(notSupported('spec.dnsPolicy', spec.dnsPolicy, DNS_POLICIES));
  errors.push(...validatePodIps(pod.status));
  if (old !== undefined) errors.push(...validateChange(spec, old.spec));
  return errors;
}

function validateContainers(spec: PodSpec): FieldError[] {
  const errors: FieldError[] = [];
  const names = new Set<string>();
  for (const list of ['containers', 'initContainers'] as const)
    spec[list]?.forEach((container, i) => {
      const field = `spec.${list}[${i}]`;
      if (!container.name) errors.push(required(`${field}.name`));
      else if (names.has(container.name)) errors.push(duplicate(`${field}.name`, container.name));
      else errors.push(...wrong(`${field}.name`, container.name, checkDns1123Label));
      names.add(container.name);
      errors.push(...validateContainerPorts(container.ports ?? [], { field, spec }));
    });
  return errors;
}

function validateContainerPorts(
  ports: readonly ContainerPort[],
  context: { field: string; spec: PodSpec },
): FieldError[] {
  const errors: FieldError[] = [];
  const names = new Set<string>();
  ports.forEach((port, i) => {
    const field = `${context.field}.ports[${i}]`;
    if (port.name) {
      errors.push(...wrong(`${field}.name`, port.name, checkIanaServiceName));
      if (names.has(port.name)) errors.push(duplicate(`${field}.name`, port.name));
      names.add(port.name);
    }
    const wrongPort = checkPortNumber(port.containerPort);
    if (wrongPort !== undefined)
      errors.push(invalid(`${field}.containerPort`, port.containerPort, wrongPort));
    const hostPort = port.hostPort ?? 0;
    const wrongHostPort = hostPort === 0 ? undefined : checkPortNumber(hostPort);
    if (wrongHostPort !== undefined)
      errors.push(invalid(`${field}.hostPort`, hostPort, wrongHostPort));
    else if (hostPort !== 0 && context.spec.hostNetwork && hostPort !== port.containerPort)
      errors.push(
        invalid(
          `${field}.hostPort`,
          hostPort,
          'must match `containerPort` when `hostNetwork` is true',
        ),
      );
    if (port.protocol !== undefined && !PROTOCOLS.includes(port.protocol))
      errors.push(notSupported(`${field}.protocol`, port.protocol, PROTOCOLS));
  });
  return errors;
}

function validatePodIps(status: PodStatus | undefined): FieldError[] {
  const errors: FieldError[] = [];
  const ips = (status?.podIPs ?? []).map(({ ip }) => ip ?? '');
  ips.forEach((ip, i) => {
    if (parseIp(ip) === undefined) errors.push(invalid(`status.podIPs[${i}].ip`, ip, NOT_AN_IP));
    const family = ip.includes(':');
    if (ips.some((other, j) => j < i && other.includes(':') === family))
      errors.push(
        invalid('status.podIPs', ips, 'may specify no more than one IP for each IP family'),
      );
  });
  const first = status?.podIP ?? '';
  if (first !== '' && parseIp(first) === undefined)
    errors.push(invalid('status.podIP', first, NOT_AN_IP));
  else if (first !== '' && ips[0] !== undefined && ips[0] !== first)
    errors.push(invalid('status.podIPs[0].ip', ips[0], 'must be equal to `podIP`'));
  return errors;
}

/** A pod keeps its node and its network: routes, policies and addresses hang on them. */
function validateChange(spec: PodSpec, old: PodSpec): FieldError[] {
  const errors: FieldError[] = [];
  const what = 'pod updates may not change this field once it is set';
  if (old.nodeName && spec.nodeName !== old.nodeName) errors.push(forbidden('spec.nodeName', what));
  if ((spec.hostNetwork ?? false) !== (old.hostNetwork ?? false))
    errors.push(forbidden('spec.hostNetwork', what));
  return errors;
}

function wrong(
  field: string,
  value: string | undefined,
  check: (text: string) => string | undefined,
): FieldError[] {
  const detail = value ? check(value) : undefined;
  return detail === undefined ? [] : [invalid(field, value, detail)];
}

export const POD: KindDefinition<Pod> = {
  group: '',
  version: 'v1',
  kind: 'Pod',
  resource: 'pods',
  singular: 'pod',
  namespaced: true,
  shortNames: ['po'],
  categories: ['all'],
  subresources: ['status'],
  schema: POD_SCHEMA,
  setDefaults,
  validate: validatePod,
  columns: POD_COLUMNS,
  selectableFields: {
    'spec.nodeName': ({ spec }) => spec.nodeName ?? '',
    'spec.restartPolicy': ({ spec }) => spec.restartPolicy ?? '',
    'spec.schedulerName': ({ spec }) => spec.schedulerName ?? '',
    'spec.serviceAccountName': ({ spec }) => spec.serviceAccountName ?? '',
    'spec.hostNetwork': ({ spec }) => String(spec.hostNetwork ?? false),
    'status.phase': ({ status }) => status?.phase ?? '',
    'status.podIP': ({ status }) => status?.podIP ?? '',
    'status.nominatedNodeName': ({ status }) => status?.nominatedNodeName ?? '',
  },
};
