import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KindDefinition } from '../../kind.ts';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { createTable } from '../../machinery/table.ts';
import { CONFIG_MAP, type ConfigMap, MAX_DATA_BYTES } from './config-map.ts';
import { ENDPOINTS, type Endpoints } from './endpoints.ts';
import { EVENT, type Event } from './event.ts';
import { NAMESPACE, type Namespace } from './namespace.ts';
import { NODE, type Node } from './node.ts';
import { SECRET, type Secret } from './secret.ts';
import { SERVICE_ACCOUNT, type ServiceAccount } from './service-account.ts';

const NOW = Date.parse('2026-01-01T00:10:00Z');
const META = { name: 'a', namespace: 'default', creationTimestamp: '2026-01-01T00:00:00Z' };
const CLUSTER_META = { name: 'a', creationTimestamp: '2026-01-01T00:00:00Z' };

function complaints<T extends Parameters<KindDefinition['validate']>[0]>(
  kind: KindDefinition<T>,
  object: T,
  old?: T,
): string {
  return kind.validate(kind.setDefaults(object), old).map(formatFieldError).join('\n');
}

const cells = <T extends Parameters<KindDefinition['validate']>[0]>(
  kind: KindDefinition<T>,
  object: T,
) => createTable(kind, [object], { nowMs: NOW }).rows[0]?.cells;

const namespace = (name: string): Namespace => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name },
});

test('NAMESPACE carries its name as a label', () => {
  const object = NAMESPACE.setDefaults(namespace('kube-system'));
  assert.deepEqual(object.metadata.labels, { 'kubernetes.io/metadata.name': 'kube-system' });
  assert.deepEqual(object.status, { phase: 'Active' });
  assert.equal(NAMESPACE.setDefaults(namespace('')).metadata.labels, undefined, 'no name yet');
});

test('NAMESPACE wants a DNS label for a name', () => {
  assert.equal(complaints(NAMESPACE, namespace('a-1')), '');
  assert.match(complaints(NAMESPACE, namespace('a.b')), /RFC 1123 label/);
});

test('NODE.columns show what kubectl shows', () => {
  const node: Node = {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      ...CLUSTER_META,
      labels: {
        'node-role.kubernetes.io/worker': '',
        'node-role.kubernetes.io/control-plane': '',
        'kubernetes.io/role': 'edge',
      },
    },
    spec: { unschedulable: true },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      addresses: [{ type: 'InternalIP', address: '192.0.2.1' }],
      nodeInfo: {
        kubeletVersion: 'v0.1.0',
        osImage: 'Debian',
        kernelVersion: '6.1',
        containerRuntimeVersion: 'podman://4.3',
      },
    },
  };
  assert.deepEqual(
    NODE.columns.map((column) => column.name.toUpperCase()),
    [
      'NAME',
      'STATUS',
      'ROLES',
      'AGE',
      'VERSION',
      'INTERNAL-IP',
      'EXTERNAL-IP',
      'OS-IMAGE',
      'KERNEL-VERSION',
      'CONTAINER-RUNTIME',
    ],
  );
  assert.deepEqual(cells(NODE, node), [
    'a',
    'Ready,SchedulingDisabled',
    'control-plane,edge,worker',
    '10m',
    'v0.1.0',
    '192.0.2.1',
    '<none>',
    'Debian',
    '6.1',
    'podman://4.3',
  ]);
  const bare: Node = { apiVersion: 'v1', kind: 'Node', metadata: CLUSTER_META };
  assert.deepEqual(cells(NODE, bare)?.slice(1, 3), ['Unknown', '<none>']);
  for (const status of ['False', 'Unknown'] as const)
    assert.equal(
      cells(NODE, { ...bare, status: { conditions: [{ type: 'Ready', status }] } })?.[1],
      'NotReady',
    );
});

test('NODE.validate() checks taints and addresses', () => {
  const node = (more: object): Node => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'm1' },
    ...more,
  });
  assert.equal(
    complaints(NODE, node({ spec: { taints: [{ key: 'a', effect: 'NoSchedule' }] } })),
    '',
  );
  assert.match(
    complaints(NODE, node({ spec: { taints: [{ key: 'a', effect: 'Never' }] } })),
    /spec\.taints\[0\]\.effect: Unsupported value: "Never"/,
  );
  const twice = { type: 'InternalIP', address: '192.0.2.1' };
  assert.match(
    complaints(NODE, node({ status: { addresses: [twice, twice] } })),
    /status\.addresses\[1\]: Duplicate value/,
  );
  assert.match(
    complaints(NODE, node({ metadata: { name: 'm1', namespace: 'x' } })),
    /metadata\.namespace: Forbidden/,
  );
});

