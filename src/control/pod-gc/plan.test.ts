import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '#api/core/v1/pod.ts';
import { MANAGED_KEY, managedPods } from './plan.ts';

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
