/** How operations name what they work on, the same in every implementation: `KernelError.op` is made of these. */
import type { Address, FdbEntry, LinkSpec, Neighbour, Route, Rule } from './port.ts';

export function describeNewLink(spec: LinkSpec): string {
  return `create ${spec.kind} link "${spec.name}"`;
}

export function describeAddress(address: Address): string {
  return `address "${address.address}/${address.prefixLength}" on link ${address.link}`;
}

export function describeRoute(route: Route): string {
  const parts = [`route "${route.destination}"`];
  if (route.gateway !== undefined) parts.push(`via ${route.gateway}`);
  if (route.link !== undefined) parts.push(`on link ${route.link}`);
  if (route.table !== undefined) parts.push(`in table ${route.table}`);
  return parts.join(' ');
}

export function describeNeighbour(entry: Neighbour): string {
  return `neighbour "${entry.address}" on link ${entry.link}`;
}

export function describeFdb(entry: FdbEntry): string {
  return `FDB entry "${entry.mac}" to ${entry.destination} on link ${entry.link}`;
}

export function describeRule(rule: Rule): string {
  return `IPv${rule.family} rule "${rule.priority}: lookup ${rule.table}"`;
}
