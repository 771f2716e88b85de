/** Node: a machine of the network. `k8s.io/api/core/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN, NONE, wideColumn } from '../../machinery/columns.ts';
import { duplicate, invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { checkQualifiedName } from '../../machinery/names.ts';
import {
  any,
  boolean,
  CONDITION_SCHEMA,
  kindSchema,
  list,
  object,
  oneOf,
  string,
  stringMap,
  strings,
  time,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject } from '../../meta.ts';

/** Where a node stands: traffic stays in its zone if services wish it. */
export const ZONE_LABEL = 'topology.kubernetes.io/zone';

export interface Taint {
  key: string;
  value?: string;
  effect: 'NoSchedule' | 'PreferNoSchedule' | 'NoExecute';
  timeAdded?: string;
}

export interface NodeSpec {
  podCIDR?: string;
  podCIDRs?: string[];
  providerID?: string;
  unschedulable?: boolean;
  taints?: Taint[];
}

export interface NodeAddress {
  type: 'Hostname' | 'InternalIP' | 'ExternalIP' | 'InternalDNS' | 'ExternalDNS';
  address: string;
}

export interface NodeSystemInfo {
  machineID?: string;
  systemUUID?: string;
  bootID?: string;
  kernelVersion?: string;
  osImage?: string;
  containerRuntimeVersion?: string;
  kubeletVersion?: string;
  kubeProxyVersion?: string;
  operatingSystem?: string;
  architecture?: string;
}

export interface NodeStatus {
  capacity?: Record<string, string>;
  allocatable?: Record<string, string>;
  conditions?: Condition[];
  addresses?: NodeAddress[];
  nodeInfo?: NodeSystemInfo;
}

export interface Node extends KubeObject {
  apiVersion: 'v1';
  kind: 'Node';
  spec?: NodeSpec;
  status?: NodeStatus;
}

const TAINT_EFFECTS = ['NoSchedule', 'PreferNoSchedule', 'NoExecute'];
const ADDRESS_TYPES = ['Hostname', 'InternalIP', 'ExternalIP', 'InternalDNS', 'ExternalDNS'];
const ROLE_LABEL_PREFIX = 'node-role.kubernetes.io/';
const ROLE_LABEL = 'kubernetes.io/role';

const INFO_FIELDS = [
  'machineID',
  'systemUUID',
  'bootID',
  'kernelVersion',
  'osImage',
  'containerRuntimeVersion',
  'kubeletVersion',
  'kubeProxyVersion',
  'operatingSystem',
  'architecture',
];

const SCHEMA = kindSchema('Node', 'A machine of the network.', {
  spec: object('NodeSpec', {
    podCIDR: string('Addresses for pods of this node, where a node has one prefix.'),
    podCIDRs: strings('Like podCIDR, one per family.', { mergeSet: true }),
    providerID: string('What a cloud calls the node.'),
    unschedulable: boolean('No new pods should come to the node.'),
    taints: list(
      object(
        'Taint',
        {
          key: string('The key of the taint.'),
          value: string('The value of the taint.'),
          effect: oneOf(TAINT_EFFECTS, 'What happens to pods that do not tolerate it.'),
          timeAdded: time('When the taint was added.'),
        },
        { required: ['key', 'effect'] },
      ),
      'What keeps pods away from the node.',
    ),
    configSource: any('Deprecated.'),
    externalID: string('Deprecated.'),
  }),
  status: object('NodeStatus', {
    capacity: stringMap('Resources of the node.'),
    allocatable: stringMap('Resources that pods can have.'),
    phase: string('Deprecated.'),
    conditions: list(CONDITION_SCHEMA, 'How the node is.', { mergeKey: 'type' }),
    addresses: list(
      object(
        'NodeAddress',
        {
          type: oneOf(ADDRESS_TYPES, 'What kind of address it is.'),
          address: string('The address or name.'),
        },
        { required: ['type', 'address'] },
      ),
      'Where the node is reached.',
      { mergeKey: 'type' },
    ),
    daemonEndpoints: any('Ports of daemons on the node.'),
    nodeInfo: object('NodeSystemInfo', {
      ...Object.fromEntries(INFO_FIELDS.map((field) => [field, string('As the node reports it.')])),
      swap: any('Swap of the node.'),
    }),
    images: list(any('An image.'), 'Images on the node.'),
    volumesInUse: strings('Volumes in use.'),
    volumesAttached: list(any('A volume.'), 'Volumes attached.'),
    config: any('Deprecated.'),
    runtimeHandlers: list(any('A runtime handler.'), 'Runtime handlers of the node.'),
    features: any('Features of the container runtime.'),
    declaredFeatures: strings('Features the node declares.'),
  }),
});

