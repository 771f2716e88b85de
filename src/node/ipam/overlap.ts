/** Finds out whether a pool collides with what the host uses already. Pure. */
import { type Cidr, cidrOf, cidrsOverlap, familyOf, prefixLengthOf } from '#lib/ip.ts';
import { LINK_PREFIX, POD_LINK_PREFIX, ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { Address, Link, Route } from '#linux/network/port.ts';

/** A prefix that the host uses, and where it was found: `address 10.244.7.2/24 on eth0`. */
export interface HostPrefix {
  readonly prefix: Cidr;
  readonly where: string;
}

export interface Overlap {
  readonly pool: string;
  readonly host: HostPrefix;
  /** One sentence for a person. */
  readonly message: string;
}

/** Routing tables `local` and `main`, `include/uapi/linux/rtnetlink.h`. */
const RT_TABLE_LOCAL = 255;
const RT_TABLE_MAIN = 254;

/**
 * @param pools with a name where they have one
 * @returns one entry per pair that collides; empty if all is well
 */
export function findOverlap(
  pools: readonly { readonly name: string; readonly cidr: Cidr }[],
  host: readonly HostPrefix[],
): Overlap[] {
  return pools.flatMap((pool) =>
    host
      .filter(
        (it) => familyOf(it.prefix) === familyOf(pool.cidr) && cidrsOverlap(it.prefix, pool.cidr),
      )
      .map((it) => ({
        pool: pool.name,
        host: it,
        message: `pool "${pool.name}" ${pool.cidr} overlaps ${it.prefix} (${it.where}); choose another pool or change the host's network`,
      })),
  );
}

/**
 * What the host uses: prefixes of addresses, and routes of the main table. What carries our name or number is left
 * out, and so are default routes, link-local and multicast prefixes.
 */
export function hostPrefixes(observed: {
  readonly links: readonly Link[];
  readonly addresses: readonly Address[];
  readonly routes: readonly Route[];
}): HostPrefix[] {
  const names = new Map(observed.links.map((link) => [link.index, link.name]));
  const isOurs = (link: number | undefined) => {
    const name = link === undefined ? undefined : names.get(link);
    return name !== undefined && (name.startsWith(LINK_PREFIX) || isPodLink(name));
  };
  const nameOf = (link: number | undefined) =>
    link === undefined ? 'no link' : (names.get(link) ?? `link ${link}`);

  const result: HostPrefix[] = [];
  const seen = new Set<string>();
  const add = (prefix: Cidr, link: number | undefined, where: string) => {
    const key = `${prefix} ${link}`;
    if (isOurs(link) || seen.has(key) || prefixLengthOf(prefix) === 0 || isSpecial(prefix)) return;
    seen.add(key);
    result.push({ prefix, where });
  };
  for (const { address, prefixLength, link } of observed.addresses)
    add(cidrOf(address, prefixLength), link, `address ${address} on ${nameOf(link)}`);
  for (const route of observed.routes) {
    const table = route.table ?? RT_TABLE_MAIN;
    if (table === RT_TABLE_LOCAL || route.protocol === ROUTE_PROTOCOL) continue;
    add(route.destination, route.link, `route on ${nameOf(route.link)}`);
  }
  return result;
}

function isPodLink(name: string): boolean {
  return new RegExp(`^${POD_LINK_PREFIX}[0-9a-f]{11}$`).test(name);
}

const SPECIAL = [
  '127.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/4',
  '::1/128',
  'fe80::/10',
  'ff00::/8',
];

function isSpecial(prefix: Cidr): boolean {
  return SPECIAL.some(
    (it) => familyOf(it as Cidr) === familyOf(prefix) && cidrsOverlap(it as Cidr, prefix),
  );
}
