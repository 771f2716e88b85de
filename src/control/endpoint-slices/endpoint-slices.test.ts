import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NODE, ZONE_LABEL } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import {
  ENDPOINT_SLICE,
  type EndpointSlice,
  MANAGED_BY_LABEL,
} from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { startEndpointSlices, triggerOf } from './endpoint-slices.ts';
import { MANAGED_BY, TRIGGER_TIME_ANNOTATION } from './plan.ts';
import { pod, service } from './samples.ts';

const clock: Clock = {
  ...systemClock,
  schedule: (delayMs, callback) =>
    systemClock.schedule(delayMs > 60_000 ? delayMs : Math.min(delayMs, 1), callback),
};
const log = silentLogger;

function start(api: FakeApi) {
  const stack = new AsyncDisposableStack();
  const common = { log, clock };
  const services = stack.use(startCache(api, SERVICE, common));
  const pods = stack.use(startCache(api, POD, common));
  const nodes = stack.use(startCache(api, NODE, common));
  const labelSelector = `${MANAGED_BY_LABEL}=${MANAGED_BY}`;
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { ...common, labelSelector }));
  const controller = stack.use(
    startEndpointSlices({ client: api, services, pods, nodes, slices, log, clock }),
  );
  return { controller, pods, slices, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Service, family, ports and names of the endpoints that are ready, sorted. */
function summary(api: FakeApi): string[] {
  return api
    .objects(ENDPOINT_SLICE)
    .filter((slice) => (slice.endpoints ?? []).length > 0)
    .map((slice) => {
      const ready = (slice.endpoints ?? []).filter((e) => e.conditions?.ready);
      const names = ready.map((e) => e.targetRef?.name).toSorted();
      const ports = slice.ports?.map((p) => p.port);
      return `${slice.metadata.ownerReferences?.[0]?.name} ${slice.addressType} ${ports}: ${names}`;
    })
    .toSorted();
}

/** Resolves when the API's slices look as wanted. */
async function untilShown(api: FakeApi, wanted: readonly string[]): Promise<void> {
  await until(() => summary(api).join() === wanted.join());
}

describe('EndpointSlices', () => {
  test('follows services and pods', async () => {
    const api = new FakeApi();
    api.put(SERVICE, service());
    api.put(POD, pod('a', { ip: '10.0.0.1' }));
    await using _ = start(api);
    await untilShown(api, ['web IPv4 8080: a']);
    api.put(POD, pod('b', { ip: '10.0.0.2' }));
    await untilShown(api, ['web IPv4 8080: a,b']);
    api.put(POD, pod('a', { ip: '10.0.0.1', ready: false }));
    await untilShown(api, ['web IPv4 8080: b']);
    api.put(POD, pod('b', { ip: '10.0.0.2', labels: { app: 'other' } }));
    api.put(SERVICE, service({}, 'other'));
    await untilShown(api, ['other IPv4 8080: b', 'web IPv4 8080: ']);
    api.remove(POD, 'default/b');
    api.remove(POD, 'default/a');
    api.remove(SERVICE, 'default/other');
    api.put(POD, pod('c', { ip: '10.0.0.3' }));
    await untilShown(api, ['web IPv4 8080: c']);
  });

  test('one change is one write, and of the service it touches', async () => {
    const api = new FakeApi();
    for (let i = 0; i < 20; i++) {
      api.put(SERVICE, service({}, `s${i}`));
      api.put(POD, pod(`p${i}`, { ip: `10.0.0.${i + 1}`, labels: { app: `s${i}`, tier: 'x' } }));
    }
    await using setup = start(api);
    await setup.controller.settled();
    api.clearRequests();
    api.put(POD, pod('p7', { ip: '10.0.0.8', labels: { app: 's7', tier: 'x' }, ready: false }));
    await untilShown(
      api,
      summary(api).map((line) => (line.startsWith('s7 ') ? 's7 IPv4 8080: ' : line)),
    );
    await setup.controller.settled();
    assert.deepEqual(
      api.writes.map((r) => [r.verb, r.name?.replace(/-.*/, '')]),
      [['update', 's7']],
    );
  });

  test('does nothing after a restart when nothing has changed', async () => {
    const api = new FakeApi();
    api.put(SERVICE, service());
    for (let i = 0; i < 150; i++) api.put(POD, pod(`p${i}`, { ip: `10.0.0.${i + 1}` }));
    {
      await using setup = start(api);
      await setup.controller.settled();
    }
    api.clearRequests();
    await using setup = start(api);
    await setup.controller.settled();
    assert.deepEqual(api.writes, []);
  });

  test('catches up with what happened while it was down', async () => {
    const api = new FakeApi();
    api.put(SERVICE, service());
    api.put(SERVICE, service({}, 'gone'));
    api.put(POD, pod('a', { ip: '10.0.0.1' }));
    api.put(POD, pod('b', { ip: '10.0.0.2', labels: { app: 'gone' } }));
    {
      await using setup = start(api);
      await setup.controller.settled();
    }
    api.remove(SERVICE, 'default/gone');
    api.remove(POD, 'default/a');
    api.put(POD, pod('c', { ip: '10.0.0.3' }));
    await using _ = start(api);
    await untilShown(api, ['web IPv4 8080: c']);
  });

  test('a burst of changes while a write is under way makes no refused writes and no twins', async () => {
    const api = new FakeApi();
    api.put(SERVICE, service());
    await using setup = start(api);
    await setup.controller.settled();
    api.clearRequests();
    for (let i = 0; i < 120; i++) {
      api.put(POD, pod(`p${i}`, { ip: `10.0.1.${i + 1}` }));
      if (i % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const names = Array.from({ length: 120 }, (_, i) => `p${i}`);
    for (;;) {
      await setup.controller.settled();
      const all = api.objects(ENDPOINT_SLICE).flatMap((s) => s.endpoints ?? []);
      if (all.length >= 120) break;
      await new Promise((resolve) => setImmediate(resolve));
    }
    const slices = api.objects(ENDPOINT_SLICE);
    const found = slices.flatMap((s) => s.endpoints ?? []).map((e) => e.targetRef?.name);
    assert.deepEqual(found.toSorted(), names.toSorted());
    assert.equal(slices.length, 2);
    assert.equal(api.writes.filter((r) => r.verb === 'create').length, 1);
    assert.deepEqual(setup.controller.failing, []);
  });

  test('goes by its own writes while the watch does not show them yet', async () => {
    const api = new FakeApi();
    await using setup = start(api);
    await setup.controller.settled();
    api.holdWatches(ENDPOINT_SLICE);
    api.put(SERVICE, service());
    await untilShown(api, []);
    for (let i = 0; i < 5; i++) {
      api.put(POD, pod(`p${i}`, { ip: `10.0.1.${i + 1}` }));
      const names = Array.from({ length: i + 1 }, (_, n) => `p${n}`);
      await untilShown(api, [`web IPv4 8080: ${names}`]);
    }
    api.releaseWatches(ENDPOINT_SLICE);
    await untilShown(api, ['web IPv4 8080: p0,p1,p2,p3,p4']);
    await setup.controller.settled();
    assert.equal(api.objects(ENDPOINT_SLICE).length, 1);
    const verbs = api.writes.map((r) => r.verb);
    assert.equal(verbs.filter((verb) => verb === 'create').length, 1);
    assert.ok(verbs.length <= 6, `${verbs.length} writes for a service and 5 pods`);
    // And on after the watch has caught up.
    api.remove(SERVICE, 'default/web');
    await setup.controller.settled();
    await until(() => api.objects(ENDPOINT_SLICE).length === 0);
  });

  test('gets over refused and lost writes', async () => {
    const api = new FakeApi();
    const conflict = new ApiError(409, 'Conflict', 'changed');
    api.failNext({ verb: 'create' }, new Error('lost'), { afterEffect: true });
    api.failNext({ verb: 'create' }, new ApiError(500, 'InternalError', 'no'));
    api.failNext({ verb: 'update' }, conflict, { times: 3 });
    api.failNext({ verb: 'update' }, new Error('lost'), { afterEffect: true });
    api.put(SERVICE, service());
    api.put(POD, pod('a', { ip: '10.0.0.1' }));
    await using setup = start(api);
    await untilShown(api, ['web IPv4 8080: a']);
    api.put(POD, pod('b', { ip: '10.0.0.2' }));
    await untilShown(api, ['web IPv4 8080: a,b']);
    await setup.controller.settled();
    assert.equal(api.objects(ENDPOINT_SLICE).length, 1);
  });

  test('repairs a slice that somebody else changes or deletes', async () => {
    const api = new FakeApi();
    api.put(SERVICE, service());
    api.put(POD, pod('a', { ip: '10.0.0.1' }));
    await using setup = start(api);
    await setup.controller.settled();
    const [slice] = api.objects(ENDPOINT_SLICE) as [EndpointSlice];
    api.put(ENDPOINT_SLICE, { ...slice, endpoints: [] });
    await untilShown(api, ['web IPv4 8080: a']);
    api.remove(ENDPOINT_SLICE, `default/${slice.metadata.name}`);
    await untilShown(api, ['web IPv4 8080: a']);
  });

  test('leaves slices of others alone', async () => {
    const api = new FakeApi();
    const foreign: EndpointSlice = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: 'web-manual',
        namespace: 'default',
        labels: { 'kubernetes.io/service-name': 'web' },
      },
      addressType: 'IPv4',
      endpoints: [{ addresses: ['192.0.2.1'] }],
    };
    const before = api.put(ENDPOINT_SLICE, foreign);
    api.put(SERVICE, service());
    await using setup = start(api);
    await setup.controller.settled();
    assert.deepEqual(await api.get(ENDPOINT_SLICE, 'web-manual', 'default'), before);
  });

  test('writes the zone of the node, and a new one when it changes', async () => {
    const api = new FakeApi();
    const node = (zone: string) =>
      ({
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name: 'm1', labels: { [ZONE_LABEL]: zone } },
      }) as const;
    api.put(NODE, node('z1'));
    api.put(SERVICE, service());
    api.put(POD, pod('a', { ip: '10.0.0.1', node: 'm1' }));
    await using setup = start(api);
    await setup.controller.settled();
    const zone = () => api.objects(ENDPOINT_SLICE)[0]?.endpoints?.[0]?.zone;
    assert.equal(zone(), 'z1');
    api.put(NODE, node('z2'));
    await until(() => zone() === 'z2');
  });

  test('stamps what it writes with the time of the cause', async () => {
    const api = new FakeApi();
    api.put(SERVICE, service());
    await using setup = start(api);
    await setup.controller.settled();
    const changed = pod('a', { ip: '10.0.0.1' });
    const at = new Date(Date.now() - 1_000).toISOString();
    for (const condition of changed.status?.conditions ?? []) condition.lastTransitionTime = at;
    api.put(POD, changed);
    await untilShown(api, ['web IPv4 8080: a']);
    const [slice] = api.objects(ENDPOINT_SLICE);
    assert.equal(slice?.metadata.annotations?.[TRIGGER_TIME_ANNOTATION], at);
  });

  test('ends in the same state in whatever order, pieces and repetitions things arrive', async () => {
    type Step = (api: FakeApi) => void;
    const steps: Step[] = [
      (api) => api.put(SERVICE, service()),
      (api) => api.put(SERVICE, service({ ipFamilies: ['IPv4', 'IPv6'] }, 'dual')),
      (api) => api.put(POD, pod('a', { ip: '10.0.0.1' })),
      (api) => api.put(POD, pod('b', { ip: '10.0.0.2', ready: false })),
      (api) =>
        api.put(POD, pod('c', { ip: '10.0.0.3', ip6: '2001:db8::3', labels: { app: 'dual' } })),
      (api) => api.put(POD, pod('d', { ip: '10.0.0.4', phase: 'Failed' })),
    ];
    const wanted = ['dual IPv4 8080: c', 'dual IPv6 8080: c', 'web IPv4 8080: a'];
    const noise: Step = (api) => {
      api.put(POD, pod('z', { ip: '10.0.0.9' }));
      api.remove(POD, 'default/z');
    };
    const schedules: Record<string, Step[]> = {
      'in order': steps,
      reversed: steps.toReversed(),
      repeated: steps.flatMap((step) => [step, step]),
      'repeated as a whole': [...steps, ...steps],
      'with noise': steps.flatMap((step) => [step, noise]),
    };
    for (const [name, schedule] of Object.entries(schedules))
      for (const isSplit of [false, true]) {
        const api = new FakeApi();
        await using setup = start(api);
        for (const step of schedule) {
          step(api);
          if (isSplit) await setup.controller.settled();
        }
        await untilShown(api, wanted).catch((error) => assert.fail(`${name}: ${error}`));
      }
  });
});

