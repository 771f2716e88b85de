/**
 * What the kernel's own events mean for the fabric. Pure, but for the tables that it keeps.
 *
 * `have` is what the kernel holds by all that we know: what we wrote, corrected by every event. So a change costs what
 * changed: nothing is listed to find the one route of thousands that somebody deleted, and the echo of what we wrote
 * ourselves says nothing new. An event that comes late can make `have` wrong, but only for the event that corrects it is
 * on its way; the worst of it is that something is written twice.
 */
import type { Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { routeKey } from '#linux/network/compare.ts';
import type { Address, Link, NetworkEvent, Route } from '#linux/network/port.ts';
import type { FabricPlan, Uplink } from './plan.ts';
import {
  type FabricState,
  fdbKey,
  isFabricRoute,
  RT_TABLE_MAIN,
  sameFdb,
  sameNeighbour,
  samePlannedRoute,
} from './state.ts';

/**
 * - `same`: all is as it should be, or it is none of our business;
 * - `differs`: `have` is not `want` any more;
 * - `look`: the kernel has to be read again: links and addresses take other things along without a word.
 */
export type Verdict = 'same' | 'differs' | 'look';

export interface Followed {
  /** Corrected by {@link follow}. */
  readonly have: FabricState;
  readonly want: FabricState;
  readonly device: FabricPlan['device'];
  readonly uplink: Uplink;
}

const RT_SCOPE_LINK = 253;

export function follow(event: NetworkEvent, followed: Followed): Verdict {
  const { have, want } = followed;
  switch (event.type) {
    case 'overrun':
      return 'look';
    case 'link':
      return followLink(event.link, event.deleted, followed);
    case 'address':
      return followAddress(event.address, event.deleted, followed);
    case 'route':
      return followRoute(event.route, event.deleted, followed);
    case 'neighbour': {
      const { neighbour, deleted } = event;
      if (neighbour.link !== want.vxlan) return 'same';
      // One that is not permanent any more is on its way out, and not ours.
      if (deleted || !neighbour.permanent) have.neighbours.delete(neighbour.address);
      else have.neighbours.set(neighbour.address, neighbour);
      return compare(have.neighbours, want.neighbours, neighbour.address, sameNeighbour);
    }
    case 'fdb': {
      const { entry, deleted } = event;
      if (entry.link !== want.vxlan) return 'same';
      const key = fdbKey(entry);
      if (!deleted) have.fdb.set(key, entry);
      else if (have.fdb.get(key)?.destination === entry.destination) have.fdb.delete(key);
      return compare(have.fdb, want.fdb, key, sameFdb);
    }
    case 'rule':
    case 'setting':
      return 'same';
  }
}

function followRoute(route: Route, deleted: boolean, { have, want }: Followed): Verdict {
  if ((route.table ?? RT_TABLE_MAIN) !== RT_TABLE_MAIN) return 'same';
  const key = routeKey(route);
  if (route.protocol === ROUTE_PROTOCOL && isFabricRoute(route, want.vxlan)) {
    if (deleted) have.routes.delete(key);
    else have.routes.set(key, route);
  } else if (!deleted && want.routes.has(key)) {
    // Somebody's route stands where ours stood: the kernel does not say that ours is gone.
    have.routes.delete(key);
  } else return 'same';
  return compare(have.routes, want.routes, key, samePlannedRoute);
}

function followLink(link: Link, deleted: boolean, { want, device, uplink }: Followed): Verdict {
  if (link.index === uplink.index) {
    const isSame = !deleted && link.mtuBytes === uplink.mtuBytes && link.up === uplink.up;
    return isSame ? 'same' : 'look';
  }
  if (link.name !== VXLAN_LINK && link.index !== want.vxlan) return 'same';
  const isAsPlanned =
    !deleted &&
    link.index === want.vxlan &&
    link.name === VXLAN_LINK &&
    link.up &&
    link.mac === device.mac &&
    link.mtuBytes === device.mtuBytes;
  return isAsPlanned ? 'same' : 'look';
}

function followAddress(
  { address, link, scope }: Address,
  deleted: boolean,
  { want, device, uplink }: Followed,
): Verdict {
  if (address === uplink.address) return !deleted && link === uplink.index ? 'same' : 'look';
  if (link !== want.vxlan) return 'same';
  const isOurs = (device.addresses as readonly Ip[]).includes(address);
  if (isOurs) return deleted ? 'look' : 'same';
  return deleted || scope === RT_SCOPE_LINK ? 'same' : 'look';
}

function compare<K, V>(
  have: ReadonlyMap<K, V>,
  want: ReadonlyMap<K, V>,
  key: K,
  same: (have: V, want: V) => boolean,
): Verdict {
  const is = have.get(key);
  const should = want.get(key);
  if (is === undefined || should === undefined) return is === should ? 'same' : 'differs';
  return same(is, should) ? 'same' : 'differs';
}
