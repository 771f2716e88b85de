/** The balancer of one family: turns changes of frontends into changes of a {@link Ruleset}. */
import { familyOf, type Ip } from '#lib/ip.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import type { ChainContent, Ruleset, SetContent } from '../ruleset.ts';
import type { Frontend } from './plan.ts';
import {
  balanceChain,
  type ChainSpec,
  CLUSTER_IPS,
  chainName,
  chainSpecsOf,
  clusterIpElement,
  countElements,
  dispatchChains,
  elementsOf,
  FRONTEND_SETS,
  HAIRPIN,
  hairpinElement,
  serviceSets,
} from './program.ts';

/** A frontend as it was served and as it shall be; undefined: not at all. */
export interface PlanChange {
  readonly before: Frontend | undefined;
  readonly after: Frontend | undefined;
}

export class Balancer {
  readonly #ruleset: Ruleset;
  readonly #part: string;
  readonly #frontends: () => Iterable<Frontend>;
  readonly #family: 4 | 6;
  /** Chains that some frontend needs or needed: unused ones cost nothing, and the next rolling update wants them again. */
  readonly #chains = new Map<string, ChainContent>();
  readonly #dispatch: readonly ChainContent[];
  #hasAffinity = false;
  #isDefined = false;
  /** How many services have an endpoint at an address of this node, and how many frontends a cluster IP. */
  readonly #local = new Map<Ip, number>();
  readonly #clusterIps = new Map<Ip, number>();

  /** @param init `plans`: all frontends that are served, of both families */
  constructor(init: { ruleset: Ruleset; part: string; plans: () => Iterable<Frontend> }) {
    this.#ruleset = init.ruleset;
    this.#part = init.part;
    this.#frontends = init.plans;
    this.#family = init.ruleset.family === 'ip' ? 4 : 6;
    this.#dispatch = dispatchChains(init.ruleset.family);
  }

  /** Notes the endpoints of a service that are on this node. To be called before {@link stage}. */
  count(before: readonly Ip[], after: readonly Ip[]): void {
    const isOurs = (address: Ip) => familyOf(address) === this.#family;
    const change = recount(this.#local, before.filter(isOurs), after.filter(isOurs));
    this.#change(HAIRPIN, change, hairpinElement);
  }

  stage(changes: readonly PlanChange[]): void {
    const ours = changes.filter(({ before, after }) => (after ?? before)?.family === this.#family);
    const clusterIps = (frontends: readonly (Frontend | undefined)[]) =>
      frontends.flatMap((it) => (it?.kind === 'cluster' ? [it.address] : []));
    const ips = recount(
      this.#clusterIps,
      clusterIps(ours.map(({ before }) => before)),
      clusterIps(ours.map(({ after }) => after)),
    );
    this.#defineChains(
      ours.flatMap(({ after }) => (after === undefined ? [] : chainSpecsOf(after))),
    );
    if (this.#ruleset.willAskSources) return;
    this.#change(CLUSTER_IPS, ips, clusterIpElement);
    for (const set of FRONTEND_SETS) {
      const changed = ours.map(({ before, after }) => difference(set, before, after));
      // All that goes first: an endpoint's place may be taken within the same sync.
      this.#ruleset.change(set, {
        remove: changed.flatMap(({ remove }) => remove),
        add: changed.flatMap(({ add }) => add),
      });
    }
  }

  #change(
    set: string,
    { gone, come }: { gone: readonly Ip[]; come: readonly Ip[] },
    elementOf: (address: Ip) => SetElement,
  ): void {
    this.#ruleset.change(set, { remove: gone.map(elementOf), add: come.map(elementOf) });
  }

  #defineChains(specs: readonly ChainSpec[]): void {
    let isNew = !this.#isDefined;
    for (const spec of specs) {
      const name = chainName(spec);
      if (this.#chains.has(name)) continue;
      this.#chains.set(name, balanceChain(this.#ruleset.family, spec));
      this.#hasAffinity ||= spec.affinitySeconds !== undefined;
      isNew = true;
    }
    if (!isNew) return;
    this.#isDefined = true;
    const sets = serviceSets(this.#ruleset.family, { affinity: this.#hasAffinity });
    this.#ruleset.define(this.#part, {
      sets: sets.map((content) => this.#withSource(content)),
      chains: [...this.#chains.values(), ...this.#dispatch],
    });
  }

  #withSource(content: SetContent): SetContent {
    const { set } = content;
    if (set === HAIRPIN) return { ...content, source: sourceOf(this.#local, hairpinElement) };
    if (set === CLUSTER_IPS)
      return { ...content, source: sourceOf(this.#clusterIps, clusterIpElement) };
    if (!FRONTEND_SETS.some((name) => name === set)) return content;
    return {
      ...content,
      source: { count: () => this.#count(set), elements: () => this.#all(set) },
    };
  }

  #count(set: string): number {
    let count = 0;
    for (const frontend of this.#frontends())
      if (frontend.family === this.#family) count += countElements(set, frontend);
    return count;
  }

  *#all(set: string): Generator<SetElement> {
    for (const frontend of this.#frontends())
      if (frontend.family === this.#family) yield* elementsOf(set, frontend);
  }
}

function sourceOf(addresses: ReadonlyMap<Ip, number>, elementOf: (address: Ip) => SetElement) {
  return {
    count: () => addresses.size,
    elements: function* () {
      for (const address of addresses.keys()) yield elementOf(address);
    },
  };
}

/** Counts users of addresses. @returns those that lost the last and those that got the first */
function recount(
  counts: Map<Ip, number>,
  before: readonly Ip[],
  after: readonly Ip[],
): { gone: Ip[]; come: Ip[] } {
  const was = new Map<Ip, boolean>();
  for (const [addresses, step] of [
    [before, -1],
    [after, 1],
  ] as const)
    for (const address of addresses) {
      const count = counts.get(address) ?? 0;
      if (!was.has(address)) was.set(address, count > 0);
      counts.set(address, count + step);
    }
  const gone: Ip[] = [];
  const come: Ip[] = [];
  for (const [address, wasThere] of was) {
    const isThere = (counts.get(address) ?? 0) > 0;
    if (!isThere) counts.delete(address);
    if (wasThere && !isThere) gone.push(address);
    if (!wasThere && isThere) come.push(address);
  }
  return { gone, come };
}

/** What must go and come in a set for one frontend. An element with other data goes and comes. */
function difference(
  set: string,
  before: Frontend | undefined,
  after: Frontend | undefined,
): { remove: SetElement[]; add: SetElement[] } {
  const remove: SetElement[] = [];
  const add: SetElement[] = [];
  const old = new Map<string, SetElement>();
  if (before !== undefined)
    for (const element of elementsOf(set, before)) old.set(nameOf(element), element);
  if (after !== undefined)
    for (const element of elementsOf(set, after)) {
      const name = nameOf(element);
      const was = old.get(name);
      old.delete(name);
      if (was !== undefined && isSame(was, element)) continue;
      if (was !== undefined) remove.push(was);
      add.push(element);
    }
  for (const element of old.values()) remove.push(element);
  return { remove, add };
}

function nameOf({ key, keyEnd }: SetElement): string {
  const name = Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
  return keyEnd === undefined ? name : `${name}-${Buffer.from(keyEnd).toString('latin1')}`;
}

function isSame(a: SetElement, b: SetElement): boolean {
  if (JSON.stringify(a.verdict) !== JSON.stringify(b.verdict)) return false;
  if (a.data === undefined || b.data === undefined) return a.data === b.data;
  return Buffer.compare(a.data, b.data) === 0;
}
