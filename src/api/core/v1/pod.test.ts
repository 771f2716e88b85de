import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTable } from '../../machinery/table.ts';
import { decodeFields } from '../../machinery/unknown-fields.ts';
import { type ContainerState, POD, type Pod, type PodSpec, type PodStatus } from './pod.ts';

const NOW = Date.parse('2026-01-01T00:10:00Z');

function pod(spec: Partial<PodSpec>, status?: PodStatus, deletionTimestamp?: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'web-1',
      namespace: 'default',
      creationTimestamp: '2026-01-01T00:00:00Z',
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    spec: { containers: [{ name: 'app' }], ...spec },
    ...(status === undefined ? {} : { status }),
  };
}

test('POD.setDefaults() fills in what a missing field means', () => {
  const { spec, status } = POD.setDefaults(
    pod({
      serviceAccountName: 'robot',
      volumes: [{ name: 'tmp' }, { name: 'etc', hostPath: { path: '/etc' } }],
      containers: [
        {
          name: 'app',
          image: 'registry.example:5000/app',
          ports: [{ containerPort: 8080 }],
          env: [{ name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }],
          resources: { limits: { cpu: 0.5, memory: '1024Mi' }, requests: { cpu: '100m' } },
          readinessProbe: { httpGet: { port: 8080 }, periodSeconds: 5 },
        },
      ],
    }),
  );
  assert.deepEqual(spec, {
    serviceAccountName: 'robot',
    serviceAccount: 'robot',
    volumes: [
      { name: 'tmp', emptyDir: {} },
      { name: 'etc', hostPath: { path: '/etc' } },
    ],
    containers: [
      {
        name: 'app',
        image: 'registry.example:5000/app',
        imagePullPolicy: 'Always',
        terminationMessagePath: '/dev/termination-log',
        terminationMessagePolicy: 'File',
        ports: [{ containerPort: 8080, protocol: 'TCP' }],
        env: [
          { name: 'IP', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'status.podIP' } } },
        ],
        resources: {
          limits: { cpu: '500m', memory: '1Gi' },
          requests: { cpu: '100m', memory: '1Gi' },
        },
        readinessProbe: {
          httpGet: { port: 8080, path: '/', scheme: 'HTTP' },
          timeoutSeconds: 1,
          periodSeconds: 5,
          successThreshold: 1,
          failureThreshold: 3,
        },
      },
    ],
    restartPolicy: 'Always',
    dnsPolicy: 'ClusterFirst',
    terminationGracePeriodSeconds: 30,
    schedulerName: 'default-scheduler',
    enableServiceLinks: true,
    securityContext: {},
  });
  assert.deepEqual(status, { phase: 'Pending', qosClass: 'Burstable' });
});

test('POD.setDefaults() pulls an image again that may have changed', () => {
  const policyOf = (image: string) =>
    POD.setDefaults(pod({ containers: [{ name: 'a', image }] })).spec.containers[0]
      ?.imagePullPolicy;
  for (const image of ['web', 'web:latest', 'r.example:5000/web', 'r.example:5000/web:latest'])
    assert.equal(policyOf(image), 'Always', image);
  for (const image of ['web:1', 'r.example:5000/web:1', 'web@sha256:0123', 'web:latest@sha256:01'])
    assert.equal(policyOf(image), 'IfNotPresent', image);
});

test("POD.setDefaults() gives a pod in its node's network the same port on the node", () => {
  const ports = [{ containerPort: 80 }, { containerPort: 81, hostPort: 82 }];
  const containers = [{ name: 'a', image: 'x', ports }];
  const hostPorts = (hostNetwork: boolean) =>
    POD.setDefaults(pod({ hostNetwork, containers })).spec.containers[0]?.ports?.map(
      ({ hostPort }) => hostPort,
    );
  assert.deepEqual(hostPorts(true), [80, 82]);
  assert.deepEqual(hostPorts(false), [undefined, 82]);
});

test('POD.setDefaults() says by the resources how early a pod is ended', () => {
  const classOf = (...resources: object[]) =>
    POD.setDefaults(
      pod({ containers: resources.map((it, i) => ({ name: `c${i}`, image: 'x', resources: it })) }),
    ).status?.qosClass;
  const fixed = { limits: { cpu: 1, memory: '1Gi' } };
  assert.equal(classOf({}), 'BestEffort');
  assert.equal(classOf({ requests: { cpu: 0 } }), 'BestEffort');
  assert.equal(classOf(fixed), 'Guaranteed');
  assert.equal(classOf(fixed, {}), 'Burstable');
  assert.equal(classOf({ ...fixed, requests: { cpu: '500m' } }), 'Burstable');
  assert.equal(classOf({ limits: { cpu: 1 } }), 'Burstable');
});

