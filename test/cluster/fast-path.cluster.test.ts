/**
 * The fast path between pods in a cluster: on one machine, across machines by VXLAN and by routes, in both families;
 * and that nothing hangs on it: agents that are killed, and an agent without it.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { startEcho, startStream } from './pod-traffic.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const LAB = 'test-fast';
const WAIT_MS = 20_000;
const METRICS = ['curl', '-s', '127.0.0.1:9963/metrics'];
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe('the fast path in a cluster', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let m2: Machine;
  /** Addresses of pods, IPv4 first. */
  const addresses = new Map<string, readonly string[]>();

  before(async () => {
    ({ lab, cluster } = await startCluster({ name: LAB, machines: 2, serverFlags: DUAL_STACK }));
    [m1, m2] = [lab.machine('m1'), lab.machine('m2')];
    for (const [machine, name] of [
      [m1, 'client'],
      [m1, 'near'],
      [m2, 'far'],
    ] as const) {
      await runContainer(machine, { name, role: 'client' });
      await until(`the pod "${name}" has two addresses`, WAIT_MS, async () => {
        const pod = await cluster.client.get(POD, name, 'default');
        addresses.set(
          name,
          (pod.status?.podIPs ?? []).map(({ ip }) => ip),
        );
        return addresses.get(name)?.length === 2;
      });
      if (name !== 'client') await startEcho(machine, name);
    }
    await pause(1_000); // until the echoes are up
  });
  after(() => Lab.remove(LAB));

  /** Packets that the agent's fast path has taken; undefined without one. */
  async function taken(machine: Machine, to: 'pod' | 'node'): Promise<number | undefined> {
    const { stdout } = await machine.run(METRICS);
    const line = new RegExp(`^tulle_fast_path_packets_total\\{to="${to}"\\} (\\d+)$`, 'm');
    const [, count] = line.exec(stdout) ?? [];
    return count === undefined ? undefined : Number(count);
  }
  /** UDP and TCP between pods while something happens; nothing is lost. */
  async function traffic(to: string, during: () => Promise<void>): Promise<number> {
    const end = await startStream(m1, { container: 'client', to, log: `to-${to}` });
    await during();
    const { lost, failed, sent, connections } = await end();
    assert.deepEqual([lost, failed], [[], []]);
    assert.ok(sent > 50 && connections > 5, `${sent} packets, ${connections} connections`);
    return sent;
  }
  /** What each machine's fast path takes of traffic to an address. */
  async function takenOf(
    to: string,
    places: readonly (readonly [machine: Machine, to: 'pod' | 'node'])[],
  ): Promise<void> {
    const before = await Promise.all(places.map(([machine, way]) => taken(machine, way)));
    const sent = await traffic(to, () => pause(2_000));
    for (const [i, [machine, way]] of places.entries()) {
      const more = ((await taken(machine, way)) ?? 0) - (before[i] ?? 0);
      // Most; the first of a connection, and some until it is a stream, go the long way.
      assert.ok(more > sent / 2, `${machine.name} took ${more} of ${sent} to a ${way}`);
    }
  }

  for (const [i, family] of ['IPv4', 'IPv6'].entries()) {
    test(`between pods of one machine, ${family}`, () =>
      takenOf(addresses.get('near')?.[i] ?? '', [[m1, 'pod']]));
    test(`across machines by VXLAN, ${family}`, () =>
      takenOf(addresses.get('far')?.[i] ?? '', [
        [m1, 'node'],
        [m1, 'pod'],
        [m2, 'node'],
        [m2, 'pod'],
      ]));
  }

  test('agents that are killed under traffic: it goes on without, and again with', async () => {
    const to = addresses.get('far')?.[0] ?? '';
    await traffic(to, async () => {
      for (const machine of [m1, m2]) {
        await cluster.killAgent(machine);
        await pause(300);
        await cluster.startAgent(machine);
        await until('packets are taken again', WAIT_MS, async () => {
          const [pod = 0, node = 0] = [await taken(machine, 'pod'), await taken(machine, 'node')];
          return pod > 50 && node > 50;
        });
      }
    });
  });

  test('across machines by routes, changed under traffic', async () => {
    const to = addresses.get('far')?.[0] ?? '';
    await traffic(to, async () => {
      await cluster.client.patch(
        IP_POOL,
        { name: 'default-ipv4' },
        { type: 'application/merge-patch+json', body: { spec: { encapsulation: 'Never' } } },
      );
      await until('the route leads over the uplink', WAIT_MS, async () => {
        const { stdout } = await m1.run(['ip', 'route', 'get', to]);
        return stdout.includes('dev eth0');
      });
    });
    await takenOf(to, [
      [m1, 'node'],
      [m2, 'pod'],
    ]);
  });

  test('--no-fast-path: all goes the long way, and the metrics say nothing of it', async () => {
    await cluster.stopAgent(m1);
    await cluster.startAgent(m1, { flags: ['--no-fast-path'] });
    await cluster.nodesReady([m1]);
    await until('its metrics are there', WAIT_MS, async () => {
      const { stdout } = await m1.run(METRICS);
      return stdout.includes('tulle_policy_pods');
    });
    await traffic(addresses.get('near')?.[0] ?? '', () => pause(500));
    assert.equal(await taken(m1, 'pod'), undefined);
  });
});
