/**
 * Beside the programs that configure a host's links, run for real: what they take away of ours comes back, what we tell
 * them they heed, and once they do, restarting or reloading them loses no packet.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { VXLAN_LINK } from '#lib/kernel-objects.ts';
import { addBridgeNetwork, BRIDGE_LINK, BRIDGE_NETWORK } from './bridge-network.ts';
import {
  type HostProgram,
  networkd,
  networkManager,
  startUdev,
  whyNoHostPrograms,
  writeEtc,
} from './host-programs.ts';
import { assertNothingLost, enterPod, startEcho, startStream } from './pod-traffic.ts';
import { DUAL_STACK } from './start-cluster.ts';
import type { TrafficReport } from './traffic.ts';

const NAME = 'test-host-progs';
const WAIT_MS = 20_000;
/** Of the kind that these programs take away: what tells that they were at work. */
const FOREIGN_ROUTE = '203.0.113.0/24 via 192.0.2.1 dev eth0';
const NETWORKD_OURS = '/etc/systemd/network/00-tulle.network';
const NETWORK_MANAGER_OURS = '/etc/NetworkManager/conf.d/90-tulle.conf';

const skip = whyNoHostPrograms();

describe('beside udev, systemd-networkd and NetworkManager', { skip }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  /** Has the other programs. */
  let host: Machine;
  let far: string;
  let systemd: HostProgram;
  let manager: HostProgram;

  before(async () => {
    await Lab.remove(NAME);
    lab = await Lab.create({ name: NAME, machines: 2 });
    cluster = new LabCluster(lab);
    host = lab.machine('m2');
    await startUdev(host);
    systemd = networkd(host);
    manager = networkManager(host);
    for (const machine of lab.hosts) preparePodman(machine);
    await cluster.startServer(DUAL_STACK);
    await cluster.startAgent(lab.machine('m1'));
    await cluster.nodesReady([lab.machine('m1')]);
  });
  after(() => Lab.remove(NAME));

  const sh = (script: string) => host.runOk(['sh', '-ec', script]);
  const routes = () => sh('ip route; ip -6 route show proto 84');
  const linksOfOurs = async () =>
    (await sh('ls /sys/class/net')).split('\n').filter((name) => /^(tulle|tl)/.test(name));

  async function traffic(during: () => Promise<void>): Promise<TrafficReport> {
    const end = await startStream(lab.machine('m1'), { container: 'client', to: far });
    await during();
    return end();
  }

  /** It does not heed us yet, or it was told to take what is not its own: what it takes comes back. */
  async function trafficFlows(): Promise<void> {
    await until('traffic flows', WAIT_MS, async () => {
      const { sent, lost, failed } = await traffic(() => pause(500));
      return sent > 0 && lost.length === 0 && failed.length === 0;
    });
  }

  async function restartAgent(): Promise<void> {
    const starts = () =>
      readFileSync(host.logFile('agent'), 'utf8').split('the node is ready for pods').length - 1;
    const before = starts();
    await cluster.stopAgent(host);
    await cluster.startAgent(host);
    await until('the agent is back', WAIT_MS, async () => starts() > before);
  }

  async function encapsulate(encapsulation: 'Always' | 'Never'): Promise<void> {
    for (const { metadata } of (await cluster.client.list(IP_POOL)).items)
      await cluster.client.patch(
        IP_POOL,
        { name: metadata.name },
        { type: 'application/merge-patch+json', body: { spec: { encapsulation } } },
      );
    const device = encapsulation === 'Always' ? VXLAN_LINK : 'eth0';
    // Of both families, whose pools change one after the other; IPv6 has no way on an uplink of IPv4.
    await until(`pods' routes are by ${device}`, WAIT_MS, async () => {
      const ways = (await routes())
        .split('\n')
        .filter((it) => /^(10\.244\.|fd00:10:244:)\S+ via /.test(it));
      return ways.length > 0 && ways.every((it) => it.includes(` dev ${device} `));
    });
  }

  test('networkd with a file for every link, there before the agent, does not stop it or its pods', async () => {
    const all = '[Match]\nName=*\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv6\n';
    const uplink = `[Match]\nName=eth0\n[Network]\nAddress=${host.address}/24\nGateway=192.0.2.1\n`;
    await writeEtc(host, 'systemd/network/90-all.network', all);
    await writeEtc(host, 'systemd/network/10-uplink.network', uplink);
    await systemd.start();
    await cluster.startAgent(host);
    await cluster.nodesReady();
    await runContainer(lab.machine('m1'), { name: 'client', role: 'client' });
    await runContainer(host, { name: 'server', role: 'client' });
    await until('the pod is known', WAIT_MS, async () => {
      far = (await cluster.client.get(POD, 'server', 'default')).status?.podIP ?? '';
      return far !== '';
    });
    await startEcho(host, 'server');
    assert.match((await systemd.stateOf(VXLAN_LINK)) ?? '', /^config/);
    await trafficFlows();
  });

  test('a bridge, whose name we cannot tell networkd, gets back what networkd takes of it', async () => {
    await addBridgeNetwork(host);
    await runContainer(host, { name: 'bridged', role: 'client', network: BRIDGE_NETWORK });
    const bridged = await enterPod(host, 'bridged');
    const monitor = await host.start('monitor', ['ip', 'monitor', 'address', 'dev', BRIDGE_LINK]);
    for (const change of [async () => undefined, () => systemd.restart()]) {
      await change();
      await until('networkd has taken the bridge', WAIT_MS, async () =>
        /^config/.test((await systemd.stateOf(BRIDGE_LINK)) ?? ''),
      );
      await until('the container reaches its gateway and beyond', WAIT_MS, async () => {
        await host.runOk([...bridged, 'ping', '-c', '1', '-W', '1', far]);
        return true;
      });
    }
    process.kill(monitor.pid, 'SIGTERM');
    assert.match(readFileSync(host.logFile('monitor'), 'utf8'), /Deleted .*10\.88\.0\.1/);
  });

  test('networkd takes nothing of ours any more when it has read the file that the agent wrote', async () => {
    await sh('networkctl reload');
    for (const link of await linksOfOurs())
      await until(`${link} is unmanaged`, WAIT_MS, async () => {
        return (await systemd.stateOf(link)) === 'unmanaged';
      });
    const report = await traffic(async () => {
      for (const change of [
        () => systemd.restart(),
        () => sh('networkctl reload'),
        restartAgent,
        () => systemd.restart(),
      ]) {
        await sh(`ip route replace ${FOREIGN_ROUTE}`);
        await change();
        await pause(300);
      }
    });
    assertNothingLost(report);
    assert.doesNotMatch(await routes(), /203\.0\.113/, 'networkd was not at work');
    assert.match(await routes(), /^unreachable 10\.244\.\S+ proto 84/m);
  });

  test('networkd that is restarted while no agent runs loses no packet between machines', async () => {
    await cluster.stopAgent(host);
    const report = await traffic(async () => {
      await systemd.restart();
      await pause(500);
    });
    assertNothingLost(report);
    await cluster.startAgent(host);
    await until('what networkd took is back', WAIT_MS, async () => {
      const now = await routes();
      return (
        /^unreachable 10\.244\.\S+ proto 84/m.test(now) && now.includes(` dev ${BRIDGE_LINK} `)
      );
    });
  });

  test('routes on the uplink that networkd takes come back', async () => {
    await encapsulate('Never');
    await sh(`ip route replace ${FOREIGN_ROUTE}`);
    const before = (await routes()).replace(`${FOREIGN_ROUTE} \n`, '');
    assert.match(before, /^10\.244\.\S+ via \S+ dev eth0 proto 84/m);
    await systemd.restart();
    await until('the routes are as before', WAIT_MS, async () => {
      assert.equal(await routes(), before);
      return true;
    });
    await trafficFlows();
    await encapsulate('Always');
    await systemd.stop();
  });

  test('NetworkManager leaves ours alone when it has read the file that the agent wrote', async () => {
    await sh(`rm ${NETWORK_MANAGER_OURS} ${NETWORKD_OURS}`);
    await manager.start();
    assert.match((await manager.stateOf(VXLAN_LINK)) ?? '', /^connected/);
    const report = await traffic(async () => {
      await restartAgent();
      await sh('nmcli general reload conf');
      for (const link of await linksOfOurs())
        await until(`${link} is unmanaged`, WAIT_MS, async () => {
          return (await manager.stateOf(link)) === 'unmanaged';
        });
      await manager.restart();
      await pause(300);
    });
    assertNothingLost(report);
    for (const link of await linksOfOurs()) assert.equal(await manager.stateOf(link), 'unmanaged');
  });

  test('NetworkManager that takes over the uplink takes our routes there, and they come back', async () => {
    await encapsulate('Never');
    await sh(`ip route replace ${FOREIGN_ROUTE}`);
    const ours = async () => (await routes()).split('\n').filter((it) => it.includes('proto 84'));
    const before = await ours();
    const address = `ipv4.method manual ipv4.addresses ${host.address}/24 ipv4.gateway 192.0.2.1`;
    await sh(`nmcli connection add type ethernet ifname eth0 con-name uplink ${address}`);
    await sh('nmcli connection up uplink');
    assert.doesNotMatch(await routes(), /203\.0\.113/, 'NetworkManager was not at work');
    await until('our routes are back', WAIT_MS, async () => `${await ours()}` === `${before}`);
    await trafficFlows();
    const report = await traffic(async () => {
      await manager.restart();
      await sh('nmcli device reapply eth0');
      await restartAgent();
    });
    assertNothingLost(report);
    await encapsulate('Always');
  });

  test('udev gives other links a MAC of its own policy, and ours keep theirs', async () => {
    const macs = async () =>
      (await sh('udevadm settle; ip -o link')).split('\n').filter((it) => / (tulle|tl)/.test(it));
    const before = await macs();
    assert.ok(before.length >= 2 && `${before}`.includes('ee:ee:ee:ee:ee:ee'));
    // `NET_ADDR_SET` (3): the kernel drew it, and then somebody set it.
    const origin = await sh(
      'ip link add name plain type bridge; udevadm settle; cat /sys/class/net/plain/addr_assign_type',
    );
    assert.equal(origin.trim(), '3', 'udev was not at work');
    await sh('udevadm trigger --subsystem-match=net --action=add');
    assert.deepEqual(await macs(), before);
  });
});

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
