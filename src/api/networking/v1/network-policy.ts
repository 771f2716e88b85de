/** NetworkPolicy: which traffic pods may receive and send. `k8s.io/api/networking/v1`. */

import {
  type Cidr,
  cidrContains,
  cidrOf,
  networkAddress,
  prefixLengthOf,
  splitCidr,
} from '#lib/ip.ts';
import { PROTOCOLS, type Protocol } from '../../core/v1/protocol.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { NOT_A_CIDR } from '../../machinery/addresses.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import { forbidden, invalid, notSupported, required } from '../../machinery/field-errors.ts';
import {
  formatSelector,
  selectorOf,
  validateLabelSelector,
} from '../../machinery/label-selector.ts';
import { checkPortNumber, checkPortNumberOrName } from '../../machinery/names.ts';
import {
  int32,
  intOrString,
  kindSchema,
  LABEL_SELECTOR_SCHEMA,
  list,
  object,
  oneOf,
  string,
  strings,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject, LabelSelector } from '../../meta.ts';

export interface NetworkPolicyPort {
  protocol?: Protocol;
  /** A number, or the name of a port of the destination pod. Missing: all ports of the protocol. */
  port?: number | string;
  endPort?: number;
}

export interface IPBlock {
  cidr: string;
  except?: string[];
}

export interface NetworkPolicyPeer {
  podSelector?: LabelSelector;
  namespaceSelector?: LabelSelector;
  ipBlock?: IPBlock;
}

export interface NetworkPolicyIngressRule {
  ports?: NetworkPolicyPort[];
  from?: NetworkPolicyPeer[];
}

export interface NetworkPolicyEgressRule {
  ports?: NetworkPolicyPort[];
  to?: NetworkPolicyPeer[];
}

export type PolicyType = 'Ingress' | 'Egress';

export interface NetworkPolicySpec {
  /** Missing or empty: all pods of the namespace. */
  podSelector?: LabelSelector;
  ingress?: NetworkPolicyIngressRule[];
  egress?: NetworkPolicyEgressRule[];
  policyTypes?: PolicyType[];
}

export interface NetworkPolicy extends KubeObject {
  apiVersion: 'networking.k8s.io/v1';
  kind: 'NetworkPolicy';
  spec: NetworkPolicySpec;
}

const POLICY_TYPES = ['Egress', 'Ingress'];

const PORTS_SCHEMA = list(
  object('NetworkPolicyPort', {
    protocol: oneOf(PROTOCOLS, 'Default TCP.'),
    port: intOrString('A number, or the name of a port of the destination. Missing: all ports.'),
    endPort: int32('The last port of a range that begins with port.'),
  }),
  'Ports that are allowed. Missing or empty: all.',
);

const PEERS_SCHEMA = list(
  object('NetworkPolicyPeer', {
    podSelector: LABEL_SELECTOR_SCHEMA,
    namespaceSelector: LABEL_SELECTOR_SCHEMA,
    ipBlock: object(
      'IPBlock',
      {
        cidr: string('A prefix.'),
        except: strings('Prefixes inside it that are not meant.'),
      },
      { required: ['cidr'] },
    ),
  }),
  'The other side of the traffic. Missing or empty: everybody.',
);

const SCHEMA = kindSchema('NetworkPolicy', 'Which traffic pods may receive and send.', {
  spec: object('NetworkPolicySpec', {
    podSelector: LABEL_SELECTOR_SCHEMA,
    ingress: list(
      object('NetworkPolicyIngressRule', { ports: PORTS_SCHEMA, from: PEERS_SCHEMA }),
      'Traffic to the pods that is allowed.',
    ),
    egress: list(
      object('NetworkPolicyEgressRule', { ports: PORTS_SCHEMA, to: PEERS_SCHEMA }),
      'Traffic from the pods that is allowed.',
    ),
    policyTypes: strings(
      'The directions that are restricted. Default: Ingress, and Egress if there are egress rules.',
    ),
  }),
});

function setDefaults(policy: NetworkPolicy): NetworkPolicy {
  const spec = policy.spec ?? {};
  const withProtocols = <R extends { ports?: NetworkPolicyPort[] }>(rules: R[]): R[] =>
    rules.map((rule) =>
      rule.ports === undefined
        ? rule
        : {
            ...rule,
            ports: rule.ports.map((port) => ({ ...port, protocol: port.protocol ?? 'TCP' })),
          },
    );
  const policyTypes: PolicyType[] =
    (spec.egress ?? []).length > 0 ? ['Ingress', 'Egress'] : ['Ingress'];
  return {
    ...policy,
    spec: {
      ...spec,
      podSelector: spec.podSelector ?? {},
      policyTypes: spec.policyTypes?.length ? spec.policyTypes : policyTypes,
      ...(spec.ingress === undefined ? {} : { ingress: withProtocols(spec.ingress) }),
      ...(spec.egress === undefined ? {} : { egress: withProtocols(spec.egress) }),
    },
  };
}

