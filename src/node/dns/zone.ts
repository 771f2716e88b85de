/**
 * The names of the cluster, kept current service by service: setting one service costs that service's names.
 *
 * Several services may give records to one name (the PTR of an endpoint of two services), so a name keeps what each
 * owner gives. A name also exists, without records, while anything exists below it (RFC 8020, "empty non-terminal").
 */
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { Ip } from '#lib/ip.ts';
import { isWithin, type Name, parentOf } from '#wire/dns/name.ts';
import type { HostEntry } from './config.ts';
import {
  type RecordSet,
  type Records,
  recordsOfAliases,
  recordsOfHosts,
  recordsOfNamespace,
  recordsOfPod,
  recordsOfService,
  recordsOfZone,
} from './records.ts';
import { decodeSets, encodeSets, NO_SETS } from './sets.ts';

/** What a name has become. */
export interface NameChange {
  readonly name: Name;
  /** Of `encodeSets`. `undefined`: the name does not exist. Empty sets: it exists and has no records. */
  readonly sets: string | undefined;
}

/** Owners beside services, whose keys are `namespace/name`. */
const ZONE_OWNER = '';
const HOSTS_OWNER = 'hosts';
const NAMESPACE_OWNER = 'namespace:';
const POD_OWNER = 'pod:';
const ALIAS_OWNER = 'alias:';

export class Zone {
  readonly domain: Name;
  /** What each owner gives, by the owner's key. */
  readonly #given = new Map<string, Given>();
  /** The owners that give something to a name; nearly always one. */
  readonly #owners = new Map<Name, string | Set<string>>();
  /** How many names with an owner are below a name. */
  readonly #below = new Map<Name, number>();
  #podNames = false;

  /**
   * @param domain the cluster domain, canonical
   * @param serverAddresses where this zone is served: the addresses of `ns.dns.<domain>`
   */
  constructor(domain: Name, serverAddresses: readonly Ip[]) {
    this.domain = domain;
    this.#give(ZONE_OWNER, recordsOfZone(domain, serverAddresses));
  }

