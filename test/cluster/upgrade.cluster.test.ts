/**
 * From a former version to this one under traffic: the server first, then the agents one by one. The former version
 * comes out of the repository's history: one from before the store had leases, from before frontends led to numbers and
 * from before addresses were kept warm. `TULLE_UPGRADE_FROM=COMMIT` takes another. Most pods are routed, one is on a bridge.
 * The state is in the server's embedded store, or with `TULLE_UPGRADE_STORE=etcd` in an etcd.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { NETWORK_POLICY } from '#api/networking/v1/network-policy.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { NFT_TABLE } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { etcdMissing } from '#store/etcd/testing-etcd.ts';
import { addBridgeNetwork, BRIDGE_NETWORK } from './bridge-network.ts';
import { extractVersion, whyNoVersion } from './former-version.ts';
import { assertNothingLost, startEcho, startStream, TRAFFIC_PORT } from './pod-traffic.ts';
import { DUAL_STACK } from './start-cluster.ts';

const FORMER = process.env.TULLE_UPGRADE_FROM ?? '7039ae9';
const STORE = process.env.TULLE_UPGRADE_STORE ?? 'embedded';
const WAIT_MS = 30_000;
const NAME = 'test-upgrade';
const HOST_PORT = 8088;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

const missing = await whyNoVersion(FORMER);
const skip = missing ?? (STORE === 'etcd' && etcdMissing());

/** On the server's machine; it goes on from one version to the next. */
const ETCD_URL = 'http://127.0.0.1:2379';
const SECRET = '/var/lib/tulle/secret';
const BRIDGED_PORT = 8089;

