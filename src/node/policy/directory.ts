/**
 * Pods, namespaces and nodes as policy sees them, found by namespace and by label; and the address sets that follow
 * them. Pure: a change in, the changes of set elements out.
 *
 * A change costs one look at each set that is in use; a new set costs the pods that it may hold, not all there are.
 */
import {
  type Labels,
  matchLabels,
  type Requirement,
  type Selector,
} from '#api/machinery/label-selector.ts';
import { type Ip, ipToBytes } from '#lib/ip.ts';
import { chooses } from '#policy/match.ts';
import type { PodChoice, PolicyNamespace, PolicyNode, PolicyPod } from '#policy/model.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { addressProtocolPort, tableFamilyOf } from '#wire/nftables/values.ts';
import type { MovingPeer, NeededSet, NftFamilyName } from './rules.ts';

/** Changes of one set, by family. */
export interface ElementChange {
  readonly set: string;
  readonly family: NftFamilyName;
  readonly add: readonly SetElement[];
  readonly remove: readonly SetElement[];
}

type FollowedSet = Exclude<NeededSet, { kind: 'fixed' }>;

interface Followed {
  readonly needed: FollowedSet;
  /** How many owners give an element: two pods may have one address for a moment. */
  readonly counts: Map<string, number>;
}

const NO_PODS: ReadonlySet<PolicyPod> = new Set();

export class Directory {
  readonly pods = new Map<string, PolicyPod>();
  readonly namespaces = new Map<string, PolicyNamespace>();
  readonly nodes = new Map<string, PolicyNode>();
  readonly #byNamespace = new Map<string, PodIndex>();
  readonly #everywhere = new PodIndex();
  readonly #namespacesByLabel = new Map<string, Set<PolicyNamespace>>();
  readonly #byIp = new Map<Ip, Set<PolicyPod>>();
  readonly #sets = new Map<string, Followed>();
  /** Elements that have come and gone since {@link takeChanges}: set → element → present. */
  readonly #changed = new Map<string, Map<string, boolean>>();
  readonly #resolved: (pattern: string) => readonly Ip[];

  /** @param resolved addresses that pods have been told for a domain name's pattern */
  constructor(resolved: (pattern: string) => readonly Ip[] = () => []) {
    this.#resolved = resolved;
  }

