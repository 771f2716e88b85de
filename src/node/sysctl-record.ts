/**
 * Remembers what the node's settings were before the agent changed them, so that `tulle uninstall` can put them back.
 * Settings of our own links go with the links and are not remembered.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { LINK_PREFIX, POD_LINK_PREFIX } from '#lib/kernel-objects.ts';
import type { NetworkStack } from '#linux/network/port.ts';

/** Values by sysctl name, as they were when Tulle first came. */
export type SysctlRecord = Readonly<Record<string, string>>;

/** The stack, with a `sysctl.set` that writes the old value to `file` before the first change of a setting. */
export function recordSysctls(stack: NetworkStack, file: string): NetworkStack {
  const record = new Map(Object.entries(readSysctlRecord(file)));
  const { sysctl } = stack;
  return {
    ...stack,
    sysctl: {
      get: (name) => sysctl.get(name),
      set(name, value) {
        const old = isOwnLinks(name) || record.has(name) ? undefined : sysctl.get(name);
        if (old !== undefined && old !== value) {
          record.set(name, old);
          mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
          writeFileAtomic(file, JSON.stringify(Object.fromEntries(record), null, 2), {
            mode: 0o600,
          });
        }
        sysctl.set(name, value);
      },
    },
    [Symbol.dispose]: () => stack[Symbol.dispose](),
  };
}

/** @returns an empty record if there is none */
export function readSysctlRecord(file: string): SysctlRecord {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as SysctlRecord) : {};
}

function isOwnLinks(name: string): boolean {
  const [, , , link = ''] = name.split('/');
  return link.startsWith(LINK_PREFIX) || new RegExp(`^${POD_LINK_PREFIX}[0-9a-f]{11}$`).test(link);
}
