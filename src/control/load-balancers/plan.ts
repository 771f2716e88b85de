/**
 * Pure: which addresses a service of type LoadBalancer should show, and what its status should say about it.
 *
 * A service keeps what it has as long as that still fits what it asks for: an address that moves breaks every client.
 */
import type { IpFamilyName, LoadBalancerIngress, Service } from '#api/core/v1/service.ts';
import {
  ADDRESS_ANNOUNCED_CONDITION,
  ADDRESS_ASSIGNED_CONDITION,
  type AddressClaim,
  claimOf,
  ingressAddresses,
  whyNotShared,
  wishedAddresses,
  wishedPool,
} from '#api/core/v1/service-load-balancer.ts';
import { sameJson } from '#api/machinery/json.ts';
import { matchLabelSelector } from '#api/machinery/label-selector.ts';
import type { Condition } from '#api/meta.ts';
import {
  DEFAULT_POOL_PRIORITY,
  poolContains,
  rangesOfPool,
  type ServiceAddressPool,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import { type Family, familyOf, type Ip } from '#lib/ip.ts';
import { addressesIn } from '#lib/ip-range.ts';

/** Addresses looked at in one pool before it counts as full: a /64 of IPv6 must not become an endless walk. */
export const MAX_ADDRESSES_SCANNED = 1 << 17;

export interface LoadBalancerInput {
  readonly service: Service;
  readonly pools: readonly ServiceAddressPool[];
  /** The other services that have the address. */
  readonly othersAt: (address: Ip) => readonly Service[];
  readonly nowIso: string;
}

/** Why a service has not all that it wants. */
export interface Shortage {
  readonly reason: string;
  readonly message: string;
}

export interface LoadBalancerPlan {
  /** The service with its new status, or `undefined` if it is as it should be. */
  readonly write: Service | undefined;
  readonly addresses: readonly Ip[];
  readonly shortage: Shortage | undefined;
}

export function planLoadBalancer(input: LoadBalancerInput): LoadBalancerPlan {
  const { service } = input;
  const choice = chooseAddresses(input);
  const ingress = choice.addresses.map(
    (address): LoadBalancerIngress => ({
      ip: address,
      ipMode: input.pools.find((pool) => poolContains(pool, address))?.spec.ipMode ?? 'VIP',
    }),
  );
  const status = service.status ?? {};
  const conditions = withConditions(status.conditions ?? [], conditionsOf(choice), input);
  const next = {
    ...status,
    loadBalancer: ingress.length > 0 ? { ...status.loadBalancer, ingress } : {},
    conditions,
  };
  return {
    ...choice,
    write: sameJson(next, { ...status, loadBalancer: status.loadBalancer ?? {} })
      ? undefined
      : { ...service, status: next },
  };
}

interface Choice {
  readonly addresses: readonly Ip[];
  readonly shortage: Shortage | undefined;
}

function chooseAddresses(input: LoadBalancerInput): Choice {
  const { service, pools } = input;
  const none = (reason: string, message: string): Choice => ({
    addresses: [],
    shortage: { reason, message },
  });
  const wish = wishedAddresses(service);
  if (wish.kind === 'malformed')
    return none('AddressMalformed', `"${wish.text}" is no list of IP addresses`);
  if (pools.length === 0)
    return none(
      'NoPool',
      'there is no ServiceAddressPool; create one with the addresses that load balancers may have',
    );
  const eligible = eligiblePools(input);
  if (eligible.length === 0)
    return none('NoMatchingPool', `no ServiceAddressPool is for this service: ${whyNone(input)}`);
  const wanted = familiesOf(service);
  return wish.kind === 'addresses'
    ? requested(input, eligible, wish.addresses)
    : automatic(input, eligible, wanted);
}

/** All that were asked for, or none: half of it would look as if it worked. */
function requested(
  input: LoadBalancerInput,
  pools: readonly ServiceAddressPool[],
  addresses: readonly Ip[],
): Choice {
  const families = familiesOf(input.service);
  const mine = claimOf(input.service);
  const problems: Shortage[] = [];
  const seen = new Set<Family>();
  for (const address of addresses) {
    const family = familyOf(address);
    const refuse = (reason: string, why: string) =>
      problems.push({ reason, message: `${address} cannot be had: ${why}` });
    if (!families.includes(family) || seen.has(family))
      refuse('WrongFamily', `the service wants one address of each of ${families.map(nameOf)}`);
    else if (!pools.some((pool) => poolContains(pool, address)))
      refuse('NotInPool', 'no ServiceAddressPool for this service contains it');
    else {
      const why = whyTaken(mine, input.othersAt(address));
      if (why !== undefined) refuse('AddressInUse', why);
    }
    seen.add(family);
  }
  const [first] = problems;
  if (first === undefined) return { addresses, shortage: undefined };
  const message = problems.map((it) => it.message).join('; ');
  return { addresses: [], shortage: { reason: first.reason, message } };
}

function automatic(
  input: LoadBalancerInput,
  pools: readonly ServiceAddressPool[],
  families: readonly Family[],
): Choice {
  const mine = claimOf(input.service);
  const has = ingressAddresses(input.service);
  const kept = has.filter(
    (address) =>
      pools.some((pool) => poolContains(pool, address)) &&
      whyTaken(mine, input.othersAt(address)) === undefined,
  );
  const addresses: Ip[] = [];
  const missing: Family[] = [];
  for (const family of families) {
    const address =
      kept.find((it) => familyOf(it) === family) ?? findFree(input, mine, pools, family);
    if (address === undefined) missing.push(family);
    else addresses.push(address);
  }
  if (missing.length === 0) return { addresses, shortage: undefined };
  const names = pools.map(({ metadata }) => `"${metadata.name}"`).join(', ');
  const shortage = {
    reason: 'PoolExhausted',
    message: `no free ${missing.map(nameOf).join(' and ')} address in ${names}`,
  };
  // Who requires both families gets both or none; who prefers them gets what there is.
  const isPartial = input.service.spec.ipFamilyPolicy === 'PreferDualStack';
  if (!isPartial) return { addresses: [], shortage };
  return { addresses, shortage: addresses.length > 0 ? undefined : shortage };
}

function findFree(
  input: LoadBalancerInput,
  mine: AddressClaim,
  pools: readonly ServiceAddressPool[],
  family: Family,
): Ip | undefined {
  for (const pool of pools) {
    let scanned = 0;
    for (const range of rangesOfPool(pool)) {
      if (range.family !== family) continue;
      for (const address of addressesIn(range)) {
        if (++scanned > MAX_ADDRESSES_SCANNED) break;
        // Without being asked for, an address is shared only with services of the same key.
        if (whyTaken(mine, input.othersAt(address)) === undefined) return address;
      }
    }
  }
  return undefined;
}

function whyTaken(mine: AddressClaim, others: readonly Service[]): string | undefined {
  for (const other of others) {
    const why = whyNotShared(mine, claimOf(other));
    if (why !== undefined) return why;
  }
  return undefined;
}

/** The pools that the service may use, those to be used first in front. */
function eligiblePools({ service, pools }: LoadBalancerInput): ServiceAddressPool[] {
  const name = wishedPool(service);
  const isAutomatic = name === undefined && wishedAddresses(service).kind === 'any';
  return pools
    .filter((pool) => pool.metadata.deletionTimestamp === undefined)
    .filter((pool) => name === undefined || pool.metadata.name === name)
    .filter((pool) => isForService(pool, service))
    .filter((pool) => !isAutomatic || pool.spec.autoAssign !== false || holdsOneOf(pool, service))
    .sort(
      (a, b) =>
        (a.spec.priority ?? DEFAULT_POOL_PRIORITY) - (b.spec.priority ?? DEFAULT_POOL_PRIORITY) ||
        (a.metadata.name < b.metadata.name ? -1 : 1),
    );
}

/** A pool that is closed later keeps the services it has, and takes no new ones. */
function holdsOneOf(pool: ServiceAddressPool, service: Service): boolean {
  return ingressAddresses(service).some((address) => poolContains(pool, address));
}

function isForService({ spec }: ServiceAddressPool, { metadata }: Service): boolean {
  const { namespaces = [], serviceSelector } = spec;
  return (
    (namespaces.length === 0 || namespaces.includes(metadata.namespace ?? '')) &&
    (serviceSelector === undefined || matchLabelSelector(serviceSelector, metadata.labels))
  );
}

function whyNone({ service, pools }: LoadBalancerInput): string {
  const name = wishedPool(service);
  if (name !== undefined && !pools.some((pool) => pool.metadata.name === name))
    return `it asks for "${name}", which does not exist`;
  return 'look at their autoAssign, namespaces and serviceSelector';
}

function familiesOf({ spec }: Service): Family[] {
  const names: readonly IpFamilyName[] = spec.ipFamilies ?? ['IPv4'];
  return names.map((name) => (name === 'IPv6' ? 6 : 4));
}

function nameOf(family: Family): IpFamilyName {
  return family === 4 ? 'IPv4' : 'IPv6';
}

function conditionsOf({ addresses, shortage }: Choice): Omit<Condition, 'lastTransitionTime'>[] {
  if (shortage !== undefined)
    return [{ type: ADDRESS_ASSIGNED_CONDITION, status: 'False', ...shortage }];
  return [
    {
      type: ADDRESS_ASSIGNED_CONDITION,
      status: 'True',
      reason: 'FromPool',
      message: `${addresses.join(' and ')} came from a ServiceAddressPool`,
    },
    {
      type: ADDRESS_ANNOUNCED_CONDITION,
      status: 'False',
      reason: 'NotImplemented',
      message:
        'Tulle does not announce addresses by ARP, NDP or BGP yet: route them to a node yourself, or use the node ports',
    },
  ];
}

/** Our conditions as they should be, with the time of the last change, after those of others. */
function withConditions(
  observed: readonly Condition[],
  wanted: readonly Omit<Condition, 'lastTransitionTime'>[],
  { service, nowIso }: LoadBalancerInput,
): Condition[] {
  const { generation } = service.metadata;
  const ours = [ADDRESS_ASSIGNED_CONDITION, ADDRESS_ANNOUNCED_CONDITION];
  return [
    ...observed.filter(({ type }) => !ours.includes(type)),
    ...wanted.map((condition) => {
      const before = observed.find(({ type }) => type === condition.type);
      const isSame =
        before?.status === condition.status &&
        before.reason === condition.reason &&
        before.message === condition.message;
      if (isSame) return before;
      return {
        ...condition,
        ...(generation === undefined ? {} : { observedGeneration: generation }),
        lastTransitionTime:
          before?.status === condition.status ? (before.lastTransitionTime ?? nowIso) : nowIso,
      };
    }),
  ];
}
