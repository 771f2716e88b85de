/** Routes of the fake network: what the kernel refuses, and the choice it makes for a packet. */
import {
  EACCES,
  EHOSTUNREACH,
  EINVAL,
  ENETDOWN,
  ENETUNREACH,
  ENODEV,
  KernelError,
} from '#lib/errors.ts';
import {
  cidr,
  cidrContains,
  type Family,
  familyOf,
  hostCidr,
  type Ip,
  prefixLengthOf,
} from '#lib/ip.ts';
import { RT_SCOPE_HOST } from '#wire/rtnetlink/constants.ts';
import { type BatchFailure, throwFailures } from './batch.ts';
import { isReject, routeDefaults, routeKey } from './compare.ts';
import { routeFrom, routeMessage } from './convert.ts';
import { describeRoute } from './describe.ts';
import type { FakeNamespace } from './fake-namespace.ts';
import type { IfIndex, NetworkStack, Route } from './port.ts';

const LINK_LOCAL_V6 = cidr('fe80::/10');

export function fakeRoutes(namespace: FakeNamespace): NetworkStack['routes'] {
  return {
    list: (filter = {}) =>
      [...namespace.routes.values()].filter(
        (r) =>
          (filter.family === undefined || familyOf(r.destination) === filter.family) &&
          (filter.protocol === undefined || r.protocol === filter.protocol) &&
          (filter.table === undefined || r.table === filter.table),
      ),
    replace(routes) {
      applyEach(
        routes,
        (route) => `replace ${describeRoute(route)}`,
        (route, op) => {
          namespace.world.check(op);
          replaceRoute(namespace, route, op);
        },
      );
    },
    delete(routes) {
      applyEach(
        routes,
        (route) => `delete ${describeRoute(route)}`,
        (route, op) => {
          namespace.world.check(op);
          deleteRoute(namespace, route);
        },
      );
    },
    lookup: (destination) => lookup(namespace, destination),
  };
}

/** Goes on past failures, as the kernel does with a batch of messages. @throws KernelError for the first that failed */
export function applyEach<T>(
  items: readonly T[],
  op: (item: T) => string,
  apply: (item: T, op: string) => void,
): void {
  const failures: BatchFailure[] = [];
  items.forEach((item, index) => {
    try {
      apply(item, op(item));
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      failures.push({ index, errno: error.errno });
    }
  });
  throwFailures(failures, items, op);
}

function replaceRoute(namespace: FakeNamespace, wanted: Route, op: string): void {
  // By way of the message, so that it reads in the same form as from the kernel.
  const route = routeFrom({
    ...routeMessage({ ...wanted, ...resolveNextHop(namespace, wanted, op) }),
    nextHops: 0,
  });
  if (route === undefined) throw new KernelError(op, EINVAL);
  const { source } = route;
  if (source !== undefined && !namespace.addresses.some((a) => a.address === source))
    throw new KernelError(op, EINVAL);
  namespace.routes.set(routeKey(route), route);
  namespace.emit({ type: 'route', deleted: false, route });
}

/** The link the route leads to: the named one, or that of its gateway. */
function resolveNextHop(namespace: FakeNamespace, route: Route, op: string): { link?: IfIndex } {
  if (isReject(route.type ?? 'unicast')) return {};
  const { gateway } = route;
  if (route.link !== undefined && !namespace.linkAt(route.link, op, ENODEV).up)
    throw new KernelError(op, ENETDOWN);
  if (gateway === undefined || route.onlink === true) {
    if (route.link === undefined) throw new KernelError(op, ENODEV);
    return { link: route.link };
  }
  if (cidrContains(LINK_LOCAL_V6, gateway)) {
    if (route.link === undefined) throw new KernelError(op, EINVAL);
    return { link: route.link };
  }
  const link = linkTowards(namespace, gateway, route.link);
  if (link === undefined)
    throw new KernelError(op, familyOf(gateway) === 4 ? ENETUNREACH : EHOSTUNREACH);
  return { link };
}

/** The link on which an address is a neighbour: a gateway must not itself be behind a gateway. */
function linkTowards(
  namespace: FakeNamespace,
  gateway: Ip,
  wanted: IfIndex | undefined,
): IfIndex | undefined {
  const onLink = [...namespace.routes.values()].find(
    (r) =>
      r.type === 'unicast' &&
      r.gateway === undefined &&
      (wanted === undefined || r.link === wanted) &&
      cidrContains(r.destination, gateway),
  );
  return onLink?.link;
}

function deleteRoute(namespace: FakeNamespace, wanted: Route): void {
  const { destination, table, metric, protocol } = routeDefaults(wanted);
  for (const [key, route] of namespace.routes) {
    const full = routeDefaults(route);
    if (
      full.destination !== destination ||
      full.table !== table ||
      full.protocol !== protocol ||
      (metric !== 0 && full.metric !== metric)
    )
      continue;
    namespace.routes.delete(key);
    namespace.emit({ type: 'route', deleted: true, route });
    return;
  }
}

function lookup(namespace: FakeNamespace, destination: Ip): Route {
  const op = `find the route to "${destination}"`;
  const family = familyOf(destination);
  for (const rule of namespace.rules) {
    // A packet made here has, before its route is known, neither a mark nor a source address.
    if (rule.family !== family || rule.mark !== undefined || rule.from !== undefined) continue;
    if (rule.to !== undefined && !cidrContains(rule.to, destination)) continue;
    const route = bestRoute(namespace, rule.table, destination);
    if (route === undefined || route.type === 'throw') continue;
    if (route.type === 'blackhole') throw new KernelError(op, EINVAL);
    if (route.type === 'unreachable') throw new KernelError(op, EHOSTUNREACH);
    if (route.type === 'prohibit') throw new KernelError(op, EACCES);
    const source =
      route.type === 'local'
        ? destination
        : (route.source ?? sourceOn(namespace, route.link, family));
    return {
      destination: hostCidr(destination),
      table: rule.table,
      type: route.type ?? 'unicast',
      protocol: family === 6 ? route.protocol : 0,
      ...(route.link === undefined ? {} : { link: route.link }),
      ...(route.gateway === undefined ? {} : { gateway: route.gateway }),
      ...(source === undefined ? {} : { source }),
    };
  }
  throw new KernelError(op, ENETUNREACH);
}

/** The longest prefix, and of those the least metric. */
function bestRoute(namespace: FakeNamespace, table: number, destination: Ip): Route | undefined {
  let best: Route | undefined;
  for (const route of namespace.routes.values()) {
    if (route.table !== table || !cidrContains(route.destination, destination)) continue;
    if (best === undefined || isBetter(route, best)) best = route;
  }
  return best;
}

function isBetter(a: Route, b: Route): boolean {
  const longer = prefixLengthOf(a.destination) - prefixLengthOf(b.destination);
  return longer > 0 || (longer === 0 && routeDefaults(a).metric < routeDefaults(b).metric);
}

function sourceOn(
  namespace: FakeNamespace,
  link: IfIndex | undefined,
  family: Family,
): Ip | undefined {
  const usable = namespace.addresses.filter(
    (a) => familyOf(a.address) === family && a.scope !== RT_SCOPE_HOST,
  );
  return (usable.find((a) => a.link === link) ?? usable[0])?.address;
}
