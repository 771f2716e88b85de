/** Ranges of cluster IPs: those of the configuration, which are always there, and those of ServiceCIDR objects. */
import { forbidden } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import {
  SERVICE_CIDR,
  SERVICE_CIDR_FINALIZER,
  type ServiceCIDR,
} from '#api/networking/v1/service-cidr.ts';
import { IP_POOL, type IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import {
  rangesOfPool,
  SERVICE_ADDRESS_POOL,
  type ServiceAddressPool,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import { type Cidr, cidrContains, cidrsOverlap, type Ip, parseCidr } from '#lib/ip.ts';
import { rangeOf, rangesOverlap } from '#lib/ip-range.ts';
import type { StoreEntry, StoreReader } from '#store/port.ts';
import { qualifiedResource } from '../errors.ts';
import { decodeEntry } from '../registry/codec.ts';
import {
  CLUSTER_IP_PREFIX,
  collectionPrefix,
  POOL_SET_GUARD,
  serviceCidrGuard,
} from '../registry/keys.ts';
import type { AdmissionEffects, AdmissionPlugin, AdmissionReview } from './admission.ts';

const NOTHING = new Uint8Array();
/** The object that tells agents and people the configured ranges; upstream has it by the same name. */
export const CONFIGURED_SERVICE_CIDR = 'kubernetes';

export interface ServiceRange {
  readonly cidr: Cidr;
  /** The object it comes from; `undefined` for the configuration. */
  readonly source: { readonly name: string; readonly entry: StoreEntry } | undefined;
  /** Services may keep addresses of it, and get no more. */
  readonly isGoing: boolean;
}

/** The ranges in the order in which they are used: the configured ones first. */
export async function serviceRanges(
  store: StoreReader,
  configured: readonly Cidr[],
): Promise<ServiceRange[]> {
  const ranges: ServiceRange[] = configured.map((cidr) => ({
    ...{ cidr, source: undefined, isGoing: false },
  }));
  for (const entry of (await store.list(collectionPrefix(SERVICE_CIDR))).entries) {
    const object = decodeEntry(entry) as ServiceCIDR;
    const { metadata, spec } = object;
    for (const text of spec.cidrs ?? []) {
      const cidr = parseCidr(text);
      // The object that repeats the configuration adds nothing to it.
      if (cidr !== undefined && !configured.includes(cidr))
        ranges.push({ cidr, source: { name: metadata.name, entry }, isGoing: isGoing(object) });
    }
  }
  return ranges;
}

/** Keeps a range from going while an address is taken out of it; part of the transaction that takes it. */
export function holdRange({
  source,
}: ServiceRange): Required<Pick<AdmissionEffects, 'compares' | 'operations'>> {
  if (source === undefined) return { compares: [], operations: [] };
  return {
    compares: [{ key: source.entry.key, modRevision: source.entry.modRevision }],
    operations: [{ type: 'put', key: serviceCidrGuard(source.name), value: NOTHING }],
  };
}

/** @param options.serviceCidrs those of the configuration */
export function createServiceCidrs(options: { serviceCidrs: readonly Cidr[] }): AdmissionPlugin {
  return {
    name: 'ServiceCIDRs',
    async review(review) {
      if (review.subresource !== '') return undefined;
      switch (`${review.operation} ${qualifiedResource(review.kind)}`) {
        case 'CREATE servicecidrs.networking.k8s.io':
          return await reviewNew(review, options.serviceCidrs);
        case 'DELETE servicecidrs.networking.k8s.io':
          // With the finalizer it gives out nothing more from now on, and goes when its last address is free.
          return isHeld(review.old) ? undefined : await reviewEnd(review, options.serviceCidrs);
        case 'UPDATE servicecidrs.networking.k8s.io':
          return isGoing(review.old) && isHeld(review.old) && !isHeld(review.object)
            ? await reviewEnd(review, options.serviceCidrs)
            : undefined;
        case 'REMOVE servicecidrs.networking.k8s.io':
          return { operations: [{ type: 'delete', key: serviceCidrGuard(review.name) }] };
        default:
          return undefined;
      }
    },
  };
}

function isHeld(object: KubeObject | undefined): boolean {
  return object?.metadata.finalizers?.includes(SERVICE_CIDR_FINALIZER) ?? false;
}

function isGoing(object: KubeObject | undefined): boolean {
  return object?.metadata.deletionTimestamp !== undefined;
}

/** The object that repeats the configuration has none: it is made anew when the configuration changes. */
function withFinalizer(review: AdmissionReview): KubeObject | undefined {
  const { object, name } = review;
  if (object === undefined || name === CONFIGURED_SERVICE_CIDR || isHeld(object)) return object;
  const { metadata } = object;
  const finalizers = [...(metadata.finalizers ?? []), SERVICE_CIDR_FINALIZER];
  return { ...object, metadata: { ...metadata, finalizers } };
}

function cidrsOf(object: unknown): Cidr[] {
  return ((object as ServiceCIDR).spec?.cidrs ?? []).flatMap((text) => parseCidr(text) ?? []);
}

async function reviewNew(
  review: AdmissionReview,
  configured: readonly Cidr[],
): Promise<AdmissionEffects> {
  const { store } = review;
  const guard = await store.get(POOL_SET_GUARD);
  const used: { whose: string; overlaps: (cidr: Cidr) => boolean }[] = [];
  for (const { cidr, source } of await serviceRanges(store, configured))
    used.push({
      whose: source === undefined ? `the service range ${cidr}` : `ServiceCIDR "${source.name}"`,
      overlaps: (it) => cidrsOverlap(it, cidr),
    });
  for (const entry of (await store.list(collectionPrefix(IP_POOL))).entries) {
    const pool = decodeEntry(entry) as IPPool;
    const taken = parseCidr(pool.spec.cidr);
    used.push({
      whose: `IPPool "${pool.metadata.name}"`,
      overlaps: (it) => taken !== undefined && cidrsOverlap(it, taken),
    });
  }
  for (const entry of (await store.list(collectionPrefix(SERVICE_ADDRESS_POOL))).entries) {
    const pool = decodeEntry(entry) as ServiceAddressPool;
    used.push({
      whose: `ServiceAddressPool "${pool.metadata.name}"`,
      overlaps: (it) => rangesOfPool(pool).some((range) => rangesOverlap(range, rangeOf(it))),
    });
  }
  const errors = cidrsOf(review.object).flatMap((cidr, i) => {
    if (review.name === CONFIGURED_SERVICE_CIDR && configured.includes(cidr)) return [];
    const other = used.find(({ overlaps }) => overlaps(cidr));
    if (other === undefined) return [];
    const detail = `overlaps ${other.whose}; choose a range that is used nowhere else`;
    return [{ type: 'Invalid' as const, field: `spec.cidrs[${i}]`, value: cidr, detail }];
  });
  const object = withFinalizer(review);
  return errors.length > 0
    ? { errors }
    : {
        ...(object === undefined ? {} : { object }),
        compares: [{ key: POOL_SET_GUARD, modRevision: guard?.modRevision ?? 0 }],
        operations: [{ type: 'put', key: POOL_SET_GUARD, value: NOTHING }],
      };
}

/** The range goes: no service may have an address of it. */
async function reviewEnd(
  { store, kind, name, old }: AdmissionReview,
  configured: readonly Cidr[],
): Promise<AdmissionEffects> {
  if (name === CONFIGURED_SERVICE_CIDR && cidrsOf(old).join() === configured.join())
    throw forbidden(
      kind,
      name,
      "it tells what the server's option --service-cidr says; change that instead",
    );
  // Read before the records: an address that is taken later changes it, and the transaction fails.
  const key = serviceCidrGuard(name);
  const guard = await store.get(key);
  const others = (await serviceRanges(store, configured)).filter(
    ({ source, isGoing }) => !isGoing && source?.name !== name,
  );
  const used = (await store.list(CLUSTER_IP_PREFIX)).entries
    .map((entry) => entry.key.slice(CLUSTER_IP_PREFIX.length) as Ip)
    .filter(
      (ip) =>
        cidrsOf(old).some((cidr) => cidrContains(cidr, ip)) &&
        !others.some(({ cidr }) => cidrContains(cidr, ip)),
    );
  if (used.length > 0)
    throw forbidden(
      kind,
      name,
      `${used.length} service(s) have addresses of this range (${used[0]}${used.length > 1 ? ', …' : ''}); delete them first`,
    );
  return { compares: [{ key, modRevision: guard?.modRevision ?? 0 }] };
}
