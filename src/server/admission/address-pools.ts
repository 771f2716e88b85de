/** Pools of addresses for load balancers: none overlaps another range, and none loses an address that a service has. */
import { forbidden } from '#api/machinery/status.ts';
import { IP_POOL, type IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import {
  poolContains,
  rangesOfPool,
  SERVICE_ADDRESS_POOL,
  type ServiceAddressPool,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import { type Cidr, type Ip, parseCidr } from '#lib/ip.ts';
import { formatIpRange, type IpRange, rangeOf, rangesOverlap } from '#lib/ip-range.ts';
import type { StoreReader } from '#store/port.ts';
import { qualifiedResource } from '../errors.ts';
import { decodeEntry } from '../registry/codec.ts';
import {
  addressPoolGuard,
  collectionPrefix,
  LOAD_BALANCER_IP_PREFIX,
  POOL_SET_GUARD,
} from '../registry/keys.ts';
import type { AdmissionEffects, AdmissionPlugin, AdmissionReview } from './admission.ts';
import { decodeClaims } from './load-balancer-addresses.ts';

/** Addresses named in a message; the count says the rest. */
const MAX_NAMED = 3;
const NOTHING = new Uint8Array();

/** A range that is used for something, and what for. */
interface UsedRange {
  readonly range: IpRange;
  readonly whose: string;
}

/** @param options.serviceCidrs the ranges that services get their cluster IPs from */
export function createAddressPools(options: {
  serviceCidrs: (store: StoreReader) => Promise<readonly Cidr[]>;
}): AdmissionPlugin {
  return {
    name: 'AddressPools',
    async review(review) {
      if (review.subresource !== '') return undefined;
      switch (`${review.operation} ${qualifiedResource(review.kind)}`) {
        case 'CREATE serviceaddresspools.tulle.dev':
        case 'UPDATE serviceaddresspools.tulle.dev':
          return await reviewPool(review, await options.serviceCidrs(review.store));
        case 'DELETE serviceaddresspools.tulle.dev':
          return await reviewDelete(review);
        case 'REMOVE serviceaddresspools.tulle.dev':
          return { operations: [{ type: 'delete', key: addressPoolGuard(review.name) }] };
        case 'CREATE ippools.tulle.dev':
          return await reviewPodPool(review);
        default:
          return undefined;
      }
    },
  };
}

async function reviewPool(
  review: AdmissionReview,
  serviceCidrs: readonly Cidr[],
): Promise<AdmissionEffects> {
  const { store, name } = review;
  const pool = review.object as ServiceAddressPool;
  const setGuard = await store.get(POOL_SET_GUARD);
  const lostGuard = await store.get(addressPoolGuard(name));
  const used: UsedRange[] = [
    ...serviceCidrs.map((cidr) => ({ range: rangeOf(cidr), whose: 'the service range' })),
    ...(await podRanges(store)),
    ...(await poolRanges(store, name)),
  ];
  const errors = rangesOfPool(pool).flatMap((range, i) => {
    const other = used.find((it) => rangesOverlap(it.range, range));
    return other === undefined ? [] : [overlapError(`spec.addresses[${i}]`, range, other)];
  });
  if (review.old !== undefined) {
    const lost = (await addressesInUse(store)).filter(
      ({ address }) =>
        poolContains(review.old as ServiceAddressPool, address) && !poolContains(pool, address),
    );
    if (lost.length > 0)
      errors.push({
        type: 'Invalid',
        field: 'spec.addresses',
        value: pool.spec.addresses.join(','),
        detail: `services have addresses that would leave the pool: ${nameSome(lost)}`,
      });
  }
  return errors.length > 0
    ? { errors }
    : {
        compares: [
          { key: POOL_SET_GUARD, modRevision: setGuard?.modRevision ?? 0 },
          { key: addressPoolGuard(name), modRevision: lostGuard?.modRevision ?? 0 },
        ],
        operations: [{ type: 'put', key: POOL_SET_GUARD, value: NOTHING }],
      };
}

/** The plugin of the pods' pools writes the guard that makes this safe. */
async function reviewPodPool(review: AdmissionReview): Promise<AdmissionEffects | undefined> {
  const cidr = parseCidr((review.object as IPPool).spec?.cidr ?? '');
  if (cidr === undefined) return undefined; // the kind's validation says so
  const range = rangeOf(cidr);
  const other = (await poolRanges(review.store)).find((it) => rangesOverlap(it.range, range));
  return other === undefined ? undefined : { errors: [overlapError('spec.cidr', range, other)] };
}

async function reviewDelete({
  store,
  kind,
  name,
  old,
}: AdmissionReview): Promise<AdmissionEffects> {
  // Read before the records: an address that is given later changes it, and the transaction fails.
  const key = addressPoolGuard(name);
  const guard = await store.get(key);
  const used = (await addressesInUse(store)).filter(({ address }) =>
    poolContains(old as ServiceAddressPool, address),
  );
  if (used.length > 0)
    throw forbidden(
      kind,
      name,
      `services have addresses of this pool: ${nameSome(used)}; set spec.autoAssign to false, and delete the pool when they are gone`,
    );
  return { compares: [{ key, modRevision: guard?.modRevision ?? 0 }] };
}

function overlapError(field: string, range: IpRange, other: UsedRange) {
  return {
    type: 'Invalid' as const,
    field,
    value: formatIpRange(range),
    detail: `overlaps ${other.whose} (${formatIpRange(other.range)}); choose addresses that are used nowhere else`,
  };
}

async function podRanges(store: StoreReader): Promise<UsedRange[]> {
  return (await store.list(collectionPrefix(IP_POOL))).entries.flatMap((entry) => {
    const pool = decodeEntry(entry) as IPPool;
    const cidr = parseCidr(pool.spec.cidr);
    const whose = `IPPool "${pool.metadata.name}"`;
    return cidr === undefined ? [] : [{ range: rangeOf(cidr), whose }];
  });
}

async function poolRanges(store: StoreReader, except?: string): Promise<UsedRange[]> {
  const { entries } = await store.list(collectionPrefix(SERVICE_ADDRESS_POOL));
  return entries
    .map((entry) => decodeEntry(entry) as ServiceAddressPool)
    .filter(({ metadata }) => metadata.name !== except)
    .flatMap((pool) =>
      rangesOfPool(pool).map((range) => ({
        range,
        whose: `ServiceAddressPool "${pool.metadata.name}"`,
      })),
    );
}

async function addressesInUse(store: StoreReader): Promise<{ address: Ip; owner: string }[]> {
  return (await store.list(LOAD_BALANCER_IP_PREFIX)).entries.map((entry) => ({
    address: entry.key.slice(LOAD_BALANCER_IP_PREFIX.length) as Ip,
    owner: decodeClaims(entry)
      .map(({ namespace, name }) => `${namespace}/${name}`)
      .join(', '),
  }));
}

function nameSome(used: readonly { address: Ip; owner: string }[]): string {
  const named = used.slice(0, MAX_NAMED).map(({ address, owner }) => `${address} (${owner})`);
  return named.join(', ') + (used.length > MAX_NAMED ? ` and ${used.length - MAX_NAMED} more` : '');
}
