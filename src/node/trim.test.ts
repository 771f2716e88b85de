import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { sliceTrimmer, trimService } from './trim.ts';

const slice = (name: string, ready: boolean): EndpointSlice => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: {
    ...{ name, namespace: 'default', uid: `u-${name}`, resourceVersion: '7', generateName: 'web-' },
    labels: { 'kubernetes.io/service-name': 'web' },
    annotations: { 'tulle.dev/weights': '10.0.0.1=3' },
    ownerReferences: [{ apiVersion: 'v1', kind: 'Service', name: 'web', uid: 'u' }],
  },
  addressType: 'IPv4',
  ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
  endpoints: [
    {
      ...{ addresses: ['10.0.0.1'], hostname: 'web-0', nodeName: 'm1', zone: 'a' },
      conditions: { ready, serving: true, terminating: !ready },
      hints: { forZones: [{ name: 'a' }] },
      targetRef: { kind: 'Pod', name: 'web-0', namespace: 'default', uid: 'u' },
    },
    { addresses: ['10.0.0.2'] },
  ],
});

test('sliceTrimmer() keeps what an agent reads, and leaves the original as it was', () => {
  const original = slice('web-1', true);
  const before = structuredClone(original);
  assert.deepEqual(sliceTrimmer()(original), {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      ...{ name: 'web-1', namespace: 'default', uid: 'u-web-1', resourceVersion: '7' },
      labels: { 'kubernetes.io/service-name': 'web' },
      annotations: { 'tulle.dev/weights': '10.0.0.1=3' },
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    endpoints: [
      {
        ...{ addresses: ['10.0.0.1'], hostname: 'web-0', nodeName: 'm1', zone: 'a' },
        conditions: { ready: true, serving: true, terminating: false },
        hints: { forZones: [{ name: 'a' }] },
      },
      { addresses: ['10.0.0.2'] },
    ],
  });
  assert.deepEqual(original, before);
});

test('sliceTrimmer() shares what is equal, and only that', () => {
  const trim = sliceTrimmer();
  const [a, b, c] = [slice('a', true), slice('b', true), slice('c', false)].map(trim);
  assert.equal(a?.ports, b?.ports);
  assert.equal(a?.endpoints?.[0]?.conditions, b?.endpoints?.[0]?.conditions);
  assert.equal(a?.endpoints?.[0]?.hints, b?.endpoints?.[0]?.hints);
  assert.deepEqual(c?.endpoints?.[0]?.conditions, {
    ready: false,
    serving: true,
    terminating: true,
  });
});

test('sliceTrimmer() keeps the null that comes for a slice without endpoints or ports', () => {
  const trimmed = sliceTrimmer()({ ...slice('a', true), endpoints: null, ports: null });
  assert.equal(trimmed.endpoints, null);
  assert.equal(trimmed.ports, null);
});

test('trimService() keeps annotations but what kubectl applied last', () => {
  const service: Service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: 'web',
      annotations: {
        'tulle.dev/balance': 'maglev',
        'kubectl.kubernetes.io/last-applied-configuration': '{}',
      },
    },
    spec: { clusterIP: '10.96.0.7' },
  };
  assert.deepEqual(trimService(service), {
    ...service,
    metadata: { name: 'web', annotations: { 'tulle.dev/balance': 'maglev' } },
  });
});
