/**
 * Connections that live while policy stops allowing them, as packets that go on: TCP and UDP, in both families, across machines,
 * by a service, by node ports of the pod's own machine and of another, and by a host port. How long each went on is printed.
 */
import assert from 'node:assert/strict';
import { after, before, describe, type TestContext, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { NETWORK_POLICY, type NetworkPolicySpec } from '#api/networking/v1/network-policy.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { containerPid, runContainer } from '#lab/containers.ts';
import { Lab, OUTSIDE } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { PodProgram } from '#node/policy/pod-program.testing.ts';
import { giveIpv6, MACHINE_V6 } from './machine-ipv6.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const WAIT_MS = 30_000;
const LAB = 'test-pol-cut';
const PORT = 80;
const CLUSTER_PORT = 30_211;
const LOCAL_PORT = 30_212;
const HOST_PORT = 18_082;
/** Streams ask a hundred times a second: after so long without an answer they are cut. */
const SILENCE_MS = 2_000;

interface Stream {
  readonly name: string;
  /** Who sends. */
  readonly from: 'client' | 'outside';
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
}

describe('connections that policy stops allowing', () => {
  let cluster: LabCluster;
  let m2: Machine;
  const programs = new Map<Stream['from'] | 'web', PodProgram>();
  let streams: readonly Stream[] = [];

  before(async () => {
    const started = await startCluster({ name: LAB, machines: 2, serverFlags: DUAL_STACK });
    const { lab } = started;
    cluster = started.cluster;
    const m1 = lab.machine('m1');
    m2 = lab.machine('m2');
    const outside = lab.machine(OUTSIDE);
    await giveIpv6(lab);
    await runContainer(m1, { name: 'client', role: 'client', labels: { app: 'client' } });
    await m2.runOk(
      [
        ...['podman', 'run', '--detach', '--name', 'web', '--network', 'tulle'],
        ...['--label', 'app=web', '--publish', `${HOST_PORT}:${PORT}/tcp`],
        ...['--publish', `${HOST_PORT}:${PORT}/udp`],
        ...['--rootfs', '/var/lib/rootfs', 'sleep', '100000'],
      ],
      { timeoutMs: 60_000 },
    );
    for (const [name, machine] of [
      ['client', m1],
      ['web', m2],
    ] as const) {
      const pid = await containerPid(machine, name);
      const place = machine.enter(['nsenter', '--target', String(pid), '--net', '--']);
      programs.set(name, await PodProgram.start(place, name === 'web' ? [PORT] : []));
    }
    programs.set('outside', await PodProgram.start(outside.enter([]), []));
    const expose = (name: string, nodePort: number, policy: 'Cluster' | 'Local') =>
      cluster.client.create(SERVICE, {
        ...{ apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' } },
        spec: {
          ...{ type: 'NodePort', ipFamilyPolicy: 'RequireDualStack', selector: { app: 'web' } },
          externalTrafficPolicy: policy,
          ports: (['TCP', 'UDP'] as const).map((protocol) => ({
            ...{ name: protocol.toLowerCase(), protocol, port: PORT, nodePort },
          })),
        },
      });
    const service = await expose('anywhere', CLUSTER_PORT, 'Cluster');
    await expose('local', LOCAL_PORT, 'Local');
    const podIps = async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      const web = items.find(({ metadata }) => metadata.name === 'web');
      return (web?.status?.podIPs ?? []).map(({ ip }) => ip);
    };
    await until('the pod is known', WAIT_MS, async () => (await podIps()).length === 2);
    const ips = await podIps();
    streams = ([4, 6] as const).flatMap((family) => {
      const of = (list: readonly string[]) =>
        list.find((it) => it.includes(':') === (family === 6)) ?? '';
      const [one, two] = family === 4 ? [m1.address, m2.address] : [MACHINE_V6.m1, MACHINE_V6.m2];
      return (['tcp', 'udp'] as const).flatMap((protocol) =>
        (
          [
            ['across machines', 'client', of(ips), PORT],
            ['by a service', 'client', of(service.spec.clusterIPs ?? []), PORT],
            ["by a node port of the pod's machine", 'outside', two, LOCAL_PORT],
            ['by a node port of another machine', 'outside', one, CLUSTER_PORT],
            ['by a host port', 'outside', two, HOST_PORT],
          ] as const
        ).map(([path, from, host, port]) => ({
          ...{ name: `${path}, ${protocol} over IPv${family}`, from, protocol, host, port },
        })),
      );
    });
  });
  after(async () => {
    for (const program of programs.values()) await program.stop();
    await Lab.remove(LAB);
  });

  const ask = (from: Stream['from'], op: string, rest: object) =>
    programs.get(from)?.ask(op, rest) ?? Promise.reject(new Error(`no program ${from}`));
  const answeredAt = async ({ name, from }: Stream) =>
    Number(await ask(from, 'answered', { name }));
  const allAnsweredSince = (some: readonly Stream[], sinceMs: number) => async () =>
    (await Promise.all(some.map(answeredAt))).every((atMs) => atMs > sinceMs);
  const put = async (name: string, spec: NetworkPolicySpec) => {
    await cluster.client.create(NETWORK_POLICY, {
      ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
      ...{ metadata: { name, namespace: 'default' }, spec },
    });
    return () => cluster.client.delete(NETWORK_POLICY, { name, namespace: 'default' });
  };

  async function areCut(
    t: TestContext,
    some: readonly Stream[],
    spec: NetworkPolicySpec,
  ): Promise<void> {
    const others = streams.filter((stream) => !some.includes(stream));
    const beganMs = Date.now();
    const remove = await put('cut', spec);
    let last: number[] = [];
    await until('nothing is answered any more', WAIT_MS, async () => {
      last = await Promise.all(some.map(answeredAt));
      return Math.max(...last) < Date.now() - SILENCE_MS;
    });
    for (const [i, { name }] of some.entries())
      t.diagnostic(`${name}: cut ${(last[i] ?? 0) - beganMs} ms after the policy was sent`);
    assert.ok(await allAnsweredSince(others, Date.now() - SILENCE_MS)(), 'others go on');
    const againMs = Date.now();
    await remove();
    await until('all are answered again', WAIT_MS, allAnsweredSince(some, againMs));
  }

  test('are cut, and go on when it allows them again: ingress', async (t) => {
    for (const { from, protocol, ...stream } of streams)
      await until(`${stream.name} is answered`, WAIT_MS, async () => {
        const began = await ask(from, 'stream', { ...stream, from: protocol, waitMs: 1_000 });
        return began === 'ok';
      });
    await areCut(t, streams, { podSelector: { matchLabels: { app: 'web' } } });
  });

  test('are cut, and go on when it allows them again: egress', async (t) => {
    const ofClient = streams.filter(({ from }) => from === 'client');
    await areCut(t, ofClient, {
      ...{ podSelector: { matchLabels: { app: 'client' } }, policyTypes: ['Egress'] },
    });
  });

  test('go on where a rule allows them', async () => {
    const everywhere = ['0.0.0.0/0', '::/0'].map((cidr) => ({ ipBlock: { cidr } }));
    const remove = await put('allow', {
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [{ from: everywhere, ports: [{ port: PORT }, { port: PORT, protocol: 'UDP' }] }],
    });
    const laterMs = Date.now() + SILENCE_MS;
    await until('all are answered later', WAIT_MS, allAnsweredSince(streams, laterMs));
    await remove();
  });
});
