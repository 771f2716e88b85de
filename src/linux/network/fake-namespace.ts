/** The state of one namespace of the fake network, and how its watchers are told. */
import { KernelError } from '#lib/errors.ts';
import type { Mac } from '#lib/ip.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import type {
  Address,
  BridgePort,
  FdbEntry,
  IfIndex,
  Link,
  Neighbour,
  NetworkEvent,
  Route,
  Rule,
  VxlanConfig,
} from './port.ts';

/** A link of the fake, changed in place. */
export interface FakeLink {
  namespace: FakeNamespace;
  index: IfIndex;
  name: string;
  readonly kind: string | undefined;
  mac: Mac;
  mtuBytes: number;
  up: boolean;
  promiscuous: boolean;
  master: IfIndex | undefined;
  bridgePort: BridgePort | undefined;
  /** The other end of a veth. */
  peer: FakeLink | undefined;
  /** What a macvlan or vxlan stands on: it goes when that goes. */
  readonly lower: FakeLink | undefined;
  readonly vxlan: VxlanConfig | undefined;
}

/** What a namespace needs of the network it belongs to. */
export interface FakeWorld {
  /** @throws KernelError ENOENT if there is no such namespace */
  find(netns: Netns | NetnsPath | undefined): FakeNamespace;
  /** @throws KernelError if the test asked for this operation to fail */
  check(op: string): void;
  newMac(): Mac;
  readonly sysctls: ReadonlyMap<string, string>;
}

export class FakeNamespace {
  readonly world: FakeWorld;
  readonly links = new Map<IfIndex, FakeLink>();
  readonly routes = new Map<string, Route>();
  readonly neighbours = new Map<string, Neighbour>();
  readonly fdb = new Map<string, FdbEntry>();
  readonly sysctls = new Map<string, string>();
  addresses: Address[] = [];
  rules: Rule[] = [
    { family: 4, priority: 0, table: 255 },
    { family: 4, priority: 32766, table: 254 },
    { family: 4, priority: 32767, table: 253 },
    { family: 6, priority: 0, table: 255 },
    { family: 6, priority: 32766, table: 254 },
  ];
  readonly #watchers = new Set<(event: NetworkEvent) => void>();
  readonly #namespaceIds = new Map<FakeNamespace, number>();
  #lastIndex = 0;

  constructor(world: FakeWorld) {
    this.world = world;
  }

  /** The index for a new link: the wanted one if it is free. */
  takeIndex(wanted?: IfIndex): IfIndex {
    if (wanted !== undefined && !this.links.has(wanted)) {
      this.#lastIndex = Math.max(this.#lastIndex, wanted);
      return wanted;
    }
    return ++this.#lastIndex;
  }

  linkNamed(name: string): FakeLink | undefined {
    return [...this.links.values()].find((link) => link.name === name);
  }

  /** @throws KernelError with the operation if there is no such link */
  linkAt(index: IfIndex, op: string, errno: number): FakeLink {
    const link = this.links.get(index);
    if (link === undefined) throw new KernelError(op, errno);
    return link;
  }

  /** The number by which this namespace knows another one. */
  idOf(other: FakeNamespace): number {
    const id = this.#namespaceIds.get(other) ?? this.#namespaceIds.size;
    this.#namespaceIds.set(other, id);
    return id;
  }

  watch(listener: (event: NetworkEvent) => void): () => void {
    // A watcher of its own even if the same function watches twice.
    const watcher = (event: NetworkEvent) => listener(event);
    this.#watchers.add(watcher);
    return () => {
      this.#watchers.delete(watcher);
    };
  }

  /** Tells those who watch now, later: like the kernel never from inside the call that made the change. */
  emit(event: NetworkEvent): void {
    for (const watcher of [...this.#watchers])
      setImmediate(() => {
        if (this.#watchers.has(watcher)) watcher(event);
      });
  }
}

/** A link as the port shows it. */
export function viewOf(link: FakeLink): Link {
  const { namespace, peer } = link;
  const elsewhere = peer !== undefined && peer.namespace !== namespace;
  return {
    index: link.index,
    name: link.name,
    kind: link.kind,
    mac: link.mac,
    mtuBytes: link.mtuBytes,
    up: link.up,
    carrier: link.up && (peer === undefined || peer.up),
    loopback: link.name === 'lo',
    promiscuous: link.promiscuous,
    master: link.master,
    peerIndex: peer?.index ?? (link.kind === 'macvlan' ? link.lower?.index : undefined),
    peerNetnsId: elsewhere ? namespace.idOf(peer.namespace) : undefined,
    vxlan: link.vxlan,
    ...(link.bridgePort === undefined ? {} : { bridgePort: link.bridgePort }),
  };
}
