/** Node: a machine of the network. `k8s.io/api/core/v1`. */
import { splitCidr } from '#lib/ip.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { NOT_A_CIDR } from '../../machinery/addresses.ts';
import { AGE_COLUMN, column, NAME_COLUMN, NONE, wideColumn } from '../../machinery/columns.ts';
import {
  duplicate,
  forbidden,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import { sameJson } from '../../machinery/json.ts';
import { checkLabelValue, checkQualifiedName } from '../../machinery/names.ts';
import {
  any,
  boolean,
  CONDITION_SCHEMA,
  kindSchema,
  list,
  map,
  object,
  oneOf,
  string,
  strings,
  time,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject } from '../../meta.ts';
import { type Amounts, canonicalAmounts } from './container.ts';
import { validateAmount } from './container-validation.ts';
import { TAINT_EFFECTS } from './tolerations.ts';

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
  capacity?: Amounts;
  allocatable?: Amounts;
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
    capacity: map(any('An amount.'), 'Resources of the node.'),
    allocatable: map(any('An amount.'), 'Resources that pods can have.'),
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

/** The older field of the pods' prefixes holds the first of the newer one, and is believed where they differ. */
function setDefaults(node: Node): Node {
  const { spec = {}, status = {} } = node;
  const { podCIDR, podCIDRs = [] } = spec;
  const first = podCIDR || podCIDRs[0];
  const { capacity, allocatable = capacity } = status;
  return {
    ...node,
    spec: {
      ...spec,
      ...(first === undefined
        ? {}
        : { podCIDR: first, podCIDRs: podCIDRs[0] === first ? podCIDRs : [first] }),
    },
    status: {
      ...status,
      ...(capacity === undefined ? {} : { capacity: canonicalAmounts(capacity) }),
      ...(allocatable === undefined ? {} : { allocatable: canonicalAmounts(allocatable) }),
    },
  };
}

function validateNode(node: Node, old: Node | undefined): FieldError[] {
  const errors = [
    ...validateMeta(node.metadata, { namespaced: false }),
    ...validateTaints(node.spec?.taints ?? []),
    ...validatePodCidrs(node.spec?.podCIDRs ?? []),
    ...(old === undefined ? [] : validateChange(node.spec ?? {}, old.spec ?? {})),
  ];
  for (const list of ['capacity', 'allocatable'] as const)
    for (const [name, amount] of Object.entries(node.status?.[list] ?? {}))
      if (amount !== old?.status?.[list]?.[name])
        errors.push(...validateAmount(amount, `status.${list}.${name}`));
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

function validateTaints(taints: readonly Taint[]): FieldError[] {
  const seen = new Set<string>();
  return taints.flatMap(({ key = '', value = '', effect }, i) => {
    const field = `spec.taints[${i}]`;
    const errors: FieldError[] = [];
    const wrongKey = checkQualifiedName(key);
    const wrongValue = checkLabelValue(value);
    if (wrongKey !== undefined) errors.push(invalid(`${field}.key`, key, wrongKey));
    if (wrongValue !== undefined) errors.push(invalid(`${field}.value`, value, wrongValue));
    if (!effect) errors.push(required(`${field}.effect`));
    else if (!TAINT_EFFECTS.includes(effect))
      errors.push(notSupported(`${field}.effect`, effect, TAINT_EFFECTS));
    const id = `${key}:${effect}`;
    if (seen.has(id))
      errors.push({
        ...duplicate(field, id),
        detail: 'taints must be unique by key and effect pair',
      });
    seen.add(id);
    return errors;
  });
}

function validatePodCidrs(cidrs: readonly string[]): FieldError[] {
  const field = 'spec.podCIDRs';
  const errors = cidrs.flatMap((text, i) => {
    if (splitCidr(text) === undefined) return [invalid(`${field}[${i}]`, text, NOT_A_CIDR)];
    return cidrs.indexOf(text) < i ? [duplicate(`${field}[${i}]`, text)] : [];
  });
  if (new Set(cidrs.map((text) => text.includes(':'))).size < cidrs.length)
    errors.push(invalid(field, cidrs, 'may specify no more than one CIDR for each IP family'));
  return errors;
}

/** Addresses of pods that are there were given out of the prefix. */
function validateChange(spec: NodeSpec, old: NodeSpec): FieldError[] {
  const errors: FieldError[] = [];
  if (old.podCIDRs?.length && !sameJson(spec.podCIDRs, old.podCIDRs))
    errors.push(
      forbidden('spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid'),
    );
  if (old.providerID && spec.providerID !== old.providerID)
    errors.push(
      forbidden(
        'spec.providerID',
        'node updates may not change providerID except from "" to valid',
      ),
    );
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
  setDefaults,
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
