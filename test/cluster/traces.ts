/** What labs could leave behind on this computer: looked at before and after. Other labs may come and go meanwhile. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { LINK_PREFIX, NFT_TABLE, ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';

export interface Traces {
  /** Links, routes and tables outside of any lab, by names that labs and what runs in them give. */
  readonly links: readonly string[];
  readonly routes: readonly string[];
  readonly tables: readonly string[];
  readonly mounts: readonly string[];
  /** Command lines that speak of one of the labs. */
  readonly processes: readonly string[];
  readonly labs: readonly string[];
}

const LABS_DIRECTORY = '/run/tulle-lab';
/** The links of a lab's router, ours, and those of pods. */
const LINK_NAMES = new RegExp(`^(br0|outside|to-.*|${LINK_PREFIX}.*|tli?[0-9a-f]+)$`);
const TABLE_NAMES: readonly string[] = [NFT_TABLE, 'lab-cuts'];
/** Files of Tulle that a machine has of its own. */
const MACHINE_FILES = /\/(run|var\/lib)\/tulle[ /]/;

/** @param labs their names */
export function traces(...labs: readonly string[]): Traces {
  using stack = openNetworkStack();
  using nftables = openNftables();
  const speaksOfLab = (text: string) =>
    labs.some((name) => text.includes(`${LABS_DIRECTORY}/${name}/`));
  return {
    links: stack.links
      .list()
      .filter(({ name }) => LINK_NAMES.test(name))
      .map(({ index, name }) => `${index} ${name}`),
    routes: stack.routes
      .list()
      .filter(({ protocol }) => protocol === ROUTE_PROTOCOL)
      .map((route) => `${route.destination} ${route.table} ${route.link}`),
    tables: nftables
      .listTables()
      .filter(({ table }) => TABLE_NAMES.includes(table))
      .map(({ family, table }) => `${family} ${table}`),
    mounts: readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => speaksOfLab(line) || MACHINE_FILES.test(line)),
    processes: readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(commandLine)
      .filter(speaksOfLab),
    labs: labs.filter((name) => existsSync(`${LABS_DIRECTORY}/${name}`)),
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
