import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { startPodGc } from './pod-gc.ts';

function node(name: string, ready: 'True' | 'Unknown'): Node {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name },
    status: {
      nodeInfo: { kubeletVersion: 'tulle 0.1.0' },
      conditions: [{ type: 'Ready', status: ready }],
    },
  };
}

function deletedPod(name: string, nodeName: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace: 'default',
      deletionTimestamp: '2026-01-01T00:00:30Z',
      deletionGracePeriodSeconds: 30,
    },
    spec: { nodeName, containers: [{ name }] },
  };
}

test('PodGc ends deleted pods that their node does not end, and leaves the others to it', async () => {
  const clock = new FakeClock();
  const api = new FakeApi();
  api.put(NODE, node('alive', 'True'));
  api.put(NODE, node('silent', 'Unknown'));
  for (const on of ['alive', 'silent', 'nowhere']) api.put(POD, deletedPod(on, on));
  api.put(POD, {
    ...deletedPod('kept', 'nowhere'),
    metadata: { name: 'kept', namespace: 'default' },
  });
  const options = { log: silentLogger, clock };
  await using pods = startCache(api, POD, options);
  await using nodes = startCache(api, NODE, options);
  await using gc = startPodGc({ ...options, client: api, pods, nodes });
  const turn = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 500) {
      clock.advance(500);
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const left = () => api.objects(POD).map(({ metadata }) => metadata.name);
  await turn(1_000);
  assert.deepEqual(left(), ['alive', 'kept', 'silent']);
  await turn(28_000);
  assert.deepEqual(left(), ['alive', 'kept', 'silent']);
  await turn(3_000);
  assert.deepEqual(left(), ['alive', 'kept']);

  api.put(NODE, node('alive', 'Unknown'));
  await turn(33_000);
  assert.deepEqual(left(), ['kept']);
  assert.ok(gc !== undefined);
});
