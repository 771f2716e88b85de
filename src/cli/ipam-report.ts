/** What `tulle ipam` says about addresses: who holds which, since when and why, and what is wrong. Pure. */
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { IPAllocation, IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { loansOf } from '#api/tulle/v1alpha1/ip-block-loan.ts';
import { type IPPool, parseReserved } from '#api/tulle/v1alpha1/ip-pool.ts';
import {
  type Cidr,
  cidr,
  cidrAddress,
  cidrContains,
  cidrSize,
  cidrsOverlap,
  type Ip,
  ipToBigInt,
  networkAddress,
  parseCidr,
} from '#lib/ip.ts';
import { formatColumns } from './output.ts';

export interface IpamInput {
  readonly pools: readonly IPPool[];
  readonly blocks: readonly IPBlock[];
  readonly nodes: readonly Node[];
  readonly pods: readonly Pod[];
}

/** How full each pool and each node's blocks are. */
export function formatPools({ pools, blocks }: IpamInput): string {
  const ofPool = (pool: IPPool) => blocks.filter((it) => it.spec.pool === pool.metadata.name);
  const poolRows = pools.map((pool) => {
    const mine = ofPool(pool);
    const used = mine.reduce((sum, it) => sum + Object.keys(it.spec.allocations).length, 0);
    return [
      pool.metadata.name,
      pool.spec.cidr,
      `${used}/${cidrSize(cidr(pool.spec.cidr))}`,
      String(mine.length),
      String(pool.spec.reserved?.length ?? 0),
      String(pool.spec.strictAffinity ?? false),
      String(pool.spec.disabled ?? false),
    ];
  });
  const blockRows = blocks.map((block) => {
    const { spec } = block;
    return [
      spec.cidr,
      spec.pool,
      spec.node || '<none>',
      `${Object.keys(spec.allocations).length}/${cidrSize(cidr(spec.cidr))}`,
      String(Object.values(spec.allocations).filter((it) => it.purpose === 'Warm').length),
      lentTo(block) || '<none>',
      String(Object.keys(spec.releasedAt).length),
      spec.affinity,
    ];
  });
  return [
    formatColumns([
      ['POOL', 'CIDR', 'USED', 'BLOCKS', 'RESERVED', 'STRICT', 'DISABLED'],
      ...poolRows,
    ]),
    '',
    formatColumns([
      ['BLOCK', 'POOL', 'NODE', 'USED', 'WARM', 'LENT-TO', 'RELEASED', 'AFFINITY'],
      ...blockRows,
    ]),
  ].join('\n');
}

/** `m2:3,m3:1`: how many addresses of the block which other nodes have. */
function lentTo(block: IPBlock): string {
  const counts = new Map<string, number>();
  for (const { node } of loansOf(block))
    if (node !== block.spec.node) counts.set(node, (counts.get(node) ?? 0) + 1);
  return [...counts].map(([node, count]) => `${node}:${count}`).join(',');
}

/** What is worth knowing and no fault: a sentence for each address that is lent. */
export function explainLoans({ blocks }: IpamInput): string[] {
  return blocks.flatMap((block) =>
    loansOf(block)
      .filter(({ node }) => node !== block.spec.node)
      .map(
        ({ address, node, allocation }) =>
          `${address} of block ${block.spec.cidr} of ${ownerOf(block)} is lent to node "${node}" since ${allocation.since}, for ${userOf(allocation)}`,
      ),
  );
}

function ownerOf({ spec }: IPBlock): string {
  return spec.node === '' ? 'nobody' : `node "${spec.node}"`;
}

function userOf({ purpose, namespace, pod, handle }: IPAllocation): string {
  if (purpose === 'Tunnel') return 'its own address on the fabric';
  if (purpose === 'Warm') return 'a pod to come';
  return pod === undefined ? handle : `pod ${namespace ?? 'default'}/${pod}`;
}

/** One address in words. */
export function explainAddress(input: IpamInput, address: Ip): string {
  const pool = input.pools.find((it) => cidrContains(cidr(it.spec.cidr), address));
  if (pool === undefined) return `${address} is in no IPPool`;
  const lines = [`${address} is of pool "${pool.metadata.name}" (${pool.spec.cidr})`];
  const reserved = (pool.spec.reserved ?? []).find((text) => {
    const prefix = parseReserved(text);
    return prefix !== undefined && cidrContains(prefix, address);
  });
  if (reserved !== undefined) lines.push(`reserved by "${reserved}": only for who asks for it`);
  const found = findAllocation(input.blocks, address);
  if (found === undefined) return [...lines, 'no node has claimed its block'].join('\n');
  const { block, ordinal, allocation } = found;
  lines.push(`block ${block.spec.cidr} of ${ownerOf(block)}, ${block.spec.affinity}`);
  if (allocation !== undefined && allocation.node !== block.spec.node)
    lines.push(
      `lent to node "${allocation.node}": every other node has a route for this address alone`,
    );
  if (allocation !== undefined) return [...lines, ...describe(allocation)].join('\n');
  const released = block.spec.releasedAt[ordinal];
  lines.push(released === undefined ? 'free' : `free, released ${released}`);
  return lines.join('\n');
}

/** What does not fit together, a sentence each. */
export function findAddressProblems(input: IpamInput): string[] {
  return [
    ...input.blocks.flatMap((block) => blockProblems(block, input)),
    ...overlapProblems(input.blocks),
    ...allocationProblems(input),
    ...podProblems(input),
  ];
}

/** The block of an address, and its allocation if it has one. */
export function findAllocation(
  blocks: readonly IPBlock[],
  address: Ip,
): { block: IPBlock; ordinal: string; allocation: IPAllocation | undefined } | undefined {
  const block = blocks.find((it) => cidrContains(cidr(it.spec.cidr), address));
  if (block === undefined) return undefined;
  const first = networkAddress(cidr(block.spec.cidr));
  const ordinal = String(ipToBigInt(address) - ipToBigInt(first));
  return { block, ordinal, allocation: block.spec.allocations[ordinal] };
}

/** Why an address that is in use should not be given back by hand, and what to do instead. */
export function whyNotRelease(
  { pods, nodes }: Pick<IpamInput, 'pods' | 'nodes'>,
  address: Ip,
  { purpose, node }: IPAllocation,
): { readonly reason: string; readonly hint: string } | undefined {
  const users = podsWith(pods, address).map((it) => `${it.metadata.namespace}/${it.metadata.name}`);
  if (users.length > 0)
    return {
      reason: `pod ${users.join(', ')} has it`,
      hint: 'Remove the pod, or give --force if it does not exist any more.',
    };
  if (purpose === 'Warm')
    return {
      reason: `node "${node}" keeps it for a pod to come`,
      hint: 'The node gives it out next, or gives it back itself. Give --force if that node does not exist any more.',
    };
  if (purpose === 'Tunnel' && nodes.some((it) => it.metadata.name === node))
    return {
      reason: `it is the own address of node "${node}" on the fabric`,
      hint: `It is given back when the node is deleted: kubectl delete node ${node}`,
    };
  return undefined;
}

/** Pods that say they have the address. */
function podsWith(pods: readonly Pod[], address: string): Pod[] {
  return pods.filter(
    ({ spec, status }) =>
      spec.hostNetwork !== true && (status?.podIPs ?? []).some(({ ip }) => ip === address),
  );
}

function describe(allocation: IPAllocation): string[] {
  const { handle, since, node, purpose, namespace, pod, containerID, ifName } = allocation;
  const lines = [`in use since ${since} on node "${node}"`];
  if (purpose === 'Tunnel') lines.push("the node's own address on the fabric");
  if (purpose === 'Warm') lines[0] = `kept by node "${node}" since ${since} for a pod to come`;
  if (pod !== undefined) lines.push(`for pod ${namespace ?? 'default'}/${pod}`);
  if (containerID !== undefined) lines.push(`container ${containerID}, interface ${ifName ?? '?'}`);
  return [...lines, `handle ${handle}`];
}

function blockProblems({ spec }: IPBlock, { pools, nodes }: IpamInput): string[] {
  const problems: string[] = [];
  const pool = pools.find((it) => it.metadata.name === spec.pool);
  if (pool === undefined)
    problems.push(`block ${spec.cidr} is of pool "${spec.pool}", which does not exist`);
  else if (!cidrContains(cidr(pool.spec.cidr), networkAddress(cidr(spec.cidr))))
    problems.push(`block ${spec.cidr} is not inside its pool ${pool.spec.cidr}`);
  if (spec.node !== '' && !nodes.some((it) => it.metadata.name === spec.node))
    problems.push(`block ${spec.cidr} belongs to node "${spec.node}", which does not exist`);
  const total = Object.keys(spec.allocations).length + spec.free.length;
  if (BigInt(total) !== cidrSize(cidr(spec.cidr)))
    problems.push(
      `block ${spec.cidr} accounts for ${total} of ${cidrSize(cidr(spec.cidr))} addresses`,
    );
  return problems;
}

function overlapProblems(blocks: readonly IPBlock[]): string[] {
  const sorted = blocks
    .flatMap(({ spec }) => parseCidr(spec.cidr) ?? [])
    .sort((a, b) => compareAddresses(a, b));
  return sorted.flatMap((prefix, i) => {
    const next = sorted[i + 1];
    return next !== undefined && cidrsOverlap(prefix, next)
      ? [`blocks ${prefix} and ${next} overlap`]
      : [];
  });
}

function compareAddresses(a: Cidr, b: Cidr): number {
  const [x, y] = [ipToBigInt(networkAddress(a)), ipToBigInt(networkAddress(b))];
  return x < y ? -1 : x > y ? 1 : 0;
}

function allocationProblems({ blocks, nodes, pools }: IpamInput): string[] {
  const seen = new Map<string, Ip>();
  return blocks.flatMap(({ spec }) =>
    Object.entries(spec.allocations).flatMap(([ordinal, allocation]) => {
      const prefix = cidr(spec.cidr);
      const address = cidrAddress(prefix, Number(ordinal));
      const problems: string[] = [];
      const isLent = allocation.node !== spec.node;
      if (isLent && !nodes.some((it) => it.metadata.name === allocation.node))
        problems.push(`${address} is lent to node "${allocation.node}", which does not exist`);
      const pool = pools.find((it) => it.metadata.name === spec.pool);
      if (isLent && spec.node !== '' && pool?.spec.strictAffinity === true)
        problems.push(
          `${address} of a block of node "${spec.node}" is lent to "${allocation.node}", though pool "${spec.pool}" is strict by now; it stays until its pod is gone`,
        );
      // Two machines may name their containers the same.
      const key = `${address.includes(':') ? 6 : 4} ${allocation.node} ${allocation.handle}`;
      const other = seen.get(key);
      if (other !== undefined && allocation.purpose !== 'Warm')
        problems.push(
          `"${allocation.handle}" has two addresses of one family: ${other}, ${address}`,
        );
      seen.set(key, address);
      return problems;
    }),
  );
}

function podProblems({ pods, pools, blocks }: IpamInput): string[] {
  const owners = new Map<string, string>();
  return pods.flatMap((pod) => {
    const { phase, podIPs = [] } = pod.status ?? {};
    if (pod.spec.hostNetwork === true || phase === 'Succeeded' || phase === 'Failed') return [];
    const name = `${pod.metadata.namespace}/${pod.metadata.name}`;
    return podIPs.flatMap(({ ip }) => {
      const problems: string[] = [];
      const other = owners.get(ip);
      if (other !== undefined) problems.push(`pods ${other} and ${name} both have ${ip}`);
      owners.set(ip, name);
      const address = ip as Ip;
      if (!pools.some((it) => cidrContains(cidr(it.spec.cidr), address))) return problems;
      if (findAllocation(blocks, address)?.allocation === undefined)
        problems.push(`pod ${name} has ${ip}, which is not allocated`);
      return problems;
    });
  });
}
