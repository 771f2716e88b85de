import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SERVICE, type Service, type ServiceSpec } from '#api/core/v1/service.ts';
import type { KubeObject } from '#api/meta.ts';
import { NODE_PORT_PREFIX } from '../registry/keys.ts';
import { AS_ADMIN, DRY_RUN, type Fixture, openFixture } from '../registry/test-registries.ts';
import { upperPortBandStart } from './node-ports.ts';
import { MAX_NODE_PORTS_OF_SERVICE } from './service-ports.ts';

const body = (name: string, spec: ServiceSpec) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: { ports: [{ port: 80 }], selector: { app: name }, type: 'NodePort', ...spec },
});

async function create(fixture: Fixture, name: string, spec: ServiceSpec = {}) {
  return (await fixture.create(SERVICE, body(name, spec))) as Service;
}

async function change(fixture: Fixture, name: string, spec: ServiceSpec) {
  const { object } = await fixture.of(SERVICE).update(
    { namespace: 'default', name },
    (stored) => {
      const next = { ...(stored as Service).spec, ...spec };
      return { ...stored, spec: JSON.parse(JSON.stringify(next)) } as KubeObject;
    },
    AS_ADMIN,
  );
  return object as Service;
}

const remove = (fixture: Fixture, name: string) =>
  fixture.of(SERVICE).delete({ namespace: 'default', name }, AS_ADMIN);

/** `TCP/30080=web` of each record. */
async function records(fixture: Fixture): Promise<string[]> {
  const { entries } = await fixture.store.list(NODE_PORT_PREFIX);
  return entries.map(
    ({ key, value }) =>
      `${key.slice(NODE_PORT_PREFIX.length)}=${JSON.parse(Buffer.from(value).toString()).name}`,
  );
}

const portOf = ({ spec }: Service, i = 0) => spec.ports?.[i]?.nodePort;

