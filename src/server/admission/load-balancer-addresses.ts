/**
 * Guards the addresses of load balancers: a record in the store per address says which services share it, and changes in
 * the transaction that writes an address into a service's status, changes what a service uses of it, or deletes the
 * service. So whoever chooses addresses, and however many of them there are, no two services get one that they may not share.
 */
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import {
  ADDRESS_ANNOUNCED_CONDITION,
  ADDRESS_ASSIGNED_CONDITION,
  type AddressClaim,
  claimOf,
  ingressAddresses,
  isOurLoadBalancer,
  whyNotShared,
} from '#api/core/v1/service-load-balancer.ts';
import type { FieldError } from '#api/kind.ts';
import { invalid } from '#api/machinery/field-errors.ts';
import { sameJson } from '#api/machinery/json.ts';
import {
  poolContains,
  SERVICE_ADDRESS_POOL,
  type ServiceAddressPool,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import type { Ip } from '#lib/ip.ts';
import type { Compare, StoreEntry, StoreReader, WriteOp } from '#store/port.ts';
import { decodeEntry } from '../registry/codec.ts';
import { addressPoolGuard, collectionPrefix, LOAD_BALANCER_IP_PREFIX } from '../registry/keys.ts';
import type { AdmissionEffects, AdmissionPlugin, AdmissionReview } from './admission.ts';

/** A record is read and written whole for each of them. */
export const MAX_SHARING_SERVICES = 256;
/** Of one service: each is a record in its transaction. */
const MAX_INGRESS_ADDRESSES = 16;
const NOTHING = new Uint8Array();

export const loadBalancerAddresses: AdmissionPlugin = {
  name: 'LoadBalancerAddresses',
  async review(review) {
    if (review.kind.group !== SERVICE.group || review.kind.resource !== SERVICE.resource)
      return undefined;
    if (review.operation === 'DELETE') return undefined;
    const old = review.old as Service | undefined;
    const next = review.object === undefined ? undefined : asType(review.object as Service);
    const effects = await guard(review, old, next);
    return next === review.object || next === undefined ? effects : { ...effects, object: next };
  },
};

export function loadBalancerIpKey(address: Ip): string {
  return LOAD_BALANCER_IP_PREFIX + address;
}

export function decodeClaims(entry: StoreEntry | undefined): AddressClaim[] {
  return entry === undefined
    ? []
    : (JSON.parse(Buffer.from(entry.value).toString('utf8')) as AddressClaim[]);
}

export function encodeClaims(claims: readonly AddressClaim[]): Uint8Array {
  return Buffer.from(JSON.stringify(claims), 'utf8');
}

/** A service that is no load balancer any more shows no address of one. */
function asType(service: Service): Service {
  const { status } = service;
  if (service.spec?.type === 'LoadBalancer' || status === undefined) return service;
  const others = (status.conditions ?? []).filter(
    ({ type }) => type !== ADDRESS_ASSIGNED_CONDITION && type !== ADDRESS_ANNOUNCED_CONDITION,
  );
  const { conditions: _, ...rest } = status;
  const cleared = {
    ...rest,
    loadBalancer: {},
    ...(others.length > 0 ? { conditions: others } : {}),
  };
  return sameJson(cleared, status) ? service : { ...service, status: cleared };
}

async function guard(
  review: AdmissionReview,
  old: Service | undefined,
  next: Service | undefined,
): Promise<AdmissionEffects> {
  const had = old !== undefined && isOurLoadBalancer(old) ? ingressAddresses(old) : [];
  const wants = next !== undefined && isOurLoadBalancer(next) ? ingressAddresses(next) : [];
  if (wants.length > MAX_INGRESS_ADDRESSES && wants.length > had.length)
    return {
      errors: [
        {
          type: 'TooMany',
          field: 'status.loadBalancer.ingress',
          detail: `${wants.length}: must have at most ${MAX_INGRESS_ADDRESSES} items`,
        },
      ],
    };
  const compares: Compare[] = [];
  const operations: WriteOp[] = [];
  const errors: FieldError[] = [];
  const owner = { namespace: review.namespace, name: review.name };
  const mine = next === undefined ? undefined : { ...claimOf(next), ...owner };
  const guards = new Set<string>();
  for (const address of new Set([...had, ...wants])) {
    const key = loadBalancerIpKey(address);
    const entry = await review.store.get(key);
    const claims = decodeClaims(entry);
    const others = claims.filter(
      (claim) => claim.namespace !== owner.namespace || claim.name !== owner.name,
    );
    const isWanted = mine !== undefined && wants.includes(address);
    if (isWanted && !had.includes(address)) {
      // An address of no pool was not given by us, and is not ours to guard.
      const pool = await poolOf(review.store, address);
      if (pool === undefined) continue;
      if (!guards.has(pool.name)) {
        guards.add(pool.name);
        compares.push({ key: pool.entry.key, modRevision: pool.entry.modRevision });
        operations.push({ type: 'put', key: addressPoolGuard(pool.name), value: NOTHING });
      }
    } else if (entry === undefined) continue;
    if (isWanted) {
      const problem = whyRefused(mine, others);
      if (problem !== undefined) errors.push(conflictError(review, address, problem));
    }
    const left = isWanted ? [...others, mine] : others;
    if (entry !== undefined && sameClaims(left, claims)) continue;
    compares.push({ key, modRevision: entry?.modRevision ?? 0 });
    operations.push(
      left.length === 0 ? { type: 'delete', key } : { type: 'put', key, value: encodeClaims(left) },
    );
  }
  return errors.length > 0 ? { errors } : { compares, operations };
}

function whyRefused(mine: AddressClaim, others: readonly AddressClaim[]): string | undefined {
  if (others.length >= MAX_SHARING_SERVICES)
    return `${others.length} services share it already, which is the most`;
  for (const other of others) {
    const problem = whyNotShared(mine, other);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** In a write of the status the address is at fault, in a write of the service what it wants to use of it. */
function conflictError(review: AdmissionReview, address: Ip, problem: string): FieldError {
  return review.subresource === 'status'
    ? invalid('status.loadBalancer.ingress', address, problem)
    : invalid('spec', address, `this change cannot be made while it has this address: ${problem}`);
}

function sameClaims(a: readonly AddressClaim[], b: readonly AddressClaim[]): boolean {
  const byName = (claims: readonly AddressClaim[]) =>
    claims.map((claim) => JSON.stringify(claim)).sort();
  return sameJson(byName(a), byName(b));
}

async function poolOf(
  store: StoreReader,
  address: Ip,
): Promise<{ name: string; entry: StoreEntry } | undefined> {
  for (const entry of (await store.list(collectionPrefix(SERVICE_ADDRESS_POOL))).entries) {
    const pool = decodeEntry(entry) as ServiceAddressPool;
    if (pool.metadata.deletionTimestamp === undefined && poolContains(pool, address))
      return { name: pool.metadata.name, entry };
  }
  return undefined;
}
