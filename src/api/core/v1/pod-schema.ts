/**
 * The fields of a pod. What Tulle neither reads nor checks is known by name only (`any`), so that a manifest made
 * for a whole cluster is accepted and a misspelt field is still found. Containers: `container-schema.ts`.
 */
import type { ObjectSchema, Schema } from '../../kind.ts';
import {
  any,
  boolean,
  CONDITION_SCHEMA,
  int32,
  int64,
  kindSchema,
  list,
  map,
  object,
  oneOf,
  string,
  stringMap,
  strings,
  time,
} from '../../machinery/schema.ts';
import { CONTAINER_SCHEMA, RESOURCES_SCHEMA } from './container-schema.ts';

const IP_LIST = (description: string) =>
  list(object('PodIP', { ip: string('An address.') }, { required: ['ip'] }), description, {
    mergeKey: 'ip',
  });

/** Kept, not looked into. */
function kept(names: readonly string[]): Record<string, Schema> {
  return Object.fromEntries(names.map((name) => [name, any('Kept as it is.')]));
}

/** Lists that strategic merge matches by a key, of elements that are kept as they are. */
function keptList(name: string, mergeKey: string): Schema {
  return list(
    { type: 'object', name, fields: { [mergeKey]: string('Key of the element.') }, open: true },
    'Kept as it is.',
    {
      mergeKey,
    },
  );
}

const HOST_ALIAS_SCHEMA = object(
  'HostAlias',
  { ip: string('An address.'), hostnames: strings('Its names.') },
  { required: ['ip'] },
);

const DNS_CONFIG_SCHEMA = object(
  'PodDNSConfig',
  {
    nameservers: strings('Addresses of name servers, at most 3.'),
    searches: strings('Domains in which short names are looked up.'),
    options: list(
      object('PodDNSConfigOption', { name: string('Name.'), value: string('Value.') }),
      'Options of the resolver.',
    ),
  },
  { description: 'What the pod asks beside or instead of what dnsPolicy says.' },
);

const TOLERATION_SCHEMA = object('Toleration', {
  key: string('Which taints. Empty with Exists: all.'),
  operator: string('Exists or Equal. Default Equal.'),
  value: string('The value of the taint, for Equal.'),
  effect: string('NoSchedule, PreferNoSchedule or NoExecute. Empty: all.'),
  tolerationSeconds: int64('How long, for NoExecute.'),
});

/** Where a volume comes from: one of these, of which the network reads none. */
export const VOLUME_SOURCES = [
  ...['awsElasticBlockStore', 'azureDisk', 'azureFile', 'cephfs', 'cinder', 'configMap', 'csi'],
  ...['downwardAPI', 'emptyDir', 'ephemeral', 'fc', 'flexVolume', 'flocker', 'gcePersistentDisk'],
  ...['gitRepo', 'glusterfs', 'hostPath', 'image', 'iscsi', 'nfs', 'persistentVolumeClaim'],
  ...['photonPersistentDisk', 'portworxVolume', 'projected', 'quobyte', 'rbd', 'scaleIO'],
  ...['secret', 'storageos', 'vsphereVolume'],
] as const;

const VOLUME_SCHEMA = object(
  'Volume',
  { name: string('A DNS label, unique in the pod.'), ...kept(VOLUME_SOURCES) },
  { required: ['name'] },
);

const SECURITY_CONTEXT_SCHEMA: ObjectSchema = {
  ...object(
    'PodSecurityContext',
    {
      sysctls: list(
        object(
          'Sysctl',
          { name: string('net.ipv4.tcp_syncookies …'), value: string('Its value.') },
          { required: ['name', 'value'] },
        ),
        'Kernel settings of the pod.',
      ),
    },
    { description: 'Of the rest nothing is looked at.' },
  ),
  open: true,
};

const CONTAINER_STATE_SCHEMA = object('ContainerState', {
  waiting: object('ContainerStateWaiting', {
    reason: string('Why it waits, in a word.'),
    message: string('Why it waits.'),
  }),
  running: object('ContainerStateRunning', { startedAt: time('When it started.') }),
  terminated: object('ContainerStateTerminated', {
    exitCode: int32('Exit status.'),
    signal: int32('The signal that ended it.'),
    reason: string('Why it ended, in a word.'),
    message: string('Why it ended.'),
    startedAt: time('When it started.'),
    finishedAt: time('When it ended.'),
    containerID: string('Which container.'),
  }),
});

const CONTAINER_STATUSES = list(
  object('ContainerStatus', {
    name: string('Which container of the spec.'),
    state: CONTAINER_STATE_SCHEMA,
    lastState: CONTAINER_STATE_SCHEMA,
    ready: boolean('Whether it is ready.'),
    restartCount: int32('How often it was restarted.'),
    image: string('The image.'),
    imageID: string('The image, exactly.'),
    containerID: string('The container, exactly.'),
    started: boolean('Whether it is through its start.'),
    ...kept([
      'allocatedResources',
      'allocatedResourcesStatus',
      'resources',
      'volumeMounts',
      'user',
      'stopSignal',
    ]),
  }),
  'How the containers are.',
);

