/**
 * What the kernel tells of its own accord: a netlink socket that has joined the multicast groups, read when the
 * poller says so. One per stack, there while somebody listens.
 */
import { DecodeError, ENOBUFS, isErrno } from '#lib/errors.ts';
import { NETLINK_ROUTE } from '#wire/netlink/constants.ts';
import type { NetlinkMessage } from '#wire/netlink/reader.ts';
import { decodeAddress } from '#wire/rtnetlink/address.ts';
import * as rt from '#wire/rtnetlink/constants.ts';
import { decodeLink } from '#wire/rtnetlink/link.ts';
import { decodeNeighbour } from '#wire/rtnetlink/neighbour.ts';
import {
  decodeNetconf,
  NETCONFA_IFINDEX_ALL,
  NETCONFA_IFINDEX_DEFAULT,
} from '#wire/rtnetlink/netconf.ts';
import { decodeRoute } from '#wire/rtnetlink/route.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import type { Poller } from '../poller.ts';
import { addressFrom, fdbFrom, linkFrom, neighbourFrom, routeFrom } from './convert.ts';
import type { IfIndex, Link, NetworkEvent } from './port.ts';

const GROUPS = [
  rt.RTNLGRP_LINK,
  rt.RTNLGRP_NEIGH,
  rt.RTNLGRP_IPV4_IFADDR,
  rt.RTNLGRP_IPV4_ROUTE,
  rt.RTNLGRP_IPV4_RULE,
  rt.RTNLGRP_IPV6_IFADDR,
  rt.RTNLGRP_IPV6_ROUTE,
  rt.RTNLGRP_IPV6_RULE,
  rt.RTNLGRP_IPV4_NETCONF,
  rt.RTNLGRP_IPV6_NETCONF,
];
/** The kernel's queue towards us: some ten thousand events, the noise of one full resync of a large node. */
const RECEIVE_QUEUE_BYTES = 8 * 1024 * 1024;
/** What the kernel says has changed in a link that was not there before. */
const ALL_FLAGS = 0xffffffff;
/** Datagrams read in one turn of the event loop, so that a storm of events does not starve everything else. */
const MAX_READS_PER_TURN = 256;

type Listener = (event: NetworkEvent) => void;

export interface MonitorOptions {
  readonly netns: Netns | NetnsPath | undefined;
  /** Asked for when somebody listens. */
  readonly poller: () => Poller;
  readonly getLink: (index: IfIndex) => Link | undefined;
}

/** One socket for all listeners of a stack: each event is read and decoded once. */
export class NetworkMonitor implements Disposable {
  readonly #options: MonitorOptions;
  readonly #listeners = new Set<{ readonly tell: Listener }>();
  #stop: (() => void) | undefined;

  constructor(options: MonitorOptions) {
    this.#options = options;
  }

  /**
   * Listens from now on.
   * @returns a function that stops
   * @throws KernelError if the socket cannot be opened
   */
  watch(listener: Listener): () => void {
    const entry = { tell: listener };
    this.#stop ??= this.#start();
    this.#listeners.add(entry);
    return () => {
      if (!this.#listeners.delete(entry) || this.#listeners.size > 0) return;
      this[Symbol.dispose]();
    };
  }

  [Symbol.dispose](): void {
    this.#listeners.clear();
    this.#stop?.();
    this.#stop = undefined;
  }

  #start(): () => void {
    const socket = new NetlinkSocket({
      protocol: NETLINK_ROUTE,
      netns: this.#options.netns,
      groups: GROUPS,
      receiveQueueBytes: RECEIVE_QUEUE_BYTES,
    });
    let stopped = false;
    let lost = false;
    const remove = this.#options.poller().add(socket.fd, () => {
      // The poller comes back while more is waiting.
      for (let reads = 0; !stopped && (lost || reads < MAX_READS_PER_TURN); reads++) {
        const events = readEvents(socket, this.#options.getLink);
        if (events === 'lost') lost = true;
        else if (events !== 'none') {
          if (!lost) for (const event of events) this.#tell(event);
        } else {
          // Only now: until its queue is empty the kernel drops further events without saying so again, and the reader
          // of this event is about to read everything anyway.
          const wasLost = lost;
          lost = false;
          if (wasLost) this.#tell({ type: 'overrun' });
          return;
        }
      }
    });
    return () => {
      stopped = true;
      remove();
      socket[Symbol.dispose]();
    };
  }

  #tell(event: NetworkEvent): void {
    // One that stops while others are told is told no more.
    for (const entry of [...this.#listeners]) if (this.#listeners.has(entry)) entry.tell(event);
  }
}

