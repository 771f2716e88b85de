/**
 * The table of flows that the tracer and real packets are both held to: source × frontend × policy × affinity ×
 * endpoints × family × protocol, and what must become of each. The expectations are written from Kubernetes' rules
 * alone and share no code with the plan.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { Endpoint, EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { type Family, type Ip, ip } from '#lib/ip.ts';

/** Two pods of this node, one of another node, the node, and two clients outside. */
export const PLACES = ['podA', 'podB', 'remote', 'node', 'client', 'stranger'] as const;
export type Place = (typeof PLACES)[number];
export const ADDRESS: Readonly<Record<Family, Readonly<Record<Place, Ip>>>> = {
  4: {
    podA: ip('10.244.1.2'),
    podB: ip('10.244.2.2'),
    remote: ip('10.244.9.2'),
    node: ip('192.0.2.1'),
    client: ip('203.0.113.5'),
    stranger: ip('203.0.113.6'),
  },
  6: {
    podA: ip('fd00:244:1::2'),
    podB: ip('fd00:244:2::2'),
    remote: ip('fd00:244:9::2'),
    node: ip('2001:db8::1'),
    client: ip('2001:db8:5::5'),
    stranger: ip('2001:db8:5::6'),
  },
};
/** The node's links to them. */
export const LINK: Readonly<Record<Place, string>> = {
  ...{ podA: 'tla', podB: 'tlb', remote: 'remote0' },
  ...{ node: 'lo', client: 'up0', stranger: 'up0' },
};
export const TARGET_PORT = 8080;

export const LAYOUTS = {
  mixed: { podA: 'ready', remote: 'ready' },
  here: { podA: 'ready' },
  elsewhere: { remote: 'ready' },
  none: {},
  'ending here': { podA: 'ending', remote: 'ready' },
  'all ending': { podA: 'ending', remote: 'ending' },
  'not ready': { podA: 'not ready', remote: 'not ready' },
} as const satisfies Record<string, Partial<Record<Place, 'ready' | 'ending' | 'not ready'>>>;
export type Layout = keyof typeof LAYOUTS;
export const POLICIES = ['Cluster', 'internal Local', 'external Local', 'ranges'] as const;
export type Policy = (typeof POLICIES)[number];
export const FRONTENDS = ['cluster IP', 'node port', 'external IP', 'load balancer'] as const;
export type FrontendKind = (typeof FRONTENDS)[number];
const SOURCES = ['podA', 'podB', 'node', 'client', 'stranger'] as const;

export interface FlowService {
  readonly number: number;
  readonly policy: Policy;
  readonly layout: Layout;
  readonly affinity: boolean;
  readonly protocol: Protocol;
  readonly family: Family;
}

/** Cluster IPs, as it were, that lead nowhere. */
const STRAYS = {
  'wrong port': undefined,
  'unused cluster IP': { 4: ip('10.96.200.7'), 6: ip('fd00:96::c807') },
  'last of the range': { 4: ip('10.96.255.255'), 6: ip('fd00:96::ffff') },
  'first of another range': { 4: ip('10.97.0.0'), 6: ip('fd00:97::') },
} as const satisfies Record<string, Readonly<Record<Family, Ip>> | undefined>;

export interface Flow {
  readonly title: string;
  readonly service: FlowService;
  readonly frontend: FrontendKind | keyof typeof STRAYS;
  readonly source: (typeof SOURCES)[number];
  readonly destination: Ip;
  readonly port: number;
  readonly expected: Expected;
}

export type Expected =
  | { readonly verdict: 'drop' | 'reject' }
  | {
      readonly verdict: 'accept';
      /** Where it may arrive, and whether it arrives with another source. */
      readonly endpoints: readonly { readonly place: Place; readonly isMasqueraded: boolean }[];
    };

export function flowServices(
  choose: { protocols?: readonly Protocol[]; affinity?: readonly boolean[] } = {},
): FlowService[] {
  const services: FlowService[] = [];
  for (const family of [4, 6] as const)
    for (const protocol of choose.protocols ?? (['TCP', 'UDP', 'SCTP'] as const))
      for (const affinity of choose.affinity ?? [false, true])
        for (const policy of POLICIES)
          for (const layout of Object.keys(LAYOUTS) as Layout[])
            services.push({
              ...{ number: services.length + 1, policy, layout, affinity, protocol, family },
            });
  return services;
}

export function flowsOf(service: FlowService): Flow[] {
  return FRONTENDS.flatMap((frontend) =>
    SOURCES.map((source): Flow => {
      const { policy, layout, affinity, protocol, family } = service;
      const words = [`${source} to ${frontend}`, `policy ${policy}`, `endpoints ${layout}`];
      return {
        title: `${words.join(', ')}${affinity ? ', affinity' : ''}, ${protocol}, IPv${family}`,
        ...{ service, frontend, source },
        destination: addressOf(service, frontend),
        port: frontend === 'node port' ? nodePortOf(service) : 80,
        expected: expectedOf(service, frontend, source),
      };
    }),
  );
}

