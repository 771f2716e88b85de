/** Links of the fake network: what creating, changing and deleting one brings about. */
import { EEXIST, EINVAL, ENODEV, EOPNOTSUPP, ERANGE, KernelError } from '#lib/errors.ts';
import { familyOf, mac as macOf } from '#lib/ip.ts';
import { MAX_LINK_NAME_BYTES } from '#wire/rtnetlink/link.ts';
import { describeNewLink } from './describe.ts';
import { onLinkDown, onLinkGone, onLinkUp } from './fake-addresses.ts';
import { type FakeLink, type FakeNamespace, viewOf } from './fake-namespace.ts';
import type { BridgePort, IfIndex, LinkChange, LinkSpec, NetworkStack } from './port.ts';

const NEW_BRIDGE_PORT: BridgePort = {
  hairpin: false,
  isolated: false,
  learning: true,
  neighSuppress: false,
};
const ETHERNET_MTU_BYTES = 1500;
const LOOPBACK_MTU_BYTES = 65536;
/** `ETH_MIN_MTU`, and the most that the length of an IP packet can say. */
const MIN_MTU_BYTES = 68;
const MAX_MTU_BYTES = 65535;

export function fakeLinks(namespace: FakeNamespace): NetworkStack['links'] {
  const { world } = namespace;
  const remove = (index: IfIndex) => {
    const op = `delete link ${index}`;
    world.check(op);
    const link = namespace.links.get(index);
    if (link !== undefined && link.kind === undefined) throw new KernelError(op, EOPNOTSUPP);
    if (link !== undefined) deleteLink(link);
  };
  return {
    list: () => [...namespace.links.values()].map(viewOf),
    get(which) {
      const link =
        typeof which === 'number' ? namespace.links.get(which) : namespace.linkNamed(which);
      return link && viewOf(link);
    },
    create(spec) {
      world.check(describeNewLink(spec));
      return viewOf(createLink(namespace, spec));
    },
    async createOnThread(spec) {
      world.check(describeNewLink(spec));
      return viewOf(createLink(namespace, spec));
    },
    set(index, change) {
      const op = `change link ${index}`;
      world.check(op);
      changeLink(namespace.linkAt(index, op, ENODEV), change, op);
    },
    setBridgePort(index, change) {
      const op = `change bridge port ${index}`;
      world.check(op);
      const link = namespace.linkAt(index, op, ENODEV);
      if (link.bridgePort === undefined) throw new KernelError(op, EOPNOTSUPP);
      link.bridgePort = { ...link.bridgePort, ...change };
      tell(link);
    },
    setBridgeFilter(index) {
      const op = `change bridge ${index}`;
      world.check(op);
      namespace.linkAt(index, op, ENODEV);
    },
    // A kernel without VLAN filtering, as many are: the others are too rare to be kept to a contract.
    setVlanFiltering(bridge) {
      const op = `set VLAN filtering of bridge ${bridge}`;
      world.check(op);
      throw new KernelError(op, EOPNOTSUPP);
    },
    addBridgeVlans(port) {
      throw new KernelError(`add VLANs to bridge port ${port}`, EOPNOTSUPP);
    },
    deleteBridgeVlans(port) {
      throw new KernelError(`delete VLANs of bridge port ${port}`, EOPNOTSUPP);
    },
    delete: remove,
    deleteAll(indexes) {
      // As with the kernel, whoever asks does not see it happen.
      const gone = Promise.resolve().then(() => {
        for (const index of indexes) remove(index);
      });
      const freed = gone.catch(() => undefined);
      return { gone, freed };
    },
  };
}

/** Every namespace has it from the start. */
export function addLoopback(namespace: FakeNamespace): void {
  register(namespace, {
    name: 'lo',
    kind: undefined,
    mac: macOf('00:00:00:00:00:00'),
    mtuBytes: LOOPBACK_MTU_BYTES,
  });
}

/** A network card, as the underlay of a node: it has no kind and cannot be deleted by a program. */
export function addCard(
  namespace: FakeNamespace,
  card: Pick<FakeLink, 'name' | 'mac' | 'mtuBytes'>,
): FakeLink {
  const link = register(namespace, { ...card, kind: undefined });
  setUp(link, true);
  return link;
}

/** Takes the link, and what hangs on it, out of the world. */
export function deleteLink(link: FakeLink): void {
  const { namespace, peer } = link;
  const view = viewOf(link);
  if (!namespace.links.delete(link.index)) return;
  link.up = false;
  onLinkGone(namespace, link.index);
  for (const other of [...namespace.links.values()]) {
    if (other.master === link.index) setMaster(other, undefined);
    if (other.lower === link) deleteLink(other);
  }
  namespace.emit({ type: 'link', deleted: true, link: { ...view, up: false, carrier: false } });
  if (peer !== undefined) deleteLink(peer);
}

function createLink(namespace: FakeNamespace, spec: LinkSpec): FakeLink {
  const op = describeNewLink(spec);
  checkNew(namespace, spec, op);
  if (spec.master !== undefined) namespace.linkAt(spec.master, op, EINVAL);
  const lower = lowerOf(namespace, spec, op);
  if (spec.kind === 'vxlan') checkVxlan(namespace, spec.vxlan, op);
  const peerNamespace =
    spec.kind === 'veth' && spec.peer.netns !== undefined
      ? namespace.world.find(spec.peer.netns)
      : namespace;
  if (spec.kind === 'veth') {
    checkNew(peerNamespace, spec.peer, op);
    if (peerNamespace === namespace && spec.peer.name === spec.name)
      throw new KernelError(op, EEXIST);
  }
  const link = register(namespace, {
    ...spec,
    kind: spec.kind,
    lower,
    mtuBytes: spec.mtuBytes ?? defaultMtu(spec, lower),
    vxlan: spec.kind === 'vxlan' ? spec.vxlan : undefined,
  });
  if (spec.kind === 'veth') {
    const peer = register(peerNamespace, { ...spec.peer, kind: 'veth' });
    link.peer = peer;
    peer.peer = link;
    if (spec.peer.up === true) setUp(peer, true);
    tell(peer, { isNew: true });
  }
  if (spec.up === true) setUp(link, true);
  if (spec.master !== undefined) setMaster(link, spec.master);
  tell(link, { isNew: true });
  return link;
}

