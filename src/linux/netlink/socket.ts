/**
 * A netlink socket, synchronous: the kernel works on a request inside `send`, so the answer is there at once.
 * The socket keeps working in the namespace it was opened in.
 */
import { EINTR, ENOBUFS, KernelError } from '#lib/errors.ts';
import {
  NETLINK_NETFILTER,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
} from '#wire/netlink/constants.ts';
import { type NetlinkMessage, readAcknowledgement, readMessages } from '#wire/netlink/reader.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import * as libc from '../ffi/libc.ts';
import { inNetns, type Netns, type NetnsPath } from '../netns.ts';

const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_DROP_MEMBERSHIP = 2;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
/** The kernel fills dump buffers of up to 32 KiB; one nftables event can be larger. */
const RECEIVE_BYTES = 256 * 1024;
/**
 * Buffers of closed sockets for those opened next: a pod's namespace needs a socket for a millisecond, and memory that comes
 * new for each makes the garbage collector run. As many as are open for a moment at a time.
 */
const MAX_SPARE_BUFFERS = 4;
const spareBuffers: Buffer[] = [];
/** A dump that is interrupted by changes this many times in a row is a fault. */
const MAX_DUMP_TRIES = 20;

export interface NetlinkSocketOptions {
  /** `NETLINK_ROUTE` or `NETLINK_NETFILTER`. */
  protocol: number;
  netns?: Netns | NetnsPath | undefined;
  /** Multicast groups by number (`RTNLGRP_…`, `NFNLGRP_…`). */
  groups?: readonly number[];
  /** Size of the kernel's queue towards us; matters for listeners and large batches. */
  receiveQueueBytes?: number;
  sendQueueBytes?: number;
}

export class NetlinkSocket implements Disposable {
  readonly fd: number;
  readonly #receiveBuffer = spareBuffers.pop() ?? Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  #sequence = 1;
  #closed = false;
  /** Nobody reads or writes it once the socket is closed: no thread, and no listener that closes it while it is told. */
  #isBufferFree: boolean;

  /** @throws KernelError if the namespace cannot be entered or a group cannot be joined */
  constructor(options: NetlinkSocketOptions) {
    this.#isBufferFree = options.groups === undefined;
    this.fd = inNetns(options.netns, () =>
      libc.socket(libc.AF_NETLINK, libc.SOCK_RAW | libc.SOCK_CLOEXEC, options.protocol),
    );
    if (this.fd < 0) throw new KernelError('open a netlink socket', libc.errno());
    try {
      if (options.receiveQueueBytes !== undefined)
        this.#option(libc.SOL_SOCKET, libc.SO_RCVBUFFORCE, options.receiveQueueBytes);
      if (options.sendQueueBytes !== undefined)
        this.#option(libc.SOL_SOCKET, libc.SO_SNDBUFFORCE, options.sendQueueBytes);
      this.#option(libc.SOL_NETLINK, NETLINK_CAP_ACK, 1);
      this.#option(libc.SOL_NETLINK, NETLINK_EXT_ACK, 1);
      if (options.protocol !== NETLINK_NETFILTER)
        this.#option(libc.SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
      const address = Buffer.alloc(12);
      address.writeUInt16LE(libc.AF_NETLINK, 0);
      if (libc.bind(this.fd, address, address.length) !== 0)
        throw new KernelError('bind a netlink socket', libc.errno());
      for (const group of options.groups ?? [])
        this.#option(libc.SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
    } catch (error) {
      libc.close(this.fd);
      throw error;
    }
  }

