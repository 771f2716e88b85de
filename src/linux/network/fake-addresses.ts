/** Addresses of the fake network, and the routes that come and go with them and with the state of links. */
import { ENODEV, KernelError } from '#lib/errors.ts';
import { bitsOf, cidrOf, familyOf, hostCidr, ip } from '#lib/ip.ts';
import { RT_SCOPE_HOST, RT_TABLE_LOCAL, RT_TABLE_MAIN } from '#wire/rtnetlink/constants.ts';
import { routeKey } from './compare.ts';
import { addressFrom, addressMessage } from './convert.ts';
import { describeAddress } from './describe.ts';
import type { FakeNamespace } from './fake-namespace.ts';
import type { Address, IfIndex, NetworkStack, Route } from './port.ts';

/** `RTPROT_KERNEL` */
const KERNEL_PROTOCOL = 2;
/** `IP6_RT_PRIO_ADDRCONF` */
const CONNECTED_METRIC_V6 = 256;
const LOOPBACK_INDEX = 1;

export function fakeAddresses(namespace: FakeNamespace): NetworkStack['addresses'] {
  const { world } = namespace;
  return {
    list: (filter = {}) =>
      namespace.addresses.filter(
        (a) =>
          (filter.link === undefined || a.link === filter.link) &&
          (filter.family === undefined || familyOf(a.address) === filter.family),
      ),
    add(address) {
      const op = `add ${describeAddress(address)}`;
      world.check(op);
      namespace.linkAt(address.link, op, ENODEV);
      if (address.prefixLength > bitsOf(familyOf(address.address))) throw new KernelError(op, 22);
      addAddress(namespace, address);
    },
    delete(address) {
      world.check(`delete ${describeAddress(address)}`);
      removeAddresses(namespace, (a) => same(a, address));
    },
  };
}

/** Brings the connected routes back, and on the loopback link its well-known addresses. */
export function onLinkUp(namespace: FakeNamespace, index: IfIndex): void {
  if (index === LOOPBACK_INDEX) {
    const scope = RT_SCOPE_HOST;
    addAddress(namespace, { link: index, address: ip('127.0.0.1'), prefixLength: 8, scope });
    addAddress(namespace, { link: index, address: ip('::1'), prefixLength: 128, scope });
  }
  for (const address of namespace.addresses)
    if (address.link === index) addRoutesOf(namespace, address);
}

/** IPv6 forgets the link's addresses, IPv4 keeps them and, of the routes, that the address is this host's. */
export function onLinkDown(namespace: FakeNamespace, index: IfIndex): void {
  removeAddresses(namespace, (a) => a.link === index && familyOf(a.address) === 6);
  removeRoutes(
    namespace,
    (r) => r.link === index && (r.type !== 'local' || familyOf(r.destination) === 6),
  );
  forgetNeighbours(namespace, index);
}

export function onLinkGone(namespace: FakeNamespace, index: IfIndex): void {
  removeAddresses(namespace, (a) => a.link === index);
  removeRoutes(namespace, (r) => r.link === index);
  forgetNeighbours(namespace, index);
  for (const [key, entry] of namespace.fdb) {
    if (entry.link !== index) continue;
    namespace.fdb.delete(key);
    namespace.emit({ type: 'fdb', deleted: true, entry });
  }
}

function addAddress(namespace: FakeNamespace, address: Address): void {
  if (namespace.addresses.some((a) => same(a, address))) return;
  const added = addressFrom(addressMessage(address));
  namespace.addresses.push(added);
  namespace.emit({ type: 'address', deleted: false, address: added });
  addRoutesOf(namespace, added);
}

function addRoutesOf(namespace: FakeNamespace, { link, address, prefixLength }: Address): void {
  const family = familyOf(address);
  const up = namespace.links.get(link)?.up === true;
  const common = { link, protocol: KERNEL_PROTOCOL };
  const source = family === 4 ? { source: address } : {};
  const local: Route = {
    ...common,
    ...source,
    destination: hostCidr(address),
    table: RT_TABLE_LOCAL,
    type: 'local',
    ...(family === 6 ? { metric: 0 } : {}),
  };
  if (up || family === 4) addRoute(namespace, local);
  if (!up || (family === 4 && prefixLength === 32)) return;
  addRoute(namespace, {
    ...common,
    ...source,
    destination: cidrOf(address, prefixLength),
    table: RT_TABLE_MAIN,
    type: 'unicast',
    ...(family === 6 ? { metric: CONNECTED_METRIC_V6 } : {}),
  });
}

function addRoute(namespace: FakeNamespace, route: Route): void {
  const key = routeKey(route);
  if (namespace.routes.has(key)) return;
  namespace.routes.set(key, route);
  namespace.emit({ type: 'route', deleted: false, route });
}

function removeAddresses(namespace: FakeNamespace, chosen: (address: Address) => boolean): void {
  for (const gone of namespace.addresses.filter(chosen)) {
    namespace.addresses = namespace.addresses.filter((a) => a !== gone);
    namespace.emit({ type: 'address', deleted: true, address: gone });
    const host = hostCidr(gone.address);
    const connected = cidrOf(gone.address, gone.prefixLength);
    removeRoutes(
      namespace,
      (r) =>
        r.source === gone.address ||
        (r.protocol === KERNEL_PROTOCOL &&
          r.link === gone.link &&
          (r.destination === host || r.destination === connected)),
    );
  }
}

/** IPv4 routes go without a word, as in the kernel: see `NetworkEvent`. */
function removeRoutes(namespace: FakeNamespace, chosen: (route: Route) => boolean): void {
  for (const [key, route] of namespace.routes) {
    if (!chosen(route)) continue;
    namespace.routes.delete(key);
    if (familyOf(route.destination) === 6) namespace.emit({ type: 'route', deleted: true, route });
  }
}

function forgetNeighbours(namespace: FakeNamespace, index: IfIndex): void {
  for (const [key, neighbour] of namespace.neighbours) {
    if (neighbour.link !== index) continue;
    namespace.neighbours.delete(key);
    namespace.emit({ type: 'neighbour', deleted: true, neighbour });
  }
}

function same(a: Address, b: Address): boolean {
  return a.link === b.link && a.address === b.address && a.prefixLength === b.prefixLength;
}
