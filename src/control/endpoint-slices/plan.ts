/**
 * Pure: from a service, its pods and its slices as they are to the writes that are missing.
 *
 * Per address family and distinct set of ports there are as many slices as are needed. An endpoint stays in the slice it
 * is in; new ones go where a write is needed anyway, then into one slice with room for all of them, then into new
 * slices. So one pod that comes or goes is one write of one slice.
 */
import type { Pod } from '#api/core/v1/pod.ts';
import type { IpFamilyName, Service } from '#api/core/v1/service.ts';
import {
  type Endpoint,
  type EndpointPort,
  type EndpointSlice,
  MANAGED_BY_LABEL,
  SERVICE_NAME_LABEL,
} from '#api/discovery/v1/endpoint-slice.ts';
import { sameJson } from '#api/machinery/json.ts';
import { type ObjectMeta, objectKey } from '#api/meta.ts';
import {
  addressTypesOf,
  endpointOf,
  hasManagedSlices,
  portsKey,
  portsOf,
  selectsPod,
} from './endpoints.ts';

/** The value of {@link MANAGED_BY_LABEL} on our slices. Others are never touched. */
export const MANAGED_BY = 'tulle-endpoint-slices';
export const HEADLESS_LABEL = 'service.kubernetes.io/headless';
/** When what led to the newest content of the slice happened, for measuring how long changes take to arrive. */
export const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';
/** Upstream's default: a slice is written whole for each change, and every node reads it. */
export const MAX_ENDPOINTS_PER_SLICE = 100;
/** `generateName` leaves room for five random characters in 63. */
const MAX_NAME_PREFIX = 57;

export interface SliceInput {
  /** `undefined` if it does not exist. */
  readonly service: Service | undefined;
  /** At least all that the service selects; others are passed over. */
  readonly pods: Iterable<Pod>;
  /** Ours of this service. */
  readonly slices: readonly EndpointSlice[];
  readonly zoneOf: (nodeName: string) => string | undefined;
  /** RFC 3339; what is written is stamped with it. */
  readonly triggerTime: string | undefined;
}

/** To be written in this order: no endpoint is missing in between. */
export interface SlicePlan {
  readonly create: readonly EndpointSlice[];
  /** With the resource version they were read at. */
  readonly update: readonly EndpointSlice[];
  readonly remove: readonly EndpointSlice[];
}

/** The endpoints with one set of ports. */
export interface Group {
  readonly ports: EndpointPort[];
  readonly endpoints: Map<string, Endpoint>;
}

/** A slice as it will be; without `slice` it is new. */
export interface Draft {
  slice: EndpointSlice | undefined;
  ports: EndpointPort[];
  endpoints: Endpoint[];
  isChanged: boolean;
}

export function planSlices(input: SliceInput): SlicePlan {
  const { service } = input;
  const slices = input.slices.filter((slice) => slice.metadata.deletionTimestamp === undefined);
  // What the slices should be must not depend on what the service was before: a service that has become
  // one without selector, or without addresses, loses its slices.
  if (service === undefined || !hasManagedSlices(service))
    return { create: [], update: [], remove: slices };
  const types = addressTypesOf(service);
  const owner = ownerOf(service, input.triggerTime);
  const drafts: Draft[] = [];
  const remove = slices.filter((slice) => !types.some((type) => type === slice.addressType));
  const create: EndpointSlice[] = [];
  for (const type of types) {
    const existing = slices.filter((slice) => slice.addressType === type);
    const planned = planFamily(existing, groupsOf(input, service, type));
    remove.push(...planned.spare);
    for (const draft of planned.drafts)
      if (draft.slice === undefined) create.push(newSlice(owner, type, draft));
      else drafts.push(draft);
  }
  return { create, update: drafts.flatMap((draft) => changedSlice(owner, draft)), remove };
}

/** What should be in the slices of one family, by the key of the ports. */
function groupsOf(input: SliceInput, service: Service, type: IpFamilyName): Map<string, Group> {
  const groups = new Map<string, Group>();
  const pods = [...input.pods].filter((pod) => selectsPod(service, pod));
  pods.sort((a, b) => (objectKey(a) < objectKey(b) ? -1 : 1));
  for (const pod of pods) {
    const endpoint = endpointOf(pod, service, type, input.zoneOf(pod.spec.nodeName ?? ''));
    if (endpoint === undefined) continue;
    const ports = portsOf(service, pod);
    const key = portsKey(ports);
    let group = groups.get(key);
    if (group === undefined) {
      group = { ports, endpoints: new Map() };
      groups.set(key, group);
    }
    group.endpoints.set(endpointKey(endpoint), endpoint);
  }
  return groups;
}

/** An endpoint with the same key is the same one with other conditions; with another it is another one. */
export function endpointKey(endpoint: Endpoint): string {
  const { uid, namespace, name } = endpoint.targetRef ?? {};
  return JSON.stringify([uid ?? [namespace, name], ...endpoint.addresses]);
}

/**
 * Distributes endpoints over the slices of one family.
 * @param groups what the slices should hold, by the key of the ports
 * @returns the slices as they shall be, at least one, and those that are not needed
 */
export function planFamily(
  slices: readonly EndpointSlice[],
  groups: ReadonlyMap<string, Group>,
): { drafts: Draft[]; spare: EndpointSlice[] } {
  const drafts: Draft[] = [];
  const spare: EndpointSlice[] = [];
  const byPorts = Map.groupBy(slices, (slice) => portsKey(slice.ports ?? []));
  for (const [key, group] of groups) {
    const planned = planGroup(byPorts.get(key) ?? [], group);
    drafts.push(...planned.drafts);
    spare.push(...planned.empty);
  }
  for (const [key, others] of byPorts) if (!groups.has(key)) spare.push(...others);
  // A slice that is not needed becomes the one that is: one write instead of two.
  for (const draft of drafts) draft.slice ??= spare.shift();
  if (drafts.length === 0) drafts.push(placeholder(spare));
  return { drafts, spare };
}

