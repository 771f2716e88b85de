/**
 * From a Service and its EndpointSlices to what the balancer must hold of it. Pure; no kernel formats here.
 *
 * A *frontend* is an address, protocol and port that clients use: of a cluster IP, an external IP, a load balancer or
 * a node. Its endpoints stand in numbered *slots*; the kernel chooses a slot. Clients inside (pods of this node and the
 * node itself) and outside may be given different choices.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import {
  DEFAULT_AFFINITY_SECONDS,
  type Service,
  type ServicePort,
  type TrafficPolicy,
} from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import {
  type Cidr,
  cidrContains,
  type Family,
  familyOf,
  hostCidr,
  type Ip,
  networkAddress,
  parseCidr,
  parseIp,
  prefixLengthOf,
} from '#lib/ip.ts';
import { type Candidate, candidatesOf } from './endpoints.ts';
import { type NodeTopology, type SelectedEndpoints, selectEndpoints } from './select.ts';
import { assignSlots, consistentSlots, type EndpointTarget, orderedSlots } from './slots.ts';

/** What is done with a new connection. */
export interface Choice {
  /**
   * `balance` over the slots; `reject` when the service has no endpoint anywhere; `drop` when the traffic policy is
   * Local and there are endpoints, but none here: a load balancer in front tries another node then.
   */
  readonly action: 'balance' | 'reject' | 'drop';
  readonly slots: readonly EndpointTarget[];
}

export interface Frontend {
  /** {@link frontendKey} */
  readonly key: string;
  readonly family: Family;
  readonly address: Ip;
  readonly protocol: Protocol;
  readonly port: number;
  readonly kind: 'cluster' | 'external';
  /** How a slot is chosen: at random, or by the client's address. */
  readonly pick: 'random' | 'hash';
  /** For pods of this node and the node itself. */
  readonly inside: Choice;
  /** For all others; the same object if there is no difference. */
  readonly outside: Choice;
  /** A client stays with its endpoint until it was silent for so long. */
  readonly affinitySeconds: number | undefined;
  /** Only clients from here; no prefix lies in another. Undefined: all. */
  readonly sources: readonly Cidr[] | undefined;
}

export interface ServicePlan {
  readonly frontends: readonly Frontend[];
  /** Endpoints that may be pods of this node: they can meet themselves through the service. */
  readonly localAddresses: readonly Ip[];
  /** What of the service is not carried out, in words. */
  readonly problems: readonly string[];
}

export interface PlanContext {
  readonly node: NodeTopology;
  /** Addresses that something else on this node serves (DNS). */
  readonly skipAddresses?: ReadonlySet<string>;
  /** Addresses of this node on which node ports are open. */
  readonly nodePortAddresses?: readonly Ip[];
  /** False: the kernel cannot choose by a hash, so what asks for that is balanced at random. */
  readonly canHash?: boolean;
}

/** `random` (default), `source-hash`, or `maglev`: a consistent hash of the client's address. */
export const BALANCE_ANNOTATION = 'tulle.dev/balance';
/** Another proxy's service (KEP-2447). */
const PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';
const HEADLESS_LABEL = 'service.kubernetes.io/headless';

const FAMILIES = [4, 6] as const;
const IPV4 = [4] as const;
const IPV6 = [6] as const;
const NO_ADDRESSES: readonly Ip[] = [];
const NO_STARTS: readonly (Start & { readonly port: number })[] = [];
const NO_PROBLEMS: readonly string[] = [];
const NO_PLAN: ServicePlan = {
  ...{ frontends: [], localAddresses: NO_ADDRESSES, problems: NO_PROBLEMS },
};
const REJECT: Choice = { action: 'reject', slots: [] };
const DROP: Choice = { action: 'drop', slots: [] };
type Balance = 'random' | 'source-hash' | 'maglev';
const BALANCES: readonly string[] = ['random', 'source-hash', 'maglev'] satisfies Balance[];

