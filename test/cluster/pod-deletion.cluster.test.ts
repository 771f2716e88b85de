/** `kubectl delete pod` of a container without Kubernetes: its service drains, and the Pod goes with the container. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type Endpoint } from '#api/discovery/v1/endpoint-slice.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import { isNotFound } from '#lib/errors.ts';
import { startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;
const NAME = 'test-pod-deletion';

let lab: Lab;
let cluster: LabCluster;
before(async () => {
  ({ lab, cluster } = await startCluster({ name: NAME, machines: 2 }));
});
after(() => Lab.remove(NAME));

const podOf = (name: string) => cluster.client.get<Pod>(POD, name, 'default');

/** @returns undefined if it is not one of the service's */
async function endpointOf(pod: string): Promise<Endpoint | undefined> {
  const { items } = await cluster.client.list(ENDPOINT_SLICE, {
    labelSelector: 'kubernetes.io/service-name=web',
  });
  return items.flatMap(({ endpoints }) => endpoints ?? []).find((it) => it.targetRef?.name === pod);
}

async function isGone(pod: string, uid: string | undefined): Promise<boolean> {
  try {
    return (await podOf(pod)).metadata.uid !== uid;
  } catch (error) {
    if (isNotFound(error)) return true;
    throw error;
  }
}

test('a pod that is deleted drains, and goes with its container or when its time is over', async () => {
  const [m1, m2] = [lab.machine('m1'), lab.machine('m2')];
  const labels = { app: 'web' };
  await runContainer(m1, { name: 'web-1', role: 'server', labels });
  await runContainer(m2, { name: 'web-2', role: 'server', labels });
  await runContainer(m1, { name: 'client', role: 'client' });
  const service = await cluster.client.create(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: { selector: labels, ports: [{ port: 80, targetPort: 8080 }] },
  });
  const ask = async () => {
    const url = `http://${service.spec.clusterIP}`;
    return (await execInContainer(m1, 'client', `timeout 3 wget -q -O - ${url}`)).stdout.trim();
  };
  /** Who answers to so many questions. */
  const answering = async (times: number) => {
    const names = new Set<string>();
    for (let i = 0; i < times; i++) names.add(await ask());
    return [...names].sort();
  };
  await until('both serve', WAIT_MS, async () => (await answering(12)).join() === 'web-1,web-2');

  const { uid } = (await podOf('web-2')).metadata;
  await cluster.client.delete(POD, { name: 'web-2', namespace: 'default' });
  await until('it drains', WAIT_MS, async () => {
    const { ready, serving, terminating } = (await endpointOf('web-2'))?.conditions ?? {};
    return ready === false && serving === true && terminating === true;
  });
  await until(
    'the other serves alone',
    WAIT_MS,
    async () => (await answering(12)).join() === 'web-1',
  );
  assert.equal((await podOf('web-2')).metadata.uid, uid, 'it is there until its container goes');
  await m2.runOk(['podman', 'rm', '-f', '-t', '0', 'web-2'], { timeoutMs: WAIT_MS });
  await until('the pod goes', WAIT_MS, () => isGone('web-2', uid));
  await until(
    'its endpoint follows',
    WAIT_MS,
    async () => (await endpointOf('web-2')) === undefined,
  );

  // The container runs on: after its time it serves again, as another Pod.
  const first = (await podOf('web-1')).metadata.uid;
  await cluster.client.delete(
    POD,
    { name: 'web-1', namespace: 'default' },
    { gracePeriodSeconds: 2 },
  );
  assert.deepEqual(await answering(3), ['web-1'], 'the last one serves while it drains');
  await until('the pod is replaced', WAIT_MS, () => isGone('web-1', first));
  await until(
    'it is ready again',
    WAIT_MS,
    async () => (await endpointOf('web-1'))?.conditions?.ready === true,
  );

  // What never ran anywhere goes at once.
  await cluster.client.create<Pod>(POD, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'paper', namespace: 'default' },
    spec: { nodeName: 'm2', containers: [{ name: 'c', image: 'i' }] },
  });
  const paper = (await podOf('paper')).metadata.uid;
  await cluster.client.delete(POD, { name: 'paper', namespace: 'default' });
  await until('it goes', WAIT_MS, () => isGone('paper', paper));
});
