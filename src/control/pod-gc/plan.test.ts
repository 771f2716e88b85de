import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Pod } from '#api/core/v1/pod.ts';
import { MANAGED_KEY, planPodGc, QUARANTINE_MS } from './plan.ts';

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
const nodeExists = (name: string) => name === 'there';

describe('planPodGc()', () => {
  test('removes pods of a missing node after the quarantine, and not before', () => {
    const pods = [
      pod('a', 'gone', ours),
      pod('b', 'gone', { annotations: { [MANAGED_KEY]: 'true' } }),
      pod('c', 'there', ours),
    ];
    const first = planPodGc({ pods, nodeExists, missingSinceMs: new Map(), nowMs: 1_000 });
    assert.deepEqual([...first.remove], []);
    assert.equal(first.nextAtMs, 1_000 + QUARANTINE_MS);
    const second = planPodGc({ pods, nodeExists, ...first, nowMs: first.nextAtMs });
    assert.deepEqual(
      second.remove.get('gone')?.map((p) => p.metadata.name),
      ['a', 'b'],
    );
    assert.equal(second.nextAtMs, undefined);
  });

  test('a node that comes back starts a new quarantine when it goes again', () => {
    const pods = [pod('a', 'gone', ours)];
    const first = planPodGc({ pods, nodeExists, missingSinceMs: new Map(), nowMs: 0 });
    const back = planPodGc({ pods, nodeExists: () => true, ...first, nowMs: QUARANTINE_MS });
    const again = planPodGc({ pods, nodeExists, ...back, nowMs: QUARANTINE_MS + 1 });
    assert.deepEqual([...again.remove], []);
    assert.equal(again.nextAtMs, 2 * QUARANTINE_MS + 1);
  });

  for (const [name, other] of [
    ['of somebody else', pod('a', 'gone')],
    ['marked as not ours', pod('a', 'gone', { labels: { [MANAGED_KEY]: 'false' } })],
    ['without a node', pod('a', undefined, ours)],
  ] as const)
    test(`leaves pods ${name} alone`, () => {
      const missingSinceMs = new Map([['gone', 0]]);
      const plan = planPodGc({ pods: [other], nodeExists, missingSinceMs, nowMs: 1e9 });
      assert.deepEqual([...plan.remove], []);
      assert.equal(plan.nextAtMs, undefined);
    });
});
