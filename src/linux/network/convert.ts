/** Between rtnetlink's messages and the values of `port.ts`. Pure; the operations and the monitor share it. */
import { familyOf } from '#lib/ip.ts';
import { type AddressMessage, IFA_F_NODAD } from '#wire/rtnetlink/address.ts';
import {
  AF_BRIDGE,
  addressFamilyOf,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
} from '#wire/rtnetlink/constants.ts';
import {
  IFF_LOOPBACK,
  IFF_LOWER_UP,
  IFF_PROMISC,
  IFF_UP,
  type LinkMessage,
} from '#wire/rtnetlink/link.ts';
import {
  type NeighbourMessage,
  NTF_SELF,
  NUD_NOARP,
  NUD_PERMANENT,
  NUD_REACHABLE,
} from '#wire/rtnetlink/neighbour.ts';
import {
  type RouteMessage,
  RTM_F_CLONED,
  RTN_BLACKHOLE,
  RTN_LOCAL,
  RTN_PROHIBIT,
  RTN_THROW,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  RTNH_F_ONLINK,
} from '#wire/rtnetlink/route.ts';
import { FR_ACT_TO_TBL, type RuleMessage } from '#wire/rtnetlink/rule.ts';
import { defaultMetric, defaultScope, isReject, routeDefaults } from './compare.ts';
import type { Address, FdbEntry, Link, Neighbour, Route, RouteType, Rule } from './port.ts';

const ROUTE_TYPES: Readonly<Record<RouteType, number>> = {
  unicast: RTN_UNICAST,
  local: RTN_LOCAL,
  blackhole: RTN_BLACKHOLE,
  unreachable: RTN_UNREACHABLE,
  prohibit: RTN_PROHIBIT,
  throw: RTN_THROW,
};
const ROUTE_TYPE_NAMES = new Map(
  Object.entries(ROUTE_TYPES).map(([name, type]) => [type, name as RouteType]),
);
/** A rule's mark is compared in all bits unless a mask says otherwise. */
const ALL_BITS = 0xffff_ffff;

export function linkFrom(message: LinkMessage): Link {
  const { flags } = message;
  return {
    index: message.index,
    name: message.name ?? '',
    kind: message.kind,
    mac: message.mac,
    mtuBytes: message.mtuBytes ?? 0,
    up: (flags & IFF_UP) !== 0,
    carrier: (flags & IFF_LOWER_UP) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    promiscuous: (flags & IFF_PROMISC) !== 0,
    master: message.master === 0 ? undefined : message.master,
    peerIndex: message.lower,
    peerNetnsId: message.lowerNetnsId,
    vxlan: message.vxlan,
    ...(message.vlanFiltering === undefined ? {} : { vlanFiltering: message.vlanFiltering }),
    ...(message.bridgePort === undefined ? {} : { bridgePort: message.bridgePort }),
  };
}

/** `IFAPROT_…` of the kernel itself (loopback, router advertisements, link-local) are below. */
const FIRST_OWN_PROTOCOL = 4;

export function addressFrom(message: AddressMessage): Address {
  return {
    link: message.index,
    address: message.address,
    prefixLength: message.prefixLength,
    scope: message.scope,
    ...((message.flags & IFA_F_NODAD) === 0 ? {} : { nodad: true }),
    ...(message.protocol < FIRST_OWN_PROTOCOL ? {} : { protocol: message.protocol }),
  };
}

export function addressMessage(address: Address): AddressMessage {
  return {
    index: address.link,
    address: address.address,
    prefixLength: address.prefixLength,
    scope: address.scope ?? RT_SCOPE_UNIVERSE,
    flags: address.nodad === true ? IFA_F_NODAD : 0,
    protocol: address.protocol ?? 0,
  };
}

/** @returns undefined for what the port does not show: broadcast, multicast and anycast routes, and cached ones */
export function routeFrom(message: RouteMessage): Route | undefined {
  const type = ROUTE_TYPE_NAMES.get(message.type);
  if (type === undefined || (message.flags & RTM_F_CLONED) !== 0) return undefined;
  return routeOf(message, type);
}

/** The answer to a lookup, which is a cloned route and whose scope means nothing. */
export function lookupRouteFrom(message: RouteMessage): Route | undefined {
  const type = ROUTE_TYPE_NAMES.get(message.type);
  if (type === undefined) return undefined;
  const { scope: _, ...route } = routeOf(message, type);
  return route;
}

