/** Gives services their cluster IPs, in the transaction that writes the service, and takes them back with it. */
import type { Service, ServiceSpec } from '#api/core/v1/service.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import type { FieldError } from '#api/kind.ts';
import { sameJson } from '#api/machinery/json.ts';
import { internalError } from '#api/machinery/status.ts';
import { type Cidr, cidrContains, familyOf, type Ip, parseIp } from '#lib/ip.ts';
import type { Compare, StoreReader, WriteOp } from '#store/port.ts';
import type { AdmissionEffects, AdmissionPlugin, AdmissionReview } from './admission.ts';
import { type ClusterIpOwner, chooseClusterIp, clusterIpKey, isUsable } from './cluster-ips.ts';
import { holdRange, type ServiceRange, serviceRanges } from './service-cidrs.ts';
import { familyName, fillFamilies, HEADLESS, isHeadless } from './service-families.ts';

export interface ServiceAddressesOptions {
  /** One per family, the first is the primary family. */
  readonly serviceCidrs: readonly Cidr[];
  /** A number in [0, 1). */
  readonly random: () => number;
}

/** A service may have one address per family. */
const MAX_CLUSTER_IPS = 2;

export function createServiceAddresses(options: ServiceAddressesOptions): AdmissionPlugin {
  return {
    name: 'ServiceAddresses',
    async review(review) {
      if (review.kind.group !== SERVICE.group || review.kind.resource !== SERVICE.resource)
        return undefined;
      if (review.subresource !== '' || review.operation === 'DELETE') return undefined;
      if (review.operation === 'REMOVE')
        return { operations: releaseAll(addressesOf(review.old as Service)) };
      return await assign(review, options);
    },
  };
}

async function assign(
  review: AdmissionReview & { operation: 'CREATE' | 'UPDATE' },
  options: ServiceAddressesOptions,
): Promise<AdmissionEffects> {
  const old = review.old as Service | undefined;
  const service = review.object as Service;
  const sent = normalize(service.spec, old?.spec);
  const had = old === undefined ? [] : addressesOf(old);
  if (sent.type === 'ExternalName') {
    // A new service that wants both a name outside and an address is for validation to refuse.
    if (old === undefined) return {};
    const { ipFamilies: _f, ipFamilyPolicy: _p, clusterIPs: _s, clusterIP: _i, ...spec } = sent;
    return { object: { ...service, spec } as Service, operations: releaseAll(had) };
  }
  const all = await serviceRanges(review.store, options.serviceCidrs);
  // A service keeps its address, and with it the family, of a range that is to go.
  const ranges = all.filter(
    ({ cidr, isGoing }) => !isGoing || had.some((address) => cidrContains(cidr, address)),
  );
  const configured = [...new Set(ranges.map(({ cidr }) => familyName(familyOf(cidr))))];
  const families = fillFamilies(sent, configured);
  if (families.errors !== undefined) return { errors: families.errors };
  const { spec } = families;
  if (isHeadless(spec))
    return {
      object: {
        ...service,
        spec: { ...spec, clusterIP: HEADLESS, clusterIPs: [HEADLESS] },
      } as Service,
      operations: releaseAll(had),
    };
  // What cannot be an address at all is for the kind's validation to say.
  const requested = spec.clusterIPs ?? [];
  if (requested.length > MAX_CLUSTER_IPS || requested.some((text) => parseIp(text) === undefined))
    return { object: { ...service, spec } as Service };
  return await reserve({ review, service, spec, ranges, had: new Set(had) }, options.random);
}

interface Assignment {
  readonly review: AdmissionReview;
  readonly service: Service;
  readonly spec: ServiceSpec;
  readonly ranges: readonly ServiceRange[];
  /** Addresses the stored service has. */
  readonly had: ReadonlySet<Ip>;
}

async function reserve(
  { review, service, spec, ranges, had }: Assignment,
  random: () => number,
): Promise<AdmissionEffects> {
  const compares: Compare[] = [];
  const operations: WriteOp[] = [];
  const addresses: Ip[] = [];
  const held = new Set<string>();
  const owner: ClusterIpOwner = { namespace: review.namespace, name: review.name };
  for (const [i, family] of (spec.ipFamilies ?? []).entries()) {
    const own = ranges.filter(({ cidr }) => familyName(familyOf(cidr)) === family);
    const open = own.filter(({ isGoing }) => !isGoing);
    const wanted = parseIp(spec.clusterIPs?.[i] ?? '');
    if (own.length === 0) continue;
    if (wanted !== undefined && familyName(familyOf(wanted)) !== family)
      return { errors: [wrongFamily(i, wanted, family)] };
    let ip = wanted;
    if (ip === undefined) ip = await choose(review.store, open, random);
    else if (!had.has(ip)) {
      const problem = await whyNotFree(review.store, open, ip);
      if (problem !== undefined) return { errors: [cannotAllocate(ip, problem)] };
    }
    addresses.push(ip);
    if (had.has(ip)) continue;
    const key = clusterIpKey(ip);
    compares.push({ key, modRevision: 0 });
    operations.push({ type: 'put', key, value: Buffer.from(JSON.stringify(owner), 'utf8') });
    const range = open.find(({ cidr }) => cidrContains(cidr, ip));
    if (range?.source !== undefined && !held.has(range.source.name)) {
      held.add(range.source.name);
      const hold = holdRange(range);
      compares.push(...hold.compares);
      operations.push(...hold.operations);
    }
  }
  const released = [...had].filter((ip) => !addresses.includes(ip));
  const assigned: ServiceSpec = { ...spec, clusterIPs: addresses };
  if (addresses[0] !== undefined) assigned.clusterIP = addresses[0];
  const object: Service = sameJson(assigned, service.spec)
    ? service
    : { ...service, spec: assigned };
  return { object, compares, operations: [...operations, ...releaseAll(released)] };
}

