/**
 * The agent in a pod of a DaemonSet, by the manifests of `deploy/kubernetes`, with the rights that they give and no others.
 * The test plays the kubelet: it keeps the Node, starts the pod, makes the other pods' namespaces and calls the plugin.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { LEASE } from '#api/coordination/v1/lease.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import {
  CLUSTER_NETWORK_POLICY,
  type ClusterNetworkPolicy,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { loadKubeconfig } from '#client/kubeconfig.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { preparePodman } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { sleep } from '#lib/clock.ts';
import { isNotFound } from '#lib/errors.ts';
import { runOk } from '#proc/run.ts';
import { podmanCommand } from './daemonset.ts';

const NAME = 'test-agent-in-pod';
const WAIT_MS = 30_000;
const NAMESPACE = 'tulle-system';
const ACCOUNT = 'tulle-agent';
const USER = `system:serviceaccount:${NAMESPACE}:${ACCOUNT}`;
const MANIFESTS = resolve(import.meta.dirname, '../../deploy/kubernetes');
const AGENT_LOG = 'agent';
const MAX_DUMP_BYTES = 8_000;

let lab: Lab;
let cluster: LabCluster;
let machine: Machine;
let serviceAccount: string;

before(async () => {
  await Lab.remove(NAME);
  lab = await Lab.create({ name: NAME, machines: 1 });
  cluster = new LabCluster(lab);
  machine = lab.machine('m1');
  await cluster.startServer();
  preparePodman(machine);
  // As systemd leaves it: what is mounted there shows where it is mounted too.
  await machine.runOk(['mount', '--make-rshared', '/run']);
  await kubectl('apply', '-f', join(MANIFESTS, 'rbac.yaml'));
  await registerNode();
  serviceAccount = join(machine.directory, 'tulle/service-account');
  mkdirSync(serviceAccount);
  const { caPem = '' } = loadKubeconfig({ path: cluster.kubeconfig });
  writeFileSync(join(serviceAccount, 'ca.crt'), caPem);
  writeFileSync(join(serviceAccount, 'namespace'), NAMESPACE);
  await giveToken('agent-1');
  await startAgentPod();
});
after(() => Lab.remove(NAME));
afterEach((context) => {
  // What the agent said is what tells why.
  if (!('passed' in context) || context.passed === true) return;
  process.stderr.write(readFileSync(machine.logFile(AGENT_LOG), 'utf8').slice(-MAX_DUMP_BYTES));
});

function kubectl(...args: string[]): Promise<string> {
  return runOk(['kubectl', '--kubeconfig', cluster.kubeconfig, ...args]);
}

/** As a kubelet does it. */
async function registerNode(): Promise<void> {
  await cluster.client.create<Node>(NODE, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: machine.name, labels: { 'kubernetes.io/hostname': machine.name } },
    status: {
      addresses: [{ type: 'InternalIP', address: machine.address }],
      nodeInfo: { kubeletVersion: 'v1.32.4' },
      conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady' }],
    },
  });
}

/** A token that holds as long as this pod is there. */
async function giveToken(pod: string): Promise<void> {
  await cluster.client.create<Pod>(POD, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: pod, namespace: NAMESPACE },
    spec: {
      nodeName: machine.name,
      serviceAccountName: ACCOUNT,
      containers: [{ name: 'agent', image: 'tulle' }],
    },
  });
  const bound = ['--bound-object-kind', 'Pod', '--bound-object-name', pod];
  const token = await kubectl('create', 'token', ACCOUNT, '-n', NAMESPACE, ...bound);
  const path = join(serviceAccount, 'token');
  writeFileSync(`${path}.new`, token.trim());
  renameSync(`${path}.new`, path);
}

async function startAgentPod(): Promise<void> {
  const argv = await podmanCommand(machine, join(MANIFESTS, 'daemonset.yaml'), {
    name: 'agent',
    fields: { 'spec.nodeName': machine.name, 'status.hostIP': machine.address },
    env: { KUBERNETES_SERVICE_HOST: machine.address },
    serviceAccount: '/var/lib/tulle/service-account',
  });
  await machine.start(AGENT_LOG, argv);
}

/** A pod with a network namespace, attached as a container runtime does it. @returns its address */
async function startPod(name: string, labels: Record<string, string> = {}): Promise<string> {
  const pod = await cluster.client.create<Pod>(POD, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: { nodeName: machine.name, containers: [{ name: 'c', image: 'i' }] },
  });
  await machine.runOk(['ip', 'netns', 'add', name]);
  const said = await callPlugin('ADD', name);
  const { ips = [] } = JSON.parse(said) as { ips?: { address: string }[] };
  const podIP = ips[0]?.address.split('/')[0] ?? '';
  const conditions = [{ type: 'Ready', status: 'True' as const }];
  const status = { phase: 'Running' as const, podIP, podIPs: [{ ip: podIP }], conditions };
  await cluster.client.update(POD, { ...pod, status }, { subresource: 'status' });
  return podIP;
}