  /** Count of names that exist. */
  get size(): number {
    let size = this.#owners.size;
    for (const name of this.#below.keys()) if (!this.#owners.has(name)) size++;
    return size;
  }

  /** Every name, as changes from nothing. */
  *all(): IterableIterator<NameChange> {
    for (const name of this.#owners.keys()) yield this.#view(name);
    for (const name of this.#below.keys()) if (!this.#owners.has(name)) yield this.#view(name);
  }

  /** A namespace's names exist also while nothing is in it. @returns the names that changed */
  setNamespace(namespace: string, exists: boolean): NameChange[] {
    const branches = this.#podNames ? ['svc', 'pod'] : ['svc'];
    const records = exists ? recordsOfNamespace(this.domain, namespace, branches) : new Map();
    return this.#give(NAMESPACE_OWNER + namespace, records);
  }

  /** Replaces the static entries. @returns the names that changed */
  setHosts(hosts: readonly HostEntry[]): NameChange[] {
    return this.#give(HOSTS_OWNER, recordsOfHosts(hosts));
  }

  /**
   * Sets the addresses of a pod: for pod names that are verified.
   * @param key `namespace/name`
   * @param addresses none when it is gone or has ended
   * @returns the names that changed
   */
  setPod(key: string, addresses: readonly Ip[]): NameChange[] {
    const namespace = key.slice(0, key.indexOf('/'));
    return this.#give(POD_OWNER + key, recordsOfPod(this.domain, namespace, addresses));
  }

  /**
   * Sets the other names of a pod. A service of such a name has it for itself.
   * @param key `namespace/name`
   * @param addresses none when it is gone or has ended
   * @returns the names that changed
   */
  setAliases(key: string, aliases: readonly string[], addresses: readonly Ip[]): NameChange[] {
    const namespace = key.slice(0, key.indexOf('/'));
    const records = recordsOfAliases(this.domain, namespace, aliases, addresses);
    return this.#give(ALIAS_OWNER + key, records);
  }

  /** The keys of the pods that are set. */
  *pods(): IterableIterator<string> {
    for (const key of this.#given.keys())
      if (key.startsWith(POD_OWNER)) yield key.slice(POD_OWNER.length);
  }

  /** Whether names of pods are answered at all: then each namespace has a name for them. */
  setPodNames(enabled: boolean): NameChange[] {
    this.#podNames = enabled;
    const changes: NameChange[] = [];
    for (const key of [...this.#given.keys()])
      if (key.startsWith(NAMESPACE_OWNER))
        changes.push(...this.setNamespace(key.slice(NAMESPACE_OWNER.length), true));
    return changes;
  }

  /**
   * Sets what is known of a service.
   * @param key `namespace/name`
   * @param service `undefined` when it is gone; its slices then count for nothing
   * @param slices all of its slices
   * @returns the names that changed; none for an update that changes no answer
   */
  setService(
    key: string,
    service: Service | undefined,
    slices: readonly EndpointSlice[],
  ): NameChange[] {
    return this.#give(
      key,
      service === undefined ? new Map() : recordsOfService(this.domain, service, slices),
    );
  }

  #give(owner: string, records: Records): NameChange[] {
    const old = this.#given.get(owner) ?? NOTHING_GIVEN;
    const pairs = [...records].flatMap(([name, sets]) => [name, encodeSets(name, sets)]);
    const given: Given = pairs.slice(); // without the room to grow
    if (given.length > 0) this.#given.set(owner, given);
    else this.#given.delete(owner);
    const touched = new Set<Name>();
    for (const [name, text] of pairsOf(given)) {
      const before = textOf(old, name);
      if (!this.#exists(name) || (before ?? NO_SETS) !== text) touched.add(name);
      if (before === undefined) this.#own(name, owner, touched);
    }
    for (const [name, text] of pairsOf(old)) {
      if (records.has(name)) continue;
      this.#disown(name, owner, touched);
      if (!this.#exists(name) || text !== NO_SETS) touched.add(name);
    }
    return [...touched].map((name) => this.#view(name));
  }

  #exists(name: Name): boolean {
    return this.#owners.has(name) || this.#below.has(name);
  }

  /** @param touched gets the ancestors that came into being */
  #own(name: Name, owner: string, touched: Set<Name>): void {
    const owners = this.#owners.get(name);
    if (owners !== undefined) {
      if (typeof owners === 'string') this.#owners.set(name, new Set([owners, owner]));
      else owners.add(owner);
      return;
    }
    this.#owners.set(name, owner);
    for (const ancestor of this.#ancestors(name)) {
      const count = this.#below.get(ancestor) ?? 0;
      this.#below.set(ancestor, count + 1);
      if (count === 0 && !this.#owners.has(ancestor)) touched.add(ancestor);
    }
  }

  /** @param touched gets the ancestors that may have ceased to be */
  #disown(name: Name, owner: string, touched: Set<Name>): void {
    const owners = this.#owners.get(name);
    if (owners === undefined) return;
    if (typeof owners !== 'string') {
      owners.delete(owner);
      if (owners.size > 0) return;
    }
    this.#owners.delete(name);
    for (const ancestor of this.#ancestors(name)) {
      const count = (this.#below.get(ancestor) ?? 1) - 1;
      if (count > 0) this.#below.set(ancestor, count);
      else {
        this.#below.delete(ancestor);
        if (!this.#owners.has(ancestor)) touched.add(ancestor);
      }
    }
  }

  /** The names above `name`, inside the cluster domain; the reverse zones are not ours as a whole. */
  *#ancestors(name: Name): IterableIterator<Name> {
    if (!isWithin(name, this.domain)) return;
    for (let at = name; at !== this.domain; ) {
      at = parentOf(at);
      yield at;
    }
  }

  #view(name: Name): NameChange {
    const owners = this.#owners.get(name);
    if (owners === undefined) return { name, sets: this.#below.has(name) ? NO_SETS : undefined };
    if (typeof owners === 'string') return { name, sets: this.#textOf(owners, name) };
    if (owners.size === 1) {
      const [only = ''] = owners;
      return { name, sets: this.#textOf(only, name) };
    }
    const byType = new Map<number, RecordSet>();
    const others = [...owners].filter((owner) => !owner.startsWith(ALIAS_OWNER));
    for (const owner of (others.length > 0 ? others : [...owners]).sort())
      for (const set of decodeSets(name, this.#textOf(owner, name)))
        byType.set(set.type, mergeSets(byType.get(set.type), set));
    return { name, sets: encodeSets(name, [...byType.values()]) };
  }

  #textOf(owner: string, name: Name): string {
    return textOf(this.#given.get(owner) ?? NOTHING_GIVEN, name) ?? NO_SETS;
  }
}

/**
 * What one owner gives: a name and its sets as `encodeSets` made them, another name and its sets… In one array, because
 * there are as many as services.
 */
type Given = readonly string[];

const NOTHING_GIVEN: Given = [];

function* pairsOf(given: Given): IterableIterator<readonly [Name, string]> {
  for (let i = 0; i < given.length; i += 2) yield [given[i] as Name, given[i + 1] ?? NO_SETS];
}

function textOf(given: Given, name: Name): string | undefined {
  for (const [at, text] of pairsOf(given)) if (at === name) return text;
  return undefined;
}

function mergeSets(first: RecordSet | undefined, second: RecordSet): RecordSet {
  if (first === undefined) return second;
  const data = new Map([...first.data, ...second.data].map((item) => [JSON.stringify(item), item]));
  const additionals = [...(first.additionals ?? []), ...(second.additionals ?? [])];
  return {
    type: first.type,
    ttlS: Math.min(first.ttlS, second.ttlS),
    data: [...data.values()],
    ...(additionals.length === 0 ? {} : { additionals }),
  };
}
