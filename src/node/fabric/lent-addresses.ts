/**
 * Routes for addresses that a node has borrowed out of another node's block. Pure.
 *
 * ```text
 *  owner A    10.244.1.0/26 unreachable                  10.244.1.9/32 via B's tunnel address   metric 2048
 *  others C   10.244.1.0/26 via A's tunnel address       10.244.1.9/32 via B's tunnel address   metric 2048
 *  borrower B 10.244.1.0/26 via A's tunnel address       10.244.1.9/32 unreachable              metric 2048
 *             10.244.1.9/32 dev tl… while there is a pod (the better metric: 0, for IPv6 1024)
 * ```
 * The longer prefix beats the block's route everywhere. On the borrower the `unreachable` one stands behind the pod's
 * own: without it a packet for a pod that is gone would go to the owner, from there here again, and so on.
 */
import { hostCidr, type Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { PlannedRoute } from './plan.ts';

/**
 * Worse than what pods' own routes have, so that neither ever takes the other's place: a node that hears late of an
 * address given back must not overwrite the route of the pod that has it next.
 */
export const LENT_METRIC = 2048;

export interface LentAddress {
  readonly address: Ip;
  /** Where it is used. */
  readonly node: string;
}

/**
 * @param facts.routeTo how this node reaches the address on another node, why it cannot, or undefined while that node
 *   is not known
 */
export function planLentRoutes(
  lent: readonly LentAddress[],
  facts: {
    readonly self: string;
    readonly routeTo: (address: Ip, node: string) => PlannedRoute | string | undefined;
  },
): { readonly routes: PlannedRoute[]; readonly problems: string[] } {
  const routes: PlannedRoute[] = [];
  const problems: string[] = [];
  for (const { address, node } of lent) {
    const route: PlannedRoute | string | undefined =
      node === facts.self
        ? {
            destination: hostCidr(address),
            type: 'unreachable',
            protocol: ROUTE_PROTOCOL,
            via: 'none',
          }
        : facts.routeTo(address, node);
    if (typeof route === 'string') problems.push(route);
    else if (route !== undefined) routes.push({ ...route, metric: LENT_METRIC });
  }
  return { routes, problems };
}
