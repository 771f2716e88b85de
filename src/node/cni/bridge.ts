/**
 * Mode `bridge`: makes, checks, repairs the bridge and a container's port of it, as the reference plugin does.
 *
 * ```text
 *   container                       host
 *   eth0 10.88.0.2/16 ◄─ veth ─► tl0123456789a ─ cni0 10.88.0.1/16 (isGateway) ─ masquerade (ipMasq)
 * ```
 */
import { ENOENT, EOPNOTSUPP, isErrno } from '#lib/errors.ts';
import {
  cidrAddress,
  cidrOf,
  cidrsOverlap,
  type Family,
  familyOf,
  type Ip,
  parseCidr,
  parseIp,
  splitCidr,
} from '#lib/ip.ts';
import { GATEWAY_V4, ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { IfIndex, Link, NetworkStack, OpenNetworkStack } from '#linux/network/port.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import type { CniIp, CniResult, CniRoute } from '#wire/cni/result.ts';
import type { Attachment, BridgeAttachment } from '../attachment.ts';
import { checkPoolSide, ensurePoolSide, type SourceOf } from './bridge-pools.ts';
import {
  applyPortVlans,
  ensureGatewayLink,
  ensurePoolGateway,
  requireVlanFiltering,
  vlanGatewayName,
} from './bridge-vlans.ts';
import { enableForwarding } from './link.ts';

/** An attachment in this mode. */
export type OnBridge = Attachment & { readonly bridge: BridgeAttachment };

interface Gateway {
  readonly address: Ip;
  readonly prefixLength: number;
}

/**
 * Fills in what the address plugin left open: gateways that the bridge is to have, and default routes by them. Pure.
 */
export function completeBridge(bridge: BridgeAttachment, given: CniResult): BridgeAttachment {
  const { options } = bridge;
  const ips: CniIp[] = given.ips.map((it) => {
    const gateway = it.gateway ?? (options.isGateway ? firstAddress(it.address) : undefined);
    return { address: it.address, ...(gateway === undefined ? {} : { gateway }), interface: 2 };
  });
  const routes: CniRoute[] = [...given.routes];
  if (options.isDefaultGateway)
    for (const { address, gateway } of ips) {
      const dst = address.includes(':') ? '::/0' : '0.0.0.0/0';
      if (gateway !== undefined && !routes.some((it) => it.dst === dst))
        routes.push({ dst, gw: gateway });
    }
  const configured = Object.keys(bridge.dns).length > 0;
  return { ...bridge, ips, routes, dns: configured ? bridge.dns : given.dns };
}

/** Makes bridge and port. @throws CniError or KernelError; then the caller removes the port */
export function createBridgeLink(
  host: NetworkStack,
  openStack: OpenNetworkStack,
  attachment: OnBridge,
  sourceOf: SourceOf,
): void {
  const { bridge, hostLink, ifName, netns, mac } = attachment;
  const { options } = bridge;
  if (!options.portIsolation) requireFilter(host, options.bridge);
  const mtuBytes = portMtuOf(attachment);
  const mtu = mtuBytes === undefined ? {} : { mtuBytes };
  const master = ensureBridge(host, attachment);
  const hostEnd = host.links.create({
    kind: 'veth',
    name: hostLink,
    ...mtu,
    master: master.index,
    peer: { name: ifName, netns, mac, ...mtu },
  });
  setPort(host.links, { port: hostEnd.index, master: master.index }, options);
  applyPortVlans(host, hostEnd, options);
  host.links.set(hostEnd.index, { up: true });
  using pod = openStack({ netns });
  if (!options.disableContainerInterface) fillContainer(pod, attachment);
  if (options.isGateway) ensureGateways(host, master, attachment, sourceOf);
}

/** Programs that do so once for each link they see. */
const MAX_PORT_TRIES = 3;

/**
 * Sets how a port behaves. Another program (networkd with a file for every link) may take it out of the bridge before that;
 * it is put back then.
 * @throws KernelError
 */
export function setPort(
  links: Pick<NetworkStack['links'], 'set' | 'setBridgePort'>,
  { port, master }: { readonly port: IfIndex; readonly master: IfIndex },
  options: Pick<OnBridge['bridge']['options'], 'hairpinMode' | 'portIsolation'>,
): void {
  for (let tries = 1; ; tries++)
    try {
      links.setBridgePort(port, { hairpin: options.hairpinMode, isolated: options.portIsolation });
      return;
    } catch (error) {
      const isOut = isErrno(error, EOPNOTSUPP);
      if (!isOut || tries >= MAX_PORT_TRIES) throw error;
      links.set(port, { master });
    }
}

/** Sets the host's side right again. @returns false if the port is gone */
export function repairBridgeLink(
  host: NetworkStack,
  attachment: OnBridge,
  sourceOf: SourceOf,
): boolean {
  const port = host.links.get(attachment.hostLink);
  if (port === undefined) return false;
  const { options } = attachment.bridge;
  const master = ensureBridge(host, attachment);
  const mtuBytes = portMtuOf(attachment) ?? port.mtuBytes;
  if (port.master !== master.index || !port.up || port.mtuBytes !== mtuBytes)
    host.links.set(port.index, { master: master.index, up: true, mtuBytes });
  setPort(host.links, { port: port.index, master: master.index }, options);
  applyPortVlans(host, port, options);
  if (options.isGateway) ensureGateways(host, master, attachment, sourceOf);
  return true;
}

/** What a container of a bridge needs when its MTU grows: IPv6 leaves an interface whose MTU falls below 1280. */
export function refillContainer(pod: NetworkStack, attachment: OnBridge): void {
  if (!attachment.bridge.options.disableContainerInterface) fillContainer(pod, attachment);
}

/** The MTU that the port was given; undefined: it is the kernel's choice. */
export function portMtuOf({ bridge, mtuBytes }: OnBridge): number | undefined {
  if (bridge.options.mtuBytes !== 0) return bridge.options.mtuBytes;
  // Packets to and from addresses of pools go over the fabric.
  return bridge.fromPools === true ? mtuBytes : undefined;
}

/** @returns one sentence for each thing that is not as it was made; empty if all is well */
export function checkBridgeLink(
  host: NetworkStack,
  openStack: OpenNetworkStack,
  attachment: OnBridge,
  sourceOf: SourceOf,
): string[] {
  const { bridge, hostLink, netns } = attachment;
  const { options } = bridge;
  const faults: string[] = [];
  const master = host.links.get(options.bridge);
  if (master === undefined) return [`bridge "${options.bridge}" does not exist`];
  if (master.kind !== 'bridge') return [`"${options.bridge}" is not a bridge`];
  if (master.promiscuous !== options.promiscMode)
    faults.push(`bridge "${options.bridge}" has promiscuous mode ${master.promiscuous}`);
  const port = host.links.get(hostLink);
  if (port === undefined) return [...faults, `host link "${hostLink}" does not exist`];
  if (port.master !== master.index)
    faults.push(`host link "${hostLink}" is not a port of "${options.bridge}"`);
  if (!port.up) faults.push(`host link "${hostLink}" is down`);
  if (port.bridgePort !== undefined && port.bridgePort.hairpin !== options.hairpinMode)
    faults.push(`host link "${hostLink}" has hairpin mode ${port.bridgePort.hairpin}`);
  if (bridge.fromPools === true) faults.push(...checkPoolSide(host, attachment, sourceOf));
  try {
    using pod = openStack({ netns });
    faults.push(...checkContainer(pod, attachment, port));
  } catch (error) {
    if (!isErrno(error, ENOENT)) throw error;
    faults.push(`network namespace "${netns}" does not exist`);
  }
  return faults;
}

/** The answer to ADD. */
export function bridgeResult(host: NetworkStack, attachment: OnBridge): CniResult {
  const { bridge, hostLink, ifName, mac, netns } = attachment;
  const describe = (name: string) => {
    const link = host.links.get(name);
    return {
      name,
      ...(link?.mac === undefined ? {} : { mac: link.mac }),
      ...(link === undefined ? {} : { mtu: link.mtuBytes }),
    };
  };
  const hostEnd = describe(hostLink);
  const gateway = vlanGatewayName(bridge.options);
  return {
    interfaces: [
      describe(bridge.options.bridge),
      hostEnd,
      { name: ifName, mac, ...('mtu' in hostEnd ? { mtu: hostEnd.mtu } : {}), sandbox: netns },
      ...(gateway === undefined ? [] : [describe(gateway)]),
    ],
    ips: bridge.ips,
    routes: bridge.routes,
    dns: { ...bridge.dns, ...attachment.dns },
  };
}

function ensureBridge(host: NetworkStack, attachment: OnBridge): Link {
  const { bridge: name, promiscMode } = attachment.bridge.options;
  const mtuBytes = portMtuOf(attachment);
  let link = host.links.get(name);
  const isNew = link === undefined;
  if (link === undefined) {
    link = host.links.create({
      kind: 'bridge',
      name,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
    });
    // Set to what it is: else the kernel gives a bridge the lowest MAC of its ports, another one with each container.
    if (link.mac !== undefined) host.links.set(link.index, { mac: link.mac });
    const acceptRa = `net/ipv6/conf/${name}/accept_ra`;
    if (host.sysctl.get(acceptRa) !== undefined) host.sysctl.set(acceptRa, '0');
  }
  if (link.kind !== 'bridge')
    throw new CniError(CNI_ERROR.invalidConfig, `"${name}" already exists but is not a bridge`);
  if (attachment.bridge.options.vlans !== undefined)
    try {
      requireVlanFiltering(host, link, attachment.bridge.options);
    } catch (error) {
      if (isNew) host.links.delete(link.index);
      throw error;
    }
  if (!link.up || (promiscMode && !link.promiscuous))
    host.links.set(link.index, { up: true, ...(promiscMode ? { promiscuous: true } : {}) });
  // What goes from pod to pod on the bridge is for policies to judge, and for services to translate, like what is routed.
  host.links.setBridgeFilter(link.index, true);
  return link;
}

/** @throws CniError where nothing would stand between the pods of a bridge */
function requireFilter(host: NetworkStack, bridge: string): void {
  if (host.sysctl.get('net/bridge/bridge-nf-call-iptables') !== undefined) return;
  throw new CniError(
    CNI_ERROR.invalidEnvironment,
    `pods on the bridge "${bridge}" would reach each other past all network policies: this kernel has not loaded br_netfilter`,
    {
      details:
        'run "modprobe br_netfilter" and put "br_netfilter" into a file of /etc/modules-load.d; or set "portIsolation": true',
    },
  );
}

/** Gives the bridge the gateways' addresses. */
function ensureGateways(
  host: NetworkStack,
  master: Link,
  attachment: OnBridge,
  sourceOf: SourceOf,
): void {
  const { options, ips, fromPools } = attachment.bridge;
  const families = new Set<Family>();
  const ensureLink = fromPools === true ? ensurePoolGateway : ensureGatewayLink;
  const link = ensureLink(host, master, options);
  allowLoopback(host, attachment, link);
  if (fromPools === true) {
    ensurePoolSide(host, link, attachment, sourceOf);
    enableForwarding(host, [...new Set(ips.flatMap(gatewayOf).map((it) => familyOf(it.address)))]);
    return;
  }
  const { index } = link;
  for (const gateway of ips.flatMap(gatewayOf)) {
    const family = familyOf(gateway.address);
    families.add(family);
    for (const old of host.addresses.list({ link: index, family })) {
      if (old.address === gateway.address && old.prefixLength === gateway.prefixLength) continue;
      // Several IPv6 networks can be on one bridge as long as they are apart; of IPv4 there is one.
      if (family === 6 && !isSameNetwork(old, gateway)) continue;
      if (!options.forceAddress)
        throw new CniError(
          CNI_ERROR.invalidConfig,
          `"${options.bridge}" already has an IP address different from ${gateway.address}/${gateway.prefixLength}`,
          { details: `it has ${old.address}/${old.prefixLength}; "forceAddress" replaces it` },
        );
      host.addresses.delete(old);
    }
    host.addresses.add({
      link: index,
      ...gateway,
      ...(family === 6 ? { nodad: true } : {}),
    });
  }
  enableForwarding(host, [...families]);
}

/** For programs of this machine that ask a host port at 127.0.0.1. */
function allowLoopback(host: NetworkStack, { bridge, portMappings }: OnBridge, gateway: Link) {
  if (portMappings === undefined || bridge.ips.every(({ address }) => address.includes(':')))
    return;
  // The answer is led back to 127.0.0.1 while it is still the bridge's, before it is the VLAN's.
  for (const name of new Set([bridge.options.bridge, gateway.name]))
    host.sysctl.set(`net/ipv4/conf/${name}/route_localnet`, '1');
}

function fillContainer(pod: NetworkStack, attachment: OnBridge): void {
  const { bridge, ifName } = attachment;
  const loopback = pod.links.get('lo');
  if (loopback !== undefined && !loopback.up) pod.links.set(loopback.index, { up: true });
  const link = pod.links.get(ifName);
  if (link === undefined)
    throw new Error(`Cannot find "${ifName}" in "${attachment.netns}" right after it was made`);
  if (bridge.ips.some(({ address }) => address.includes(':')))
    for (const [key, value] of [
      ['disable_ipv6', '0'],
      ['accept_ra', '0'],
      ['accept_dad', '0'],
    ] as const)
      pod.sysctl.set(`net/ipv6/conf/${ifName}/${key}`, value);
  if (bridge.fromPools === true)
    // The node tells containers of one bridge that they could talk without it; then policy would not see them.
    for (const family of ['ipv4', 'ipv6'])
      for (const name of ['all', ifName]) {
        const key = `net/${family}/conf/${name}/accept_redirects`;
        if (pod.sysctl.get(key) !== undefined) pod.sysctl.set(key, '0');
      }
  // Neighbours that knew an earlier owner of the address learn of the new one.
  pod.sysctl.set(`net/ipv4/conf/${ifName}/arp_notify`, '1');
  if (pod.sysctl.get(`net/ipv6/conf/${ifName}/ndisc_notify`) !== undefined)
    pod.sysctl.set(`net/ipv6/conf/${ifName}/ndisc_notify`, '1');
  pod.links.set(link.index, { up: true });
  for (const { address } of bridge.ips) {
    const parts = splitCidr(address);
    if (parts !== undefined)
      pod.addresses.add({
        link: link.index,
        ...parts,
        ...(familyOf(parts.address) === 6 ? { nodad: true } : {}),
      });
  }
  pod.routes.replace(
    bridge.routes.flatMap((route) => {
      const destination = parseCidr(route.dst);
      if (destination === undefined)
        throw new CniError(CNI_ERROR.invalidConfig, `route to "${route.dst}" is no network prefix`);
      const gateway =
        route.gw === undefined ? gatewayFor(bridge.ips, familyOf(destination)) : parseIp(route.gw);
      return [
        {
          link: link.index,
          destination,
          protocol: ROUTE_PROTOCOL,
          ...(gateway === undefined ? {} : { gateway }),
          // No prefix of the container's says that this gateway is there.
          ...(gateway === GATEWAY_V4 && bridge.fromPools === true ? { onlink: true } : {}),
          ...(route.mtu === undefined ? {} : { mtuBytes: route.mtu }),
          ...(route.priority === undefined ? {} : { metric: route.priority }),
          ...(route.table === undefined ? {} : { table: route.table }),
          ...(route.scope === undefined ? {} : { scope: route.scope }),
        },
      ];
    }),
  );
}

function checkContainer(pod: NetworkStack, attachment: OnBridge, port: Link): string[] {
  const { bridge, ifName, mac } = attachment;
  const where = `"${ifName}" in the container`;
  const link = pod.links.get(ifName);
  if (link === undefined) return [`interface ${where} does not exist`];
  const faults: string[] = [];
  if (link.peerIndex !== port.index)
    faults.push(`interface ${where} is not the other end of "${port.name}"`);
  if (link.mac !== mac) faults.push(`interface ${where} has MAC ${link.mac ?? 'none'}, not ${mac}`);
  if (bridge.options.disableContainerInterface) return faults;
  if (!link.up) faults.push(`interface ${where} is down`);
  const addresses = new Set(
    pod.addresses.list({ link: link.index }).map((it) => `${it.address}/${it.prefixLength}`),
  );
  for (const { address } of bridge.ips)
    if (!addresses.has(address)) faults.push(`address ${address} is missing on ${where}`);
  const routes = new Set<string>(
    pod.routes
      .list()
      .filter((it) => it.link === link.index)
      .map((it) => it.destination),
  );
  for (const { dst } of bridge.routes)
    if (!routes.has(dst)) faults.push(`route ${dst} is missing on ${where}`);
  return faults;
}

function gatewayOf({ address, gateway }: CniIp): Gateway[] {
  const parts = splitCidr(address);
  const parsed = gateway === undefined ? undefined : parseIp(gateway);
  return parts === undefined || parsed === undefined
    ? []
    : [{ address: parsed, prefixLength: parts.prefixLength }];
}

function gatewayFor(ips: readonly CniIp[], family: Family): Ip | undefined {
  return ips.flatMap(gatewayOf).find((it) => familyOf(it.address) === family)?.address;
}

/** The first address of the network after its own, where the reference plugin puts the gateway. */
function firstAddress(text: string): Ip | undefined {
  const parts = splitCidr(text);
  if (parts === undefined) return undefined;
  return cidrAddress(cidrOf(parts.address, parts.prefixLength), 1);
}

function isSameNetwork(a: Gateway, b: Gateway): boolean {
  return cidrsOverlap(cidrOf(a.address, a.prefixLength), cidrOf(b.address, b.prefixLength));
}
