/** Links over rtnetlink. */
import { ENODEV, isErrno, KernelError } from '#lib/errors.ts';
import { DELETED_LINK_GROUP } from '#lib/kernel-objects.ts';
import { NETLINK_ROUTE, NLM_F_CREATE, NLM_F_EXCL } from '#wire/netlink/constants.ts';
import { encodeBridgeVlans, encodeVlanFiltering } from '#wire/rtnetlink/bridge-vlan.ts';
import { RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK } from '#wire/rtnetlink/constants.ts';
import {
  decodeLink,
  encodeBridgeFilter,
  encodeBridgePort,
  encodeDeleteGroup,
  encodeDeleteLink,
  encodeGetLink,
  encodeNewLink,
  encodeSetLink,
  type LinkAttributes,
  type LinkKind,
  MACVLAN_MODE_BRIDGE,
  MACVLAN_MODE_PRIVATE,
  MAX_LINK_NAME_BYTES,
} from '#wire/rtnetlink/link.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import { Netns, type NetnsPath } from '../netns.ts';
import { applyBatch } from './batch.ts';
import { linkFrom } from './convert.ts';
import { describeNewLink } from './describe.ts';
import type { IfIndex, Link, LinkDeletion, LinkSpec, NetworkStack } from './port.ts';

type VethSpec = Extract<LinkSpec, { kind: 'veth' }>;

export interface KernelLinksOptions {
  readonly netns: Netns | NetnsPath | undefined;
  readonly watch: NetworkStack['watch'];
}

export function kernelLinks(
  socket: NetlinkSocket,
  options: KernelLinksOptions,
): NetworkStack['links'] {
  const get = (which: string | IfIndex) => getLink(socket, which);
  return {
    list: () =>
      socket
        .dump('list links', { type: RTM_GETLINK }, (writer) => encodeGetLink(writer))
        .map((message) => linkFrom(decodeLink(message.payload))),
    get,
    create(spec) {
      createLink(socket, spec);
      return getNew(socket, spec);
    },
    async createOnThread(spec) {
      await createVethOnThread(spec, options.netns);
      if (spec.peer.up === true) setPeerUp(socket, spec);
      return getNew(socket, spec);
    },
    set(index, { netns, ...change }) {
      withNetnsFd(netns, (netnsFd) => {
        socket.request(`change link ${index}`, { type: RTM_SETLINK }, (writer) =>
          encodeSetLink(writer, index, { ...change, netnsFd }),
        );
      });
    },
    setBridgeFilter(index, on) {
      socket.request(`change bridge ${index}`, { type: RTM_NEWLINK }, (writer) =>
        encodeBridgeFilter(writer, index, on),
      );
    },
    setBridgePort(index, change) {
      socket.request(`change bridge port ${index}`, { type: RTM_NEWLINK }, (writer) =>
        encodeBridgePort(writer, index, change),
      );
    },
    setVlanFiltering(bridge, on) {
      socket.request(`set VLAN filtering of bridge ${bridge}`, { type: RTM_NEWLINK }, (writer) =>
        encodeVlanFiltering(writer, bridge, on),
      );
    },
    addBridgeVlans(port, vlans, whose) {
      socket.request(`add VLANs to bridge port ${port}`, { type: RTM_SETLINK }, (writer) =>
        encodeBridgeVlans(writer, port, vlans, whose),
      );
    },
    deleteBridgeVlans(port, vlans) {
      socket.request(`delete VLANs of bridge port ${port}`, { type: RTM_DELLINK }, (writer) =>
        encodeBridgeVlans(writer, port, vlans),
      );
    },
    delete(index) {
      deleteLink(socket, index);
    },
    deleteAll: (indexes) => deleteTogether(socket, indexes, options),
  };
}

function getLink(socket: NetlinkSocket, which: string | IfIndex): Link | undefined {
  // No link has such a name; the kernel would call the question itself invalid.
  if (which === '' || which === 0) return undefined;
  if (typeof which === 'string' && Buffer.byteLength(which) > MAX_LINK_NAME_BYTES) return undefined;
  const named = typeof which === 'string' ? `"${which}"` : which;
  try {
    const [answer] = socket.request(`read link ${named}`, { type: RTM_GETLINK }, (writer) =>
      encodeGetLink(writer, which),
    );
    return answer === undefined ? undefined : linkFrom(decodeLink(answer.payload));
  } catch (error) {
    if (isErrno(error, ENODEV)) return undefined;
    throw error;
  }
}

function getNew(socket: NetlinkSocket, { name }: LinkSpec): Link {
  const link = getLink(socket, name);
  // Another program may have deleted it in between.
  if (link === undefined) throw new KernelError(`find new link "${name}"`, ENODEV);
  return link;
}

async function createVethOnThread(
  spec: VethSpec,
  where: Netns | NetnsPath | undefined,
): Promise<void> {
  const { netns } = spec.peer;
  using opened = typeof netns === 'string' ? new Netns(netns) : undefined;
  // One of its own: what goes on meanwhile uses the other.
  using own = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: where });
  const link = vethOf(spec, (opened ?? (netns as Netns | undefined))?.fd);
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  await own.requestOnThread(describeNewLink(spec), { type: RTM_NEWLINK, flags }, (writer) =>
    encodeNewLink(writer, link),
  );
}

function vethOf(spec: VethSpec, netnsFd: number | undefined): LinkAttributes & LinkKind {
  const { name, mac, mtuBytes, up, master } = spec;
  const peer = { ...peerAttributes(spec), netnsFd };
  return { name, mac, mtuBytes, up, master, kind: 'veth', peer };
}

