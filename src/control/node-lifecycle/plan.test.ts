import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Lease } from '#api/coordination/v1/lease.ts';
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Condition } from '#api/meta.ts';
import { observeHealth, planNode, REASON_NEVER_UPDATED, REASON_UNKNOWN } from './plan.ts';

const nowMs = Date.parse('2026-01-01T00:00:00Z');

function node(ready?: Partial<Condition>): Node {
  const conditions = [
    { type: 'Other', status: 'True' as const },
    ...(ready === undefined ? [] : [{ type: 'Ready', status: 'True' as const, ...ready }]),
  ];
  return { apiVersion: 'v1', kind: 'Node', metadata: { name: 'm1' }, status: { conditions } };
}

function pod(ready?: Partial<Condition>): Pod {
  const conditions =
    ready === undefined ? [] : [{ type: 'Ready', status: 'True' as const, ...ready }];
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'a', namespace: 'default' },
    spec: { containers: [], nodeName: 'm1' },
    status: { phase: 'Running', podIP: '10.0.0.1', conditions },
  };
}

function lease(renewTime: string): Lease {
  return {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: 'm1', namespace: 'kube-node-lease' },
    spec: { holderIdentity: 'm1', renewTime },
  };
}

function readyOf(object: Node | Pod | undefined): string {
  const ready = object?.status?.conditions?.find(({ type }) => type === 'Ready');
  return object === undefined ? 'unchanged' : `${ready?.status} ${ready?.reason ?? ''}`.trim();
}

describe('planNode()', () => {
  const ours = { status: 'False', reason: REASON_UNKNOWN } as const;
  const unknown = { status: 'Unknown', reason: REASON_UNKNOWN } as const;
  for (const { name, isSilent, nodeReady, podReady, wantNode, wantPod } of [
    {
      name: 'a silent node is Unknown and its pods are not ready',
      isSilent: true,
      nodeReady: {},
      podReady: {},
      wantNode: `Unknown ${REASON_UNKNOWN}`,
      wantPod: `False ${REASON_UNKNOWN}`,
    },
    {
      name: 'a pod that becomes ready on a silent node does not stay so',
      isSilent: true,
      nodeReady: unknown,
      podReady: {},
      wantNode: 'unchanged',
      wantPod: `False ${REASON_UNKNOWN}`,
    },
    {
      name: 'a silent node has nothing written twice',
      isSilent: true,
      nodeReady: unknown,
      podReady: ours,
      wantNode: 'unchanged',
      wantPod: 'unchanged',
    },
    {
      name: 'what was not ready keeps its own reason',
      isSilent: true,
      nodeReady: { status: 'False', reason: 'NetworkNotReady' } as const,
      podReady: { status: 'False', reason: 'ContainersNotReady' } as const,
      wantNode: 'unchanged',
      wantPod: 'unchanged',
    },
    {
      name: 'a node that never reported is Unknown for that reason',
      isSilent: true,
      nodeReady: undefined,
      podReady: undefined,
      wantNode: `Unknown ${REASON_NEVER_UPDATED}`,
      wantPod: 'unchanged',
    },
    {
      name: 'a node that speaks again is as it was, and so are its pods',
      isSilent: false,
      nodeReady: unknown,
      podReady: ours,
      wantNode: 'True NodeStatusResumed',
      wantPod: 'True',
    },
    {
      name: 'pods come back when the agent itself has said that its node is ready',
      isSilent: false,
      nodeReady: { reason: 'AgentReady' },
      podReady: ours,
      wantNode: 'unchanged',
      wantPod: 'True',
    },
    {
      name: 'pods wait for an agent that says it is not ready',
      isSilent: false,
      nodeReady: { status: 'False', reason: 'NetworkNotReady' } as const,
      podReady: ours,
      wantNode: 'unchanged',
      wantPod: 'unchanged',
    },
    {
      name: 'what others made not ready is theirs to change',
      isSilent: false,
      nodeReady: { status: 'Unknown', reason: REASON_NEVER_UPDATED } as const,
      podReady: { status: 'False', reason: 'ContainersNotReady' } as const,
      wantNode: 'unchanged',
      wantPod: 'unchanged',
    },
  ])
    test(name, () => {
      const plan = planNode({ node: node(nodeReady), pods: [pod(podReady)], isSilent, nowMs });
      assert.equal(readyOf(plan.node), wantNode);
      assert.equal(readyOf(plan.pods[0]), wantPod);
      const other = plan.node?.status?.conditions?.find(({ type }) => type === 'Other');
      if (plan.node !== undefined) assert.ok(other, 'the other conditions stay');
    });

  test('says when, and keeps the rest of the status', () => {
    const { pods } = planNode({ node: node({}), pods: [pod({})], isSilent: true, nowMs });
    assert.equal(pods[0]?.status?.podIP, '10.0.0.1');
    assert.equal(pods[0]?.status?.conditions?.[0]?.lastTransitionTime, '2026-01-01T00:00:00Z');
  });
});

describe('observeHealth()', () => {
  test('counts from when we saw the sign, whatever the clock of the node says', () => {
    const first = observeHealth(undefined, node({}), lease('2031-01-01T00:00:00Z'), 1_000);
    assert.equal(first.seenAtMs, 1_000);
    const same = observeHealth(first, node({}), lease('2031-01-01T00:00:00Z'), 9_000);
    assert.equal(same.seenAtMs, 1_000);
    const renewed = observeHealth(same, node({}), lease('2020-01-01T00:00:00Z'), 9_000);
    assert.equal(renewed.seenAtMs, 9_000);
  });

  test('takes a heartbeat of the status for a sign, too', () => {
    const first = observeHealth(undefined, node({ lastHeartbeatTime: 'a' }), undefined, 1_000);
    const next = observeHealth(first, node({ lastHeartbeatTime: 'b' }), undefined, 2_000);
    assert.equal(next.seenAtMs, 2_000);
  });
});
