import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Pod } from '#api/core/v1/pod.ts';
import { checkDns1123Label, checkDns1123Subdomain } from '#api/machinery/names.ts';
import { ip } from '#lib/ip.ts';
import { assignNames, type Container, planPod, planWrites, toObjectName } from './plan.ts';
import { attachmentOf, RUNNING } from './test-containers.ts';

const NODE = { name: 'n1', hostIps: [ip('198.51.100.1')] };
const container = (id: string, name: string, more: Partial<Container> = {}): Container => ({
  attachment: attachmentOf(id, name),
  runtime: 'podman',
  info: RUNNING,
  ended: undefined,
  ...more,
});
const podOf = (it: Container, key = 'default/web') => planPod(it, key, NODE);
const readyOf = (pod: Pod) => pod.status?.conditions?.find((it) => it.type === 'Ready')?.status;

describe('planPod()', () => {
  test('makes a running container a ready Pod', () => {
    const pod = podOf(container('c1', 'web'));
    assert.deepEqual(pod.metadata, {
      name: 'web',
      namespace: 'default',
      labels: { app: 'web', 'tulle.dev/managed': 'true' },
      annotations: { 'tulle.dev/container-id': 'c1' },
    });
    assert.deepEqual(
      [pod.spec.nodeName, pod.spec.containers],
      ['n1', [{ name: 'web', image: 'registry.example/web:1' }]],
    );
    const { phase, podIP, podIPs, hostIP, startTime, containerStatuses } = pod.status ?? {};
    assert.deepEqual(
      [phase, podIP, podIPs, hostIP, startTime, readyOf(pod)],
      [
        'Running',
        '192.0.2.1',
        [{ ip: '192.0.2.1' }],
        '198.51.100.1',
        '2026-01-01T00:00:00Z',
        'True',
      ],
    );
    assert.equal(containerStatuses?.[0]?.containerID, 'podman://c1');
  });

  const at = '2026-01-01T00:00:09.000Z';
  const endedInfo = { ...RUNNING, state: 'ended', pid: undefined } as const;
  const cases: [string, Partial<Container>, string, string][] = [
    [
      'a container that is made and not started',
      { info: { ...RUNNING, state: 'starting', pid: undefined } },
      'Pending',
      'False',
    ],
    [
      'a process that has ended nobody knows how',
      { ended: { at, exitCode: undefined } },
      'Running',
      'False',
    ],
    [
      'a process that has ended well',
      { ended: { at, exitCode: 0 }, info: { ...endedInfo, exitCode: 0 } },
      'Succeeded',
      'False',
    ],
    ['a process that has ended badly', { ended: { at, exitCode: 137 } }, 'Failed', 'False'],
    [
      'a container that had ended before we came',
      { info: { ...endedInfo, exitCode: 2 } },
      'Failed',
      'False',
    ],
    ['a namespace without runtime', { runtime: undefined, info: undefined }, 'Running', 'True'],
  ];
  for (const [what, more, phase, ready] of cases)
    test(`${what} is ${phase}, ready ${ready}`, () => {
      const pod = podOf(container('c1', 'web', more));
      assert.deepEqual([pod.status?.phase, readyOf(pod)], [phase, ready]);
    });

  test('leaves out labels that no object may have, and cannot be told to be unmanaged', () => {
    const skipped: string[] = [];
    const labels = { app: 'x', 'bad key': '1', long: 'x'.repeat(64), 'tulle.dev/managed': 'false' };
    const it = container('c1', 'web', { info: { ...RUNNING, labels } });
    const pod = planPod(it, 'default/web', NODE, {
      onSkip: (label) => skipped.push(label),
    });
    assert.deepEqual(pod.metadata.labels, { app: 'x', 'tulle.dev/managed': 'true' });
    assert.deepEqual(skipped, ['bad key', 'long']);
  });
});

describe('assignNames()', () => {
  const none = () => false;
  test('makes names valid and tells containers of one name apart, the older one first', () => {
    const names = assignNames(
      [
        {
          ...container('0b1c2d3e4f', 'My_Web'),
          attachment: attachmentOf('0b1c2d3e4f', 'My_Web', { at: '2026-01-02T00:00:00Z' }),
        },
        container('aaaa', 'my-web'),
      ],
      [],
      none,
    );
    assert.deepEqual([...names].sort(), [
      ['0b1c2d3e4f', 'default/my-web-0b1c2'],
      ['aaaa', 'default/my-web'],
    ]);
  });

  test('keeps clear of names of others', () => {
    const names = assignNames([container('c1ffee', 'web')], [], (key) => key === 'default/web');
    assert.equal(names.get('c1ffee'), 'default/web-c1ffe');
  });

  test('keeps the name that a container has already', () => {
    const existing = podOf(container('c1', 'web'), 'default/web-c1');
    assert.equal(
      assignNames([container('c1', 'web')], [existing], none).get('c1'),
      'default/web-c1',
    );
  });
});

test('toObjectName() makes a valid name of anything', () => {
  assert.equal(toObjectName('My_App.v1'), 'my-app.v1');
  assert.equal(toObjectName('0. .0'), '0.0');
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), (text) => {
      assert.equal(checkDns1123Subdomain(toObjectName(text)), undefined);
      const pod = podOf({ ...container('c', text), attachment: attachmentOf('c', text) });
      assert.equal(checkDns1123Label(pod.spec.containers[0]?.name ?? ''), undefined);
    }),
  );
});

describe('planWrites()', () => {
  const desired = podOf(container('c1', 'web'));
  const observed: Pod = {
    ...desired,
    metadata: { ...desired.metadata, uid: 'u', resourceVersion: '1' },
  };
  const types = (pods: Pod[], own: Pod[], isOver = false) =>
    planWrites(pods, own, () => isOver).map((it) => it.type);

  test('has nothing to do when all is there, also with labels and conditions of others', () => {
    const labels = { ...observed.metadata.labels, by: 'somebody' };
    assert.deepEqual(
      types([desired], [{ ...observed, metadata: { ...observed.metadata, labels } }]),
      [],
    );
  });

  test('creates, changes and deletes', () => {
    assert.deepEqual(types([desired], []), ['create']);
    assert.deepEqual(types([], [observed]), ['delete']);
    const ended = podOf(
      container('c1', 'web', { ended: { at: '2026-01-01T00:00:09Z', exitCode: 1 } }),
    );
    assert.deepEqual(types([ended], [observed]), ['status']);
    const { labels: _, ...rest } = observed.metadata;
    assert.deepEqual(types([desired], [{ ...observed, metadata: rest }]), ['metadata']);
  });

  test('replaces the Pod of an earlier container of the name', () => {
    const next = podOf(container('c2', 'web'));
    assert.deepEqual(types([next], [observed]), ['delete', 'create']);
  });

  test('lets a Pod that was deleted drain, and replaces it when its time is over', () => {
    const going = { ...observed, metadata: { ...observed.metadata, deletionTimestamp: 'now' } };
    assert.deepEqual(types([desired], [going]), []);
    assert.deepEqual(types([], [going]), ['delete']);
    assert.deepEqual(types([desired], [going], true), ['delete', 'create']);
  });

  test('takes what is gone out of the way before it tells anything new', () => {
    const other = podOf(container('c3', 'new'), 'default/new');
    assert.deepEqual(types([other], [observed]), ['delete', 'create']);
  });
});
