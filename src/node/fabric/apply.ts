/**
 * Brings the kernel to a fabric plan: observe, compare, write only what differs.
 *
 * Order: the device, then neighbours and FDB entries, then routes; and the other way round on the way out.
 * So a route never points at a next hop that cannot be reached yet.
 */
import { planDelta } from '#lib/delta.ts';
import { bitsOf, familyOf, type Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import type {
  FdbEntry,
  IfIndex,
  Link,
  Neighbour,
  NetworkStack,
  Route,
} from '#linux/network/port.ts';
import type { FabricPlan } from './plan.ts';

/** How many kernel objects a sync had to write or remove: zero when all was as it should be. */
export interface FabricChanges {
  readonly device: boolean;
  readonly neighbours: number;
  readonly fdb: number;
  readonly routes: number;
}

const RT_TABLE_MAIN = 254;
const RT_SCOPE_LINK = 253;

/** @throws KernelError for the first thing that the kernel refuses */
export function applyFabric(stack: NetworkStack, plan: FabricPlan, uplink: IfIndex): FabricChanges {
  const device = applyDevice(stack, plan.device);
  const vxlan = device.index;

  const neighbours = delta<Neighbour>(
    stack.neighbours.list({ link: vxlan }).filter((n) => n.permanent),
    plan.neighbours.map((n) => ({ ...n, link: vxlan })),
    (n) => n.address,
    (a, b) => a.mac === b.mac,
  );
  const fdb = delta<FdbEntry>(
    stack.fdb.list(vxlan),
    plan.fdb.map((entry) => ({ ...entry, link: vxlan })),
    (entry) => `${entry.mac} ${entry.destination}`,
    () => true,
  );
  const routes = delta<Route>(
    stack.routes
      .list({ protocol: ROUTE_PROTOCOL, table: RT_TABLE_MAIN })
      .filter((route) => isFabricRoute(route, vxlan)),
    plan.routes.map(({ via, ...route }) =>
      via === 'none' ? route : { ...route, link: via === 'uplink' ? uplink : vxlan },
    ),
    (route) => route.destination,
    sameRoute,
  );

  // A VTEP has one address: an entry for the same MAC elsewhere goes before the new one comes.
  if (fdb.remove.length > 0) stack.fdb.delete(fdb.remove);
  if (neighbours.write.length > 0) stack.neighbours.replace(neighbours.write);
  if (fdb.write.length > 0) stack.fdb.replace(fdb.write);
  if (routes.write.length > 0) stack.routes.replace(routes.write);
  if (routes.remove.length > 0) stack.routes.delete(routes.remove);
  if (neighbours.remove.length > 0) stack.neighbours.delete(neighbours.remove);
  return {
    device: device.changed,
    neighbours: neighbours.write.length + neighbours.remove.length,
    fdb: fdb.write.length + fdb.remove.length,
    routes: routes.write.length + routes.remove.length,
  };
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

function applyDevice(stack: NetworkStack, wanted: FabricPlan['device']): DeviceResult {
  let link = stack.links.get(VXLAN_LINK);
  let changed = false;
  if (link !== undefined && !sameDevice(link, wanted)) {
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

interface DeviceResult {
  readonly index: IfIndex;
  readonly changed: boolean;
}

/** What cannot be changed on a living device. */
function sameDevice(link: Link, wanted: FabricPlan['device']): boolean {
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

function sameRoute(have: Route, want: Route): boolean {
  return (
    (have.type ?? 'unicast') === (want.type ?? 'unicast') &&
    // The kernel gives unreachable IPv6 routes the loopback link.
    (want.link === undefined || have.link === want.link) &&
    have.gateway === want.gateway &&
    have.source === want.source
  );
}

function delta<T>(
  observed: readonly T[],
  desired: readonly T[],
  key: (value: T) => string,
  same: (observed: T, desired: T) => boolean,
): { write: readonly T[]; remove: readonly T[] } {
  const { add, change, remove } = planDelta(observed, desired, { key, same });
  return { write: [...add, ...change], remove };
}
