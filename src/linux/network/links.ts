/** Links over rtnetlink. */
import { ENODEV, isErrno, KernelError } from '#lib/errors.ts';
import { DELETED_LINK_GROUP } from '#lib/kernel-objects.ts';
import { NETLINK_ROUTE, NLM_F_CREATE, NLM_F_EXCL } from '#wire/netlink/constants.ts';
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
import type { IfIndex, Link, LinkSpec, NetworkStack } from './port.ts';

type VethSpec = Extract<LinkSpec, { kind: 'veth' }>;

export function kernelLinks(socket: NetlinkSocket): NetworkStack['links'] {
  const get = (which: string | IfIndex) => getLink(socket, which);
  return {
    list: () =>
      socket
        .dump('list links', { type: RTM_GETLINK }, (writer) => encodeGetLink(writer))
        .map((message) => linkFrom(decodeLink(message.payload))),
    get,
    create(spec) {
      createLink(socket, spec);
      const link = get(spec.name);
      // Another program may have deleted it in between.
      if (link === undefined) throw new KernelError(`find new link "${spec.name}"`, ENODEV);
      return link;
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
    delete(index) {
      deleteLink(socket, index);
    },
    deleteAll(indexes) {
      const [first] = indexes;
      if (first === undefined) return;
      if (indexes.length === 1) return deleteLink(socket, first);
      applyBatch(socket, indexes, {
        type: RTM_SETLINK,
        flags: () => 0,
        encode: (writer, index) => encodeSetLink(writer, index, { group: DELETED_LINK_GROUP }),
        op: (index) => `mark link ${index} for deletion`,
        ignore: [ENODEV],
      });
      try {
        socket.request(`delete ${indexes.length} links`, { type: RTM_DELLINK }, (writer) =>
          encodeDeleteGroup(writer, DELETED_LINK_GROUP),
        );
      } catch (error) {
        // Nothing is in the group: all were gone.
        if (!isErrno(error, ENODEV)) throw error;
      }
    },
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
      withNetnsFd(spec.peer.netns, (netnsFd) => {
        const peer = { ...peerAttributes(spec), netnsFd };
        send({ ...common, kind: 'veth', peer });
      });
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
    }
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

function withNetnsFd(
  netns: Netns | NetnsPath | undefined,
  action: (fd: number | undefined) => void,
): void {
  if (typeof netns === 'string') {
    using opened = new Netns(netns);
    action(opened.fd);
  } else action(netns?.fd);
}
