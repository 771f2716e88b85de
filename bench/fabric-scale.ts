/**
 * What a node costs in a cluster of thousands: a real agent in a lab machine, a real server, and thousands of Node and
 * IPBlock objects of nodes that do not exist.
 *
 * - an agent that starts: from its process to every peer in the kernel, beside the same neighbours, FDB entries and routes
 *   loaded with `ip -batch` and `bridge -batch`; and the memory that it takes then;
 * - one node more and one less at that size: from the write to the API to the kernel;
 * - netlink messages that the fabric sends for it, and for a second look that finds all as it should be;
 * - 250 pods on one machine: attached, the agent's memory, and the agent's next start among them.
 *
 * usage: ./dev bench fabric-scale [NODES …]     needs root; by default 1000 and 5000
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { IP_BLOCK, type IPBlock, ipBlockName } from '#api/tulle/v1alpha1/ip-block.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { cidr, cidrAddress, ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { applyFabric } from '#node/fabric/apply.ts';
import { TUNNEL_ADDRESSES_ANNOTATION, VTEP_MAC_ANNOTATION } from '#node/fabric/objects.ts';
import { type FabricInput, planFabric, vtepMac } from '#node/fabric/plan.ts';

const SIZES = process.argv.slice(2).map(Number);
const LAB = 'bench-fabric';
const POOL = cidr('10.128.0.0/10');
/** Writes to the API at a time, while the objects are made. */
const WRITERS = 32;
const WAIT_MS = 240_000;
const ROUNDS = 5;

/** As many as a machine is commonly allowed, and as many calls at a time as a runtime makes. */
const PODS = 250;
const PODS_AT_ONCE = 30;

for (const size of SIZES.length > 0 ? SIZES : [1000, 5000]) await measure(size);
await measurePods();
process.exit();

/** A lab of one machine with the server, which is gone after it. */
async function onOneMachine(
  act: (cluster: LabCluster, machine: Machine) => Promise<void>,
): Promise<void> {
  await Lab.remove(LAB);
  const lab = await Lab.create({ name: LAB, machines: 1 });
  try {
    const cluster = new LabCluster(lab);
    await cluster.startServer(['--pod-cidr', POOL]);
    await act(cluster, lab.machine('m1'));
  } finally {
    await Lab.remove(LAB);
  }
}

function measure(count: number): Promise<void> {
  return onOneMachine(async (cluster, machine) => {
    using stack = openNetworkStack({ netns: machine.netns });
    const first = performance.now();
    await cluster.startAgent(machine);
    await until('the tunnel is there', WAIT_MS, async () => hasTunnel(stack));
    report('no other node: agent started, tunnel there', performance.now() - first, 'ms');
    await cluster.nodesReady();
    const alone = await agentMemory(machine);
    await cluster.killAgent(machine);
    await inParallel(count, async (n) => {
      await cluster.client.create(NODE, nodeObject(n));
      await cluster.client.create(IP_BLOCK, blockObject(n));
    });
    wipe(stack);
    const begin = performance.now();
    await cluster.startAgent(machine);
    await until('every peer is programmed', WAIT_MS, async () => peersIn(stack) === count);
    const joinMs = performance.now() - begin;
    const byHandMs = await loadByHand(machine, count);
    report(`${count} nodes: agent started, every peer programmed`, joinMs, 'ms', byHandMs);
    await cluster.nodesReady();
    const memory = await agentMemory(machine);
    report(`${count} nodes: agent's memory (RSS)`, memory, 'MB', alone, 'with no other node');
    const added: number[] = [];
    const removed: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const n = count + 1 + round;
      added.push(await timed(stack, n, false, () => cluster.client.create(NODE, nodeObject(n))));
      removed.push(
        await timed(stack, n, true, () => cluster.client.delete(NODE, { name: nodeName(n) })),
      );
    }
    report(`${count} nodes: one more, from the API to the kernel`, median(added), 'ms');
    report(`${count} nodes: one less, from the API to the kernel`, median(removed), 'ms');
    await cluster.killAgent(machine);
    countMessages(machine, count);
  });
}

