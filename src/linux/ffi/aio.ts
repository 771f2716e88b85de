/**
 * A write that goes on while this thread does other work, and that it can then wait for (POSIX asynchronous I/O): the C
 * library has a small thread for it, which is gone a second after the last one. A call on Node's pool can only be
 * waited for by going back to the event loop.
 *
 * ```text
 *  struct aiocb (64 bit)   0 fd i32 | 16 buffer u64 | 24 length u64 | 32 sigevent { 12 notify i32 } | … | 168
 * ```
 * Source: `aio.h` of glibc. Its threads write to a socket where an offset has no meaning; other libraries may not.
 */
import { addressOf, errno, libc } from './libc.ts';

const AIOCB_BYTES = 168;
const BUFFER_OFFSET = 16;
const LENGTH_OFFSET = 24;
const NOTIFY_OFFSET = 32 + 12;
const SIGEV_NONE = 1;

type Calls = Readonly<
  Record<'write' | 'error' | 'return' | 'suspend', (...args: unknown[]) => number | bigint>
>;

/** Undefined: not asked for yet; null: the C library has no such calls (glibc before 2.34 keeps them elsewhere). */
let calls: Calls | null | undefined;

/** One write at a time. */
export class WriteAhead {
  readonly #calls: Calls;
  readonly #block = Buffer.alloc(AIOCB_BYTES);
  readonly #list = Buffer.alloc(8);
  /** Must stay until the write has ended. */
  #bytes: Uint8Array | undefined;

  constructor(found: Calls) {
    this.#calls = found;
    this.#list.writeBigUInt64LE(addressOf(this.#block));
  }

  get isUnderWay(): boolean {
    return this.#bytes !== undefined;
  }

  /** @returns 0, or the errno with which nothing was begun. The bytes must stay as they are until {@link wait} */
  start(fd: number, bytes: Uint8Array): number {
    this.#block.fill(0);
    this.#block.writeInt32LE(fd, 0);
    this.#block.writeBigUInt64LE(addressOf(bytes), BUFFER_OFFSET);
    this.#block.writeBigUInt64LE(BigInt(bytes.length), LENGTH_OFFSET);
    this.#block.writeInt32LE(SIGEV_NONE, NOTIFY_OFFSET);
    this.#bytes = bytes;
    if (Number(this.#calls.write(this.#block)) === 0) return 0;
    this.#bytes = undefined;
    return errno();
  }

  /** Blocks until it has ended. @returns how many bytes were written, or minus the errno */
  wait(): number {
    // A signal ends the wait, and not the write.
    while (Number(this.#calls.suspend(this.#list, 1, null)) !== 0);
    const failure = Number(this.#calls.error(this.#block));
    const written = Number(this.#calls.return(this.#block));
    this.#bytes = undefined;
    return failure === 0 ? written : -failure;
  }
}

/** @returns undefined if the C library has no such calls */
export function openWriteAhead(): WriteAhead | undefined {
  calls ??= findCalls();
  return calls === null ? undefined : new WriteAhead(calls);
}

function findCalls(): Calls | null {
  try {
    return {
      write: libc.func('int aio_write(void *block)'),
      error: libc.func('int aio_error(const void *block)'),
      return: libc.func('int64 aio_return(void *block)'),
      suspend: libc.func('int aio_suspend(const void *list, int count, const void *timeout)'),
    };
  } catch {
    // koffi has one way to say that there is no such symbol; what was written ahead is then just written.
    return null;
  }
}
