/**
 * The network stack of one network namespace: links, addresses, routes, neighbours, FDB, rules, sysctls.
 *
 * Calls are synchronous, because netlink is: the kernel has done the work when the call returns.
 * Every method throws `KernelError` with the operation, errno and the kernel's own words.
 * Sources: `include/uapi/linux/{rtnetlink,if_link,neighbour,fib_rules}.h`.
 */
import type { Cidr, Family, Ip, Mac } from '#lib/ip.ts';
import type { Netns, NetnsPath } from '../netns.ts';

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
  /** `IFLA_LINK`: for a veth the index of its peer, in the peer's namespace. */
  readonly peerIndex: IfIndex | undefined;
  /** `IFLA_LINK_NETNSID`: set if the peer is in another namespace. */
  readonly peerNetnsId: number | undefined;
  readonly vxlan: VxlanConfig | undefined;
}

export interface VxlanConfig {
  readonly vni: number;
  readonly port: number;
  /** Source address of the encapsulation; undefined lets the kernel choose. */
  readonly local: Ip | undefined;
  /** Underlay device, for the MTU and the choice of source. */
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
    });

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

export interface BridgePortChange {
  readonly hairpin?: boolean;
  readonly isolated?: boolean;
  readonly learning?: boolean;
  readonly neighSuppress?: boolean;
}

export interface Address {
  readonly link: IfIndex;
  readonly address: Ip;
  readonly prefixLength: number;
  /** `RT_SCOPE_…`: 0 universe (default), 253 link, 254 host. */
  readonly scope?: number;
  /** IPv6 only: no duplicate address detection; the address is usable at once. */
  readonly nodad?: boolean;
}

export type RouteType = 'unicast' | 'local' | 'blackhole' | 'unreachable' | 'prohibit' | 'throw';

export interface Route {
  readonly destination: Cidr;
  /** Default 254 (main). */
  readonly table?: number;
  readonly type?: RouteType;
  readonly link?: IfIndex;
  readonly gateway?: Ip;
  /** The gateway is taken to be on the link although no prefix says so (`RTNH_F_ONLINK`). */
  readonly onlink?: boolean;
  /** `RT_SCOPE_…` */
  readonly scope?: number;
  /** Preferred source address. */
  readonly source?: Ip;
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

/** What the kernel says has changed. `overrun`: events were lost; read everything again. */
export type NetworkEvent =
  | { readonly type: 'link'; readonly deleted: boolean; readonly link: Link }
  | { readonly type: 'address'; readonly deleted: boolean; readonly address: Address }
  | { readonly type: 'route'; readonly deleted: boolean; readonly route: Route }
  | { readonly type: 'neighbour'; readonly deleted: boolean; readonly neighbour: Neighbour }
  | { readonly type: 'fdb'; readonly deleted: boolean; readonly entry: FdbEntry }
  | { readonly type: 'rule'; readonly deleted: boolean }
  | { readonly type: 'overrun' };

export interface NetworkStack extends Disposable {
  readonly links: {
    list(): Link[];
    /** @returns undefined if there is none */
    get(nameOrIndex: string | IfIndex): Link | undefined;
    /** @throws KernelError EEXIST if the name is taken */
    create(spec: LinkSpec): Link;
    set(index: IfIndex, change: LinkChange): void;
    setBridgePort(index: IfIndex, change: BridgePortChange): void;
    /** Deleting what is gone succeeds. */
    delete(index: IfIndex): void;
  };
  readonly addresses: {
    list(filter?: { link?: IfIndex; family?: Family }): Address[];
    /** Adding what is there succeeds. */
    add(address: Address): void;
    delete(address: Address): void;
  };
  readonly routes: {
    /** All tables unless one is named. */
    list(filter?: { family?: Family; protocol?: number; table?: number }): Route[];
    /** Adds, or replaces the one with the same destination, table and metric. */
    replace(routes: readonly Route[]): void;
    /** Deleting what is gone succeeds. */
    delete(routes: readonly Route[]): void;
    /** The route to an address as the kernel would choose it now. @throws KernelError ENETUNREACH */
    lookup(destination: Ip): Route;
  };
  readonly neighbours: {
    list(filter?: { link?: IfIndex; family?: Family }): Neighbour[];
    replace(entries: readonly Neighbour[]): void;
    delete(entries: readonly Neighbour[]): void;
  };
  readonly fdb: {
    list(link: IfIndex): FdbEntry[];
    replace(entries: readonly FdbEntry[]): void;
    delete(entries: readonly FdbEntry[]): void;
  };
  readonly rules: {
    list(family: Family): Rule[];
    add(rule: Rule): void;
    delete(rule: Rule): void;
  };
  readonly sysctl: {
    /** @param name with slashes, below `/proc/sys`: `net/ipv4/ip_forward`. @returns undefined if the kernel has none */
    get(name: string): string | undefined;
    set(name: string, value: string): void;
  };
  /** Tells of changes until the returned function is called. */
  watch(listener: (event: NetworkEvent) => void): () => void;
}

export type OpenNetworkStack = (options?: { netns?: Netns | NetnsPath }) => NetworkStack;
