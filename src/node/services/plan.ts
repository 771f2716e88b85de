/**
 * From a Service and its EndpointSlices to what the balancer must hold of it. Pure; no kernel formats here.
 *
 * A *frontend* is an address, protocol and port that clients use. Its endpoints stand in numbered *slots*; the kernel
 * draws a slot at random. A change keeps the endpoints that stay in their slots, so that it writes few elements.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import type { Service, ServicePort } from '#api/core/v1/service.ts';
import type { Endpoint, EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { type Family, familyOf, type Ip, parseIp } from '#lib/ip.ts';
import { type NodeTopology, selectEndpoints } from './select.ts';

export interface EndpointTarget {
  readonly address: Ip;
  readonly port: number;
}

export interface Frontend {
  readonly family: Family;
  readonly address: Ip;
  readonly protocol: Protocol;
  readonly port: number;
  /**
   * `balance` over the slots; `reject` when the service has no endpoint anywhere; `drop` when the traffic policy is
   * Local and there are endpoints, but none here.
   */
  readonly action: 'balance' | 'reject' | 'drop';
  readonly slots: readonly EndpointTarget[];
}

export interface ServicePlan {
  readonly frontends: readonly Frontend[];
  /** What of the service is not carried out, in words. */
  readonly unsupported: readonly string[];
}

const NO_PLAN: ServicePlan = { frontends: [], unsupported: [] };
/** Another proxy's service (KEP-2447). */
const PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';
const HEADLESS_LABEL = 'service.kubernetes.io/headless';
/** `numgen` draws from this many at most; a service with more endpoints than this uses the first ones. */
const MAX_SLOTS = 65_536;

/**
 * @param previous the plan before, whose slots are kept as far as possible
 * @param skipAddresses frontends that something else on this node serves (DNS)
 */
export function planService(
  service: Service | undefined,
  slices: readonly EndpointSlice[],
  node: NodeTopology,
  options: { previous?: ServicePlan | undefined; skipAddresses?: ReadonlySet<string> } = {},
): ServicePlan {
  if (service === undefined || !isProxied(service)) return NO_PLAN;
  const addresses = (service.spec.clusterIPs ?? [service.spec.clusterIP ?? ''])
    .flatMap((text) => parseIp(text) ?? [])
    .filter((address) => !options.skipAddresses?.has(address));
  const before = new Map(options.previous?.frontends.map((f) => [frontendKey(f), f]));
  const isLocal = service.spec.internalTrafficPolicy === 'Local';
  const frontends: Frontend[] = [];
  for (const address of addresses) {
    const family = familyOf(address);
    for (const port of service.spec.ports ?? []) {
      const { endpoints, portOf } = endpointsOf(slices, port, family);
      const selected = selectEndpoints(endpoints, node);
      const targets = (isLocal ? selected.local : selected.cluster).flatMap((endpoint) => {
        const target = parseIp(endpoint.addresses[0] ?? '');
        const number = portOf.get(endpoint);
        return target === undefined || number === undefined
          ? []
          : [{ address: target, port: number }];
      });
      const identity = {
        family,
        address,
        protocol: port.protocol ?? 'TCP',
        port: port.port,
      } as const;
      const slots = assignSlots(before.get(frontendKey(identity))?.slots ?? [], targets);
      const action = slots.length > 0 ? 'balance' : selected.anyEndpoint ? 'drop' : 'reject';
      frontends.push({ ...identity, action, slots });
    }
  }
  return { frontends, unsupported: unsupportedFields(service) };
}

/** `address|protocol|port`: names a frontend among all services. */
export function frontendKey(frontend: Omit<Frontend, 'slots' | 'action' | 'family'>): string {
  return `${frontend.address}|${frontend.protocol}|${frontend.port}`;
}

/**
 * Slots for the wanted targets: who stays keeps its slot unless the slot lies behind the new end;
 * who is new takes a hole.
 */
export function assignSlots(
  previous: readonly EndpointTarget[],
  wanted: readonly EndpointTarget[],
): EndpointTarget[] {
  const rest = new Map(wanted.slice(0, MAX_SLOTS).map((target) => [targetKey(target), target]));
  const count = rest.size;
  const slots: (EndpointTarget | undefined)[] = Array.from({ length: count }, (_, i) => {
    const old = previous[i];
    if (old === undefined) return undefined;
    const stays = rest.get(targetKey(old));
    rest.delete(targetKey(old));
    return stays;
  });
  const newcomers = rest.values();
  return slots.map((slot) => slot ?? newcomers.next().value).filter((slot) => slot !== undefined);
}

export function targetKey(target: EndpointTarget): string {
  return `${target.address}|${target.port}`;
}

function isProxied(service: Service): boolean {
  const labels = service.metadata.labels ?? {};
  if (PROXY_NAME_LABEL in labels || HEADLESS_LABEL in labels) return false;
  if (service.spec.type === 'ExternalName') return false;
  return service.spec.clusterIP !== 'None' && service.spec.clusterIP !== '';
}

/** The endpoints of one service port, each once, with the port number each has for it. */
function endpointsOf(
  slices: readonly EndpointSlice[],
  port: ServicePort,
  family: Family,
): { endpoints: Endpoint[]; portOf: Map<Endpoint, number> } {
  const portOf = new Map<Endpoint, number>();
  // An endpoint may stand in two slices while it moves between them; the better news counts once.
  const byTarget = new Map<string, Endpoint>();
  for (const slice of slices) {
    if (slice.addressType !== `IPv${family}`) continue;
    const number = slice.ports?.find(
      (p) =>
        (p.name ?? '') === (port.name ?? '') && (p.protocol ?? 'TCP') === (port.protocol ?? 'TCP'),
    )?.port;
    if (number === undefined) continue;
    for (const endpoint of slice.endpoints ?? []) {
      const key = `${endpoint.addresses[0]}|${number}`;
      const other = byTarget.get(key);
      if (other !== undefined && (other.conditions?.ready ?? true)) continue;
      byTarget.set(key, endpoint);
      portOf.set(endpoint, number);
    }
  }
  return { endpoints: [...byTarget.values()], portOf };
}

function unsupportedFields({ spec }: Service): string[] {
  const found: string[] = [];
  if (spec.sessionAffinity === 'ClientIP') found.push('sessionAffinity ClientIP');
  if (spec.type === 'NodePort') found.push('node ports');
  if (spec.type === 'LoadBalancer') found.push('load balancer addresses and node ports');
  if ((spec.externalIPs?.length ?? 0) > 0) found.push('externalIPs');
  return found;
}
