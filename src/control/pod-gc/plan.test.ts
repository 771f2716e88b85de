import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import { endingOn, MANAGED_KEY, managedPods } from './plan.ts';

function pod(
  name: string,
  nodeName: string | undefined,
  marks: Partial<Pod['metadata']> = {},
): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', ...marks },
    spec: { containers: [], ...(nodeName === undefined ? {} : { nodeName }) },
  };
}

const ours = { labels: { [MANAGED_KEY]: 'true' } };

test('managedPods() sorts our pods by node, and leaves alone those of others or without a node', () => {
  const found = managedPods([
    pod('a', 'm1', ours),
    pod('b', 'm1', { annotations: { [MANAGED_KEY]: 'true' } }),
    pod('c', 'm2', ours),
    pod('d', 'm1'),
    pod('e', 'm1', { labels: { [MANAGED_KEY]: 'false' } }),
    pod('f', undefined, ours),
  ]);
  const names = [...found].map(([node, pods]) => [node, pods.map((it) => it.metadata.name)]);
  assert.deepEqual(names, [
    ['m1', ['a', 'b']],
    ['m2', ['c']],
  ]);
});

test('endingOn() tells who ends the pods of a node', () => {
  const node = (status: 'True' | 'Unknown', kubeletVersion: string, taint?: string): Node => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'm1' },
    spec: taint === undefined ? {} : { taints: [{ key: taint, effect: 'NoExecute' }] },
    status: { nodeInfo: { kubeletVersion }, conditions: [{ type: 'Ready', status }] },
  });
  const off = 'node.kubernetes.io/out-of-service';
  assert.equal(endingOn(undefined), 'gone');
  assert.equal(endingOn(node('True', 'tulle 0.1.0')), 'node');
  assert.equal(endingOn(node('Unknown', 'tulle 0.1.0')), 'silent');
  assert.equal(endingOn(node('Unknown', 'v1.32.4')), 'node');
  assert.equal(endingOn(node('Unknown', 'v1.32.4', off)), 'silent');
  assert.equal(endingOn(node('True', 'v1.32.4', off)), 'node');
});
