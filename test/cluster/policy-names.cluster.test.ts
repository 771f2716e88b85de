/** Policies that name domain names, with a real resolver in a container and a name server outside the cluster. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { POD } from '#api/core/v1/pod.ts';
import {
  CLUSTER_NETWORK_POLICY,
  type ClusterNetworkPolicy,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

const WAIT_MS = 20_000;
const LAB = 'test-policy-names';
const FIXTURE = join(import.meta.dirname, 'names.fixture.mjs');
const TULLE = join(import.meta.dirname, '../../src/bin/tulle.ts');

const DNS = { namespaceSelector: {}, podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } } };
const NAMES: ClusterNetworkPolicy = {
  apiVersion: 'policy.networking.k8s.io/v1alpha2',
  kind: 'ClusterNetworkPolicy',
  metadata: { name: 'names' },
  spec: {
    ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
    egress: [
      { action: 'Accept', to: [{ pods: DNS }] },
      { action: 'Accept', to: [{ domainNames: ['*.allowed.test'] }] },
      { action: 'Deny', to: [{ networks: ['0.0.0.0/0', '::/0'] }] },
    ],
  },
};

describe('domain names in policies', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let outside: Machine;

  before(async () => {
    await Lab.remove(LAB);
    lab = await Lab.create({ name: LAB, machines: 2 });
    cluster = new LabCluster(lab);
    m1 = lab.machine('m1');
    outside = lab.machine('m2');
    preparePodman(m1);
    await outside.start('names', [process.execPath, FIXTURE, outside.address]);
    await cluster.startServer();
    for (const machine of lab.hosts) await cluster.startAgent(machine);
    await cluster.nodesReady();
    await cluster.client.create(CONFIG_MAP, {
      ...{ apiVersion: 'v1', kind: 'ConfigMap' },
      metadata: { name: 'tulle-dns', namespace: 'kube-system' },
      data: { 'config.yaml': `upstreams: ["${outside.address}:5300"]` },
    });
    await runContainer(m1, { name: 'client', role: 'client' });
    await until('the pod is known', WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      return items.some(({ status }) => status?.podIP !== undefined);
    });
    await until('names outside are answered', WAIT_MS, () => get('www.other.test'));
    // In the cache of DNS before any policy names it.
    assert.ok(await get('long.allowed.test'));
  });
  after(() => Lab.remove(LAB));

  const get = async (host: string) => {
    const script = `timeout 2 wget -q -O - http://${host}:8000/`;
    return (await execInContainer(m1, 'client', script)).stdout === 'hello';
  };
  const explain = async (to: string) =>
    (
      await m1.run([
        ...[process.execPath, '--disable-warning=ExperimentalWarning', TULLE],
        ...['policy', 'explain', 'client', to, '--port', '8000/tcp'],
      ])
    ).stdout;

  test('only names that a policy accepts are reached, at the first try, and by no other way', async () => {
    await cluster.client.create(CLUSTER_NETWORK_POLICY, NAMES);
    await until('the name is closed', WAIT_MS, async () => !(await get('www.other.test')));
    assert.ok(!(await get(outside.address)));
    assert.match(await explain(outside.address), /DENIED/);
    assert.ok(await get('long.allowed.test'));
    await cluster.client.delete(CLUSTER_NETWORK_POLICY, { name: 'names' });
    await until('all is open', WAIT_MS, () => get('www.other.test'));
    await cluster.client.create(CLUSTER_NETWORK_POLICY, NAMES);
    await until('the name is closed', WAIT_MS, async () => !(await get('www.other.test')));
    assert.match(await explain('www.allowed.test'), /ALLOWED/);
    // Not "until": the address is open when the container has the answer.
    assert.ok(await get('www.allowed.test'));
    assert.match(await explain(outside.address), /ALLOWED(.|\n)*matched domain \*\.allowed\.test/);
    const { status } = await cluster.client.get(CLUSTER_NETWORK_POLICY, 'names');
    assert.equal(status?.conditions?.find(({ type }) => type === 'Accepted')?.status, 'True');
  });

  test('an agent that is killed and comes back knows what was told before', async () => {
    assert.ok(await get('www.allowed.test'));
    // What is kept on disk is a second behind.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await cluster.killAgent(m1);
    assert.ok(await get(outside.address));
    await cluster.startAgent(m1);
    await cluster.nodesReady();
    assert.ok(await get(outside.address));
  });
});
