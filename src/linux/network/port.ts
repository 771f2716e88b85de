/**
 * The network stack of one network namespace: links, addresses, routes, neighbours, FDB, rules, sysctls.
 *
 * Calls are synchronous, because netlink is: the kernel has done the work when the call returns.
 * Every method throws `KernelError` with the operation, errno and the kernel's own words.
 * Sources: `include/uapi/linux/{rtnetlink,if_link,neighbour,fib_rules}.h`.
 */
import type { Cidr, Family, Ip, Mac } from '#lib/ip.ts';
import type { BridgeVlan } from '#wire/rtnetlink/bridge-vlan.ts';
import type { Ipv4LinkSettings } from '#wire/rtnetlink/link.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import type { Poller } from '../poller.ts';

/** Interface index; valid only in its own namespace. */
export type IfIndex = number;

export interface Link {
  readonly index: IfIndex;
  readonly name: string;
  /** `veth`, `bridge`, `vxlan`, `tun`…; undefined for hardware and loopback. */
  readonly kind: string | undefined;
  readonly mac: Mac | undefined;
  readonly mtuBytes: number;
  /** Administratively up (`IFF_UP`). */
  readonly up: boolean;
  /** Carrier (`IFF_LOWER_UP`). */
  readonly carrier: boolean;
  readonly loopback: boolean;
  readonly promiscuous: boolean;
  /** Bridge or other master. */
  readonly master: IfIndex | undefined;
  /** `IFLA_LINK`: for a veth the index of its peer, in the peer's namespace; for a macvlan or a VLAN its parent. */
  readonly peerIndex: IfIndex | undefined;
  /** `IFLA_LINK_NETNSID`: set if the peer is in another namespace. */
  readonly peerNetnsId: number | undefined;
  readonly vxlan: VxlanConfig | undefined;
  /** Whether a bridge keeps VLANs apart; absent for other links. */
  readonly vlanFiltering?: boolean;
  /** How its bridge treats it; absent if its master is no bridge. */
  readonly bridgePort?: BridgePort;
}

export interface BridgePort {
  readonly hairpin: boolean;
  readonly isolated: boolean;
  readonly learning: boolean;
  readonly neighSuppress: boolean;
}

export interface VxlanConfig {
  readonly vni: number;
  readonly port: number;
  /** Source address of the encapsulation; undefined lets the kernel choose. */
  readonly local: Ip | undefined;
  /** Underlay device, for the MTU and the choice of source. Needed where `local` is a link-local address. */
  readonly device: IfIndex | undefined;
  readonly learning: boolean;
}

interface NewLink {
  readonly name: string;
  readonly mac?: Mac;
  readonly mtuBytes?: number;
  /** Set up at once. */
  readonly up?: boolean;
  readonly master?: IfIndex;
}

export type LinkSpec =
  | (NewLink & {
      readonly kind: 'veth';
      /** Created directly in its namespace: moving a link serialises on the RTNL lock. */
      readonly peer: {
        readonly name: string;
        readonly netns?: Netns | NetnsPath;
        readonly mac?: Mac;
        readonly mtuBytes?: number;
        readonly up?: boolean;
      };
    })
  | (NewLink & { readonly kind: 'bridge'; readonly ageingSeconds?: number; readonly stp?: boolean })
  | (NewLink & { readonly kind: 'vxlan'; readonly vxlan: VxlanConfig })
  | (NewLink & {
      readonly kind: 'macvlan';
      readonly parent: IfIndex;
      readonly mode: 'bridge' | 'private';
    })
  /** What comes by the parent with the tag of a VLAN (IEEE 802.1Q). */
  | (NewLink & { readonly kind: 'vlan'; readonly parent: IfIndex; readonly id: number });

export interface LinkChange {
  readonly name?: string;
  readonly mac?: Mac;
  readonly mtuBytes?: number;
  readonly up?: boolean;
  readonly promiscuous?: boolean;
  /** 0 takes the link out of its master. */
  readonly master?: IfIndex;
  readonly netns?: Netns | NetnsPath;
}

export type BridgePortChange = Partial<BridgePort>;

export interface Address {
  readonly link: IfIndex;
  readonly address: Ip;
  readonly prefixLength: number;
  /** `RT_SCOPE_…`: 0 universe (default), 253 link, 254 host. */
  readonly scope?: number;
  /** IPv6 only: no duplicate address detection; the address is usable at once. */
  readonly nodad?: boolean;
  /** Who owns it (`IFA_PROTO`, Linux 5.18; lost on older kernels). Missing for what the kernel made or nobody marked. */
  readonly protocol?: number;
}

export type RouteType = 'unicast' | 'local' | 'blackhole' | 'unreachable' | 'prohibit' | 'throw';

/**
 * A route with one next hop. Read ones always have `table` and `type`; what else has its default is left out of them.
 * Compare by `routeKey` and `sameRoute` of `compare.ts`, which fill the defaults in. A multipath route, which we never
 * make, reads as one without link and gateway.
 */