/** Flows to what no service has: refused at once, from everywhere. */
export function strayFlowsOf(service: FlowService): Flow[] {
  const { protocol, family } = service;
  return (Object.keys(STRAYS) as (keyof typeof STRAYS)[]).flatMap((frontend) =>
    SOURCES.map((source): Flow => {
      const destination = STRAYS[frontend]?.[family] ?? addressOf(service, 'cluster IP');
      return {
        title: `${source} to ${frontend}, ${protocol}, IPv${family}`,
        ...{ service, frontend, source, destination },
        port: frontend === 'wrong port' ? 81 : 80,
        expected: { verdict: 'reject' },
      };
    }),
  );
}

/** Kubernetes' rules, in short. */
function expectedOf(
  { policy, layout }: FlowService,
  frontend: FrontendKind,
  source: (typeof SOURCES)[number],
): Expected {
  if (policy === 'ranges' && frontend === 'load balancer' && source !== 'client')
    return { verdict: 'drop' };
  const endpoints = Object.entries(LAYOUTS[layout]) as [Place, string][];
  const are = (state: string, here: boolean) =>
    endpoints.flatMap(([place, is]) =>
      is === state && (!here || place === 'podA') ? [place] : [],
    );
  const first = (...lists: Place[][]) => lists.find((list) => list.length > 0) ?? [];
  const anywhere = first(are('ready', false), are('ending', false));
  const here = first(are('ready', true), are('ending', true));
  const isInside = source === 'podA' || source === 'podB' || source === 'node';
  const isLocal =
    frontend === 'cluster IP'
      ? policy === 'internal Local'
      : policy === 'external Local' && !isInside;
  const chosen = isLocal ? here : anywhere;
  if (chosen.length === 0) return { verdict: isLocal && anywhere.length > 0 ? 'drop' : 'reject' };
  const isFromPod = source === 'podA' || source === 'podB';
  return {
    verdict: 'accept',
    endpoints: chosen.map((place) => ({
      place,
      isMasqueraded: place === source || (!isFromPod && place === 'remote'),
    })),
  };
}

export function serviceObject(service: FlowService): Service {
  const { policy, family, protocol, affinity } = service;
  const clusterIP = addressOf(service, 'cluster IP');
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `s${service.number}`, namespace: 'default' },
    spec: {
      type: 'LoadBalancer',
      clusterIP,
      clusterIPs: [clusterIP],
      ipFamilies: [`IPv${family}`],
      ports: [{ port: 80, protocol, targetPort: TARGET_PORT, nodePort: nodePortOf(service) }],
      externalIPs: [addressOf(service, 'external IP')],
      internalTrafficPolicy: policy === 'internal Local' ? 'Local' : 'Cluster',
      externalTrafficPolicy: policy === 'external Local' ? 'Local' : 'Cluster',
      ...(affinity ? { sessionAffinity: 'ClientIP' } : {}),
      ...(policy === 'ranges'
        ? {
            loadBalancerSourceRanges: [
              `${ADDRESS[family].client}/${family === 4 ? 32 : 128}`,
              family === 4 ? '198.51.100.0/24' : '2001:db8:77::/48',
            ],
          }
        : {}),
    },
    status: { loadBalancer: { ingress: [{ ip: addressOf(service, 'load balancer') }] } },
  };
}

export function sliceObject(service: FlowService): EndpointSlice {
  const { family, protocol, layout, number } = service;
  const entries = Object.entries(LAYOUTS[layout]) as [Place, 'ready' | 'ending' | 'not ready'][];
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `s${number}-1`,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': `s${number}` },
    },
    addressType: `IPv${family}`,
    ports: [{ name: '', protocol, port: TARGET_PORT }],
    endpoints: entries.map(
      ([place, state]): Endpoint => ({
        addresses: [ADDRESS[family][place]],
        conditions: {
          ready: state === 'ready',
          serving: state !== 'not ready',
          terminating: state === 'ending',
        },
        nodeName: place === 'remote' ? 'm2' : 'm1',
      }),
    ),
  };
}

function nodePortOf({ number }: FlowService): number {
  return 30_000 + number;
}

function addressOf({ number, family }: FlowService, frontend: FrontendKind): Ip {
  if (frontend === 'node port') return ADDRESS[family].node;
  const [high, low] = [number >> 8, number & 255];
  const prefixes = {
    'cluster IP': { 4: '10.96', 6: 'fd00:96' },
    'external IP': { 4: '198.18', 6: '2001:db8:e' },
    'load balancer': { 4: '198.19', 6: '2001:db8:f' },
  } as const;
  const prefix = prefixes[frontend][family];
  return ip(family === 4 ? `${prefix}.${high}.${low}` : `${prefix}::${number.toString(16)}`);
}