function createLink(socket: NetlinkSocket, spec: LinkSpec): void {
  const op = describeNewLink(spec);
  const send = (link: LinkAttributes & LinkKind) =>
    socket.request(op, { type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL }, (writer) =>
      encodeNewLink(writer, link),
    );
  // A MAC given here counts as "set by the user", and udev's MACAddressPolicy leaves it alone; set later it races udev.
  const { name, mac, mtuBytes, up, master } = spec;
  const common = { name, mac, mtuBytes, up, master };
  switch (spec.kind) {
    case 'veth':
      withNetnsFd(spec.peer.netns, (netnsFd) => send(vethOf(spec, netnsFd)));
      if (spec.peer.up === true) setPeerUp(socket, spec);
      return;
    case 'bridge': {
      const { ageingSeconds, stp } = spec;
      send({
        ...common,
        kind: 'bridge',
        ...(ageingSeconds === undefined ? {} : { ageingSeconds }),
        ...(stp === undefined ? {} : { stp }),
      });
      return;
    }
    case 'vxlan':
      send({ ...common, kind: 'vxlan', vxlan: spec.vxlan });
      return;
    case 'macvlan': {
      const mode = spec.mode === 'bridge' ? MACVLAN_MODE_BRIDGE : MACVLAN_MODE_PRIVATE;
      send({ ...common, kind: 'macvlan', lower: spec.parent, mode });
      return;
    }
    case 'vlan':
      send({ ...common, kind: 'vlan', lower: spec.parent, id: spec.id });
  }
}

function peerAttributes({ peer }: VethSpec): LinkAttributes {
  return { name: peer.name, mac: peer.mac, mtuBytes: peer.mtuBytes };
}

/** The peer must exist before it can be set up, so this is a second message, sent where the peer is. */
function setPeerUp(socket: NetlinkSocket, spec: VethSpec): void {
  const setUp = (in_: NetlinkSocket) =>
    in_.request(`set up link "${spec.peer.name}"`, { type: RTM_SETLINK }, (writer) =>
      encodeSetLink(writer, 0, { name: spec.peer.name, up: true }),
    );
  try {
    if (spec.peer.netns === undefined) {
      setUp(socket);
    } else {
      using peerSocket = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: spec.peer.netns });
      setUp(peerSocket);
    }
  } catch (error) {
    // Half a pair helps nobody, and would make the caller's retry fail with EEXIST.
    const made = getLink(socket, spec.name);
    if (made !== undefined) deleteLink(socket, made.index);
    throw error;
  }
}

function deleteLink(socket: NetlinkSocket, index: IfIndex): void {
  try {
    socket.request(`delete link ${index}`, { type: RTM_DELLINK }, (writer) =>
      encodeDeleteLink(writer, index),
    );
  } catch (error) {
    if (!isErrno(error, ENODEV)) throw error;
  }
}

/**
 * The kernel takes links away in two steps inside one call: first from everybody's sight, which it tells the listeners
 * of, within a few milliseconds; then it waits, without the lock of all links, until no processor can hold
 * anything of them any more, and frees them. So the call is made on a thread, and the event says when they are gone;
 * the call's end says so, too, if events are lost.
 */
function deleteTogether(
  socket: NetlinkSocket,
  indexes: readonly IfIndex[],
  { netns, watch }: KernelLinksOptions,
): LinkDeletion {
  const [first] = indexes;
  if (first === undefined) return { gone: Promise.resolve(), freed: Promise.resolve() };
  const left = new Set(indexes);
  const seen = Promise.withResolvers<void>();
  const stopWatch = watch((event) => {
    if (event.type === 'link' && event.deleted) left.delete(event.link.index);
    if (left.size === 0) seen.resolve();
  });
  const ended = deleteOnThread(socket, indexes, netns).finally(stopWatch);
  return {
    gone: Promise.race([seen.promise, ended]),
    // Who asks for `gone` is told of the failure.
    freed: ended.catch(() => undefined),
  };
}

async function deleteOnThread(
  socket: NetlinkSocket,
  indexes: readonly IfIndex[],
  netns: Netns | NetnsPath | undefined,
): Promise<void> {
  const [first = 0] = indexes;
  const isOne = indexes.length === 1;
  if (!isOne)
    applyBatch(socket, indexes, {
      type: RTM_SETLINK,
      flags: () => 0,
      encode: (writer, index) => encodeSetLink(writer, index, { group: DELETED_LINK_GROUP }),
      op: (index) => `mark link ${index} for deletion`,
      ignore: [ENODEV],
    });
  const op = isOne ? `delete link ${first}` : `delete ${indexes.length} links`;
  // One of its own: what goes on meanwhile uses the other.
  using own = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns });
  try {
    await own.requestOnThread(op, { type: RTM_DELLINK }, (writer) =>
      isOne ? encodeDeleteLink(writer, first) : encodeDeleteGroup(writer, DELETED_LINK_GROUP),
    );
  } catch (error) {
    // They were gone. A group may have been emptied by an earlier deletion that was still waiting for the lock.
    if (!isErrno(error, ENODEV)) throw error;
  }
}

function withNetnsFd(
  netns: Netns | NetnsPath | undefined,
  action: (fd: number | undefined) => void,
): void {
  if (typeof netns === 'string') {
    using opened = new Netns(netns);
    action(opened.fd);
  } else action(netns?.fd);
}
