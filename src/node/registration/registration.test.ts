import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LEASE } from '#api/coordination/v1/lease.ts';
import { NODE } from '#api/core/v1/node.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { type ComponentHealth, type NodeFacts, planConditions } from './plan.ts';
import { Registration } from './registration.ts';

const FACTS: NodeFacts = {
  name: 'm1',
  addresses: [ip('192.0.2.11')],
  zone: 'z1',
  version: '0.1.0',
  machineId: 'machine',
  bootId: 'boot',
  kernelVersion: '6.1.0',
  osImage: 'Debian',
  architecture: 'amd64',
  containerRuntime: 'podman://4.3.1',
  capacity: { cpu: '2', memory: '1024Ki' },
};
const fabric = (ready: boolean, message = ''): ComponentHealth => ({
  type: 'FabricReady',
  ready,
  message,
});

test('planConditions() is not ready while one part is not, and says which', () => {
  const conditions = planConditions([fabric(false, 'no uplink')], [], '2026-01-01T00:00:00Z');
  const ready = conditions.find((c) => c.type === 'Ready');
  assert.deepEqual([ready?.status, ready?.message], ['False', 'FabricReady: no uplink']);
  assert.equal(conditions.find((c) => c.type === 'NetworkUnavailable')?.status, 'True');
});

test('planConditions() moves lastTransitionTime only when the status changes', () => {
  const first = planConditions([fabric(true)], [], '2026-01-01T00:00:00Z');
  const same = planConditions([fabric(true, 'other words')], first, '2026-01-01T00:01:00Z');
  assert.ok(same.every((c) => c.lastTransitionTime === '2026-01-01T00:00:00Z'));
  const changed = planConditions([fabric(false)], same, '2026-01-01T00:02:00Z');
  assert.ok(changed.every((c) => c.lastTransitionTime === '2026-01-01T00:02:00Z'));
});

test('Registration makes the node and its lease, and then writes the status only when it changes', async () => {
  const api = new FakeApi();
  const clock = new FakeClock();
  let ready = false;
  await using registration = new Registration(
    { client: api, log: silentLogger, clock },
    { facts: FACTS, health: () => [fabric(ready)] },
  );
  await registration.register();
  const node = await api.get(NODE, 'm1');
  assert.equal(node.metadata.labels?.['topology.kubernetes.io/zone'], 'z1');
  assert.equal(node.status?.addresses?.[0]?.address, '192.0.2.11');
  assert.equal((await api.get(LEASE, 'm1', 'kube-node-lease')).spec.holderIdentity, 'm1');

  const statusWrites = () => api.writes.filter((w) => w.subresource === 'status').length;
  const settle = async () => {
    clock.advance(1_000);
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  await settle();
  const before = statusWrites();
  await settle();
  assert.equal(statusWrites(), before, 'nothing changed');
  ready = true;
  await settle();
  const conditions = (await api.get(NODE, 'm1')).status?.conditions ?? [];
  assert.equal(conditions.find((c) => c.type === 'Ready')?.status, 'True');
});

test('Registration takes over the node of an earlier agent', async () => {
  const api = new FakeApi();
  api.put(NODE, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'm1', labels: { mine: 'kept' } },
  });
  await using registration = new Registration(
    { client: api, log: silentLogger, clock: new FakeClock() },
    { facts: FACTS, health: () => [fabric(true)] },
  );
  await registration.register();
  const { metadata } = await api.get(NODE, 'm1');
  assert.equal(metadata.labels?.mine, 'kept');
  assert.equal(metadata.labels?.['kubernetes.io/hostname'], 'm1');
});

test('Registration makes the node again when somebody deletes it', async () => {
  const api = new FakeApi();
  const clock = new FakeClock();
  await using registration = new Registration(
    { client: api, log: silentLogger, clock },
    { facts: FACTS, health: () => [fabric(true)] },
  );
  await registration.register();
  api.remove(NODE, 'm1');
  while (api.objects(NODE).length === 0) {
    clock.advance(10_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await registration[Symbol.asyncDispose]();
  const { status } = await api.get(NODE, 'm1');
  assert.equal(status?.conditions?.find((c) => c.type === 'Ready')?.status, 'True');
});

test('Registration leaves Node and Lease to a kubelet, and adds how the parts are', async () => {
  const api = new FakeApi();
  const clock = new FakeClock();
  const theirs = { type: 'Ready', status: 'True', reason: 'KubeletReady' } as const;
  api.put(NODE, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'm1' },
    status: { nodeInfo: { kubeletVersion: 'v1.32.4' }, conditions: [theirs] },
  });
  let ready = true;
  await using registration = new Registration(
    { client: api, log: silentLogger, clock },
    { facts: FACTS, health: () => [fabric(ready)] },
  );
  await registration.register();
  assert.equal(registration.isBesideKubelet, true);
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 500) {
      clock.advance(500);
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await pass(30_000);
  const { metadata, status } = await api.get(NODE, 'm1');
  assert.equal(metadata.labels, undefined);
  assert.equal(status?.nodeInfo?.kubeletVersion, 'v1.32.4');
  const said = (found = status) => found?.conditions?.map((it) => [it.type, it.status]);
  const conditions = [
    ['Ready', 'True'],
    ['NetworkUnavailable', 'False'],
    ['FabricReady', 'True'],
  ];
  assert.deepEqual(said(), conditions);
  assert.deepEqual(status?.conditions?.[0], theirs);
  assert.equal(api.objects(LEASE).length, 0);
  assert.equal(api.writes.length, 1, 'what is so is not written again');
  ready = false;
  await pass(2_000);
  assert.deepEqual(said((await api.get(NODE, 'm1')).status)?.[2], ['FabricReady', 'False']);
  // The kubelet registers a Node that was deleted: an agent's would be in its way.
  api.remove(NODE, 'm1');
  await pass(30_000);
  assert.equal(api.objects(NODE).length, 0);
});