  /**
   * Sends one request and waits for its acknowledgement.
   * @param op what is being done, for the error: `create link "tl12ab"`
   * @param write fills the payload
   * @returns the messages that came before the acknowledgement
   * @throws KernelError with errno and the kernel's own text
   */
  request(
    op: string,
    message: { type: number; flags?: number },
    write: (writer: NetlinkWriter) => void,
  ): NetlinkMessage[] {
    const { bytes, sequence } = this.#encode(
      { type: message.type, flags: NLM_F_REQUEST | NLM_F_ACK | (message.flags ?? 0) },
      write,
    );
    this.send(op, bytes);
    return this.#awaitAnswers(op, sequence);
  }

  /**
   * Asks for a whole table. A dump that the kernel says was interrupted by a change (`NLM_F_DUMP_INTR`) is made again.
   * @throws KernelError
   */
  dump(
    op: string,
    message: { type: number },
    write: (writer: NetlinkWriter) => void,
  ): NetlinkMessage[] {
    for (let tries = 0; tries < MAX_DUMP_TRIES; tries++) {
      const { bytes, sequence } = this.#encode(
        { type: message.type, flags: NLM_F_REQUEST | NLM_F_DUMP },
        write,
      );
      this.send(op, bytes);
      const dump = new DumpReader(op, sequence);
      while (!dump.isDone) dump.take(this.receive(op));
      if (dump.answers !== undefined) return dump.answers;
    }
    throw interruptedDump(op);
  }

  /**
   * Like {@link request}, while the event loop goes on: the kernel works inside `send`, here on a thread of the pool.
   * The socket must be used for nothing else until it resolves.
   */
  async requestOnThread(
    op: string,
    message: { type: number; flags?: number },
    write: (writer: NetlinkWriter) => void,
  ): Promise<void> {
    const { bytes, sequence } = this.#encode(
      { type: message.type, flags: NLM_F_REQUEST | NLM_F_ACK | (message.flags ?? 0) },
      write,
    );
    await this.#sendOnThread(op, bytes);
    // The answer is there.
    this.#awaitAnswers(op, sequence);
  }

  /** Like {@link dump}, as {@link requestOnThread}: the kernel works inside `send` and `recv`. */
  async dumpOnThread(
    op: string,
    message: { type: number },
    write: (writer: NetlinkWriter) => void,
  ): Promise<NetlinkMessage[]> {
    for (let tries = 0; tries < MAX_DUMP_TRIES; tries++) {
      const { bytes, sequence } = this.#encode(
        { type: message.type, flags: NLM_F_REQUEST | NLM_F_DUMP },
        write,
      );
      await this.#sendOnThread(op, bytes);
      const dump = new DumpReader(op, sequence);
      while (!dump.isDone) dump.take(await this.#receiveOnThread(op));
      if (dump.answers !== undefined) return dump.answers;
    }
    throw interruptedDump(op);
  }

  /**
   * Sends prepared messages, each with `NLM_F_ACK`, and waits for all acknowledgements.
   * @param write makes the messages, beginning and ending each itself
   * @returns for each message, in order, the errno (0 is success) and the kernel's text
   */
  pipeline(
    op: string,
    write: (writer: NetlinkWriter) => void,
  ): { errno: number; extack: string | undefined }[] {
    const first = this.#sequence;
    const writer = new NetlinkWriter({ firstSequence: first });
    write(writer);
    this.#sequence = writer.nextSequence;
    const count = writer.messageCount;
    if (count === 0) return [];
    const results: { errno: number; extack: string | undefined }[] = new Array(count);
    this.send(op, writer.bytes());
    for (let pending = count; pending > 0; ) {
      for (const answer of this.receive(op)) {
        const index = (answer.sequence - first) >>> 0;
        if (answer.type !== NLMSG_ERROR || index >= count || results[index] !== undefined) continue;
        results[index] = readAcknowledgement(answer);
        pending--;
      }
    }
    return results;
  }

  /** Sends bytes as they are. @throws KernelError */
  send(op: string, bytes: Uint8Array): void {
    for (;;) {
      const sent = Number(libc.send(this.fd, bytes, bytes.length, 0));
      if (sent === bytes.length) return;
      const errno = libc.errno();
      if (sent < 0 && errno === EINTR) continue;
      throw new KernelError(op, sent < 0 ? errno : ENOBUFS);
    }
  }

  /**
   * Receives one datagram. The messages are views that the next call overwrites.
   * @param wait false returns an empty list when nothing is there
   * @throws KernelError; ENOBUFS means that events were lost
   */
  receive(op: string, wait = true): NetlinkMessage[] {
    for (;;) {
      const length = Number(
        libc.recv(
          this.fd,
          this.#receiveBuffer,
          this.#receiveBuffer.length,
          wait ? libc.MSG_TRUNC : libc.MSG_TRUNC | libc.MSG_DONTWAIT,
        ),
      );
      if (length < 0) {
        const errno = libc.errno();
        if (errno === EINTR) continue;
        if (!wait && errno === 11) return [];
        throw new KernelError(op, errno);
      }
      if (length > this.#receiveBuffer.length) throw new KernelError(op, ENOBUFS);
      return readMessages(this.#receiveBuffer.subarray(0, length));
    }
  }

  /** Joins or leaves a multicast group. What is queued stays. */
  setMembership(group: number, isMember: boolean): void {
    const option = isMember ? NETLINK_ADD_MEMBERSHIP : NETLINK_DROP_MEMBERSHIP;
    this.#option(libc.SOL_NETLINK, option, group);
  }

  /** Takes the next `count` sequence numbers for messages that the caller encodes. */
  takeSequence(count: number): number {
    const first = this.#sequence;
    this.#sequence = (this.#sequence + count) >>> 0;
    return first;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    libc.close(this.fd);
    if (this.#isBufferFree && spareBuffers.length < MAX_SPARE_BUFFERS)
      spareBuffers.push(this.#receiveBuffer);
  }

  #encode(
    message: { type: number; flags: number },
    write: (writer: NetlinkWriter) => void,
  ): { bytes: Uint8Array; sequence: number } {
    const sequence = this.#sequence;
    const writer = new NetlinkWriter({ firstSequence: sequence });
    const start = writer.beginMessage(message.type, message.flags);
    write(writer);
    writer.endMessage(start);
    this.#sequence = writer.nextSequence;
    return { bytes: writer.bytes(), sequence };
  }

  /** @returns the messages before the acknowledgement */
  #awaitAnswers(op: string, sequence: number): NetlinkMessage[] {
    const answers: NetlinkMessage[] = [];
    for (;;) {
      for (const answer of this.receive(op)) {
        if (answer.sequence !== sequence) continue;
        if (answer.type === NLMSG_ERROR) {
          const { errno, extack } = readAcknowledgement(answer);
          if (errno !== 0) throw new KernelError(op, errno, { extack });
          return answers;
        }
        answers.push(copyOf(answer));
      }
    }
  }

  async #sendOnThread(op: string, bytes: Uint8Array): Promise<void> {
    const sent = await libc.sendAsync(this.fd, bytes, 0);
    // Why it failed is known to the thread alone; the same call on this one says it, or succeeds.
    if (sent !== bytes.length) this.send(op, bytes);
  }

  async #receiveOnThread(op: string): Promise<NetlinkMessage[]> {
    this.#isBufferFree = false;
    const length = await libc.recvAsync(this.fd, this.#receiveBuffer, libc.MSG_TRUNC);
    // As above; an interrupted call leaves nothing to read, and the loop around this asks again.
    if (length < 0) return this.receive(op, false);
    if (length > this.#receiveBuffer.length) throw new KernelError(op, ENOBUFS);
    return readMessages(this.#receiveBuffer.subarray(0, length));
  }

  #option(level: number, name: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    if (libc.setsockopt(this.fd, level, name, bytes, 4) !== 0)
      throw new KernelError(`set netlink socket option ${level}/${name}`, libc.errno());
  }
}

/** The payload outlives the receive buffer. */
function copyOf(message: NetlinkMessage): NetlinkMessage {
  return { ...message, payload: Buffer.from(message.payload) };
}

function interruptedDump(op: string): KernelError {
  return new KernelError(op, EINTR, {
    extack: `the table changed during each of ${MAX_DUMP_TRIES} dumps`,
  });
}

/** Collects the datagrams of one dump. */
class DumpReader {
  readonly #op: string;
  readonly #sequence: number;
  readonly #collected: NetlinkMessage[] = [];
  #interrupted = false;
  isDone = false;

  constructor(op: string, sequence: number) {
    this.#op = op;
    this.#sequence = sequence;
  }

  /** When it is done: undefined if a change interrupted it. */
  get answers(): NetlinkMessage[] | undefined {
    return this.#interrupted ? undefined : this.#collected;
  }

  /** @throws KernelError */
  take(messages: readonly NetlinkMessage[]): void {
    for (const answer of messages) {
      if (this.isDone || answer.sequence !== this.#sequence) continue;
      if ((answer.flags & NLM_F_DUMP_INTR) !== 0) this.#interrupted = true;
      if (answer.type === NLMSG_ERROR) {
        const { errno, extack } = readAcknowledgement(answer);
        if (errno !== EINTR) throw new KernelError(this.#op, errno, { extack });
        this.#interrupted = true;
        this.isDone = true;
      } else if (answer.type === NLMSG_DONE) {
        const errno = answer.payload.length >= 4 ? -answer.payload.readInt32LE(0) : 0;
        if (errno === EINTR) this.#interrupted = true;
        else if (errno > 0) throw new KernelError(this.#op, errno);
        this.isDone = true;
      } else {
        this.#collected.push(copyOf(answer));
        if ((answer.flags & NLM_F_MULTI) === 0) this.isDone = true;
      }
    }
  }
}