  get setNames(): ReadonlySet<string> {
    return new Set(this.#sets.keys());
  }

  /** The pod that has this address; of several, one that is not on its node's network. */
  podAt(address: Ip): PolicyPod | undefined {
    let found: PolicyPod | undefined;
    for (const pod of this.#byIp.get(address) ?? NO_PODS)
      if (found === undefined || found.hostNetwork) found = pod;
    return found;
  }

  nodeAt(address: Ip): PolicyNode | undefined {
    for (const node of this.nodes.values()) if (node.ips.includes(address)) return node;
    return undefined;
  }

  podsIn(namespace: string): ReadonlySet<PolicyPod> {
    return this.#byNamespace.get(namespace)?.pods ?? NO_PODS;
  }

  setPod(key: string, pod: PolicyPod | undefined): void {
    const old = this.pods.get(key);
    if (old !== undefined) this.#unindex(old);
    if (pod === undefined) this.pods.delete(key);
    else {
      this.pods.set(key, pod);
      this.#index(pod);
    }
    for (const followed of this.#sets.values()) {
      const before = old === undefined ? [] : elementsOfPod(followed.needed, old, this.namespaces);
      const after = pod === undefined ? [] : elementsOfPod(followed.needed, pod, this.namespaces);
      if (before.length > 0 || after.length > 0) this.#exchange(followed, before, after);
    }
  }

  setNamespace(name: string, namespace: PolicyNamespace | undefined): void {
    const before = new Map(this.namespaces);
    const old = before.get(name);
    if (old !== undefined)
      for (const label of labelsOf(old)) removeFrom(this.#namespacesByLabel, label, old);
    if (namespace === undefined) this.namespaces.delete(name);
    else {
      this.namespaces.set(name, namespace);
      for (const label of labelsOf(namespace)) addTo(this.#namespacesByLabel, label, namespace);
    }
    for (const followed of this.#sets.values()) {
      if (!caresForNamespaces(followed.needed, before.get(name), namespace)) continue;
      for (const pod of this.podsIn(name))
        this.#exchange(
          followed,
          elementsOfPod(followed.needed, pod, before),
          elementsOfPod(followed.needed, pod, this.namespaces),
        );
    }
  }

  setNode(name: string, node: PolicyNode | undefined): void {
    const old = this.nodes.get(name);
    if (node === undefined) this.nodes.delete(name);
    else this.nodes.set(name, node);
    for (const followed of this.#sets.values())
      this.#exchange(
        followed,
        old === undefined ? [] : elementsOfNode(followed.needed, old),
        node === undefined ? [] : elementsOfNode(followed.needed, node),
      );
  }

  /** Pods have been told other addresses for a name. */
  setResolved(pattern: string, before: readonly Ip[], after: readonly Ip[]): void {
    for (const followed of this.#sets.values())
      if (domainsOf(followed.needed).has(pattern)) this.#exchange(followed, before, after);
  }

  /** Begins to follow a set. @returns false if it is followed already */
  follow(needed: FollowedSet): boolean {
    if (this.#sets.has(needed.name)) return false;
    const followed: Followed = { needed, counts: new Map() };
    this.#sets.set(needed.name, followed);
    for (const pod of this.#candidates(needed))
      this.#exchange(followed, [], elementsOfPod(needed, pod, this.namespaces));
    for (const node of this.nodes.values())
      this.#exchange(followed, [], elementsOfNode(needed, node));
    // Each once, as {@link setResolved} tells of it: a rule may say a name twice.
    for (const domain of domainsOf(needed)) this.#exchange(followed, [], this.#resolved(domain));
    return true;
  }

  /** Forgets a set with all its elements; nothing is told of them. */
  unfollow(name: string): void {
    this.#sets.delete(name);
    this.#changed.delete(name);
  }

  /** What has changed in the sets since the last call. */
  takeChanges(): ElementChange[] {
    const changes: ElementChange[] = [];
    for (const [set, elements] of this.#changed)
      for (const family of ['ip', 'ip6'] as const) {
        const add: SetElement[] = [];
        const remove: SetElement[] = [];
        for (const [text, isPresent] of elements)
          if (tableFamilyOf(text as Ip) === family)
            (isPresent ? add : remove).push(elementOf(text));
        if (add.length > 0 || remove.length > 0) changes.push({ set, family, add, remove });
      }
    this.#changed.clear();
    return changes;
  }

  /** All elements of the sets, for a comparison with what is made from scratch. */
  snapshot(): Map<string, readonly string[]> {
    return new Map(
      [...this.#sets].map(([name, { counts }]) => [name, [...counts.keys()].sort()] as const),
    );
  }

  #exchange(followed: Followed, before: readonly string[], after: readonly string[]): void {
    const { counts } = followed;
    for (const text of after) {
      const count = counts.get(text) ?? 0;
      counts.set(text, count + 1);
      if (count === 0) this.#note(followed.needed.name, text, true);
    }
    for (const text of before) {
      const count = counts.get(text) ?? 0;
      if (count > 1) counts.set(text, count - 1);
      else if (counts.delete(text)) this.#note(followed.needed.name, text, false);
    }
  }

  #note(set: string, text: string, isPresent: boolean): void {
    const changed = this.#changed.get(set) ?? new Map<string, boolean>();
    this.#changed.set(set, changed);
    // Whether it was there before is unknown here; the ruleset's mirror knows, and drops what changes nothing.
    changed.set(text, isPresent);
  }

  /** Pods that a set may hold; not all of them need to. */
  *#candidates(needed: FollowedSet): Iterable<PolicyPod> {
    if (needed.kind === 'named port') {
      yield* this.pods.values();
      return;
    }
    const [only] = needed.peers;
    if (only?.kind === 'pods' && needed.peers.length === 1) {
      yield* this.#candidatesOf(only);
      return;
    }
    const seen = new Set<PolicyPod>();
    for (const peer of needed.peers) {
      if (peer.kind !== 'pods') continue;
      for (const pod of this.#candidatesOf(peer))
        if (!seen.has(pod)) {
          seen.add(pod);
          yield pod;
        }
    }
  }

  /** The fewest pods of which those that are meant are surely some. */
  *#candidatesOf({ namespace, namespaces, pods }: PodChoice): Iterable<PolicyPod> {
    const anywhere = this.#everywhere.like(pods);
    const chosen =
      namespace !== undefined
        ? [namespace]
        : namespaces.length === 0
          ? undefined
          : [...this.#namespacesLike(namespaces)]
              .filter(({ labels }) => matchLabels(namespaces, labels))
              .map(({ name }) => name);
    if (chosen === undefined || anywhere.size <= chosen.length) {
      yield* anywhere;
      return;
    }
    for (const name of chosen) yield* this.#byNamespace.get(name)?.like(pods) ?? NO_PODS;
  }

  /** Namespaces of which those that are meant are surely some: a selector by name looks at one. */
  #namespacesLike(selector: Selector): Iterable<PolicyNamespace> {
    for (const requirement of selector) {
      const label = labelOf(requirement);
      if (label !== undefined) return this.#namespacesByLabel.get(label) ?? [];
    }
    return this.namespaces.values();
  }

  #index(pod: PolicyPod): void {
    const index = this.#byNamespace.get(pod.namespace) ?? new PodIndex();
    this.#byNamespace.set(pod.namespace, index);
    for (const it of [index, this.#everywhere]) it.add(pod);
    for (const address of pod.ips) addTo(this.#byIp, address, pod);
  }

  #unindex(pod: PolicyPod): void {
    const index = this.#byNamespace.get(pod.namespace);
    for (const it of [index, this.#everywhere]) it?.delete(pod);
    if (index?.pods.size === 0) this.#byNamespace.delete(pod.namespace);
    for (const address of pod.ips) removeFrom(this.#byIp, address, pod);
  }
}

/** Pods, found by label. */
class PodIndex {
  readonly pods = new Set<PolicyPod>();
  readonly #byLabel = new Map<string, Set<PolicyPod>>();

  add(pod: PolicyPod): void {
    this.pods.add(pod);
    for (const label of labelsOf(pod)) addTo(this.#byLabel, label, pod);
  }

  delete(pod: PolicyPod): void {
    this.pods.delete(pod);
    for (const label of labelsOf(pod)) removeFrom(this.#byLabel, label, pod);
  }

  /** The fewest pods of which those that the selector means are surely some. */
  like(selector: Selector): ReadonlySet<PolicyPod> {
    let fewest: ReadonlySet<PolicyPod> = this.pods;
    for (const requirement of selector) {
      const label = labelOf(requirement);
      const labelled = label === undefined ? fewest : (this.#byLabel.get(label) ?? NO_PODS);
      if (labelled.size < fewest.size) fewest = labelled;
    }
    return fewest;
  }
}

function peersOf(needed: FollowedSet): readonly MovingPeer[] {
  return needed.kind === 'addresses' ? needed.peers : [];
}

function domainsOf(needed: FollowedSet): ReadonlySet<string> {
  return new Set(peersOf(needed).flatMap((peer) => (peer.kind === 'domain' ? [peer.name] : [])));
}

function labelsOf({ labels = {} }: { readonly labels: Labels | undefined }): string[] {
  return Object.entries(labels).map(([key, value]) => `${key}=${value}`);
}

/** The label that a pod must have for the requirement, if it is one of that form. */
function labelOf({ operator, key, values }: Requirement): string | undefined {
  return operator === 'In' && values.length === 1 ? `${key}=${values[0]}` : undefined;
}

function caresForNamespaces(
  needed: FollowedSet,
  before: PolicyNamespace | undefined,
  after: PolicyNamespace | undefined,
): boolean {
  const holds = (peer: PodChoice, namespace: PolicyNamespace | undefined) =>
    namespace !== undefined && matchLabels(peer.namespaces, namespace.labels);
  return peersOf(needed).some(
    (peer) =>
      peer.kind === 'pods' &&
      peer.namespaces.length > 0 &&
      holds(peer, before) !== holds(peer, after),
  );
}

const NONE: readonly string[] = [];

/** An element as text: an address, or `address protocol port`. */
function elementsOfPod(
  needed: FollowedSet,
  pod: PolicyPod,
  namespaces: ReadonlyMap<string, PolicyNamespace>,
): readonly string[] {
  if (needed.kind === 'named port')
    return pod.hostNetwork
      ? NONE
      : pod.ports
          .filter(({ name }) => name === needed.portName)
          .flatMap(({ protocol, port }) => pod.ips.map((ip) => `${ip} ${protocol} ${port}`));
  for (const peer of needed.peers)
    if (peer.kind === 'pods' && chooses(peer, pod, namespaces) === true) return pod.ips;
  return NONE;
}

function elementsOfNode(needed: FollowedSet, node: PolicyNode): readonly string[] {
  return peersOf(needed).some(
    (peer) => peer.kind === 'nodes' && matchLabels(peer.nodes, node.labels),
  )
    ? node.ips
    : NONE;
}

function elementOf(text: string): SetElement {
  const [address = '', protocol, port] = text.split(' ');
  return {
    key:
      protocol === undefined
        ? ipToBytes(address as Ip)
        : addressProtocolPort(address as Ip, Number(protocol), Number(port)),
  };
}

function addTo<K, V>(index: Map<K, Set<V>>, key: K, value: V): void {
  const set = index.get(key);
  if (set === undefined) index.set(key, new Set([value]));
  else set.add(value);
}

function removeFrom<K, V>(index: Map<K, Set<V>>, key: K, value: V): void {
  const set = index.get(key);
  set?.delete(value);
  if (set?.size === 0) index.delete(key);
}
