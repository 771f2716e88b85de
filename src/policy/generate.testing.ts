/** Random clusters and flows for tests: few labels, ports and addresses, so that rules meet flows often. */
import fc from 'fast-check';
import type { LabelSelector } from '#api/meta.ts';
import type { NetworkPolicy } from '#api/networking/v1/network-policy.ts';
import type { ClusterNetworkPolicy } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import type { NaiveCluster, NaiveEnd, NaiveFlow, NaivePod } from './naive.testing.ts';

const NAMESPACES = ['one', 'two', 'three'];
const NODES = ['m1', 'm2'];
export const NODE_IPS: Readonly<Record<string, string>> = { m1: '192.0.2.1', m2: '192.0.2.2' };
const label = fc.constantFrom('a', 'b', 'c');
const labels = fc.record({ app: label, tier: label }, { requiredKeys: [] });
const protocol = fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const);
const port = fc.constantFrom(80, 81, 443, 8080);
const portName = fc.constantFrom('web', 'dns');

export const selector: fc.Arbitrary<LabelSelector> = fc.oneof(
  { weight: 2, arbitrary: fc.constant({}) },
  { weight: 4, arbitrary: labels.map((matchLabels) => ({ matchLabels })) },
  {
    weight: 2,
    arbitrary: fc
      .record({
        key: fc.constantFrom('app', 'tier'),
        operator: fc.constantFrom(
          'In' as const,
          'NotIn' as const,
          'Exists' as const,
          'DoesNotExist' as const,
        ),
        values: fc.array(label, { minLength: 1, maxLength: 2 }),
      })
      .map(({ key, operator, values }) => ({
        matchExpressions: [
          operator === 'In' || operator === 'NotIn' ? { key, operator, values } : { key, operator },
        ],
      })),
  },
);

const network = fc.constantFrom(
  '10.0.0.0/24',
  '10.0.0.0/28',
  '10.0.0.4/30',
  '192.0.2.0/24',
  '0.0.0.0/0',
  '198.51.100.7/32',
);
const ipBlock = fc.oneof(
  network.map((cidr) => ({ cidr })),
  fc.constant({ cidr: '10.0.0.0/24', except: ['10.0.0.0/29', '10.0.0.10/32'] as string[] }),
  fc.constant({ cidr: '0.0.0.0/0', except: ['10.0.0.0/8', '192.0.2.2/32'] as string[] }),
);
const peer = fc.oneof(
  selector.map((podSelector) => ({ podSelector })),
  selector.map((namespaceSelector) => ({ namespaceSelector })),
  fc.record({ podSelector: selector, namespaceSelector: selector }),
  ipBlock.map((block) => ({ ipBlock: block })),
);
const policyPort = fc.oneof(
  fc.record({ protocol, port }, { requiredKeys: [] }),
  fc.record({ protocol, port: portName }, { requiredKeys: ['port'] }),
  fc.record(
    { protocol, port: fc.constant(80), endPort: fc.constantFrom(80, 443) },
    { requiredKeys: ['port', 'endPort'] },
  ),
);
const few = <T>(arbitrary: fc.Arbitrary<T>) => fc.array(arbitrary, { maxLength: 2 });

export const networkPolicyArbitrary = (name: string): fc.Arbitrary<NetworkPolicy> =>
  fc
    .record({
      namespace: fc.constantFrom(...NAMESPACES),
      podSelector: selector,
      ingress: fc.option(
        few(fc.record({ from: few(peer), ports: few(policyPort) }, { requiredKeys: [] })),
        { nil: undefined },
      ),
      egress: fc.option(
        few(fc.record({ to: few(peer), ports: few(policyPort) }, { requiredKeys: [] })),
        { nil: undefined },
      ),
      policyTypes: fc.constantFrom(undefined, ['Ingress'], ['Egress'], ['Ingress', 'Egress']),
    })
    .map(({ namespace, podSelector, ingress, egress, policyTypes }) => ({
      ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
      metadata: { namespace, name },
      spec: {
        podSelector,
        ...(ingress === undefined ? {} : { ingress }),
        ...(egress === undefined ? {} : { egress }),
        ...(policyTypes === undefined
          ? {}
          : { policyTypes: [...policyTypes] as ('Ingress' | 'Egress')[] }),
      },
    }));

/** Policies about the same pods whose rules ask for the same ports, of other peers each: the kernel's rules may share that. */
const siblingsArbitrary: fc.Arbitrary<NetworkPolicy[]> = fc
  .record({
    namespace: fc.constantFrom(...NAMESPACES),
    podSelector: selector,
    ports: fc.array(policyPort, { minLength: 1, maxLength: 2 }),
    isIngress: fc.boolean(),
    peers: fc.array(few(peer), { minLength: 4, maxLength: 6 }),
  })
  .map(({ namespace, podSelector, ports, isIngress, peers }) =>
    peers.map((some, i) => ({
      ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
      metadata: { namespace, name: `sibling${i}` },
      spec: {
        podSelector,
        ...(isIngress
          ? { policyTypes: ['Ingress'], ingress: [{ from: some, ports }] }
          : { policyTypes: ['Egress'], egress: [{ to: some, ports }] }),
      },
    })),
  );

