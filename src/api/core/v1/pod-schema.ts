/**
 * The fields of a pod. What Tulle neither reads nor checks is known by name only (`any`), so that a manifest made
 * for a whole cluster is accepted and a misspelt field is still found.
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
  object,
  oneOf,
  string,
  stringMap,
  strings,
  time,
} from '../../machinery/schema.ts';
import { PROTOCOLS } from './protocol.ts';

const IP_LIST = (description: string) =>
  list(object('PodIP', { ip: string('An address.') }, { required: ['ip'] }), description, {
    mergeKey: 'ip',
  });

const CONTAINER_PORT_SCHEMA = object(
  'ContainerPort',
  {
    name: string('By which services can name the port.'),
    hostPort: int32('Port on the node.'),
    containerPort: int32('Port of the container.'),
    protocol: { ...oneOf(PROTOCOLS, 'Default TCP.'), default: 'TCP' },
    hostIP: string('Address of the node.'),
  },
  { required: ['containerPort'] },
);

/** Kept, not looked into. */
function kept(names: readonly string[]): Record<string, Schema> {
  return Object.fromEntries(names.map((name) => [name, any('Kept as it is.')]));
}

/** Lists that strategic merge matches by a key, of elements that are kept as they are. */
function keptList(name: string, mergeKey: string): Schema {
  return list(
    { type: 'object', name, fields: { [mergeKey]: any('Key of the element.') }, open: true },
    'Kept as it is.',
    {
      mergeKey,
    },
  );
}

const CONTAINER_SCHEMA: ObjectSchema = object(
  'Container',
  {
    name: string('A DNS label, unique in the pod. Cannot be changed.'),
    image: string('The image.'),
    command: strings("Instead of the image's entry point."),
    args: strings('Arguments of the command.'),
    workingDir: string('Working directory.'),
    ports: list(CONTAINER_PORT_SCHEMA, 'Ports of the container.', {
      mergeKey: 'containerPort',
      mapKeys: ['containerPort', 'protocol'],
    }),
    env: keptList('EnvVar', 'name'),
    volumeMounts: keptList('VolumeMount', 'mountPath'),
    volumeDevices: keptList('VolumeDevice', 'devicePath'),
    imagePullPolicy: oneOf(['Always', 'IfNotPresent', 'Never'], 'When the image is pulled.'),
    restartPolicy: string('Always for a sidecar among the init containers.'),
    targetContainerName: string('For an ephemeral container: whose namespaces it joins.'),
    terminationMessagePath: string('Where the container leaves a message.'),
    terminationMessagePolicy: string('How the message is made.'),
    stdin: boolean('Whether standard input is kept open.'),
    stdinOnce: boolean('Whether standard input ends with its first client.'),
    tty: boolean('Whether the container has a terminal.'),
    ...kept([
      'envFrom',
      'resources',
      'resizePolicy',
      'restartPolicyRules',
      'livenessProbe',
      'readinessProbe',
      'startupProbe',
      'lifecycle',
      'securityContext',
    ]),
  },
  { required: ['name'] },
);

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
    volumes: keptList('Volume', 'name'),
    hostAliases: keptList('HostAlias', 'ip'),
    topologySpreadConstraints: keptList('TopologySpreadConstraint', 'topologyKey'),
    resourceClaims: keptList('PodResourceClaim', 'name'),
    schedulingGates: keptList('PodSchedulingGate', 'name'),
    ...kept([
      'affinity',
      'tolerations',
      'securityContext',
      'dnsConfig',
      'overhead',
      'os',
      'resources',
      'workloadRef',
    ]),
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
