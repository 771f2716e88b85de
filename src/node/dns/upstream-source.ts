/** Which name servers are asked for names that no rule is for. */
import type { Ip } from '#lib/ip.ts';
import { hostUpstreams } from './resolv-conf.ts';
import type { Upstream } from './upstream.ts';

/** How long the host's resolv.conf is believed before it is read again. */
const HOST_UPSTREAMS_MS = 5000;

export interface UpstreamSourceOptions {
  /** What we answer on ourselves; never asked. */
  readonly own: readonly { readonly address: Ip; readonly port: number }[];
  /** Told when the host's resolv.conf cannot be read; what it said before holds. */
  readonly onFailure: (error: unknown) => void;
  /** Reads the host's name servers: for tests. */
  readonly readHost?: () => readonly Upstream[];
  readonly nowMs?: () => number;
}

/**
 * @returns a function that gives the fixed upstreams, or without any (`undefined`) the host's, which are followed as they
 *   change
 */
export function upstreamSource(
  options: UpstreamSourceOptions,
): (fixed: readonly Upstream[] | undefined) => readonly Upstream[] {
  const { own, onFailure, nowMs = () => performance.now() } = options;
  const readHost =
    options.readHost ?? (() => hostUpstreams({ own: own.map(({ address }) => address) }));
  const isOwn = (upstream: Upstream) =>
    own.some(({ address, port }) => upstream.address === address && upstream.port === port);
  let known: readonly Upstream[] = [];
  let readAtMs = Number.NEGATIVE_INFINITY;
  return (fixed) => {
    if (fixed !== undefined) return fixed.filter((upstream) => !isOwn(upstream));
    const now = nowMs();
    if (now - readAtMs < HOST_UPSTREAMS_MS) return known;
    readAtMs = now;
    try {
      known = readHost();
    } catch (error) {
      onFailure(error);
    }
    return known;
  };
}