export interface Route {
  readonly destination: Cidr;
  /** Default 254 (main). */
  readonly table?: number;
  readonly type?: RouteType;
  readonly link?: IfIndex;
  readonly gateway?: Ip;
  /** The gateway is taken to be on the link although no prefix says so (`RTNH_F_ONLINK`). */
  readonly onlink?: boolean;
  /** `RT_SCOPE_…`; by default link without a gateway, universe with one, host for `local`. IPv6 has none. */
  readonly scope?: number;
  /** Preferred source address. */
  readonly source?: Ip;
  /** By default 0, and for IPv6 1024. */
  readonly metric?: number;
  readonly mtuBytes?: number;
  /** `rtm_protocol`: who owns it. */
  readonly protocol: number;
}

export interface Neighbour {
  readonly link: IfIndex;
  readonly address: Ip;
  readonly mac: Mac | undefined;
  /** `NUD_PERMANENT` when written by us. */
  readonly permanent: boolean;
  /** The kernel's `NUD_…` bits, when read. */
  readonly state?: number;
}

/** An entry of a VXLAN device's own forwarding table (`NTF_SELF`): frames for `mac` go to `destination`. */
export interface FdbEntry {
  readonly link: IfIndex;
  readonly mac: Mac;
  /** Underlay address of the remote VTEP. */
  readonly destination: Ip;
}

export interface Rule {
  readonly family: Family;
  readonly priority: number;
  readonly table: number;
  readonly from?: Cidr;
  readonly to?: Cidr;
  readonly mark?: number;
  readonly markMask?: number;
}

export interface LinkSetting {
  readonly link: IfIndex | 'all' | 'default';
  /** `forwarding`, `rp_filter`; and `proxy_arp` or, for IPv6, `proxy_ndp`. */
  readonly setting: 'forwarding' | 'rp_filter' | 'proxy_neigh';
  readonly value: number;
}

/**
 * What the kernel says has changed. `overrun`: events were lost; read everything again.
 *
 * IPv4 routes that go because their link went down or was deleted, or because their source address was, are not told
 * one by one: the link's or address's event stands for them.
 */
export type NetworkEvent =
  /** `isNew`: this is what it was made as, which is told after whoever made it may have gone on with it. */
  | {
      readonly type: 'link';
      readonly deleted: boolean;
      readonly link: Link;
      readonly isNew?: true;
    }
  | { readonly type: 'address'; readonly deleted: boolean; readonly address: Address }
  | { readonly type: 'route'; readonly deleted: boolean; readonly route: Route }
  | { readonly type: 'neighbour'; readonly deleted: boolean; readonly neighbour: Neighbour }
  | { readonly type: 'fdb'; readonly deleted: boolean; readonly entry: FdbEntry }
  | { readonly type: 'rule'; readonly deleted: boolean }
  /** One of the few settings (`sysctl`) whose change the kernel tells of; what a new link begins with is not told. */
  | ({ readonly type: 'setting'; readonly family: Family } & LinkSetting)
  | { readonly type: 'overrun' };

/** What a link is to get, in this order. */
export interface LinkSetup {
  readonly link: IfIndex;
  /**
   * Room for a program on what comes in by it (`clsact`), for `TrafficControl.classify`; left out where the kernel has none.
   * To a link that is up it cannot be given without loss: the kernel drops what leaves by it meanwhile (`qdisc_graft()`,
   * `net/sched/sch_api.c`).
   */
  readonly classified?: boolean;
  /** As the settings (sysctl) of the same names; the kernel tells nobody of them. */
  readonly ipv4?: Ipv4LinkSettings;
  readonly up?: boolean;
  readonly addresses?: readonly Omit<Address, 'link'>[];
  readonly neighbours?: readonly Omit<Neighbour, 'link'>[];
  readonly routes?: readonly Omit<Route, 'link'>[];
}

/** `lo` has it in every namespace: `LOOPBACK_IFINDEX`, `include/net/flow.h` */
export const LOOPBACK_INDEX: IfIndex = 1;

/** A deletion of links that is under way. */
export interface LinkDeletion {
  /**
   * Resolves when the links are gone for everybody, with their addresses and routes, in all namespaces that they
   * reached. @throws KernelError
   */
  readonly gone: Promise<void>;
  /**
   * Resolves, never rejects, when the kernel has also freed them, some tens of milliseconds later. Until then it
   * holds a thread of Node's pool, so only a few may be under way.
   */
  readonly freed: Promise<void>;
}

