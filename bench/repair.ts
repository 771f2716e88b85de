/**
 * How long somebody's damage to the network of a node lasts: for each class of objects that Tulle owns, from the damage to
 * the moment when all is as before. The goal is 100 ms for 99 of 100.
 *
 * usage: ./dev bench repair [ROUNDS]     needs root; 20 rounds by default
 */
import { performance } from 'node:perf_hooks';
import { POD } from '#api/core/v1/pod.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import { ip } from '#lib/ip.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { DAMAGES, type Damage, SILENT_DAMAGES, type Victim } from '../test/cluster/damages.ts';

const ROUNDS = Number(process.argv[2] ?? 20);
const LAB = 'bench-repair';
const GOAL_MS = 100;
/** Between two damages: what the agent does after one must not be counted to the next. */
const PAUSE_MS = 50;
const WAIT_MS = 60_000;

await Lab.remove(LAB);
const lab = await Lab.create({ name: LAB, machines: 2 });
try {
  const cluster = new LabCluster(lab);
  const m1 = lab.machine('m1');
  await cluster.startServer();
  for (const machine of lab.hosts) {
    preparePodman(machine);
    await cluster.startAgent(machine);
  }
  await cluster.nodesReady();
  await runContainer(m1, { name: 'pod', role: 'client' });
  let podIp = '';
  await until('the pod is known', WAIT_MS, async () => {
    const { items } = await cluster.client.list(POD, { namespace: 'default' });
    podIp = items.find((pod) => pod.metadata.name === 'pod')?.status?.podIP ?? '';
    return podIp !== '';
  });
  using stack = openNetworkStack({ netns: m1.netns });
  using nftables = openNftables({ netns: m1.netns });
  const hostLink = stack.links.list().find(({ name }) => /^tl[0-9a-f]{11}$/.test(name))?.name ?? '';
  const victim: Victim = { stack, nftables, hostLink, podIp: ip(podIp) };
  const all: number[] = [];
  for (const damage of DAMAGES) {
    // Without IPv6 pods there is no such address.
    if (damage.what.includes('fe80::1')) continue;
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) times.push(await repairTime(damage, victim));
    all.push(...times);
    report(`${damage.kind}: ${damage.what}`, times);
  }
  report('all of them', all);
  for (const damage of SILENT_DAMAGES) {
    if (stack.sysctl.get(`net/ipv6/conf/${hostLink}/accept_ra`) !== '0') continue;
    report(`${damage.kind} without an event: ${damage.what}`, [await repairTime(damage, victim)]);
  }
} finally {
  await Lab.remove(LAB);
}
process.exit();

async function repairTime(damage: Damage, victim: Victim): Promise<number> {
  const before = damage.look(victim);
  const begin = performance.now();
  damage.act(victim);
  while (damage.look(victim) !== before) {
    if (performance.now() - begin > WAIT_MS) throw new Error(`${damage.what}: not repaired`);
    // The agent is another process; there are few processors.
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const time = performance.now() - begin;
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  return time;
}

function report(name: string, times: readonly number[]): void {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  for (const [quantile, share] of [
    ['p50', 0.5],
    ['p99', 0.99],
  ] as const) {
    const value = Math.round(at(share) * 100) / 100;
    const line = { bench: 'repair', case: `${name}, ${quantile}`, value, unit: 'ms' };
    console.log(
      JSON.stringify({ ...line, peer: 'the goal', peer_value: GOAL_MS, ratio: value / GOAL_MS }),
    );
  }
}
