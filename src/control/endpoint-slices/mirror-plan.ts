/**
 * Pure: the older Endpoints objects and the EndpointSlices, each out of the other.
 *
 *     service with selector:     pods ─► our slices ─► Endpoints, for clients that still read them
 *     service without selector:  Endpoints made by hand ─► mirrored slices, for everything else in Tulle
 *
 * The direction follows from the selector alone, so nothing can go round in a circle.
 */
import type { EndpointAddress, EndpointSubset, Endpoints } from '#api/core/v1/endpoints.ts';
import type { IpFamilyName, Service } from '#api/core/v1/service.ts';
import {
  type Endpoint,
  type EndpointPort,
  type EndpointSlice,
  MANAGED_BY_LABEL,
  SERVICE_NAME_LABEL,
} from '#api/discovery/v1/endpoint-slice.ts';
import { sameJson } from '#api/machinery/json.ts';
import { familyOf, parseIp } from '#lib/ip.ts';
import { addressTypesOf, hasManagedSlices, portsKey } from './endpoints.ts';
import {
  changedSlice,
  type Draft,
  endpointKey,
  type Group,
  HEADLESS_LABEL,
  newSlice,
  planFamily,
  type SliceOwner,
  type SlicePlan,
  TRIGGER_TIME_ANNOTATION,
} from './plan.ts';

/** The value of {@link MANAGED_BY_LABEL} on mirrored slices. */
export const MIRRORED_BY = 'tulle-endpoints-mirror';
/** On Endpoints that were made out of slices; others are never changed or deleted. */
export const ENDPOINTS_MANAGED_LABEL = 'endpoints.kubernetes.io/managed-by';
export const ENDPOINTS_MANAGED_BY = 'tulle-endpoints';
/** `true`: a person does not want slices made of these Endpoints. */
export const SKIP_MIRROR_LABEL = 'endpointslice.kubernetes.io/skip-mirror';
/** Endpoints that are a lock for an election, not a list of addresses. */
const LEADER_ANNOTATION = 'control-plane.alpha.kubernetes.io/leader';
const OVER_CAPACITY_ANNOTATION = 'endpoints.kubernetes.io/over-capacity';
const LAST_APPLIED_ANNOTATION = 'kubectl.kubernetes.io/last-applied-configuration';
/** Addresses in one Endpoints object, as upstream: it is written whole for each change. */
export const MAX_ENDPOINTS_ADDRESSES = 1000;
/** Addresses mirrored of each subset, as upstream. */
export const MAX_MIRRORED_PER_SUBSET = 1000;
const FAMILIES: readonly IpFamilyName[] = ['IPv4', 'IPv6'];

export type EndpointsPlan =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'create' | 'update'; readonly endpoints: Endpoints }
  | { readonly kind: 'remove'; readonly endpoints: Endpoints };

/** What is to be done with the Endpoints of a service. @param slices those made of its pods */
export function planEndpoints(
  service: Service | undefined,
  slices: readonly EndpointSlice[],
  observed: Endpoints | undefined,
): EndpointsPlan {
  const isOurs = observed?.metadata.labels?.[ENDPOINTS_MANAGED_LABEL] === ENDPOINTS_MANAGED_BY;
  if (service === undefined || service.spec.type === 'ExternalName')
    return observed !== undefined && isOurs
      ? { kind: 'remove', endpoints: observed }
      : { kind: 'nothing' };
  if (!hasManagedSlices(service)) {
    if (observed === undefined || !isOurs) return { kind: 'nothing' };
    // Without a selector the list is a person's to keep; it starts as what it was, and is mirrored from now on.
    const { [ENDPOINTS_MANAGED_LABEL]: _, ...labels } = observed.metadata.labels ?? {};
    return {
      kind: 'update',
      endpoints: { ...observed, metadata: { ...observed.metadata, labels } },
    };
  }
  const { subsets, isTruncated } = subsetsOf(service, slices);
  const labels: Record<string, string> = {
    ...service.metadata.labels,
    [ENDPOINTS_MANAGED_LABEL]: ENDPOINTS_MANAGED_BY,
  };
  delete labels[HEADLESS_LABEL];
  if (service.spec.clusterIP === 'None') labels[HEADLESS_LABEL] = '';
  const { [OVER_CAPACITY_ANNOTATION]: _, ...annotations } = observed?.metadata.annotations ?? {};
  if (isTruncated) annotations[OVER_CAPACITY_ANNOTATION] = 'truncated';
  if (observed === undefined) {
    const { name, namespace } = service.metadata;
    const metadata = { name, ...(namespace === undefined ? {} : { namespace }), labels };
    const endpoints: Endpoints = {
      apiVersion: 'v1',
      kind: 'Endpoints',
      metadata: isTruncated ? { ...metadata, annotations } : metadata,
      subsets,
    };
    return { kind: 'create', endpoints };
  }
  const isSame =
    sameJson(observed.subsets ?? [], subsets) &&
    sameJson(observed.metadata.labels ?? {}, labels) &&
    sameJson(observed.metadata.annotations ?? {}, annotations);
  if (isSame) return { kind: 'nothing' };
  const metadata = { ...observed.metadata, labels, annotations };
  return { kind: 'update', endpoints: { ...observed, metadata, subsets } };
}

