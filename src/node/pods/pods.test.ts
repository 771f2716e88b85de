import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { namespaceTerminating, notFound } from '#api/machinery/status.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { type Clock, FakeClock } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import type { ProbeTarget, Readiness, ReadinessProbes } from '../readiness.ts';
import { Pods } from './pods.ts';
import { attachmentOf, RUNNING, TestAttachments, TestRuntime } from './test-containers.ts';

/** Probes whose answers the test gives. */
class TestProbes implements ReadinessProbes {
  targets: readonly ProbeTarget[] = [];
  readonly #answers = new Map<string, Readiness>();
  readonly #listeners = new Set<() => void>();
  follow(targets: readonly ProbeTarget[]): void {
    this.targets = targets;
  }
  readinessOf(containerId: string): Readiness | undefined {
    return this.#answers.get(containerId);
  }
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  answer(containerId: string, ready: boolean, message = ''): void {
    this.#answers.set(containerId, { ready, since: '2026-01-01T00:01:00.000Z', message });
    for (const listener of this.#listeners) listener();
  }
}

/** An agent's pods feature on an API in memory. */
class Agent implements AsyncDisposable {
  readonly attachments = new TestAttachments();
  readonly runtime = new TestRuntime();
  readonly api: FakeApi;
  readonly #resources = new AsyncDisposableStack();
  readonly #pods: Pods;

  readonly probes = new TestProbes();

  constructor(
    options: {
      api?: FakeApi;
      node?: string;
      isInNetns?: boolean;
      clock?: Clock;
      isBesideKubelet?: boolean;
    } = {},
  ) {
    this.api = options.api ?? new FakeApi();
    const pods = this.#resources.use(startCache(this.api, POD, { log: silentLogger }));
    const feature = this.#resources.use(
      new Pods(
        {
          client: this.api,
          pods,
          attachments: this.attachments,
          runtimes: [this.runtime],
          watchExit: this.runtime.watchExit,
          isInNetns: () => options.isInNetns ?? true,
          probes: this.probes,
          isBesideKubelet: () => options.isBesideKubelet === true,
          log: silentLogger,
          ...(options.clock === undefined ? {} : { clock: options.clock }),
        },
        { node: { name: options.node ?? 'n1', hostIps: [ip('198.51.100.1')] } },
      ),
    );
    feature.start();
    this.#pods = feature;
  }

  get problem(): string | undefined {
    return this.#pods.problem;
  }

  /** Waits for the API to have what is wanted; the test's own time limit is the bound. */
  async until(what: (pods: Pod[]) => boolean): Promise<Pod[]> {
    const { resourceVersion } = this.api;
    if (!what(this.api.objects(POD))) {
      const stop = new AbortController();
      const { signal } = stop;
      for await (const _ of this.api.watch(POD, { resourceVersion, signal }))
        if (what(this.api.objects(POD))) break;
      stop.abort();
    }
    return this.api.objects(POD);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}

function foreignPod(name: string, nodeName: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: { nodeName, containers: [{ name }] },
  };
}

/** As the server marks a Pod that somebody deletes. */
function terminate(api: FakeApi, pod: Pod, seconds: number): void {
  const deletionTimestamp = '2026-01-01T00:00:30Z';
  const metadata = { ...pod.metadata, deletionTimestamp, deletionGracePeriodSeconds: seconds };
  api.put(POD, { ...pod, metadata });
}

