/**
 * Network namespaces: how a socket is opened in another one.
 *
 * A namespace belongs to a thread. {@link inNetns} moves this thread there, runs a synchronous function and
 * always moves back; nothing asynchronous may run inside, because another task of the event loop would run there too.
 */
import { openSync, readdirSync, statSync } from 'node:fs';
import { KernelError } from '#lib/errors.ts';
import { CLONE_NEWNET, close, errno, setns } from './ffi/libc.ts';

/** Where a namespace can be found: a path such as `/run/netns/x` or `/proc/1/ns/net`. */
export type NetnsPath = string;

/** An open namespace; keeps it alive until disposed. */
export class Netns implements Disposable {
  readonly path: NetnsPath;
  readonly fd: number;
  /** @throws KernelError (ENOENT) if there is no such file */
  constructor(path: NetnsPath) {
    this.path = path;
    try {
      this.fd = openSync(path, 'r');
    } catch (cause) {
      const number = Math.abs((cause as NodeJS.ErrnoException).errno ?? 2);
      throw new KernelError(`open network namespace "${path}"`, number, { cause });
    }
  }
  [Symbol.dispose](): void {
    close(this.fd);
  }
}

let own: number | undefined;
/** Where this thread is; undefined is its own namespace. */
let current: Netns | undefined;

/**
 * Runs `action` with this thread inside the namespace. May be nested.
 * @param action must be synchronous
 * @throws KernelError if the namespace cannot be entered; whatever `action` throws
 */
export function inNetns<T>(netns: Netns | NetnsPath | undefined, action: () => T): T {
  if (netns === undefined) return action();
  if (typeof netns === 'string') {
    using opened = new Netns(netns);
    return inNetns(opened, action);
  }
  own ??= openSync('/proc/thread-self/ns/net', 'r');
  if (setns(netns.fd, CLONE_NEWNET) !== 0)
    throw new KernelError(`enter network namespace "${netns.path}"`, errno());
  const enclosing = current;
  current = netns;
  try {
    return action();
  } finally {
    current = enclosing;
    if (setns(enclosing?.fd ?? own, CLONE_NEWNET) !== 0) {
      // Going on in the wrong namespace would program the wrong machine.
      console.error('tulle: cannot leave a network namespace again, giving up');
      process.abort();
    }
  }
}

/** Whether two paths lead to the same namespace. False if one of them is gone. */
export function isSameNetns(a: NetnsPath, b: NetnsPath): boolean {
  const [x, y] = [a, b].map((path) => statSync(path, { throwIfNoEntry: false, bigint: true }));
  return x !== undefined && y !== undefined && x.ino === y.ino && x.dev === y.dev;
}

/** Whether any process is in the namespace, as far as this one may see others. False if it is gone. */
export function hasProcessIn(netns: NetnsPath): boolean {
  const isIn = (pid: string) => {
    try {
      return isSameNetns(`/proc/${pid}/ns/net`, netns);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EACCES' || code === 'EPERM') return false;
      throw error;
    }
  };
  return readdirSync('/proc').some((name) => /^\d+$/.test(name) && isIn(name));
}
