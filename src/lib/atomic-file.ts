/** Files that are there whole or not at all, also after a crash or a power cut. */
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';

/**
 * Writes or replaces a file: whoever opens it sees the old content or the new, and the new is on disk on return.
 * @param mode permissions, whatever the umask and the old file's were
 * @throws the system's error; the old file is then untouched
 */
export function writeFileAtomic(
  path: string,
  content: string | Uint8Array,
  options: { readonly mode: number },
): void {
  const temporary = `${path}.new-${process.pid}`;
  try {
    const file = openSync(temporary, 'w', options.mode);
    try {
      fchmodSync(file, options.mode);
      writeFileSync(file, content);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncDirectory(dirname(path));
}

/** Makes it durable which files a directory holds. */
export function syncDirectory(directory: string): void {
  const handle = openSync(directory, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
