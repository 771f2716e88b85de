/**
 * What an agent keeps of the API's largest lists. It reads addresses, conditions, places and ports of endpoints; the
 * rest (references to pods, owners, what kubectl applied last) is most of a slice. What is equal in many of them is
 * kept once. Pure but for what it shares.
 */
import type { Service } from '#api/core/v1/service.ts';
import type {
  Endpoint,
  EndpointConditions,
  EndpointSlice,
} from '#api/discovery/v1/endpoint-slice.ts';
import type { ObjectMeta } from '#api/meta.ts';

/** Values that are shared, per kind of value; past this each object keeps its own. A cluster has fewer nodes. */
const MAX_SHARED = 16_384;
/** A whole copy of the object, that only `kubectl apply` reads. */
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';

/** @returns what makes slices small; one function for one cache, because it shares parts among all it has seen */
export function sliceTrimmer(): (slice: EndpointSlice) => EndpointSlice {
  const strings = new Map<string, string>();
  const values = new Map<string, unknown>();
  const sharedText = (text: string): string => {
    const known = strings.get(text);
    if (known !== undefined) return known;
    if (strings.size < MAX_SHARED) strings.set(text, text);
    return text;
  };
  const shared = <T>(value: T): T => {
    const text = JSON.stringify(value);
    const known = values.get(text);
    if (known !== undefined) return known as T;
    if (values.size < MAX_SHARED) values.set(text, value);
    return value;
  };
  const conditions = new Map<number, EndpointConditions>();
  const sharedConditions = (value: EndpointConditions): EndpointConditions => {
    const { ready, serving, terminating } = value;
    const key = triState(ready) * 9 + triState(serving) * 3 + triState(terminating);
    const known = conditions.get(key);
    if (known === undefined) conditions.set(key, value);
    return known ?? value;
  };
  const trimEndpoint = (endpoint: Endpoint): Endpoint => {
    const { addresses, hostname, zone, hints } = endpoint;
    const trimmed: Endpoint = { addresses };
    if (endpoint.conditions !== undefined)
      trimmed.conditions = sharedConditions(endpoint.conditions);
    if (endpoint.nodeName !== undefined) trimmed.nodeName = sharedText(endpoint.nodeName);
    if (hostname !== undefined) trimmed.hostname = hostname;
    if (zone !== undefined) trimmed.zone = sharedText(zone);
    if (hints !== undefined) trimmed.hints = shared(hints);
    return trimmed;
  };
  return (slice) => {
    const { endpoints, ports } = slice;
    const trimmed: EndpointSlice = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: trimMeta(slice.metadata),
      addressType: slice.addressType,
    };
    if (endpoints !== undefined) trimmed.endpoints = endpoints?.map(trimEndpoint) ?? null;
    if (ports !== undefined) trimmed.ports = shared(ports);
    return trimmed;
  };
}

export function trimService(service: Service): Service {
  return { ...service, metadata: trimMeta(service.metadata) };
}

function trimMeta(meta: ObjectMeta): ObjectMeta {
  const { ownerReferences: _o, finalizers: _f, generateName: _g, annotations, ...rest } = meta;
  if (annotations === undefined) return rest;
  const { [LAST_APPLIED]: _a, ...kept } = annotations;
  return { ...rest, annotations: kept };
}

/** 0 absent, 1 false, 2 true */
function triState(value: boolean | undefined): number {
  return value === undefined ? 0 : value ? 2 : 1;
}
