/** The wires of a lab; the picture is in `lab.ts`. All links are inside the lab's own namespaces. */
import { cidr, ip } from '#lib/ip.ts';
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
const UNDERLAY_GATEWAY = ip('192.0.2.1');
const UNDERLAY_PREFIX_LENGTH = 24;
const OUTSIDE_GATEWAY = ip('198.51.100.1');
/** Frames between cut-off machines are dropped where they cross the router's bridge. */
const CUTS = inTable('bridge', 'lab-cuts');
const CUTS_CHAIN = 'forward';
const DEFAULT_V4 = cidr('0.0.0.0/0');
/** `RTPROT_STATIC`: these routes stand for what an administrator or DHCP would have set. */
const RTPROT_STATIC = 4;

export function prepareRouter(router: Machine): void {
  using stack = openNetworkStack({ netns: router.netns });
  loopbackUp(stack);
  const bridge = stack.links.create({ kind: 'bridge', name: BRIDGE, up: true });
  stack.addresses.add({
    link: bridge.index,
    address: UNDERLAY_GATEWAY,
    prefixLength: UNDERLAY_PREFIX_LENGTH,
  });
  stack.sysctl.set('net/ipv4/ip_forward', '1');
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
  configureEth0(machine, UNDERLAY_PREFIX_LENGTH, UNDERLAY_GATEWAY);
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
  stack.addresses.add({ link: port.index, address: OUTSIDE_GATEWAY, prefixLength: 24 });
  configureEth0(outside, 24, OUTSIDE_GATEWAY);
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

function configureEth0(machine: Machine, prefixLength: number, gateway: typeof UNDERLAY_GATEWAY) {
  using stack = openNetworkStack({ netns: machine.netns });
  loopbackUp(stack);
  const eth0 = stack.links.get('eth0');
  if (eth0 === undefined) throw new Error(`machine "${machine.name}" has no eth0`);
  stack.addresses.add({ link: eth0.index, address: ip(machine.address), prefixLength });
  stack.routes.replace([
    { destination: DEFAULT_V4, gateway, link: eth0.index, protocol: RTPROT_STATIC },
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
