/**
 * Which endpoints of a service port this node sends to. The algorithm is kube-proxy's
 * (`k8s.io/kubernetes/pkg/proxy/topology.go`): users rely on every corner of it.
 */
import type { Endpoint } from '#api/discovery/v1/endpoint-slice.ts';

export interface NodeTopology {
  readonly nodeName: string;
  readonly zone: string | undefined;
}

/** What the choice depends on. */
export interface Selectable {
  readonly conditions?: Endpoint['conditions'] | undefined;
  readonly nodeName?: string | undefined;
  readonly hints?: Endpoint['hints'] | undefined;
}

export interface SelectedEndpoints<T extends Selectable> {
  /** For traffic policy Cluster. */
  readonly cluster: readonly T[];
  /** For traffic policy Local. */
  readonly local: readonly T[];
  /** False: the service answers nowhere, so connections are refused; else a missing local endpoint means silence. */
  readonly anyEndpoint: boolean;
}

export function selectEndpoints<T extends Selectable>(
  endpoints: readonly T[],
  node: NodeTopology,
): SelectedEndpoints<T> {
  // Nearly always all are ready and none is here: then nothing is copied.
  const ready = endpoints.every(isReady) ? endpoints : endpoints.filter(isReady);
  const serving = endpoints.some(isServingTerminating)
    ? endpoints.filter(isServingTerminating)
    : [];
  const filter = topologyFilter(ready, node);
  const inTopology = filter === undefined ? ready : ready.filter(filter);
  const isLocal = (endpoint: Selectable) => endpoint.nodeName === node.nodeName;
  const localReady = ready.filter(isLocal);
  return {
    cluster: inTopology.length > 0 ? inTopology : serving,
    local: localReady.length > 0 ? localReady : serving.filter(isLocal),
    anyEndpoint: ready.length > 0 || serving.length > 0,
  };
}

/** `discovery/v1`: a missing condition `ready` means true. */
export function isReady(endpoint: Selectable): boolean {
  return endpoint.conditions?.ready ?? true;
}

function isServingTerminating(endpoint: Selectable): boolean {
  const { serving = true, terminating = false } = endpoint.conditions ?? {};
  return serving && terminating;
}

/** Hints count only if every ready endpoint carries them and at least one points here; else they are ignored for all (undefined). */
function topologyFilter(
  ready: readonly Selectable[],
  node: NodeTopology,
): ((endpoint: Selectable) => boolean) | undefined {
  const forThisNode = (e: Selectable) =>
    e.hints?.forNodes?.some((hint) => hint.name === node.nodeName) ?? false;
  const forThisZone = (e: Selectable) =>
    e.hints?.forZones?.some((hint) => hint.name === node.zone) ?? false;
  const all = (has: (e: Selectable) => boolean) => ready.length > 0 && ready.every(has);
  if (all((e) => (e.hints?.forNodes?.length ?? 0) > 0) && ready.some(forThisNode))
    return forThisNode;
  const zoned = all((e) => (e.hints?.forZones?.length ?? 0) > 0);
  if (node.zone !== undefined && zoned && ready.some(forThisZone)) return forThisZone;
  return undefined;
}
