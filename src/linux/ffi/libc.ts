/**
 * The C library's calls that Node does not offer. This folder is the only place with FFI.
 *
 * Every function returns what the C function returns; {@link errno} must be read right after a failing call,
 * before anything else runs.
 */
import koffi from 'koffi';

const lib = koffi.load('libc.so.6');

export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_RCVBUF = 8;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const SOL_NETLINK = 270;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const CLONE_NEWNET = 0x40000000;
export const POLLIN = 0x1;
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

export const socket = lib.func('int socket(int domain, int type, int protocol)') as (
  domain: number,
  type: number,
  protocol: number,
) => number;
export const bind = lib.func('int bind(int fd, const void *address, uint32 length)') as (
  fd: number,
  address: Uint8Array,
  length: number,
) => number;
export const setsockopt = lib.func(
  'int setsockopt(int fd, int level, int name, const void *value, uint32 length)',
) as (fd: number, level: number, name: number, value: Uint8Array, length: number) => number;
export const send = lib.func('int64 send(int fd, const void *bytes, size_t length, int flags)') as (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
) => number;
export const recv = lib.func('int64 recv(int fd, void *bytes, size_t length, int flags)') as (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
) => number;
/** Calls back on the event loop with what the C function returned; its errno is lost. */
type AsyncResult = (error: Error | null, result: number | bigint) => void;
type IoOnThread = {
  async(fd: number, bytes: Uint8Array, length: number, flags: number, callback: AsyncResult): void;
};
/** `send` on a thread of the pool. The bytes must stay as they are meanwhile. */
export function sendAsync(fd: number, bytes: Uint8Array, flags: number): Promise<number> {
  return ioOnThread(send as unknown as IoOnThread, fd, bytes, flags);
}
/** `recv` on a thread of the pool. */
export function recvAsync(fd: number, bytes: Uint8Array, flags: number): Promise<number> {
  return ioOnThread(recv as unknown as IoOnThread, fd, bytes, flags);
}
function ioOnThread(
  call: IoOnThread,
  fd: number,
  bytes: Uint8Array,
  flags: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(fd, bytes, bytes.length, flags, (error, result) => {
      if (error === null) resolve(Number(result));
      else reject(error);
    });
  });
}
export const setns = lib.func('int setns(int fd, int type)') as (
  fd: number,
  type: number,
) => number;
export const close = lib.func('int close(int fd)') as (fd: number) => number;

const pollFunction = lib.func('int poll(void *fds, uint64 count, int timeout)');
export const poll = pollFunction as unknown as (
  fds: Uint8Array,
  count: number,
  timeoutMs: number,
) => number;
/** `poll` on a thread of the pool; calls back on the event loop. */
export function pollAsync(
  fds: Uint8Array,
  count: number,
  timeoutMs: number,
  callback: (error: Error | null, ready: number) => void,
): void {
  pollFunction.async(fds, count, timeoutMs, callback);
}

const eventfdFunction = lib.func('int eventfd(uint32 initial, int flags)');
/** A non-blocking, close-on-exec event counter. */
export function eventfd(): number {
  return eventfdFunction(0, EFD_NONBLOCK | EFD_CLOEXEC) as number;
}
const syscall2 = lib.func('syscall', 'int64', ['int64', 'int64', 'int64']);
const SYS_PIDFD_OPEN = 434; // the same number on every architecture
/** @returns a file descriptor that polls readable when the process has ended, or -1 */
export function pidfdOpen(pid: number): number {
  return Number(syscall2(SYS_PIDFD_OPEN, pid, 0));
}

/** errno of the last failing call on this thread. */
export function errno(): number {
  return koffi.errno();
}

/** Address of a buffer's memory, for structs that hold pointers. The buffer must outlive the use. */
export function addressOf(bytes: Uint8Array): bigint {
  return BigInt(koffi.address(bytes));
}

/** The library itself, for the few modules of this layer that declare calls of their own. */
export const libc = lib;