/** Out of the first range that has one free. */
async function choose(
  store: StoreReader,
  ranges: readonly ServiceRange[],
  random: () => number,
): Promise<Ip> {
  let used = 0;
  for (const { cidr } of ranges) {
    const choice = await chooseClusterIp(store, cidr, random);
    if (choice.kind === 'chosen') return choice.ip;
    used += choice.used;
  }
  throw internalError(
    `failed to allocate a cluster IP: the service range ${textOf(ranges)} is full, ${used} addresses are in use. Delete services that are not needed, or create a ServiceCIDR with another range`,
  );
}

function textOf(ranges: readonly ServiceRange[]): string {
  return ranges.map(({ cidr }) => cidr).join(', ');
}

async function whyNotFree(
  store: StoreReader,
  ranges: readonly ServiceRange[],
  ip: Ip,
): Promise<string | undefined> {
  if (!ranges.some(({ cidr }) => isUsable(cidr, ip)))
    return `the provided IP is not in the valid range. The range of valid IPs is ${textOf(ranges)}`;
  return (await store.get(clusterIpKey(ip))) === undefined
    ? undefined
    : 'provided IP is already allocated';
}

function cannotAllocate(ip: Ip, why: string): FieldError {
  return {
    type: 'Invalid',
    field: 'spec.clusterIPs',
    value: [ip],
    detail: `failed to allocate IP ${ip}: ${why}`,
  };
}

function wrongFamily(index: number, ip: Ip, family: string): FieldError {
  return {
    type: 'Invalid',
    field: `spec.clusterIPs[${index}]`,
    value: ip,
    detail: `expected an ${family} value as indicated by \`ipFamilies[${index}]\``,
  };
}

/**
 * Brings `clusterIP` and `clusterIPs` together, and on update keeps what the server gave and the client did not name.
 * Clients that know only one of the two fields, or none, must not lose or change addresses.
 */
export function normalize(spec: ServiceSpec, old: ServiceSpec | undefined): ServiceSpec {
  const next = { ...spec };
  const named = (next.clusterIP ?? '') !== '';
  const listed = (next.clusterIPs?.length ?? 0) > 0;
  const keeps = old !== undefined && (old.type ?? 'ClusterIP') !== 'ExternalName';
  if (keeps && next.type !== 'ExternalName') {
    if (!named && !listed) {
      if (old.clusterIP !== undefined) next.clusterIP = old.clusterIP;
      if (old.clusterIPs !== undefined) next.clusterIPs = [...old.clusterIPs];
    } else if (
      next.clusterIP !== undefined &&
      next.clusterIP !== old.clusterIP &&
      sameJson(next.clusterIPs, old.clusterIPs)
    )
      // A patch of the one field only: what it asks for is for validation to refuse, not for us to undo.
      next.clusterIPs = [next.clusterIP, ...(next.clusterIPs?.slice(1) ?? [])];
    if (next.ipFamilies === undefined && old.ipFamilies !== undefined)
      next.ipFamilies = [...old.ipFamilies];
    if (next.ipFamilyPolicy === undefined && old.ipFamilyPolicy !== undefined)
      next.ipFamilyPolicy = old.ipFamilyPolicy;
    // Changing the policy alone up or down means: give, or take back, the secondary address.
    if (
      next.ipFamilyPolicy === 'SingleStack' &&
      old.ipFamilyPolicy !== 'SingleStack' &&
      sameJson(next.ipFamilies, old.ipFamilies) &&
      sameJson(next.clusterIPs, old.clusterIPs)
    ) {
      if (next.ipFamilies !== undefined) next.ipFamilies = next.ipFamilies.slice(0, 1);
      if (next.clusterIPs !== undefined) next.clusterIPs = next.clusterIPs.slice(0, 1);
    }
  }
  const first = next.clusterIPs?.[0];
  if ((next.clusterIP ?? '') === '' && first !== undefined) next.clusterIP = first;
  else if (next.clusterIP !== undefined && next.clusterIP !== '' && !(next.clusterIPs?.length ?? 0))
    next.clusterIPs = [next.clusterIP];
  return next;
}

/** The real addresses of a service: not `None`. */
function addressesOf(service: Service): Ip[] {
  return (service.spec?.clusterIPs ?? []).flatMap((text) => parseIp(text) ?? []);
}

function releaseAll(addresses: readonly Ip[]): WriteOp[] {
  return addresses.map((ip) => ({ type: 'delete', key: clusterIpKey(ip) }));
}
