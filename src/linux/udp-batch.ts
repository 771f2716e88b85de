/**
 * UDP in batches: one `recvmmsg(2)` takes what has arrived, one `sendmmsg(2)` answers it. Everything is synchronous, for
 * a thread that does nothing else.
 *
 * ```text
 *   struct mmsghdr, 64 bytes on 64-bit machines (include/linux/socket.h):
 *    | name * u64 | name length u32 | - | iov * u64 | iov count u64 | control * u64 | control length u64 | flags u32 | - |
 *    | message length u32 | - |
 * ```
 * Each slot has a fixed place for a datagram, its peer and the reply, so that nothing is allocated per packet.
 */
import { EAGAIN, EINTR, KernelError } from '#lib/errors.ts';
import { familyOf, type Ip, ipToBytes } from '#lib/ip.ts';
import * as libc from './ffi/libc.ts';

/** Datagrams per system call. More does not help: the call's cost is spread thin by then. */
export const MAX_BATCH = 64;
const MMSGHDR_BYTES = 64;
const NAME_LENGTH_AT = 8;
const IOV_AT = 16;
const IOV_COUNT_AT = 24;
const MESSAGE_LENGTH_AT = 56;
const IOVEC_BYTES = 16;
const PEER_SLOT_BYTES = 32;
const SOCKADDR_IN_BYTES = 16;
const SOCKADDR_IN6_BYTES = 28;
const POLLFD_BYTES = 8;
/** Holds a burst of some ten thousand small datagrams while the thread is busy. */
const RECEIVE_QUEUE_BYTES = 4 * 1024 * 1024;

const SO_REUSEPORT = 15;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

const recvmmsg = libc.libc.func(
  'int recvmmsg(int fd, void *messages, uint32 count, int flags, void *timeout)',
) as (fd: number, messages: Uint8Array, count: number, flags: number, timeout: null) => number;
const sendmmsg = libc.libc.func(
  'int sendmmsg(int fd, const void *messages, uint32 count, int flags)',
) as (fd: number, messages: Uint8Array, count: number, flags: number) => number;
const sendto = libc.libc.func(
  'int64 sendto(int fd, const void *bytes, size_t length, int flags, const void *peer, uint32 peerLength)',
) as (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
  peer: Uint8Array,
  peerLength: number,
) => number;
const getsockname = libc.libc.func(
  'int getsockname(int fd, void *address, _Inout_ uint32 *length)',
) as (fd: number, address: Uint8Array, length: number[]) => number;

export interface UdpBatchOptions {
  /** A local address; replies leave from it. */
  readonly address: Ip;
  /** 0 takes a free one; see {@link UdpBatchSocket.port}. */
  readonly port: number;
  /** Longer datagrams are cut. */
  readonly requestBytes: number;
  readonly replyBytes: number;
  /** A socket that is bound to them already: of a thread that died. From now on it is this one's. */
  readonly fd?: number | undefined;
}

export class UdpBatchSocket implements Disposable {
  readonly fd: number;
  readonly address: Ip;
  readonly port: number;
  /** Length of a sender's IP address: 4 or 16. */
  readonly peerAddressBytes: 4 | 16;
  readonly #peerBytes: number;
  // No Buffers where callers copy: a Buffer's slice() is a view, and the next batch would change it.
  readonly #peers = new Uint8Array(MAX_BATCH * PEER_SLOT_BYTES);
  readonly #requests: Slots;
  readonly #replies: Slots;
  #received = 0;
  #closed = false;
  /** Replies that the kernel did not take: a full queue, a peer that cannot be reached. */
  sendErrors = 0;

  /**
   * Several sockets may share the address and port, also of several processes, so that a new process can start before
   * the old one ends.
   * @throws KernelError (EADDRNOTAVAIL) if the address is not on this machine
   */
  constructor(options: UdpBatchOptions) {
    const { address, port } = options;
    this.address = address;
    const isV4 = familyOf(address) === 4;
    this.peerAddressBytes = isV4 ? 4 : 16;
    this.#peerBytes = isV4 ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES;
    this.#requests = new Slots(options.requestBytes, this.#peers, PEER_SLOT_BYTES);
    this.#replies = new Slots(options.replyBytes, this.#peers, this.#peerBytes);
    if (options.fd !== undefined) {
      this.fd = options.fd;
      this.port = port;
      return;
    }
    this.fd = libc.socket(
      isV4 ? libc.AF_INET : libc.AF_INET6,
      libc.SOCK_DGRAM | libc.SOCK_CLOEXEC | libc.SOCK_NONBLOCK,
      0,
    );
    if (this.fd < 0) throw new KernelError('open a UDP socket', libc.errno());
    try {
      this.#option('SO_REUSEPORT', libc.SOL_SOCKET, SO_REUSEPORT, 1);
      if (!isV4) this.#option('IPV6_V6ONLY', IPPROTO_IPV6, IPV6_V6ONLY, 1);
      this.#growReceiveQueue();
      const name = encodeSockaddr(address, port);
      if (libc.bind(this.fd, name, name.length) !== 0)
        throw new KernelError(`bind UDP ${describe(address, port)}`, libc.errno());
      this.port = port === 0 ? this.#boundPort() : port;
    } catch (error) {
      libc.close(this.fd);
      throw error;
    }
  }