test('CONFIG_MAP checks keys, size and immutability', () => {
  const map = (more: object): ConfigMap => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: META,
    ...more,
  });
  assert.equal(
    complaints(CONFIG_MAP, map({ data: { 'a.conf': 'x' }, binaryData: { b: 'AAAA' } })),
    '',
  );
  assert.match(
    complaints(CONFIG_MAP, map({ data: { 'a/b': 'x' } })),
    /data\[a\/b\]: Invalid value: "a\/b"/,
  );
  assert.match(
    complaints(CONFIG_MAP, map({ data: { a: 'x' }, binaryData: { a: 'AAAA' } })),
    /binaryData\[a\]: Duplicate value: "a"/,
  );
  assert.equal(complaints(CONFIG_MAP, map({ data: { a: 'x'.repeat(MAX_DATA_BYTES) } })), '');
  assert.match(
    complaints(CONFIG_MAP, map({ data: { a: 'x'.repeat(MAX_DATA_BYTES + 1) } })),
    /data: Too long/,
  );
  const frozen = map({ data: { a: 'x' }, immutable: true });
  assert.equal(complaints(CONFIG_MAP, frozen, frozen), '');
  assert.match(
    complaints(CONFIG_MAP, map({ data: { a: 'y' }, immutable: true }), frozen),
    /data: Forbidden: field is immutable/,
  );
  assert.match(
    complaints(CONFIG_MAP, map({ data: { a: 'x' } }), frozen),
    /immutable: Invalid value: null: field is immutable/,
  );
  assert.deepEqual(cells(CONFIG_MAP, map({ data: { a: '', b: '' }, binaryData: { c: '' } })), [
    'a',
    3,
    '10m',
  ]);
});

test('SECRET takes text and keeps bytes', () => {
  const secret = (more: object): Secret => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: META,
    ...more,
  });
  const object = SECRET.setDefaults(secret({ data: { a: 'eA==' }, stringData: { b: 'hé' } }));
  assert.deepEqual(object, secret({ type: 'Opaque', data: { a: 'eA==', b: 'aMOp' } }));
  assert.match(complaints(SECRET, secret({ data: { '..': '' } })), /data\[\.\.\]: Invalid value/);
  const tls = secret({ type: 'kubernetes.io/tls' });
  assert.match(
    complaints(SECRET, secret({}), tls),
    /type: Invalid value: "Opaque": field is immutable/,
  );
  assert.deepEqual(cells(SECRET, object), ['a', 'Opaque', 2, '10m']);
});

test('EVENT belongs into the namespace of its object', () => {
  const event = (namespaceOfObject: string | undefined, more: object = {}): Event => ({
    apiVersion: 'v1',
    kind: 'Event',
    metadata: META,
    involvedObject: {
      kind: 'Pod',
      name: 'p',
      ...(namespaceOfObject === undefined ? {} : { namespace: namespaceOfObject }),
    },
    ...more,
  });
  assert.equal(complaints(EVENT, event('default')), '');
  assert.equal(complaints(EVENT, event(undefined)), '', 'about what has no namespace');
  assert.match(
    complaints(EVENT, event('other')),
    /involvedObject\.namespace: Invalid value: "other"/,
  );
  const seen = event('default', {
    type: 'Normal',
    reason: 'Started',
    message: 'Started it\n',
    source: { component: 'agent', host: 'm1' },
    firstTimestamp: '2026-01-01T00:00:00Z',
    lastTimestamp: '2026-01-01T00:09:00Z',
    count: 3,
  });
  assert.deepEqual(cells(EVENT, seen), [
    '60s',
    'Normal',
    'Started',
    'pod/p',
    '',
    'agent, m1',
    'Started it',
    '10m',
    3,
    'a',
  ]);
  assert.equal(EVENT.selectableFields['involvedObject.name']?.(seen), 'p');
});

test('ENDPOINTS checks addresses and shows them', () => {
  const endpoints = (...subsets: object[]): Endpoints => ({
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: META,
    subsets,
  });
  const good = endpoints({
    addresses: [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }],
    ports: [{ port: 80 }],
  });
  assert.equal(complaints(ENDPOINTS, good), '');
  assert.equal(ENDPOINTS.setDefaults(good).subsets?.[0]?.ports?.[0]?.protocol, 'TCP');
  assert.deepEqual(cells(ENDPOINTS, good), ['a', '10.0.0.1:80,[fd00::1]:80', '10m']);
  assert.deepEqual(cells(ENDPOINTS, endpoints())?.[1], '<none>');
  assert.match(
    complaints(ENDPOINTS, endpoints({ ports: [{ port: 80 }] })),
    /subsets\[0\]: Required value/,
  );
  assert.match(
    complaints(ENDPOINTS, endpoints({ addresses: [{ ip: 'x' }] })),
    /subsets\[0\]\.addresses\[0\]\.ip: Invalid value: "x"/,
  );
  assert.match(
    complaints(
      ENDPOINTS,
      endpoints({ addresses: [{ ip: '10.0.0.1' }], ports: [{ port: 1 }, { port: 0 }] }),
    ),
    /ports\[0\]\.name: Required value[\s\S]*ports\[1\]\.port: Invalid value: 0/,
  );
});

test('SERVICE_ACCOUNT counts its secrets', () => {
  const account: ServiceAccount = {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: META,
    secrets: [{ name: 's' }],
  };
  assert.equal(complaints(SERVICE_ACCOUNT, account), '');
  assert.deepEqual(cells(SERVICE_ACCOUNT, account), ['a', 1, '10m']);
});