describe('ServicePorts', () => {
  test('gives a node port with its record in the same revision, and takes both back', async () => {
    await using fixture = await openFixture();
    const service = await create(fixture, 'a');
    const port = portOf(service) ?? 0;
    assert.ok(port >= 30000 && port <= 32767, String(port));
    assert.deepEqual(await records(fixture), [`TCP/${port}=a`]);
    const record = await fixture.store.get(`${NODE_PORT_PREFIX}TCP/${port}`);
    assert.equal(String(record?.modRevision), service.metadata.resourceVersion);
    await remove(fixture, 'a');
    assert.deepEqual(await records(fixture), []);
  });

  for (const { name, spec, message } of [
    {
      name: 'taken',
      spec: { ports: [{ port: 80, nodePort: 30080 }] },
      message:
        /spec\.ports\[0\]\.nodePort: Invalid value: 30080: provided port is already allocated/,
    },
    {
      name: 'out of range',
      spec: { ports: [{ port: 80, nodePort: 8080 }] },
      message:
        /8080: provided port is not in the valid range\. The range of valid ports is 30000-32767/,
    },
    {
      name: 'taken, as a port for health checks',
      spec: {
        type: 'LoadBalancer',
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 30080,
      },
      message:
        /spec\.healthCheckNodePort: Invalid value: 30080: provided port is already allocated/,
    },
    {
      name: 'used twice by the service',
      spec: {
        type: 'LoadBalancer',
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 30090,
        ports: [{ port: 80, nodePort: 30090 }],
      },
      message: /healthCheckNodePort: Invalid value: 30090: is also a TCP node port/,
    },
  ] satisfies { name: string; spec: ServiceSpec; message: RegExp }[])
    test(`refuses a requested port that is ${name}`, async () => {
      await using fixture = await openFixture();
      await create(fixture, 'first', { ports: [{ port: 80, nodePort: 30080 }] });
      await assert.rejects(create(fixture, 'second', spec), { status: 422, message });
      assert.deepEqual(await records(fixture), ['TCP/30080=first']);
    });

  test('counts numbers by protocol, and gives a port of two protocols one number', async () => {
    await using fixture = await openFixture();
    await create(fixture, 'a', { ports: [{ port: 53, protocol: 'UDP', nodePort: 30053 }] });
    await create(fixture, 'b', { ports: [{ port: 53, nodePort: 30053 }] });
    const both = await create(fixture, 'c', {
      ports: [
        { name: 'udp', port: 53, protocol: 'UDP' },
        { name: 'tcp', port: 53, protocol: 'TCP' },
      ],
    });
    assert.equal(portOf(both, 0), portOf(both, 1));
    const asked = await create(fixture, 'd', {
      ports: [
        { name: 'udp', port: 53, protocol: 'UDP' },
        { name: 'tcp', port: 53, protocol: 'TCP', nodePort: 31053 },
      ],
    });
    assert.equal(portOf(asked, 0), 31053);
    const changed = await change(fixture, 'a', {
      ports: [
        { name: 'tcp', port: 80 },
        { name: 'udp', port: 80, protocol: 'UDP' },
      ],
    });
    assert.notEqual(portOf(changed), 30053);
    assert.equal((await records(fixture)).filter((it) => it.endsWith('=a')).length, 2);
  });

  for (const { from, to, kept } of [
    { from: { type: 'NodePort' }, to: { type: 'ClusterIP' }, kept: 0 },
    { from: { type: 'ClusterIP' }, to: { type: 'NodePort' }, kept: 1 },
    { from: { type: 'NodePort' }, to: { type: 'LoadBalancer' }, kept: 1 },
    {
      from: { type: 'LoadBalancer' },
      to: { type: 'ExternalName', externalName: 'example.org', clusterIP: '', clusterIPs: [] },
      kept: 0,
    },
    {
      from: { type: 'LoadBalancer' },
      to: { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false },
      kept: 0,
    },
    {
      from: { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false },
      to: { type: 'LoadBalancer', allocateLoadBalancerNodePorts: true },
      kept: 1,
    },
    {
      from: {
        type: 'LoadBalancer',
        allocateLoadBalancerNodePorts: false,
        ports: [{ port: 80, nodePort: 30080 }],
      },
      to: { type: 'LoadBalancer', externalTrafficPolicy: 'Local' },
      kept: 2,
    },
    {
      from: { type: 'LoadBalancer', externalTrafficPolicy: 'Local' },
      to: { type: 'LoadBalancer', externalTrafficPolicy: 'Cluster' },
      kept: 1,
    },
  ] satisfies { from: ServiceSpec; to: ServiceSpec; kept: number }[])
    test(`from ${JSON.stringify(from)} to ${JSON.stringify(to)} keeps ${kept}`, async () => {
      await using fixture = await openFixture();
      await create(fixture, 'a', from);
      await change(fixture, 'a', to);
      assert.equal((await records(fixture)).length, kept);
      await remove(fixture, 'a');
      assert.deepEqual(await records(fixture), []);
    });

  test('gives a LoadBalancer with Local policy a port for health checks that stays', async () => {
    await using fixture = await openFixture();
    const local: ServiceSpec = { type: 'LoadBalancer', externalTrafficPolicy: 'Local' };
    const { spec } = await create(fixture, 'a', local);
    assert.ok(spec.healthCheckNodePort);
    assert.notEqual(spec.healthCheckNodePort, spec.ports?.[0]?.nodePort);
    assert.equal((await records(fixture)).length, 2);
    const ports = [
      { name: 'a', port: 80 },
      { name: 'b', port: 81 },
    ];
    const sent = body('a', { ...local, ports }) as KubeObject;
    const { object } = await fixture
      .of(SERVICE)
      .update({ namespace: 'default', name: 'a' }, () => sent, AS_ADMIN);
    const next = object as Service;
    assert.equal(next.spec.healthCheckNodePort, spec.healthCheckNodePort);
    assert.equal(portOf(next), spec.ports?.[0]?.nodePort);
    assert.equal((await records(fixture)).length, 3);
    await assert.rejects(change(fixture, 'a', { healthCheckNodePort: 31999 }), { status: 422 });
  });

  test('keeps the low end of the range for requests until the rest is full, then says so', async () => {
    const nodePortRange = { first: 30000, last: 30063 };
    await using fixture = await openFixture({ nodePortRange });
    const upper = upperPortBandStart(nodePortRange);
    assert.equal(upper, 30016);
    const ports = [];
    for (let i = 0; i < 64; i++) ports.push(portOf(await create(fixture, `s${i}`)) ?? 0);
    assert.ok(ports.slice(0, 48).every((port) => port >= upper));
    assert.deepEqual([...new Set(ports)].toSorted(), ports.toSorted());
    await assert.rejects(create(fixture, 'more'), {
      status: 500,
      message: /failed to allocate a nodePort: the range 30000-30063 is full/,
    });
  });

  test('lets one of many services that ask for a port at once have it', async () => {
    await using fixture = await openFixture();
    const spec = { ports: [{ port: 80, nodePort: 30080 }] };
    const results = await Promise.allSettled(
      ['a', 'b', 'c', 'd'].map((name) => create(fixture, name, spec)),
    );
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
    assert.equal((await records(fixture)).length, 1);
  });

  test('leaves no record of a dry run or a refused service', async () => {
    await using fixture = await openFixture();
    await fixture.of(SERVICE).create('default', body('a', {}) as KubeObject, DRY_RUN);
    await assert.rejects(create(fixture, 'b', { sessionAffinity: 'x' as 'None' }), { status: 422 });
    const many = Array.from({ length: MAX_NODE_PORTS_OF_SERVICE + 1 }, (_, i) => ({
      name: `p${i}`,
      port: i + 1,
    }));
    await assert.rejects(create(fixture, 'c', { ports: many }), {
      status: 422,
      message: /spec\.ports: Too many: 101: a service with node ports must have at most 100/,
    });
    assert.deepEqual(await records(fixture), []);
    await create(fixture, 'd', { ports: many.slice(0, MAX_NODE_PORTS_OF_SERVICE) });
    assert.equal((await records(fixture)).length, MAX_NODE_PORTS_OF_SERVICE);
  });
});
