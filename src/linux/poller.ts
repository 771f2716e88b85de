/**
 * Tells when file descriptors that Node's event loop cannot watch (netlink sockets, pidfds) become readable.
 *
 * One `poll(2)` at a time waits on a thread of the pool; an eventfd ends it early when the set changes.
 * Waits are bounded so that the process can always end.
 */
import { KernelError } from '#lib/errors.ts';
import * as libc from './ffi/libc.ts';

const POLLFD_BYTES = 8;
const MAX_WAIT_MS = 500;
const ONE = Buffer.from(new BigUint64Array([1n]).buffer);

export class Poller implements Disposable {
  readonly #listeners = new Map<number, () => void>();
  readonly #wakeFd: number;
  #waiting = false;
  #closed = false;

  constructor() {
    this.#wakeFd = libc.eventfd();
    if (this.#wakeFd < 0) throw new KernelError('create an eventfd', libc.errno());
  }

  /**
   * Calls back each time `fd` is readable, until removed. The callback must read until nothing is left.
   * @returns a function that removes the watch; call it before closing the descriptor
   */
  add(fd: number, onReadable: () => void): () => void {
    this.#listeners.set(fd, onReadable);
    this.#kick();
    return () => {
      if (this.#listeners.get(fd) !== onReadable) return;
      this.#listeners.delete(fd);
      this.#kick();
    };
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listeners.clear();
    if (this.#waiting) this.#wake();
    else libc.close(this.#wakeFd);
  }

  #kick(): void {
    if (this.#waiting) this.#wake();
    else this.#wait();
  }

  #wake(): void {
    writeAll(this.#wakeFd);
  }

  #wait(): void {
    if (this.#closed || this.#listeners.size === 0) return;
    const fds = [this.#wakeFd, ...this.#listeners.keys()];
    const set = Buffer.alloc(fds.length * POLLFD_BYTES);
    fds.forEach((fd, i) => {
      set.writeInt32LE(fd, i * POLLFD_BYTES);
      set.writeInt16LE(libc.POLLIN, i * POLLFD_BYTES + 4);
    });
    this.#waiting = true;
    libc.pollAsync(set, fds.length, MAX_WAIT_MS, () => {
      this.#waiting = false;
      if (this.#closed) {
        libc.close(this.#wakeFd);
        return;
      }
      if (set.readInt16LE(6) !== 0) drain(this.#wakeFd);
      try {
        fds.forEach((fd, i) => {
          if (i > 0 && set.readInt16LE(i * POLLFD_BYTES + 6) !== 0) this.#listeners.get(fd)?.();
        });
      } finally {
        // Also when a listener throws: the others must go on being told.
        this.#wait();
      }
    });
  }
}

const write = libc.libc.func('int64 write(int fd, const void *bytes, size_t length)');
const read = libc.libc.func('int64 read(int fd, void *bytes, size_t length)');

function writeAll(fd: number): void {
  write(fd, ONE, 8);
}
function drain(fd: number): void {
  read(fd, Buffer.alloc(8), 8);
}
