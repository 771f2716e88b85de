/**
 * Addresses of IPPools on a bridge. They are single addresses, of blocks that other pods of the node share, so no prefix is
 * on the link: everything but broadcast and multicast goes by the node, as with routed pods, and policy sees it.
 *
 * ```text
 *   container                              host
 *   eth0 10.244.1.7/32 ◄─ veth ─► tl0123456789a ─ cni0 169.254.1.1/32, fe80::1/64
 *   default via 169.254.1.1 onlink         10.244.1.7/32 dev cni0 proto 84
 * ```
 * In a VLAN the gateway is `cni0.100` in the place of the bridge itself.
 */
import { type Family, familyOf, hostCidr, type Ip } from '#lib/ip.ts';
import { GATEWAY_V4, GATEWAY_V6, ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { Link, NetworkStack, Route } from '#linux/network/port.ts';
import type { BridgeOptions } from '#wire/cni/bridge-options.ts';
import type { CniIp, CniRoute } from '#wire/cni/result.ts';
import type { AllocatedAddress } from '../addresses.ts';
import { type Attachment, type BridgeAttachment, ipsOf } from '../attachment.ts';
import { gatewayName } from './bridge-vlans.ts';

const SCOPE_LINK = 253;
/** RFC 8200, section 5. */
const MIN_IPV6_MTU_BYTES = 1280;
const GATEWAYS = {
  4: { address: GATEWAY_V4, prefixLength: 32 },
  6: { address: GATEWAY_V6, prefixLength: 64 },
} as const;

export type SourceOf = (family: Family) => Ip | undefined;

/** The bridge's addresses and routes, when they come out of pools. Pure. */
export function bridgeWithPoolAddresses(
  bridge: BridgeAttachment,
  addresses: readonly AllocatedAddress[],
): BridgeAttachment {
  const ips = addresses.map(
    ({ address, family }): CniIp => ({
      address: hostCidr(address),
      gateway: GATEWAYS[family].address,
      interface: 2,
    }),
  );
  const routes = addresses.map(
    ({ family }): CniRoute => ({
      dst: family === 4 ? '0.0.0.0/0' : '::/0',
      gw: GATEWAYS[family].address,
    }),
  );
  return { ...bridge, ips, routes };
}

/** Gives the bridge, or its VLAN, the pods' gateways, and the node a route to each address. Safe at any time. */
export function ensurePoolSide(
  host: NetworkStack,
  gateway: Link,
  attachment: Attachment,
  sourceOf: SourceOf,
): void {
  // The bridge has the least MTU of its ports, and without IPv6 it takes neither address nor route of that family.
  const mtuBytes = host.links.get(gateway.index)?.mtuBytes ?? 0;
  const possible = ipsOf(attachment).filter(
    (it) => familyOf(it) === 4 || mtuBytes >= MIN_IPV6_MTU_BYTES,
  );
  const families = new Set(possible.map(familyOf));
  const have = new Set(host.addresses.list({ link: gateway.index }).map((it) => it.address));
  for (const family of families) {
    if (have.has(GATEWAYS[family].address)) continue;
    host.addresses.add({
      link: gateway.index,
      ...GATEWAYS[family],
      // Never the source of what goes elsewhere.
      scope: SCOPE_LINK,
      ...(family === 6 ? { nodad: true } : {}),
    });
  }
  host.routes.replace(poolRoutes(possible, gateway, sourceOf));
}

/** Deleting what is gone succeeds. */
export function removePoolSide(
  host: NetworkStack,
  options: BridgeOptions,
  addresses: readonly Ip[],
): void {
  const gateway = host.links.get(gatewayName(options));
  if (gateway === undefined || addresses.length === 0) return;
  const mine = new Set<string>(addresses.map(hostCidr));
  // Another pod may have an address of these by now, on a link of its own.
  host.routes.delete(
    host.routes
      .list({ protocol: ROUTE_PROTOCOL })
      .filter((it) => it.link === gateway.index && mine.has(it.destination)),
  );
}

/** @returns one sentence for each thing that is missing */
export function checkPoolSide(
  host: NetworkStack,
  attachment: Attachment & { readonly bridge: BridgeAttachment },
  sourceOf: SourceOf,
): string[] {
  const name = gatewayName(attachment.bridge.options);
  const link = host.links.get(name);
  if (link === undefined) return [`the gateway's interface "${name}" does not exist`];
  const addresses = new Set(host.addresses.list({ link: link.index }).map((it) => it.address));
  const routes = host.routes.list({ protocol: ROUTE_PROTOCOL });
  const wanted = poolRoutes(ipsOf(attachment), link, sourceOf);
  return [
    ...new Set(
      ipsOf(attachment)
        .map((address) => GATEWAYS[familyOf(address)].address)
        .filter((gateway) => !addresses.has(gateway))
        .map((gateway) => `gateway ${gateway} is missing on "${name}"`),
    ),
    ...wanted
      .filter(
        (want) =>
          !routes.some((it) => it.link === want.link && it.destination === want.destination),
      )
      .map((want) => `route ${want.destination} is missing on "${name}"`),
  ];
}

function poolRoutes(addresses: readonly Ip[], gateway: Link, sourceOf: SourceOf): Route[] {
  return addresses.map((address) => {
    const source = sourceOf(familyOf(address));
    return {
      destination: hostCidr(address),
      link: gateway.index,
      protocol: ROUTE_PROTOCOL,
      ...(familyOf(address) === 4 ? { scope: SCOPE_LINK } : {}),
      ...(source === undefined ? {} : { source }),
    };
  });
}
