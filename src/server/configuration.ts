/** What an operator chooses once for a cluster and the API server needs to know. */
import { UserError } from '#lib/errors.ts';
import { type Cidr, cidrContains, cidrsOverlap, familyOf, type Ip } from '#lib/ip.ts';
import type { PortRange } from './admission/node-ports.ts';

/** A pool of pod addresses that is made at the first start. */
export interface PoolConfiguration {
  readonly name: string;
  readonly cidr: Cidr;
  /** Prefix length of the blocks that nodes claim; the kind's default if missing. */
  readonly blockSize?: number;
}

export interface ClusterConfiguration {
  /** One per family, the first is the primary family. Services get their addresses from here. */
  readonly serviceCidrs: readonly Cidr[];
  /** The addresses of the `kube-dns` service, one per family, each inside a service CIDR. */
  readonly dnsServiceIps: readonly Ip[];
  /** Ports that services get on every node; missing: 30000 to 32767. */
  readonly nodePortRange?: PortRange;
  readonly pools: readonly PoolConfiguration[];
  /** `cluster.local` as a rule. */
  readonly clusterDomain: string;
}

/**
 * Checks that the parts of a configuration fit together.
 * @throws UserError naming the first two parts that do not
 */
export function checkConfiguration(configuration: ClusterConfiguration): void {
  const { serviceCidrs, dnsServiceIps, pools } = configuration;
  if (serviceCidrs.length === 0)
    throw new UserError('The cluster has no service range', {
      hint: 'Configure one, for example 10.96.0.0/16.',
    });
  if (new Set(serviceCidrs.map(familyOf)).size !== serviceCidrs.length)
    throw new UserError(
      `There are two service ranges of one address family: ${serviceCidrs.join(', ')}`,
      { hint: 'Give at most one for IPv4 and one for IPv6.' },
    );
  for (const ip of dnsServiceIps)
    if (!serviceCidrs.some((range) => cidrContains(range, ip)))
      throw new UserError(
        `The DNS address ${ip} is not in the service range ${serviceCidrs.join(', ')}`,
        { hint: 'Choose one inside it, for example its tenth address.' },
      );
  const ranges = [
    ...serviceCidrs.map((cidr) => ({ name: 'the service range', cidr })),
    ...pools.map(({ name, cidr }) => ({ name: `pool "${name}"`, cidr })),
  ];
  for (const [i, a] of ranges.entries())
    for (const b of ranges.slice(i + 1))
      if (cidrsOverlap(a.cidr, b.cidr))
        throw new UserError(`${b.name} (${b.cidr}) overlaps ${a.name} (${a.cidr})`, {
          hint: 'Choose ranges that have no address in common.',
        });
}
