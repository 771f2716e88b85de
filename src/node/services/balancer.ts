/** The balancer of one family: turns changes of frontends into changes of a {@link Ruleset}. */
import { familyOf, type Ip, ipFromBytes, ipToBytes } from '#lib/ip.ts';
import { goTo } from '#wire/nftables/expressions.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { ElementPacker } from '#wire/nftables/packed-elements.ts';
import { hostU32 } from '#wire/nftables/values.ts';
import type { ChainContent, ElementSource, Ruleset, SetContent } from '../ruleset.ts';
import { ChoiceNumbers, chainName, DROP_NUMBER, REJECT_NUMBER } from './choices.ts';
import {
  batchesOf,
  clusterIpElement,
  countElements,
  difference,
  type ElementChange,
  FRONTEND_SETS,
  hairpinElement,
  type NumberOf,
  noElements,
} from './elements.ts';
import type { Frontend } from './plan.ts';
import {
  balanceChain,
  CHOICES,
  CLUSTER_IPS,
  DROP_CHAIN,
  dispatchChains,
  HAIRPIN,
  REJECT_CHAIN,
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
  readonly #numbers: ChoiceNumbers;
  readonly #numberOf: NumberOf;
  /** How many elements the frontends have in each set. */
  #counts = noElements();
  #hasAffinity = false;
  /** A chain was added since the last definition; at first nothing is defined. */
  #hasNewChain = true;
  /** How many services have an endpoint at an address of this node, and how many frontends a cluster IP. */
  readonly #local = new Map<ShortIp, number>();
  readonly #clusterIps = new Map<ShortIp, number>();

  /** @param init `plans`: all frontends that are served, of both families */
  constructor(init: { ruleset: Ruleset; part: string; plans: () => Iterable<Frontend> }) {
    this.#ruleset = init.ruleset;
    this.#part = init.part;
    this.#frontends = init.plans;
    this.#family = init.ruleset.family === 'ip' ? 4 : 6;
    this.#dispatch = dispatchChains(init.ruleset.family);
    this.#numbers = new ChoiceNumbers((spec, number) => {
      const chain = balanceChain(init.ruleset.family, spec);
      this.#chains.set(chainName(spec), chain);
      this.#hasAffinity ||= spec.affinitySeconds !== undefined;
      this.#hasNewChain = true;
      this.#lead(number, chain.name);
    });
    this.#numberOf = (frontend, isOutside) => this.#numbers.of(frontend, isOutside);
    this.#lead(REJECT_NUMBER, REJECT_CHAIN);
    this.#lead(DROP_NUMBER, DROP_CHAIN);
  }

  /** Notes the endpoints of a service that are on this node. To be called before {@link stage}. */
  count(before: readonly Ip[], after: readonly Ip[]): void {
    if (before.length === 0 && after.length === 0) return;
    const isOurs = (address: Ip) => familyOf(address) === this.#family;
    const change = recount(this.#local, before.filter(isOurs), after.filter(isOurs));
    this.#change(HAIRPIN, change, hairpinElement);
  }

  /** Looks at all frontends, for a table that is made anew. */
  stageAll(): void {
    this.#clusterIps.clear();
    this.#counts = noElements();
    for (const frontend of this.#ours()) {
      const { kind, address } = frontend;
      if (kind === 'cluster') addTo(this.#clusterIps, shortIp(address), 1);
      countElements(this.#counts, frontend, 1);
      this.#makeKnown(frontend);
    }
    this.#numbers.prepare();
    if (this.#hasNewChain) this.#define();
  }

  /** @param changes each frontend at most once */
  stage(changes: readonly PlanChange[]): void {
    const ours = changes.filter(({ before, after }) => (after ?? before)?.family === this.#family);
    const ips = recount(
      this.#clusterIps,
      clusterIpsOf(ours, 'before'),
      clusterIpsOf(ours, 'after'),
    );
    for (const { before, after } of ours) {
      if (before !== undefined) countElements(this.#counts, before, -1);
      if (after === undefined) continue;
      countElements(this.#counts, after, 1);
      this.#makeKnown(after);
    }
    if (this.#hasNewChain) this.#define();
    if (this.#ruleset.willAskSources) return;
    this.#change(CLUSTER_IPS, ips, clusterIpElement);
    for (const set of FRONTEND_SETS) {
      // All that goes first: an endpoint's place may be taken within the same sync.
      const change: ElementChange = { remove: [], add: [] };
      for (const one of ours) difference(set, one, { numberOf: this.#numberOf, change });
      if (change.remove.length > 0 || change.add.length > 0) this.#ruleset.change(set, change);
    }
  }

  /** Makes chains for its choices, if there are none. */
  #makeKnown(frontend: Frontend): void {
    this.#numberOf(frontend, false);
    if (frontend.inside !== frontend.outside) this.#numberOf(frontend, true);
  }

  #change(set: string, { gone, come }: Recount, elementOf: (address: Ip) => SetElement): void {
    this.#ruleset.change(set, { remove: gone.map(elementOf), add: come.map(elementOf) });
  }

  /** Makes a number lead to a chain. */
  #lead(number: number, chain: string): void {
    this.#ruleset.stage(CHOICES, { add: [{ key: hostU32(number), verdict: goTo(chain) }] });
  }

  #define(): void {
    this.#hasNewChain = false;
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
    const ofFrontends = FRONTEND_SETS.find((name) => name === set);
    if (ofFrontends === undefined) return content;
    return {
      ...content,
      source: {
        count: () => this.#counts[ofFrontends],
        // Most sets are empty in most clusters, and to find that out means to look at all frontends.
        batches: (maxElements) =>
          this.#counts[ofFrontends] === 0
            ? []
            : batchesOf(ofFrontends, this.#ours(), {
                ...{ family: this.#ruleset.family, numberOf: this.#numberOf },
                maxElements,
              }),
      },
    };
  }

  *#ours(): Generator<Frontend> {
    for (const frontend of this.#frontends()) if (frontend.family === this.#family) yield frontend;
  }
}

/** Cluster IPs of frontends that come or go: a frontend that only changes keeps its address. */
function clusterIpsOf(changes: readonly PlanChange[], side: keyof PlanChange): Ip[] {
  const addresses: Ip[] = [];
  for (const { before, after } of changes) {
    if (before?.kind === after?.kind) continue;
    const frontend = side === 'before' ? before : after;
    if (frontend?.kind === 'cluster') addresses.push(frontend.address);
  }
  return addresses;
}

/** An IPv4 address as its number, because a map has to intern a text that is new to it. */
type ShortIp = number | Ip;

function shortIp(address: Ip): ShortIp {
  if (familyOf(address) === 6) return address;
  let value = 0;
  for (const byte of ipToBytes(address)) value = value * 256 + byte;
  return value;
}

function longIp(short: ShortIp): Ip {
  if (typeof short !== 'number') return short;
  return ipFromBytes(Uint8Array.of(short >>> 24, short >>> 16, short >>> 8, short));
}

function sourceOf(
  addresses: ReadonlyMap<ShortIp, number>,
  elementOf: (address: Ip) => SetElement,
): ElementSource {
  return {
    count: () => addresses.size,
    *batches(maxElements) {
      let packer: ElementPacker | undefined;
      for (const address of addresses.keys()) {
        const { key } = elementOf(longIp(address));
        packer ??= new ElementPacker({ keyBytes: key.length, dataBytes: 0, maxElements });
        packer.add(key, undefined, undefined);
        if (packer.isFull) yield packer.take();
      }
      if (packer?.isEmpty === false) yield packer.take();
    },
  };
}

/** Addresses that lost their last user, and those that got their first. */
interface Recount {
  readonly gone: readonly Ip[];
  readonly come: readonly Ip[];
}

/** Counts users of addresses. */
function recount(
  counts: Map<ShortIp, number>,
  before: readonly Ip[],
  after: readonly Ip[],
): Recount {
  const was = new Map<Ip, boolean>();
  for (const [addresses, step] of [
    [before, -1],
    [after, 1],
  ] as const)
    for (const address of addresses) {
      const had = addTo(counts, shortIp(address), step);
      if (!was.has(address)) was.set(address, had > 0);
    }
  const gone: Ip[] = [];
  const come: Ip[] = [];
  for (const [address, wasThere] of was) {
    const isThere = (counts.get(shortIp(address)) ?? 0) > 0;
    if (!isThere) counts.delete(shortIp(address));
    if (wasThere && !isThere) gone.push(address);
    if (!wasThere && isThere) come.push(address);
  }
  return { gone, come };
}

/** @returns the count before */
function addTo(counts: Map<ShortIp, number>, address: ShortIp, step: number): number {
  const count = counts.get(address) ?? 0;
  counts.set(address, count + step);
  return count;
}
