/**
 * The fabric's part of the kernel as tables by the keys by which the kernel itself tells things apart, and how one such
 * state is brought to another.
 */
import { EINVAL, isErrno } from '#lib/errors.ts';
import { bitsOf, familyOf, hostCidr, type Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { routeKey, sameRoute } from '#linux/network/compare.ts';
import type {
  FdbEntry,
  IfIndex,
  Link,
  Neighbour,
  NetworkStack,
  Route,
} from '#linux/network/port.ts';
import type { FabricPlan } from './plan.ts';

export interface FabricState {
  readonly vxlan: IfIndex;
  /** By {@link routeKey}. */
  readonly routes: Map<string, Route>;
  /** By address; permanent ones only. */
  readonly neighbours: Map<Ip, Neighbour>;
  /** By {@link fdbKey}. */
  readonly fdb: Map<string, FdbEntry>;
}

/** How many kernel objects had to be written or removed: zero when all was as it should be. */
export interface FabricChanges {
  readonly device: boolean;
  readonly neighbours: number;
  readonly fdb: number;
  readonly routes: number;
}

export const RT_TABLE_MAIN = 254;
const RT_SCOPE_LINK = 253;

/** What the plan wants, once the links have indexes. */
export function wantedState(
  plan: FabricPlan,
  links: { readonly vxlan: IfIndex; readonly uplink: IfIndex },
): FabricState {
  const { vxlan, uplink } = links;
  const routes = plan.routes.map(
    ({ via, ...route }): Route =>
      via === 'none' ? route : { ...route, link: via === 'uplink' ? uplink : vxlan },
  );
  return {
    vxlan,
    routes: new Map(routes.map((route) => [routeKey(route), route])),
    neighbours: new Map(plan.neighbours.map((n) => [n.address, { ...n, link: vxlan }])),
    fdb: new Map(plan.fdb.map((entry) => [fdbKey(entry), { ...entry, link: vxlan }])),
  };
}

/** Reads from the kernel what is the fabric's there. */
export function observeState(stack: NetworkStack, vxlan: IfIndex): FabricState {
  const routes = stack.routes
    .list({ protocol: ROUTE_PROTOCOL, table: RT_TABLE_MAIN })
    .filter((route) => isFabricRoute(route, vxlan));
  const neighbours = stack.neighbours.list({ link: vxlan }).filter((n) => n.permanent);
  return {
    vxlan,
    routes: new Map(routes.map((route) => [routeKey(route), route])),
    neighbours: new Map(neighbours.map((n) => [n.address, n])),
    fdb: new Map(stack.fdb.list(vxlan).map((entry) => [fdbKey(entry), entry])),
  };
}

/**
 * Writes what differs. Neighbours and FDB entries come before the routes that need them and go after them, and what is
 * replaced is replaced in one step, so that there is no moment without a way.
 * @throws KernelError for the first thing that the kernel refuses; then it is not known what was written
 */
export function applyState(
  stack: NetworkStack,
  have: FabricState,
  want: FabricState,
): Omit<FabricChanges, 'device'> {
  const neighbours = difference(have.neighbours, want.neighbours, sameNeighbour);
  const fdb = difference(have.fdb, want.fdb, sameFdb);
  const routes = difference(have.routes, want.routes, samePlannedRoute);
  if (neighbours.write.length > 0) stack.neighbours.replace(neighbours.write);
  if (fdb.write.length > 0) stack.fdb.replace(fdb.write);
  if (routes.write.length > 0) writeRoutes(stack, routes.write);
  if (routes.remove.length > 0) stack.routes.delete(routes.remove);
  if (neighbours.remove.length > 0) stack.neighbours.delete(neighbours.remove);
  if (fdb.remove.length > 0) stack.fdb.delete(fdb.remove);
  return {
    neighbours: neighbours.write.length + neighbours.remove.length,
    fdb: fdb.write.length + fdb.remove.length,
    routes: routes.write.length + routes.remove.length,
  };
}

/**
 * IPv6 refuses a gateway that lies behind another link, even one said to be on the link: as long as a block's route leads
 * to the uplink, so does its tunnel address. A route for that one address, for a moment, spares the block a moment without
 * any route.
 */
function writeRoutes(stack: NetworkStack, routes: readonly Route[]): void {
  try {
    stack.routes.replace(routes);
  } catch (error) {
    const steps = routes.flatMap(({ destination, gateway, link, onlink, protocol }) =>
      familyOf(destination) === 6 && onlink === true && gateway !== undefined && link !== undefined
        ? [{ destination: hostCidr(gateway), link, protocol }]
        : [],
    );
    if (!isErrno(error, EINVAL) || steps.length === 0) throw error;
    stack.routes.replace(steps);
    try {
      stack.routes.replace(routes);
    } finally {
      stack.routes.delete(steps);
    }
  }
}

/** Makes the device, or sets it right. */
export function applyDevice(
  stack: NetworkStack,
  wanted: FabricPlan['device'],
): { readonly index: IfIndex; readonly changed: boolean } {
  let link = stack.links.get(VXLAN_LINK);
  let changed = false;
  if (link !== undefined && !isSameKind(link, wanted)) {
    stack.links.delete(link.index);
    link = undefined;
  }
  if (link === undefined) {
    const { mac, mtuBytes, vxlan } = wanted;
    link = stack.links.create({ kind: 'vxlan', name: VXLAN_LINK, mac, mtuBytes, vxlan });
    changed = true;
  } else if (link.mac !== wanted.mac || link.mtuBytes !== wanted.mtuBytes) {
    stack.links.set(link.index, { mac: wanted.mac, mtuBytes: wanted.mtuBytes });
    changed = true;
  }
  if (applyAddresses(stack, link.index, wanted.addresses)) changed = true;
  if (!link.up) {
    stack.links.set(link.index, { up: true });
    changed = true;
  }
  return { index: link.index, changed };
}

/**
 * The main table's routes that this feature owns. The pods' own host routes have our protocol too,
 * but lead to the pods' links without a gateway.
 */
export function isFabricRoute(route: Route, vxlan: IfIndex | undefined): boolean {
  if (route.protocol !== ROUTE_PROTOCOL || (route.table ?? RT_TABLE_MAIN) !== RT_TABLE_MAIN)
    return false;
  return route.type === 'unreachable' || route.gateway !== undefined || route.link === vxlan;
}

/** A unicast MAC is behind one address; for all zeros and groups there may be several. */
export function fdbKey({ mac, destination }: Omit<FdbEntry, 'link'>): string {
  const isGroup = (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
  return isGroup || mac === '00:00:00:00:00:00' ? `${mac} ${destination}` : mac;
}

export function sameNeighbour(have: Neighbour, want: Neighbour): boolean {
  return have.mac === want.mac;
}

export function sameFdb(have: FdbEntry, want: FdbEntry): boolean {
  return have.destination === want.destination;
}

export function samePlannedRoute(have: Route, want: Route): boolean {
  return sameRoute(have, want);
}

/** What cannot be changed on a living device. */
function isSameKind(link: Link, wanted: FabricPlan['device']): boolean {
  const have = link.vxlan;
  return (
    have !== undefined &&
    have.vni === wanted.vxlan.vni &&
    have.port === wanted.vxlan.port &&
    have.local === wanted.vxlan.local &&
    have.device === wanted.vxlan.device &&
    have.learning === wanted.vxlan.learning
  );
}

function applyAddresses(stack: NetworkStack, link: IfIndex, wanted: readonly Ip[]): boolean {
  // The IPv6 link-local address comes and goes with the link; it is the kernel's.
  const have = stack.addresses.list({ link }).filter((a) => a.scope !== RT_SCOPE_LINK);
  const missing = wanted.filter((address) => !have.some((a) => a.address === address));
  const surplus = have.filter((a) => !wanted.includes(a.address));
  for (const address of missing)
    stack.addresses.add({ link, address, prefixLength: bitsOf(familyOf(address)), nodad: true });
  for (const address of surplus) stack.addresses.delete(address);
  return missing.length + surplus.length > 0;
}

function difference<K, V>(
  have: ReadonlyMap<K, V>,
  want: ReadonlyMap<K, V>,
  same: (have: V, want: V) => boolean,
): { write: readonly V[]; remove: readonly V[] } {
  const write: V[] = [];
  const remove: V[] = [];
  for (const [key, value] of want) {
    const was = have.get(key);
    // Mostly the very same value: then there is nothing to compare.
    if (was !== value && (was === undefined || !same(was, value))) write.push(value);
  }
  for (const [key, value] of have) if (!want.has(key)) remove.push(value);
  return { write, remove };
}