const CONTAINERS = (description: string) =>
  list(CONTAINER_SCHEMA, description, { mergeKey: 'name' });

const SPEC_SCHEMA = object(
  'PodSpec',
  {
    containers: CONTAINERS('The containers of the pod.'),
    initContainers: CONTAINERS('Containers that end before the others start.'),
    ephemeralContainers: CONTAINERS('Containers added to look into the running pod.'),
    nodeName: string('The node of the pod.'),
    nodeSelector: stringMap('Labels that the node must have.'),
    hostNetwork: boolean('The pod uses the network of its node.'),
    hostPID: boolean('The pod sees the processes of its node.'),
    hostIPC: boolean('The pod shares IPC with its node.'),
    hostUsers: boolean('The pod uses the user namespace of its node.'),
    hostname: string('Name of the pod to itself, and in the DNS with a subdomain.'),
    hostnameOverride: string('Name of the pod to itself, not in the DNS.'),
    subdomain: string('Headless service under whose name the pod is found.'),
    setHostnameAsFQDN: boolean('The hostname is the full name.'),
    shareProcessNamespace: boolean("The containers see each other's processes."),
    serviceAccountName: string('Who the pod is.'),
    serviceAccount: string('Deprecated: serviceAccountName.'),
    automountServiceAccountToken: boolean('Whether a token is mounted.'),
    restartPolicy: oneOf(['Always', 'OnFailure', 'Never'], 'Default Always.'),
    terminationGracePeriodSeconds: int64('Time to end in. Default 30.'),
    activeDeadlineSeconds: int64('Time to live.'),
    dnsPolicy: oneOf(
      ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'],
      'Default ClusterFirst.',
    ),
    enableServiceLinks: boolean('Whether services stand in the environment. Default true.'),
    schedulerName: string('Who chooses the node.'),
    priority: int32('How important the pod is.'),
    priorityClassName: string('How important the pod is, by name.'),
    preemptionPolicy: string('Whether others are ended for it.'),
    runtimeClassName: string('What runs the pod.'),
    readinessGates: list(
      object(
        'PodReadinessGate',
        { conditionType: string('A condition.') },
        { required: ['conditionType'] },
      ),
      'Conditions that must also hold for the pod to be ready.',
    ),
    imagePullSecrets: keptList('LocalObjectReference', 'name'),
    volumes: list(VOLUME_SCHEMA, 'What containers can mount.', { mergeKey: 'name' }),
    hostAliases: list(HOST_ALIAS_SCHEMA, 'Names in /etc/hosts.', { mergeKey: 'ip' }),
    dnsConfig: DNS_CONFIG_SCHEMA,
    tolerations: list(TOLERATION_SCHEMA, 'Taints of nodes that the pod can bear.'),
    securityContext: SECURITY_CONTEXT_SCHEMA,
    resources: RESOURCES_SCHEMA,
    overhead: map(any('An amount.'), 'What the runtime needs beside the containers.'),
    topologySpreadConstraints: keptList('TopologySpreadConstraint', 'topologyKey'),
    resourceClaims: keptList('PodResourceClaim', 'name'),
    schedulingGates: list(
      object('PodSchedulingGate', { name: string('Name of the gate.') }, { required: ['name'] }),
      'While there are any, the pod gets no node.',
      { mergeKey: 'name' },
    ),
    ...kept(['affinity', 'os', 'workloadRef']),
  },
  { required: ['containers'], description: 'What the pod should be.' },
);

const STATUS_SCHEMA = object('PodStatus', {
  phase: oneOf(
    ['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'],
    'Where the pod is in its life.',
  ),
  conditions: list(CONDITION_SCHEMA, 'How the pod is.', { mergeKey: 'type' }),
  message: string('Why the pod is as it is.'),
  reason: string('Why, in a word.'),
  nominatedNodeName: string('A node being cleared for the pod.'),
  hostIP: string('Address of the node.'),
  hostIPs: list(object('HostIP', { ip: string('An address.') }), 'Addresses of the node.'),
  podIP: string('Address of the pod.'),
  podIPs: IP_LIST('Addresses of the pod, at most one of each family.'),
  startTime: time('When the node took the pod on.'),
  containerStatuses: CONTAINER_STATUSES,
  initContainerStatuses: CONTAINER_STATUSES,
  ephemeralContainerStatuses: CONTAINER_STATUSES,
  qosClass: string('Quality of service.'),
  resize: string('State of a resize.'),
  observedGeneration: int64('The generation this is the state of.'),
  ...kept([
    'resourceClaimStatuses',
    'extendedResourceClaimStatus',
    'allocatedResources',
    'resources',
  ]),
});

export const POD_SCHEMA = kindSchema('Pod', 'Containers on one node that share an address.', {
  spec: SPEC_SCHEMA,
  status: STATUS_SCHEMA,
});
