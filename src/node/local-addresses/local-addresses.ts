/**
 * Makes addresses local to this node, so that a server here can answer on them: the DNS service's address and
 * the link-local one. A route in the table `local` does it (`local 10.96.0.10 dev lo proto 84`): unlike an address
 * on a link it carries our protocol number, so it is plain whose it is.
 */

import { planDelta } from '#lib/delta.ts';
import { hostCidr, type Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { NetworkStack, Route } from '#linux/network/port.ts';

/** `RT_TABLE_LOCAL` */
const RT_TABLE_LOCAL = 255;
/** `RT_SCOPE_HOST` */
const RT_SCOPE_HOST = 254;
/** Backstop for lost events. */
const RESYNC_MS = 60_000;

export function planLocalRoutes(addresses: readonly Ip[], loopback: number): Route[] {
  return addresses.map((address) => ({
    destination: hostCidr(address),
    type: 'local',
    table: RT_TABLE_LOCAL,
    scope: RT_SCOPE_HOST,
    link: loopback,
    protocol: ROUTE_PROTOCOL,
  }));
}

export class LocalAddresses implements AsyncDisposable {
  readonly #stack: NetworkStack;
  readonly #addresses: readonly Ip[];
  readonly #loop: SyncLoop;
  #stopWatch: (() => void) | undefined;

  constructor(
    components: { stack: NetworkStack; log: Logger },
    init: { addresses: readonly Ip[] },
  ) {
    this.#stack = components.stack;
    this.#addresses = init.addresses;
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'local addresses',
      log: components.log,
      resyncMs: RESYNC_MS,
    });
  }

  async start(): Promise<void> {
    this.#stopWatch = this.#stack.watch((event) => {
      const concerns =
        event.type === 'overrun' ||
        // A link that goes down takes its routes along without a word about them.
        (event.type === 'link' && event.link.loopback) ||
        (event.type === 'route' &&
          event.deleted &&
          event.route.protocol === ROUTE_PROTOCOL &&
          event.route.table === RT_TABLE_LOCAL);
      if (concerns) this.#loop.trigger();
    });
    await this.#loop.settled();
  }

  /** Stops watching; the routes stay, so that another server may take over the addresses. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopWatch?.();
    await this.#loop[Symbol.asyncDispose]();
  }

  #sync(): void {
    const loopback = this.#stack.links.get('lo');
    if (loopback === undefined) throw new Error('this network namespace has no link "lo"');
    if (!loopback.up) this.#stack.links.set(loopback.index, { up: true });
    const { add, remove } = planDelta<Route>(
      this.#stack.routes.list({ protocol: ROUTE_PROTOCOL, table: RT_TABLE_LOCAL }),
      planLocalRoutes(this.#addresses, loopback.index),
      { key: (route) => route.destination, same: () => true },
    );
    if (add.length > 0) this.#stack.routes.replace(add);
    if (remove.length > 0) this.#stack.routes.delete(remove);
  }
}
