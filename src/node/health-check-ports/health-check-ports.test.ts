import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, test } from 'node:test';
import { SERVICE, type ServiceSpec } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type Endpoint } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { HealthCheckPorts } from './health-check-ports.ts';

const HOST = ip('127.0.0.1');

async function freePort(): Promise<number> {
  const server = createServer().listen(0, HOST);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function putService(api: FakeApi, healthCheckNodePort: number, spec: ServiceSpec = {}) {
  api.put(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort, ...spec },
  });
}

function putSlice(api: FakeApi, ...endpoints: Endpoint[]) {
  api.put(ENDPOINT_SLICE, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: 'web-1',
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': 'web' },
    },
    addressType: 'IPv4',
    endpoints,
  });
}

async function setUp() {
  const api = new FakeApi();
  const stack = new AsyncDisposableStack();
  const services = stack.use(startCache(api, SERVICE, { log: silentLogger }));
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { log: silentLogger }));
  const state = { healthy: true };
  const ports = stack.use(
    new HealthCheckPorts(
      { services, slices, isProxyHealthy: () => state.healthy, log: silentLogger },
      { nodeName: 'm1', addresses: [HOST] },
    ),
  );
  ports.start();
  return { api, slices, state, ports, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const isUp = (port: number) =>
  fetch(`http://${HOST}:${port}/`).then(
    () => true,
    () => false,
  );

describe('HealthCheckPorts', () => {
  test('counts what is ready on this node, and answers as kube-proxy does', async () => {
    await using t = await setUp();
    const port = await freePort();
    putService(t.api, port);
    const at = (address: string, nodeName: string, conditions = {}): Endpoint => ({
      addresses: [address],
      nodeName,
      conditions,
    });
    const ended = { ready: false, serving: true, terminating: true };
    await until(() => isUp(port));
    for (const { endpoints, healthy = true, status, count } of [
      { endpoints: [], status: 503, count: 0 },
      { endpoints: [at('10.0.0.1', 'm2')], status: 503, count: 0 },
      { endpoints: [at('10.0.0.1', 'm1', ended)], status: 503, count: 0 },
      { endpoints: [at('10.0.0.1', 'm1'), at('10.0.0.2', 'm1')], status: 200, count: 2 },
      { endpoints: [at('10.0.0.1', 'm1')], healthy: false, status: 503, count: 1 },
    ]) {
      t.state.healthy = healthy;
      putSlice(t.api, ...endpoints);
      const { resourceVersion } = t.api;
      await until(() =>
        [...t.slices.values()].some((it) => it.metadata.resourceVersion === resourceVersion),
      );
      const response = await fetch(`http://${HOST}:${port}/`);
      assert.equal(response.status, status);
      assert.equal(response.headers.get('x-load-balancing-endpoint-weight'), String(count));
      assert.deepEqual(await response.json(), {
        service: { namespace: 'default', name: 'web' },
        localEndpoints: count,
        serviceProxyHealthy: healthy,
      });
    }
  });

  test('stops when the service wants it no more, and says when a port is taken', async () => {
    await using t = await setUp();
    const port = await freePort();
    putService(t.api, port);
    await until(() => isUp(port));
    putService(t.api, port, { externalTrafficPolicy: 'Cluster' });
    await until(async () => !(await isUp(port)));
    const other = createServer().listen(port, HOST);
    await once(other, 'listening');
    putService(t.api, port);
    await until(() => t.ports.problem?.includes('EADDRINUSE') === true);
    other.close();
    await until(() => isUp(port));
    assert.equal(t.ports.problem, undefined);
  });
});
