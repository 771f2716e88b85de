/** Which addresses of a node have its node ports. Pure. */
import { type Cidr, cidrContains, familyOf, type Ip } from '#lib/ip.ts';
import type { Address } from '#linux/network/port.ts';

const RT_SCOPE_UNIVERSE = 0;

/**
 * @param wanted prefixes; none: the addresses by which the node is known, and where it has none of a family, the
 *   first one of that family on the same link
 * @returns sorted, so that the same addresses are the same list
 */
export function chooseNodePortAddresses(
  addresses: readonly Address[],
  nodeIps: readonly Ip[],
  wanted: readonly Cidr[] = [],
): Ip[] {
  const global = addresses.filter(({ scope = 0 }) => scope === RT_SCOPE_UNIVERSE);
  if (wanted.length > 0)
    return unique(
      global.flatMap(({ address }) =>
        wanted.some((prefix) => cidrContains(prefix, address)) ? address : [],
      ),
    );
  const link = global.find(({ address }) => nodeIps.includes(address))?.link;
  const others = ([4, 6] as const)
    .filter((family) => !nodeIps.some((address) => familyOf(address) === family))
    .flatMap(
      (family) =>
        global.find((it) => it.link === link && familyOf(it.address) === family)?.address ?? [],
    );
  return unique([...nodeIps, ...others]);
}

function unique(addresses: readonly Ip[]): Ip[] {
  return [...new Set(addresses)].sort();
}
