/**
 * When two routes are the same: the defaults that the kernel fills in, made explicit. Pure.
 * A planner compares what it wants with what `routes.list()` shows by {@link routeKey} and {@link sameRoute}.
 */
import { type Family, familyOf, type Ip } from '#lib/ip.ts';
import {
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
} from '#wire/rtnetlink/constants.ts';
import type { IfIndex, Route, RouteType } from './port.ts';

/** `IP6_RT_PRIO_USER`: what IPv6 gives a route that names no metric. */
const DEFAULT_METRIC_V6 = 1024;

/** A route with every default filled in. */
export interface FullRoute extends Route {
  readonly table: number;
  readonly type: RouteType;
  readonly scope: number;
  readonly metric: number;
  readonly onlink: boolean;
}

export function routeDefaults(route: Route): FullRoute {
  return {
    ...route,
    table: route.table ?? RT_TABLE_MAIN,
    type: route.type ?? 'unicast',
    scope: route.scope ?? defaultScope(route),
    metric: route.metric ?? defaultMetric(familyOf(route.destination)),
    onlink: route.onlink ?? false,
  };
}

/** What the kernel tells routes apart by: a second one with this key replaces the first. */
export function routeKey(route: Route): string {
  const { destination, table, metric } = routeDefaults(route);
  return `${destination} table ${table} metric ${metric}`;
}

/** Whether two routes of one key also lead to the same place in the same way and have the same owner. */
export function sameRoute(a: Route, b: Route): boolean {
  const left = routeDefaults(a);
  const right = routeDefaults(b);
  return (
    routeKey(left) === routeKey(right) &&
    left.type === right.type &&
    linkOf(left) === linkOf(right) &&
    left.gateway === right.gateway &&
    left.onlink === right.onlink &&
    left.scope === right.scope &&
    left.source === right.source &&
    left.mtuBytes === right.mtuBytes &&
    left.protocol === right.protocol
  );
}

export function defaultMetric(family: Family): number {
  return family === 6 ? DEFAULT_METRIC_V6 : 0;
}

/**
 * How far away the destination is, as IPv4 wants it said: on this host, on a link, or behind a gateway.
 * IPv6 has no scopes of routes.
 */
export function defaultScope(route: {
  destination: Route['destination'];
  type?: RouteType;
  gateway?: Ip | undefined;
}): number {
  if (familyOf(route.destination) === 6) return RT_SCOPE_UNIVERSE;
  if (route.type === 'local') return RT_SCOPE_HOST;
  const onLink = (route.type ?? 'unicast') === 'unicast' && route.gateway === undefined;
  return onLink ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
}

/** Whether packets end at this route: it leads to no link. */
export function isReject(type: RouteType): boolean {
  return type !== 'unicast' && type !== 'local';
}

function linkOf(route: FullRoute): IfIndex | undefined {
  return isReject(route.type) ? undefined : route.link;
}
