import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '#api/core/v1/node.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { findProblems, formatStatus, type StatusInput } from './status-report.ts';

const node = (name: string, conditions: [string, 'True' | 'False', string][]): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name },
  status: {
    addresses: [{ type: 'InternalIP', address: '192.0.2.11' }],
    conditions: conditions.map(([type, status, message]) => ({ type, status, message })),
  },
});
const service: Service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'default' },
  spec: {
    clusterIP: '10.96.0.7',
    selector: { app: 'web' },
    ports: [{ port: 80, protocol: 'TCP' }],
  },
};
const slice = (...ready: boolean[]): EndpointSlice => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: {
    name: 'web-1',
    namespace: 'default',
    labels: { 'kubernetes.io/service-name': 'web' },
  },
  addressType: 'IPv4',
  endpoints: ready.map((isReady, i) => ({
    addresses: [`10.244.0.${i}`],
    conditions: { ready: isReady },
  })),
});
const pool: IPPool = {
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name: 'default-ipv4' },
  spec: { cidr: '10.244.0.0/30', blockSize: 30 },
};
const block = (count: number): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name: '10-244-0-0-30' },
  spec: {
    ...{
      cidr: '10.244.0.0/30',
      pool: 'default-ipv4',
      node: 'm1',
      affinity: 'Confirmed',
      sequence: 1,
    },
    ...{ free: [], releasedAt: {} },
    allocations: Object.fromEntries(
      Array.from({ length: count }, (_, i) => [
        String(i),
        { handle: `h${i}`, sequence: 1, since: '', node: 'm1', purpose: 'Pod' },
      ]),
    ),
  },
});
const healthy: StatusInput = {
  server: 'API server v1',
  nodes: [
    node('m1', [
      ['Ready', 'True', ''],
      ['FabricReady', 'True', '2 peers, mtu 1450'],
      ['PolicyReady', 'True', '3 policies'],
      ['MemoryPressure', 'False', 'there is enough'],
    ]),
  ],
  pods: [],
  services: [service],
  slices: [slice(true, true)],
  pools: [pool],
  blocks: [block(1)],
};

test('formatStatus() shows machines, services and addresses, and that nothing is wrong', () => {
  const text = formatStatus(healthy);
  assert.match(
    text,
    /m1 +Ready +192\.0\.2\.11 +0 +10\.244\.0\.0\/30 +2 peers, mtu 1450 .*3 policies/,
  );
  assert.match(text, /default\/web +10\.96\.0\.7 +80\/TCP +2\/2/);
  assert.match(text, /default-ipv4 +10\.244\.0\.0\/30 +1 of 4 +1 +Always/);
  assert.match(text, /nothing is wrong$/);
});

const WRONG: readonly [string, Partial<StatusInput>, RegExp][] = [
  ['no node', { nodes: [] }, /no node has joined/],
  [
    'a failing part',
    { nodes: [node('m1', [['DNSReady', 'False', 'port 53 is taken']])] },
    /node m1: DNSReady: port 53 is taken/,
  ],
  [
    'a service that selects nothing',
    { slices: [] },
    /service default\/web: no pod has the labels app=web/,
  ],
  [
    'a service without ready endpoints',
    { slices: [slice(false, false)] },
    /none of its 2 endpoints is ready/,
  ],
  ['a full pool', { blocks: [block(4)] }, /pool default-ipv4: all 4 addresses are in use/],
];
for (const [name, changed, message] of WRONG)
  test(`findProblems() names ${name}`, () => {
    assert.match(findProblems({ ...healthy, ...changed }).join('\n'), message);
  });
