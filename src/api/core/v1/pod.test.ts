import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
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

const complaints = (object: Pod, old?: Pod) =>
  POD.validate(POD.setDefaults(object), old).map(formatFieldError);

test('POD.setDefaults() fills in what a missing field means', () => {
  const { spec, status } = POD.setDefaults(
    pod({ containers: [{ name: 'app', ports: [{ containerPort: 8080 }] }] }),
  );
  assert.deepEqual(spec, {
    containers: [{ name: 'app', ports: [{ containerPort: 8080, protocol: 'TCP' }] }],
    restartPolicy: 'Always',
    dnsPolicy: 'ClusterFirst',
    terminationGracePeriodSeconds: 30,
  });
  assert.deepEqual(status, { phase: 'Pending' });
});

test('POD.validate() checks what the network relies on', () => {
  const ports = (...list: object[]) => pod({ containers: [{ name: 'app', ports: list as [] }] });
  const table: [Pod, RegExp | undefined][] = [
    [pod({}), undefined],
    [
      ports(
        { containerPort: 8080, name: 'http' },
        { containerPort: 53, protocol: 'UDP', name: 'dns' },
      ),
      undefined,
    ],
    [
      pod({}, { podIP: '10.244.0.5', podIPs: [{ ip: '10.244.0.5' }, { ip: 'fd00::5' }] }),
      undefined,
    ],
    [pod({ containers: [] }), /^spec\.containers: Required value$/],
    [
      pod({ containers: [{ name: 'a' }, { name: 'a' }] }),
      /^spec\.containers\[1\]\.name: Duplicate value: "a"$/,
    ],
    [pod({ containers: [{ name: 'A' }] }), /^spec\.containers\[0\]\.name: Invalid value: "A"/],
    [
      ports({ containerPort: 0 }),
      /^spec\.containers\[0\]\.ports\[0\]\.containerPort: Invalid value: 0/,
    ],
    [ports({ containerPort: 1, hostPort: 70000 }), /ports\[0\]\.hostPort: Invalid value: 70000/],
    [
      ports({ containerPort: 1, protocol: 'ICMP' }),
      /ports\[0\]\.protocol: Unsupported value: "ICMP"/,
    ],
    [ports({ containerPort: 1, name: 'HTTP' }), /ports\[0\]\.name: Invalid value/],
    [
      ports({ containerPort: 1, name: 'a' }, { containerPort: 2, name: 'a' }),
      /ports\[1\]\.name: Duplicate value: "a"/,
    ],
    [pod({ nodeName: 'M 1' }), /^spec\.nodeName: Invalid value: "M 1"/],
    [pod({ hostname: 'a.b' }), /^spec\.hostname: Invalid value: "a\.b"/],
    [pod({ restartPolicy: 'Sometimes' as 'Never' }), /^spec\.restartPolicy: Unsupported value/],
    [pod({}, { podIP: 'x' }), /^status\.podIP: Invalid value: "x": must be a valid IP address/],
    [
      pod({}, { podIPs: [{ ip: '10.0.0.1' }, { ip: '10.0.0.2' }] }),
      /no more than one IP for each IP family/,
    ],
    [pod({}, { podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.2' }] }), /must be equal to `podIP`/],
  ];
  for (const [object, message] of table) {
    const texts = complaints(object);
    if (message === undefined) assert.deepEqual(texts, []);
    else assert.match(texts.join('\n'), message);
  }
});

test('POD.validate() keeps a pod on its node', () => {
  assert.deepEqual(complaints(pod({ nodeName: 'm1' }), pod({})), []);
  assert.deepEqual(complaints(pod({ nodeName: 'm2' }), pod({ nodeName: 'm1' })), [
    'spec.nodeName: Forbidden: pod updates may not change this field once it is set',
  ]);
  assert.deepEqual(complaints(pod({ hostNetwork: true }), pod({})).length, 1);
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
  for (const [object, status] of statusTable) assert.equal(cellsOf(object)?.[2], status);
  const restarted = container(
    { running: {} },
    {
      restartCount: 3,
      lastState: { terminated: { exitCode: 1, finishedAt: '2026-01-01T00:05:00Z' } },
    },
  );
  assert.equal(cellsOf(pod({}, { containerStatuses: [restarted] }))?.[3], '3 (5m ago)');
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
  assert.deepEqual(unknownFields, [{ field: 'spec.conatiners', suggestion: 'containers' }]);
  assert.deepEqual(typeErrors, []);
  const { conatiners: _, ...spec } = manifest.spec;
  assert.deepEqual(object, { ...manifest, spec });
});
