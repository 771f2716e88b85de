/**
 * The fields of a container and of what hangs on it. Known to the last one where a slip of a person changes what the
 * network does (probes, environment, resources, mounts); what only a container runtime reads is kept as it is.
 */
import type { ObjectSchema, Schema } from '../../kind.ts';
import {
  any,
  boolean,
  int32,
  int64,
  intOrString,
  list,
  map,
  object,
  oneOf,
  string,
  strings,
} from '../../machinery/schema.ts';
import { PROTOCOLS } from './protocol.ts';

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

const KEY_REFERENCE = (name: string) =>
  object(
    name,
    {
      name: string('Name of the object.'),
      key: string('Key in its data.'),
      optional: boolean('Whether it may be missing.'),
    },
    { required: ['key'], atomic: true },
  );

const FIELD_REFERENCE = object(
  'ObjectFieldSelector',
  {
    apiVersion: string('Default v1.'),
    fieldPath: string('The field of the pod: metadata.name, status.podIP …'),
  },
  { required: ['fieldPath'], atomic: true },
);

const RESOURCE_FIELD_REFERENCE = object(
  'ResourceFieldSelector',
  {
    containerName: string('Which container; for a volume.'),
    resource: string('limits.cpu, requests.memory …'),
    divisor: any('In what unit. Default 1.'),
  },
  { required: ['resource'], atomic: true },
);

const ENV_SCHEMA = object(
  'EnvVar',
  {
    name: string('Name of the variable.'),
    value: string('Its value.'),
    valueFrom: object('EnvVarSource', {
      fieldRef: FIELD_REFERENCE,
      resourceFieldRef: RESOURCE_FIELD_REFERENCE,
      configMapKeyRef: KEY_REFERENCE('ConfigMapKeySelector'),
      secretKeyRef: KEY_REFERENCE('SecretKeySelector'),
      fileKeyRef: any('Kept as it is.'),
    }),
  },
  { required: ['name'] },
);

const ENV_SOURCE = (name: string) =>
  object(name, {
    name: string('Name of the object.'),
    optional: boolean('Whether it may be missing.'),
  });

const ENV_FROM_SCHEMA = object('EnvFromSource', {
  prefix: string('Put before the names.'),
  configMapRef: ENV_SOURCE('ConfigMapEnvSource'),
  secretRef: ENV_SOURCE('SecretEnvSource'),
});

/** Amounts may be written as numbers or as text: which of them are good is said by validation. */
const AMOUNTS = (description: string) => map(any('An amount: 500m, 1.5Gi.'), description);

export const RESOURCES_SCHEMA = object('ResourceRequirements', {
  limits: AMOUNTS('What the container gets at most.'),
  requests: AMOUNTS('What the container needs. Default: its limits.'),
  claims: list(
    object(
      'ResourceClaim',
      { name: string('Which claim of the pod.'), request: string('Which request of it.') },
      { required: ['name'] },
    ),
    'Devices.',
    { mergeKey: 'name' },
  ),
});

const EXEC = object('ExecAction', { command: strings('The command; exit status 0 is good.') });
const HTTP_GET = object(
  'HTTPGetAction',
  {
    path: string('Default /.'),
    port: intOrString('A number, or the name of a port of the container.'),
    host: string('Default: the address of the pod.'),
    scheme: oneOf(['HTTP', 'HTTPS'], 'Default HTTP.'),
    httpHeaders: list(
      object(
        'HTTPHeader',
        { name: string('Name.'), value: string('Value.') },
        {
          required: ['name', 'value'],
        },
      ),
      'Headers of the request.',
    ),
  },
  { required: ['port'] },
);
const TCP_SOCKET = object(
  'TCPSocketAction',
  {
    port: intOrString('A number, or the name of a port of the container.'),
    host: string('Default: the address of the pod.'),
  },
  { required: ['port'] },
);

