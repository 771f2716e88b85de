import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EVENT } from '#api/core/v1/event.ts';
import type { Condition } from '#api/meta.ts';
import { NETWORK_POLICY } from '#api/networking/v1/network-policy.ts';
import {
  CLUSTER_NETWORK_POLICY,
  type ClusterNetworkPolicy,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { createEventRecorder } from '#client/events.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { PolicyReports, type PolicyState, planConditions } from './reports.ts';
import { clusterPolicy, networkPolicy } from './testing.ts';

const WELL: PolicyState = { problems: [], failure: undefined };
const STRANGE: PolicyState = { problems: ['egress[0]: a peer is not known'], failure: undefined };
const REFUSED: PolicyState = { problems: [], failure: 'no memory' };
const POLICY = clusterPolicy('p', {
  ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
});

describe('planConditions()', () => {
  const options = { node: 'm1', now: '2026-01-01T00:00:00Z' };
  const after = (policy: ClusterNetworkPolicy, state: PolicyState, node = 'm1') => {
    const conditions = planConditions(policy, state, { ...options, node });
    return conditions === undefined ? policy : { ...policy, status: { conditions } };
  };
  const brief = ({ status }: ClusterNetworkPolicy) =>
    (status?.conditions ?? []).map(({ type, status: value, message }) => [type, value, message]);

  test('says once whether all is understood', () => {
    const once = after(POLICY, WELL);
    assert.deepEqual(brief(once), [['Accepted', 'True', 'all of it is known']]);
    assert.equal(planConditions(once, WELL, { ...options, node: 'm2' }), undefined);
    assert.deepEqual(brief(after(once, STRANGE)), [['Accepted', 'False', STRANGE.problems[0]]]);
  });

  test('a node that fails says so, and only it takes that back', () => {
    const failed = after(after(POLICY, WELL), REFUSED);
    assert.deepEqual(brief(failed)[1], ['Programmed', 'False', 'node m1: no memory']);
    for (const state of [WELL, REFUSED])
      assert.equal(planConditions(failed, state, { ...options, node: 'm2' }), undefined);
    assert.deepEqual(brief(after(failed, WELL))[1], [
      ...['Programmed', 'True', 'node m1: it is carried out now'],
    ]);
  });

  test('keeps what others wrote, and the time of what stays', () => {
    const other: Condition = { type: 'Other', status: 'True' };
    const accepted: Condition = {
      ...{ type: 'Accepted', status: 'False', message: 'x' },
      lastTransitionTime: '2025-01-01T00:00:00Z',
    };
    const policy = { ...POLICY, status: { conditions: [other, accepted] } };
    const conditions = planConditions(policy, STRANGE, options);
    assert.deepEqual(conditions?.[0], other);
    assert.equal(conditions?.[1]?.lastTransitionTime, '2025-01-01T00:00:00Z');
  });
});

test('PolicyReports writes conditions and events', async () => {
  const api = new FakeApi();
  api.put(CLUSTER_NETWORK_POLICY, POLICY);
  const plain = networkPolicy('one/n', { podSelector: {} });
  api.put(NETWORK_POLICY, plain);
  await using events = createEventRecorder(api, { component: 'test', log: silentLogger });
  const stored = () => api.objects(CLUSTER_NETWORK_POLICY)[0];
  await using reports = new PolicyReports(
    {
      ...{ client: api, events, log: silentLogger, random: () => 0, isUsed: () => true },
      objectOf: (id) => (id.startsWith('Cluster') ? stored() : plain),
    },
    { node: 'm1' },
  );
  const set = async (id: string, state: PolicyState) => {
    reports.set(id, state);
    await new Promise((resolve) => setTimeout(resolve, 5));
    await reports.settled();
    await events.flushed();
  };
  await set('ClusterNetworkPolicy p', WELL);
  assert.equal(stored()?.status?.conditions?.[0]?.status, 'True');
  assert.deepEqual(api.objects(EVENT), []);
  await set('ClusterNetworkPolicy p', REFUSED);
  await set('ClusterNetworkPolicy p', REFUSED);
  await set('ClusterNetworkPolicy p', WELL);
  await set('NetworkPolicy one/n', STRANGE);
  assert.deepEqual(
    api
      .objects(EVENT)
      .map(({ type, reason, involvedObject }) => [type, reason, involvedObject.kind]),
    [
      ['Warning', 'NotProgrammed', 'ClusterNetworkPolicy'],
      ['Normal', 'Programmed', 'ClusterNetworkPolicy'],
      ['Warning', 'NotUnderstood', 'NetworkPolicy'],
    ],
  );
  assert.equal(
    stored()?.status?.conditions?.find(({ type }) => type === 'Programmed')?.status,
    'True',
  );
});
