/** Puts the plugin file and the network configuration where container runtimes look for them. */
import { mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { explainError, UserError } from '#lib/errors.ts';
import { CNI_VERSIONS, type CniVersion } from '#wire/cni/version.ts';
import { DEFAULT_CNI_SOCKET } from './server.ts';

export const DEFAULT_CNI_BIN_DIR = '/opt/cni/bin';
export const DEFAULT_CNI_CONF_DIR = '/etc/cni/net.d';
/** Also the plugin's `type` and the network's name. */
export const PLUGIN_NAME = 'tulle';
const CONFLIST_FILE = '10-tulle.conflist';
/** How long a call waits for an agent that is being restarted. */
const DEFAULT_SHIM_WAIT_SECONDS = 10;

/** What a runtime may give for a container. */
const CAPABILITIES = {
  ips: true,
  ipRanges: true,
  mac: true,
  portMappings: true,
  bandwidth: true,
  dns: true,
  aliases: true,
} as const;

export interface InstallOptions {
  readonly binDir?: string;
  readonly confDir?: string;
  readonly socketPath?: string;
  readonly shimWaitSeconds?: number;
  /** Default 1.0.0, the newest that the libcni of podman 4 and of containerd 1.6 know. */
  readonly cniVersion?: CniVersion;
  readonly networkName?: string;
}

/**
 * Installs both files, each atomically and only if it differs. The configuration goes last: a runtime that sees it
 * can call the plugin.
 * @returns the paths that were written
 * @throws UserError if a path cannot be written
 */
export function installCniPlugin(options: InstallOptions = {}): string[] {
  return [
    ...writeIfDifferent(shimPath(options.binDir), shimText(options), 0o755),
    ...writeIfDifferent(conflistPath(options.confDir), conflistText(options), 0o644),
  ];
}

/** Where the plugin file is. */
export function shimPath(binDir = DEFAULT_CNI_BIN_DIR): string {
  return join(binDir, PLUGIN_NAME);
}
/** Where the network configuration is. */
export function conflistPath(confDir = DEFAULT_CNI_CONF_DIR): string {
  return join(confDir, CONFLIST_FILE);
}

/** Removes what {@link installCniPlugin} made, the configuration first. What is gone already is no error. */
export function uninstallCniPlugin(options: Pick<InstallOptions, 'binDir' | 'confDir'> = {}): void {
  rmSync(conflistPath(options.confDir), { force: true });
  rmSync(shimPath(options.binDir), { force: true });
}

/** The network configuration list. */
export function conflistText(options: InstallOptions = {}): string {
  const conflist = {
    cniVersion: options.cniVersion ?? '1.0.0',
    name: options.networkName ?? PLUGIN_NAME,
    plugins: [{ type: PLUGIN_NAME, capabilities: CAPABILITIES }],
  };
  return `${JSON.stringify(conflist, undefined, 2)}\n`;
}

/** The plugin file with its settings filled in. */
export function shimText(options: InstallOptions = {}): string {
  const socketPath = options.socketPath ?? DEFAULT_CNI_SOCKET;
  // It stands in a quoted string of the script, and sun_path has 108 bytes with the terminating zero.
  if (!/^\/[\w./-]{1,106}$/.test(socketPath))
    throw new UserError(`Cannot use the CNI socket path "${socketPath}"`, {
      hint: 'Use an absolute path of at most 107 letters, digits and the characters . _ - /',
    });
  const values: Readonly<Record<string, string>> = {
    SOCKET_PATH: socketPath,
    VERSIONS: JSON.stringify(CNI_VERSIONS),
    WAIT_SECONDS: String(options.shimWaitSeconds ?? DEFAULT_SHIM_WAIT_SECONDS),
  };
  const template = readFileSync(join(import.meta.dirname, 'shim.pl'), 'utf8');
  return template.replace(/@([A-Z_]+)@/g, (whole, name: string) => values[name] ?? whole);
}

function writeIfDifferent(path: string, content: string, mode: number): string[] {
  try {
    if (isSame(path, content, mode)) return [];
    mkdirSync(dirname(path), { recursive: true });
    writeFileAtomic(path, content, { mode });
    return [path];
  } catch (cause) {
    throw new UserError(`Cannot install "${path}": ${explainError(cause)}`, {
      hint: 'Run as root, or choose another folder.',
      cause,
    });
  }
}

function isSame(path: string, content: string, mode: number): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined || (stat.mode & 0o777) !== mode) return false;
  return readFileSync(path, 'utf8') === content;
}