describe('triggerOf()', () => {
  const nowMs = Date.parse('2026-01-01T00:01:00Z');
  const ready = (status: 'True' | 'False', lastTransitionTime?: string) => {
    const sample = pod('a', { ip: '10.0.0.1' });
    const condition = { type: 'Ready', status };
    const conditions = [
      lastTransitionTime === undefined ? condition : { ...condition, lastTransitionTime },
    ];
    return { ...sample, status: { ...sample.status, conditions } };
  };
  for (const { name, old, current, want } of [
    {
      name: 'the transition',
      old: ready('True'),
      current: ready('False', '2026-01-01T00:00:59Z'),
      want: nowMs - 1_000,
    },
    {
      name: 'now if readiness is as it was',
      old: ready('True'),
      current: ready('True', '2026-01-01T00:00:59Z'),
      want: nowMs,
    },
    {
      name: 'now if the transition is long ago',
      old: undefined,
      current: ready('True', '2025-01-01T00:00:00Z'),
      want: nowMs,
    },
    {
      name: 'now if the transition lies ahead',
      old: undefined,
      current: ready('True', '2026-01-01T00:02:00Z'),
      want: nowMs,
    },
    { name: 'now for a pod that is gone', old: ready('True'), current: undefined, want: nowMs },
  ])
    test(`is ${name}`, () => assert.equal(triggerOf(old, current, nowMs), want));
});