function planGroup(
  slices: readonly EndpointSlice[],
  group: Group,
): { drafts: Draft[]; empty: EndpointSlice[] } {
  const missing = new Map(group.endpoints);
  const kept = slices.map((slice) => keepWanted(slice, group.ports, missing));
  const added = [...missing.values()];
  for (const draft of kept)
    if (draft.isChanged) draft.endpoints.push(...added.splice(0, roomIn(draft)));
  const drafts = kept.filter((draft) => draft.endpoints.length > 0);
  const empty = kept.flatMap((d) => (d.endpoints.length === 0 && d.slice ? [d.slice] : []));
  while (added.length > 0) {
    const fullestFirst = drafts.toSorted((a, b) => roomIn(a) - roomIn(b));
    const fitting = fullestFirst.find((draft) => roomIn(draft) >= added.length);
    if (fitting !== undefined) {
      fitting.endpoints.push(...added.splice(0));
      fitting.isChanged = true;
    } else {
      const endpoints = added.splice(0, MAX_ENDPOINTS_PER_SLICE);
      drafts.push({ slice: undefined, ports: group.ports, endpoints, isChanged: true });
    }
  }
  return { drafts, empty };
}

/** The slice with what is still wanted of it; that is taken out of `missing`. */
function keepWanted(
  slice: EndpointSlice,
  ports: EndpointPort[],
  missing: Map<string, Endpoint>,
): Draft {
  const old = slice.endpoints ?? [];
  const endpoints: Endpoint[] = [];
  for (const endpoint of old) {
    const key = endpointKey(endpoint);
    const wanted = missing.get(key);
    if (wanted === undefined || endpoints.length >= MAX_ENDPOINTS_PER_SLICE) continue;
    missing.delete(key);
    endpoints.push(wanted);
  }
  return { slice, ports, endpoints, isChanged: !sameJson(old, endpoints) };
}

function roomIn(draft: Draft): number {
  return MAX_ENDPOINTS_PER_SLICE - draft.endpoints.length;
}

/**
 * One empty slice says that the service has no endpoints, where none could mean that nobody has looked yet. It keeps the
 * ports it has: the next pod most likely has them too.
 */
function placeholder(spare: EndpointSlice[]): Draft {
  const empty = spare.findIndex((slice) => (slice.endpoints ?? []).length === 0);
  const [slice] = spare.splice(Math.max(0, empty), 1);
  const isChanged = (slice?.endpoints ?? []).length > 0;
  return { slice, ports: [...(slice?.ports ?? [])], endpoints: [], isChanged };
}

/** What slices are made for, and what they have from it. */
export interface SliceOwner {
  readonly name: string;
  readonly namespace: string | undefined;
  readonly metadata: Pick<ObjectMeta, 'labels' | 'ownerReferences'>;
  /** Beside those that a slice has. */
  readonly annotations: Readonly<Record<string, string>>;
}

function ownerOf(service: Service, triggerTime: string | undefined): SliceOwner {
  const { name, namespace } = service.metadata;
  return {
    name,
    namespace,
    metadata: metadataOf(service),
    annotations: triggerTime === undefined ? {} : { [TRIGGER_TIME_ANNOTATION]: triggerTime },
  };
}

export function newSlice(
  owner: SliceOwner,
  addressType: IpFamilyName,
  draft: Draft,
): EndpointSlice {
  const { namespace, name, annotations } = owner;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: '',
      generateName: `${name.slice(0, MAX_NAME_PREFIX)}-`,
      ...(namespace === undefined ? {} : { namespace }),
      ...owner.metadata,
      ...(Object.keys(annotations).length === 0 ? {} : { annotations: { ...annotations } }),
    },
    addressType,
    endpoints: draft.endpoints,
    ports: draft.ports,
  };
}

/** The slice to be written, or none if it is as it should be. */
export function changedSlice(owner: SliceOwner, draft: Draft): EndpointSlice[] {
  const { slice, endpoints, ports } = draft;
  if (slice === undefined) return [];
  const { metadata } = owner;
  const isSame =
    !draft.isChanged &&
    sameJson(slice.endpoints ?? [], endpoints) &&
    portsKey(slice.ports ?? []) === portsKey(ports) &&
    sameJson(slice.metadata.labels, metadata.labels) &&
    sameJson(slice.metadata.ownerReferences, metadata.ownerReferences);
  if (isSame) return [];
  // Without a known trigger an old stamp would say something wrong about the new content.
  const { [TRIGGER_TIME_ANNOTATION]: _old, ...kept } = slice.metadata.annotations ?? {};
  const annotations = { ...kept, ...owner.annotations };
  return [
    { ...slice, metadata: { ...slice.metadata, ...metadata, annotations }, endpoints, ports },
  ];
}

/** What a slice has from its service. */
function metadataOf(service: Service): Pick<ObjectMeta, 'labels' | 'ownerReferences'> {
  const { name, uid = '', labels = {} } = service.metadata;
  const { [HEADLESS_LABEL]: _reserved, ...own } = labels;
  return {
    labels: {
      ...own,
      [SERVICE_NAME_LABEL]: name,
      [MANAGED_BY_LABEL]: MANAGED_BY,
      ...(service.spec.clusterIP === 'None' ? { [HEADLESS_LABEL]: '' } : {}),
    },
    ownerReferences: [
      {
        apiVersion: 'v1',
        kind: 'Service',
        name,
        uid,
        controller: true,
        blockOwnerDeletion: true,
      },
    ],
  };
}
