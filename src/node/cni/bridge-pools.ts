/**
 * Addresses of IPPools on a bridge. They are single addresses, of blocks that other pods of the node share, so no prefix is
 * on the link: everything but broadcast and multicast goes by the node, as with routed pods, and policy sees it.
 *
 * ```text
 *   container                              host
 *   eth0 10.244.1.7/32 ◄─ veth ─► tl0123456789a ─ cni0 169.254.1.1/32, fe80::1/64
 *   default via 169.254.1.1 onlink         10.244.1.7/32 dev cni0 proto 84
 * ```
 */
import { type Family, familyOf, hostCidr, type Ip } from '#lib/ip.ts';
import { GATEWAY_V4, GATEWAY_V6, ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { Link, NetworkStack, Route } from '#linux/network/port.ts';
import type { CniIp, CniRoute } from '#wire/cni/result.ts';
import type { AllocatedAddress } from '../addresses.ts';
import { type Attachment, type BridgeAttachment, ipsOf } from '../attachment.ts';

const SCOPE_LINK = 253;
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

/** Gives the bridge the pods' gateways, and the node a route to each address. Safe at any time. */
export function ensurePoolSide(
  host: NetworkStack,
  master: Link,
  attachment: Attachment,
  sourceOf: SourceOf,
): void {
  const families = new Set(ipsOf(attachment).map(familyOf));
  const have = new Set(host.addresses.list({ link: master.index }).map((it) => it.address));
  for (const family of families) {
    if (have.has(GATEWAYS[family].address)) continue;
    host.addresses.add({
      link: master.index,
      ...GATEWAYS[family],
      // Never the source of what goes elsewhere.
      scope: SCOPE_LINK,
      ...(family === 6 ? { nodad: true } : {}),
    });
  }
  host.routes.replace(poolRoutes(ipsOf(attachment), master, sourceOf));
}

/** Deleting what is gone succeeds. */
export function removePoolSide(host: NetworkStack, bridge: string, addresses: readonly Ip[]): void {
  const master = host.links.get(bridge);
  if (master === undefined || addresses.length === 0) return;
  const mine = new Set<string>(addresses.map(hostCidr));
  // Another pod may have an address of these by now, on a link of its own.
  host.routes.delete(
    host.routes
      .list({ protocol: ROUTE_PROTOCOL })
      .filter((it) => it.link === master.index && mine.has(it.destination)),
  );
}

/** @returns one sentence for each thing that is missing */
export function checkPoolSide(
  host: NetworkStack,
  master: Link,
  attachment: Attachment,
  sourceOf: SourceOf,
): string[] {
  const addresses = new Set(host.addresses.list({ link: master.index }).map((it) => it.address));
  const routes = host.routes.list({ protocol: ROUTE_PROTOCOL });
  const wanted = poolRoutes(ipsOf(attachment), master, sourceOf);
  return [
    ...new Set(
      ipsOf(attachment)
        .map((address) => GATEWAYS[familyOf(address)].address)
        .filter((gateway) => !addresses.has(gateway))
        .map((gateway) => `gateway ${gateway} is missing on "${master.name}"`),
    ),
    ...wanted
      .filter(
        (want) =>
          !routes.some((it) => it.link === want.link && it.destination === want.destination),
      )
      .map((want) => `route ${want.destination} is missing on "${master.name}"`),
  ];
}

function poolRoutes(addresses: readonly Ip[], master: Link, sourceOf: SourceOf): Route[] {
  return addresses.map((address) => {
    const source = sourceOf(familyOf(address));
    return {
      destination: hostCidr(address),
      link: master.index,
      protocol: ROUTE_PROTOCOL,
      ...(familyOf(address) === 4 ? { scope: SCOPE_LINK } : {}),
      ...(source === undefined ? {} : { source }),
    };
  });
}
