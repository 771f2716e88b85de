/**
 * A network in memory that behaves like the kernel's as far as Tulle uses it: several namespaces, veths between them,
 * what goes along when a link goes, the same errors and the same events. `contract.ts` holds it to that.
 *
 * It forwards no packets, detects no duplicate addresses, gives links no IPv6 link-local addresses, and does not check
 * the values of sysctls.
 */
import { ENODEV, ENOENT, KernelError } from '#lib/errors.ts';
import { type Mac, mac as macOf } from '#lib/ip.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import { fakeAddresses } from './fake-addresses.ts';
import { addCard, addLoopback, deleteLink, fakeLinks } from './fake-links.ts';
import { FakeNamespace, type FakeWorld, viewOf } from './fake-namespace.ts';
import { fakeFdb, fakeNeighbours, fakeRules } from './fake-neighbours.ts';
import { fakeRoutes } from './fake-routes.ts';
import { DEFAULT_SYSCTLS, fakeSysctl } from './fake-sysctl.ts';
import type { Link, LinkSetup, NetworkStack, OpenNetworkStack } from './port.ts';

export class FakeNetwork {
  readonly #namespaces = new Map<NetnsPath | undefined, FakeNamespace>();
  readonly #failures: { op: RegExp; errno: number }[] = [];
  readonly #world: FakeWorld;
  #macs = 0;

  /** @param options.sysctls settings that the fake does not know by itself, with their defaults */
  constructor(options: { sysctls?: Readonly<Record<string, string>> } = {}) {
    this.#world = {
      find: (netns) => this.#find(netns),
      check: (op) => this.#check(op),
      newMac: () => this.#newMac(),
      sysctls: new Map(Object.entries({ ...DEFAULT_SYSCTLS, ...options.sysctls })),
    };
    this.#add(undefined);
  }

  /** Opens the stack of a namespace made by {@link addNamespace}, or of the host's, which is always there. */
  readonly open: OpenNetworkStack = (options = {}) => {
    const namespace = this.#find(options.netns);
    const stops = new Set<() => void>();
    const stack: NetworkStack = {
      links: fakeLinks(namespace),
      addresses: fakeAddresses(namespace),
      routes: fakeRoutes(namespace),
      neighbours: fakeNeighbours(namespace),
      fdb: fakeFdb(namespace),
      rules: fakeRules(namespace),
      configure: (setups) => configure(stack, setups),
      sysctl: fakeSysctl(namespace),
      watch(listener) {
        const stop = namespace.watch(listener);
        stops.add(stop);
        return stop;
      },
      [Symbol.dispose]() {
        for (const stop of stops) stop();
      },
    };
    return stack;
  };

  /** Makes an empty namespace (`lo` alone, down) that {@link open} and the peers of veths can name. */
  addNamespace(path: NetnsPath): void {
    if (this.#namespaces.has(path)) throw new Error(`there is a fake namespace "${path}" already`);
    this.#add(path);
  }

  /** Deletes a namespace with all its links, and so the other ends of its veths. */
  removeNamespace(path: NetnsPath): void {
    const namespace = this.#find(path);
    for (const link of [...namespace.links.values()]) deleteLink(link);
    this.#namespaces.delete(path);
  }

  /**
   * Adds a network card, up: the underlay of a node, which no program creates.
   * @param options.netns the host's by default
   */
  addCard(name: string, options: { netns?: NetnsPath; mac?: Mac; mtuBytes?: number } = {}): Link {
    const mac = options.mac ?? this.#newMac();
    const mtuBytes = options.mtuBytes ?? 1500;
    return viewOf(addCard(this.#find(options.netns), { name, mac, mtuBytes }));
  }

  /** Makes the next change whose operation (`KernelError.op`) matches fail with this errno, once. */
  failNext(op: RegExp, errno: number): void {
    this.#failures.push({ op, errno });
  }

  /** Tells every watcher that events were lost. */
  overrun(): void {
    for (const namespace of this.#namespaces.values()) namespace.emit({ type: 'overrun' });
  }

  #add(path: NetnsPath | undefined): void {
    const namespace = new FakeNamespace(this.#world);
    addLoopback(namespace);
    this.#namespaces.set(path, namespace);
  }

  #find(netns: Netns | NetnsPath | undefined): FakeNamespace {
    const path = typeof netns === 'object' ? netns.path : netns;
    const namespace = this.#namespaces.get(path);
    if (namespace === undefined) throw new KernelError(`open network namespace "${path}"`, ENOENT);
    return namespace;
  }

  #check(op: string): void {
    const at = this.#failures.findIndex((failure) => failure.op.test(op));
    const [failure] = at < 0 ? [] : this.#failures.splice(at, 1);
    if (failure !== undefined) throw new KernelError(op, failure.errno);
  }

  /** Locally administered, like those the kernel draws, but the same in every run. */
  #newMac(): Mac {
    const hex = (++this.#macs).toString(16).padStart(8, '0');
    return macOf(`02:fa:${hex.match(/../g)?.join(':')}`);
  }
}

function configure(stack: NetworkStack, setups: readonly LinkSetup[]): void {
  const failures: unknown[] = [];
  const attempt = (action: () => void) => {
    try {
      action();
    } catch (error) {
      failures.push(error);
    }
  };
  for (const { link, ipv4, up, addresses = [], neighbours = [], routes = [] } of setups) {
    for (const [setting, value] of Object.entries(ipv4 ?? {}))
      attempt(() => {
        const name = stack.links.get(link)?.name;
        if (name === undefined)
          throw new KernelError(`change IPv4 settings of link ${link}`, ENODEV);
        stack.sysctl.set(`net/ipv4/conf/${name}/${setting}`, String(value));
      });
    if (up !== undefined) attempt(() => stack.links.set(link, { up }));
    for (const it of addresses) attempt(() => stack.addresses.add({ link, ...it }));
    attempt(() => stack.neighbours.replace(neighbours.map((it) => ({ link, ...it }))));
    attempt(() => stack.routes.replace(routes.map((it) => ({ link, ...it }))));
  }
  if (failures.length > 0) throw failures[0];
}
