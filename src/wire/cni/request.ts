/**
 * A CNI call: the environment and the standard input of a plugin's process
 * (https://www.cni.dev/docs/spec/#section-2-execution-protocol).
 */
import { CNI_NAME, type CniConfig, parseCniConfig } from './config.ts';
import { CNI_ERROR, CniError } from './error.ts';
import { CNI_COMMANDS, requireCommandAllowed } from './version.ts';

/** Which interface of which container. */
export interface CniTarget {
  readonly containerId: string;
  readonly ifName: string;
  /** `CNI_PATH`: folders of plugins, separated by colons. */
  readonly path: string;
}

export type CniRequest =
  | (CniTarget & {
      readonly command: 'ADD' | 'CHECK';
      readonly netns: string;
      readonly args: ReadonlyMap<string, string>;
      readonly config: CniConfig;
      /** `CNI_NETNS_OVERRIDE`: the plugin may run inside the container's own namespace. */
      readonly netnsOverride: boolean;
    })
  | (CniTarget & {
      readonly command: 'DEL';
      /** The namespace may be gone already. */
      readonly netns: string | undefined;
      readonly args: ReadonlyMap<string, string>;
      readonly config: CniConfig;
    })
  | {
      readonly command: 'STATUS' | 'GC';
      readonly config: CniConfig;
      /** `CNI_PATH` */
      readonly path: string;
    }
  | { readonly command: 'VERSION' };

export type CniEnvironment = Readonly<Record<string, string | undefined>>;

/** IFNAMSIZ with its terminating zero, `include/uapi/linux/if.h`. */
const MAX_IF_NAME = 15;

const REQUIRED: Readonly<Record<string, readonly string[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME', 'CNI_PATH'],
  STATUS: ['CNI_PATH'],
  GC: ['CNI_PATH'],
  VERSION: [],
};

/**
 * Reads and checks a call, in the order of the reference library: command, environment, configuration, version.
 * @throws CniError with the code that the specification gives for the mistake
 */
export function parseCniRequest(env: CniEnvironment, stdin: string): CniRequest {
  const command = CNI_COMMANDS.find((known) => known === env.CNI_COMMAND);
  if (command === undefined) throw badEnvironment(`unknown CNI_COMMAND: ${env.CNI_COMMAND ?? ''}`);
  if (command === 'VERSION') return { command };

  const missing = (REQUIRED[command] ?? []).filter((name) => (env[name] ?? '') === '');
  if (missing.length > 0)
    throw badEnvironment(`required env variables [${missing.join(',')}] missing`);

  const config = parseCniConfig(stdin);
  requireCommandAllowed(command, config.cniVersion);
  if (command === 'STATUS' || command === 'GC')
    return { command, config, path: env.CNI_PATH ?? '' };

  const target = parseTarget(env);
  const args = parseCniArgs(env.CNI_ARGS ?? '');
  const netns = env.CNI_NETNS ?? '';
  if (command === 'DEL')
    return { command, ...target, netns: netns === '' ? undefined : netns, args, config };
  if (command === 'CHECK' && config.prevResult === undefined)
    throw new CniError(CNI_ERROR.invalidConfig, 'CHECK needs "prevResult" in the configuration');
  return { command, ...target, netns, args, config, netnsOverride: isTrue(env.CNI_NETNS_OVERRIDE) };
}

/**
 * Reads `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
 * @returns an empty map for an empty text; the last value of a repeated key
 * @throws CniError 4 for a part without `=`
 */
export function parseCniArgs(text: string): ReadonlyMap<string, string> {
  const args = new Map<string, string>();
  for (const pair of text.split(';')) {
    if (pair === '') continue;
    const at = pair.indexOf('=');
    if (at <= 0) throw badEnvironment('invalid CNI_ARGS', `"${pair}" is not of the form KEY=VALUE`);
    args.set(pair.slice(0, at), pair.slice(at + 1));
  }
  return args;
}

function parseTarget(env: CniEnvironment): CniTarget {
  const containerId = env.CNI_CONTAINERID ?? '';
  if (!CNI_NAME.test(containerId))
    throw badEnvironment('invalid characters in containerID', `found "${containerId}"`);
  const ifName = env.CNI_IFNAME ?? '';
  const fault = faultOfIfName(ifName);
  if (fault !== undefined) throw badEnvironment(fault, `found "${ifName}"`);
  return { containerId, ifName, path: env.CNI_PATH ?? '' };
}

function faultOfIfName(name: string): string | undefined {
  if (name.length > MAX_IF_NAME) return `interface name is longer than ${MAX_IF_NAME} characters`;
  if (name === '.' || name === '..') return 'interface name is . or ..';
  if (/[/:\s]/.test(name)) return 'interface name contains / or : or whitespace characters';
  return undefined;
}

function isTrue(text: string | undefined): boolean {
  return text !== undefined && /^(1|t|true|yes|on)$/i.test(text);
}

function badEnvironment(message: string, details?: string): CniError {
  return new CniError(CNI_ERROR.invalidEnvironment, message, { details });
}