function checkNew(
  namespace: FakeNamespace,
  link: { name: string; mtuBytes?: number },
  op: string,
): void {
  checkName(namespace, link.name, op);
  if (link.mtuBytes !== undefined) checkMtu(link.mtuBytes, op);
}

function checkName(namespace: FakeNamespace, name: string, op: string): void {
  if (Buffer.byteLength(name) > MAX_LINK_NAME_BYTES) throw new KernelError(op, ERANGE);
  if (!/^[^\s/:]+$/.test(name) || name === '.' || name === '..') throw new KernelError(op, EINVAL);
  if (namespace.linkNamed(name) !== undefined) throw new KernelError(op, EEXIST);
}

function checkMtu(mtuBytes: number, op: string): void {
  if (mtuBytes < MIN_MTU_BYTES || mtuBytes > MAX_MTU_BYTES) throw new KernelError(op, EINVAL);
}

function checkVxlan(
  namespace: FakeNamespace,
  { vni, port }: { vni: number; port: number },
  op: string,
): void {
  for (const { vxlan } of namespace.links.values())
    if (vxlan?.vni === vni && vxlan.port === port) throw new KernelError(op, EEXIST);
}

function lowerOf(namespace: FakeNamespace, spec: LinkSpec, op: string): FakeLink | undefined {
  if (spec.kind === 'macvlan' || spec.kind === 'vlan')
    return namespace.linkAt(spec.parent, op, ENODEV);
  if (spec.kind === 'vxlan' && spec.vxlan.device !== undefined)
    return namespace.linkAt(spec.vxlan.device, op, ENODEV);
  return undefined;
}

function defaultMtu(spec: LinkSpec, lower: FakeLink | undefined): number {
  if (lower === undefined) return ETHERNET_MTU_BYTES;
  if (spec.kind !== 'vxlan') return lower.mtuBytes;
  const { local } = spec.vxlan;
  return lower.mtuBytes - (local !== undefined && familyOf(local) === 6 ? 70 : 50);
}

function register(
  namespace: FakeNamespace,
  link: Pick<FakeLink, 'name' | 'kind'> &
    Partial<Pick<FakeLink, 'mac' | 'mtuBytes' | 'lower' | 'vxlan'>>,
): FakeLink {
  const made: FakeLink = {
    namespace,
    index: namespace.takeIndex(),
    name: link.name,
    kind: link.kind,
    mac: link.mac ?? namespace.world.newMac(),
    mtuBytes: link.mtuBytes ?? ETHERNET_MTU_BYTES,
    up: false,
    promiscuous: false,
    master: undefined,
    bridgePort: undefined,
    peer: undefined,
    lower: link.lower,
    vxlan: link.vxlan,
  };
  namespace.links.set(made.index, made);
  return made;
}

function changeLink(link: FakeLink, change: LinkChange, op: string): void {
  const target =
    change.netns === undefined ? link.namespace : link.namespace.world.find(change.netns);
  const moves = target !== link.namespace;
  const name = change.name ?? link.name;
  if (moves || name !== link.name) checkName(target, name, op);
  if (change.mtuBytes !== undefined) checkMtu(change.mtuBytes, op);
  if (moves) move(link, target);
  link.name = name;
  link.mac = change.mac ?? link.mac;
  link.mtuBytes = change.mtuBytes ?? link.mtuBytes;
  link.promiscuous = change.promiscuous ?? link.promiscuous;
  if (change.master === 0) setMaster(link, undefined);
  else if (change.master !== undefined) {
    link.namespace.linkAt(change.master, op, EINVAL);
    setMaster(link, change.master);
  }
  if (change.up !== undefined) setUp(link, change.up);
  tell(link);
}

function move(link: FakeLink, target: FakeNamespace): void {
  const was = link.namespace;
  setUp(link, false);
  setMaster(link, undefined);
  was.emit({ type: 'link', deleted: true, link: viewOf(link) });
  was.links.delete(link.index);
  onLinkGone(was, link.index);
  link.namespace = target;
  link.index = target.takeIndex(link.index);
  target.links.set(link.index, link);
}

function setUp(link: FakeLink, up: boolean): void {
  if (link.up === up) return;
  link.up = up;
  if (up) onLinkUp(link.namespace, link.index);
  else onLinkDown(link.namespace, link.index);
  // The other end of a veth gains or loses its carrier.
  if (link.peer !== undefined) tell(link.peer);
}

function setMaster(link: FakeLink, master: IfIndex | undefined): void {
  link.master = master;
  link.bridgePort =
    master !== undefined && link.namespace.links.get(master)?.kind === 'bridge'
      ? NEW_BRIDGE_PORT
      : undefined;
}

function tell(link: FakeLink, how: { isNew?: true } = {}): void {
  link.namespace.emit({ type: 'link', deleted: false, link: viewOf(link), ...how });
}