const PROBE_SCHEMA = object('Probe', {
  exec: EXEC,
  httpGet: HTTP_GET,
  tcpSocket: TCP_SOCKET,
  grpc: object(
    'GRPCAction',
    { port: int32('A port of the container.'), service: string('Which service is asked about.') },
    { required: ['port'] },
  ),
  initialDelaySeconds: int32('Wait before the first probe.'),
  timeoutSeconds: int32('Wait for an answer. Default 1.'),
  periodSeconds: int32('Time between probes. Default 10.'),
  successThreshold: int32('Good answers in a row until it is good again. Default 1.'),
  failureThreshold: int32('Bad answers in a row until it is bad. Default 3.'),
  terminationGracePeriodSeconds: int64('Time to end in after a failed probe.'),
});

const LIFECYCLE_HANDLER = object('LifecycleHandler', {
  exec: EXEC,
  httpGet: HTTP_GET,
  tcpSocket: TCP_SOCKET,
  sleep: object(
    'SleepAction',
    { seconds: int64('How long to sleep.') },
    {
      required: ['seconds'],
    },
  ),
});

const LIFECYCLE_SCHEMA = object('Lifecycle', {
  postStart: LIFECYCLE_HANDLER,
  preStop: LIFECYCLE_HANDLER,
  stopSignal: string('The signal that asks it to end.'),
});

const VOLUME_MOUNT_SCHEMA = object(
  'VolumeMount',
  {
    name: string('Which volume of the pod.'),
    mountPath: string('Where it is seen.'),
    readOnly: boolean('Whether it cannot be written.'),
    recursiveReadOnly: string('Whether mounts below cannot be written either.'),
    subPath: string('Which part of the volume.'),
    subPathExpr: string('Which part of the volume, with variables.'),
    mountPropagation: string('Whether mounts go through.'),
  },
  { required: ['name', 'mountPath'] },
);

const VOLUME_DEVICE_SCHEMA = object(
  'VolumeDevice',
  { name: string('Which volume of the pod.'), devicePath: string('Where the device is.') },
  { required: ['name', 'devicePath'] },
);

const KEPT: Readonly<Record<string, Schema>> = Object.fromEntries(
  ['resizePolicy', 'restartPolicyRules', 'securityContext'].map((name) => [
    name,
    any('Kept as it is.'),
  ]),
);

export const CONTAINER_SCHEMA: ObjectSchema = object(
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
    env: list(ENV_SCHEMA, 'Environment variables.', { mergeKey: 'name' }),
    envFrom: list(ENV_FROM_SCHEMA, 'Objects whose values become variables.'),
    resources: RESOURCES_SCHEMA,
    volumeMounts: list(VOLUME_MOUNT_SCHEMA, 'Volumes that are seen.', { mergeKey: 'mountPath' }),
    volumeDevices: list(VOLUME_DEVICE_SCHEMA, 'Volumes that are seen as devices.', {
      mergeKey: 'devicePath',
    }),
    livenessProbe: { ...PROBE_SCHEMA, description: 'When it fails, the container is restarted.' },
    readinessProbe: {
      ...PROBE_SCHEMA,
      description: 'While it fails, the pod gets no traffic of services.',
    },
    startupProbe: { ...PROBE_SCHEMA, description: 'Until it succeeds, there are no others.' },
    lifecycle: LIFECYCLE_SCHEMA,
    imagePullPolicy: oneOf(['Always', 'IfNotPresent', 'Never'], 'When the image is pulled.'),
    restartPolicy: string('Always for a sidecar among the init containers.'),
    targetContainerName: string('For an ephemeral container: whose namespaces it joins.'),
    terminationMessagePath: string('Where the container leaves a message.'),
    terminationMessagePolicy: string('How the message is made.'),
    stdin: boolean('Whether standard input is kept open.'),
    stdinOnce: boolean('Whether standard input ends with its first client.'),
    tty: boolean('Whether the container has a terminal.'),
    ...KEPT,
  },
  { required: ['name'] },
);
