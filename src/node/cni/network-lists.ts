/** What the network configurations of this machine say of the plugins that are called with ours. */
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { DEFAULT_CNI_CONF_DIR, PLUGIN_NAME } from './install.ts';

/** As libcni looks for them. */
const EXTENSIONS = new Set(['.conf', '.conflist', '.json']);
/** Ours, and those of the reference plugins that put nothing on what comes in by the host's end of an interface. */
const HARMLESS: ReadonlySet<unknown> = new Set([
  PLUGIN_NAME,
  ...['portmap', 'tuning', 'firewall', 'sbr'],
]);

/**
 * True if it is known that no other plugin wants the place where programs see what comes in by the host's end: there is one
 * for each link, and `bandwidth` fails where it is taken.
 * @param network the `name` that a runtime calls us with
 */
export function isIngressFree(network: string, confDir = DEFAULT_CNI_CONF_DIR): boolean {
  const lists = configurations(confDir).filter(({ name }) => name === network);
  return lists.length > 0 && lists.every(({ types }) => types.every((it) => HARMLESS.has(it)));
}

/** What cannot be read, a runtime does not use either. */
function configurations(confDir: string): { name: unknown; types: unknown[] }[] {
  let files: string[];
  try {
    files = readdirSync(confDir);
  } catch {
    return [];
  }
  return files
    .filter((file) => EXTENSIONS.has(extname(file)))
    .flatMap((file) => {
      try {
        const { name, type, plugins } = JSON.parse(readFileSync(join(confDir, file), 'utf8'));
        if (!Array.isArray(plugins)) return [{ name, types: [type] }];
        return [{ name, types: plugins.map((plugin) => plugin?.type) }];
      } catch {
        return [];
      }
    });
}