export interface NetworkStack extends Disposable {
  readonly links: {
    list(): Link[];
    /** Also finds a link that is down. @returns undefined if there is none */
    get(nameOrIndex: string | IfIndex): Link | undefined;
    /** All or nothing. @throws KernelError EEXIST if the name is taken, or its VNI and port by another VXLAN link */
    create(spec: LinkSpec): Link;
    /**
     * Like `create`, while the event loop goes on: the kernel takes a millisecond for a pair. Holds a thread of Node's pool,
     * so only a few may be under way.
     */
    createOnThread(spec: LinkSpec & { readonly kind: 'veth' }): Promise<Link>;
    /** @throws KernelError ENODEV if there is no such link */
    set(index: IfIndex, change: LinkChange): void;
    setBridgePort(index: IfIndex, change: BridgePortChange): void;
    /**
     * Whether packets between ports of a bridge pass the filters of IPv4 and IPv6 as forwarded ones do. It takes effect
     * where the kernel has `br_netfilter`, to be seen by the sysctls `net/bridge/…`.
     * @throws KernelError ENODEV if there is no such link
     */
    setBridgeFilter(index: IfIndex, on: boolean): void;
    /**
     * A kernel without VLAN filtering may take it without a word: `vlanFiltering` of the link tells.
     * @throws KernelError EOPNOTSUPP if it says so
     */
    setVlanFiltering(bridge: IfIndex, on: boolean): void;
    /** @throws KernelError EOPNOTSUPP where the kernel has no VLAN filtering */
    addBridgeVlans(port: IfIndex, vlans: readonly BridgeVlan[], whose?: 'port' | 'self'): void;
    /** @throws KernelError ENOENT for one that the port is not of, EOPNOTSUPP where the kernel has no VLAN filtering */
    deleteBridgeVlans(port: IfIndex, vlans: readonly BridgeVlan[]): void;
    /** Deleting what is gone succeeds. */
    delete(index: IfIndex): void;
    /**
     * Deletes links together, which takes as long as one, while the event loop goes on.
     * Those that are gone are no error; all or none of the others.
     */
    deleteAll(indexes: readonly IfIndex[]): LinkDeletion;
  };
  readonly addresses: {
    list(filter?: { link?: IfIndex; family?: Family }): Address[];
    /** Adding what is there succeeds. */
    add(address: Address): void;
    /** Deleting what is gone succeeds. */
    delete(address: Address): void;
  };
  readonly routes: {
    /** All tables unless one is named. Broadcast, multicast and anycast routes are not shown. */
    list(filter?: { family?: Family; protocol?: number; table?: number }): Route[];
    /**
     * Adds, or replaces the one with the same destination, table and metric. Goes on past failures.
     * @throws KernelError for the first that failed, `op` naming it and `index` being its place
     */
    replace(routes: readonly Route[]): void;
    /**
     * Finds each by destination, table, metric and protocol, wherever it leads. Deleting what is gone succeeds.
     * A metric of 0 (the default of IPv4) matches any.
     * @throws as `replace`
     */
    delete(routes: readonly Route[]): void;
    /**
     * The route to an address as the kernel would choose it now, with the source address it would use.
     * @throws KernelError ENETUNREACH if there is none; EHOSTUNREACH, EINVAL or EACCES if an unreachable, blackhole or
     * prohibit route matches
     */
    lookup(destination: Ip): Route;
  };
  readonly neighbours: {
    list(filter?: { link?: IfIndex; family?: Family }): Neighbour[];
    /** Goes on past failures. @throws KernelError for the first that failed */
    replace(entries: readonly Neighbour[]): void;
    /** Finds each by link and address. Deleting what is gone succeeds. */
    delete(entries: readonly Neighbour[]): void;
  };
  readonly fdb: {
    /** @returns nothing for a link that is gone */
    list(link: IfIndex): FdbEntry[];
    /**
     * Adds, or replaces the one with the same MAC. For group addresses and all zeros (where frames go whose MAC is not
     * known) it adds a destination to those there are. Goes on past failures.
     * @throws KernelError for the first that failed
     */
    replace(entries: readonly FdbEntry[]): void;
    /** Deletes exactly this MAC with this destination. Deleting what is gone succeeds. */
    delete(entries: readonly FdbEntry[]): void;
  };
  readonly rules: {
    /** Only rules that look up a table. */
    list(family: Family): Rule[];
    /** Adding what is there succeeds. */
    add(rule: Rule): void;
    /** Deletes the first rule that has all that is given. Deleting what is gone succeeds. */
    delete(rule: Rule): void;
  };
  /**
   * Sets links up and gives them addresses, neighbours and routes, as `links.set`, `addresses.add`,
   * `neighbours.replace` and `routes.replace` would, with a few system calls for all. Goes on past failures.
   * @throws KernelError for the first that failed
   */
  configure(setups: readonly LinkSetup[]): void;
  readonly sysctl: {
    /** @param name with slashes, below `/proc/sys`: `net/ipv4/ip_forward`. @returns undefined if the kernel has none */
    get(name: string): string | undefined;
    /** @throws KernelError ENOENT if the kernel has none, EINVAL if it refuses the value */
    set(name: string, value: string): void;
  };
  /**
   * Tells of changes until the returned function is called, perhaps also of some that happened just before.
   * Events come between turns of the event loop, never from inside a call.
   */
  watch(listener: (event: NetworkEvent) => void): () => void;
}

export interface NetworkStackOptions {
  /** This process's own by default. A `Netns` must outlive the stack. */
  readonly netns?: Netns | NetnsPath;
  /** Wakes `watch`; by default one of the stack's own, made by the first `watch`. Each takes a thread of Node's pool. */
  readonly poller?: Poller;
}

export type OpenNetworkStack = (options?: NetworkStackOptions) => NetworkStack;
