/** Deleting pods as a person does it: the real kubectl, the real server with its controllers, and a kubelet that the test plays. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { createApiClient } from '#client/http-client.ts';
import type { ApiClient } from '#client/port.ts';
import { type Controllers, startControllers } from '#control/controllers.ts';
import { silentLogger } from '#lib/log.ts';
import { type Kubectl, skip, startKubectl } from './kubectl-runner.ts';

const NODE_NAME = 'm1';

let kubectl: Kubectl;
let client: ApiClient & AsyncDisposable;
let controllers: Controllers;
let ordinal = 0;

before(async () => {
  if (skip !== false) return;
  kubectl = await startKubectl('delete-pod');
  const { server, ca, admin } = kubectl.fixture;
  client = createApiClient({
    servers: [server.url],
    caPem: ca.certificatePem,
    certificatePem: admin.cert,
    keyPem: admin.key,
  });
  controllers = startControllers({ client, log: silentLogger });
  await client.create<Node>(NODE, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: NODE_NAME },
    status: {
      nodeInfo: { kubeletVersion: 'v1.32.4' },
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  });
});

after(async () => {
  if (skip !== false) return;
  await controllers[Symbol.asyncDispose]();
  await client[Symbol.asyncDispose]();
  await kubectl[Symbol.asyncDispose]();
});

/** A pod that runs and is ready, as its kubelet tells it. */
async function runPod(
  name: string,
  more: { nodeName?: string; namespace?: string } = {},
): Promise<Pod> {
  const { nodeName = NODE_NAME, namespace = 'default' } = more;
  const pod = await client.create<Pod>(POD, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { app: name } },
    spec: { nodeName, containers: [{ name: 'c', image: 'i' }] },
  });
  const podIP = `192.0.2.${++ordinal}`;
  const conditions = [{ type: 'Ready', status: 'True' as const }];
  const status = { phase: 'Running' as const, podIP, podIPs: [{ ip: podIP }], conditions };
  return await client.update(POD, { ...pod, status }, { subresource: 'status' });
}

/** What the kubelet does when the containers have ended. */
async function endPod({ metadata: { name, namespace = '', uid = '' } }: Pod): Promise<void> {
  await client.delete(POD, { name, namespace }, { gracePeriodSeconds: 0, preconditions: { uid } });
}

const terminating = async () =>
  (await client.list(POD)).items.filter((it) => it.metadata.deletionTimestamp !== undefined);

async function until(what: () => Promise<boolean>): Promise<void> {
  while (!(await what())) await new Promise((resolve) => setTimeout(resolve, 50));
}

const conditionsOf = (name: string) =>
  kubectl.ok(
    ...['get', 'endpointslices', '-l', `kubernetes.io/service-name=${name}`, '-o'],
    'jsonpath={range .items[*].endpoints[*]}{.conditions.ready} {.conditions.serving} {.conditions.terminating}{end}',
  );

test('kubectl delete pod waits for the kubelet, and the service drains meanwhile', {
  skip,
}, async () => {
  const pod = await runPod('web');
  await client.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: { selector: { app: 'web' }, ports: [{ port: 80 }] },
  });
  await until(async () => (await conditionsOf('web')) === 'true true false');
  const deletion = kubectl.run('delete', 'pod', 'web');
  await until(async () => (await conditionsOf('web')) === 'false true true');
  assert.match(await kubectl.ok('get', 'pod', 'web'), /^web +0\/1 +Terminating +0 /m);
  assert.match(
    await kubectl.ok('describe', 'pod', 'web'),
    /^Status: +Terminating \(lasts .*\)\nTermination Grace Period: +30s$/m,
  );
  await endPod(pod);
  assert.deepEqual(await deletion, { status: 0, stdout: 'pod "web" deleted\n', stderr: '' });
  await until(async () => (await conditionsOf('web')) === '');
});

test('a second wish makes the time shorter, and not longer', { skip }, async () => {
  const pod = await runPod('twice');
  const grace = () =>
    kubectl.ok('get', 'pod', 'twice', '-o', 'jsonpath={.metadata.deletionGracePeriodSeconds}');
  await kubectl.ok('delete', 'pod', 'twice', '--grace-period=5', '--wait=false');
  assert.equal(await grace(), '5');
  await kubectl.ok('delete', 'pod', 'twice', '--grace-period=60', '--wait=false');
  assert.equal(await grace(), '5');
  await kubectl.ok('delete', 'pod', 'twice', '--now', '--wait=false');
  assert.equal(await grace(), '1');
  await endPod(pod);
  assert.equal((await kubectl.run('get', 'pod', 'twice')).status, 1);
});

test('kubectl delete pod --force --grace-period=0 waits for nobody', { skip }, async () => {
  await runPod('forced');
  const forced = await kubectl.run('delete', 'pod', 'forced', '--force', '--grace-period=0');
  assert.equal(forced.status, 0);
  assert.match(forced.stderr, /Immediate deletion does not wait/);
  assert.match(forced.stdout, /^pod "forced" force deleted$/m);
});

test('a pod of a node that does not exist is ended by the controllers', { skip }, async () => {
  await runPod('lost', { nodeName: 'nowhere' });
  assert.equal(await kubectl.ok('delete', 'pod', 'lost'), 'pod "lost" deleted\n');
});

test('kubectl delete namespace waits until its pods have ended', { skip }, async () => {
  await kubectl.ok('create', 'namespace', 'blue');
  const pod = await runPod('in-blue', { namespace: 'blue' });
  const deletion = kubectl.run('delete', 'namespace', 'blue');
  const status = () =>
    kubectl.ok(
      'get',
      'pod',
      'in-blue',
      '-n',
      'blue',
      '-o',
      'jsonpath={.metadata.deletionTimestamp}',
    );
  await until(async () => (await status()) !== '');
  assert.match(await kubectl.ok('get', 'namespace', 'blue'), /^blue +Terminating /m);
  await endPod(pod);
  assert.equal((await deletion).status, 0);
});

test('kubectl delete pods --all asks each pod to end', { skip }, async () => {
  const names = ['many-1', 'many-2'];
  const pods = await Promise.all(names.map((name) => runPod(name)));
  const all = kubectl.run('delete', 'pods', '--all');
  await until(async () => (await terminating()).length === pods.length);
  for (const pod of pods) await endPod(pod);
  assert.equal((await all).status, 0);
});

test('kubectl drain evicts each pod', { skip }, async () => {
  const pod = await runPod('drained');
  const dry = await kubectl.ok('drain', NODE_NAME, '--force', '--dry-run=server');
  assert.match(dry, /^evicting pod default\/drained \(server dry run\)$/m);
  assert.deepEqual(await terminating(), []);

  const drain = kubectl.run('drain', NODE_NAME, '--force', '--grace-period=7');
  await until(async () => (await terminating()).length === 1);
  const [leaving] = await terminating();
  assert.equal(leaving?.metadata.deletionGracePeriodSeconds, 7);
  assert.equal(
    leaving?.status?.conditions?.find(({ type }) => type === 'DisruptionTarget')?.reason,
    'EvictionByEvictionAPI',
  );
  await endPod(pod);
  const { status, stdout, stderr } = await drain;
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^evicting pod default\/drained$/m);
  assert.match(stdout, /^pod\/drained evicted$/m);
  assert.match(stdout, /^node\/m1 drained$/m);
  assert.equal(await kubectl.ok('uncordon', NODE_NAME), 'node/m1 uncordoned\n');
});