function validatePolicy(policy: NetworkPolicy): FieldError[] {
  const { spec } = policy;
  if (spec === undefined) return [required('spec')];
  const errors = [
    ...validateMeta(policy.metadata, { namespaced: true }),
    ...validateLabelSelector(spec.podSelector, 'spec.podSelector'),
  ];
  spec.ingress?.forEach((rule, i) => {
    errors.push(
      ...validateRule(rule.ports, rule.from, { field: `spec.ingress[${i}]`, peers: 'from' }),
    );
  });
  spec.egress?.forEach((rule, i) => {
    errors.push(...validateRule(rule.ports, rule.to, { field: `spec.egress[${i}]`, peers: 'to' }));
  });
  const types = spec.policyTypes ?? [];
  if (types.length > POLICY_TYPES.length)
    errors.push(invalid('spec.policyTypes', types, 'may not specify more than two policyTypes'));
  else
    types.forEach((type, i) => {
      if (!POLICY_TYPES.includes(type))
        errors.push(notSupported(`spec.policyTypes[${i}]`, type, POLICY_TYPES));
    });
  return errors;
}

function validateRule(
  ports: readonly NetworkPolicyPort[] | undefined,
  peers: readonly NetworkPolicyPeer[] | undefined,
  context: { field: string; peers: 'from' | 'to' },
): FieldError[] {
  const { field } = context;
  return [
    ...(ports ?? []).flatMap((port, i) => validatePort(port, `${field}.ports[${i}]`)),
    ...(peers ?? []).flatMap((peer, i) => validatePeer(peer, `${field}.${context.peers}[${i}]`)),
  ];
}

function validatePort(port: NetworkPolicyPort, field: string): FieldError[] {
  const errors: FieldError[] = [];
  if (port.protocol !== undefined && !PROTOCOLS.includes(port.protocol))
    errors.push(notSupported(`${field}.protocol`, port.protocol, PROTOCOLS));
  if (port.port === undefined)
    return port.endPort === undefined
      ? errors
      : [
          ...errors,
          invalid(
            `${field}.endPort`,
            port.endPort,
            'may not be specified when `port` is not specified',
          ),
        ];
  const wrong = checkPortNumberOrName(port.port);
  if (wrong !== undefined) errors.push(invalid(`${field}.port`, port.port, wrong));
  if (port.endPort === undefined) return errors;
  if (typeof port.port === 'string')
    errors.push(
      invalid(`${field}.endPort`, port.endPort, 'may not be specified when `port` is non-numeric'),
    );
  else if (port.endPort < port.port)
    errors.push(
      invalid(`${field}.endPort`, port.endPort, 'must be greater than or equal to `port`'),
    );
  const wrongEnd = checkPortNumber(port.endPort);
  if (wrongEnd !== undefined) errors.push(invalid(`${field}.endPort`, port.endPort, wrongEnd));
  return errors;
}

function validatePeer(peer: NetworkPolicyPeer, field: string): FieldError[] {
  const errors = [
    ...validateLabelSelector(peer.podSelector, `${field}.podSelector`),
    ...validateLabelSelector(peer.namespaceSelector, `${field}.namespaceSelector`),
  ];
  const selects = peer.podSelector !== undefined || peer.namespaceSelector !== undefined;
  if (peer.ipBlock === undefined)
    return selects ? errors : [...errors, required(field, 'must specify a peer')];
  if (selects) errors.push(forbidden(field, 'may not specify both ipBlock and another peer'));
  return [...errors, ...validateIpBlock(peer.ipBlock, `${field}.ipBlock`)];
}

function validateIpBlock(block: IPBlock, field: string): FieldError[] {
  if (!block.cidr) return [required(`${field}.cidr`)];
  const outer = parseLooseCidr(block.cidr);
  if (outer === undefined) return [invalid(`${field}.cidr`, block.cidr, NOT_A_CIDR)];
  return (block.except ?? []).flatMap((text, i) => {
    const at = `${field}.except[${i}]`;
    const inner = parseLooseCidr(text);
    if (inner === undefined) return [invalid(at, text, NOT_A_CIDR)];
    const isInside =
      cidrContains(outer, networkAddress(inner)) && prefixLengthOf(inner) > prefixLengthOf(outer);
    return isInside ? [] : [invalid(at, text, 'must be a strict subset of `cidr`')];
  });
}

/** Host bits are allowed here, as upstream: `10.0.0.1/8` means `10.0.0.0/8`. */
function parseLooseCidr(text: string): Cidr | undefined {
  const parts = splitCidr(text);
  return parts === undefined ? undefined : cidrOf(parts.address, parts.prefixLength);
}

export const NETWORK_POLICY: KindDefinition<NetworkPolicy> = {
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'NetworkPolicy',
  resource: 'networkpolicies',
  singular: 'networkpolicy',
  namespaced: true,
  shortNames: ['netpol'],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults,
  validate: validatePolicy,
  columns: [
    NAME_COLUMN,
    column('Pod-Selector', 'The pods the policy is about.', (policy) =>
      formatSelector(selectorOf(policy.spec.podSelector)),
    ),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
