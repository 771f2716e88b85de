/** `tulle uninstall` leaves a machine as it was: shown by a diff of what `ip`, `nft`, `sysctl` and `find` say. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { LabCluster } from '#lab/cluster.ts';
import { preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { addBridgeNetwork, BRIDGE_NETWORK } from './bridge-network.ts';

const TULLE = join(import.meta.dirname, '../../src/bin/tulle.ts');
const UNINSTALL = [process.execPath, '--disable-warning=ExperimentalWarning', TULLE, 'uninstall'];

let lab: Lab;
let cluster: LabCluster;
let machine: Machine;
before(async () => {
  await Lab.remove('test-uninst');
  lab = await Lab.create({ name: 'test-uninst', machines: 1 });
  cluster = new LabCluster(lab);
  machine = lab.machine('m1');
  preparePodman(machine);
});
after(() => Lab.remove('test-uninst'));

test('a machine that Tulle came to and left is as before', async () => {
  // The folders that container runtimes share are not ours to remove.
  await machine.runOk(['mkdir', '-p', '/opt/cni/bin', '/etc/cni/net.d', '/run/netns']);
  // Another program's firewall, in which we put rules.
  await machine.runOk(['iptables', '-P', 'FORWARD', 'DROP']);
  // An administrator's own network, whose bridge we make.
  await addBridgeNetwork(machine);
  const untouched = await snapshot(machine);
  await cluster.startServer([
    ...['--pod-cidr', '10.244.0.0/16', '--pod-cidr', 'fd00:10:244::/56'],
    ...['--service-cidr', '10.96.0.0/16', '--service-cidr', 'fd00:10:96::/112'],
  ]);
  await cluster.startAgent(machine);
  await cluster.nodesReady();
  await runContainer(machine, { name: 'pod', role: 'client' });
  await runContainer(machine, { name: 'on-lan', role: 'client', network: BRIDGE_NETWORK });
  const installed = await snapshot(machine);
  assert.notDeepEqual(installed, untouched);
  assert.ok(installed.ruleset?.join().includes('TULLE-FORWARD'));

  const running = await machine.run(UNINSTALL);
  assert.equal(running.exitCode, 1);
  assert.match(running.stderr, /An agent is running/);
  await cluster.killAgent(machine);
  await cluster.killServer();
  const attached = await machine.run(UNINSTALL);
  assert.equal(attached.exitCode, 1);
  assert.match(attached.stderr, /2 containers of this machine would lose their network/);

  await machine.runOk([...UNINSTALL, '--force', '--server-data']);
  await machine.run(['podman', 'rm', '--force', '--time', '0', 'pod', 'on-lan']);
  assert.deepEqual(await snapshot(machine), untouched);
  assert.match(await machine.runOk(UNINSTALL), /there is nothing of Tulle/);
});

/**
 * Everything that could differ, as lines; without counters and times, the kernel's own link-local addresses (which
 * come a second after their link) and the lock file of the runtime's CNI library.
 */
async function snapshot(machine: Machine): Promise<Record<string, string[]>> {
  const lines = async (...argv: string[]) =>
    (await machine.runOk(argv))
      .split('\n')
      .filter((line) => line !== '' && !line.includes('fe80:') && !line.endsWith('/cni.lock'))
      .sort();
  const settings = await lines('sh', '-c', 'sysctl -a 2>/dev/null | grep "^net\\."');
  return {
    links: await lines('ip', '-o', '-d', 'link'),
    addresses: await lines('sh', '-c', "ip -o addr | sed 's/valid_lft.*//'"),
    routes: await lines('ip', 'route', 'show', 'table', 'all'),
    routes6: await lines('sh', '-c', "ip -6 route show table all | sed 's/expires.*//'"),
    rules: await lines('ip', 'rule'),
    rules6: await lines('ip', '-6', 'rule'),
    neighbours: await lines('ip', 'neigh', 'show', 'nud', 'permanent'),
    ruleset: await lines('nft', 'list', 'ruleset'),
    settings: settings.filter((line) => !VOLATILE.test(line)),
    files: await lines(
      ...['find', '/opt', '/etc/cni', '/etc/systemd/network', '/var/lib/tulle', '-mindepth', '1'],
    ),
    run: await lines('find', '/run', '-maxdepth', '1', '-name', '*tulle*'),
  };
}

/** Figures and seeds that move by themselves, and limits that follow the memory. */
const VOLATILE = /nf_conntrack_count|stable_secret|tcp_fastopen_key|\.app_solicit/;
