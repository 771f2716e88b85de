/** The screen of `tulle status`. Pure: from API objects to text. */
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import { type EndpointSlice, SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { cidrSize, parseCidr } from '#lib/ip.ts';
import { formatColumns } from './output.ts';

export interface StatusInput {
  readonly server: string;
  readonly nodes: readonly Node[];
  readonly pods: readonly Pod[];
  readonly services: readonly Service[];
  readonly slices: readonly EndpointSlice[];
  readonly pools: readonly IPPool[];
  readonly blocks: readonly IPBlock[];
}

/** Conditions that the agent reports of its parts, in the order of columns. */
const PARTS = [
  ['FabricReady', 'FABRIC'],
  ['ServicesReady', 'SERVICES'],
  ['DNSReady', 'DNS'],
  ['PolicyReady', 'POLICY'],
  ['CNIReady', 'CNI'],
] as const;

export function formatStatus(input: StatusInput): string {
  const problems = findProblems(input);
  const sections = [
    `${input.server}   ${count(input.nodes, 'node')}, ${count(input.pods, 'pod')}, ${count(input.services, 'service')}`,
    section('NODES', nodeRows(input)),
    section('SERVICES', serviceRows(input)),
    section('ADDRESSES', poolRows(input)),
    problems.length === 0
      ? 'nothing is wrong'
      : `WRONG\n${problems.map((problem) => `  ${problem}`).join('\n')}`,
  ];
  return sections.join('\n\n');
}

/** What is wrong and why, a line each; empty if all is well. */
export function findProblems(input: StatusInput): string[] {
  const problems: string[] = [];
  if (input.nodes.length === 0)
    problems.push("no node has joined: run 'tulle agent' on each machine with the join token");
  for (const node of input.nodes) {
    for (const condition of node.status?.conditions ?? []) {
      // Of kinds that others set (MemoryPressure …), False may well be good.
      const good = condition.type === 'Ready' || PARTS.some(([type]) => type === condition.type);
      if (good && condition.status !== 'True')
        problems.push(`node ${node.metadata.name}: ${condition.type}: ${condition.message}`);
    }
  }
  for (const service of input.services) {
    const name = `${service.metadata.namespace}/${service.metadata.name}`;
    const selector = service.spec.selector;
    if (selector === undefined || Object.keys(selector).length === 0) continue;
    const { ready, all } = endpointCounts(service, input.slices);
    const text = Object.entries(selector)
      .map(([key, value]) => `${key}=${value}`)
      .join(',');
    if (all === 0) problems.push(`service ${name}: no pod has the labels ${text}`);
    else if (ready === 0) problems.push(`service ${name}: none of its ${all} endpoints is ready`);
  }
  for (const pool of input.pools) {
    const usage = poolUsage(pool, input.blocks);
    if (usage.used >= usage.total)
      problems.push(`pool ${pool.metadata.name}: all ${usage.total} addresses are in use`);
    if (pool.spec.disabled) problems.push(`pool ${pool.metadata.name}: disabled`);
  }
  return problems;
}

function nodeRows({ nodes, pods, blocks }: StatusInput): string[][] {
  const header = [
    'NAME',
    'STATUS',
    'ADDRESS',
    'PODS',
    'BLOCKS',
    ...PARTS.map(([, title]) => title),
  ];
  return [
    header,
    ...nodes.map((node) => {
      const { name } = node.metadata;
      const conditions = node.status?.conditions ?? [];
      const ready = conditions.find((condition) => condition.type === 'Ready');
      return [
        name,
        ready?.status === 'True' ? 'Ready' : ready?.status === 'Unknown' ? 'Unknown' : 'NotReady',
        node.status?.addresses?.find((address) => address.type === 'InternalIP')?.address ?? '-',
        String(pods.filter((pod) => pod.spec?.nodeName === name).length),
        blocks
          .filter((block) => block.spec.node === name)
          .map((block) => block.spec.cidr)
          .join(' ') || '-',
        ...PARTS.map(([type]) => {
          const part = conditions.find((condition) => condition.type === type);
          return part === undefined
            ? '-'
            : part.status === 'True'
              ? (part.message ?? 'ok')
              : 'FAILING';
        }),
      ];
    }),
  ];
}

function serviceRows({ services, slices }: StatusInput): string[][] {
  return [
    ['NAME', 'CLUSTER-IP', 'PORTS', 'READY'],
    ...services.map((service) => {
      const { ready, all } = endpointCounts(service, slices);
      return [
        `${service.metadata.namespace}/${service.metadata.name}`,
        (service.spec.clusterIPs ?? [service.spec.clusterIP ?? '-']).join(' '),
        (service.spec.ports ?? [])
          .map((port) => `${port.port}/${port.protocol ?? 'TCP'}`)
          .join(' ') || '-',
        service.spec.selector === undefined && all === 0 ? '-' : `${ready}/${all}`,
      ];
    }),
  ];
}

function poolRows({ pools, blocks }: StatusInput): string[][] {
  return [
    ['POOL', 'CIDR', 'IN USE', 'BLOCKS', 'ENCAPSULATION'],
    ...pools.map((pool) => {
      const usage = poolUsage(pool, blocks);
      return [
        pool.metadata.name,
        pool.spec.cidr,
        `${usage.used} of ${usage.total}`,
        String(usage.blocks),
        pool.spec.encapsulation ?? 'Always',
      ];
    }),
  ];
}

function poolUsage(
  pool: IPPool,
  blocks: readonly IPBlock[],
): { used: number; total: bigint; blocks: number } {
  const own = blocks.filter((block) => block.spec.pool === pool.metadata.name);
  const prefix = parseCidr(pool.spec.cidr);
  return {
    used: own.reduce((sum, block) => sum + Object.keys(block.spec.allocations).length, 0),
    total: prefix === undefined ? 0n : cidrSize(prefix),
    blocks: own.length,
  };
}

function endpointCounts(
  service: Service,
  slices: readonly EndpointSlice[],
): { ready: number; all: number } {
  const own = slices.filter(
    (slice) =>
      slice.metadata.namespace === service.metadata.namespace &&
      slice.metadata.labels?.[SERVICE_NAME_LABEL] === service.metadata.name,
  );
  const addresses = new Map<string, boolean>();
  for (const slice of own)
    for (const endpoint of slice.endpoints ?? [])
      for (const address of endpoint.addresses.slice(0, 1))
        addresses.set(
          address,
          (addresses.get(address) ?? false) || (endpoint.conditions?.ready ?? true),
        );
  return { ready: [...addresses.values()].filter(Boolean).length, all: addresses.size };
}

function section(title: string, rows: readonly (readonly string[])[]): string {
  return rows.length <= 1 ? `${title}\n  none` : `${title}\n${indent(formatColumns(rows))}`;
}

function indent(text: string): string {
  return text.replace(/^/gm, '  ');
}

function count(items: readonly unknown[], noun: string): string {
  return `${items.length} ${noun}${items.length === 1 ? '' : 's'}`;
}