/** The fabric alone, on the machine's kernel: how many messages it sends, and how long planning and writing take. */
function countMessages(machine: Machine, count: number): void {
  using stack = openNetworkStack({ netns: machine.netns });
  wipe(stack);
  const uplink = stack.links.get('eth0');
  if (uplink === undefined) throw new Error('the machine has no eth0');
  const input: FabricInput = {
    self: {
      ...{ name: 'm1', underlay: ip(machine.address), vtepMac: vtepMac('m1') },
      tunnelAddresses: [cidrAddress(POOL, 0)],
    },
    uplink: {
      ...{ index: uplink.index, mtuBytes: 1500, up: true, address: ip(machine.address) },
      subnet: cidr('192.0.2.0/24'),
    },
    others: Array.from({ length: count }, (_, i) => ({
      ...{ name: nodeName(i), underlay: underlayOf(i), vtepMac: vtepMac(nodeName(i)) },
      tunnelAddresses: [cidrAddress(blockOf(i), 0)],
    })),
    blocks: Array.from({ length: count }, (_, i) => ({ cidr: blockOf(i), node: nodeName(i) })),
    pools: [{ cidr: POOL, encapsulation: 'Always' }],
  };
  const planning: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const begin = performance.now();
    planFabric(input);
    planning.push(performance.now() - begin);
  }
  report(`${count} nodes: planning`, median(planning), 'ms');
  const begin = performance.now();
  const { changes } = applyFabric(stack, planFabric(input), uplink.index);
  report(`${count} nodes: planned and written`, performance.now() - begin, 'ms');
  const messages = changes.neighbours + changes.fdb + changes.routes;
  report(`${count} nodes: netlink messages that change something`, messages, 'messages');
  const again = performance.now();
  const second = applyFabric(stack, planFabric(input), uplink.index).changes;
  report(`${count} nodes: a look at everything`, performance.now() - again, 'ms');
  report(
    `${count} nodes: messages of the second look that change something`,
    second.neighbours + second.fdb + second.routes,
    'messages',
  );
}

/** The same by Debian's tools, in a namespace of its own. @returns milliseconds */
async function loadByHand(machine: Machine, count: number): Promise<number> {
  const ipLines: string[] = [];
  const bridgeLines: string[] = [];
  for (let n = 0; n < count; n++) {
    const gateway = cidrAddress(blockOf(n), 0);
    const mac = vtepMac(nodeName(n));
    ipLines.push(`neigh replace ${gateway} lladdr ${mac} dev vx nud permanent`);
    bridgeLines.push(`fdb replace ${mac} dev vx dst ${underlayOf(n)} self permanent`);
    ipLines.push(`route replace ${blockOf(n)} via ${gateway} dev vx onlink`);
  }
  writeFileSync(join(machine.directory, 'run/batch-ip'), `${ipLines.join('\n')}\n`);
  writeFileSync(join(machine.directory, 'run/batch-bridge'), `${bridgeLines.join('\n')}\n`);
  const setUp = `ip netns add hand && ip -n hand link add vx type vxlan id 9 dstport 4790 nolearning &&
    ip -n hand link set lo up && ip -n hand link set vx up`;
  const times: number[] = [];
  for (let round = 0; round < 3; round++) {
    await machine.runOk(['sh', '-c', setUp]);
    const begin = performance.now();
    await machine.runOk([
      ...['sh', '-ec', 'ip -n hand -batch /run/batch-ip; bridge -n hand -batch /run/batch-bridge'],
    ]);
    times.push(performance.now() - begin);
    await machine.runOk(['ip', 'netns', 'delete', 'hand']);
  }
  return median(times);
}

function wipe(stack: NetworkStack): void {
  const link = stack.links.get(VXLAN_LINK);
  if (link !== undefined) stack.links.delete(link.index);
  stack.routes.delete(stack.routes.list({ protocol: ROUTE_PROTOCOL, table: 254 }));
}

function hasTunnel(stack: NetworkStack): boolean {
  return stack.links.get(VXLAN_LINK) !== undefined;
}

function peersIn(stack: NetworkStack): number {
  const link = stack.links.get(VXLAN_LINK);
  return link === undefined ? 0 : stack.fdb.list(link.index).length;
}

/** @returns milliseconds from the call to the kernel's word that the node's FDB entry, its last object, came or went */
async function timed(
  stack: NetworkStack,
  n: number,
  deleted: boolean,
  act: () => Promise<unknown>,
): Promise<number> {
  const mac = vtepMac(nodeName(n));
  const done = Promise.withResolvers<number>();
  const unwatch = stack.watch((event) => {
    if (event.type === 'fdb' && event.entry.mac === mac && event.deleted === deleted)
      done.resolve(performance.now());
  });
  const begin = performance.now();
  await act();
  const end = await done.promise;
  unwatch();
  return end - begin;
}