function routeOf(message: RouteMessage, type: RouteType): Route {
  const { destination, table, index, gateway, source, metric, mtuBytes, protocol } = message;
  const base = { destination, table, type, protocol };
  return {
    ...base,
    // IPv6 hangs routes that refuse on the loopback link, IPv4 on none: it says nothing.
    ...(index === undefined || isReject(type) ? {} : { link: index }),
    ...(gateway === undefined ? {} : { gateway }),
    ...((message.flags & RTNH_F_ONLINK) === 0 ? {} : { onlink: true }),
    ...(message.scope === defaultScope({ ...base, gateway }) ? {} : { scope: message.scope }),
    ...(source === undefined ? {} : { source }),
    ...(metric === undefined || metric === defaultMetric(familyOf(destination)) ? {} : { metric }),
    ...(mtuBytes === undefined ? {} : { mtuBytes }),
  };
}

export function routeMessage(route: Route): Omit<RouteMessage, 'nextHops'> {
  const full = routeDefaults(route);
  return {
    destination: full.destination,
    table: full.table,
    type: ROUTE_TYPES[full.type],
    scope: full.scope,
    protocol: full.protocol,
    flags: full.onlink ? RTNH_F_ONLINK : 0,
    index: full.link,
    gateway: full.gateway,
    source: full.source,
    metric: full.metric,
    mtuBytes: full.mtuBytes,
  };
}

/** What finds a route to delete: destination, table, metric and owner; where it leads to may have changed. */
export function routeKeyMessage(route: Route): Omit<RouteMessage, 'nextHops'> {
  const { destination, table, metric, protocol } = routeDefaults(route);
  return {
    destination,
    table,
    type: 0,
    scope: RT_SCOPE_NOWHERE,
    protocol,
    flags: 0,
    index: undefined,
    gateway: undefined,
    source: undefined,
    metric,
    mtuBytes: undefined,
  };
}

/** @returns undefined for an entry without an address */
export function neighbourFrom(message: NeighbourMessage): Neighbour | undefined {
  if (message.destination === undefined || message.family === AF_BRIDGE) return undefined;
  return {
    link: message.index,
    address: message.destination,
    mac: message.mac,
    permanent: (message.state & NUD_PERMANENT) !== 0,
    state: message.state,
  };
}

export function neighbourMessage(entry: Neighbour): NeighbourMessage {
  return {
    family: addressFamilyOf(familyOf(entry.address)),
    index: entry.link,
    state: entry.permanent ? NUD_PERMANENT : NUD_REACHABLE,
    flags: 0,
    destination: entry.address,
    mac: entry.mac,
  };
}

/** @returns undefined for entries that lead to no VTEP: those of bridges, and addresses of the device itself */
export function fdbFrom(message: NeighbourMessage): FdbEntry | undefined {
  const { destination, mac } = message;
  if (message.family !== AF_BRIDGE || destination === undefined || mac === undefined)
    return undefined;
  return { link: message.index, mac, destination };
}

export function fdbMessage(entry: FdbEntry): NeighbourMessage {
  return {
    family: AF_BRIDGE,
    index: entry.link,
    // NOARP keeps the entry from ageing and from being learned away, PERMANENT over the link's going down.
    state: NUD_PERMANENT | NUD_NOARP,
    flags: NTF_SELF,
    destination: entry.destination,
    mac: entry.mac,
  };
}

/** @returns undefined for rules that do not look up a table */
export function ruleFrom(message: RuleMessage): Rule | undefined {
  if (message.action !== FR_ACT_TO_TBL) return undefined;
  const { from, to, mark, markMask } = message;
  return {
    family: message.family,
    priority: message.priority,
    table: message.table,
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(mark === undefined ? {} : { mark }),
    ...(markMask === undefined || markMask === ALL_BITS ? {} : { markMask }),
  };
}

export function ruleMessage(rule: Rule): RuleMessage {
  return {
    family: rule.family,
    action: FR_ACT_TO_TBL,
    priority: rule.priority,
    table: rule.table,
    from: rule.from,
    to: rule.to,
    mark: rule.mark,
    markMask: rule.markMask,
  };
}
