/**
 * Truth tables in the shape of upstream's suite for NetworkPolicy: namespaces x, y, z with pods a, b, c each, ports 80 and
 * 81 over TCP, UDP and SCTP, all of it probed from all of it after each policy.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { LabelSelector } from '#api/meta.ts';
import type { NetworkPolicySpec } from '#api/networking/v1/network-policy.ts';
import type { ClusterNetworkPolicy } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { ip } from '#lib/ip.ts';
import { evaluate } from './evaluate.ts';
import type { End } from './match.ts';
import { type PolicyPod, PROTOCOL_NUMBERS, type World } from './model.ts';
import { compilePolicy } from './world.ts';

const NAMESPACES = ['x', 'y', 'z'];
const PODS = ['a', 'b', 'c'];
type ProtocolName = keyof typeof PROTOCOL_NUMBERS;
interface Probe {
  readonly from: string;
  readonly to: string;
  readonly fromNs: string;
  readonly toNs: string;
  readonly fromPod: string;
  readonly toPod: string;
  readonly protocol: ProtocolName;
  readonly port: number;
}

const pods = new Map<string, PolicyPod>(
  NAMESPACES.flatMap((namespace, i) =>
    PODS.map((name, j) => {
      const key = `${namespace}/${name}`;
      const ports = Object.entries(PROTOCOL_NUMBERS).flatMap(([protocol, number]) =>
        [80, 81].map((port) => ({
          name: `serve-${port}-${protocol.toLowerCase()}`,
          protocol: number,
          port,
        })),
      );
      const pod: PolicyPod = {
        ...{ key, namespace, name, labels: { pod: name }, ips: [ip(`10.0.${i}.${j + 1}`)] },
        ...{ node: `n${j}`, hostNetwork: false, ports },
      };
      return [key, pod] as const;
    }),
  ),
);
const namespaces = new Map(
  NAMESPACES.map((name) => [
    name,
    { name, labels: { ns: name, 'kubernetes.io/metadata.name': name } },
  ]),
);

const pod = (name: string): LabelSelector => ({ matchLabels: { pod: name } });
const ns = (name: string): LabelSelector => ({ matchLabels: { ns: name } });
const not = (key: string, value: string): LabelSelector => ({
  matchExpressions: [{ key, operator: 'NotIn', values: [value] }],
});
const inside = (key: string, ...values: string[]): LabelSelector => ({
  matchExpressions: [{ key, operator: 'In', values }],
});

interface Case {
  readonly name: string;
  /** In namespace x. */
  readonly policies?: readonly NetworkPolicySpec[];
  readonly cluster?: readonly ClusterNetworkPolicy['spec'][];
  /** Of pods other than the probe's own. */
  readonly allowed: (probe: Probe) => boolean;
}

