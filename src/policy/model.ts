/**
 * What the policy engine knows of a cluster: pods, namespaces, nodes, and policies in one common form.
 *
 * Both kinds of policy are *compiled* to {@link CompiledPolicy}: NetworkPolicy v1 is a tier of its own whose rules only
 * accept; ClusterNetworkPolicy has the tiers before and after it. The engine, the kernel's planner, the linter and the
 * matrix all read this one form, so what is explained is what is enforced.
 */
import type { Labels, Selector } from '#api/machinery/label-selector.ts';
import type { Cidr, Ip } from '#lib/ip.ts';

export type Direction = 'ingress' | 'egress';
export const DIRECTIONS: readonly Direction[] = ['egress', 'ingress'];
export const TIER_ORDER = ['Admin', 'NetworkPolicy', 'Baseline'] as const;
export type PolicyTier = (typeof TIER_ORDER)[number];
export type Action = 'Accept' | 'Deny' | 'Pass';

/** `IPPROTO_…` of the protocols that have ports. Rules with ports match only these. */
export const PROTOCOL_NUMBERS = { TCP: 6, UDP: 17, SCTP: 132 } as const;
export const MAX_PORT = 65_535;

export interface NamedPort {
  readonly name: string;
  readonly protocol: number;
  readonly port: number;
}

export interface PolicyPod {
  /** `namespace/name` */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  /** Undefined while nobody knows them: what then cannot be decided is closed. */
  readonly labels: Labels | undefined;
  readonly ips: readonly Ip[];
  readonly node: string | undefined;
  /** Lives on its node's own network: no selector of pods finds it, and no policy is about it. */
  readonly hostNetwork: boolean;
  readonly ports: readonly NamedPort[];
}

export interface PolicyNamespace {
  readonly name: string;
  readonly labels: Labels;
}

export interface PolicyNode {
  readonly name: string;
  readonly labels: Labels;
  readonly ips: readonly Ip[];
}

/** Which pods a selector is about. */
export interface PodChoice {
  /** Only this namespace; undefined: those of `namespaces`. */
  readonly namespace: string | undefined;
  readonly namespaces: Selector;
  readonly pods: Selector;
}

export type Peer =
  | ({ readonly kind: 'pods' } & PodChoice)
  | { readonly kind: 'network'; readonly cidr: Cidr; readonly except: readonly Cidr[] }
  | { readonly kind: 'nodes'; readonly nodes: Selector }
  | { readonly kind: 'domain'; readonly name: string }
  /** Of a newer version of the API: nobody can say whom it means. */
  | { readonly kind: 'unknown' };

export type PortMatch =
  | {
      readonly kind: 'range';
      readonly protocol: number;
      readonly low: number;
      readonly high: number;
    }
  /** A port of the destination pod. Without protocol: of any. */
  | { readonly kind: 'named'; readonly name: string; readonly protocol: number | undefined };

export interface CompiledRule {
  /** Its place in the policy's list of this direction. */
  readonly index: number;
  readonly name: string | undefined;
  readonly action: Action;
  /** Undefined: everybody. */
  readonly peers: readonly Peer[] | undefined;
  /** Undefined: every protocol and port. */
  readonly ports: readonly PortMatch[] | undefined;
}

export interface CompiledPolicy {
  /** `NetworkPolicy default/web` or `ClusterNetworkPolicy deny-all`: unique, and what people read. */
  readonly id: string;
  readonly kind: 'NetworkPolicy' | 'ClusterNetworkPolicy';
  readonly namespace: string | undefined;
  readonly name: string;
  readonly tier: PolicyTier;
  /** Lower goes first; 0 for NetworkPolicies, whose order means nothing. */
  readonly priority: number;
  readonly subject: PodChoice;
  /** Undefined: the policy says nothing of this direction. An empty list isolates (NetworkPolicy). */
  readonly ingress: readonly CompiledRule[] | undefined;
  readonly egress: readonly CompiledRule[] | undefined;
  /** Logs what it would do and enforces nothing. */
  readonly staged: boolean;
  /** Log a sample of what its rules accept too. */
  readonly logsAccepts: boolean;
  /** What could not be understood, and was closed. */
  readonly problems: readonly string[];
}

export interface World {
  readonly pods: ReadonlyMap<string, PolicyPod>;
  readonly namespaces: ReadonlyMap<string, PolicyNamespace>;
  readonly nodes: ReadonlyMap<string, PolicyNode>;
  readonly policies: readonly CompiledPolicy[];
  /** Addresses that pods have been told for names that the pattern matches. Default: none. */
  readonly resolved?: (pattern: string) => readonly Ip[];
}

/** In the order in which they are asked: tier, priority, name. */
export function comparePolicies(a: CompiledPolicy, b: CompiledPolicy): number {
  return (
    TIER_ORDER.indexOf(a.tier) - TIER_ORDER.indexOf(b.tier) ||
    a.priority - b.priority ||
    (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
  );
}

/** `TCP`, or the number of a protocol without a name here. */
export function protocolName(number: number): string {
  for (const [name, value] of Object.entries(PROTOCOL_NUMBERS)) if (value === number) return name;
  return number === 1 ? 'ICMP' : number === 58 ? 'ICMPv6' : `protocol ${number}`;
}
