/**
 * Three machines and a pool of one block: whoever comes first has it, and the others borrow every address, their own on
 * the fabric too.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { loansOf } from '#api/tulle/v1alpha1/ip-block-loan.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { findAddressProblems } from '#cli/ipam-report.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

const WAIT_MS = 20_000;
const NAME = 'test-borrowing';

interface Pod {
  readonly name: string;
  readonly machine: Machine;
  readonly addresses: readonly string[];
}

describe('a pool of one block for three machines', () => {
  let lab: Lab;
  let cluster: LabCluster;
  const pods: Pod[] = [];

  before(async () => {
    await Lab.remove(NAME);
    lab = await Lab.create({ name: NAME, machines: 3 });
    cluster = new LabCluster(lab);
    await cluster.startServer(['--pod-cidr', '10.244.7.0/28', '--pod-cidr', 'fd00:244::/124']);
    for (const machine of lab.hosts) {
      await cluster.startAgent(machine);
      await cluster.nodesReady([machine]);
    }
  });
  after(() => Lab.remove(NAME));

  async function call(
    machine: Machine,
    command: 'ADD' | 'DEL',
    name: string,
  ): Promise<{ readonly exitCode: number | undefined; readonly stdout: string }> {
    const argv = ['env', `CNI_COMMAND=${command}`, `CNI_CONTAINERID=${name}`, 'CNI_IFNAME=eth0'];
    argv.push(`CNI_NETNS=/run/netns/${name}`, 'CNI_PATH=/opt/cni/bin', '/opt/cni/bin/tulle');
    const input = JSON.stringify({ cniVersion: '1.0.0', name: 'tulle', type: 'tulle' });
    return machine.run(argv, { input, timeoutMs: WAIT_MS });
  }

  async function attach(machine: Machine, name: string): Promise<Pod> {
    await machine.runOk(['ip', 'netns', 'add', name]);
    const { exitCode, stdout } = await call(machine, 'ADD', name);
    assert.equal(exitCode, 0, stdout);
    const { ips } = JSON.parse(stdout) as { ips: { address: string }[] };
    const pod = { name, machine, addresses: ips.map((it) => it.address.split('/')[0] ?? '') };
    pods.push(pod);
    return pod;
  }

  async function detach(pod: Pod): Promise<void> {
    const { exitCode, stdout } = await call(pod.machine, 'DEL', pod.name);
    assert.equal(exitCode, 0, stdout);
    await pod.machine.runOk(['ip', 'netns', 'del', pod.name]);
    pods.splice(pods.indexOf(pod), 1);
  }

  const ping = async (from: Pod, to: string) =>
    (
      await from.machine.run(['ip', 'netns', 'exec', from.name, 'ping', '-c', '1', '-W', '1', to], {
        timeoutMs: WAIT_MS,
      })
    ).exitCode === 0;

  async function allReachEachOther(): Promise<void> {
    for (const from of pods)
      for (const to of pods)
        for (const address of to.addresses)
          await until(`${from.name} reaches ${to.name} at ${address}`, WAIT_MS, () =>
            ping(from, address),
          );
  }

  const blocks = async () => (await cluster.client.list(IP_BLOCK)).items;
  const problems = async () =>
    findAddressProblems({
      pools: (await cluster.client.list(IP_POOL)).items,
      blocks: await blocks(),
      nodes: (await cluster.client.list(NODE)).items,
      pods: [],
    });

  test('pods with borrowed addresses reach and are reached by all others, over both families', async () => {
    for (const machine of lab.hosts) await attach(machine, `p-${machine.name}`);
    await allReachEachOther();
    const lent = (await blocks()).flatMap(loansOf);
    // A pod and the tunnel, of each family, on each of the two machines that came late.
    assert.equal(lent.length, 8);
    assert.deepEqual([...new Set(lent.map((it) => it.node))].sort(), ['m2', 'm3']);
    assert.deepEqual(await problems(), []);
    const shown = await lab
      .machine('m1')
      .runOk(['ip', 'route', 'show', 'proto', '84', 'metric', '2048']);
    assert.equal(shown.trim().split('\n').length, 4, shown);
  });

  test('a packet to a lent address whose pod is gone is answered by the borrower, and does not circle', async () => {
    const [first] = pods;
    assert.ok(first !== undefined);
    const gone = await attach(lab.machine('m3'), 'gone');
    await until('it is reached', WAIT_MS, () => ping(first, gone.addresses[0] ?? ''));
    const link = (await gone.machine.runOk(['ip', '-o', 'route', 'get', gone.addresses[0] ?? '']))
      .match(/dev (\S+)/)
      ?.at(1);
    // An agent would make the link of a living pod again.
    await cluster.killAgent(gone.machine);
    await gone.machine.runOk(['ip', 'link', 'del', link ?? '']);
    const { stdout } = await first.machine.run(
      ['ip', 'netns', 'exec', first.name, 'ping', '-c', '1', '-W', '2', gone.addresses[0] ?? ''],
      { timeoutMs: WAIT_MS },
    );
    assert.match(stdout, /Host Unreachable/, stdout);
    await cluster.startAgent(gone.machine);
    await detach(gone);
    await until('no machine has a route for it', WAIT_MS, async () => {
      const routes = await Promise.all(
        lab.hosts.map((machine) => machine.runOk(['ip', 'route', 'show', 'proto', '84'])),
      );
      return !routes.join('\n').includes(gone.addresses[0] ?? '-');
    });
  });

  test('a borrower sends from no address but its own', async () => {
    const pod = pods.find((it) => it.machine.name === 'm2');
    const [target] = pods;
    assert.ok(pod !== undefined && target !== undefined);
    const inPod = ['ip', 'netns', 'exec', pod.name];
    await pod.machine.runOk([...inPod, 'ip', 'addr', 'add', '10.244.7.15/32', 'dev', 'eth0']);
    const { exitCode } = await pod.machine.run(
      [...inPod, 'ping', '-c', '1', '-W', '1', '-I', '10.244.7.15', target.addresses[0] ?? ''],
      { timeoutMs: WAIT_MS },
    );
    assert.notEqual(exitCode, 0);
    await pod.machine.runOk([...inPod, 'ip', 'addr', 'del', '10.244.7.15/32', 'dev', 'eth0']);
  });

  test('the full pool is a clear error, a strict one too, and what is lent outlives agents', async () => {
    const m2 = lab.machine('m2');
    await m2.runOk(['ip', 'netns', 'add', 'over']);
    let full = '';
    for (let i = 0; i < 16 && full === ''; i++)
      await attach(m2, `fill-${i}`).catch((error: Error) => {
        full = error.message;
      });
    // Some of the sixteen cool down: that of the test before, and any that an ADD had to exchange.
    assert.match(full, /1[3-6] of 16 addresses in use.*no other node has one to lend/);
    for (const pod of pods.filter((it) => it.name.startsWith('fill'))) await detach(pod);
    for (const pool of ['default-ipv4', 'default-ipv6'])
      await cluster.client.patch(
        IP_POOL,
        { name: pool },
        { type: 'application/merge-patch+json', body: { spec: { strictAffinity: true } } },
      );
    await until('strict is known', WAIT_MS, async () => {
      const { stdout } = await call(m2, 'ADD', 'over');
      return stdout.includes('strictAffinity');
    });
    for (const machine of lab.hosts) {
      await cluster.killAgent(machine);
      await cluster.startAgent(machine);
    }
    await cluster.nodesReady();
    await allReachEachOther();
    for (const pod of [...pods]) await detach(pod);
    // DEL is answered before the address is back.
    await until('no pod has an address', WAIT_MS, async () =>
      (await blocks())
        .flatMap(({ spec }) => Object.values(spec.allocations))
        .every((it) => it.purpose !== 'Pod'),
    );
  });
});
