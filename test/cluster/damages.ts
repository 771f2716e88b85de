/**
 * What somebody may break on a node, one case for each class of objects that we own, and how it is seen that all is whole
 * again. For the test of repairs and for the benchmark of their time.
 */
import { cidr, type Ip, ip, mac } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import type { Link, NetworkStack, Route } from '#linux/network/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { inTable } from '#wire/nftables/objects.ts';

/** A node as somebody with its privileges sees it. */
export interface Victim {
  readonly stack: NetworkStack;
  readonly nftables: Nftables;
  /** Host end of a pod's link, and the pod's address. */
  readonly hostLink: string;
  readonly podIp: Ip;
}

export interface Damage {
  readonly what: string;
  readonly kind:
    | 'route'
    | 'neighbour'
    | 'FDB entry'
    | 'link'
    | 'address'
    | 'MAC'
    | 'MTU'
    | 'nft'
    | 'sysctl';
  readonly act: (victim: Victim) => void;
  /** All that the damage touches, as text: equal before the damage and after the repair. */
  readonly look: (victim: Victim) => string;
}

const STRANGE_MAC = mac('02:00:00:00:00:99');
const RT_TABLE_LOCAL = 255;

const linkOf = ({ stack }: Victim, name: string): Link => {
  const link = stack.links.get(name);
  if (link === undefined) throw new Error(`there is no link "${name}"`);
  return link;
};
const routesOf = ({ stack }: Victim): Route[] => stack.routes.list({ protocol: ROUTE_PROTOCOL });
const tunnelRoute = (victim: Victim): Route => {
  const link = linkOf(victim, VXLAN_LINK).index;
  const found = routesOf(victim).find((it) => it.link === link && it.gateway !== undefined);
  if (found === undefined) throw new Error('there is no route to another node');
  return found;
};

const lookAtRoutes = (victim: Victim) =>
  victim.stack.routes
    .list()
    .filter((it) => it.protocol === ROUTE_PROTOCOL || it.destination.startsWith('10.244.'))
    .map((it) => {
      const link = it.link === undefined ? '' : (victim.stack.links.get(it.link)?.name ?? '?');
      return `${it.destination} ${it.table} ${it.type} ${it.gateway} ${link} ${it.source} ${it.protocol}`;
    })
    .sort()
    .join('\n');
const lookAtNeighbours = (victim: Victim) =>
  [VXLAN_LINK, victim.hostLink]
    .flatMap((name) => victim.stack.neighbours.list({ link: linkOf(victim, name).index }))
    .filter((it) => it.permanent)
    .map((it) => `${it.address} ${it.mac}`)
    .sort()
    .join('\n');
const lookAtFdb = (victim: Victim) => {
  const link = victim.stack.links.get(VXLAN_LINK);
  return (link === undefined ? [] : victim.stack.fdb.list(link.index))
    .map((it) => `${it.mac} ${it.destination}`)
    .sort()
    .join('\n');
};
const lookAtLink = (name: (victim: Victim) => string) => (victim: Victim) => {
  const link = victim.stack.links.get(name(victim));
  if (link === undefined) return 'none';
  const addresses = victim.stack.addresses
    .list({ link: link.index })
    .map((it) => it.address)
    // The kernel's own comes a moment after the link.
    .filter((it) => !it.startsWith('fe80:') || it === 'fe80::1')
    .sort();
  return `${link.mac} ${link.mtuBytes} ${link.up} ${addresses}`;
};
const tunnel = () => VXLAN_LINK;
const hostEnd = (victim: Victim) => victim.hostLink;
const whole = (victim: Victim) =>
  [
    lookAtLink(tunnel)(victim),
    lookAtRoutes(victim),
    victim.stack.links.get(VXLAN_LINK) === undefined ? '' : lookAtNeighbours(victim),
    lookAtFdb(victim),
  ].join('\n');

