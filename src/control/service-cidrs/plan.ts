/** Pure: which ranges of cluster IPs are good, and which of those that are to go nobody uses any more. */
import type { Service } from '#api/core/v1/service.ts';
import type { Condition } from '#api/meta.ts';
import { SERVICE_CIDR_FINALIZER, type ServiceCIDR } from '#api/networking/v1/service-cidr.ts';
import { cidrContains, parseCidr, parseIp } from '#lib/ip.ts';

export interface ServiceCidrChange {
  readonly cidr: ServiceCIDR;
  /** Its condition `Ready` as it should be, if that is not what it is. */
  readonly condition: Omit<Condition, 'lastTransitionTime'> | undefined;
  /** It is to go, and no service has an address of it. */
  readonly isFree: boolean;
}

const READY: Omit<Condition, 'lastTransitionTime'> = {
  type: 'Ready',
  status: 'True',
  reason: 'Ready',
  message: 'services get addresses of this range',
};

/** @returns those that need something written */
export function planServiceCidrs(
  cidrs: Iterable<ServiceCIDR>,
  services: Iterable<Service>,
): ServiceCidrChange[] {
  const all = [...cidrs];
  const prefixesOf = ({ spec }: ServiceCIDR) => (spec.cidrs ?? []).map(parseCidr);
  const kept = all.filter((it) => !isGoing(it)).flatMap(prefixesOf);
  // Most of the time nothing is to go, and nobody has to be asked.
  const addresses = all.some(isGoing)
    ? [...services].flatMap(({ spec }) => (spec.clusterIPs ?? []).map(parseIp))
    : [];
  const uses = (prefixes: ReturnType<typeof prefixesOf>) =>
    addresses.filter(
      (address) =>
        address !== undefined &&
        prefixes.some((prefix) => prefix !== undefined && cidrContains(prefix, address)) &&
        !kept.some((prefix) => prefix !== undefined && cidrContains(prefix, address)),
    ).length;
  return all.flatMap((cidr) => {
    const used = isGoing(cidr) ? uses(prefixesOf(cidr)) : 0;
    const isFree =
      isGoing(cidr) &&
      used === 0 &&
      (cidr.metadata.finalizers ?? []).includes(SERVICE_CIDR_FINALIZER);
    const condition = isGoing(cidr)
      ? {
          ...{ type: 'Ready', status: 'False' as const, reason: 'Terminating' },
          message: 'it gives out nothing more, and goes when no service has an address of it',
        }
      : READY;
    const old = cidr.status?.conditions?.find(({ type }) => type === condition.type);
    const isSame = old?.status === condition.status && old.message === condition.message;
    if (isSame && !isFree) return [];
    return [{ cidr, isFree, condition: isSame ? undefined : condition }];
  });
}

function isGoing({ metadata }: ServiceCIDR): boolean {
  return metadata.deletionTimestamp !== undefined;
}
