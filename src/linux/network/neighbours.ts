/** Neighbours and the forwarding tables of VXLAN devices over rtnetlink: one message, two families. */
import { ENODEV, ENOENT, isErrno } from '#lib/errors.ts';
import { type Mac, macToBytes } from '#lib/ip.ts';
import { NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE } from '#wire/netlink/constants.ts';
import {
  AF_BRIDGE,
  addressFamilyOf,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from '#wire/rtnetlink/constants.ts';
import {
  decodeNeighbour,
  encodeGetNeighbours,
  encodeNeighbour,
  type NeighbourMessage,
} from '#wire/rtnetlink/neighbour.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { applyBatch } from './batch.ts';
import { fdbFrom, fdbMessage, neighbourFrom, neighbourMessage } from './convert.ts';
import { describeFdb, describeNeighbour } from './describe.ts';
import type { IfIndex, NetworkStack } from './port.ts';

export function kernelNeighbours(socket: NetlinkSocket): NetworkStack['neighbours'] {
  return {
    list(filter = {}) {
      return listMessages(socket, addressFamilyOf(filter.family), filter.link)
        .map(neighbourFrom)
        .filter((entry) => entry !== undefined);
    },
    replace(entries) {
      applyBatch(socket, entries, {
        type: RTM_NEWNEIGH,
        flags: () => NLM_F_CREATE | NLM_F_REPLACE,
        encode: (writer, entry) => encodeNeighbour(writer, neighbourMessage(entry)),
        op: (entry) => `replace ${describeNeighbour(entry)}`,
      });
    },
    delete(entries) {
      applyBatch(socket, entries, {
        type: RTM_DELNEIGH,
        flags: () => 0,
        encode: (writer, entry) =>
          encodeNeighbour(writer, { ...neighbourMessage(entry), mac: undefined, state: 0 }),
        op: (entry) => `delete ${describeNeighbour(entry)}`,
        ignore: [ENOENT, ENODEV],
      });
    },
  };
}

export function kernelFdb(socket: NetlinkSocket): NetworkStack['fdb'] {
  return {
    list(link) {
      return listMessages(socket, AF_BRIDGE, link)
        .map(fdbFrom)
        .filter((entry) => entry?.link === link)
        .filter((entry) => entry !== undefined);
    },
    replace(entries) {
      applyBatch(socket, entries, {
        type: RTM_NEWNEIGH,
        // The entries of a group address are the list of its receivers, which the kernel lets grow but not be replaced.
        flags: ({ mac }) => NLM_F_CREATE | (isGroup(mac) ? NLM_F_APPEND : NLM_F_REPLACE),
        encode: (writer, entry) => encodeNeighbour(writer, fdbMessage(entry)),
        op: (entry) => `replace ${describeFdb(entry)}`,
      });
    },
    delete(entries) {
      applyBatch(socket, entries, {
        type: RTM_DELNEIGH,
        flags: () => 0,
        encode: (writer, entry) => encodeNeighbour(writer, fdbMessage(entry)),
        op: (entry) => `delete ${describeFdb(entry)}`,
        ignore: [ENOENT, ENODEV],
      });
    },
  };
}

function listMessages(
  socket: NetlinkSocket,
  family: number,
  index: IfIndex | undefined,
): NeighbourMessage[] {
  const what = family === AF_BRIDGE ? 'FDB entries' : 'neighbours';
  try {
    return socket
      .dump(`list ${what}`, { type: RTM_GETNEIGH }, (writer) =>
        encodeGetNeighbours(writer, { family, index }),
      )
      .map((message) => decodeNeighbour(message.payload));
  } catch (error) {
    // The filter names a link that is not there.
    if (isErrno(error, ENODEV)) return [];
    throw error;
  }
}

/** Multicast and broadcast, and all zeros: where a VXLAN device sends what it knows no entry for. */
export function isGroup(mac: Mac): boolean {
  return mac === '00:00:00:00:00:00' || ((macToBytes(mac)[0] ?? 0) & 1) === 1;
}
