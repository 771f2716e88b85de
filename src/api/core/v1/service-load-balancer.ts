/**
 * What a service of type LoadBalancer asks for, and when two may share an address. Pure; the controller that chooses
 * addresses and the admission that guards them both go by it.
 */
import { type Ip, parseIp } from '#lib/ip.ts';
import type { Service } from './service.ts';

/** Services with this class, or with none, get their addresses from Tulle's pools; others are somebody else's. */
export const LOAD_BALANCER_CLASS = 'tulle.dev/load-balancer';

/** Addresses wished for, at most one of each family, with commas between. */
export const ADDRESSES_ANNOTATION = 'tulle.dev/load-balancer-addresses';
/** The pool that the addresses shall come from. */
export const POOL_ANNOTATION = 'tulle.dev/address-pool';
/** Services with the same key may have one address together, each with its own ports. */
export const SHARING_KEY_ANNOTATION = 'tulle.dev/sharing-key';
/** The same wishes as MetalLB spells them, so that manifests need no change. */
const METALLB_NAMES: Readonly<Record<string, string>> = {
  [ADDRESSES_ANNOTATION]: 'metallb.io/loadBalancerIPs',
  [POOL_ANNOTATION]: 'metallb.io/address-pool',
  [SHARING_KEY_ANNOTATION]: 'metallb.io/allow-shared-ip',
};

/** Whether the service has an address to show to clients. */
export const ADDRESS_ASSIGNED_CONDITION = 'tulle.dev/AddressAssigned';
/** Whether the network outside is told where the address is. */
export const ADDRESS_ANNOUNCED_CONDITION = 'tulle.dev/AddressAnnounced';

/** What one service uses of an address. */
export interface AddressClaim {
  readonly namespace: string;
  readonly name: string;
  /** Empty: it shares with nobody. */
  readonly sharingKey: string;
  /** `TCP/80`, sorted. */
  readonly ports: readonly string[];
  /**
   * With traffic policy Local, the nodes that may take traffic follow from the endpoints, so only services of the same
   * endpoints can share; empty for policy Cluster.
   */
  readonly backend: string;
}

export type AddressWish =
  | { readonly kind: 'any' }
  | { readonly kind: 'addresses'; readonly addresses: readonly Ip[] }
  | { readonly kind: 'malformed'; readonly text: string };

/** Whether the service's load balancer is Tulle's. */
export function isOurLoadBalancer({ spec }: Service): boolean {
  const { type, loadBalancerClass } = spec ?? {};
  return (
    type === 'LoadBalancer' &&
    (loadBalancerClass === undefined || loadBalancerClass === LOAD_BALANCER_CLASS)
  );
}

/** The addresses that the service shows, in its order; an entry that is a name or no address is left out. */
export function ingressAddresses(service: Service): Ip[] {
  return (service.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => parseIp(ip ?? '') ?? []);
}

/** The addresses that the annotation asks for, or else `spec.loadBalancerIP`. */
export function wishedAddresses(service: Service): AddressWish {
  const text =
    annotationOf(service, ADDRESSES_ANNOTATION) ?? (service.spec.loadBalancerIP || undefined);
  if (text === undefined) return { kind: 'any' };
  const addresses: Ip[] = [];
  for (const part of text.split(',')) {
    const address = parseIp(part.trim());
    if (address === undefined) return { kind: 'malformed', text };
    if (!addresses.includes(address)) addresses.push(address);
  }
  return { kind: 'addresses', addresses };
}

/** @returns `undefined` if any pool will do */
export function wishedPool(service: Service): string | undefined {
  return annotationOf(service, POOL_ANNOTATION);
}

export function claimOf(service: Service): AddressClaim {
  const { ports = [], externalTrafficPolicy, selector = {} } = service.spec;
  const pairs = Object.entries(selector).sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    namespace: service.metadata.namespace ?? '',
    name: service.metadata.name,
    sharingKey: annotationOf(service, SHARING_KEY_ANNOTATION) ?? '',
    ports: ports.map(({ protocol = 'TCP', port }) => `${protocol}/${port}`).sort(),
    backend: externalTrafficPolicy === 'Local' ? JSON.stringify(pairs) : '',
  };
}

/** @returns why two services cannot have one address together, or `undefined` if they can */
export function whyNotShared(mine: AddressClaim, other: AddressClaim): string | undefined {
  const who = `${other.namespace}/${other.name}`;
  if (mine.sharingKey === '' || mine.sharingKey !== other.sharingKey)
    return `it is the address of service ${who}, and the two have no common sharing key (annotation ${SHARING_KEY_ANNOTATION})`;
  const port = mine.ports.find((it) => other.ports.includes(it));
  if (port !== undefined) return `service ${who}, which shares it, uses ${port} too`;
  return mine.backend === other.backend
    ? undefined
    : `service ${who}, which shares it, has another externalTrafficPolicy or, with Local, another selector`;
}

function annotationOf(service: Service, name: string): string | undefined {
  const annotations = service.metadata.annotations ?? {};
  return annotations[name] || annotations[METALLB_NAMES[name] ?? ''] || undefined;
}