const toA = (probe: Probe) => probe.to === 'x/a';
const CASES: readonly Case[] = [
  { name: 'no policy', allowed: () => true },
  { name: 'deny ingress of all', policies: [{ podSelector: {} }], allowed: (p) => p.toNs !== 'x' },
  {
    name: 'deny all',
    policies: [{ podSelector: {}, policyTypes: ['Ingress', 'Egress'] }],
    allowed: (p) => p.toNs !== 'x' && p.fromNs !== 'x',
  },
  {
    name: 'deny egress of all',
    policies: [{ podSelector: {}, policyTypes: ['Egress'] }],
    allowed: (p) => p.fromNs !== 'x',
  },
  { name: 'a missing podSelector is all pods', policies: [{}], allowed: (p) => p.toNs !== 'x' },
  {
    name: 'allow all ingress',
    policies: [{ podSelector: {}, ingress: [{}] }],
    allowed: () => true,
  },
  {
    name: 'allow all egress',
    policies: [{ podSelector: {}, egress: [{}], policyTypes: ['Egress'] }],
    allowed: () => true,
  },
  {
    name: 'egress rules without policyTypes isolate ingress too',
    policies: [{ podSelector: pod('a'), egress: [{}] }],
    allowed: (p) => !toA(p),
  },
  {
    name: 'an empty list of egress rules without policyTypes restricts no egress',
    policies: [{ podSelector: pod('a'), egress: [] }],
    allowed: (p) => !toA(p),
  },
  {
    name: 'empty from is everybody',
    policies: [{ podSelector: pod('a'), ingress: [{ from: [] }] }],
    allowed: () => true,
  },
  {
    name: 'empty ports are all ports',
    policies: [
      { podSelector: pod('a'), ingress: [{ ports: [], from: [{ podSelector: pod('b') }] }] },
    ],
    allowed: (p) => !toA(p) || p.from === 'x/b',
  },
  {
    name: 'podSelector alone is of the policy’s namespace',
    policies: [{ podSelector: pod('a'), ingress: [{ from: [{ podSelector: pod('b') }] }] }],
    allowed: (p) => !toA(p) || p.from === 'x/b',
  },
  {
    name: 'namespaceSelector alone is all its pods',
    policies: [{ podSelector: pod('a'), ingress: [{ from: [{ namespaceSelector: ns('y') }] }] }],
    allowed: (p) => !toA(p) || p.fromNs === 'y',
  },
  {
    name: 'both in one peer must hold',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ namespaceSelector: ns('y'), podSelector: pod('b') }] }],
      },
    ],
    allowed: (p) => !toA(p) || p.from === 'y/b',
  },
  {
    name: 'both in two peers: either',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ namespaceSelector: ns('y') }, { podSelector: pod('b') }] }],
      },
    ],
    allowed: (p) => !toA(p) || p.fromNs === 'y' || p.from === 'x/b',
  },
  {
    name: 'an empty namespaceSelector is every namespace',
    policies: [{ podSelector: pod('a'), ingress: [{ from: [{ namespaceSelector: {} }] }] }],
    allowed: () => true,
  },
  {
    name: 'an empty podSelector as peer is the namespace',
    policies: [{ podSelector: pod('a'), ingress: [{ from: [{ podSelector: {} }] }] }],
    allowed: (p) => !toA(p) || p.fromNs === 'x',
  },
  {
    name: 'NotIn on namespaces',
    policies: [
      { podSelector: pod('a'), ingress: [{ from: [{ namespaceSelector: not('ns', 'x') }] }] },
    ],
    allowed: (p) => !toA(p) || p.fromNs !== 'x',
  },
  {
    name: 'In on pods, in every namespace',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ namespaceSelector: {}, podSelector: inside('pod', 'b', 'c') }] }],
      },
    ],
    allowed: (p) => !toA(p) || p.fromPod !== 'a',
  },
  {
    name: 'Exists and DoesNotExist',
    policies: [
      {
        podSelector: { matchExpressions: [{ key: 'pod', operator: 'Exists' }] },
        ingress: [
          {
            from: [
              { podSelector: { matchExpressions: [{ key: 'pod', operator: 'DoesNotExist' }] } },
            ],
          },
        ],
      },
    ],
    allowed: (p) => p.toNs !== 'x',
  },
  {
    name: 'a port without protocol is TCP',
    policies: [{ podSelector: pod('a'), ingress: [{ ports: [{ port: 80 }] }] }],
    allowed: (p) => !toA(p) || (p.port === 80 && p.protocol === 'TCP'),
  },
  {
    name: 'a protocol without port is all its ports',
    policies: [{ podSelector: pod('a'), ingress: [{ ports: [{ protocol: 'UDP' }] }] }],
    allowed: (p) => !toA(p) || p.protocol === 'UDP',
  },
  {
    name: 'SCTP only',
    policies: [{ podSelector: pod('a'), ingress: [{ ports: [{ protocol: 'SCTP', port: 81 }] }] }],
    allowed: (p) => !toA(p) || (p.protocol === 'SCTP' && p.port === 81),
  },
  {
    name: 'a range of ports',
    policies: [{ podSelector: pod('a'), ingress: [{ ports: [{ port: 70, endPort: 80 }] }] }],
    allowed: (p) => !toA(p) || (p.protocol === 'TCP' && p.port === 80),
  },
  {
    name: 'a named port',
    policies: [{ podSelector: pod('a'), ingress: [{ ports: [{ port: 'serve-81-tcp' }] }] }],
    allowed: (p) => !toA(p) || (p.protocol === 'TCP' && p.port === 81),
  },
  {
    name: 'a named port of another protocol than the rule’s is none',
    policies: [
      { podSelector: pod('a'), ingress: [{ ports: [{ port: 'serve-81-udp', protocol: 'TCP' }] }] },
    ],
    allowed: (p) => !toA(p),
  },
  {
    name: 'a named port on egress is resolved at the destination',
    policies: [
      {
        podSelector: pod('a'),
        policyTypes: ['Egress'],
        egress: [{ to: [{ namespaceSelector: ns('y') }], ports: [{ port: 'serve-80-tcp' }] }],
      },
    ],
    allowed: (p) => p.from !== 'x/a' || (p.toNs === 'y' && p.protocol === 'TCP' && p.port === 80),
  },
  {
    name: 'two policies are a union',
    policies: [
      { podSelector: pod('a'), ingress: [{ ports: [{ port: 80 }] }] },
      { podSelector: {}, ingress: [{ from: [{ namespaceSelector: ns('z') }] }] },
    ],
    allowed: (p) =>
      p.toNs !== 'x' || p.fromNs === 'z' || (toA(p) && p.port === 80 && p.protocol === 'TCP'),
  },
  {
    name: 'ingress and egress must agree',
    policies: [
      {
        podSelector: pod('a'),
        policyTypes: ['Egress'],
        egress: [{ to: [{ podSelector: pod('b') }] }],
      },
      { podSelector: pod('b'), ingress: [{ from: [{ podSelector: pod('c') }] }] },
    ],
    allowed: (p) => p.from !== 'x/a' && (p.to !== 'x/b' || p.from === 'x/c'),
  },
  {
    name: 'ipBlock, with an exception',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ ipBlock: { cidr: '10.0.1.0/24', except: ['10.0.1.2/32'] } }] }],
      },
    ],
    allowed: (p) => !toA(p) || (p.fromNs === 'y' && p.fromPod !== 'b'),
  },
  {
    name: 'ipBlock with host bits',
    policies: [
      { podSelector: pod('a'), ingress: [{ from: [{ ipBlock: { cidr: '10.0.1.77/24' } }] }] },
    ],
    allowed: (p) => !toA(p) || p.fromNs === 'y',
  },
  {
    name: 'an address that one block excepts and another allows',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.1.0/24'] } }] }],
      },
      { podSelector: pod('a'), ingress: [{ from: [{ ipBlock: { cidr: '10.0.1.3/32' } }] }] },
    ],
    allowed: (p) => !toA(p) || p.fromNs !== 'y' || p.fromPod === 'c',
  },
  {
    name: 'egress to an ipBlock',
    policies: [
      {
        podSelector: pod('a'),
        policyTypes: ['Egress'],
        egress: [{ to: [{ ipBlock: { cidr: '10.0.2.0/24' } }] }],
      },
    ],
    allowed: (p) => p.from !== 'x/a' || p.toNs === 'z',
  },
  {
    name: 'Admin Deny goes before a NetworkPolicy that allows',
    policies: [{ podSelector: {}, ingress: [{}] }],
    cluster: [
      {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: ns('x') } },
        ingress: [{ action: 'Deny', from: [{ namespaces: ns('z') }] }],
      },
    ],
    allowed: (p) => p.toNs !== 'x' || p.fromNs !== 'z',
  },
  {
    name: 'Admin Accept goes before a NetworkPolicy that isolates',
    policies: [{ podSelector: {} }],
    cluster: [
      {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: ns('x') } },
        ingress: [{ action: 'Accept', from: [{ namespaces: ns('z') }] }],
      },
    ],
    allowed: (p) => p.toNs !== 'x' || p.fromNs === 'z',
  },
  {
    name: 'Pass leaves the tier, lower priorities of it too',
    cluster: [
      {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: ns('x') } },
        ingress: [{ action: 'Pass', from: [{ namespaces: ns('z') }] }],
      },
      {
        ...{ tier: 'Admin', priority: 2, subject: { namespaces: {} } },
        ingress: [{ action: 'Deny', from: [{ namespaces: ns('z') }] }],
      },
    ],
    allowed: (p) => p.toNs === 'x' || p.fromNs !== 'z',
  },
  {
    name: 'the lower priority goes first, the first rule wins',
    cluster: [
      {
        ...{ tier: 'Admin', priority: 20, subject: { namespaces: {} } },
        ingress: [{ action: 'Accept', from: [{ namespaces: {} }] }],
      },
      {
        ...{ tier: 'Admin', priority: 10, subject: { namespaces: ns('x') } },
        ingress: [
          { action: 'Accept', from: [{ namespaces: {} }], protocols: [{ udp: {} }] },
          { action: 'Deny', from: [{ namespaces: {} }] },
        ],
      },
    ],
    allowed: (p) => p.toNs !== 'x' || p.protocol === 'UDP',
  },
  {
    name: 'Baseline is asked only where no NetworkPolicy selects',
    policies: [{ podSelector: pod('a'), ingress: [{ from: [{ namespaceSelector: ns('y') }] }] }],
    cluster: [
      {
        ...{ tier: 'Baseline', priority: 1, subject: { namespaces: ns('x') } },
        ingress: [{ action: 'Deny', from: [{ namespaces: {} }] }],
      },
    ],
    allowed: (p) => p.toNs !== 'x' || (toA(p) && p.fromNs === 'y'),
  },
  {
    name: 'subject pods, egress networks, a range and a named port',
    cluster: [
      {
        tier: 'Admin',
        priority: 0,
        subject: { pods: { namespaceSelector: ns('x'), podSelector: pod('a') } },
        egress: [
          {
            ...{ action: 'Accept', to: [{ namespaces: ns('y') }] },
            protocols: [
              { tcp: { destinationPort: { range: { start: 80, end: 81 } } } },
              { destinationNamedPort: 'serve-81-sctp' },
            ],
          },
          { action: 'Deny', to: [{ networks: ['10.0.1.0/24', '10.0.2.0/24'] }] },
        ],
      },
    ],
    allowed: (p) =>
      p.from !== 'x/a' ||
      p.toNs === 'x' ||
      (p.toNs === 'y' && (p.protocol === 'TCP' || (p.protocol === 'SCTP' && p.port === 81))),
  },
  {
    name: 'an Accept rule with an unknown peer accepts nothing, a Deny rule denies all',
    cluster: [
      {
        ...{ tier: 'Admin', priority: 0, subject: { namespaces: ns('x') } },
        ingress: [
          { action: 'Accept', from: [{ namespaces: ns('y') }, { moons: {} } as object] },
          { action: 'Accept', from: [{ namespaces: ns('z') }] },
          { action: 'Deny', from: [{ moons: {} } as object] },
        ],
      },
    ],
    allowed: (p) => p.toNs !== 'x' || p.fromNs === 'z',
  },
  {
    name: 'a Pass rule with an unknown protocol denies all',
    cluster: [
      {
        ...{ tier: 'Admin', priority: 0, subject: { namespaces: ns('x') } },
        ingress: [
          { action: 'Pass', from: [{ namespaces: {} }], protocols: [{ quic: {} } as object] },
        ],
      },
    ],
    allowed: (p) => p.toNs !== 'x',
  },
  // The cases of upstream's suites that the ones above do not hold already, in our words.
  {
    name: 'any of several labels of pods',
    policies: [
      { podSelector: pod('a'), ingress: [{ from: [{ podSelector: inside('pod', 'b', 'c') }] }] },
    ],
    allowed: (p) => !toA(p) || p.fromNs === 'x',
  },
  {
    name: 'nobody from other namespaces',
    policies: [{ podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] }],
    allowed: (p) => p.toNs !== 'x' || p.fromNs === 'x',
  },
  {
    name: 'namespaces by the label that each has, with an expression',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [
          { from: [{ namespaceSelector: inside('kubernetes.io/metadata.name', 'y', 'none') }] },
        ],
      },
    ],
    allowed: (p) => !toA(p) || p.fromNs === 'y',
  },
  {
    name: 'a policy for pods that are not there restricts nobody',
    policies: [{ podSelector: pod('none'), policyTypes: ['Ingress', 'Egress'] }],
    allowed: () => true,
  },
  {
    name: 'stacked policies, each with a port of its own',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ namespaceSelector: ns('y') }], ports: [{ port: 80 }] }],
      },
      {
        podSelector: inside('pod', 'a', 'b'),
        ingress: [{ from: [{ namespaceSelector: ns('z') }], ports: [{ port: 81 }] }],
      },
    ],
    allowed: (p) => {
      const byFirst = toA(p) && p.fromNs === 'y' && p.port === 80;
      const bySecond = p.fromNs === 'z' && p.port === 81;
      if (p.toNs !== 'x' || p.toPod === 'c') return true;
      return p.protocol === 'TCP' && (byFirst || bySecond);
    },
  },
  {
    name: 'ingress and egress of one policy, each with its own peers',
    policies: [
      {
        podSelector: pod('a'),
        policyTypes: ['Ingress', 'Egress'],
        ingress: [{ from: [{ namespaceSelector: ns('y') }] }],
        egress: [{ to: [{ namespaceSelector: ns('z') }] }],
      },
    ],
    allowed: (p) => (p.to !== 'x/a' || p.fromNs === 'y') && (p.from !== 'x/a' || p.toNs === 'z'),
  },
  {
    name: 'egress and ingress controlled by two policies for the same pods',
    policies: [
      { podSelector: pod('a'), ingress: [{ from: [{ podSelector: pod('b') }] }] },
      {
        podSelector: pod('a'),
        policyTypes: ['Egress'],
        egress: [{ to: [{ podSelector: pod('c') }] }],
      },
    ],
    allowed: (p) => (p.to !== 'x/a' || p.from === 'x/b') && (p.from !== 'x/a' || p.to === 'x/c'),
  },
  {
    name: 'a rule with peers and one with ports are two ways in',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ namespaceSelector: ns('y') }] }, { ports: [{ port: 81 }] }],
      },
    ],
    allowed: (p) => !toA(p) || p.fromNs === 'y' || (p.protocol === 'TCP' && p.port === 81),
  },
  {
    name: 'several ports of several protocols in one rule',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [
          {
            ports: [
              { port: 80, protocol: 'UDP' },
              { port: 81, protocol: 'SCTP' },
            ],
          },
        ],
      },
    ],
    allowed: (p) =>
      !toA(p) || `${p.port}/${p.protocol}` === '80/UDP' || `${p.port}/${p.protocol}` === '81/SCTP',
  },
  {
    name: 'egress to a block, with an exception inside',
    policies: [
      {
        podSelector: pod('a'),
        policyTypes: ['Egress'],
        egress: [{ to: [{ ipBlock: { cidr: '10.0.1.0/24', except: ['10.0.1.2/32'] } }] }],
      },
    ],
    allowed: (p) => p.from !== 'x/a' || (p.toNs === 'y' && p.toPod !== 'b'),
  },
  {
    name: 'a block and a selector in two peers: either',
    policies: [
      {
        podSelector: pod('a'),
        ingress: [{ from: [{ ipBlock: { cidr: '10.0.1.1/32' } }, { podSelector: pod('b') }] }],
      },
    ],
    allowed: (p) => !toA(p) || p.from === 'y/a' || p.from === 'x/b',
  },
  ...(['TCP', 'UDP', 'SCTP'] as const).flatMap((protocol): Case[] =>
    (['Admin', 'Baseline'] as const).map((tier) => ({
      name: `${tier} tier, ${protocol}: one port accepted, the rest of the protocol denied`,
      cluster: [
        {
          ...{ tier, priority: 10, subject: { namespaces: ns('x') } },
          ingress: [
            {
              action: 'Accept',
              from: [{ namespaces: {} }],
              protocols: [{ [protocol.toLowerCase()]: { destinationPort: { number: 80 } } }],
            },
            {
              action: 'Deny',
              from: [{ namespaces: {} }],
              protocols: [{ [protocol.toLowerCase()]: {} }],
            },
          ],
        },
      ],
      allowed: (p) => p.toNs !== 'x' || p.protocol !== protocol || p.port === 80,
    })),
  ),
  ...(['Accept', 'Deny', 'Pass'] as const).flatMap((first): Case[] =>
    (['Accept', 'Deny', 'Pass'] as const).map((second) => ({
      name: `Admin ${first} before ${second}, then a NetworkPolicy that isolates`,
      policies: [{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: ns('z') }] }] }],
      cluster: [
        {
          ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
          ingress: [
            { action: first, from: [{ namespaces: ns('y') }] },
            { action: second, from: [{ namespaces: inside('ns', 'y', 'z') }] },
          ],
        },
      ],
      allowed: (p) => {
        const action = p.fromNs === 'y' ? first : p.fromNs === 'z' ? second : 'Pass';
        if (action !== 'Pass') return action === 'Accept';
        return p.toNs !== 'x' || p.fromNs === 'z';
      },
    })),
  ),
  {
    name: 'egress of both tiers: Admin passes, the NetworkPolicy is silent, Baseline denies',
    cluster: [
      {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: ns('x') } },
        egress: [{ action: 'Pass', to: [{ namespaces: {} }] }],
      },
      {
        ...{ tier: 'Baseline', priority: 1, subject: { namespaces: ns('x') } },
        egress: [
          { action: 'Accept', to: [{ pods: { namespaceSelector: {}, podSelector: pod('b') } }] },
          { action: 'Deny', to: [{ networks: ['10.0.1.0/24', '10.0.2.0/24'] }] },
        ],
      },
    ],
    allowed: (p) => p.fromNs !== 'x' || p.toNs === 'x' || p.toPod === 'b',
  },
  {
    name: 'a domain name where traffic comes from cannot be judged: the rule accepts nothing',
    cluster: [
      {
        ...{ tier: 'Admin', priority: 0, subject: { namespaces: ns('x') } },
        ingress: [
          {
            action: 'Accept',
            from: [{ domainNames: ['*.example.com'] } as object, { namespaces: ns('y') }],
          },
          { action: 'Deny', from: [{ namespaces: {} }] },
        ],
      },
    ],
    allowed: (p) => p.toNs !== 'x',
  },
  {
    name: 'a name of a domain as peer means no pod',
    cluster: [
      {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: ns('x') } },
        egress: [
          { action: 'Accept', to: [{ domainNames: ['*.example.com'] }] },
          { action: 'Deny', to: [{ networks: ['0.0.0.0/0'] }] },
        ],
      },
    ],
    allowed: (p) => p.fromNs !== 'x',
  },
];