  /** Takes what has arrived, at most a batch. @returns the number of datagrams, 0 if there are none */
  receive(): number {
    for (let i = 0; i < this.#received; i++) this.#requests.resetNameLength(i);
    this.#received = Math.max(
      0,
      recvmmsg(this.fd, this.#requests.headers, MAX_BATCH, libc.MSG_DONTWAIT, null),
    );
    return this.#received;
  }
  /** The buffer of the datagram at this index of the batch; valid until the next {@link receive}. */
  request(index: number): Uint8Array {
    return this.#requests.view(index);
  }
  requestLength(index: number): number {
    return this.#requests.messageLength(index);
  }
  /** The buffer for the reply to the datagram at this index. */
  reply(index: number): Uint8Array {
    return this.#replies.view(index);
  }
  /** @param length bytes of the reply, 0 for none */
  setReplyLength(index: number, length: number): void {
    this.#replies.setLength(index, length);
  }
  /** The senders of the batch, as `sockaddr`s. */
  get peers(): Uint8Array {
    return this.#peers;
  }
  /** Where in {@link peers} the IP address of a sender stands. */
  peerAddressAt(index: number): number {
    // sin_addr stands behind family and port; sin6_addr behind the flow label as well.
    return index * PEER_SLOT_BYTES + (this.peerAddressBytes === 4 ? 4 : 8);
  }
  /** A copy of the sender's address, for {@link sendTo}. */
  peer(index: number): Uint8Array {
    const at = index * PEER_SLOT_BYTES;
    return this.#peers.slice(at, at + this.#peerBytes);
  }

  /** Sends the replies of the batch. What the kernel does not take is lost, as datagrams may be; clients ask again. */
  send(): void {
    for (let at = 0; at < this.#received; ) {
      if (this.#replies.length(at) === 0) {
        at++;
        continue;
      }
      let end = at + 1;
      while (end < this.#received && this.#replies.length(end) > 0) end++;
      const sent = sendmmsg(this.fd, this.#replies.headersFrom(at), end - at, libc.MSG_DONTWAIT);
      if (sent <= 0) this.sendErrors++;
      at += Math.max(1, sent); // the first could not be sent: go on after it
    }
  }

  /** Sends one datagram to a peer of an earlier batch. */
  sendTo(peer: Uint8Array, bytes: Uint8Array, length: number): void {
    if (Number(sendto(this.fd, bytes, length, libc.MSG_DONTWAIT, peer, peer.length)) < 0)
      this.sendErrors++;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    libc.close(this.fd);
  }

  #growReceiveQueue(): void {
    const value = int32(RECEIVE_QUEUE_BYTES);
    // Beyond the system's limit needs a privilege; without it the limit has to do.
    if (libc.setsockopt(this.fd, libc.SOL_SOCKET, libc.SO_RCVBUFFORCE, value, 4) !== 0)
      this.#option('SO_RCVBUF', libc.SOL_SOCKET, libc.SO_RCVBUF, RECEIVE_QUEUE_BYTES);
  }

  #option(name: string, level: number, option: number, value: number): void {
    if (libc.setsockopt(this.fd, level, option, int32(value), 4) !== 0)
      throw new KernelError(`set ${name} on a UDP socket`, libc.errno());
  }

  #boundPort(): number {
    const name = Buffer.alloc(SOCKADDR_IN6_BYTES);
    if (getsockname(this.fd, name, [name.length]) !== 0)
      throw new KernelError('read the port of a UDP socket', libc.errno());
    return name.readUInt16BE(2);
  }
}

/** Closes the socket of a thread that died without a successor: file descriptors are the process's, and outlive it. */
export function closeOrphan(fd: number): void {
  libc.close(fd);
}

/** One side of a batch: the message headers and the memory they point to. */
class Slots {
  readonly headers = Buffer.alloc(MAX_BATCH * MMSGHDR_BYTES);
  readonly #vectors = Buffer.alloc(MAX_BATCH * IOVEC_BYTES);
  readonly #views: Uint8Array[] = [];
  readonly #tails: Uint8Array[] = [];
  readonly #nameBytes: number;

