/** Routes over rtnetlink. */
import { ENETUNREACH, ENOENT, ESRCH, isErrno, KernelError } from '#lib/errors.ts';
import type { Family, Ip } from '#lib/ip.ts';
import { NLM_F_CREATE, NLM_F_REPLACE } from '#wire/netlink/constants.ts';
import { RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE } from '#wire/rtnetlink/constants.ts';
import { decodeRoute, encodeGetRoutes, encodeLookup, encodeRoute } from '#wire/rtnetlink/route.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { applyBatch } from './batch.ts';
import { lookupRouteFrom, routeFrom, routeKeyMessage, routeMessage } from './convert.ts';
import { describeRoute } from './describe.ts';
import type { NetworkStack, Route } from './port.ts';

export function kernelRoutes(socket: NetlinkSocket): NetworkStack['routes'] {
  return {
    list(filter = {}) {
      const families: readonly Family[] = filter.family === undefined ? [4, 6] : [filter.family];
      return families.flatMap((family) => listRoutes(socket, { ...filter, family }));
    },
    replace(routes) {
      applyBatch(socket, routes, {
        type: RTM_NEWROUTE,
        flags: () => NLM_F_CREATE | NLM_F_REPLACE,
        encode: (writer, route) => encodeRoute(writer, routeMessage(route)),
        op: (route) => `replace ${describeRoute(route)}`,
      });
    },
    delete(routes) {
      applyBatch(socket, routes, {
        type: RTM_DELROUTE,
        flags: () => 0,
        encode: (writer, route) => encodeRoute(writer, routeKeyMessage(route)),
        op: (route) => `delete ${describeRoute(route)}`,
        ignore: [ESRCH],
      });
    },
    lookup: (destination) => lookup(socket, destination),
  };
}

function listRoutes(
  socket: NetlinkSocket,
  filter: { family: Family; protocol?: number; table?: number },
): Route[] {
  const routes: Route[] = [];
  try {
    const messages = socket.dump('list routes', { type: RTM_GETROUTE }, (writer) =>
      encodeGetRoutes(writer, filter),
    );
    for (const { payload } of messages) {
      const message = decodeRoute(payload);
      const route = message === undefined ? undefined : routeFrom(message);
      if (route !== undefined) routes.push(route);
    }
  } catch (error) {
    // A table exists from its first route on.
    if (!isErrno(error, ENOENT)) throw error;
  }
  return routes;
}

function lookup(socket: NetlinkSocket, destination: Ip): Route {
  const op = `find the route to "${destination}"`;
  const [answer] = socket.request(op, { type: RTM_GETROUTE }, (writer) =>
    encodeLookup(writer, destination),
  );
  const message = answer === undefined ? undefined : decodeRoute(answer.payload);
  const route = message === undefined ? undefined : lookupRouteFrom(message);
  if (route === undefined) throw new KernelError(op, ENETUNREACH);
  return route;
}