describe(`an upgrade of two machines, the state in the ${STORE} store`, { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-former-'));
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let m2: Machine;
  let program: string;
  let clusterIp: string;

  before(async () => {
    await Lab.remove(NAME);
    lab = await Lab.create({ name: NAME, machines: 2 });
    [m1, m2] = [lab.machine('m1'), lab.machine('m2')];
    cluster = new LabCluster(lab);
    program = cluster.program;
    cluster.program = await extractVersion(FORMER, folder);
    if (STORE === 'etcd') await startEtcd();
    await cluster.startServer(flags);
    for (const machine of lab.hosts) {
      preparePodman(machine);
      await cluster.startAgent(machine);
    }
    await cluster.nodesReady();
    await runContainer(m1, { name: 'client', role: 'client' });
    await runContainer(m1, { name: 'refused', role: 'client' });
    await runContainer(m2, { name: 'echo', role: 'server', labels: { app: 'echo' } });
    await runContainer(m2, { name: 'closed', role: 'server', labels: { app: 'closed' } });
    const ports = [`${HOST_PORT}:8080`];
    await runContainer(m2, { name: 'published', role: 'server', ports });
    await addBridgeNetwork(m2);
    await runContainer(m2, {
      ...{
        name: 'bridged',
        role: 'server',
        network: BRIDGE_NETWORK,
        ports: [`${BRIDGED_PORT}:8080`],
      },
    });
    const service = await cluster.client.create(SERVICE, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'echo', namespace: 'default' },
      spec: {
        selector: { app: 'echo' },
        ports: (['TCP', 'UDP'] as const).map((protocol) => ({
          ...{ name: protocol.toLowerCase(), protocol, port: TRAFFIC_PORT },
        })),
      },
    });
    clusterIp = service.spec?.clusterIP ?? '';
    await cluster.client.create(NETWORK_POLICY, {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'closed', namespace: 'default' },
      spec: { podSelector: { matchLabels: { app: 'closed' } } },
    });
    for (const name of ['echo', 'closed']) await startEcho(m2, name);
    await until('the service answers and the closed pod does not', WAIT_MS, async () => {
      const [service, closed] = await Promise.all([
        connects(clusterIp),
        connects(await ipOf('closed')),
      ]);
      return service && !closed;
    });
  });
  after(async () => {
    await Lab.remove(NAME);
    rmSync(folder, { recursive: true, force: true });
  });

  const flags = [
    ...DUAL_STACK,
    ...(STORE === 'etcd' ? ['--etcd', ETCD_URL, '--cluster-secret-file', SECRET] : []),
  ];
  async function startEtcd(): Promise<void> {
    writeFileSync(join(m1.directory, 'tulle/secret'), 'the secret of all servers\n', {
      mode: 0o600,
    });
    await m1.start('etcd', [
      ...['etcd', '--data-dir', '/var/lib/tulle/etcd'],
      ...['--listen-client-urls', ETCD_URL, '--advertise-client-urls', ETCD_URL],
    ]);
    await until('etcd answers', WAIT_MS, async () => {
      return (await m1.run(['curl', '-sf', '-m', '2', `${ETCD_URL}/health`])).exitCode === 0;
    });
  }
  const ipOf = async (name: string) =>
    (await cluster.client.get(POD, name, 'default')).status?.podIP ?? '';
  const connects = async (address: string) =>
    (await execInContainer(m1, 'client', `nc -w 1 ${address} ${TRAFFIC_PORT} </dev/null`))
      .stdout === 'ok';
  /** Who has which address, without those that wait for a pod. */
  const held = async () =>
    (await cluster.client.list(IP_BLOCK)).items
      .flatMap(({ metadata, spec }) =>
        Object.entries(spec.allocations).map(([ordinal, it]) => ({
          block: metadata.name,
          ordinal,
          ...it,
        })),
      )
      .filter(({ purpose }) => purpose !== 'Warm')
      .map(({ block, ordinal, handle, sequence }) => `${block} ${ordinal} ${handle} ${sequence}`)
      .sort();
  const podLinks = (machine: Machine) => {
    using stack = openNetworkStack({ netns: machine.netns });
    return stack.links.list().flatMap(({ name }) => (/^tl[0-9a-f]{11}$/.test(name) ? [name] : []));
  };
  const startsOf = (machine: Machine) =>
    readFileSync(machine.logFile('agent'), 'utf8').split('the node is ready for pods').length - 1;
  const upgrade = async (machine: Machine, end: (machine: Machine) => Promise<void>) => {
    const starts = startsOf(machine);
    await end(machine);
    await pause(300); // what the former version leaves must carry traffic by itself
    await cluster.startAgent(machine);
    await until('the new agent has taken over', WAIT_MS, async () => startsOf(machine) > starts);
    await pause(500);
  };
  const published = async (port: number) =>
    (await m1.run(['curl', '-s', '-m', '3', `http://${m2.address}:${port}/`])).stdout.trim();
  const tulle = (...args: string[]) =>
    m1.run([process.execPath, '--disable-warning=ExperimentalWarning', program, ...args]);

  test('loses no packet and opens nothing, and old agents attach pods by a new server', async (t) => {
    const before = await held();
    const [far, closed] = [await ipOf('echo'), await ipOf('closed')];
    const ends = await Promise.all([
      startStream(m1, { container: 'client', to: far, log: 'direct' }),
      startStream(m1, { container: 'client', to: clusterIp, log: 'service' }),
      startStream(m2, { container: 'bridged', to: far, log: 'bridged' }),
      // Its own container, because what is refused is sent again.
      startStream(m1, { container: 'refused', to: closed, log: 'refused' }),
    ]);
    await pause(500);
    cluster.program = program;
    await cluster.killServer();
    await cluster.startServer(flags);
    await cluster.nodesReady();
    await runContainer(m2, { name: 'between', role: 'server' });
    await upgrade(m2, (machine) => cluster.killAgent(machine));
    await runContainer(m2, { name: 'mixed', role: 'server' });
    for (const name of ['between', 'mixed'])
      await until(`the pod "${name}" is reached from the other machine`, WAIT_MS, async () => {
        const script = `timeout 2 wget -q -O - http://${await ipOf(name)}:8080/`;
        return (await execInContainer(m1, 'client', script)).stdout.trim() === name;
      });
    await upgrade(m1, (machine) => cluster.stopAgent(machine));
    const [direct, service, bridged, refused] = await Promise.all(ends.map((end) => end()));
    assert.ok(direct && service && bridged && refused);
    for (const it of [direct, service, bridged]) {
      assertNothingLost(it);
      t.diagnostic(`${it.sent} packets, ${it.connections} connections, none lost`);
      assert.ok(it.sent > 500 && it.connections > 100, JSON.stringify(it));
    }
    assert.equal(refused.lost.length, refused.sent, 'a closed pod answered');
    assert.equal(refused.failed.length, refused.connections, 'a closed pod was reached');
    const after = await held();
    assert.deepEqual(
      before.filter((it) => !after.includes(it)),
      [],
    );
  });

  test('keeps pods, records, ports of the node and names', async () => {
    for (const machine of lab.hosts) {
      const records = readdirSync(join(machine.directory, 'tulle/agent/cni'));
      assert.deepEqual(
        records.filter((name) => !name.endsWith('.json')),
        [],
      );
      assert.equal(records.length, podLinks(machine).length);
    }
    assert.equal(await published(HOST_PORT), 'published');
    assert.equal(await published(BRIDGED_PORT), 'bridged');
    const names = await execInContainer(
      m1,
      'client',
      'timeout 5 nslookup echo.default.svc.cluster.local',
    );
    assert.ok(names.stdout.includes(clusterIp), names.stdout);
    const status = await tulle('status');
    assert.equal(status.exitCode, 0, status.stdout + status.stderr);
    const check = await tulle('ipam', 'check');
    assert.equal(check.exitCode, 0, check.stdout);
  });

  test('an agent that starts again leaves each rule, set and chain where it is', async () => {
    using nftables = openNftables({ netns: m2.netns });
    const handles = () =>
      (['ip', 'ip6', 'bridge'] as const).map((family) => {
        const { handle, chains = [], sets = [] } = nftables.dumpTable(family, NFT_TABLE) ?? {};
        const rules = chains.flatMap((it) => it.rules.map((rule) => `${it.chain} ${rule.handle}`));
        const elements = sets.flatMap((it) => it.elements.map(({ key }) => `${it.set} ${key}`));
        const objects = [...chains, ...sets].map((it) => it.handle);
        return { family, handle, rules, objects, elements: elements.sort() };
      });
    const before = handles();
    assert.ok(before.every(({ rules }) => rules.length > 0));
    await upgrade(m2, (machine) => cluster.killAgent(machine));
    assert.deepEqual(handles(), before);
  });

  test('gives pods of the former version a new network, and takes it from them', async () => {
    await m2.runOk(['podman', 'restart', '--time', '0', 'published', 'bridged']);
    for (const [name, port] of [
      ['published', HOST_PORT],
      ['bridged', BRIDGED_PORT],
    ] as const)
      await until(`the port of "${name}" leads to it`, WAIT_MS, async () => {
        return (await published(port)) === name;
      });
    const names = ['echo', 'closed', 'published', 'bridged', 'between', 'mixed'];
    await m2.runOk(['podman', 'rm', '--force', '--time', '0', ...names]);
    await m1.runOk(['podman', 'rm', '--force', '--time', '0', 'client', 'refused']);
    for (const machine of lab.hosts) {
      assert.deepEqual(podLinks(machine), []);
      // A DEL is answered when the link is gone; the record stays until the address is given back.
      const records = join(machine.directory, 'tulle/agent/cni');
      await until('no record is left', WAIT_MS, async () => readdirSync(records).length === 0);
    }
    await until('no address is held for a pod', WAIT_MS, async () =>
      (await held()).every((line) => line.includes('tunnel')),
    );
    const check = await tulle('ipam', 'check');
    assert.equal(check.exitCode, 0, check.stdout);
  });
});