/** @param previous the plan before, whose slots are kept as far as possible */
export function planService(
  service: Service | undefined,
  slices: readonly EndpointSlice[],
  context: PlanContext,
  previous?: ServicePlan,
): ServicePlan {
  if (service === undefined || !isProxied(service)) return NO_PLAN;
  const problems: string[] = [];
  const { skipAddresses } = context;
  const all = addressesOf(service, context, problems);
  const addresses =
    skipAddresses === undefined || skipAddresses.size === 0
      ? all
      : all.filter(({ address }) => !skipAddresses.has(address));
  const wishes = wishesOf(service, problems, context.canHash ?? true);
  const frontends: Frontend[] = [];
  const seen = new Seen();
  let local: Set<Ip> | undefined;
  const families = familiesOf(service);
  for (const port of service.spec.ports ?? []) {
    for (const family of families) {
      const starts: (Start & { readonly port?: number })[] = [];
      for (const start of addresses) if (start.family === family) starts.push(start);
      for (const start of nodePortStarts(service, port, family, context)) starts.push(start);
      if (starts.length === 0) continue;
      const candidates = candidatesOf(slices, port, family);
      for (const { target, nodeName } of candidates)
        if (nodeName === undefined || nodeName === context.node.nodeName) {
          local ??= new Set();
          local.add(target.address);
        }
      const choices = new Choices(selectEndpoints(candidates, context.node), wishes.balance);
      for (const { address, kind, sources, port: number = port.port } of starts) {
        const protocol = port.protocol ?? 'TCP';
        const key = frontendKey({ address, protocol, port: number });
        if (seen.hadBefore(key)) continue;
        const inside = kind === 'cluster' ? wishes.internal : 'Cluster';
        const outside = kind === 'cluster' ? wishes.internal : wishes.external;
        const old = previous?.frontends.find((it) => it.key === key);
        const insideChoice = choices.of(inside, old?.inside);
        // One literal: there are as many of these as services, and spreading makes them many times as dear.
        frontends.push({
          key,
          family,
          address,
          protocol,
          port: number,
          kind,
          pick: wishes.balance === 'random' ? 'random' : 'hash',
          inside: insideChoice,
          outside: inside === outside ? insideChoice : choices.of(outside, old?.outside),
          affinitySeconds: wishes.affinitySeconds,
          sources,
        });
      }
    }
  }
  return {
    // Without the room that an array keeps for more.
    frontends: frontends.slice(),
    localAddresses: local === undefined ? NO_ADDRESSES : [...local],
    problems: problems.length === 0 ? NO_PROBLEMS : problems,
  };
}

/** A service is of the families of its cluster IPs, whatever other addresses it names and the node has. */
function familiesOf({ spec }: Service): readonly Family[] {
  const addresses = spec.clusterIPs ?? [spec.clusterIP ?? ''];
  const isIpv6 = addresses.some((text) => text.includes(':'));
  const isIpv4 = addresses.some((text) => text.includes('.'));
  return isIpv4 === isIpv6 ? FAMILIES : isIpv4 ? IPV4 : IPV6;
}

/** What was there before. Nearly all services have one frontend, and need no set for it. */
class Seen {
  #first: string | undefined;
  #others: Set<string> | undefined;

