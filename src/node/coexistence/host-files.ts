/**
 * Tells programs that configure every link they see to leave ours alone: a file in the folder where each of them looks,
 * if that program is there at all. They read it when they start or are told to; until then, and where they do not listen,
 * the fabric repairs what they change.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { LINK_PREFIX, POD_LINK_PREFIX } from '#lib/kernel-objects.ts';

interface HostFile {
  readonly path: string;
  /** Is there if the program is. */
  readonly needs: string;
  readonly content: string;
}

const HEADER = "# Written by tulle; 'tulle uninstall' removes it.\n";
/** One sign for each hexadecimal digit, so that other links that begin like ours are not meant. */
const POD_LINKS = POD_LINK_PREFIX + '?'.repeat(11);

const FILES: readonly HostFile[] = [
  {
    path: '/etc/NetworkManager/conf.d/90-tulle.conf',
    needs: '/etc/NetworkManager',
    // The key "managed" of a [device] section does not count for links that others made, and not for those that are there.
    content: `${HEADER}[keyfile]
unmanaged-devices+=interface-name:${LINK_PREFIX}*;interface-name:${POD_LINKS}
`,
  },
  {
    // Before any file that matches all links; networkd takes the first that fits.
    path: '/etc/systemd/network/00-tulle.network',
    needs: '/etc/systemd/network',
    content: `${HEADER}[Match]
Name=${LINK_PREFIX}* ${POD_LINKS}

[Link]
Unmanaged=yes
`,
  },
];

/** What {@link installHostFiles} may have written. */
export const HOST_FILES: readonly string[] = FILES.map((file) => file.path);

/**
 * Writes what is missing or differs.
 * @param root prefix of all paths, for tests
 * @returns the paths that were written
 */
export function installHostFiles(root = '/'): readonly string[] {
  return FILES.filter(({ needs, path, content }) => {
    const file = join(root, path);
    if (!existsSync(join(root, needs))) return false;
    if (existsSync(file) && readFileSync(file, 'utf8') === content) return false;
    mkdirSync(dirname(file), { recursive: true });
    writeFileAtomic(file, content, { mode: 0o644 });
    return true;
  }).map(({ path }) => path);
}