describe('truth tables', () => {
  for (const { name, policies = [], cluster = [], allowed } of CASES)
    test(name, () => {
      const world: World = {
        ...{ pods, namespaces, nodes: new Map() },
        policies: [
          ...policies.map((spec, i) => ({
            ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', spec },
            metadata: { namespace: 'x', name: `p${i}` },
          })),
          ...cluster.map((spec, i) => ({
            ...{
              apiVersion: 'policy.networking.k8s.io/v1alpha2',
              kind: 'ClusterNetworkPolicy',
              spec,
            },
            metadata: { name: `c${i}` },
          })),
        ].map(compilePolicy),
      };
      let probes = 0;
      for (const probe of allProbes()) {
        const [from, to] = [endOf(probe.from), endOf(probe.to)];
        const protocol = PROTOCOL_NUMBERS[probe.protocol];
        const found = evaluate(world, { from, to, protocol, port: probe.port }).allowed;
        const expected = probe.from === probe.to || allowed(probe);
        assert.equal(found, expected, JSON.stringify(probe));
        probes++;
      }
      assert.equal(probes, 9 * 9 * 6);
    });
});

function* allProbes(): Iterable<Probe> {
  for (const source of pods.values())
    for (const target of pods.values())
      for (const protocol of Object.keys(PROTOCOL_NUMBERS) as ProtocolName[])
        for (const port of [80, 81])
          yield {
            ...{ from: source.key, fromNs: source.namespace, fromPod: source.name },
            ...{ to: target.key, toNs: target.namespace, toPod: target.name },
            ...{ protocol, port },
          };
}

function endOf(key: string): End {
  const found = pods.get(key);
  return { pod: found, node: undefined, ip: found?.ips[0] };
}