test('POD.columns show what kubectl shows', () => {
  const cellsOf = (object: Pod) => createTable(POD, [object], { nowMs: NOW }).rows[0]?.cells;
  assert.deepEqual(
    POD.columns.map((column) => column.name.toUpperCase()),
    [
      'NAME',
      'READY',
      'STATUS',
      'RESTARTS',
      'AGE',
      'IP',
      'NODE',
      'NOMINATED NODE',
      'READINESS GATES',
    ],
  );
  const container = (state: ContainerState, more: object = {}) => ({
    name: 'app',
    image: '',
    imageID: '',
    ready: false,
    restartCount: 0,
    state,
    ...more,
  });
  const running = container({ running: {} }, { ready: true });
  assert.deepEqual(
    cellsOf(
      pod(
        { nodeName: 'm1' },
        { phase: 'Running', podIP: '10.244.0.5', containerStatuses: [running] },
      ),
    ),
    ['web-1', '1/1', 'Running', '0', '10m', '10.244.0.5', 'm1', '<none>', '<none>'],
  );
  const statusTable: [Pod, string][] = [
    [pod({}), 'Unknown'],
    [pod({}, { phase: 'Pending' }), 'Pending'],
    [pod({}, { phase: 'Failed', reason: 'Evicted' }), 'Evicted'],
    [
      pod({}, { phase: 'Running', containerStatuses: [running] }, '2026-01-01T00:09:00Z'),
      'Terminating',
    ],
    [pod({}, { reason: 'NodeLost' }, '2026-01-01T00:09:00Z'), 'Unknown'],
    [
      pod(
        {},
        {
          phase: 'Pending',
          containerStatuses: [container({ waiting: { reason: 'ContainerCreating' } })],
        },
      ),
      'ContainerCreating',
    ],
    [
      pod(
        {},
        {
          phase: 'Running',
          containerStatuses: [container({ terminated: { exitCode: 1, reason: 'Error' } })],
        },
      ),
      'Error',
    ],
    [
      pod(
        {},
        {
          phase: 'Failed',
          containerStatuses: [container({ terminated: { exitCode: 137, signal: 9 } })],
        },
      ),
      'Signal:9',
    ],
    [
      pod({}, { phase: 'Failed', containerStatuses: [container({ terminated: { exitCode: 3 } })] }),
      'ExitCode:3',
    ],
    [
      pod(
        {},
        {
          phase: 'Succeeded',
          containerStatuses: [container({ terminated: { exitCode: 0, reason: 'Completed' } })],
        },
      ),
      'Completed',
    ],
    [
      pod(
        { containers: [{ name: 'a' }, { name: 'b' }] },
        {
          phase: 'Running',
          containerStatuses: [
            container({ terminated: { exitCode: 0, reason: 'Completed' } }),
            running,
          ],
        },
      ),
      'NotReady',
    ],
    [
      pod(
        { initContainers: [{ name: 'i' }, { name: 'j' }] },
        {
          phase: 'Pending',
          initContainerStatuses: [
            container({ terminated: { exitCode: 0 } }),
            container({ running: {} }),
          ],
        },
      ),
      'Init:1/2',
    ],
    [
      pod(
        { initContainers: [{ name: 'i' }] },
        {
          phase: 'Pending',
          initContainerStatuses: [container({ waiting: { reason: 'CrashLoopBackOff' } })],
        },
      ),
      'Init:CrashLoopBackOff',
    ],
  ];
  statusTable.push(
    [pod({}, { phase: 'Succeeded' }, '2026-01-01T00:09:00Z'), 'Succeeded'],
    [
      pod(
        {},
        { conditions: [{ type: 'PodScheduled', status: 'False', reason: 'SchedulingGated' }] },
      ),
      'SchedulingGated',
    ],
  );
  for (const [object, status] of statusTable) assert.equal(cellsOf(object)?.[2], status);
  const restarted = container(
    { running: {} },
    {
      restartCount: 3,
      lastState: { terminated: { exitCode: 1, finishedAt: '2026-01-01T00:05:00Z' } },
    },
  );
  assert.equal(cellsOf(pod({}, { containerStatuses: [restarted] }))?.[3], '3 (5m ago)');
  const sidecar = (more: object) =>
    pod(
      { initContainers: [{ name: 'app', restartPolicy: 'Always' }, { name: 'j' }] },
      {
        phase: 'Pending',
        initContainerStatuses: [{ ...restarted, ready: true, started: true, restartCount: 1 }],
        containerStatuses: [{ ...restarted, ...more }],
      },
    );
  assert.deepEqual(cellsOf(sidecar({ ready: true }))?.slice(1, 4), [
    '2/2',
    'Pending',
    '4 (5m ago)',
  ]);
  assert.deepEqual(cellsOf(sidecar({ ready: false }))?.slice(1, 4), [
    '1/2',
    'Pending',
    '4 (5m ago)',
  ]);
  const gated = pod(
    { readinessGates: [{ conditionType: 'x' }, { conditionType: 'y' }] },
    { conditions: [{ type: 'x', status: 'True' }] },
  );
  assert.equal(cellsOf(gated)?.[8], '1/2');
});

test('POD.schema knows a manifest made for a whole cluster, and still finds what is misspelt', () => {
  const manifest = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p' },
    spec: {
      containers: [
        {
          name: 'app',
          image: 'x',
          env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }],
          volumeMounts: [{ name: 'v', mountPath: '/v' }],
          resources: { limits: { cpu: '1' } },
          livenessProbe: { httpGet: { path: '/', port: 80 } },
          readinessProbe: { htpGet: {} },
          securityContext: { runAsUser: 1 },
        },
      ],
      volumes: [{ name: 'v', emptyDir: {} }],
      affinity: { nodeAffinity: {} },
      tolerations: [{ operator: 'Exists' }],
      conatiners: [],
    },
  };
  const { unknownFields, typeErrors, object } = decodeFields(POD.schema, manifest);
  assert.deepEqual(unknownFields, [
    { field: 'spec.containers[0].readinessProbe.htpGet', suggestion: 'httpGet' },
    { field: 'spec.conatiners', suggestion: 'containers' },
  ]);
  assert.deepEqual(typeErrors, []);
  const { conatiners: _, ...spec } = manifest.spec;
  const containers = spec.containers.map((it) => ({ ...it, readinessProbe: {} }));
  assert.deepEqual(object, { ...manifest, spec: { ...spec, containers } });
});
