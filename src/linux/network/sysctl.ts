/**
 * Kernel settings under `/proc/sys`. What `/proc/sys/net` shows is the namespace of the thread that opens the file,
 * whichever mount it goes by, so reading inside {@link inNetns} is enough; there is no need of another `/proc`.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { EINVAL, ENOENT, isErrno, KernelError } from '#lib/errors.ts';
import { inNetns, type Netns, type NetnsPath } from '../netns.ts';
import type { NetworkStack } from './port.ts';

export function kernelSysctl(netns: Netns | NetnsPath | undefined): NetworkStack['sysctl'] {
  return {
    get(name) {
      try {
        return run(`read sysctl "${name}"`, name, (path) =>
          inNetns(netns, () => readFileSync(path, 'utf8')).trimEnd(),
        );
      } catch (error) {
        if (isErrno(error, ENOENT)) return undefined;
        throw error;
      }
    },
    set(name, value) {
      run(`set sysctl "${name}" to "${value}"`, name, (path) =>
        // r+ does not try to make the file: a setting that the kernel lacks is ENOENT and not EACCES.
        inNetns(netns, () => writeFileSync(path, value, { flag: 'r+' })),
      );
    },
  };
}

function run<T>(op: string, name: string, action: (path: string) => T): T {
  // A link's name is part of some settings' names and may hold anything but a slash; `..` is no link's name.
  if (name.startsWith('/') || name.split('/').some((part) => part === '' || part === '..'))
    throw new KernelError(op, EINVAL);
  try {
    return action(`/proc/sys/${name}`);
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).errno;
    if (typeof errno !== 'number' || cause instanceof KernelError) throw cause;
    throw new KernelError(op, Math.abs(errno), { cause });
  }
}
