/**
 * Policies as real connections: pods on one machine and on two, over TCP, UDP and SCTP, in both families, to each other and
 * by a service, after each set of policies held to what the engine says of the very objects that the API has.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { NETWORK_POLICY, type NetworkPolicySpec } from '#api/networking/v1/network-policy.ts';
import {
  CLUSTER_NETWORK_POLICY,
  type ClusterNetworkPolicy,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { containerPid, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import { PodProgram } from '#node/policy/pod-program.testing.ts';
import { sctpInit } from '#node/policy/sctp.testing.ts';
import { endOfPod } from '#policy/ends.ts';
import { evaluate } from '#policy/evaluate.ts';
import { PROTOCOL_NUMBERS, type World } from '#policy/model.ts';
import { buildWorld } from '#policy/world.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const WAIT_MS = 30_000;
const LAB = 'test-pol-flows';
const MACHINES = { a: 'm1', b: 'm1', c: 'm2', d: 'm2' } as const;
type PodName = keyof typeof MACHINES;
const PODS = Object.keys(MACHINES) as PodName[];
const PAIRS: readonly (readonly [PodName, PodName])[] = [
  ...([
    ['a', 'b'],
    ['a', 'c'],
    ['a', 'd'],
    ['d', 'c'],
    ['d', 'a'],
    ['c', 'a'],
  ] as const),
];
/** Who asks the service, whose endpoint is c. */
const CLIENTS: readonly PodName[] = ['a', 'b', 'd'];
const SERVER: PodName = 'c';
const SCTP_PORT = 9003;
const PORTS: readonly (readonly [keyof typeof PROTOCOL_NUMBERS, number])[] = [
  ['TCP', 80],
  ['TCP', 81],
  ['UDP', 80],
  ['SCTP', SCTP_PORT],
];
/** Ports of the service: 81 is none. */
const SERVICE_PORTS = PORTS.filter(([, port]) => port !== 81);

interface Probe {
  readonly from: PodName;
  readonly to: PodName;
  readonly family: 4 | 6;
  readonly protocol: keyof typeof PROTOCOL_NUMBERS;
  readonly port: number;
  readonly isService: boolean;
}

const PROBES: readonly Probe[] = ([4, 6] as const).flatMap((family) => [
  ...PAIRS.flatMap(([from, to]) =>
    PORTS.map(([protocol, port]) => ({ from, to, family, protocol, port, isService: false })),
  ),
  ...CLIENTS.flatMap((from) =>
    SERVICE_PORTS.map(([protocol, port]) => ({
      ...{ from, to: SERVER, family, protocol, port, isService: true },
    })),
  ),
]);

const pods = (app: string) => ({ podSelector: { matchLabels: { app } } });
const ALL_PORTS = { destinationPort: { range: { start: 1, end: 65_535 } } };
const everywhere = (app: string) => ({ pods: { namespaceSelector: {}, ...pods(app) } });

/** `ADDRESS-a/4` stands for the IPv4 address of pod a, as a prefix. */
interface Scenario {
  readonly name: string;
  readonly policies?: readonly NetworkPolicySpec[];
  readonly cluster?: readonly ClusterNetworkPolicy['spec'][];
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'no policy' },
  { name: 'nobody to c', policies: [pods('c')] },
  {
    name: 'a to c over TCP 80 and SCTP, d over UDP',
    policies: [
      {
        ...pods('c'),
        ingress: [
          { from: [pods('a')], ports: [{ port: 80 }, { port: SCTP_PORT, protocol: 'SCTP' }] },
          { from: [pods('d')], ports: [{ protocol: 'UDP' }] },
        ],
      },
    ],
  },
  {
    name: 'egress of a: c by UDP and SCTP, b and d by a range',
    policies: [
      {
        ...pods('a'),
        policyTypes: ['Egress'],
        egress: [
          { to: [pods('c')], ports: [{ protocol: 'UDP' }, { protocol: 'SCTP', port: SCTP_PORT }] },
          { to: [pods('b'), pods('d')], ports: [{ port: 81, endPort: 90 }] },
        ],
      },
    ],
  },
  {
    name: 'blocks: all but one address of each family, to c',
    policies: [
      {
        ...pods('c'),
        ingress: [
          {
            from: [
              { ipBlock: { cidr: '0.0.0.0/0', except: ['ADDRESS-a/4'] } },
              { ipBlock: { cidr: '::/0', except: ['ADDRESS-d/6'] } },
            ],
          },
        ],
      },
    ],
  },
  {
    name: 'Admin denies SCTP to all and passes a, Baseline denies d, a NetworkPolicy isolates b',
    policies: [{ ...pods('b'), ingress: [{ from: [pods('a')], ports: [{ port: 81 }] }] }],
    cluster: [
      {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
        ingress: [
          { action: 'Deny', from: [{ namespaces: {} }], protocols: [{ sctp: ALL_PORTS }] },
          { action: 'Pass', from: [everywhere('a')] },
          { action: 'Accept', from: [everywhere('d')], protocols: [{ udp: ALL_PORTS }] },
        ],
      },
      {
        ...{ tier: 'Baseline', priority: 1, subject: { namespaces: {} } },
        ingress: [{ action: 'Deny', from: [everywhere('d'), everywhere('c')] }],
      },
    ],
  },
];