/** Lets time go by, second by second, with whatever is done in each. */
async function turn(clock: FakeClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 1_000) {
    clock.advance(1_000);
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Lets time go by until it is done. */
async function turning<T>(clock: FakeClock, action: () => Promise<T>): Promise<T> {
  const done = new AbortController();
  const work = action().finally(() => done.abort());
  while (!done.signal.aborted) await turn(clock, 1_000);
  return await work;
}

const isReady = (pod: Pod | undefined) =>
  pod?.status?.conditions?.some((it) => it.type === 'Ready' && it.status === 'True') === true;
const names = (pods: Pod[]) => pods.map((it) => it.metadata.name);

describe('Pods', () => {
  test('makes a ready Pod of a container, and removes it with the attachment', async () => {
    await using agent = new Agent();
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    const [pod] = await agent.until(([it]) => isReady(it));
    assert.deepEqual(pod?.metadata.labels, { app: 'web', 'tulle.dev/managed': 'true' });
    agent.attachments.set();
    await agent.until((pods) => pods.length === 0);
  });

  test('asks again until the container has started', async () => {
    await using agent = new Agent();
    agent.runtime.containers.set('c1', { ...RUNNING, state: 'starting', pid: undefined });
    agent.attachments.set(attachmentOf('c1', 'web'));
    await agent.until(([it]) => it?.status?.phase === 'Pending');
    agent.runtime.containers.set('c1', RUNNING);
    await agent.until(([it]) => isReady(it));
  });

  test('makes a Pod of a namespace that no runtime knows, also when none can be asked', async () => {
    await using agent = new Agent();
    agent.runtime.failure = new Error('no such program');
    agent.attachments.set(attachmentOf('c1', 'c1'));
    await agent.until(([it]) => isReady(it));
  });

  test('a probe decides whether a running container is ready, and its label becomes an annotation', async () => {
    await using agent = new Agent();
    agent.probes.answer('c1', false, 'HTTP status 503');
    const labels = { app: 'web', 'tulle.dev/readiness-http': ':8080/healthz' };
    agent.runtime.containers.set('c1', { ...RUNNING, labels });
    agent.attachments.set(attachmentOf('c1', 'web'));
    const [starting] = await agent.until(([it]) => it?.status?.phase === 'Running');
    assert.equal(starting?.metadata.annotations?.['tulle.dev/readiness-http'], ':8080/healthz');
    assert.deepEqual(Object.keys(starting?.metadata.labels ?? {}).sort(), [
      'app',
      'tulle.dev/managed',
    ]);
    assert.deepEqual(
      starting?.status?.conditions?.find(({ type }) => type === 'Ready'),
      {
        type: 'Ready',
        status: 'False',
        reason: 'ReadinessProbeFails',
        message: 'HTTP status 503',
        lastTransitionTime: '2026-01-01T00:01:00Z',
      },
    );
    agent.probes.answer('c1', true);
    await agent.until(([it]) => isReady(it));
    assert.deepEqual(agent.probes.targets[0]?.settings, { http: ':8080/healthz' });
    agent.runtime.endProcess(100);
    await agent.until(([it]) => !isReady(it));
    assert.deepEqual(agent.probes.targets, [], 'what has ended is not asked');
  });

  test('takes wishes from the Pod in the API too, but no command to run', async () => {
    await using agent = new Agent();
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    const [pod] = await agent.until(([it]) => isReady(it));
    assert.ok(pod);
    const annotations = {
      ...pod.metadata.annotations,
      'tulle.dev/readiness-tcp': ':80',
      'tulle.dev/readiness-exec': 'rm -rf /',
    };
    agent.api.put(POD, { ...pod, metadata: { ...pod.metadata, annotations } });
    await until(() => agent.probes.targets.length > 0);
    assert.deepEqual(agent.probes.targets[0]?.settings, { tcp: ':80' });
    assert.equal(agent.probes.targets[0]?.was?.ready, true);
  });

  test('says at once that a process has ended, and then how', async () => {
    await using agent = new Agent();
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    await agent.until(([it]) => isReady(it) && agent.runtime.isWatched(100));
    agent.runtime.endProcess(100);
    const [ended] = await agent.until(([it]) => !isReady(it));
    assert.equal(ended?.status?.phase, 'Running', 'nobody knows yet whether it failed');
    agent.runtime.containers.set('c1', {
      ...RUNNING,
      state: 'ended',
      pid: undefined,
      exitCode: 137,
    });
    const [failed] = await agent.until(([it]) => it?.status?.phase === 'Failed');
    assert.equal(failed?.status?.containerStatuses?.[0]?.state?.terminated?.exitCode, 137);
  });

  test('does not believe a process number that is not in the namespace any more', async () => {
    await using agent = new Agent({ isInNetns: false });
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    await agent.until(([it]) => it?.status?.phase === 'Running' && !isReady(it));
  });

  test('leaves the pods of a kubelet alone', async () => {
    await using agent = new Agent();
    agent.attachments.set(
      attachmentOf('k1', 'theirs', { pod: { kubelet: true } }),
      attachmentOf('c1', 'ours'),
    );
    assert.deepEqual(names(await agent.until(([it]) => isReady(it))), ['ours']);
  });

  test('waits for a runtime that knows its sandbox only some time after the ADD', async () => {
    await using agent = new Agent();
    agent.runtime.containers.set('s1', RUNNING);
    agent.runtime.blindFor = 4;
    agent.attachments.set(attachmentOf('s1', 'web', { pod: { sandbox: true } }));
    const [pod] = await agent.until(([it]) => it !== undefined);
    assert.equal(pod?.metadata.labels?.app, 'web');
  });

  test('of the sandboxes of one pod the newest is the Pod, until it is gone', async () => {
    await using agent = new Agent();
    for (const id of ['s1', 's2', 's3']) agent.runtime.containers.set(id, RUNNING);
    const sandbox = (id: string, uid: string, minute: number) =>
      attachmentOf(id, 'web', {
        pod: { sandbox: true, uid },
        at: `2026-01-01T00:0${minute}:00.000Z`,
      });
    const first = sandbox('s1', 'u1', 1);
    agent.attachments.set(first);
    await agent.until(([it]) => isReady(it));
    const idOf = (pod: Pod | undefined) => pod?.status?.containerStatuses?.[0]?.containerID;
    agent.attachments.set(sandbox('s2', 'u1', 2), first);
    const again = await agent.until(([it]) => idOf(it) === 'test://s2');
    assert.deepEqual(names(again), ['web']);
    // Another pod of that name is another pod.
    agent.attachments.set(sandbox('s2', 'u1', 2), first, sandbox('s3', 'u2', 3));
    const three = await agent.until((all) => all.length === 2 && all.every(isReady));
    assert.deepEqual(three.map(idOf).sort(), ['test://s2', 'test://s3']);
    agent.attachments.set(first);
    await agent.until((all) => all.length === 1 && idOf(all[0]) === 'test://s1');
  });

  test('does not touch a Pod of the same name that is not its own', async () => {
    await using agent = new Agent();
    const foreign = agent.api.put(POD, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'web', namespace: 'default' },
      spec: { containers: [], nodeName: 'n1' },
    });
    agent.runtime.containers.set('c1ffee', RUNNING);
    agent.attachments.set(attachmentOf('c1ffee', 'web'));
    const pods = await agent.until((all) => all.some((it) => isReady(it)));
    assert.deepEqual(names(pods), ['web', 'web-c1ffe']);
    assert.deepEqual(pods[0], foreign);
  });

  test('two nodes with containers of the same name have a Pod each', async () => {
    await using first = new Agent();
    await using second = new Agent({ api: first.api, node: 'n2' });
    for (const [agent, id] of [
      [first, 'aaaaaa'],
      [second, 'bbbbbb'],
    ] as const) {
      agent.runtime.containers.set(id, RUNNING);
      agent.attachments.set(attachmentOf(id, 'web'));
    }
    const pods = await first.until((all) => all.filter(isReady).length === 2);
    assert.deepEqual(pods.map((it) => it.spec.nodeName).sort(), ['n1', 'n2']);
  });

  test('adopts its Pods after a restart and removes those whose container is gone', async () => {
    const api = new FakeApi();
    {
      await using before = new Agent({ api });
      before.runtime.containers.set('c1', RUNNING).set('c2', { ...RUNNING, pid: 200 });
      before.attachments.set(
        attachmentOf('c1', 'stays'),
        attachmentOf('c2', 'goes', { ordinal: 2 }),
      );
      await before.until((pods) => pods.filter(isReady).length === 2);
    }
    const uid = api.objects(POD).find((it) => it.metadata.name === 'stays')?.metadata.uid;
    await using after = new Agent({ api });
    after.runtime.containers.set('c1', RUNNING);
    after.attachments.set(attachmentOf('c1', 'stays'));
    const [pod] = await after.until((pods) => pods.length === 1);
    assert.equal(pod?.metadata.uid, uid);
    assert.ok(isReady(pod));
  });

  test('comes right when the API was away', async () => {
    await using agent = new Agent();
    const away = new Error('connection refused');
    agent.api.failNext({ verb: 'create' }, away);
    agent.api.failNext({ verb: 'patch' }, away);
    agent.api.failNext({ verb: 'patch' }, away, { afterEffect: true });
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    await agent.until(([it]) => isReady(it));
    assert.deepEqual(
      agent.api.writes.slice(0, 3).map((it) => it.verb),
      ['create', 'create', 'patch'],
    );
  });

  test('makes a Pod again that somebody has deleted', async () => {
    await using agent = new Agent();
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    const [first] = await agent.until(([it]) => isReady(it));
    agent.api.remove(POD, 'default/web');
    const [second] = await agent.until(
      ([it]) => isReady(it) && it?.metadata.uid !== first?.metadata.uid,
    );
    assert.ok(second !== undefined);
  });

  test('lets a Pod that was deleted drain until its container goes, or its time is over', async () => {
    const clock = new FakeClock();
    await using agent = new Agent({ clock });
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    const [pod] = await turning(clock, () => agent.until(([it]) => isReady(it)));
    assert.ok(pod !== undefined);
    terminate(agent.api, pod, 30);
    await turn(clock, 29_000);
    assert.deepEqual(
      agent.api.objects(POD).map(({ metadata }) => metadata.uid),
      [pod.metadata.uid],
    );
    const uids = () => agent.api.objects(POD).map(({ metadata }) => metadata.uid);
    await turning(clock, () => agent.until(([it]) => it?.metadata.uid !== pod.metadata.uid));
    await turning(clock, () => agent.until(([it]) => isReady(it)));
    assert.equal(uids().length, 1, 'the container runs on, so it has a Pod');

    const [next] = agent.api.objects(POD);
    assert.ok(next !== undefined);
    terminate(agent.api, next, 30);
    agent.attachments.set();
    await turning(clock, () => agent.until((pods) => pods.length === 0));
  });

  test('ends Pods of others that were deleted: what is not attached here at once', async () => {
    const clock = new FakeClock();
    const api = new FakeApi();
    const there = (name: string) => api.put(POD, foreignPod(name, 'n1'));
    const [stays, gone, attached] = [there('stays'), there('gone'), there('attached')];
    const elsewhere = api.put(POD, foreignPod('elsewhere', 'n2'));
    await using agent = new Agent({ api, clock });
    agent.attachments.set(attachmentOf('k1', 'attached', { pod: { kubelet: true } }));
    for (const pod of [gone, attached, elsewhere]) terminate(api, pod, 30);
    const left = () => names(api.objects(POD)).sort();
    await turning(clock, () => agent.until((pods) => pods.length === 3));
    assert.deepEqual(left(), ['attached', 'elsewhere', 'stays']);
    assert.ok(stays !== undefined);
    await turning(clock, () => agent.until((pods) => pods.length === 2));
    assert.deepEqual(left(), ['elsewhere', 'stays']);
  });

  test('a namespace that is gone costs its containers their Pods, and the node nothing', async () => {
    const clock = new FakeClock();
    const api = new FakeApi();
    const namespace = 'blue';
    const going = namespaceTerminating(POD, 'web', namespace);
    const isMade = { verb: 'create', resource: POD.resource, name: 'web' } as const;
    api.failNext(isMade, going, { times: 3 });
    api.failNext(isMade, notFound(NAMESPACE, namespace));
    await using agent = new Agent({ api, clock });
    agent.runtime.containers.set('c1', RUNNING);
    agent.runtime.containers.set('c2', RUNNING);
    agent.attachments.set(
      attachmentOf('c1', 'web', { pod: { namespace } }),
      attachmentOf('c2', 'other'),
    );
    await turning(clock, () => agent.until((pods) => pods.some(isReady)));
    await turn(clock, 15_000);
    assert.deepEqual(names(api.objects(POD)), ['other']);
    assert.equal(agent.problem, undefined);
    await turning(clock, () => agent.until((pods) => pods.length === 2));
    assert.deepEqual(names(api.objects(POD)).sort(), ['other', 'web']);
  });

  test('makes and ends nothing on the node of a kubelet', async () => {
    const clock = new FakeClock();
    const api = new FakeApi();
    terminate(api, api.put(POD, foreignPod('theirs', 'n1')), 1);
    await using agent = new Agent({ api, clock, isBesideKubelet: true });
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    await turn(clock, 10_000);
    assert.deepEqual(names(api.objects(POD)), ['theirs']);
  });

  test('the Pod of a container that comes back under its id is a new one', async () => {
    await using agent = new Agent();
    agent.runtime.containers.set('c1', RUNNING);
    agent.attachments.set(attachmentOf('c1', 'web'));
    await agent.until(([it]) => isReady(it));
    agent.attachments.set();
    agent.attachments.set(attachmentOf('c1', 'web', { ordinal: 7, at: '2026-01-01T01:00:00Z' }));
    await agent.until(([it]) => isReady(it) && it?.status?.podIP === '192.0.2.7');
  });
});
