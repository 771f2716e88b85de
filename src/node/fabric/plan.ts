/**
 * The fabric: how a packet for a pod on another node gets there. Pure: from what is known of nodes, blocks and
 * pools to the kernel objects that this node needs.
 *
 * For each block of another node there is one route, and for each node one neighbour and one FDB entry:
 *
 * ```text
 *  route      10.244.3.0/26  via 10.244.3.0 dev tulle-vxlan onlink     next hop: the other node's tunnel address
 *  neighbour  10.244.3.0     is at 02:5e:…                             so nobody asks by ARP
 *  FDB        02:5e:…        behind 192.0.2.13                         the outer destination
 * ```
 * The tunnel address comes out of the node's own block, so the route to the block covers it too, and it is the
 * source of packets that the node itself sends to pods elsewhere. A local block has an `unreachable` route under
 * the pods' own routes, so that a packet for an address that no pod has is answered and cannot loop.
 */
import { createHash } from 'node:crypto';
import {
  type Cidr,
  cidrContains,
  cidrsOverlap,
  type Family,
  familyOf,
  hostCidr,
  type Ip,
  type Mac,
  macFromBytes,
} from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_PORT, VXLAN_VNI } from '#lib/kernel-objects.ts';
import type { FdbEntry, IfIndex, Neighbour, Route, VxlanConfig } from '#linux/network/port.ts';
import { type LentAddress, planLentRoutes } from './lent-addresses.ts';

export type Encapsulation = 'Always' | 'CrossSubnet' | 'Never';

/** A node as the fabric sees it. */
export interface FabricNode {
  readonly name: string;
  /** Address on the underlay, where encapsulated packets are sent. */
  readonly underlay: Ip;
  readonly vtepMac: Mac;
  /** At most one per family. */
  readonly tunnelAddresses: readonly Ip[];
}

export interface FabricBlock {
  readonly cidr: Cidr;
  readonly node: string;
}

export interface FabricPool {
  readonly cidr: Cidr;
  readonly encapsulation: Encapsulation;
}

/** This node's link to the underlay. */
export interface Uplink {
  readonly index: IfIndex;
  readonly mtuBytes: number;
  /** Administratively up. */
  readonly up: boolean;
  readonly address: Ip;
  /** The prefix that is directly on the link. */
  readonly subnet: Cidr;
}

export interface FabricInput {
  readonly self: FabricNode;
  readonly uplink: Uplink;
  readonly others: readonly FabricNode[];
  readonly blocks: readonly FabricBlock[];
  /** Addresses that are used on another node than the route to their block leads to. */
  readonly lent?: readonly LentAddress[];
  readonly pools: readonly FabricPool[];
}

/** A route whose link is not known by index before the device exists. */
export type PlannedRoute = Omit<Route, 'link'> & { readonly via: 'vxlan' | 'uplink' | 'none' };

export interface FabricPlan {
  /**
   * There whatever the pools say: it carries the node's address on the pod network, and while a pool's encapsulation
   * is changed one node sends the new way and another still the old one.
   */
  readonly device: {
    readonly vxlan: VxlanConfig;
    readonly mac: Mac;
    readonly mtuBytes: number;
    readonly addresses: readonly Ip[];
  };
  readonly neighbours: readonly Omit<Neighbour, 'link'>[];
  readonly fdb: readonly Omit<FdbEntry, 'link'>[];
  readonly routes: readonly PlannedRoute[];
  /** What a pod's link may carry without being split. */
  readonly podMtuBytes: number;
  /** What could not be planned, in words. */
  readonly problems: readonly string[];
}

/** Outer Ethernet is not counted: inner Ethernet 14 + VXLAN 8 + UDP 8 + outer IP 20 or 40. */
const VXLAN_OVERHEAD_BYTES: Readonly<Record<Family, number>> = { 4: 50, 6: 70 };
/** RFC 8200: the least MTU of an IPv6 link; less would break the pods' IPv6. */
const MIN_MTU_BYTES = 1280;
/** A status is read by people: of a thousand sentences the first ones say what is wrong. */
const MAX_PROBLEMS = 10;

