/** Tulle on two lab machines, with things going wrong. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { POD_LINK_PREFIX, ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;

describe('a cluster of two machines', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let m2: Machine;

  before(async () => {
    ({ lab, cluster } = await startCluster({ name: 'test-faults', machines: 2 }));
    m1 = lab.machine('m1');
    m2 = lab.machine('m2');
    await runContainer(m1, { name: 'client', role: 'client' });
    await runContainer(m2, { name: 'server', role: 'server', labels: { app: 'web' } });
    await until('both pods are known', WAIT_MS, async () => (await pods()).length === 2);
  });
  after(() => Lab.remove('test-faults'));

  const pods = async () => (await cluster.client.list(POD, { namespace: 'default' })).items;
  const addressOf = async (name: string) =>
    (await cluster.client.get(POD, name, 'default')).status?.podIP ?? '';
  const reaches = async () => {
    const script = `timeout 3 wget -q -O - http://${await addressOf('server')}:8080/`;
    return (await execInContainer(m1, 'client', script)).stdout.trim() === 'server';
  };

  test('pods have the labels of their containers', async () => {
    const server = await cluster.client.get(POD, 'server', 'default');
    assert.equal(server.metadata.labels?.app, 'web');
    assert.equal(server.spec?.nodeName, 'm2');
    assert.ok(await reaches());
  });

  test('a cluster IP that no service has is refused at once, for pods and the node', async () => {
    const url = 'http://10.96.200.200/';
    const pod = await execInContainer(m1, 'client', `timeout 3 wget -q -O - ${url} 2>&1`);
    assert.match(pod.stdout, /refused/);
    const node = await m1.run(['curl', '-sS', '--max-time', '3', url]);
    // Could not connect; 28 would be its time limit.
    assert.equal(node.exitCode, 7, node.stderr);
    const { status } = await cluster.client.get(NODE, 'm1');
    const messages = status?.conditions?.map(({ type, message }) => `${type}: ${message}`) ?? [];
    assert.ok(messages.includes('KernelReady: the kernel has all that is used'), messages.join());
    assert.ok(!messages.some((it) => it.includes('not refused')), messages.join());
  });

  const REPAIRS: readonly [string, (machine: Machine) => void][] = [
    [
      'the VXLAN device deleted',
      (machine) => withLink(machine, VXLAN_LINK, (s, i) => s.links.delete(i)),
    ],
    [
      'the VXLAN device set down',
      (machine) => withLink(machine, VXLAN_LINK, (s, i) => s.links.set(i, { up: false })),
    ],
    [
      'the VXLAN device’s MTU altered',
      (machine) => withLink(machine, VXLAN_LINK, (s, i) => s.links.set(i, { mtuBytes: 1280 })),
    ],
    ['all our routes deleted', deleteOurRoutes],
    [
      'the neighbours deleted',
      (machine) =>
        withLink(machine, VXLAN_LINK, (s, i) =>
          s.neighbours.delete(s.neighbours.list({ link: i })),
        ),
    ],
    ['the nftables tables deleted', deleteTables],
  ];
  for (const [what, damage] of REPAIRS)
    test(`${what} by hand: repaired, and traffic flows`, async () => {
      const before = snapshot(m1);
      damage(m1);
      await until(
        'it is repaired',
        WAIT_MS,
        async () => JSON.stringify(snapshot(m1)) === JSON.stringify(before),
      );
      assert.ok(await reaches());
    });

  test('an agent killed at any moment of containers coming and going leaks nothing', async () => {
    const kept = snapshot(m2);
    for (let round = 0; round < 5; round++) {
      const names = [0, 1, 2].map((i) => `brief-${round}-${i}`);
      // Some of these fail while the agent is away; whatever was begun must be undone or finished.
      const coming = Promise.allSettled(
        names.map((name) => runContainer(m2, { name, role: 'client' })),
      );
      await new Promise((resolve) => setTimeout(resolve, 60 + 90 * round));
      await cluster.killAgent(m2);
      await cluster.startAgent(m2);
      await coming;
      await cluster.nodesReady([m2]);
      await m2.run(['podman', 'rm', '--force', '--time', '0', ...names]);
    }
    await until('only the one pod is left on m2', WAIT_MS, async () => {
      const left = (await pods()).filter((pod) => pod.spec?.nodeName === 'm2');
      return left.length === 1;
    });
    await until(
      'links, routes and neighbours are as before',
      WAIT_MS,
      async () => JSON.stringify(snapshot(m2)) === JSON.stringify(kept),
    );
    await until('no address is held by a container that is gone', 120_000, async () => {
      const held = (await allocations('m2')).filter((allocation) => allocation.purpose === 'Pod');
      return held.length === 1;
    });
    assert.ok(await reaches());
  });

  const allocations = async (node: string) =>
    (await cluster.client.list(IP_BLOCK)).items
      .filter((block) => block.spec.node === node)
      .flatMap((block) => Object.values(block.spec.allocations));

  test('a server killed and started again knows everything', async () => {
    const names = async () => (await pods()).map((pod) => pod.metadata.name).sort();
    const known = await names();
    const uid = (await cluster.client.get(NODE, 'm1')).metadata.uid;
    await cluster.killServer();
    assert.ok(await m1.run(['true']));
    await cluster.startServer();
    assert.deepEqual(await names(), known);
    assert.equal((await cluster.client.get(NODE, 'm1')).metadata.uid, uid);
    await cluster.nodesReady();
  });

  test('a second server on the same data is refused, and the first goes on', async () => {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', TULLE, 'server'];
    const { exitCode, stderr } = await m1.run([...argv, '--listen', `${m1.address}:7443`]);
    assert.equal(exitCode, 1);
    assert.match(stderr, /in use|another process/i);
    assert.equal((await cluster.client.raw('GET', '/readyz')).status, 200);
  });

  test('a second agent on the same machine is refused, and the first goes on', async () => {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', TULLE, 'agent'];
    const server = `https://${m1.address}:6443`;
    const { exitCode, stderr } = await m1.run([
      ...argv,
      '--server',
      server,
      '--node-ip',
      m1.address,
    ]);
    assert.equal(exitCode, 1);
    assert.match(stderr, /127\.0\.0\.1:9963.*[\s\S]*another agent/);
    assert.ok(await reaches());
  });

  test('an agent with a token that is revoked is refused', async () => {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', TULLE];
    const config = join(m1.directory, 'tulle/server/join-token');
    const good = readFileSync(config, 'utf8').trim();
    const bad = `${good.slice(0, 7)}${'a'.repeat(16)}${good.slice(23)}`;
    const { exitCode, stderr } = await m2.run([
      ...[...argv, 'agent', '--server', `https://${m1.address}:6443`, '--token', bad],
      ...['--data-dir', '/tmp/test-bad-token', '--status-address', '127.0.0.1:9999'],
    ]);
    assert.equal(exitCode, 1);
    assert.match(stderr, /token/i);
  });

  test('a cut between the machines heals without help', async () => {
    lab.partition('m1', 'm2');
    assert.ok(!(await reaches()));
    lab.heal();
    await until('traffic flows again', WAIT_MS, reaches);
  });
});

describe('a cluster with few addresses', () => {
  let lab: Lab;
  let cluster: LabCluster;
  before(async () => {
    await Lab.remove('test-few');
    lab = await Lab.create({ name: 'test-few', machines: 1 });
    cluster = new LabCluster(lab);
  });
  after(() => Lab.remove('test-few'));

  test('an exhausted pool is named, with numbers, and nothing half-done is left', async () => {
    const m1 = lab.machine('m1');
    preparePodman(m1);
    // 8 addresses in one block, so none is kept warm: 7 are taken by hand, beside the tunnel's.
    await cluster.startServer(['--pod-cidr', '10.99.0.0/29']);
    await cluster.startAgent(m1);
    await cluster.nodesReady();
    const [block] = (await cluster.client.list(IP_BLOCK)).items;
    assert.ok(block);
    const { spec } = block;
    const taken = Object.fromEntries(
      spec.free.map((ordinal) => [
        String(ordinal),
        {
          handle: `hand-${ordinal}`,
          sequence: 1,
          since: '2026-01-01T00:00:00Z',
          node: '',
          purpose: 'Pod' as const,
        },
      ]),
    );
    await cluster.client.update(IP_BLOCK, {
      ...block,
      spec: { ...spec, free: [], allocations: { ...spec.allocations, ...taken }, releasedAt: {} },
    });
    const links = snapshot(m1).links;
    await assert.rejects(
      runContainer(m1, { name: 'late', role: 'client' }),
      (error: Error) =>
        /default-ipv4/.test(error.message) &&
        /10\.99\.0\.0\/29/.test(error.message) &&
        /8 of 8/.test(error.message),
    );
    assert.deepEqual(snapshot(m1).links, links);
  });
});

test('an agent refuses a pod network that overlaps the machine’s own', async () => {
  const lab = await Lab.create({ name: 'test-overlap', machines: 1 });
  try {
    const cluster = new LabCluster(lab);
    const m1 = lab.machine('m1');
    await cluster.startServer(['--pod-cidr', '192.0.0.0/16']);
    await cluster.startAgent(m1);
    await assert.rejects(
      cluster.nodesReady(),
      (error: Error) =>
        /192\.0\.0\.0\/16/.test(error.message) &&
        /192\.0\.2\.0\/24/.test(error.message) &&
        /eth0/.test(error.message),
    );
    using stack = openNetworkStack({ netns: m1.netns });
    assert.equal(stack.links.get(VXLAN_LINK), undefined);
  } finally {
    await Lab.remove('test-overlap');
  }
});

const TULLE = join(import.meta.dirname, '../../src/bin/tulle.ts');

/** What of ours is in a machine's kernel, in an order that does not depend on history. */
function snapshot(machine: Machine) {
  using stack = openNetworkStack({ netns: machine.netns });
  using nftables = openNftables({ netns: machine.netns });
  const names = new Map(stack.links.list().map((link) => [link.index, link.name]));
  const nameOf = (index: number | undefined) => names.get(index ?? 0) ?? '';
  return {
    links: [...names.values()]
      .filter((n) => n.startsWith(POD_LINK_PREFIX) || n === VXLAN_LINK)
      .sort(),
    mtu: stack.links.get(VXLAN_LINK)?.mtuBytes,
    up: stack.links.get(VXLAN_LINK)?.up,
    routes: stack.routes
      .list({ protocol: ROUTE_PROTOCOL })
      .map((r) => `${r.destination} ${r.table} ${r.gateway} ${nameOf(r.link)} ${r.source}`)
      .sort(),
    neighbours: stack.neighbours
      .list()
      .filter((n) => n.permanent && nameOf(n.link) !== 'lo')
      .map((n) => `${n.address} ${n.mac} ${nameOf(n.link)}`)
      .sort(),
    fdb: [stack.links.get(VXLAN_LINK)].flatMap((link) =>
      link === undefined ? [] : stack.fdb.list(link.index).map((e) => `${e.mac} ${e.destination}`),
    ),
    tables: (['ip', 'ip6'] as const).map((family) => {
      const table = nftables.dumpTable(family, 'tulle', { elements: false });
      return table?.chains.map((chain) => `${chain.chain} ${chain.rules.length}`).sort();
    }),
  };
}

type Stack = ReturnType<typeof openNetworkStack>;

function withLink(
  machine: Machine,
  name: string,
  act: (stack: Stack, index: number) => void,
): void {
  using stack = openNetworkStack({ netns: machine.netns });
  const link = stack.links.get(name);
  assert.ok(link, `${name} is there`);
  act(stack, link.index);
}

function deleteOurRoutes(machine: Machine): void {
  using stack = openNetworkStack({ netns: machine.netns });
  stack.routes.delete(stack.routes.list({ protocol: ROUTE_PROTOCOL }));
}

function deleteTables(machine: Machine): void {
  using nftables = openNftables({ netns: machine.netns });
  nftables.commit([inTable('ip', 'tulle').table.delete(), inTable('ip6', 'tulle').table.delete()]);
}