  /** Adds the key. @returns whether it was there */
  hadBefore(key: string): boolean {
    if (this.#first === undefined) {
      this.#first = key;
      return false;
    }
    if (this.#first === key || this.#others?.has(key) === true) return true;
    this.#others ??= new Set();
    this.#others.add(key);
    return false;
  }
}

/** `address|protocol|port`: names a frontend among all services. */
export function frontendKey(frontend: Pick<Frontend, 'address' | 'protocol' | 'port'>): string {
  return `${frontend.address}|${frontend.protocol}|${frontend.port}`;
}

interface Start {
  readonly family: Family;
  readonly address: Ip;
  readonly kind: Frontend['kind'];
  readonly sources?: readonly Cidr[];
}

/** Where the service is reached, node ports aside. */
function addressesOf(service: Service, context: PlanContext, problems: string[]): Start[] {
  const { spec, status } = service;
  const starts: Start[] = [];
  for (const text of spec.clusterIPs ?? [spec.clusterIP ?? '']) {
    const address = parseIp(text);
    if (address !== undefined) starts.push({ family: familyOf(address), address, kind: 'cluster' });
  }
  if (spec.type === 'LoadBalancer') {
    const ranges = sourcesOf(service, problems);
    const isNodeIn = context.nodePortAddresses?.some((address) =>
      ranges?.some((range) => contains(range, hostCidr(address))),
    );
    for (const { ip: text = '', ipMode } of status?.loadBalancer?.ingress ?? []) {
      const address = parseIp(text);
      // Mode Proxy: the load balancer ends the connection, so its address must not be captured here.
      if (address === undefined || ipMode === 'Proxy') continue;
      const sources = ranges?.filter((range) => familyOf(range) === familyOf(address));
      // A node that has the address itself talks to it from it, and is meant by its other address.
      if (isNodeIn && !sources?.some((range) => contains(range, hostCidr(address))))
        sources?.push(hostCidr(address));
      starts.push({
        ...{ family: familyOf(address), address, kind: 'external' },
        ...(sources === undefined ? {} : { sources }),
      });
    }
  }
  for (const text of spec.externalIPs ?? []) {
    const address = parseIp(text);
    if (address !== undefined)
      starts.push({ family: familyOf(address), address, kind: 'external' });
  }
  return starts;
}

/** loadBalancerSourceRanges as disjoint prefixes; undefined if all may come. What cannot be read lets nobody in. */
function sourcesOf({ spec }: Service, problems: string[]): Cidr[] | undefined {
  const texts = spec.loadBalancerSourceRanges ?? [];
  if (texts.length === 0) return undefined;
  const ranges = texts.flatMap((text) => {
    const range = parseCidr(text.trim());
    if (range === undefined) problems.push(`loadBalancerSourceRanges: "${text}" is no prefix`);
    return range ?? [];
  });
  return withoutContained(ranges);
}

/** Prefixes nest or are apart; those inside another say nothing more. */
export function withoutContained(ranges: readonly Cidr[]): Cidr[] {
  const unique = [...new Set(ranges)];
  return unique.filter(
    (range) => !unique.some((other) => other !== range && contains(other, range)),
  );
}

function contains(outer: Cidr, inner: Cidr): boolean {
  if (familyOf(outer) !== familyOf(inner)) return false;
  return (
    prefixLengthOf(outer) <= prefixLengthOf(inner) && cidrContains(outer, networkAddress(inner))
  );
}

function nodePortStarts(
  { spec }: Service,
  port: ServicePort,
  family: Family,
  context: PlanContext,
): readonly (Start & { readonly port: number })[] {
  const { nodePort = 0 } = port;
  if (nodePort === 0 || (spec.type !== 'NodePort' && spec.type !== 'LoadBalancer'))
    return NO_STARTS;
  return (context.nodePortAddresses ?? [])
    .filter((address) => familyOf(address) === family)
    .map((address) => ({ family, address, kind: 'external', port: nodePort }));
}

interface Wishes {
  readonly internal: TrafficPolicy;
  readonly external: TrafficPolicy;
  readonly balance: Balance;
  readonly affinitySeconds: number | undefined;
}

function wishesOf({ spec, metadata }: Service, problems: string[], canHash: boolean): Wishes {
  const balance = metadata.annotations?.[BALANCE_ANNOTATION] ?? 'random';
  if (!BALANCES.includes(balance))
    problems.push(`${BALANCE_ANNOTATION}: "${balance}" is none of ${BALANCES.join(', ')}`);
  if (!canHash && balance !== 'random')
    problems.push(`${BALANCE_ANNOTATION}: the kernel has no CONFIG_NFT_HASH; balanced at random`);
  return {
    internal: spec.internalTrafficPolicy ?? 'Cluster',
    external: spec.externalTrafficPolicy ?? 'Cluster',
    balance: canHash && BALANCES.includes(balance) ? (balance as Balance) : 'random',
    affinitySeconds:
      spec.sessionAffinity === 'ClientIP'
        ? (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? DEFAULT_AFFINITY_SECONDS)
        : undefined,
  };
}

/** The choices of one port. Frontends share them: a service has few, whatever number of addresses it has. */
class Choices {
  readonly #selected: SelectedEndpoints<Candidate>;
  readonly #balance: Balance;
  readonly #made = new Map<TrafficPolicy, Choice>();

  constructor(selected: SelectedEndpoints<Candidate>, balance: Balance) {
    this.#selected = selected;
    this.#balance = balance;
  }

  of(policy: TrafficPolicy, previous: Choice | undefined): Choice {
    const made = this.#made.get(policy);
    if (made !== undefined) return made;
    const choice = this.#make(policy, previous);
    this.#made.set(policy, choice);
    return choice;
  }

  #make(policy: TrafficPolicy, previous: Choice | undefined): Choice {
    const wanted = policy === 'Local' ? this.#selected.local : this.#selected.cluster;
    const slots =
      this.#balance === 'random'
        ? assignSlots(previous?.slots ?? [], wanted)
        : this.#balance === 'source-hash'
          ? orderedSlots(wanted)
          : consistentSlots(wanted);
    if (slots.length > 0) return { action: 'balance', slots };
    return policy === 'Local' && this.#selected.anyEndpoint ? DROP : REJECT;
  }
}

function isProxied(service: Service): boolean {
  const labels = service.metadata.labels ?? {};
  if (PROXY_NAME_LABEL in labels || HEADLESS_LABEL in labels) return false;
  if (service.spec.type === 'ExternalName') return false;
  return service.spec.clusterIP !== 'None' && service.spec.clusterIP !== '';
}
