/** Mistakes that are valid policies: what they say is probably not what was meant. */
import type { KubeObject } from '#api/meta.ts';
import type { NetworkPolicy } from '#api/networking/v1/network-policy.ts';
import { ENFORCEMENT_ANNOTATION, LOG_ANNOTATION } from './compile.ts';
import { describeChoice, describePeer, ruleName } from './describe.ts';
import { type DirectionResult, decide } from './evaluate.ts';
import { covers, isOpen, lintAcross } from './lint-across.ts';
import { chooses, type End } from './match.ts';
import {
  type CompiledPolicy,
  type CompiledRule,
  DIRECTIONS,
  type Direction,
  type PolicyPod,
  PROTOCOL_NUMBERS,
  type World,
} from './model.ts';

export interface Lint {
  readonly code: LintCode;
  readonly policy: string;
  /** Path as in the manifest: `spec.ingress[0].from[1]`. */
  readonly field: string;
  readonly message: string;
}

export type LintCode =
  | 'selects-nothing'
  | 'peer-matches-nothing'
  | 'rule-matches-nothing'
  | 'dns-blocked'
  | 'domain-in-cluster'
  | 'named-port-missing'
  | 'policy-types-missing'
  | 'everything-allowed'
  | 'opened-by-another'
  | 'shadowed-rule'
  | 'contradicting-priority'
  | 'unknown-annotation'
  | 'not-understood';

const DNS_PORT = 53;
/** Under the usual cluster domain. */
const CLUSTER_NAME = /(^|\.)(svc|pod)\.cluster\.local$/;

/** @param objects the policies as they were written, defaults not filled in: for what was left out */
export function lint(world: World, objects: readonly KubeObject[]): Lint[] {
  const written = new Map(objects.map((object) => [idOf(object), object]));
  return [
    ...world.policies.flatMap((policy) => [
      ...lintPolicy(world, policy),
      ...lintObject(policy, written.get(policy.id)),
    ]),
    ...blockedDns(world),
    ...contradictingPriorities(world),
    ...lintAcross(world.policies),
  ];
}

function idOf({ kind, metadata }: KubeObject): string {
  return kind === 'NetworkPolicy'
    ? `NetworkPolicy ${metadata.namespace ?? 'default'}/${metadata.name}`
    : `${kind} ${metadata.name}`;
}

function lintPolicy(world: World, policy: CompiledPolicy): Lint[] {
  const found: Lint[] = [];
  const report = (code: LintCode, field: string, message: string) =>
    found.push({ code, policy: policy.id, field, message });
  const subjects = podsOf(world, policy);
  const subjectField = policy.kind === 'NetworkPolicy' ? 'spec.podSelector' : 'spec.subject';
  if (subjects.length === 0)
    report('selects-nothing', subjectField, `selects no pod: ${describeChoice(policy.subject)}`);
  for (const problem of policy.problems) {
    const rule = /^(?:in|e)gress\[\d+\](?=: )/.exec(problem)?.[0];
    report('not-understood', rule === undefined ? 'spec' : `spec.${rule}`, problem);
  }
  for (const direction of DIRECTIONS) {
    const rules = policy[direction] ?? [];
    rules.forEach((rule, i) => {
      const field = `spec.${direction}[${rule.index}]`;
      found.push(...lintRule(world, policy, { rule, direction, field, subjects }));
      const earlier = rules.slice(0, i).find((other) => covers(other, rule));
      if (earlier === undefined) return;
      const effect =
        earlier.action === rule.action ? 'adds nothing' : `its ${rule.action} is never reached`;
      report(
        'shadowed-rule',
        field,
        `${effect}: ${ruleName(earlier, direction)} matches all of it before`,
      );
    });
    if (policy.kind === 'NetworkPolicy' && rules.length > 1) {
      const open = rules.find(isOpen);
      if (open !== undefined)
        report(
          'everything-allowed',
          `spec.${direction}[${open.index}]`,
          'allows everything, so the other rules of this direction mean nothing',
        );
    }
  }
  return found;
}

interface RuleInPlace {
  readonly rule: CompiledRule;
  readonly direction: Direction;
  readonly field: string;
  readonly subjects: readonly PolicyPod[];
}

function lintRule(
  world: World,
  policy: CompiledPolicy,
  { rule, direction, field, subjects }: RuleInPlace,
): Lint[] {
  const found: Lint[] = [];
  const report = (code: LintCode, at: string, message: string) =>
    found.push({ code, policy: policy.id, field: at, message });
  const list = direction === 'ingress' ? 'from' : 'to';
  const pods = [...world.pods.values()].filter((pod) => !pod.hostNetwork);
  rule.peers?.forEach((peer) => {
    if (peer.kind === 'pods' && !pods.some((pod) => chooses(peer, pod, world.namespaces) === true))
      report(
        'peer-matches-nothing',
        `${field}.${list}`,
        `no pod is meant by ${describePeer(peer)}`,
      );
    if (peer.kind === 'domain' && CLUSTER_NAME.test(peer.name))
      report(
        'domain-in-cluster',
        `${field}.${list}`,
        `"${peer.name}" is a name of the cluster, and only names outside are followed: name the pods by their labels`,
      );
  });
  if (rule.peers?.length === 0)
    report(
      'rule-matches-nothing',
      field,
      'matches nothing, because it has no peer that can be judged',
    );
  for (const port of rule.ports ?? []) {
    if (port.kind !== 'named') continue;
    const destinations = direction === 'ingress' ? subjects : pods;
    const has = (pod: PolicyPod) =>
      pod.ports.some(
        ({ name, protocol }) =>
          name === port.name && (port.protocol === undefined || port.protocol === protocol),
      );
    if (destinations.length > 0 && !destinations.some(has))
      report(
        'named-port-missing',
        `${field}.${policy.kind === 'NetworkPolicy' ? 'ports' : 'protocols'}`,
        `no ${direction === 'ingress' ? 'selected ' : ''}pod has a port named "${port.name}"`,
      );
  }
  return found;
}