const lookAtTables = ({ nftables }: Victim) =>
  (['ip', 'ip6'] as const)
    .flatMap((family) => {
      const table = nftables.dumpTable(family, 'tulle', { elements: ['fabric-peers'] });
      return [
        ...(table?.chains ?? []).map((it) => `${family} ${it.chain} ${it.rules.length}`),
        ...(table?.sets ?? []).map((it) => `${family} ${it.set} ${it.elements.length}`),
      ];
    })
    .sort()
    .join('\n');

function sysctl(name: (victim: Victim) => string, bad: string): Pick<Damage, 'act' | 'look'> {
  return {
    act: (victim) => victim.stack.sysctl.set(name(victim), bad),
    look: (victim) => `${name(victim)} ${victim.stack.sysctl.get(name(victim))}`,
  };
}

export const DAMAGES: readonly Damage[] = [
  {
    ...{ what: 'a route to another node, deleted', kind: 'route', look: lookAtRoutes },
    act: (victim) => victim.stack.routes.delete([tunnelRoute(victim)]),
  },
  {
    ...{ what: 'a route to another node, led elsewhere', kind: 'route', look: lookAtRoutes },
    act: (victim) => {
      const { destination } = tunnelRoute(victim);
      const link = linkOf(victim, 'eth0').index;
      victim.stack.routes.replace([{ destination, link, protocol: 4 }]);
    },
  },
  {
    ...{ what: 'all our routes, deleted', kind: 'route', look: lookAtRoutes },
    act: (victim) => victim.stack.routes.delete(routesOf(victim)),
  },
  {
    ...{ what: 'a pod’s route, deleted', kind: 'route', look: lookAtRoutes },
    act: (victim) =>
      victim.stack.routes.delete(
        routesOf(victim).filter((it) => it.destination === cidr(`${victim.podIp}/32`)),
      ),
  },
  {
    ...{ what: 'the DNS server’s local routes, deleted', kind: 'route', look: lookAtRoutes },
    act: (victim) =>
      victim.stack.routes.delete(routesOf(victim).filter((it) => it.table === RT_TABLE_LOCAL)),
  },
  {
    ...{ what: 'the tunnel’s neighbours, deleted', kind: 'neighbour', look: lookAtNeighbours },
    act: (victim) => {
      const link = linkOf(victim, VXLAN_LINK).index;
      victim.stack.neighbours.delete(victim.stack.neighbours.list({ link }));
    },
  },
  {
    ...{ what: 'a pod’s neighbour, its MAC altered', kind: 'neighbour', look: lookAtNeighbours },
    act: (victim) => {
      const link = linkOf(victim, victim.hostLink).index;
      victim.stack.neighbours.replace([
        { link, address: victim.podIp, mac: STRANGE_MAC, permanent: true },
      ]);
    },
  },
  {
    ...{ what: 'the FDB entries, deleted', kind: 'FDB entry', look: lookAtFdb },
    act: (victim) =>
      victim.stack.fdb.delete(victim.stack.fdb.list(linkOf(victim, VXLAN_LINK).index)),
  },
  {
    ...{ what: 'an FDB entry, led elsewhere', kind: 'FDB entry', look: lookAtFdb },
    act: (victim) => {
      const [entry] = victim.stack.fdb.list(linkOf(victim, VXLAN_LINK).index);
      if (entry !== undefined)
        victim.stack.fdb.replace([{ ...entry, destination: ip('192.0.2.99') }]);
    },
  },
  {
    ...{ what: 'the tunnel, deleted', kind: 'link', look: whole },
    act: (victim) => victim.stack.links.delete(linkOf(victim, VXLAN_LINK).index),
  },
  {
    ...{ what: 'the tunnel, set down', kind: 'link', look: whole },
    act: (victim) => victim.stack.links.set(linkOf(victim, VXLAN_LINK).index, { up: false }),
  },
  {
    what: 'a pod’s link, set down',
    kind: 'link',
    look: (victim) => `${lookAtLink(hostEnd)(victim)}\n${lookAtRoutes(victim)}`,
    act: (victim) => victim.stack.links.set(linkOf(victim, victim.hostLink).index, { up: false }),
  },
  {
    ...{ what: 'the tunnel’s addresses, deleted', kind: 'address', look: whole },
    act: (victim) => {
      const link = linkOf(victim, VXLAN_LINK).index;
      for (const address of victim.stack.addresses.list({ link }))
        victim.stack.addresses.delete(address);
    },
  },
  {
    ...{ what: 'a pod’s gateway fe80::1, deleted', kind: 'address', look: lookAtLink(hostEnd) },
    act: (victim) => {
      const link = linkOf(victim, victim.hostLink).index;
      for (const address of victim.stack.addresses.list({ link, family: 6 }))
        if (address.address === 'fe80::1') victim.stack.addresses.delete(address);
    },
  },
  {
    ...{ what: 'the tunnel’s MAC, altered', kind: 'MAC', look: lookAtLink(tunnel) },
    act: (victim) => victim.stack.links.set(linkOf(victim, VXLAN_LINK).index, { mac: STRANGE_MAC }),
  },
  {
    ...{ what: 'a pod’s gateway’s MAC, altered', kind: 'MAC', look: lookAtLink(hostEnd) },
    act: (victim) =>
      victim.stack.links.set(linkOf(victim, victim.hostLink).index, { mac: STRANGE_MAC }),
  },
  {
    ...{ what: 'the tunnel’s MTU, altered', kind: 'MTU', look: lookAtLink(tunnel) },
    act: (victim) => victim.stack.links.set(linkOf(victim, VXLAN_LINK).index, { mtuBytes: 1300 }),
  },
  {
    ...{ what: 'the MTU of a pod’s link, altered', kind: 'MTU', look: lookAtLink(hostEnd) },
    act: (victim) =>
      victim.stack.links.set(linkOf(victim, victim.hostLink).index, { mtuBytes: 1300 }),
  },
  {
    ...{ what: 'our nftables tables, deleted', kind: 'nft', look: lookAtTables },
    act: ({ nftables }) =>
      nftables.commit([
        inTable('ip', 'tulle').table.delete(),
        inTable('ip6', 'tulle').table.delete(),
      ]),
  },
  {
    ...{ what: 'a chain, flushed', kind: 'nft', look: lookAtTables },
    act: ({ nftables }) => nftables.commit([inTable('ip', 'tulle').chain.flush('masquerade')]),
  },
  {
    ...{ what: 'the elements of a set, deleted', kind: 'nft', look: lookAtTables },
    act: ({ nftables }) => nftables.commit([inTable('ip', 'tulle').set.flush('fabric-peers')]),
  },
  {
    ...{ what: 'IPv4 forwarding, turned off', kind: 'sysctl' },
    ...sysctl(() => 'net/ipv4/ip_forward', '0'),
  },
  {
    ...{ what: 'IPv6 forwarding, turned off', kind: 'sysctl' },
    ...sysctl(() => 'net/ipv6/conf/all/forwarding', '0'),
  },
  {
    ...{ what: 'the reverse path filter of a pod’s link, altered', kind: 'sysctl' },
    ...sysctl(({ hostLink }) => `net/ipv4/conf/${hostLink}/rp_filter`, '2'),
  },
  {
    ...{ what: 'proxy ARP of a pod’s link, turned off', kind: 'sysctl' },
    ...sysctl(({ hostLink }) => `net/ipv4/conf/${hostLink}/proxy_arp`, '0'),
  },
];

/** Without an event of the kernel: put right by the look that is taken from time to time. */
export const SILENT_DAMAGES: readonly Damage[] = [
  {
    ...{ what: 'router advertisements on a pod’s link, taken', kind: 'sysctl' },
    ...sysctl(({ hostLink }) => `net/ipv6/conf/${hostLink}/accept_ra`, '1'),
  },
];
