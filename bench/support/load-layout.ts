/** Loads services in kube-proxy's layouts, by the programs that kube-proxy starts: the stand-in for it. */
import { spawnSync } from 'node:child_process';
import { iptablesText, type LayoutService, nftablesTexts } from '../kube-proxy-layout.ts';

export type Layout = 'nftables' | 'iptables';
/** TULLE_BENCH_PEERS names fewer. */
export const LAYOUTS = (['nftables', 'iptables'] as const).filter((layout) =>
  (process.env.TULLE_BENCH_PEERS ?? layout).split(',').includes(layout),
);
/**
 * Of iptables the one with a table of its own in the kernel, if that has it: the other one (`iptables-nft`, Debian's
 * default) takes 20 times as long for 4 times the services.
 */
const PROGRAMS: Readonly<Record<Layout, readonly (readonly string[])[]>> = {
  nftables: [['nft', '-f', '-']],
  iptables: [
    ['iptables-legacy-restore', '--noflush'],
    ['iptables-nft-restore', '--noflush'],
  ],
};
/** A load that takes longer is ended. */
const MAX_LOAD_MS = 240_000;

export interface LoadedLayout {
  /** What a figure of it is called. */
  readonly name: string;
  readonly ms: number;
}

/**
 * @param netns name of the network namespace
 * @returns undefined if there is no such program, or it was ended for taking too long, which is said on standard error
 */
export function loadLayout(
  netns: string,
  layout: Layout,
  services: readonly LayoutService[],
): LoadedLayout | undefined {
  const texts = layout === 'nftables' ? nftablesTexts(services) : [iptablesText(services)];
  for (const program of PROGRAMS[layout]) {
    const begin = performance.now();
    const failure = loadBy(['netns', 'exec', netns, ...program], texts);
    const name = `${program[0]} in kube-proxy's ${layout} layout (stand-in)`;
    if (failure === undefined) return { name, ms: performance.now() - begin };
    console.error(`no figures of ${services.length} services by ${name}: ${failure}`);
  }
  return undefined;
}

/** @returns why it failed, if it did */
function loadBy(argv: readonly string[], texts: readonly string[]): string | undefined {
  const begin = performance.now();
  for (const input of texts) {
    const timeout = MAX_LOAD_MS - Math.floor(performance.now() - begin);
    if (timeout <= 0) return `it takes more than ${MAX_LOAD_MS} ms`;
    const options = { input, timeout, killSignal: 'SIGKILL', encoding: 'utf8' } as const;
    const { status, stderr } = spawnSync('ip', argv, options);
    if (status !== 0) return stderr.trim() || `it takes more than ${MAX_LOAD_MS} ms`;
  }
  return undefined;
}
