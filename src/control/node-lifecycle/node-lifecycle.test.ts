import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LEASE } from '#api/coordination/v1/lease.ts';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { startCache } from '#client/cache.ts';
import { createEventRecorder } from '#client/events.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { startNodeLifecycle } from './node-lifecycle.ts';

const DAY_MS = 86_400_000;

test('NodeLifecycle goes by no time of day: clocks that are set silence no node, and hide no silence', async () => {
  const clock = new FakeClock();
  const api = new FakeApi({ clock });
  const common = { log: silentLogger, clock };
  await using nodes = startCache(api, NODE, common);
  await using pods = startCache(api, POD, common);
  await using leases = startCache(api, LEASE, common);
  await using events = createEventRecorder(api, { ...common, component: 'test' });
  api.put(NODE, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'm1' },
    status: { conditions: [{ type: 'Ready', status: 'True' }] },
  });
  await using lifecycle = startNodeLifecycle({
    ...common,
    client: api,
    nodes,
    pods,
    leases,
    events,
  });
  const ready = () =>
    api.objects(NODE)[0]?.status?.conditions?.find(({ type }) => type === 'Ready')?.status;
  const pass = async (ms: number, renews: boolean) => {
    for (let passed = 0; passed < ms; passed += 500) {
      if (renews && passed % 10_000 === 0)
        api.put(LEASE, {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: { name: 'm1', namespace: 'kube-node-lease' },
          spec: { holderIdentity: 'm1', renewTime: new Date(clock.now()).toISOString() },
        });
      clock.advance(500);
      for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await pass(20_000, true);
  for (const days of [1, -2, 3_650]) {
    clock.jump(days * DAY_MS);
    await pass(60_000, true);
    assert.equal(ready(), 'True', `${days} days`);
  }
  clock.jump(-3_650 * DAY_MS);
  await pass(60_000, false);
  assert.equal(ready(), 'Unknown');
  assert.ok(lifecycle !== undefined);
});
