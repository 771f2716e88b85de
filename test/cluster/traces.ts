/** What a lab could leave behind on this computer: looked at before and after. */
import { readdirSync, readFileSync } from 'node:fs';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';

export interface Traces {
  readonly links: readonly string[];
  readonly routes: readonly string[];
  readonly tables: readonly string[];
  readonly mounts: readonly string[];
  /** Command lines that speak of a lab. */
  readonly processes: readonly string[];
  readonly labs: readonly string[];
}

export function traces(): Traces {
  using stack = openNetworkStack();
  using nftables = openNftables();
  return {
    links: stack.links.list().map((link) => `${link.index} ${link.name}`),
    routes: stack.routes.list().map((route) => `${route.destination} ${route.table} ${route.link}`),
    tables: nftables.listTables().map(({ family, table }) => `${family} ${table}`),
    mounts: readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes('tulle')),
    processes: readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(commandLine)
      .filter((line) => line.includes('/run/tulle-lab/')),
    labs: entries('/run/tulle-lab'),
  };
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch (error) {
    // It ended between the listing and the look.
    if (['ENOENT', 'ESRCH'].includes(String((error as NodeJS.ErrnoException).code))) return '';
    throw error;
  }
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
