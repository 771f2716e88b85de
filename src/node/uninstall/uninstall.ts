/**
 * Takes Tulle off a node: exactly what carries our name or number, and the settings back to what they were.
 * The kernel first, so that no runtime finds a plugin without an agent; files last, so that a run that was cut short can
 * be repeated.
 */

import { existsSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { UserError } from '#lib/errors.ts';
import {
  LINK_PREFIX,
  NFT_TABLE,
  POD_LINK_PREFIX,
  POD_SHAPER_PREFIX,
  ROUTE_PROTOCOL,
  RULE_PRIORITY,
} from '#lib/kernel-objects.ts';
import type { Link, NetworkStack } from '#linux/network/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { Operation } from '#wire/nftables/objects.ts';
import { readBridgeRecord } from '../bridge-record.ts';
import { count } from '../health.ts';
import { readSysctlRecord } from '../sysctl-record.ts';

export interface UninstallOptions {
  readonly stack: NetworkStack;
  readonly nftables: Nftables;
  readonly cniSocket: string;
  /** Written by `recordSysctls()`. */
  readonly sysctlFile: string;
  /** Written by `recordBridges()`. */
  readonly bridgeFile: string;
  /** Files and folders that are ours as a whole. */
  readonly paths: readonly string[];
  /** Takes what is ours out of other programs' tables, and says what. */
  readonly removeFromOthers?: (nftables: Nftables) => readonly string[];
  /** Also when containers are attached: they lose their network. */
  readonly force: boolean;
  /** Puts the machine's own resolver back. @returns what was removed, a line each */
  readonly restoreResolver?: () => Promise<string[]>;
}

/**
 * @returns what was removed, a line each; empty if there was nothing
 * @throws UserError if an agent is running, or containers are attached and `force` is not set
 */
export async function uninstall(options: UninstallOptions): Promise<string[]> {
  const { stack, nftables } = options;
  if (await isListening(options.cniSocket))
    throw new UserError('An agent is running on this machine', {
      hint: 'Stop it first: it would put everything back at once.',
    });
  const links = stack.links.list().filter(isOurs);
  const pods = links.filter(
    (link) => link.name.startsWith(POD_LINK_PREFIX) && link.kind === 'veth',
  );
  if (pods.length > 0 && !options.force)
    throw new UserError(
      `${count(pods.length, 'container')} of this machine would lose ${pods.length === 1 ? 'its' : 'their'} network`,
      {
        hint: 'Remove what runs on the network first, or give --force.',
      },
    );
  return [
    ...(options.removeFromOthers?.(nftables) ?? []),
    ...removeTables(nftables),
    ...links.map((link) => {
      stack.links.delete(link.index);
      return `link ${link.name}`;
    }),
    ...removeBridges(options),
    ...removeRoutes(stack),
    ...removeAddressesAndRules(stack),
    ...restoreSysctls(options),
    ...((await options.restoreResolver?.()) ?? []),
    ...options.paths.filter(existsSync).map((path) => {
      rmSync(path, { recursive: true });
      return path;
    }),
  ];
}

function isOurs(link: Link): boolean {
  return (
    link.name.startsWith(LINK_PREFIX) ||
    new RegExp(`^(${POD_LINK_PREFIX}[0-9a-f]{11}|${POD_SHAPER_PREFIX}[0-9a-f]{10})$`).test(
      link.name,
    )
  );
}

/** Those that the agent made, unless somebody else uses them by now. After the pods' links, which are their ports. */
function removeBridges({ stack, bridgeFile }: UninstallOptions): string[] {
  const links = stack.links.list();
  return readBridgeRecord(bridgeFile).flatMap((name) => {
    const bridge = links.find((link) => link.name === name && link.kind === 'bridge');
    if (bridge === undefined || links.some(({ master }) => master === bridge.index)) return [];
    stack.links.delete(bridge.index);
    return [`link ${name}`];
  });
}

function removeTables(nftables: Nftables): string[] {
  const ours = nftables.listTables().filter(({ table }) => table === NFT_TABLE);
  if (ours.length === 0) return [];
  nftables.commit(ours.map((ref): Operation => ({ verb: 'delete', kind: 'table', ref })));
  return ours.map(({ family, table }) => `nftables table ${family} ${table}`);
}

function removeRoutes(stack: NetworkStack): string[] {
  const routes = stack.routes.list({ protocol: ROUTE_PROTOCOL });
  stack.routes.delete(routes);
  return routes.map((route) => `route ${route.destination}`);
}

function removeAddressesAndRules(stack: NetworkStack): string[] {
  const addresses = stack.addresses.list().filter((a) => a.protocol === ROUTE_PROTOCOL);
  for (const address of addresses) stack.addresses.delete(address);
  const rules = ([4, 6] as const)
    .flatMap((family) => stack.rules.list(family))
    .filter((rule) => rule.priority === RULE_PRIORITY);
  for (const rule of rules) stack.rules.delete(rule);
  return [
    ...addresses.map(({ address }) => `address ${address}`),
    ...rules.map(({ family, priority }) => `IPv${family} rule ${priority}`),
  ];
}

function restoreSysctls({ stack, sysctlFile }: UninstallOptions): string[] {
  return Object.entries(readSysctlRecord(sysctlFile)).flatMap(([name, old]) => {
    const now = stack.sysctl.get(name);
    // A link that is gone took its settings along.
    if (now === undefined || now === old) return [];
    stack.sysctl.set(name, old);
    return [`sysctl ${name} back to ${old}`];
  });
}

function isListening(path: string): Promise<boolean> {
  if (!existsSync(path)) return Promise.resolve(false);
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    // A file that nobody listens on any more.
    socket.once('error', () => resolve(false));
  });
}