function callPlugin(command: 'ADD' | 'DEL', name: string): Promise<string> {
  const args = `K8S_POD_NAMESPACE=default;K8S_POD_NAME=${name};K8S_POD_INFRA_CONTAINER_ID=${name}`;
  const config = { cniVersion: '1.0.0', name: 'tulle', type: 'tulle' };
  return machine.runOk(
    [
      ...['env', `CNI_COMMAND=${command}`, `CNI_CONTAINERID=${name}`, `CNI_ARGS=${args}`],
      ...[`CNI_NETNS=/run/netns/${name}`, 'CNI_IFNAME=eth0', 'CNI_PATH=/opt/cni/bin'],
      ...['sh', '-c', `echo '${JSON.stringify(config)}' | /opt/cni/bin/tulle`],
    ],
    { timeoutMs: WAIT_MS },
  );
}

const inPod = (name: string, ...argv: string[]) => ['ip', 'netns', 'exec', name, ...argv];

async function answers(from: string, address: string): Promise<boolean> {
  const argv = inPod(
    from,
    'busybox',
    'timeout',
    '2',
    'busybox',
    'wget',
    '-q',
    '-O',
    '-',
    `http://${address}`,
  );
  const { exitCode, stdout } = await machine.run(argv);
  return exitCode === 0 && stdout.includes('server');
}

const node = () => cluster.client.get(NODE, machine.name);
const conditionOf = ({ status }: Node, type: string) =>
  status?.conditions?.find((it) => it.type === type);

test('the agent in a pod attaches and serves, with the rights of the manifest only', async () => {
  await until(
    'the pod network is ready',
    WAIT_MS,
    async () => conditionOf(await node(), 'NetworkUnavailable')?.status === 'False',
  );
  const podIp = await startPod('server', { app: 'server' });
  const page = join(machine.directory, 'run/www');
  mkdirSync(page);
  writeFileSync(join(page, 'index.html'), 'server\n');
  await machine.start(
    'httpd',
    inPod('server', 'busybox', 'httpd', '-f', '-p', '8080', '-h', '/run/www'),
  );
  await startPod('client');
  await until('a pod reaches another', WAIT_MS, () => answers('client', `${podIp}:8080`));
  const service = await cluster.client.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: { selector: { app: 'server' }, ports: [{ port: 80, targetPort: 8080 }] },
  });
  const { clusterIP = '' } = service.spec;
  await until('a pod reaches the service', WAIT_MS, () => answers('client', clusterIP));

  await cluster.client.create<ClusterNetworkPolicy>(CLUSTER_NETWORK_POLICY, {
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    metadata: { name: 'open' },
    spec: {
      ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
      ingress: [{ action: 'Accept', from: [{ namespaces: {} }] }],
    },
  });
  await until('the agent says that it understood a policy', WAIT_MS, async () => {
    const { status } = await cluster.client.get(CLUSTER_NETWORK_POLICY, 'open');
    return status?.conditions?.some((it) => it.type === 'Accepted') === true;
  });
  // Only faults, lost races and a minute's wait make the agent need these.
  const seldom = ['create events', 'patch events', 'get ipblocks.tulle.dev'];
  const ofUsage = ['create', 'patch'].map((verb) => `${verb} policyusages.tulle.dev`);
  for (const access of [...seldom, ...ofUsage])
    await kubectl('auth', 'can-i', ...access.split(' '), '--as', USER);

  // The token of before is good for nothing from here on, as after its end.
  await giveToken('agent-2');
  await cluster.client.delete(
    POD,
    { name: 'agent-1', namespace: NAMESPACE },
    { gracePeriodSeconds: 0 },
  );
  await startPod('after-rotation');
  await until('a pod reaches the service', WAIT_MS, () => answers('after-rotation', clusterIP));

  await machine.runOk(['podman', 'kill', 'agent']);
  await until('the agent has ended', WAIT_MS, async () => {
    const { stdout } = await machine.run(['podman', 'ps', '--format', '{{.Names}}']);
    return !stdout.includes('agent');
  });
  assert.ok(await answers('client', clusterIP), 'traffic goes on without the agent');
  await startAgentPod();
  await startPod('after-restart');
  await until('a pod reaches the service', WAIT_MS, () => answers('after-restart', clusterIP));
  assert.ok(
    await answers('client', clusterIP),
    'the pods of before are served by the agent of now',
  );

  await kubeletEnds('after-restart');
  await leavesTheNodeToTheKubelet();
  const log = readFileSync(machine.logFile(AGENT_LOG), 'utf8');
  assert.deepEqual(
    log.split('\n').filter((line) => /forbidden|unauthorized|may not/i.test(line)),
    [],
  );
});

/** A pod that is being deleted is the kubelet's to end, attached or not. */
async function kubeletEnds(name: string): Promise<void> {
  const target = { name, namespace: 'default' };
  await cluster.client.delete(POD, target, { gracePeriodSeconds: 1 });
  await callPlugin('DEL', name);
  await sleep(3_000);
  const { metadata } = await cluster.client.get<Pod>(POD, name, 'default');
  assert.notEqual(metadata.deletionTimestamp, undefined);
  await cluster.client.delete(POD, target, { gracePeriodSeconds: 0 });
  await assert.rejects(cluster.client.get(POD, name, 'default'), isNotFound);
}

async function leavesTheNodeToTheKubelet(): Promise<void> {
  const kept = await node();
  assert.equal(conditionOf(kept, 'Ready')?.reason, 'KubeletReady');
  assert.equal(kept.status?.nodeInfo?.kubeletVersion, 'v1.32.4');
  assert.equal(conditionOf(kept, 'FabricReady')?.status, 'True');
  await assert.rejects(cluster.client.get(LEASE, machine.name, 'kube-node-lease'), isNotFound);
}