function validateNode(node: Node): FieldError[] {
  const errors = validateMeta(node.metadata, { namespaced: false });
  const taints = new Set<string>();
  node.spec?.taints?.forEach((taint, i) => {
    const field = `spec.taints[${i}]`;
    const wrongKey = checkQualifiedName(taint.key ?? '');
    if (wrongKey !== undefined) errors.push(invalid(`${field}.key`, taint.key, wrongKey));
    if (!TAINT_EFFECTS.includes(taint.effect))
      errors.push(notSupported(`${field}.effect`, taint.effect, TAINT_EFFECTS));
    const id = `${taint.key}:${taint.effect}`;
    if (taints.has(id)) errors.push(duplicate(field, id));
    taints.add(id);
  });
  const addresses = new Set<string>();
  node.status?.addresses?.forEach((address, i) => {
    const field = `status.addresses[${i}]`;
    if (!address.address) errors.push(required(`${field}.address`));
    const id = `${address.type} ${address.address}`;
    if (addresses.has(id)) errors.push(duplicate(field, address));
    addresses.add(id);
  });
  return errors;
}

function formatStatus(node: Node): string {
  const ready = node.status?.conditions?.find((condition) => condition.type === 'Ready');
  const words = [ready === undefined ? 'Unknown' : ready.status === 'True' ? 'Ready' : 'NotReady'];
  if (node.spec?.unschedulable) words.push('SchedulingDisabled');
  return words.join(',');
}

function formatRoles(node: Node): string {
  const roles = Object.entries(node.metadata.labels ?? {}).flatMap(([key, value]) => {
    if (key.startsWith(ROLE_LABEL_PREFIX)) return [key.slice(ROLE_LABEL_PREFIX.length)];
    return key === ROLE_LABEL ? [value] : [];
  });
  return [...new Set(roles.filter((role) => role !== ''))].sort().join(',') || NONE;
}

function addressOf(node: Node, type: NodeAddress['type']): string {
  return node.status?.addresses?.find((address) => address.type === type)?.address ?? NONE;
}

export const NODE: KindDefinition<Node> = {
  group: '',
  version: 'v1',
  kind: 'Node',
  resource: 'nodes',
  singular: 'node',
  namespaced: false,
  shortNames: ['no'],
  categories: [],
  subresources: ['status'],
  schema: SCHEMA,
  setDefaults: (node) => ({ ...node, spec: node.spec ?? {}, status: node.status ?? {} }),
  validate: validateNode,
  columns: [
    NAME_COLUMN,
    column('Status', 'Whether the node is ready.', formatStatus),
    column('Roles', 'What the node is for.', formatRoles),
    AGE_COLUMN,
    column(
      'Version',
      'Version of the agent.',
      (node) => node.status?.nodeInfo?.kubeletVersion ?? '',
    ),
    wideColumn('Internal-IP', 'Address inside the network.', (node) =>
      addressOf(node, 'InternalIP'),
    ),
    wideColumn('External-IP', 'Address outside.', (node) => addressOf(node, 'ExternalIP')),
    wideColumn('OS-Image', 'Operating system.', (node) => infoOf(node, 'osImage')),
    wideColumn('Kernel-Version', 'Version of the kernel.', (node) => infoOf(node, 'kernelVersion')),
    wideColumn('Container-Runtime', 'What runs containers.', (node) =>
      infoOf(node, 'containerRuntimeVersion'),
    ),
  ],
  selectableFields: {
    'spec.unschedulable': (node) => String(node.spec?.unschedulable ?? false),
  },
};

function infoOf(node: Node, field: keyof NodeSystemInfo): string {
  return node.status?.nodeInfo?.[field] || '<unknown>';
}
