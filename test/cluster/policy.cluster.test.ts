/** Policy on two lab machines with real containers: across machines, through services, from the start of a pod. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { NETWORK_POLICY, type NetworkPolicySpec } from '#api/networking/v1/network-policy.ts';
import { CLUSTER_NETWORK_POLICY } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { isNotFound } from '#lib/errors.ts';
import { startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;
const LAB = 'test-policy';

describe('policy on two machines', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let m2: Machine;

  before(async () => {
    ({ lab, cluster } = await startCluster({ name: LAB, machines: 2 }));
    m1 = lab.machine('m1');
    m2 = lab.machine('m2');
    await runContainer(m1, { name: 'client', role: 'client', labels: { app: 'client' } });
    await runContainer(m1, { name: 'near', role: 'server', labels: { app: 'web' } });
    await runContainer(m2, { name: 'far', role: 'server', labels: { app: 'web' } });
    await until('the pods are known', WAIT_MS, async () => (await podCount()) === 3);
    await cluster.client.create(SERVICE, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'default' },
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
    });
    await until('the service answers', WAIT_MS, () => reaches('web', 80));
  });
  after(() => Lab.remove(LAB));

  const podCount = async () =>
    (await cluster.client.list(POD, { namespace: 'default' })).items.filter(
      (pod) => pod.status?.podIP !== undefined,
    ).length;
  const addressOf = async (name: string) =>
    (await cluster.client.get(POD, name, 'default')).status?.podIP ?? '';
  const reaches = async (host: string, port = 8080) => {
    const target = host === 'web' ? host : await addressOf(host);
    const script = `timeout 2 wget -q -O - http://${target}:${port}/`;
    const { stdout } = await execInContainer(m1, 'client', script);
    return ['near', 'far'].includes(stdout.trim());
  };
  const put = async (name: string, spec: NetworkPolicySpec) => {
    const metadata = { name, namespace: 'default' };
    const object = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata, spec };
    await cluster.client
      .delete(NETWORK_POLICY, metadata)
      .catch((error: unknown) => assert.ok(isNotFound(error)));
    await cluster.client.create(NETWORK_POLICY, {
      ...object,
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
    });
  };
  const remove = (name: string) =>
    cluster.client.delete(NETWORK_POLICY, { name, namespace: 'default' });

  test('deny and allow hold on the same machine, across machines and through a service', async () => {
    await put('deny', { podSelector: { matchLabels: { app: 'web' } } });
    await until('near is closed', WAIT_MS, async () => !(await reaches('near')));
    await until('far is closed', WAIT_MS, async () => !(await reaches('far')));
    assert.ok(!(await reaches('web', 80)));
    await put('allow', {
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [
        { from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ port: 8080 }] },
      ],
    });
    await until('near is open', WAIT_MS, () => reaches('near'));
    await until('far is open', WAIT_MS, () => reaches('far'));
    assert.ok(await reaches('web', 80));
    await remove('allow');
    await until('near is closed again', WAIT_MS, async () => !(await reaches('near')));
    await remove('deny');
    await until('near is open again', WAIT_MS, () => reaches('near'));
  });

  test('egress: DNS is allowed by the rule that people write for kube-dns, and not without', async () => {
    const to = [{ podSelector: { matchLabels: { app: 'web' } } }];
    await put('out', {
      podSelector: { matchLabels: { app: 'client' } },
      policyTypes: ['Egress'],
      egress: [{ to }],
    });
    await until('DNS is closed', WAIT_MS, async () => !(await reaches('web', 80)));
    assert.ok(await reaches('far'));
    await put('dns', {
      podSelector: {},
      policyTypes: ['Egress'],
      egress: [
        {
          to: [
            {
              namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
              podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
            },
          ],
          ports: [{ protocol: 'UDP', port: 53 }],
        },
      ],
    });
    await until('DNS is open', WAIT_MS, () => reaches('web', 80));
    await remove('out');
    await remove('dns');
  });

  test('a ClusterNetworkPolicy denies before NetworkPolicies are asked', async () => {
    await cluster.client.create(CLUSTER_NETWORK_POLICY, {
      apiVersion: 'policy.networking.k8s.io/v1alpha2',
      kind: 'ClusterNetworkPolicy',
      metadata: { name: 'no-web' },
      spec: {
        tier: 'Admin',
        priority: 5,
        subject: { namespaces: {} },
        ingress: [
          {
            action: 'Deny',
            from: [
              { pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: 'client' } } } },
            ],
            protocols: [{ tcp: { destinationPort: { number: 8080 } } }],
          },
        ],
      },
    });
    await until('far is closed', WAIT_MS, async () => !(await reaches('far')));
    const { stdout } = await m2.run([
      ...[process.execPath, '--disable-warning=ExperimentalWarning', TULLE, 'policy', 'log'],
    ]);
    assert.match(
      stdout,
      /DENIED ingress TCP default\/client .* -> default\/far .*ClusterNetworkPolicy no-web ingress\[0\]/,
    );
    await cluster.client.delete(CLUSTER_NETWORK_POLICY, { name: 'no-web' });
    await until('far is open', WAIT_MS, () => reaches('far'));
  });

  test('what policy forbids stays forbidden while agents are killed and come back', async () => {
    await put('deny', { podSelector: { matchLabels: { app: 'web' } } });
    await until('near is closed', WAIT_MS, async () => !(await reaches('near')));
    await cluster.killAgent(m1);
    assert.ok(!(await reaches('near')));
    await cluster.startAgent(m1);
    for (let i = 0; i < 5; i++) assert.ok(!(await reaches('near')));
    await cluster.nodesReady();
    await remove('deny');
    await until('near is open', WAIT_MS, () => reaches('near'));
  });

  test('node ports and host ports: policy sees the client outside, and the pod’s own port', async () => {
    await m1.runOk(
      [
        ...[
          'podman',
          'run',
          '--detach',
          '--name',
          'ext',
          '--network',
          'tulle',
          '--label',
          'app=ext',
        ],
        ...[
          '--publish',
          '18080:8080',
          '--tmpfs',
          '/srv',
          '--rootfs',
          '/var/lib/rootfs',
          'sh',
          '-c',
        ],
        'echo ext > /srv/index.html; exec httpd -f -p 8080 -h /srv',
      ],
      { timeoutMs: 60_000 },
    );
    await cluster.client.create(SERVICE, {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'ext', namespace: 'default' } },
      spec: {
        ...{ type: 'NodePort', externalTrafficPolicy: 'Local', selector: { app: 'ext' } },
        ports: [{ port: 80, targetPort: 8080, nodePort: 30123 }],
      },
    });
    // The other machine itself, which is a client outside to this one's pods.
    const reachesFromOutside = async (port: number) =>
      (await m2.run(['curl', '-s', '-m', '2', `http://${m1.address}:${port}/`])).stdout === 'ext\n';
    const ports = [30123, 18080];
    for (const port of ports)
      await until(`port ${port} answers`, WAIT_MS, () => reachesFromOutside(port));
    const from = (address: string, podPort: number) =>
      put('ext', {
        podSelector: { matchLabels: { app: 'ext' } },
        ingress: [{ from: [{ ipBlock: { cidr: `${address}/32` } }], ports: [{ port: podPort }] }],
      });
    await from('203.0.113.1', 8080);
    for (const port of ports)
      await until(`port ${port} is closed`, WAIT_MS, async () => !(await reachesFromOutside(port)));
    await from(m2.address, 8080);
    for (const port of ports)
      await until(`port ${port} is open`, WAIT_MS, () => reachesFromOutside(port));
    // The ports of the machine are nothing to policy.
    await from(m2.address, 30123);
    for (const port of ports)
      await until(`port ${port} is closed`, WAIT_MS, async () => !(await reachesFromOutside(port)));
    await remove('ext');
    await m1.run(['podman', 'rm', '--force', '--time', '0', 'ext'], { timeoutMs: 60_000 });
  });

  test('a container that forbidden traffic meets at its start gets none of it', async () => {
    await put('closed', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] });
    await until('near is closed', WAIT_MS, async () => !(await reaches('near')));
    const target = await addressOf('near');
    for (let i = 0; i < 3; i++) {
      const name = `early-${i}`;
      const script = `i=0; while [ $i -lt 3 ]; do timeout 1 wget -q -O - http://${target}:8080/ && exit 7; i=$((i+1)); usleep 1000; done; exit 0`;
      const { exitCode } = await m1.run(
        [
          ...['podman', 'run', '--rm', '--name', name, '--network', 'tulle'],
          ...['--rootfs', '/var/lib/rootfs', 'sh', '-c', script],
        ],
        { timeoutMs: 60_000 },
      );
      assert.notEqual(exitCode, 7, `${name} got through`);
    }
    await remove('closed');
  });
});

const TULLE = new URL('../../src/bin/tulle.ts', import.meta.url).pathname;
