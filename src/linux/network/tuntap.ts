/**
 * TUN and TAP links: a link whose other end is a file descriptor of ours.
 *
 * ```text
 *  ifreq for TUNSETIFF | name 16 bytes | flags u16 | … 40 bytes in all |
 * ```
 * rtnetlink does not create them (`EOPNOTSUPP`), only the ioctl does. Source: `include/uapi/linux/if_tun.h`.
 */
import { constants, openSync } from 'node:fs';
import { ERANGE, KernelError } from '#lib/errors.ts';
import { MAX_LINK_NAME_BYTES } from '#wire/rtnetlink/link.ts';
import * as libc from '../ffi/libc.ts';
import { inNetns, type Netns, type NetnsPath } from '../netns.ts';

const DEVICE = '/dev/net/tun';
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;
const IFF_TUN = 0x0001;
const IFF_TAP = 0x0002;
/** Frames without the four bytes of packet information in front. */
const IFF_NO_PI = 0x1000;
/** The same numbers on x86-64 and arm64. */
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;

/** The C function is variadic; both our machines pass a variadic integer or pointer like a named one. */
const ioctl = libc.libc.func('int ioctl(int fd, unsigned long request, void *argument)') as (
  fd: number,
  request: number,
  argument: Uint8Array,
) => number;
const ioctlNumber = libc.libc.func('ioctl', 'int', ['int', 'unsigned long', 'unsigned long']) as (
  fd: number,
  request: number,
  argument: number,
) => number;

export interface TuntapSpec {
  /** `tun` carries IP packets, `tap` Ethernet frames. */
  readonly kind: 'tun' | 'tap';
  /** At most 15 bytes; a name that holds `%d` gets a number from the kernel. */
  readonly name: string;
  /** Where the link is made; by default in this process's own namespace. The descriptor works from anywhere. */
  readonly netns?: Netns | NetnsPath;
  /** The link outlives the descriptor, and opening one of the same name attaches to it again. */
  readonly persistent?: boolean;
}

/** The descriptor of a TUN or TAP link. Disposing closes it, which deletes the link unless it is persistent. */
export class Tuntap implements Disposable {
  /** Non-blocking: reads one packet at a time, `EAGAIN` when there is none. Watch it with a `Poller`. */
  readonly fd: number;
  /** As the kernel named the link. */
  readonly name: string;
  #closed = false;

  /**
   * Creates the link, or attaches to a persistent one. It is down; set it up through the namespace's `NetworkStack`.
   * @throws KernelError EINVAL if the name is another kind of link's, EBUSY if somebody is attached, ENOENT without
   *   the tun module
   */
  constructor(spec: TuntapSpec) {
    const op = `create ${spec.kind} link "${spec.name}"`;
    if (Buffer.byteLength(spec.name) > MAX_LINK_NAME_BYTES) throw new KernelError(op, ERANGE);
    const request = Buffer.alloc(IFREQ_BYTES);
    request.write(spec.name, 0);
    request.writeUInt16LE((spec.kind === 'tun' ? IFF_TUN : IFF_TAP) | IFF_NO_PI, IFNAMSIZ);
    // The link belongs to the namespace in which the device file was opened.
    this.fd = inNetns(spec.netns, () => openDevice(op));
    const failed =
      ioctl(this.fd, TUNSETIFF, request) < 0 ||
      (spec.persistent !== undefined &&
        ioctlNumber(this.fd, TUNSETPERSIST, spec.persistent ? 1 : 0) < 0);
    if (failed) {
      const errno = libc.errno();
      libc.close(this.fd);
      throw new KernelError(op, errno);
    }
    this.name = request.toString('utf8', 0, request.indexOf(0));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    libc.close(this.fd);
  }
}

function openDevice(op: string): number {
  try {
    return openSync(DEVICE, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    const { errno } = cause as NodeJS.ErrnoException;
    throw new KernelError(`${op}: open ${DEVICE}`, Math.abs(errno ?? 2), { cause });
  }
}