/** Endpoints have room for one family only: the primary one. What is ending is left out of them. */
function subsetsOf(
  service: Service,
  slices: readonly EndpointSlice[],
): { subsets: EndpointSubset[]; isTruncated: boolean } {
  const [primary] = addressTypesOf(service);
  const groups = new Map<
    string,
    { ports: EndpointPort[]; ready: Endpoint[]; notReady: Endpoint[] }
  >();
  for (const slice of slices) {
    if (slice.addressType !== primary) continue;
    const ports = slice.ports ?? [];
    const key = portsKey(ports);
    const group = groups.get(key) ?? { ports: [...ports], ready: [], notReady: [] };
    groups.set(key, group);
    for (const endpoint of slice.endpoints ?? [])
      if (endpoint.conditions?.ready !== false) group.ready.push(endpoint);
      else if (endpoint.conditions.terminating !== true) group.notReady.push(endpoint);
  }
  let room = MAX_ENDPOINTS_ADDRESSES;
  let isTruncated = false;
  const take = (endpoints: readonly Endpoint[]): EndpointAddress[] => {
    const taken = endpoints.flatMap(addressOf).sort(byIp).slice(0, room);
    if (taken.length < endpoints.length) isTruncated = true;
    room -= taken.length;
    return taken;
  };
  const sorted = [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
  // Whoever is ready has its place before anybody who is not.
  const ready = sorted.map((group) => take(group.ready));
  const notReady = sorted.map((group) => take(group.notReady));
  const subsets = sorted.flatMap(({ ports }, i): EndpointSubset[] => {
    const addresses = ready[i] ?? [];
    const others = notReady[i] ?? [];
    if (addresses.length + others.length === 0) return [];
    return [
      {
        ...(addresses.length > 0 ? { addresses } : {}),
        ...(others.length > 0 ? { notReadyAddresses: others } : {}),
        ...(ports.length > 0 ? { ports: ports.flatMap(subsetPort) } : {}),
      },
    ];
  });
  return { subsets, isTruncated };
}

function addressOf(endpoint: Endpoint): EndpointAddress[] {
  const [ip] = endpoint.addresses;
  if (ip === undefined) return [];
  const { hostname, nodeName, targetRef } = endpoint;
  return [
    {
      ip,
      ...(hostname === undefined ? {} : { hostname }),
      ...(nodeName === undefined ? {} : { nodeName }),
      ...(targetRef === undefined ? {} : { targetRef }),
    },
  ];
}

function byIp(a: EndpointAddress, b: EndpointAddress): number {
  return a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : 0;
}

function subsetPort({ name = '', port, protocol = 'TCP', appProtocol }: EndpointPort) {
  // Endpoints cannot say "all ports".
  if (port === undefined) return [];
  return [
    {
      ...(name === '' ? {} : { name }),
      port,
      protocol,
      ...(appProtocol === undefined ? {} : { appProtocol }),
    },
  ];
}

/** The slices that mirror Endpoints made by hand. @param slices those of before */
export function planMirror(
  service: Service | undefined,
  endpoints: Endpoints | undefined,
  slices: readonly EndpointSlice[],
): SlicePlan {
  const existing = slices.filter((slice) => slice.metadata.deletionTimestamp === undefined);
  if (service === undefined || endpoints === undefined || !isMirrored(service, endpoints))
    return { create: [], update: [], remove: existing };
  const owner = ownerOf(service, endpoints);
  const create: EndpointSlice[] = [];
  const update: EndpointSlice[] = [];
  const remove: EndpointSlice[] = [];
  for (const family of FAMILIES) {
    const groups = groupsOf(endpoints, family);
    const own = existing.filter((slice) => slice.addressType === family);
    if (groups.size === 0) {
      remove.push(...own);
      continue;
    }
    const { drafts, spare } = planFamily(own, groups);
    remove.push(...spare);
    for (const draft of drafts)
      if (draft.slice === undefined) create.push(newSlice(owner, family, draft));
      else update.push(...changed(owner, draft));
  }
  return { create, update, remove };
}

function isMirrored(service: Service, { metadata }: Endpoints): boolean {
  const { labels = {}, annotations = {} } = metadata;
  return (
    !hasManagedSlices(service) &&
    service.spec.type !== 'ExternalName' &&
    labels[SKIP_MIRROR_LABEL] !== 'true' &&
    annotations[LEADER_ANNOTATION] === undefined &&
    metadata.deletionTimestamp === undefined
  );
}

function ownerOf(service: Service, { metadata }: Endpoints): SliceOwner {
  const { name, namespace, uid = '', labels = {}, annotations = {} } = metadata;
  const {
    [TRIGGER_TIME_ANNOTATION]: _trigger,
    [LAST_APPLIED_ANNOTATION]: _applied,
    [OVER_CAPACITY_ANNOTATION]: _capacity,
    ...kept
  } = annotations;
  return {
    name,
    namespace,
    metadata: {
      labels: {
        ...labels,
        [SERVICE_NAME_LABEL]: service.metadata.name,
        [MANAGED_BY_LABEL]: MIRRORED_BY,
      },
      ownerReferences: [
        {
          apiVersion: 'v1',
          kind: 'Endpoints',
          name,
          uid,
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
    },
    annotations: kept,
  };
}

/** A mirrored slice has exactly the annotations of its Endpoints: weights, for example. */
function changed(owner: SliceOwner, draft: Draft): EndpointSlice[] {
  const { slice } = draft;
  if (slice === undefined) return [];
  const [next] = changedSlice(owner, draft);
  const annotations = { ...owner.annotations };
  if (next === undefined && sameJson(slice.metadata.annotations ?? {}, annotations)) return [];
  const base = next ?? slice;
  return [{ ...base, metadata: { ...base.metadata, annotations } }];
}

function groupsOf({ subsets = [] }: Endpoints, family: IpFamilyName): Map<string, Group> {
  const groups = new Map<string, Group>();
  for (const subset of subsets) {
    const ports = (subset.ports ?? []).map(
      ({ name = '', port, protocol = 'TCP', appProtocol }): EndpointPort => ({
        name,
        port,
        protocol,
        ...(appProtocol === undefined ? {} : { appProtocol }),
      }),
    );
    const all = [
      ...(subset.addresses ?? []).map((address) => endpointOf(address, true)),
      ...(subset.notReadyAddresses ?? []).map((address) => endpointOf(address, false)),
    ].slice(0, MAX_MIRRORED_PER_SUBSET);
    const key = portsKey(ports);
    for (const endpoint of all) {
      const [address = ''] = endpoint.addresses;
      if (familyOfText(address) !== family) continue;
      const group = groups.get(key) ?? { ports, endpoints: new Map<string, Endpoint>() };
      groups.set(key, group);
      const id = endpointKey(endpoint);
      // An address that is in both lists is ready.
      if (!group.endpoints.has(id)) group.endpoints.set(id, endpoint);
    }
  }
  return groups;
}

function familyOfText(text: string): IpFamilyName | undefined {
  const address = parseIp(text);
  if (address === undefined) return undefined;
  return familyOf(address) === 4 ? 'IPv4' : 'IPv6';
}

function endpointOf({ ip, hostname, nodeName, targetRef }: EndpointAddress, ready: boolean) {
  const endpoint: Endpoint = {
    addresses: [parseIp(ip) ?? ip],
    conditions: { ready },
    ...(hostname === undefined || hostname === '' ? {} : { hostname }),
    ...(nodeName === undefined || nodeName === '' ? {} : { nodeName }),
    ...(targetRef === undefined ? {} : { targetRef }),
  };
  return endpoint;
}
