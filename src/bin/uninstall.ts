/** Composition of `tulle uninstall`. */
import { dirname } from 'node:path';
import type { UninstallFlags } from '#cli/program.ts';
import { UserError } from '#lib/errors.ts';
import { DNS_LINK_LOCAL_V4 } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { conflistPath, shimPath } from '#node/cni/install.ts';
import { DEFAULT_CNI_SOCKET } from '#node/cni/server.ts';
import { removeFromOthers } from '#node/coexistence/coexistence.ts';
import { HOST_FILES } from '#node/coexistence/host-files.ts';
import { releaseHostResolver } from '#node/dns/host-resolver.ts';
import { uninstall } from '#node/uninstall/uninstall.ts';
import { bridgeFile, hostResolver, sysctlFile } from './agent.ts';

const SERVER_DIRECTORY = '/var/lib/tulle/server';

export async function runUninstall(
  flags: UninstallFlags,
  print: (line: string) => void,
): Promise<void> {
  if (process.getuid?.() !== 0)
    throw new UserError('Uninstalling changes the kernel, which needs root', {
      hint: 'Run it with sudo.',
    });
  const dataDirectory = flags.dataDir ?? '/var/lib/tulle/agent';
  using stack = openNetworkStack();
  using nftables = openNftables();
  const removed = await uninstall({
    stack,
    nftables,
    removeFromOthers,
    cniSocket: DEFAULT_CNI_SOCKET,
    sysctlFile: sysctlFile(dataDirectory),
    bridgeFile: bridgeFile(dataDirectory),
    force: flags.force,
    restoreResolver: () => releaseHostResolver(hostResolver(dataDirectory), DNS_LINK_LOCAL_V4),
    paths: [
      conflistPath(flags.cniConfDir),
      shimPath(flags.cniBinDir),
      dirname(DEFAULT_CNI_SOCKET),
      dataDirectory,
      ...HOST_FILES,
      ...(flags.serverData ? [SERVER_DIRECTORY] : []),
    ],
  });
  for (const line of removed) print(`removed ${line}`);
  if (removed.length === 0) print('there is nothing of Tulle on this machine');
}
