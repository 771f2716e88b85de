/**
 * Asks an address plugin of the CNI specification (`host-local`, `static`, `dhcp`, …) that a configuration names
 * (https://www.cni.dev/docs/spec/#section-4-plugin-delegation).
 */
import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { explainError } from '#lib/errors.ts';
import { run } from '#proc/run.ts';
import type { CniConfig } from '#wire/cni/config.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import { type CniResult, decodeCniResult } from '#wire/cni/result.ts';
import { parseCniVersion } from '#wire/cni/version.ts';

/** How to ask it, so that it can be asked again after a restart. */
export interface IpamPlugin {
  readonly type: string;
  /** `CNI_PATH` */
  readonly path: string;
  /** The network's configuration. */
  readonly stdin: string;
  /** `CNI_ARGS` */
  readonly args: string;
}

export interface IpamTarget {
  readonly containerId: string;
  readonly ifName: string;
  readonly netns: string;
}

/** DHCP waits for its server; runtimes wait longer for a plugin than this. */
const PLUGIN_TIMEOUT_MS = 45_000;

/** Gets addresses. @throws CniError the plugin's own, or 7 if it cannot be found */
export async function addIpam(plugin: IpamPlugin, target: IpamTarget): Promise<CniResult> {
  const stdout = await call('ADD', plugin, target);
  return decodeCniResult(parseJson(plugin, stdout), configVersion(plugin));
}

/** Gives addresses back. What is gone already is no error to any known plugin. @throws CniError */
export async function deleteIpam(plugin: IpamPlugin, target: IpamTarget): Promise<void> {
  await call('DEL', plugin, target);
}

/** Whether the plugin still has what it gave. @param plugin with the `prevResult` in its configuration @throws CniError */
export async function checkIpam(plugin: IpamPlugin, target: IpamTarget): Promise<void> {
  await call('CHECK', plugin, target);
}

/** Hands on a call that is about the network and no container. @throws CniError */
export async function passToIpam(command: 'STATUS' | 'GC', plugin: IpamPlugin): Promise<void> {
  await call(command, plugin);
}

/** How a call asks the address plugin that its configuration names; undefined if that is us, or nobody. */
export function ipamOf(call: {
  readonly config: CniConfig;
  readonly path: string;
}): IpamPlugin | undefined {
  const { config, path } = call;
  const { ipamType, json } = config;
  if (ipamType === undefined) return undefined;
  return { type: ipamType, path, stdin: JSON.stringify(json), args: '' };
}

async function call(command: string, plugin: IpamPlugin, target?: IpamTarget): Promise<string> {
  const file = plugin.path
    .split(':')
    .filter(isAbsolute)
    .map((folder) => join(folder, plugin.type))
    .find((it) => existsSync(it));
  if (file === undefined)
    throw new CniError(CNI_ERROR.invalidConfig, `failed to find plugin "${plugin.type}" in path`, {
      details: `CNI_PATH is "${plugin.path}"`,
    });
  const env = {
    PATH: process.env.PATH ?? '',
    CNI_COMMAND: command,
    ...(target === undefined
      ? {}
      : {
          CNI_CONTAINERID: target.containerId,
          CNI_NETNS: target.netns,
          CNI_IFNAME: target.ifName,
        }),
    CNI_PATH: plugin.path,
    CNI_ARGS: plugin.args,
  };
  const { exitCode, stdout, stderr } = await run([file], {
    env,
    input: plugin.stdin,
    timeoutMs: PLUGIN_TIMEOUT_MS,
  }).catch((cause: unknown) => {
    throw new CniError(CNI_ERROR.tryAgainLater, `cannot run address plugin "${plugin.type}"`, {
      details: explainError(cause),
      cause,
    });
  });
  if (exitCode === 0) return stdout;
  throw pluginError(plugin, stdout, stderr);
}

/** What the plugin says is told to the runtime as it is. */
function pluginError(plugin: IpamPlugin, stdout: string, stderr: string): CniError {
  try {
    const { code, msg, details } = JSON.parse(stdout) as Record<string, unknown>;
    if (typeof code === 'number' && typeof msg === 'string')
      return new CniError(code, msg, typeof details === 'string' ? { details } : {});
  } catch (cause) {
    return new CniError(CNI_ERROR.internal, `address plugin "${plugin.type}" failed`, {
      details: stderr.trim() || stdout.trim(),
      cause,
    });
  }
  return new CniError(CNI_ERROR.internal, `address plugin "${plugin.type}" failed`, {
    details: stderr.trim() || stdout.trim(),
  });
}

function parseJson(plugin: IpamPlugin, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CniError(CNI_ERROR.decode, `address plugin "${plugin.type}" did not answer in JSON`, {
      details: explainError(cause),
      cause,
    });
  }
}

function configVersion(plugin: IpamPlugin) {
  const { cniVersion } = JSON.parse(plugin.stdin) as { cniVersion?: string };
  return parseCniVersion(cniVersion ?? '0.1.0');
}
