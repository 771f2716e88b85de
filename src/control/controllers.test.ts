import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { LEASE } from '#api/coordination/v1/lease.ts';
import { EVENT } from '#api/core/v1/event.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { startControllers } from './controllers.ts';

function setUp() {
  const clock = new FakeClock();
  const api = new FakeApi({ clock });
  const stamp = () => new Date(clock.now()).toISOString();
  const addNode = (name: string) => {
    const ready = { type: 'Ready', status: 'True', reason: 'AgentReady' } as const;
    const node: Node = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name },
      status: { conditions: [ready] },
    };
    api.put(NODE, node);
  };
  const renew = (name: string) =>
    api.put(LEASE, {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace: 'kube-node-lease' },
      spec: { holderIdentity: name, renewTime: stamp() },
    });
  const addPod = (name: string, nodeName: string, ip: string) => {
    const pod: Pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name,
        namespace: 'default',
        labels: { app: 'web', 'tulle.dev/managed': 'true' },
      },
      spec: { containers: [{ name: 'main' }], nodeName },
      status: {
        phase: 'Running',
        podIPs: [{ ip }],
        conditions: [{ type: 'Ready', status: 'True' }],
      },
    };
    api.put(POD, pod);
  };
  /** Lets time pass while agents renew, with turns of the event loop for what it causes. */
  const pass = async (ms: number, renewing: readonly string[] = []) => {
    for (let left = ms; left > 0; left -= 1_000) {
      if (left % 10_000 === 0) for (const name of renewing) renew(name);
      clock.advance(Math.min(left, 1_000));
      for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const inRotation = () =>
    api
      .objects(ENDPOINT_SLICE)
      .flatMap((slice) => slice.endpoints ?? [])
      .filter((endpoint) => endpoint.conditions?.ready)
      .map((endpoint) => endpoint.targetRef?.name)
      .toSorted();
  const nodeReady = (name: string) =>
    api
      .objects(NODE)
      .find((node) => node.metadata.name === name)
      ?.status?.conditions?.find(({ type }) => type === 'Ready')?.status;
  api.put(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: { selector: { app: 'web' }, ports: [{ port: 80 }], ipFamilies: ['IPv4'] },
  });
  return { clock, api, addNode, renew, addPod, pass, inRotation, nodeReady };
}

