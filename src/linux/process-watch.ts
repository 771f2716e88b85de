/** Tells when a process has ended, whoever its parent is: by a pidfd, which cannot be fooled by a reused number. */
import { ESRCH, KernelError } from '#lib/errors.ts';
import * as libc from './ffi/libc.ts';
import type { Poller } from './poller.ts';

/**
 * Calls back once when the process has ended, never from inside this call; also if it is gone already.
 * @param pid a process number of this process's PID namespace
 * @returns a function that stops watching; after it `onExit` is not called any more
 * @throws KernelError if the kernel refuses a pidfd (EMFILE, or EINVAL for a thread's number)
 * @see pidfd_open(2)
 */
export function watchProcessExit(poller: Poller, pid: number, onExit: () => void): () => void {
  const fd = libc.pidfdOpen(pid);
  if (fd < 0) {
    const errno = libc.errno();
    if (errno !== ESRCH) throw new KernelError(`watch process ${pid}`, errno);
    const soon = setImmediate(onExit);
    return () => clearImmediate(soon);
  }
  let watching = true;
  const remove = poller.add(fd, () => {
    // The poller knows descriptors by number, and ours may have been another's a moment ago.
    if (!isReadable(fd)) return;
    stop();
    onExit();
  });
  const stop = () => {
    if (!watching) return;
    watching = false;
    remove();
    libc.close(fd);
  };
  return stop;
}

function isReadable(fd: number): boolean {
  const set = Buffer.alloc(8);
  set.writeInt32LE(fd, 0);
  set.writeInt16LE(libc.POLLIN, 4);
  return libc.poll(set, 1, 0) > 0;
}
