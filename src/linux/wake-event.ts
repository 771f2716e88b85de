/**
 * Wakes a thread that waits in `poll(2)`: an eventfd. The file descriptor belongs to the process, so its number can be
 * given to another thread, which waits for it while this one signals.
 */
import { KernelError } from '#lib/errors.ts';
import * as libc from './ffi/libc.ts';

const COUNTER_BYTES = 8;
const ONE = Buffer.from(new BigUint64Array([1n]).buffer);

const write = libc.libc.func('int64 write(int fd, const void *bytes, size_t length)');
const read = libc.libc.func('int64 read(int fd, void *bytes, size_t length)');

/** The owner's end. Dispose it after the waiting thread has ended. */
export class WakeEvent implements Disposable {
  readonly fd: number;
  #closed = false;

  /** @throws KernelError when the process has no file descriptor left */
  constructor() {
    this.fd = libc.eventfd();
    if (this.fd < 0) throw new KernelError('create an eventfd', libc.errno());
  }

  /** Makes the descriptor readable until {@link drainWakeEvent}. Never blocks; does nothing after disposal. */
  signal(): void {
    // Fails only when the counter is full, and then the descriptor is readable anyway.
    if (!this.#closed) write(this.fd, ONE, COUNTER_BYTES);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    libc.close(this.fd);
  }
}

const drained = Buffer.alloc(COUNTER_BYTES);

/** The waiter's part: makes the descriptor unreadable again. Call it before looking for what the signal was for. */
export function drainWakeEvent(fd: number): void {
  read(fd, drained, COUNTER_BYTES);
}
