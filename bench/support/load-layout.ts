/** Loads services in kube-proxy's layouts, by the programs that kube-proxy starts: the stand-in for it. */
import { spawnSync } from 'node:child_process';
import { iptablesText, type LayoutService, nftablesTexts } from '../kube-proxy-layout.ts';

export type Layout = 'nftables' | 'iptables';
export const LAYOUTS: readonly Layout[] = ['nftables', 'iptables'];
/** A load that takes longer is ended. */
const MAX_LOAD_MS = 240_000;

/** What a figure of it is called. */
export function layoutName(layout: Layout): string {
  if (layout === 'nftables') return "nft -f in kube-proxy's nftables layout (stand-in)";
  const { stdout } = spawnSync('iptables-restore', ['--version'], { encoding: 'utf8' });
  return `${stdout?.trim()} in kube-proxy's iptables layout (stand-in)`;
}

/**
 * @param netns name of the network namespace
 * @returns how long it took, in milliseconds; undefined if the program is not there, or was ended for taking too long,
 *   which is said on standard error
 */
export function loadLayout(
  netns: string,
  layout: Layout,
  services: readonly LayoutService[],
): number | undefined {
  const isNft = layout === 'nftables';
  const program = isNft ? ['nft', '-f', '-'] : ['iptables-restore', '--noflush'];
  const texts = isNft ? nftablesTexts(services) : [iptablesText(services)];
  const begin = performance.now();
  for (const input of texts) {
    const timeout = MAX_LOAD_MS - Math.floor(performance.now() - begin);
    const argv = ['netns', 'exec', netns, ...program];
    const { status, stderr } =
      timeout > 0
        ? spawnSync('ip', argv, { input, timeout, killSignal: 'SIGKILL', encoding: 'utf8' })
        : { status: null, stderr: '' };
    if (status === 0) continue;
    const why = stderr || `it takes more than ${MAX_LOAD_MS} ms`;
    console.error(`no figures of ${services.length} services by ${program.join(' ')}: ${why}`);
    return undefined;
  }
  return performance.now() - begin;
}
