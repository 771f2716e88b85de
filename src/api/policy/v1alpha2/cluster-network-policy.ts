/**
 * ClusterNetworkPolicy: an administrator's rules for pods of many namespaces, before (tier Admin) and after (tier
 * Baseline) what the namespaces' own NetworkPolicies say. `sigs.k8s.io/network-policy-api/apis/v1alpha2`.
 */
import { splitCidr } from '#lib/ip.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN, wideColumn } from '../../machinery/columns.ts';
import {
  duplicate,
  forbidden,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import { sameJson } from '../../machinery/json.ts';
import { validateLabelSelector } from '../../machinery/label-selector.ts';
import { checkIanaServiceName, checkPortNumber } from '../../machinery/names.ts';
import {
  CONDITION_SCHEMA,
  int32,
  kindSchema,
  LABEL_SELECTOR_SCHEMA,
  list,
  object,
  oneOf,
  string,
  strings,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject, LabelSelector } from '../../meta.ts';

export const TIERS = ['Admin', 'Baseline'] as const;
export type Tier = (typeof TIERS)[number];
export const RULE_ACTIONS = ['Accept', 'Deny', 'Pass'] as const;
export type RuleAction = (typeof RULE_ACTIONS)[number];

export interface NamespacedPod {
  namespaceSelector: LabelSelector;
  podSelector: LabelSelector;
}

/** One of them. */
export interface PolicySubject {
  namespaces?: LabelSelector;
  pods?: NamespacedPod;
}

/** Exactly one of them. A peer of a newer version has none that we know. */
export interface ClusterPolicyPeer {
  namespaces?: LabelSelector;
  pods?: NamespacedPod;
  /** Egress only, and what follows too. */
  nodes?: LabelSelector;
  networks?: string[];
  domainNames?: string[];
}

export interface DestinationPort {
  number?: number;
  range?: { start: number; end: number };
}

/** Exactly one of them. */
export interface PolicyProtocol {
  tcp?: { destinationPort?: DestinationPort };
  udp?: { destinationPort?: DestinationPort };
  sctp?: { destinationPort?: DestinationPort };
  /** Name of a port of the destination pod, whatever its protocol. */
  destinationNamedPort?: string;
}

interface ClusterPolicyRule {
  name?: string;
  action: RuleAction;
  /** Missing: all. */
  protocols?: PolicyProtocol[];
}
export interface ClusterPolicyIngressRule extends ClusterPolicyRule {
  from: ClusterPolicyPeer[];
}
export interface ClusterPolicyEgressRule extends ClusterPolicyRule {
  to: ClusterPolicyPeer[];
}

export interface ClusterNetworkPolicy extends KubeObject {
  apiVersion: 'policy.networking.k8s.io/v1alpha2';
  kind: 'ClusterNetworkPolicy';
  spec: {
    tier: Tier;
    /** 0 to 1000; the lower goes first. */
    priority: number;
    subject: PolicySubject;
    ingress?: ClusterPolicyIngressRule[];
    egress?: ClusterPolicyEgressRule[];
  };
  status?: { conditions?: Condition[] };
}

export const MAX_PRIORITY = 1000;
/** Upstream's limits, which keep a policy readable. */
const MAX_RULES = 25;
const MAX_PEERS = 25;
const MAX_PROTOCOLS = 25;
const MAX_RULE_NAME = 100;
const MAX_NETWORKS = 25;
const MAX_DOMAIN_NAMES = 25;
/** Peers of which nobody knows how their ports are called. */
const NAMELESS_PORTS = ['nodes', 'networks', 'domainNames'] as const;
const DOMAIN_NAME =
  /^(\*\.)?([a-z0-9]([-a-z0-9_]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9_]*[a-z0-9])?\.?$/i;

const NAMESPACED_POD_SCHEMA = object(
  'NamespacedPod',
  { namespaceSelector: LABEL_SELECTOR_SCHEMA, podSelector: LABEL_SELECTOR_SCHEMA },
  { required: ['namespaceSelector', 'podSelector'] },
);
const DESTINATION = (name: string) =>
  object(name, {
    destinationPort: object('Port', {
      number: int32('One port.'),
      range: object('PortRange', {
        start: int32('The first port.'),
        end: int32('The last port.'),
      }),
    }),
  });
const PROTOCOLS_SCHEMA = list(
  object('ClusterNetworkPolicyProtocol', {
    tcp: DESTINATION('ClusterNetworkPolicyProtocolTCP'),
    udp: DESTINATION('ClusterNetworkPolicyProtocolUDP'),
    sctp: DESTINATION('ClusterNetworkPolicyProtocolSCTP'),
    destinationNamedPort: string('The name of a port of the destination pod.'),
  }),
  'Protocols and ports the rule is about. Missing: all.',
);
const INGRESS_PEER_FIELDS = { namespaces: LABEL_SELECTOR_SCHEMA, pods: NAMESPACED_POD_SCHEMA };
const RULE_FIELDS = {
  name: string('For people: shown where the rule decides.'),
  action: oneOf(RULE_ACTIONS, 'What is done with traffic that the rule matches.'),
  protocols: PROTOCOLS_SCHEMA,
};

const SCHEMA = kindSchema(
  'ClusterNetworkPolicy',
  'Rules of the administrator for the traffic of pods of many namespaces.',
  {
    spec: object('ClusterNetworkPolicySpec', {
      tier: oneOf(TIERS, 'Admin goes before NetworkPolicies, Baseline after them.'),
      priority: int32('0 to 1000; lower goes first in the tier.'),
      subject: object('ClusterNetworkPolicySubject', {
        namespaces: LABEL_SELECTOR_SCHEMA,
        pods: NAMESPACED_POD_SCHEMA,
      }),
      ingress: list(
        object('ClusterNetworkPolicyIngressRule', {
          ...RULE_FIELDS,
          from: list(
            object('ClusterNetworkPolicyIngressPeer', INGRESS_PEER_FIELDS),
            'Where the traffic comes from.',
          ),
        }),
        'Rules for traffic to the subject, in order.',
      ),
      egress: list(
        object('ClusterNetworkPolicyEgressRule', {
          ...RULE_FIELDS,
          to: list(
            object('ClusterNetworkPolicyEgressPeer', {
              ...INGRESS_PEER_FIELDS,
              nodes: LABEL_SELECTOR_SCHEMA,
              networks: strings('Prefixes; they match pods in them too.'),
              domainNames: strings('Names as pods ask for them; `*.` is one or more labels.'),
            }),
            'Where the traffic goes.',
          ),
        }),
        'Rules for traffic from the subject, in order.',
      ),
    }),
    status: object('ClusterNetworkPolicyStatus', {
      conditions: list(CONDITION_SCHEMA, 'How the policy is carried out.', { mergeKey: 'type' }),
    }),
  },
);

function validatePolicy(
  policy: ClusterNetworkPolicy,
  old: ClusterNetworkPolicy | undefined,
): FieldError[] {
  const { spec } = policy;
  if (spec === undefined) return [required('spec')];
  const errors = [...validateMeta(policy.metadata, { namespaced: false })];
  // What was accepted by a version that asked for less gets its conditions still.
  if (old !== undefined && sameJson(spec, old.spec)) return errors;
  if (!TIERS.includes(spec.tier)) errors.push(notSupported('spec.tier', spec.tier, TIERS));
  if (!Number.isInteger(spec.priority) || spec.priority < 0 || spec.priority > MAX_PRIORITY)
    errors.push(invalid('spec.priority', spec.priority, `must be between 0 and ${MAX_PRIORITY}`));
  errors.push(...validateSubject(spec.subject));
  for (const direction of ['ingress', 'egress'] as const) {
    const rules: readonly (ClusterPolicyIngressRule | ClusterPolicyEgressRule)[] =
      spec[direction] ?? [];
    errors.push(...atMost(rules, MAX_RULES, `spec.${direction}`));
    rules.forEach((rule, i) => {
      errors.push(...validateRule(rule, `spec.${direction}[${i}]`, direction));
    });
  }
  return errors;
}

function validateSubject(subject: PolicySubject | undefined): FieldError[] {
  const given = Object.keys(subject ?? {}).length;
  if (subject === undefined || given === 0)
    return [required('spec.subject', 'one of namespaces and pods')];
  const errors = given > 1 ? [forbidden('spec.subject', 'only one of namespaces and pods')] : [];
  return [
    ...errors,
    ...validateLabelSelector(subject.namespaces, 'spec.subject.namespaces'),
    ...validatePods(subject.pods, 'spec.subject.pods'),
  ];
}

function validatePods(pods: NamespacedPod | undefined, field: string): FieldError[] {
  return [
    ...validateLabelSelector(pods?.namespaceSelector, `${field}.namespaceSelector`),
    ...validateLabelSelector(pods?.podSelector, `${field}.podSelector`),
  ];
}

function validateRule(
  rule: ClusterPolicyIngressRule | ClusterPolicyEgressRule,
  field: string,
  direction: 'ingress' | 'egress',
): FieldError[] {
  const errors: FieldError[] = [];
  if ((rule.name?.length ?? 0) > MAX_RULE_NAME)
    errors.push(invalid(`${field}.name`, rule.name, `at most ${MAX_RULE_NAME} characters`));
  if (!RULE_ACTIONS.includes(rule.action))
    errors.push(notSupported(`${field}.action`, rule.action, RULE_ACTIONS));
  const peersField = `${field}.${direction === 'ingress' ? 'from' : 'to'}`;
  const peers: readonly ClusterPolicyPeer[] =
    (direction === 'ingress'
      ? (rule as ClusterPolicyIngressRule).from
      : (rule as ClusterPolicyEgressRule).to) ?? [];
  if (peers.length === 0) errors.push(required(peersField, 'at least one peer'));
  errors.push(...atMost(peers, MAX_PEERS, peersField));
  peers.forEach((peer, i) => {
    errors.push(...validatePeer(peer, `${peersField}[${i}]`, rule.action));
  });
  if (rule.protocols !== undefined && rule.protocols.length === 0)
    errors.push(invalid(`${field}.protocols`, [], 'at least one, or leave it out for all'));
  errors.push(...atMost(rule.protocols ?? [], MAX_PROTOCOLS, `${field}.protocols`));
  const hasNamelessPorts = peers.some((peer) => NAMELESS_PORTS.some((kind) => kind in peer));
  rule.protocols?.forEach((protocol, i) => {
    errors.push(...validateProtocol(protocol, `${field}.protocols[${i}]`));
    if (hasNamelessPorts && protocol.destinationNamedPort !== undefined)
      errors.push(
        forbidden(
          `${field}.protocols[${i}].destinationNamedPort`,
          'networks, nodes and domainNames have no names of ports; put them in a rule of their own',
        ),
      );
  });
  return errors;
}

function validatePeer(peer: ClusterPolicyPeer, field: string, action: RuleAction): FieldError[] {
  if (Object.keys(peer).length !== 1) return [required(field, 'exactly one kind of peer')];
  const errors = [
    ...validateLabelSelector(peer.namespaces, `${field}.namespaces`),
    ...validatePods(peer.pods, `${field}.pods`),
    ...validateLabelSelector(peer.nodes, `${field}.nodes`),
    ...atMost(peer.networks ?? [], MAX_NETWORKS, `${field}.networks`),
    ...atMost(peer.domainNames ?? [], MAX_DOMAIN_NAMES, `${field}.domainNames`),
  ];
  if (peer.networks?.length === 0) errors.push(required(`${field}.networks`, 'at least one'));
  peer.networks?.forEach((text, i) => {
    // Host bits are allowed, as upstream.
    if (splitCidr(text) === undefined)
      errors.push(invalid(`${field}.networks[${i}]`, text, 'must be a prefix, like 10.0.0.0/8'));
  });
  errors.push(
    ...repeated(peer.networks ?? [], `${field}.networks`),
    ...repeated(peer.domainNames ?? [], `${field}.domainNames`),
  );
  if (peer.domainNames?.length === 0) errors.push(required(`${field}.domainNames`, 'at least one'));
  if (peer.domainNames !== undefined && action !== 'Accept')
    errors.push(
      forbidden(`${field}.domainNames`, 'only rules with the action Accept may name them'),
    );
  peer.domainNames?.forEach((name, i) => {
    if (!DOMAIN_NAME.test(name))
      errors.push(
        invalid(`${field}.domainNames[${i}]`, name, 'must be a domain name, or `*.` and one'),
      );
  });
  return errors;
}

function validateProtocol(protocol: PolicyProtocol, field: string): FieldError[] {
  if (Object.keys(protocol).length !== 1) return [required(field, 'exactly one protocol')];
  const { destinationNamedPort } = protocol;
  if (destinationNamedPort !== undefined) {
    const wrong = checkIanaServiceName(destinationNamedPort);
    return wrong === undefined
      ? []
      : [invalid(`${field}.destinationNamedPort`, destinationNamedPort, wrong)];
  }
  for (const name of ['tcp', 'udp', 'sctp'] as const) {
    const match = protocol[name];
    if (match === undefined) continue;
    const at = `${field}.${name}.destinationPort`;
    return match.destinationPort === undefined
      ? [required(at, 'for all ports: {range: {start: 1, end: 65535}}')]
      : validatePort(match.destinationPort, at);
  }
  return [];
}

function validatePort(port: DestinationPort, field: string): FieldError[] {
  const { number, range } = port;
  if ((number === undefined) === (range === undefined))
    return [required(field, 'exactly one of number and range')];
  const check = (value: number, at: string) => {
    const wrong = checkPortNumber(value);
    return wrong === undefined ? [] : [invalid(at, value, wrong)];
  };
  if (number !== undefined) return check(number, `${field}.number`);
  if (range === undefined) return [];
  const errors = [
    ...check(range.start, `${field}.range.start`),
    ...check(range.end, `${field}.range.end`),
  ];
  if (range.start >= range.end)
    errors.push(invalid(`${field}.range.end`, range.end, 'must be greater than start'));
  return errors;
}

function repeated(items: readonly string[], field: string): FieldError[] {
  return items.flatMap((item, i) =>
    items.indexOf(item) < i ? [duplicate(`${field}[${i}]`, item)] : [],
  );
}

function atMost(items: readonly unknown[], most: number, field: string): FieldError[] {
  return items.length <= most
    ? []
    : [{ type: 'TooMany', field, value: items.length, detail: `must have at most ${most} items` }];
}

function conditionOf({ status }: ClusterNetworkPolicy, type: string): string {
  return status?.conditions?.find((condition) => condition.type === type)?.status ?? '';
}

export const CLUSTER_NETWORK_POLICY: KindDefinition<ClusterNetworkPolicy> = {
  group: 'policy.networking.k8s.io',
  version: 'v1alpha2',
  kind: 'ClusterNetworkPolicy',
  resource: 'clusternetworkpolicies',
  singular: 'clusternetworkpolicy',
  namespaced: false,
  shortNames: ['cnp'],
  categories: [],
  subresources: ['status'],
  schema: SCHEMA,
  setDefaults: (policy) => policy,
  validate: validatePolicy,
  columns: [
    NAME_COLUMN,
    column('Tier', 'Before or after the NetworkPolicies.', (policy) => policy.spec.tier),
    column('Priority', 'Lower goes first.', (policy) => policy.spec.priority),
    column('Accepted', 'Whether all of it is understood.', (policy) =>
      conditionOf(policy, 'Accepted'),
    ),
    wideColumn('Programmed', 'False: a node cannot carry it out.', (policy) =>
      conditionOf(policy, 'Programmed'),
    ),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