/** What can be seen only in the manifest, where defaults are not filled in. */
function lintObject(policy: CompiledPolicy, object: KubeObject | undefined): Lint[] {
  if (object === undefined) return [];
  const found: Lint[] = [];
  const report = (code: LintCode, field: string, message: string) =>
    found.push({ code, policy: policy.id, field, message });
  const { annotations = {} } = object.metadata;
  const known: readonly (readonly [string, string])[] = [
    [ENFORCEMENT_ANNOTATION, 'staged'],
    [LOG_ANNOTATION, 'accepts'],
  ];
  for (const [key, value] of known)
    if (annotations[key] !== undefined && annotations[key] !== value)
      report(
        'unknown-annotation',
        'metadata.annotations',
        `${key} is "${annotations[key]}", which means nothing; there is "${value}"`,
      );
  if (policy.kind !== 'NetworkPolicy') return found;
  const spec = (object as NetworkPolicy).spec ?? {};
  if ((spec.policyTypes ?? []).length > 0) return found;
  if (spec.egress !== undefined && spec.egress.length === 0)
    report(
      'policy-types-missing',
      'spec.egress',
      'an empty list of egress rules restricts nothing without policyTypes: [Egress]',
    );
  else if ((spec.egress ?? []).length > 0 && spec.ingress === undefined)
    report(
      'policy-types-missing',
      'spec',
      'without policyTypes this isolates ingress too; say policyTypes: [Egress] if only egress is meant',
    );
  return found;
}

/** Pods whose egress is restricted and that cannot ask the cluster's DNS: names fail, and nobody expects it. */
function blockedDns(world: World): Lint[] {
  const servers = [...world.pods.values()].filter(
    (pod) => pod.namespace === 'kube-system' && pod.labels?.['k8s-app'] === 'kube-dns',
  );
  const [server] = servers;
  // Without a DNS pod in sight, one that looks as policies expect it.
  const dns: End = {
    pod: server ?? {
      ...{ key: 'kube-system/dns', namespace: 'kube-system', name: 'dns' },
      ...{ labels: { 'k8s-app': 'kube-dns' }, ips: [], node: undefined, hostNetwork: false },
      ports: [{ name: 'dns', protocol: PROTOCOL_NUMBERS.UDP, port: DNS_PORT }],
    },
    node: undefined,
    ip: server?.ips[0],
  };
  const namespaces = new Map(world.namespaces);
  if (!namespaces.has('kube-system'))
    namespaces.set('kube-system', {
      name: 'kube-system',
      labels: { 'kubernetes.io/metadata.name': 'kube-system' },
    });
  const blocked = new Map<string, PolicyPod[]>();
  for (const pod of world.pods.values()) {
    if (pod.hostNetwork || pod.key === dns.pod?.key) continue;
    const from: End = { pod, node: undefined, ip: pod.ips[0] };
    const flow = { from, to: dns, protocol: PROTOCOL_NUMBERS.UDP, port: DNS_PORT };
    const result = decide({ ...world, namespaces }, 'egress', flow);
    // Who lets a pod send nothing at all has not forgotten DNS.
    if (result.allowed || !sendsAnything(result)) continue;
    const blaming = result.steps.at(-1)?.policy.id;
    if (blaming !== undefined) blocked.set(blaming, [...(blocked.get(blaming) ?? []), pod]);
  }
  return [...blocked].map(([policy, pods]) => {
    const [first] = pods;
    const others = pods.length > 1 ? ` and ${pods.length - 1} more` : '';
    return {
      code: 'dns-blocked',
      policy,
      field: 'spec',
      message: `${first?.key}${others} cannot ask DNS (53/UDP to k8s-app=kube-dns in kube-system), so names will not resolve`,
    };
  });
}

function sendsAnything({ steps }: DirectionResult): boolean {
  return steps.some(
    ({ policy, outcome }) =>
      outcome !== 'staged' &&
      policy.egress?.some((rule) => rule.action !== 'Deny' && rule.peers?.length !== 0),
  );
}

/** Two policies of one tier and priority that may select one pod: nobody says which goes first. */
function contradictingPriorities(world: World): Lint[] {
  const cluster = world.policies.filter((policy) => policy.kind === 'ClusterNetworkPolicy');
  return cluster.flatMap((policy, i) =>
    cluster.slice(i + 1).flatMap((other): Lint[] => {
      if (other.tier !== policy.tier || other.priority !== policy.priority) return [];
      const shared = podsOf(world, policy).find(
        (pod) => chooses(other.subject, pod, world.namespaces) === true,
      );
      if (shared === undefined || !mayContradict(policy, other)) return [];
      return [
        {
          code: 'contradicting-priority',
          policy: other.id,
          field: 'spec.priority',
          message: `has the tier and priority of ${policy.id} and both select ${shared.key}; which one decides is not defined (here: by name)`,
        },
      ];
    }),
  );
}

function mayContradict(a: CompiledPolicy, b: CompiledPolicy): boolean {
  return DIRECTIONS.some((direction) => {
    const actions = new Set(
      [...(a[direction] ?? []), ...(b[direction] ?? [])].map((r) => r.action),
    );
    return (a[direction] ?? []).length > 0 && (b[direction] ?? []).length > 0 && actions.size > 1;
  });
}

function podsOf(world: World, policy: CompiledPolicy): PolicyPod[] {
  return [...world.pods.values()].filter(
    (pod) => chooses(policy.subject, pod, world.namespaces) === true,
  );
}
