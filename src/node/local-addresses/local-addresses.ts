/**
 * Makes addresses local to this node, so that a server here can answer on them: the DNS service's address and
 * the link-local one.
 *
 * - IPv4: a route in the table `local` (`local 10.96.0.10 dev lo proto 84`); sockets may bind to what it covers.
 * - IPv6: an address on `lo` with our protocol number, because there a socket may only bind to an assigned address.
 *
 * Either carries our number, so it is plain whose it is.
 */
import { planDelta } from '#lib/delta.ts';
import { bitsOf, familyOf, hostCidr, type Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Address, IfIndex, NetworkEvent, NetworkStack, Route } from '#linux/network/port.ts';

/** `RT_TABLE_LOCAL` */
const RT_TABLE_LOCAL = 255;
/** `RT_SCOPE_HOST` */
const RT_SCOPE_HOST = 254;
/** Backstop for lost events. */
const RESYNC_MS = 60_000;

export interface LocalPlan {
  readonly routes: readonly Route[];
  readonly addresses: readonly Address[];
}

export function planLocal(wanted: readonly Ip[], loopback: IfIndex): LocalPlan {
  const family = (number: 4 | 6) => wanted.filter((address) => familyOf(address) === number);
  return {
    routes: family(4).map((address) => ({
      destination: hostCidr(address),
      type: 'local',
      table: RT_TABLE_LOCAL,
      scope: RT_SCOPE_HOST,
      link: loopback,
      protocol: ROUTE_PROTOCOL,
    })),
    addresses: family(6).map((address) => ({
      link: loopback,
      address,
      prefixLength: bitsOf(6),
      nodad: true,
      protocol: ROUTE_PROTOCOL,
    })),
  };
}

export class LocalAddresses implements AsyncDisposable {
  readonly #stack: NetworkStack;
  readonly #wanted: readonly Ip[];
  readonly #loop: SyncLoop;
  #stopWatch: (() => void) | undefined;

  constructor(
    components: { stack: NetworkStack; log: Logger },
    init: { addresses: readonly Ip[] },
  ) {
    this.#stack = components.stack;
    this.#wanted = init.addresses;
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'local addresses',
      log: components.log,
      resyncMs: RESYNC_MS,
    });
  }

  async start(): Promise<void> {
    this.#stopWatch = this.#stack.watch((event) => {
      if (this.#concerns(event)) this.#loop.trigger();
    });
    await this.#loop.settled();
  }

  /** Stops watching; the addresses stay, so that another server may take them over. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopWatch?.();
    await this.#loop[Symbol.asyncDispose]();
  }

  #concerns(event: NetworkEvent): boolean {
    switch (event.type) {
      case 'overrun':
        return true;
      case 'link':
        // A link that goes down takes its routes along without a word about them.
        return event.link.loopback;
      case 'route':
        return (
          event.deleted &&
          event.route.protocol === ROUTE_PROTOCOL &&
          event.route.table === RT_TABLE_LOCAL
        );
      case 'address':
        return event.deleted && this.#wanted.includes(event.address.address);
      default:
        return false;
    }
  }

  #sync(): void {
    const stack = this.#stack;
    const loopback = stack.links.get('lo');
    if (loopback === undefined) throw new Error('this network namespace has no link "lo"');
    if (!loopback.up) stack.links.set(loopback.index, { up: true });
    const plan = planLocal(this.#wanted, loopback.index);
    const routes = planDelta<Route>(
      stack.routes.list({ family: 4, protocol: ROUTE_PROTOCOL, table: RT_TABLE_LOCAL }),
      plan.routes,
      { key: (route) => route.destination, same: () => true },
    );
    if (routes.add.length > 0) stack.routes.replace(routes.add);
    if (routes.remove.length > 0) stack.routes.delete(routes.remove);
    // Kernels that cannot mark an address show ours unmarked: those are found by value, and never removed as strangers.
    const have = stack.addresses
      .list({ link: loopback.index, family: 6 })
      .filter((a) => a.protocol === ROUTE_PROTOCOL || this.#wanted.includes(a.address));
    const addresses = planDelta<Address>(have, plan.addresses, {
      key: (address) => address.address,
      same: () => true,
    });
    for (const address of addresses.add) stack.addresses.add(address);
    for (const address of addresses.remove) stack.addresses.delete(address);
  }
}
