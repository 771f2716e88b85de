/** The wires of a lab; the picture is in `lab.ts`. All links are inside the lab's own namespaces. */
import { cidr, type Family, familyOf, type Ip, ip } from '#lib/ip.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import type { NetworkStack } from '#linux/network/port.ts';

import { openNftables } from '#linux/nftables/kernel.ts';

import { drop } from '#wire/nftables/expressions.ts';
import { equals, meta } from '#wire/nftables/match.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { ifnameBytes } from '#wire/nftables/values.ts';
import type { Machine } from './machine.ts';

const BRIDGE = 'br0';
const OUTSIDE_PORT = 'outside';
/** The router has addresses of both families; a machine has those of its own. */
const UNDERLAY_GATEWAYS = { 4: ip('192.0.2.1'), 6: ip('2001:db8::1') } as const;
const OUTSIDE_GATEWAYS = { 4: ip('198.51.100.1'), 6: ip('2001:db8:51::1') } as const;
const PREFIX_LENGTHS = { 4: 24, 6: 64 } as const;
/** Frames between cut-off machines are dropped where they cross the router's bridge. */
const CUTS = inTable('bridge', 'lab-cuts');
const CUTS_CHAIN = 'forward';
const DEFAULT_ROUTES = { 4: cidr('0.0.0.0/0'), 6: cidr('::/0') } as const;
/** `RTPROT_STATIC`: these routes stand for what an administrator or DHCP would have set. */
const RTPROT_STATIC = 4;

export function prepareRouter(router: Machine): void {
  using stack = openNetworkStack({ netns: router.netns });
  loopbackUp(stack);
  const bridge = stack.links.create({ kind: 'bridge', name: BRIDGE, up: true });
  addGateways(stack, bridge.index, UNDERLAY_GATEWAYS);
  stack.sysctl.set('net/ipv4/ip_forward', '1');
  stack.sysctl.set('net/ipv6/conf/all/forwarding', '1');
}

/** Gives a host its `eth0` on the underlay, with a default route by the router. */
export function connectMachine(router: Machine, machine: Machine): void {
  using stack = openNetworkStack({ netns: router.netns });
  const bridge = stack.links.get(BRIDGE);
  if (bridge === undefined) throw new Error(`the router of the lab has no link "${BRIDGE}"`);
  stack.links.create({
    kind: 'veth',
    name: portOf(machine.name),
    master: bridge.index,
    up: true,
    peer: { name: 'eth0', netns: machine.netns, up: true },
  });
  configureEth0(machine, UNDERLAY_GATEWAYS);
}

/** The outside host is behind the router and has no route but the default one: it cannot answer a pod's own address. */
export function connectOutside(router: Machine, outside: Machine): void {
  using stack = openNetworkStack({ netns: router.netns });
  const port = stack.links.create({
    kind: 'veth',
    name: OUTSIDE_PORT,
    up: true,
    peer: { name: 'eth0', netns: outside.netns, up: true },
  });
  addGateways(stack, port.index, OUTSIDE_GATEWAYS);
  configureEth0(outside, OUTSIDE_GATEWAYS);
}

/** Cuts the underlay between two machines, both ways. Cutting twice is cutting once. */
export function partitionPair(router: Machine, a: Machine, b: Machine): void {
  using nftables = openNftables({ netns: router.netns });
  const between = (from: Machine, to: Machine) =>
    CUTS.rule.add(CUTS_CHAIN, [
      ...equals(meta.iifname, ifnameBytes(portOf(from.name))),
      ...equals(meta.oifname, ifnameBytes(portOf(to.name))),
      drop,
    ]);
  nftables.commit([
    CUTS.table.add(),
    CUTS.chain.add(CUTS_CHAIN, { base: { type: 'filter', hook: 'forward', priority: 0 } }),
    between(a, b),
    between(b, a),
  ]);
}

/** Takes all cuts back. */
export function healAll(router: Machine): void {
  using nftables = openNftables({ netns: router.netns });
  nftables.commit([CUTS.table.add(), CUTS.table.delete()]);
}

function addGateways(
  stack: NetworkStack,
  link: number,
  gateways: Readonly<Record<Family, Ip>>,
): void {
  for (const family of [4, 6] as const)
    stack.addresses.add({
      ...{ link, address: gateways[family], prefixLength: PREFIX_LENGTHS[family] },
      nodad: true,
    });
}

function configureEth0(machine: Machine, gateways: Readonly<Record<Family, Ip>>): void {
  using stack = openNetworkStack({ netns: machine.netns });
  loopbackUp(stack);
  const eth0 = stack.links.get('eth0');
  if (eth0 === undefined) throw new Error(`machine "${machine.name}" has no eth0`);
  const address = ip(machine.address);
  const family = familyOf(address);
  const prefixLength = PREFIX_LENGTHS[family];
  stack.addresses.add({ link: eth0.index, address, prefixLength, nodad: true });
  stack.routes.replace([
    {
      ...{ destination: DEFAULT_ROUTES[family], gateway: gateways[family] },
      ...{ link: eth0.index, protocol: RTPROT_STATIC },
    },
  ]);
}

function loopbackUp(stack: NetworkStack): void {
  const lo = stack.links.get('lo');
  if (lo !== undefined) stack.links.set(lo.index, { up: true });
}

/** Name of the router's link to a machine. */
function portOf(machineName: string): string {
  return `to-${machineName}`;
}