/** Many pods on one machine, attached by the plugin's file as a runtime calls it. */
function measurePods(): Promise<void> {
  return onOneMachine(async (cluster, machine) => {
    await cluster.startAgent(machine);
    await cluster.nodesReady();
    const before = await agentMemory(machine);
    writeFileSync(
      join(machine.directory, 'run/add.sh'),
      `ip netns add $1
CNI_COMMAND=ADD CNI_CONTAINERID=$1 CNI_NETNS=/run/netns/$1 CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin /opt/cni/bin/tulle \\
  <<'END'
{"cniVersion":"1.0.0","name":"tulle","type":"tulle"}
END
`,
    );
    const all = `seq -f p%g ${PODS} | xargs -P ${PODS_AT_ONCE} -n 1 sh -e /run/add.sh`;
    const begin = performance.now();
    await machine.runOk(['sh', '-ec', all], { timeoutMs: WAIT_MS });
    report(`${PODS} pods: attached, ${PODS_AT_ONCE} at a time`, performance.now() - begin, 'ms');
    const memory = await agentMemory(machine);
    report(`${PODS} pods: agent's memory (RSS)`, memory, 'MB', before, 'with no pod');
    const starts = () =>
      readFileSync(machine.logFile('agent'), 'utf8').split('the node is ready for pods').length;
    const was = starts();
    await cluster.stopAgent(machine);
    const start = performance.now();
    await cluster.startAgent(machine);
    await until('the next agent is ready', WAIT_MS, async () => starts() > was);
    report(`${PODS} pods: agent started again, ready`, performance.now() - start, 'ms');
  });
}

/** @returns MB that the machine's agent has resident */
async function agentMemory(machine: Machine): Promise<number> {
  const script = `for p in /proc/[0-9]*; do
    tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'tulle.ts agent' && grep VmRSS $p/status; done`;
  const { stdout } = await machine.run(['sh', '-c', script]);
  // The shell that looks carries the words in its own command line; it is small.
  const sizes = [...stdout.matchAll(/VmRSS:\s*(\d+)/g)].map((match) => Number(match[1]));
  return Math.max(...sizes) / 1024;
}

async function inParallel(count: number, act: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const work = async () => {
    while (next < count) await act(next++);
  };
  await Promise.all(Array.from({ length: WRITERS }, work));
}

function nodeName(n: number): string {
  return `node-${n}`;
}

function underlayOf(n: number) {
  return cidrAddress(cidr('198.18.0.0/15'), n + 1);
}

/** The lab's own machine takes the first blocks. */
function blockOf(n: number) {
  return cidr(`${cidrAddress(POOL, (n + 1024) * 64)}/26`);
}

function nodeObject(n: number): Node {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: nodeName(n),
      annotations: {
        [TUNNEL_ADDRESSES_ANNOTATION]: cidrAddress(blockOf(n), 0),
        [VTEP_MAC_ANNOTATION]: vtepMac(nodeName(n)),
      },
    },
    status: { addresses: [{ type: 'InternalIP', address: underlayOf(n) }] },
  };
}

function blockObject(n: number): IPBlock {
  return {
    apiVersion: 'tulle.dev/v1alpha1',
    kind: 'IPBlock',
    metadata: { name: ipBlockName(blockOf(n)) },
    spec: {
      ...{ cidr: blockOf(n), pool: 'default-ipv4', node: nodeName(n), affinity: 'Confirmed' },
      ...{ sequence: 1, free: Array.from({ length: 63 }, (_, i) => i + 1), releasedAt: {} },
      allocations: {
        '0': {
          ...{ handle: `tunnel.${nodeName(n)}`, sequence: 1, since: '2026-01-01T00:00:00Z' },
          ...{ node: nodeName(n), purpose: 'Tunnel' },
        },
      },
    },
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

function report(
  name: string,
  value: number,
  unit: string,
  peerValue?: number,
  peer = 'ip -batch and bridge -batch',
): void {
  const line = { bench: 'fabric-scale', case: name, value: Math.round(value * 100) / 100, unit };
  console.log(
    JSON.stringify(
      peerValue === undefined
        ? line
        : {
            ...line,
            peer,
            peer_value: Math.round(peerValue * 100) / 100,
            ratio: value / peerValue,
          },
    ),
  );
}
