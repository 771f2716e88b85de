/** Pod: `k8s.io/api/core/v1`. Typed is what a network needs of a pod; the schema knows the other fields too. */
import type { KindDefinition } from '../../kind.ts';
import type { Condition, KubeObject } from '../../meta.ts';
import type { Amounts, Container, Resources } from './container.ts';
import { POD_COLUMNS } from './pod-columns.ts';
import { setPodDefaults } from './pod-defaults.ts';
import { POD_SCHEMA } from './pod-schema.ts';
import { validatePod } from './pod-validation.ts';
import type { Toleration } from './tolerations.ts';

export type { Container, ContainerPort } from './container.ts';

export interface HostAlias {
  ip: string;
  hostnames?: string[];
}

export interface PodDnsConfig {
  nameservers?: string[];
  searches?: string[];
  options?: { name?: string; value?: string }[];
}

/** Where it comes from stands beside the name, in a field for each kind of source. */
export interface Volume {
  name: string;
  [source: string]: unknown;
}

export interface PodSpec {
  containers: Container[];
  initContainers?: Container[];
  ephemeralContainers?: Container[];
  volumes?: Volume[];
  nodeName?: string;
  nodeSelector?: Record<string, string>;
  hostNetwork?: boolean;
  hostUsers?: boolean;
  hostname?: string;
  hostnameOverride?: string;
  subdomain?: string;
  setHostnameAsFQDN?: boolean;
  hostAliases?: HostAlias[];
  dnsConfig?: PodDnsConfig;
  serviceAccountName?: string;
  serviceAccount?: string;
  enableServiceLinks?: boolean;
  tolerations?: Toleration[];
  resources?: Resources;
  overhead?: Amounts;
  securityContext?: { sysctls?: { name: string; value: string }[] };
  schedulingGates?: { name: string }[];
  activeDeadlineSeconds?: number;
  preemptionPolicy?: string;
  priorityClassName?: string;
  runtimeClassName?: string;
  restartPolicy?: 'Always' | 'OnFailure' | 'Never';
  dnsPolicy?: 'ClusterFirst' | 'ClusterFirstWithHostNet' | 'Default' | 'None';
  schedulerName?: string;
  terminationGracePeriodSeconds?: number;
  readinessGates?: { conditionType: string }[];
  /** What Tulle does not read: affinity and the like. */
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
  ownSubresources: [
    {
      name: 'eviction',
      responseKind: { group: 'policy', version: 'v1', kind: 'Eviction' },
      verbs: ['create'],
    },
  ],
  schema: POD_SCHEMA,
  setDefaults: setPodDefaults,
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
