/** The kernel's packet log over netlink. */
import { ENOBUFS, isErrno } from '#lib/errors.ts';
import { NETLINK_NETFILTER } from '#wire/netlink/constants.ts';
import {
  decodePacket,
  encodeBind,
  NFULNL_MSG_CONFIG,
  NFULNL_MSG_PACKET,
} from '#wire/nflog/codec.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import type { Poller } from '../poller.ts';
import type { NflogOptions, OpenNflog } from './port.ts';

/** Rules limit their rate, so this is a burst of many rules at once. */
const RECEIVE_QUEUE_BYTES = 1024 * 1024;
const COPY_BYTES = 128;
/** The kernel collects packets for so long: a person who watches does not notice, and a burst is few messages. */
const TIMEOUT_CENTISECONDS = 10;

/** @returns how to listen to groups of this process's namespace, or of `netns` */
export function createNflog(context: {
  readonly poller: Poller;
  readonly netns?: Netns | NetnsPath;
}): OpenNflog {
  return (options) => listen(context, options);
}

function listen(
  { poller, netns }: { poller: Poller; netns?: Netns | NetnsPath },
  { group, onPacket, onLost }: NflogOptions,
): Disposable {
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    netns,
    receiveQueueBytes: RECEIVE_QUEUE_BYTES,
  });
  try {
    socket.request(`listen to log group ${group}`, { type: NFULNL_MSG_CONFIG }, (writer) =>
      encodeBind(writer, {
        group,
        copyBytes: COPY_BYTES,
        timeoutCentiseconds: TIMEOUT_CENTISECONDS,
      }),
    );
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
  const unwatch = poller.add(socket.fd, () => {
    for (;;) {
      try {
        const messages = socket.receive('read logged packets', false);
        if (messages.length === 0) return;
        for (const message of messages)
          if (message.type === NFULNL_MSG_PACKET) onPacket(decodePacket(message.payload));
      } catch (error) {
        if (!isErrno(error, ENOBUFS)) throw error;
        onLost();
      }
    }
  });
  return {
    [Symbol.dispose]() {
      unwatch();
      socket[Symbol.dispose]();
    },
  };
}