const namespacedPod = fc.record({ namespaceSelector: selector, podSelector: selector });
const clusterProtocol = fc.oneof(
  fc
    .tuple(
      fc.constantFrom('tcp', 'udp', 'sctp'),
      fc.oneof(
        fc.constant({}),
        port.map((number) => ({ destinationPort: { number } })),
        fc.constant({ destinationPort: { range: { start: 80, end: 443 } } }),
      ),
    )
    .map(([key, match]) => ({ [key]: match })),
  portName.map((destinationNamedPort) => ({ destinationNamedPort })),
);
const clusterPeer = fc.oneof(
  selector.map((namespaces) => ({ namespaces })),
  namespacedPod.map((pods) => ({ pods })),
);
/** What DNS has told pods in every generated cluster: an address outside, and one of a pod. */
export const ANSWERS: Readonly<Record<string, readonly string[]>> = {
  'a.example': ['198.51.100.7'],
  'b.a.example': ['198.51.100.8', '10.0.0.4'],
};
const domainName = fc.constantFrom('a.example', '*.example', '*.a.example', 'other.example');

const egressPeer = fc.oneof(
  domainName.map((name) => ({ domainNames: [name] })),
  clusterPeer,
  fc.array(network, { minLength: 1, maxLength: 2 }).map((networks) => ({ networks })),
  selector.map((nodes) => ({ nodes })),
);
const action = fc.constantFrom('Accept' as const, 'Deny' as const, 'Pass' as const);
const atLeastOne = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.array(arbitrary, { minLength: 1, maxLength: 2 });

export const clusterPolicyArbitrary = (name: string): fc.Arbitrary<ClusterNetworkPolicy> =>
  fc
    .record(
      {
        tier: fc.constantFrom('Admin' as const, 'Baseline' as const),
        priority: fc.constantFrom(1, 2),
        subject: fc.oneof(
          selector.map((namespaces) => ({ namespaces })),
          namespacedPod.map((pods) => ({ pods })),
        ),
        ingress: few(
          fc.record(
            { action, from: atLeastOne(clusterPeer), protocols: atLeastOne(clusterProtocol) },
            { requiredKeys: ['action', 'from'] },
          ),
        ),
        egress: few(
          fc.record(
            { action, to: atLeastOne(egressPeer), protocols: atLeastOne(clusterProtocol) },
            { requiredKeys: ['action', 'to'] },
          ),
        ),
      },
      { requiredKeys: ['tier', 'priority', 'subject'] },
    )
    .map((spec) => ({
      ...{ apiVersion: 'policy.networking.k8s.io/v1alpha2', kind: 'ClusterNetworkPolicy' },
      metadata: { name },
      spec: spec as ClusterNetworkPolicy['spec'],
    }));

const podArbitrary = (i: number): fc.Arbitrary<NaivePod> =>
  fc.record({
    namespace: fc.constantFrom(...NAMESPACES),
    name: fc.constant(`p${i}`),
    labels: labels as fc.Arbitrary<Record<string, string>>,
    ip: fc.constant(`10.0.0.${i * 3 + 1}`),
    node: fc.constantFrom(...NODES),
    ports: few(fc.record({ name: portName, protocol: protocol as fc.Arbitrary<string>, port })),
  });

export interface GeneratedCluster extends NaiveCluster {
  readonly pods: NaivePod[];
}

export const MAX_GENERATED_PODS = 6;

export const clusterArbitrary: fc.Arbitrary<GeneratedCluster> = fc
  .record({
    namespaceLabels: fc.tuple(labels, labels, labels),
    nodeLabels: fc.tuple(labels, labels),
    pods: fc.tuple(...Array.from({ length: MAX_GENERATED_PODS }, (_, i) => podArbitrary(i))),
    policies: fc.tuple(
      ...Array.from({ length: 4 }, (_, i) =>
        fc.option(networkPolicyArbitrary(`np${i}`), { nil: undefined }),
      ),
    ),
    siblings: fc.option(siblingsArbitrary, { nil: [] }),
    clusterPolicies: fc.tuple(
      ...Array.from({ length: 3 }, (_, i) =>
        fc.option(clusterPolicyArbitrary(`cnp${i}`), { nil: undefined }),
      ),
    ),
  })
  .map(({ namespaceLabels, nodeLabels, pods, policies, siblings, clusterPolicies }) => ({
    namespaces: Object.fromEntries(
      NAMESPACES.map((name, i) => [
        name,
        { 'kubernetes.io/metadata.name': name, ...namespaceLabels[i] } as Record<string, string>,
      ]),
    ),
    nodes: Object.fromEntries(
      NODES.map((name, i) => [name, { ...nodeLabels[i] } as Record<string, string>]),
    ),
    pods,
    policies: [...policies.filter((it) => it !== undefined), ...siblings],
    clusterPolicies: clusterPolicies.filter((it) => it !== undefined),
  }));

/** Every end that a flow may have in the cluster. */
export function endsOf(cluster: GeneratedCluster): NaiveEnd[] {
  return [
    ...cluster.pods.map((pod) => ({ pod, ip: pod.ip })),
    ...NODES.map((node) => ({ node, ip: NODE_IPS[node] ?? '' })),
    { ip: '198.51.100.7' },
    { ip: '198.51.100.8' },
  ];
}

/** All flows between all ends on a few ports. */
export function* flowsOf(cluster: GeneratedCluster): Iterable<NaiveFlow> {
  const ends = endsOf(cluster);
  for (const from of ends)
    for (const to of ends)
      for (const [name, number] of [
        ['TCP', 80],
        ['TCP', 8080],
        ['UDP', 81],
        ['SCTP', 443],
      ] as const)
        yield { from, to, protocol: name, port: number };
}