function readEvents(
  socket: NetlinkSocket,
  getLink: MonitorOptions['getLink'],
): NetworkEvent[] | 'none' | 'lost' {
  try {
    const messages = socket.receive('read network events', false);
    if (messages.length === 0) return 'none';
    return messages.map((m) => eventFrom(m, getLink)).filter((event) => event !== undefined);
  } catch (error) {
    // An event that cannot be read is as good as lost.
    if (isErrno(error, ENOBUFS) || error instanceof DecodeError) return 'lost';
    throw error;
  }
}

/** @returns undefined for messages that say nothing of interest */
export function eventFrom(
  { type, payload }: NetlinkMessage,
  getLink: MonitorOptions['getLink'],
): NetworkEvent | undefined {
  switch (type) {
    case rt.RTM_NEWLINK:
    case rt.RTM_DELLINK:
      return linkEvent(type === rt.RTM_DELLINK, payload, getLink);
    case rt.RTM_NEWADDR:
    case rt.RTM_DELADDR: {
      const address = addressFrom(decodeAddress(payload));
      return { type: 'address', deleted: type === rt.RTM_DELADDR, address };
    }
    case rt.RTM_NEWROUTE:
    case rt.RTM_DELROUTE: {
      const message = decodeRoute(payload);
      const route = message === undefined ? undefined : routeFrom(message);
      return route && { type: 'route', deleted: type === rt.RTM_DELROUTE, route };
    }
    case rt.RTM_NEWNEIGH:
    case rt.RTM_DELNEIGH:
      return neighbourEvent(type === rt.RTM_DELNEIGH, payload);
    case rt.RTM_NEWRULE:
    case rt.RTM_DELRULE:
      return { type: 'rule', deleted: type === rt.RTM_DELRULE };
    case rt.RTM_NEWNETCONF:
      return settingEvent(payload);
    default:
      return undefined;
  }
}

function linkEvent(
  deleted: boolean,
  payload: Buffer,
  getLink: MonitorOptions['getLink'],
): NetworkEvent | undefined {
  const message = decodeLink(payload);
  if (message.family === rt.AF_UNSPEC) {
    const isNew = !deleted && message.change === ALL_FLAGS;
    return { type: 'link', deleted, link: linkFrom(message), ...(isNew ? { isNew } : {}) };
  }
  // A bridge tells of its ports with messages that hold half of a link, and its "deleted" means only "left the bridge".
  const link = message.family === rt.AF_BRIDGE ? getLink(message.index) : undefined;
  return link && { type: 'link', deleted: false, link };
}

function neighbourEvent(deleted: boolean, payload: Buffer): NetworkEvent | undefined {
  const message = decodeNeighbour(payload);
  const entry = fdbFrom(message);
  if (entry !== undefined) return { type: 'fdb', deleted, entry };
  const neighbour = neighbourFrom(message);
  return neighbour && { type: 'neighbour', deleted, neighbour };
}

function settingEvent(payload: Buffer): NetworkEvent | undefined {
  const message = decodeNetconf(payload);
  if (message === undefined) return undefined;
  const { family, index, forwarding, rpFilter, proxyNeigh } = message;
  const values = [
    ['forwarding', forwarding],
    ['rp_filter', rpFilter],
    ['proxy_neigh', proxyNeigh],
  ] as const;
  const told = values.filter(([, value]) => value !== undefined);
  const [[setting, value] = ['forwarding', undefined]] = told;
  // All at once is what a new link begins with.
  if (told.length !== 1 || value === undefined) return undefined;
  const link =
    index === NETCONFA_IFINDEX_ALL ? 'all' : index === NETCONFA_IFINDEX_DEFAULT ? 'default' : index;
  return { type: 'setting', family, link, setting, value };
}