export function planFabric(input: FabricInput): FabricPlan {
  const { self, uplink, pools } = input;
  const problems: string[] = [];
  const encapsulates = pools.some((pool) => pool.encapsulation !== 'Never');
  const tunnelMtu = uplink.mtuBytes - VXLAN_OVERHEAD_BYTES[familyOf(uplink.address)];
  if (encapsulates && tunnelMtu < MIN_MTU_BYTES)
    problems.push(
      `the uplink's MTU of ${uplink.mtuBytes} bytes leaves ${tunnelMtu} for pods; IPv6 needs ${MIN_MTU_BYTES}`,
    );

  const underlayFamily = familyOf(uplink.address);
  const others = input.others.filter((node) => {
    if (familyOf(node.underlay) === underlayFamily) return true;
    problems.push(
      `node ${node.name} has no IPv${underlayFamily} address (${node.underlay}) and this node is reached at ${uplink.address}: there is no way to its pods`,
    );
    return false;
  });
  const nodes = new Map(others.map((node) => [node.name, node]));
  const cutOff = new Set(input.others.map(({ name }) => name).filter((name) => !nodes.has(name)));
  const poolOf = createPoolLookup(pools);
  const routes: PlannedRoute[] = [];
  const { lent = [] } = input;
  const lentWhole = new Set<Cidr>(lent.map(({ address }) => hostCidr(address)));
  for (const block of input.blocks) {
    // A block of one address that is lent leads to who has it.
    if (lentWhole.has(block.cidr)) continue;
    // To a node that there is no way to, packets would leave by the default route; so their sender hears of it.
    if (block.node === self.name || cutOff.has(block.node)) {
      routes.push({
        destination: block.cidr,
        type: 'unreachable',
        protocol: ROUTE_PROTOCOL,
        via: 'none',
      });
      continue;
    }
    const node = nodes.get(block.node);
    if (node === undefined) continue; // its Node object is not here yet, or gone
    const pool = poolOf(block.cidr);
    if (pool === undefined) {
      problems.push(`block ${block.cidr} of node ${node.name} lies in no pool; it gets no route`);
      continue;
    }
    const route = routeTo(block.cidr, node, pool, input);
    if (typeof route === 'string') problems.push(route);
    else routes.push(route);
  }
  const loans = planLentRoutes(lent, {
    self: self.name,
    routeTo: (address, name) => {
      const node = nodes.get(name);
      const pool = pools.find((candidate) => cidrContains(candidate.cidr, address));
      if (node === undefined || pool === undefined) return undefined;
      return routeTo(hostCidr(address), node, pool, input);
    },
  });
  routes.push(...loans.routes);
  problems.push(...loans.problems);

  return {
    device: {
      vxlan: {
        vni: VXLAN_VNI,
        port: VXLAN_PORT,
        local: uplink.address,
        device: uplink.index,
        learning: false,
      },
      mac: self.vtepMac,
      mtuBytes: tunnelMtu,
      addresses: self.tunnelAddresses,
    },
    neighbours: others.flatMap((node) =>
      node.tunnelAddresses.map((address) => ({ address, mac: node.vtepMac, permanent: true })),
    ),
    fdb: others.map((node) => ({ mac: node.vtepMac, destination: node.underlay })),
    routes,
    podMtuBytes: encapsulates ? tunnelMtu : uplink.mtuBytes,
    problems: shorten(problems),
  };
}

/**
 * The VTEP's MAC of a node. It follows from the name, so that a node that comes back is the same to all others,
 * and it is locally administered and unicast.
 */
export function vtepMac(nodeName: string): Mac {
  const bytes = createHash('sha256').update(`tulle-vtep:${nodeName}`).digest().subarray(0, 6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return macFromBytes(bytes);
}

/** Finds a block's pool. Blocks of one pool mostly come together, and there are thousands. */
function createPoolLookup(pools: readonly FabricPool[]): (block: Cidr) => FabricPool | undefined {
  let last: FabricPool | undefined;
  return (block) => {
    if (last === undefined || !cidrsOverlap(last.cidr, block))
      last = pools.find((candidate) => cidrsOverlap(candidate.cidr, block));
    return last;
  };
}

function shorten(problems: readonly string[]): readonly string[] {
  if (problems.length <= MAX_PROBLEMS) return problems;
  return [...problems.slice(0, MAX_PROBLEMS), `and ${problems.length - MAX_PROBLEMS} more`];
}

/** @returns the route, or why there is none */
function routeTo(
  block: Cidr,
  node: FabricNode,
  pool: FabricPool,
  input: FabricInput,
): PlannedRoute | string {
  const family = familyOf(block);
  // An IPv4 block may be behind an IPv6 gateway (RFC 5549), not the other way round.
  const canBeDirect = familyOf(node.underlay) >= family;
  const direct =
    pool.encapsulation === 'Never' ||
    (pool.encapsulation === 'CrossSubnet' &&
      canBeDirect &&
      cidrContains(input.uplink.subnet, node.underlay));
  if (direct) {
    if (!canBeDirect)
      return `block ${block} of node ${node.name} cannot be routed unencapsulated: the underlay is IPv${familyOf(node.underlay)}`;
    if (!cidrContains(input.uplink.subnet, node.underlay))
      return `node ${node.name} (${node.underlay}) is not on ${input.uplink.subnet}: pool ${pool.cidr} with encapsulation Never cannot reach it`;
    return { destination: block, gateway: node.underlay, protocol: ROUTE_PROTOCOL, via: 'uplink' };
  }
  const gateway = node.tunnelAddresses.find((address) => familyOf(address) === family);
  if (gateway === undefined)
    return `node ${node.name} has no IPv${family} tunnel address yet; its block ${block} gets no route`;
  const source = input.self.tunnelAddresses.find((address) => familyOf(address) === family);
  // A tunnel address alone is its own next hop; the kernel refuses such a gateway, so it is taken as on the link.
  const single = block === hostCidr(gateway);
  return {
    destination: block,
    ...(single ? {} : { gateway, onlink: true }),
    ...(source === undefined ? {} : { source }),
    protocol: ROUTE_PROTOCOL,
    via: 'vxlan',
  };
}
