/** Two machines with pools and services of both families, over an IPv4 underlay. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;

describe('a dual-stack cluster', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let podIps: string[];
  let clusterIps: string[];

  before(async () => {
    ({ lab, cluster } = await startCluster({
      name: 'test-dual',
      machines: 2,
      serverFlags: DUAL_STACK,
    }));
    await runContainer(lab.machine('m1'), { name: 'client', role: 'client' });
    const labels = { app: 'web' };
    await runContainer(lab.machine('m2'), { name: 'server', role: 'server', labels });
    await until('the server’s pod is known', WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { labelSelector: 'app=web' });
      podIps = items[0]?.status?.podIPs?.map(({ ip }) => ip) ?? [];
      return podIps.length > 0;
    });
    const service = await cluster.client.create(SERVICE, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'default' },
      spec: {
        ipFamilyPolicy: 'RequireDualStack',
        selector: labels,
        ports: [{ port: 80, targetPort: 8080 }],
      },
    });
    clusterIps = service.spec.clusterIPs ?? [];
  });
  after(() => Lab.remove('test-dual'));

  const answers = async (host: string) => {
    const script = `timeout 3 wget -q -O - http://${host}/`;
    const { stdout } = await execInContainer(lab.machine('m1'), 'client', script);
    return stdout.trim() === 'server';
  };

  test('a pod has an address of each family, and so has a service', () => {
    assert.deepEqual(
      [podIps, clusterIps].map((ips) => ips.map((ip) => ip.includes(':'))),
      [
        [false, true],
        [false, true],
      ],
    );
  });

  test('pods reach each other across machines in both families', async () => {
    assert.ok(await answers(`${podIps[0]}:8080`));
    assert.ok(await answers(`[${podIps[1]}]:8080`));
  });

  test('the service answers at both cluster IPs and by name', async () => {
    await until('IPv4', WAIT_MS, () => answers(clusterIps[0] ?? ''));
    await until('IPv6', WAIT_MS, () => answers(`[${clusterIps[1]}]`));
    assert.ok(await answers('web.default.svc.cluster.local'));
  });

  test('the DNS server answers at the service’s IPv6 address', async () => {
    const { stdout } = await execInContainer(
      lab.machine('m1'),
      'client',
      'nslookup web.default.svc.cluster.local fd00:10:96::a',
    );
    assert.ok(
      stdout.includes(clusterIps[0] ?? '?') && stdout.includes(clusterIps[1] ?? '?'),
      stdout,
    );
  });
});