describe('startControllers()', () => {
  test('takes the pods of a silent node out of rotation, and back when it speaks again', async () => {
    const t = setUp();
    for (const name of ['m1', 'm2']) t.addNode(name);
    t.addPod('a', 'm1', '10.0.1.1');
    t.addPod('b', 'm2', '10.0.2.1');
    await using _ = startControllers({ client: t.api, log: silentLogger, clock: t.clock });
    await t.pass(60_000, ['m1', 'm2']);
    assert.deepEqual(t.inRotation(), ['a', 'b']);
    await t.pass(30_000, ['m2']);
    assert.deepEqual(t.inRotation(), ['a', 'b']);
    await t.pass(30_000, ['m2']);
    assert.deepEqual(t.inRotation(), ['b']);
    assert.equal(t.nodeReady('m1'), 'Unknown');
    assert.equal(t.nodeReady('m2'), 'True');
    await t.pass(20_000, ['m1', 'm2']);
    assert.deepEqual(t.inRotation(), ['a', 'b']);
    assert.equal(t.nodeReady('m1'), 'True');
    assert.deepEqual(
      t.api.objects(EVENT).map((event) => `${event.involvedObject.name} ${event.reason}`),
      ['m1 NodeNotReady', 'm1 NodeReady'],
    );
  });

  test('a node that is only listed again is no sign of life', async () => {
    const t = setUp();
    t.addNode('m1');
    t.renew('m1');
    t.addPod('a', 'm1', '10.0.1.1');
    await using _ = startControllers({ client: t.api, log: silentLogger, clock: t.clock });
    await t.pass(30_000);
    t.addPod('b', 'm1', '10.0.1.2');
    await t.pass(20_000);
    assert.deepEqual(t.inRotation(), []);
  });

  test('gives every agent its whole time after the controllers could not hear them', async () => {
    const t = setUp();
    t.addNode('m1');
    t.addPod('a', 'm1', '10.0.1.1');
    await using _ = startControllers({ client: t.api, log: silentLogger, clock: t.clock });
    await t.pass(20_000, ['m1']);
    t.api.setReachable(false);
    await t.pass(120_000);
    t.api.setReachable(true);
    await t.pass(20_000);
    assert.deepEqual(t.inRotation(), ['a']);
    await t.pass(60_000, ['m1']);
    assert.deepEqual(t.inRotation(), ['a']);
  });

  test('gets over refused writes of readiness', async () => {
    const t = setUp();
    t.addNode('m1');
    t.addPod('a', 'm1', '10.0.1.1');
    await using _ = startControllers({ client: t.api, log: silentLogger, clock: t.clock });
    await t.pass(10_000, ['m1']);
    const conflict = new ApiError(409, 'Conflict', 'changed');
    t.api.failNext({ verb: 'update', resource: 'pods' }, conflict, { times: 2 });
    t.api.failNext({ verb: 'update', resource: 'nodes' }, new Error('lost'), { afterEffect: true });
    await t.pass(60_000);
    assert.deepEqual(t.inRotation(), []);
    assert.equal(t.nodeReady('m1'), 'Unknown');
  });

  test('deletes the pods of a node that is no more, after asking the server', async () => {
    const t = setUp();
    t.addNode('m1');
    t.addPod('a', 'm1', '10.0.1.1');
    t.addPod('b', 'm2', '10.0.2.1');
    await using _ = startControllers({ client: t.api, log: silentLogger, clock: t.clock });
    await t.pass(30_000, ['m1']);
    assert.equal(t.api.objects(POD).length, 2);
    await t.pass(20_000, ['m1']);
    assert.deepEqual(
      t.api.objects(POD).map((pod) => pod.metadata.name),
      ['a'],
    );
    assert.deepEqual(t.inRotation(), ['a']);
    t.api.remove(NODE, 'm1');
    await t.pass(50_000);
    assert.deepEqual(t.api.objects(POD), []);
  });

  test('takes addresses back from a node that is no more, and removes the blocks of a disabled pool', async () => {
    const t = setUp();
    t.addNode('m1');
    const spec = { cidr: '192.0.2.0/30', pool: 'v4', affinity: 'Confirmed', sequence: 2 } as const;
    const used = (node: string) =>
      ({ handle: node, sequence: 2, since: '2026-01-01T00:00:00Z', node, purpose: 'Pod' }) as const;
    const allocations = { 0: used('m1'), 1: used('m2') };
    t.api.put(IP_BLOCK, {
      ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'IPBlock' },
      metadata: { name: '192-0-2-0-30' },
      spec: { ...spec, node: 'm2', allocations, free: [2, 3], releasedAt: {} },
    });
    const block = () => t.api.objects(IP_BLOCK)[0]?.spec;
    await using _ = startControllers({ client: t.api, log: silentLogger, clock: t.clock });
    await t.pass(30_000, ['m1']);
    assert.equal(block()?.node, 'm2');
    await t.pass(20_000, ['m1']);
    assert.deepEqual([block()?.node, Object.keys(block()?.allocations ?? {})], ['', ['0']]);
    t.api.put(IP_POOL, {
      ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'IPPool', metadata: { name: 'v4' } },
      spec: { cidr: '192.0.2.0/24', disabled: true },
    });
    await t.pass(10_000, ['m1']);
    assert.equal(t.api.objects(IP_BLOCK).length, 1, 'm1 has an address of it');
    t.api.remove(NODE, 'm1');
    await t.pass(50_000);
    assert.deepEqual(t.api.objects(IP_BLOCK), []);
  });

  test('a restart loses nothing and writes nothing', async () => {
    const t = setUp();
    t.addNode('m1');
    t.addPod('a', 'm1', '10.0.1.1');
    for (let run = 0; run < 3; run++) {
      t.api.clearRequests();
      const controllers = startControllers({ client: t.api, log: silentLogger, clock: t.clock });
      await t.pass(10_000, ['m1']);
      assert.deepEqual(controllers.problems(), []);
      await controllers[Symbol.asyncDispose]();
      if (run > 0) assert.deepEqual(t.api.writes, []);
    }
    assert.deepEqual(t.inRotation(), ['a']);
    assert.equal(t.api.watchCount, 0);
  });
});
