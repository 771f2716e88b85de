/**
 * Remembers which bridges the agent has made. They have the name that a network configuration gives, not ours, and stay when
 * their last container goes; `tulle uninstall` must know that they were not there before.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import type { NetworkStack } from '#linux/network/port.ts';

/** The stack, with a `links.create` that writes the name of a bridge to `file` before it makes it. */
export function recordBridges(stack: NetworkStack, file: string): NetworkStack {
  const { links } = stack;
  const create: typeof links.create = (link) => {
    if (link.kind === 'bridge' && links.get(link.name) === undefined) {
      const names = readBridgeRecord(file);
      if (!names.includes(link.name)) {
        mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
        writeFileAtomic(file, JSON.stringify([...names, link.name]), { mode: 0o600 });
      }
    }
    return links.create(link);
  };
  return {
    ...stack,
    links: { ...links, create },
    [Symbol.dispose]: () => stack[Symbol.dispose](),
  };
}

/** @returns an empty record if there is none */
export function readBridgeRecord(file: string): readonly string[] {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as string[]) : [];
}
