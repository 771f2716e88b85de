import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import { buildWorld } from '#policy/world.ts';
import { throughService } from './policy-services.ts';

const pod = (name: string, app: string): Pod => ({
  ...{ apiVersion: 'v1', kind: 'Pod', metadata: { namespace: 'shop', name, labels: { app } } },
  spec: { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 8080 }] }] },
});
const service = (name: string, selector: Record<string, string>): Service => ({
  ...{ apiVersion: 'v1', kind: 'Service', metadata: { namespace: 'shop', name } },
  spec: {
    ...{ selector, clusterIP: '10.96.0.7', clusterIPs: ['10.96.0.7'] },
    ports: [
      { name: 'web', port: 80, targetPort: 'http' },
      { name: 'dns', port: 53, protocol: 'UDP' },
    ],
  },
});
const world = buildWorld({
  ...{ pods: [pod('a', 'web'), pod('b', 'web'), pod('c', 'db')], namespaces: [] },
  ...{ nodes: [], policies: [] },
});
const services = [service('web', { app: 'web' }), service('empty', { app: 'none' })];
const ask = (text: string, port?: string) =>
  throughService(text, port, { world, services })?.flows.map(
    (flow) => `${flow.to.pod?.name} ${flow.port}`,
  );

test('throughService() finds the pods and their own ports, by name and by address', () => {
  assert.deepEqual(ask('svc:shop/web', '80'), ['a 8080/tcp', 'b 8080/tcp']);
  assert.deepEqual(ask('10.96.0.7', 'web'), ['a 8080/tcp', 'b 8080/tcp']);
  assert.deepEqual(ask('svc:shop/web', '53/udp'), ['a 53/udp', 'b 53/udp']);
  assert.deepEqual(ask('svc:shop/web'), ['a undefined', 'b undefined']);
  assert.deepEqual(ask('svc/shop/web', '80'), ['a 8080/tcp', 'b 8080/tcp']);
  assert.equal(ask('192.0.2.1', '80'), undefined);
  assert.equal(ask('shop/a', '80'), undefined);
});

test('throughService() says what is missing', () => {
  assert.throws(() => ask('svc:web'), /There is no service "default\/web"/);
  assert.throws(() => ask('svc:shop/empty'), /has no pods/);
  assert.throws(() => ask('svc:shop/web', '81'), /has no port 81/);
});
