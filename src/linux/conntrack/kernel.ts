/** The kernel's connection tracking table over netlink. */
import { ENOENT, KernelError } from '#lib/errors.ts';
import { familyOf, type Ip } from '#lib/ip.ts';
import {
  type ConntrackEntry,
  decodeConntrackEntry,
  encodeConntrackHeader,
  encodeConntrackMark,
  encodeConntrackName,
  IPCTNL_MSG_CT_DELETE,
  IPCTNL_MSG_CT_GET,
  IPCTNL_MSG_CT_NEW,
} from '#wire/conntrack/codec.ts';
import { NETLINK_NETFILTER, NLM_F_ACK, NLM_F_REQUEST } from '#wire/netlink/constants.ts';
import type { NetlinkWriter } from '#wire/netlink/writer.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import { type Conntrack, type ConntrackFilter, type ConntrackName, matchesFilter } from './port.ts';

/** Changes sent before their answers are read; so many answers fit the socket's queue. */
const MAX_CHANGES_IN_FLIGHT = 256;
const RECEIVE_QUEUE_BYTES = 8 * 1024 * 1024;

/**
 * Opens conntrack of a network namespace.
 * @throws KernelError if the namespace cannot be entered
 */
export function openConntrack(options: { readonly netns?: Netns | NetnsPath } = {}): Conntrack {
  return new KernelConntrack(options.netns);
}

class KernelConntrack implements Conntrack {
  readonly #socket: NetlinkSocket;
  /** For walks on a thread, one after the other. */
  readonly #walkSocket: NetlinkSocket;
  #walk: Promise<unknown> = Promise.resolve();

  constructor(netns: Netns | NetnsPath | undefined) {
    const options = {
      protocol: NETLINK_NETFILTER,
      netns,
      receiveQueueBytes: RECEIVE_QUEUE_BYTES,
    };
    using cleanup = new DisposableStack();
    this.#socket = cleanup.use(new NetlinkSocket(options));
    this.#walkSocket = new NetlinkSocket(options);
    cleanup.move();
  }

  list(filter: ConntrackFilter = {}): ConntrackEntry[] {
    return this.#socket
      .dump('list conntrack entries', { type: IPCTNL_MSG_CT_GET }, (writer) =>
        encodeConntrackHeader(writer, filter.family),
      )
      .map((message) => decodeConntrackEntry(message.payload))
      .filter((entry) => matchesFilter(entry, filter));
  }

  listOnThread(): Promise<ConntrackEntry[]> {
    const walk = () =>
      this.#walkSocket
        .dumpOnThread('list conntrack entries', { type: IPCTNL_MSG_CT_GET }, (writer) =>
          encodeConntrackHeader(writer, undefined),
        )
        .then((messages) => messages.map((message) => decodeConntrackEntry(message.payload)));
    const result = this.#walk.then(walk, walk);
    this.#walk = result;
    return result;
  }

  delete(entries: Iterable<ConntrackName>): number {
    return this.#forEach('delete', IPCTNL_MSG_CT_DELETE, entries, () => {});
  }

  mark(entries: Iterable<ConntrackName>, change: { mask: number; value: number }): number {
    // Without NLM_F_CREATE only what is there is changed.
    return this.#forEach('mark', IPCTNL_MSG_CT_NEW, entries, (writer) =>
      encodeConntrackMark(writer, change),
    );
  }

  flush(filter: ConntrackFilter): number {
    return this.delete(this.list(filter));
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
    // A thread may be inside; the descriptor's number must not become another file's meanwhile.
    const close = () => this.#walkSocket[Symbol.dispose]();
    void this.#walk.then(close, close);
  }

  /** Sends one message per entry, in chunks. @returns how many succeeded; an entry that is gone is no error */
  #forEach(
    verb: string,
    type: number,
    entries: Iterable<ConntrackName>,
    write: (writer: NetlinkWriter) => void,
  ): number {
    let done = 0;
    let chunk: ConntrackName[] = [];
    for (const entry of entries) {
      chunk.push(entry);
      if (chunk.length < MAX_CHANGES_IN_FLIGHT) continue;
      done += this.#sendChunk(verb, type, chunk, write);
      chunk = [];
    }
    return done + this.#sendChunk(verb, type, chunk, write);
  }

  #sendChunk(
    verb: string,
    type: number,
    entries: readonly ConntrackName[],
    write: (writer: NetlinkWriter) => void,
  ): number {
    const results = this.#socket.pipeline(`${verb} conntrack entries`, (writer) => {
      for (const entry of entries) {
        const message = writer.beginMessage(type, NLM_F_REQUEST | NLM_F_ACK);
        encodeConntrackHeader(writer, familyOf(entry.original.source));
        encodeConntrackName(writer, entry);
        write(writer);
        writer.endMessage(message);
      }
    });
    let done = 0;
    results.forEach(({ errno, extack }, index) => {
      if (errno === 0) done++;
      else if (errno !== ENOENT)
        throw new KernelError(`${verb} conntrack entry ${describe(entries[index])}`, errno, {
          extack,
          index,
        });
    });
    return done;
  }
}

function describe(entry: ConntrackName | undefined): string {
  if (entry === undefined) return '';
  const { source, sourcePort, destination, destinationPort, protocol } = entry.original;
  const end = (address: Ip, port: number | undefined) =>
    port === undefined ? address : `${address} port ${port}`;
  return `protocol ${protocol} from ${end(source, sourcePort)} to ${end(destination, destinationPort)}`;
}