describe('flows on two machines', () => {
  let cluster: LabCluster;
  const programs = new Map<PodName, PodProgram>();
  const places = new Map<PodName, readonly string[]>();
  const addresses = new Map<PodName, readonly string[]>();
  let serviceIps: readonly string[] = [];

  before(async () => {
    const started = await startCluster({ name: LAB, machines: 2, serverFlags: DUAL_STACK });
    cluster = started.cluster;
    for (const name of PODS) {
      const machine = started.lab.machine(MACHINES[name]);
      await runContainer(machine, { name, role: 'client', labels: { app: name } });
      const pid = await containerPid(machine, name);
      const place = machine.enter(['nsenter', '--target', String(pid), '--net', '--']);
      places.set(name, place);
      programs.set(name, await PodProgram.start(place, [80, 81]));
    }
    const service = await cluster.client.create(SERVICE, {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'far', namespace: 'default' } },
      spec: {
        ...{ ipFamilyPolicy: 'RequireDualStack', selector: { app: SERVER } },
        ports: SERVICE_PORTS.map(([protocol, port]) => ({
          ...{ name: protocol.toLowerCase(), protocol, port },
        })),
      },
    });
    serviceIps = service.spec.clusterIPs ?? [];
    await until('the pods are known', WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      for (const { metadata, status } of items)
        addresses.set(
          metadata.name as PodName,
          (status?.podIPs ?? []).map(({ ip }) => ip),
        );
      return PODS.every((name) => addresses.get(name)?.length === 2);
    });
  });
  after(async () => {
    for (const program of programs.values()) await program.stop();
    await Lab.remove(LAB);
  });

  const ofFamily = (list: readonly string[] | undefined, family: 4 | 6) =>
    list?.find((it) => it.includes(':') === (family === 6)) ?? '';

  async function arrives({ from, to, family, protocol, port, isService }: Probe): Promise<boolean> {
    const host = ofFamily(isService ? serviceIps : addresses.get(to), family);
    const [source, target] = [places.get(from), places.get(to)];
    assert.ok(source && target);
    if (protocol === 'SCTP')
      return (await sctpInit({ from: source, to: target }, { host, port })) === 'ok';
    const op = protocol === 'TCP' ? 'tcp' : 'udp';
    return (await programs.get(from)?.ask(op, { host, port })) === 'ok';
  }

  async function worldNow(): Promise<World> {
    const { client } = cluster;
    const [pods, namespaces, nodes, own, wide] = await Promise.all([
      ...([client.list(POD), client.list(NAMESPACE), client.list(NODE)] as const),
      ...([client.list(NETWORK_POLICY), client.list(CLUSTER_NETWORK_POLICY)] as const),
    ]);
    return buildWorld({
      ...{ pods: pods.items, namespaces: namespaces.items, nodes: nodes.items },
      policies: [
        ...own.items.map((it) => ({ ...it, kind: 'NetworkPolicy' as const })),
        ...wide.items.map((it) => ({ ...it, kind: 'ClusterNetworkPolicy' as const })),
      ],
    });
  }

  const allowed = (world: World, { from, to, family, protocol, port }: Probe) => {
    const [source, target] = [from, to].map((name) => {
      const pod = world.pods.get(`default/${name}`);
      assert.ok(pod);
      const ip = pod.ips.find((it) => it.includes(':') === (family === 6));
      return { ...endOfPod(pod, world), ip };
    });
    assert.ok(source && target);
    const flow = { from: source, to: target, protocol: PROTOCOL_NUMBERS[protocol], port };
    return evaluate(world, flow).allowed;
  };

  const withAddresses = <T>(spec: T): T =>
    JSON.parse(
      JSON.stringify(spec).replace(/ADDRESS-([a-d])\/([46])/g, (_, name: PodName, family) => {
        const bits = family === '4' ? 32 : 128;
        return `${ofFamily(addresses.get(name), family === '4' ? 4 : 6)}/${bits}`;
      }),
    );

  for (const { name, policies = [], cluster: wide = [] } of SCENARIOS)
    test(name, async () => {
      const { client } = cluster;
      for (const [i, spec] of policies.entries())
        await client.create(NETWORK_POLICY, {
          ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
          ...{ metadata: { name: `p${i}`, namespace: 'default' }, spec: withAddresses(spec) },
        });
      for (const [i, spec] of wide.entries())
        await client.create(CLUSTER_NETWORK_POLICY, {
          ...{ apiVersion: 'policy.networking.k8s.io/v1alpha2', kind: 'ClusterNetworkPolicy' },
          ...{ metadata: { name: `c${i}` }, spec },
        });
      const world = await worldNow();
      const expected = PROBES.map((probe) => allowed(world, probe));
      let wrong: string[] = [];
      try {
        await until(`connections are as the engine says`, WAIT_MS, async () => {
          const seen = await Promise.all(PROBES.map(arrives));
          wrong = PROBES.flatMap((probe, i) =>
            seen[i] === expected[i] ? [] : [`${JSON.stringify(probe)}: ${seen[i]}`],
          );
          return wrong.length === 0;
        });
      } catch (cause) {
        throw new Error(`not as the engine says:\n${wrong.join('\n')}`, { cause });
      } finally {
        for (const i of policies.keys())
          await client.delete(NETWORK_POLICY, { name: `p${i}`, namespace: 'default' });
        for (const i of wide.keys()) await client.delete(CLUSTER_NETWORK_POLICY, { name: `c${i}` });
      }
    });
});
