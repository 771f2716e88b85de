/**
 * Debian's containerd with its CRI plugin, called as a kubelet calls it, on a node without Kubernetes: what it asks of a
 * network is there, and what is killed in the middle leaves nothing.
 *
 * TULLE_TEST_SANDBOXES sets how many pods are started at once.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { NETWORK_POLICY } from '#api/networking/v1/network-policy.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { findAddressProblems } from '#cli/ipam-report.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, runContainer } from '#lab/containers.ts';
import { Lab, OUTSIDE } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { isNotFound } from '#lib/errors.ts';
import { Containerd, NAME_PATH, SANDBOX_PORT, TEST_IMAGE, whyNoContainerd } from './containerd.ts';
import type { CriClient } from './cri-client.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const NAME = 'test-containerd';
const WAIT_MS = 30_000;
const AT_ONCE = Number(process.env.TULLE_TEST_SANDBOXES ?? 20);
const HOST_PORT = 18_080;
const DNS_SERVICE = '10.96.0.10';
const MAX_DUMP_BYTES = 6_000;
const TULLE = join(import.meta.dirname, '../../src/bin/tulle.ts');

describe('containerd without Kubernetes', { skip: whyNoContainerd() }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let machine: Machine;
  let other: Machine;
  let containerd: Containerd;
  let cri: CriClient;

  before(async () => {
    ({ lab, cluster } = await startCluster({ name: NAME, machines: 2, serverFlags: DUAL_STACK }));
    [machine, other] = [lab.machine('m1'), lab.machine('m2')];
    containerd = await Containerd.start(machine, `tulle-${NAME}`);
    cri = containerd.cri;
    await runContainer(other, { name: 'elsewhere', role: 'server' });
  });
  after(async () => {
    await Lab.remove(NAME);
    await containerd?.removeCgroups();
  });
  afterEach((context) => {
    if (!('passed' in context) || context.passed === true) return;
    for (const log of ['containerd', 'agent'])
      process.stderr.write(
        `${log}: ${readFileSync(machine.logFile(log), 'utf8').slice(-MAX_DUMP_BYTES)}\n`,
      );
  });

  const pod = (name: string) => cluster.client.get(POD, name, 'default');
  const runningPod = async (name: string): Promise<Pod> => {
    await until(
      `the API has "${name}" running`,
      WAIT_MS,
      async () => (await pod(name)).status?.phase === 'Running',
    );
    return pod(name);
  };
  const isGone = (name: string) =>
    pod(name).then(
      () => false,
      (error: unknown) => {
        if (isNotFound(error)) return true;
        throw error;
      },
    );
  const ipsOf = (status: Pod['status']) => status?.podIPs?.map(({ ip }) => ip);
  /** Attachments that the agent has written down. */
  const records = () => join(machine.directory, 'tulle/agent/cni');
  const recorded = async () => readdirSync(records());
  const inUrl = (ip: string) => (ip.includes(':') ? `[${ip}]` : ip);
  const fetchName = (at: string) => `timeout 3 wget -q -O - http://${at}${NAME_PATH}`;
  /** Waits until a container of podman on the other machine gets this answer; empty: none. */
  const answersElsewhere = (at: string, answer: string) =>
    until(`"${at}" answers "${answer}" to another machine`, WAIT_MS, async () => {
      const { stdout } = await execInContainer(other, 'elsewhere', fetchName(at));
      return stdout.trim() === answer;
    });
  const stopAndRemove = async (id: string) => {
    await cri.stopSandbox(id);
    await cri.removeSandbox(id);
  };
  /** What of the addresses does not fit together, and how many pods have one. */
  const addresses = async () => {
    const blocks = (await cluster.client.list(IP_BLOCK)).items;
    const problems = findAddressProblems({
      blocks,
      pools: (await cluster.client.list(IP_POOL)).items,
      nodes: (await cluster.client.list(NODE)).items,
      pods: (await cluster.client.list(POD)).items,
    });
    const allocations = blocks.flatMap(({ spec }) => Object.values(spec.allocations));
    return { problems, ofPods: allocations.filter((it) => it.purpose === 'Pod').length };
  };

  const web = {
    name: 'web',
    labels: { app: 'web' },
    annotations: {
      'example.com/note': 'kept',
      'kubernetes.io/ingress-bandwidth': '100M',
      'kubernetes.io/egress-bandwidth': '50M',
    },
    ports: [{ containerPort: SANDBOX_PORT, hostPort: HOST_PORT }],
    dns: { servers: [DNS_SERVICE], searches: ['default.svc.cluster.local'] },
  };
  let webId = '';

  test('a pod has addresses of both families, by which another machine reaches it, and a Pod object', async () => {
    await until(
      'the network is ready',
      WAIT_MS,
      async () => (await cri.networkProblem()) === undefined,
    );
    webId = await cri.runSandbox(web);
    const { ips, isReady } = await cri.sandbox(webId);
    assert.equal(isReady, true);
    assert.match(ips.join(), /^10\.244\.\d+\.\d+,fd00:10:244:/);
    const { metadata, status } = await runningPod('web');
    assert.deepEqual(ipsOf(status), ips);
    assert.equal(metadata.labels?.app, 'web');
    assert.equal(metadata.annotations?.['example.com/note'], 'kept');
    assert.equal(status?.containerStatuses?.[0]?.containerID, `containerd://${webId}`);
    for (const ip of ips) await answersElsewhere(`${inUrl(ip)}:${SANDBOX_PORT}`, 'web');
  });

  test('it has its host port and its limits of bandwidth', async () => {
    const byHostPort = ['busybox', 'sh', '-c', fetchName(`${machine.address}:${HOST_PORT}`)];
    assert.equal((await lab.machine(OUTSIDE).runOk(byHostPort)).trim(), 'web');
    const qdiscs = await machine.runOk(['tc', 'qdisc', 'show']);
    for (const rate of ['100Mbit', '50Mbit'])
      assert.match(qdiscs, new RegExp(`tbf .*rate ${rate}`));
  });

  test('a service and a policy select it by its labels', async () => {
    const metadata = { name: 'shop', namespace: 'default' };
    await cluster.client.create(SERVICE, {
      ...{ apiVersion: 'v1', kind: 'Service', metadata },
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: SANDBOX_PORT }] },
    });
    await answersElsewhere('shop', 'web');
    await cluster.client.create(NETWORK_POLICY, {
      ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata },
      spec: { podSelector: { matchLabels: { app: 'web' } } },
    });
    await answersElsewhere('shop', '');
    await cluster.client.delete(NETWORK_POLICY, metadata);
    await answersElsewhere('shop', 'web');
  });

  test('a container in it has the addresses, and finds the service with the DNS settings given', async () => {
    const container = await cri.runContainer(webId, web, {
      ...{ name: 'main', image: TEST_IMAGE, argv: ['sleep', '86400'] },
    });
    const { out } = await cri.exec(container, ['ip', '-o', 'addr']);
    for (const ip of (await cri.sandbox(webId)).ips) assert.ok(out.includes(ip), out);
    // The runtime writes the file by itself; the plugin is told, too.
    const [record = ''] = await recorded();
    const { attachment } = JSON.parse(readFileSync(join(records(), record), 'utf8'));
    const { servers: nameservers, searches: search } = web.dns;
    assert.deepEqual(attachment.dns, { nameservers, search });
    const byName = await cri.exec(container, ['sh', '-c', fetchName('shop')]);
    assert.deepEqual(byName, { out: 'web\n', code: 0 });
  });

  test('it can be stopped and removed twice, and is no Pod then', async () => {
    await cri.stopSandbox(webId);
    await until('its Pod is gone', WAIT_MS, () => isGone('web'));
    assert.doesNotMatch(await machine.runOk(['tc', 'qdisc', 'show']), /tbf/);
    await cri.stopSandbox(webId);
    await cri.removeSandbox(webId);
    await cri.removeSandbox(webId);
    assert.deepEqual(await cri.sandboxes(), []);
  });

  /** The commands with which our plugin is running on the machine: `ADD`, `DEL`. */
  async function pluginCalls(): Promise<string> {
    const script =
      "for p in $(pgrep -f /opt/cni/bin/tulle); do tr '\\0' '\\n' <\"/proc/$p/environ\"; done";
    const { stdout } = await machine.run(['sh', '-c', script]);
    return [...stdout.matchAll(/^CNI_COMMAND=(.*)$/gm)].map(([, command]) => command).join();
  }
  const pluginIs = (command: string) => async () => (await pluginCalls()) === command;

  test('containerd that is killed while it starts a pod can take it down and start it again', async () => {
    cluster.pauseAgent(machine, true);
    const broken = assert.rejects(cri.runSandbox({ name: 'torn' }));
    await until('containerd has called the plugin', WAIT_MS, pluginIs('ADD'));
    await containerd.kill();
    await broken;
    cluster.pauseAgent(machine, false);
    // Nobody is left to hear the answer.
    await until('the plugin has ended', WAIT_MS, pluginIs(''));
    await containerd.restart();
    const id = await cri.runSandbox({ name: 'torn', attempt: 1 });
    const { status } = await runningPod('torn');
    assert.ok(status?.podIPs?.length === 2);
    const torn = (await cri.sandboxes()).filter((it) => it !== id);
    assert.equal(torn.length, 1);
    for (const it of [id, ...torn]) await stopAndRemove(it);
    assert.deepEqual(await recorded(), []);
  });

  test('a pod that containerd has lost is taken down without it', async () => {
    const id = await cri.runSandbox({ name: 'lost' });
    await runningPod('lost');
    await containerd.kill();
    await containerd.forget(id);
    assert.deepEqual(await cri.sandboxes(), []);
    // The test with the name 'nothing is left' waits for it.
    assert.equal((await recorded()).length, 1);
  });

  test('a container without a pod, of `ctr run --cni`, is a Pod too', async () => {
    const id = await containerd.runPlain('plain');
    const { status } = await runningPod(id);
    await answersElsewhere(`${status?.podIP}:${SANDBOX_PORT}`, machine.name);
    // Nobody calls DEL for it: the test with the name 'nothing is left' waits for its end.
    await containerd.killPlain('plain');
  });

  test('an agent that is killed while a pod starts delays it; without one it fails and can be tried again', async () => {
    cluster.pauseAgent(machine, true);
    const delayed = cri.runSandbox({ name: 'delayed' });
    await until('containerd has called the plugin', WAIT_MS, pluginIs('ADD'));
    await cluster.killAgent(machine);
    await cluster.startAgent(machine);
    const id = await delayed;
    const { status } = await runningPod('delayed');
    assert.deepEqual(ipsOf(status), (await cri.sandbox(id)).ips);
    await stopAndRemove(id);

    await cluster.killAgent(machine);
    const refused = assert.rejects(
      cri.runSandbox({ name: 'refused' }),
      /the Tulle agent is not running/,
    );
    await until('containerd takes back what it began', WAIT_MS, pluginIs('DEL'));
    await cluster.startAgent(machine);
    await refused;
    assert.deepEqual(await cri.sandboxes(), []);
    const again = await cri.runSandbox({ name: 'refused', attempt: 1 });
    await runningPod('refused');
    await stopAndRemove(again);
  });

  test(`${AT_ONCE} pods come and go at once`, async () => {
    const names = Array.from({ length: AT_ONCE }, (_, i) => `p${i}`);
    const ids = await Promise.all(names.map((name) => cri.runSandbox({ name })));
    const all = (await Promise.all(ids.map((id) => cri.sandbox(id)))).flatMap(({ ips }) => ips);
    assert.equal(new Set(all).size, 2 * AT_ONCE);
    const pods = await Promise.all(names.map(runningPod));
    assert.deepEqual(
      pods.flatMap(({ status }) => ipsOf(status) ?? []),
      all,
    );
    const last = pods.at(-1)?.status?.podIP;
    await answersElsewhere(`${last}:${SANDBOX_PORT}`, names.at(-1) ?? '');
    // A kubelet does it twice when an answer was late.
    await Promise.all([...ids, ...ids].map((id) => cri.stopSandbox(id)));
    await Promise.all(ids.map((id) => cri.removeSandbox(id)));
    assert.deepEqual(await cri.sandboxes(), []);
    for (const name of names) await until(`"${name}" is gone`, WAIT_MS, () => isGone(name));
  });

  test('nothing is left of any of them, nor of what was being started when containerd was killed', async () => {
    // Two sweeps of the agent must agree.
    // The address goes back first, and the Pod and the record after it.
    await until('only podman has an attachment', 2 * WAIT_MS, async () => {
      assert.deepEqual(await addresses(), { problems: [], ofPods: 2 });
      assert.deepEqual(await recorded(), []);
      return true;
    });
    assert.doesNotMatch(await machine.runOk(['ip', '-o', 'link']), /: tl/);
    assert.doesNotMatch(await machine.runOk(['ip', 'route', 'show', 'proto', '84']), /dev tl/);
  });

  test('after an uninstall containerd has no network, and says so', async () => {
    await cluster.stopAgent(machine);
    const uninstall = [
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      TULLE,
      'uninstall',
    ];
    await machine.runOk(uninstall);
    assert.deepEqual(existsSync(join(machine.directory, 'etc-cni/net.d/10-tulle.conflist')), false);
    await until(
      'containerd knows',
      WAIT_MS,
      async () => (await cri.networkProblem()) === 'NetworkPluginNotReady',
    );
    await assert.rejects(cri.runSandbox({ name: 'none' }), /network|cni/i);
    assert.match(await machine.runOk(uninstall), /there is nothing of Tulle/);
    // Only containerd's own connection of the loopback stays where the other plugins are.
    assert.equal((await machine.runOk(['ls', '/opt/cni/bin'])).trim(), 'loopback');
  });
});