  constructor(slotBytes: number, peers: Uint8Array, nameBytes: number) {
    this.#nameBytes = nameBytes;
    const memory = new Uint8Array(MAX_BATCH * slotBytes);
    const memoryAt = libc.addressOf(memory);
    const peersAt = libc.addressOf(peers);
    const vectorsAt = libc.addressOf(this.#vectors);
    for (let i = 0; i < MAX_BATCH; i++) {
      const header = i * MMSGHDR_BYTES;
      this.headers.writeBigUInt64LE(peersAt + BigInt(i * PEER_SLOT_BYTES), header);
      this.headers.writeBigUInt64LE(vectorsAt + BigInt(i * IOVEC_BYTES), header + IOV_AT);
      this.headers.writeBigUInt64LE(1n, header + IOV_COUNT_AT);
      this.resetNameLength(i);
      this.#vectors.writeBigUInt64LE(memoryAt + BigInt(i * slotBytes), i * IOVEC_BYTES);
      this.#vectors.writeBigUInt64LE(BigInt(slotBytes), i * IOVEC_BYTES + 8);
      this.#tails.push(this.headers.subarray(header));
      this.#views.push(memory.subarray(i * slotBytes, (i + 1) * slotBytes));
    }
  }

  view(index: number): Uint8Array {
    return slotOf(this.#views, index);
  }
  /** The headers from that of a slot on. */
  headersFrom(index: number): Uint8Array {
    return slotOf(this.#tails, index);
  }
  /** What the kernel says it received. */
  messageLength(index: number): number {
    return this.headers.readUInt32LE(index * MMSGHDR_BYTES + MESSAGE_LENGTH_AT);
  }
  /** The kernel overwrites it with the length of the peer's address. */
  resetNameLength(index: number): void {
    this.headers.writeUInt32LE(this.#nameBytes, index * MMSGHDR_BYTES + NAME_LENGTH_AT);
  }
  length(index: number): number {
    return this.#vectors.readUInt32LE(index * IOVEC_BYTES + 8);
  }
  setLength(index: number, length: number): void {
    this.#vectors.writeUInt32LE(length, index * IOVEC_BYTES + 8);
  }
}

function slotOf(views: readonly Uint8Array[], index: number): Uint8Array {
  const view = views[index];
  if (view === undefined) throw new RangeError(`a batch has no slot ${index}`);
  return view;
}

/** Waits for file descriptors to become readable, without allocating each time. */
export class PollSet {
  readonly #set: Buffer;
  readonly #count: number;

  constructor(fds: readonly number[]) {
    this.#count = fds.length;
    this.#set = Buffer.alloc(Math.max(1, fds.length) * POLLFD_BYTES);
    fds.forEach((fd, i) => {
      this.#set.writeInt32LE(fd, i * POLLFD_BYTES);
      this.#set.writeInt16LE(libc.POLLIN, i * POLLFD_BYTES + 4);
    });
  }

  /**
   * Waits until one of the descriptors is readable.
   * @param timeoutMs 0 only looks, -1 waits without end
   * @returns how many are readable; 0 when the time is over or a signal came
   * @throws KernelError
   */
  wait(timeoutMs: number): number {
    const ready = libc.poll(this.#set, this.#count, timeoutMs);
    if (ready >= 0) return ready;
    const errno = libc.errno();
    // What poll() has not written is of the last time.
    for (let i = 0; i < this.#count; i++) this.#set.writeInt16LE(0, i * POLLFD_BYTES + 6);
    if (errno === EINTR || errno === EAGAIN) return 0;
    throw new KernelError('wait for datagrams', errno);
  }

  /** Whether the last {@link wait} found the descriptor at this place readable. */
  isReady(index: number): boolean {
    return this.#set.readInt16LE(index * POLLFD_BYTES + 6) !== 0;
  }
}

/**
 * Waits until one of the descriptors is readable.
 * @param timeoutMs 0 only looks, -1 waits without end
 * @returns the positions in `fds` that are readable; none when the time is over or a signal came
 * @throws KernelError
 */
export function waitReadable(fds: readonly number[], timeoutMs: number): number[] {
  const set = new PollSet(fds);
  if (set.wait(timeoutMs) === 0) return [];
  return [...fds.keys()].filter((i) => set.isReady(i));
}

/** `struct sockaddr_in` or `sockaddr_in6`, include/uapi/linux/in.h and in6.h. */
function encodeSockaddr(address: Ip, port: number): Buffer {
  if (familyOf(address) === 4) {
    const name = Buffer.alloc(SOCKADDR_IN_BYTES);
    name.writeUInt16LE(libc.AF_INET, 0);
    name.writeUInt16BE(port, 2);
    name.set(ipToBytes(address), 4);
    return name;
  }
  const name = Buffer.alloc(SOCKADDR_IN6_BYTES);
  name.writeUInt16LE(libc.AF_INET6, 0);
  name.writeUInt16BE(port, 2);
  name.set(ipToBytes(address), 8);
  return name;
}

function describe(address: Ip, port: number): string {
  return familyOf(address) === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}
