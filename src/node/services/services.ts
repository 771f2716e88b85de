/**
 * The service feature: watches Services and EndpointSlices and keeps the balancer's maps at the plan.
 * A change of one service costs that service's elements, whatever else there is.
 */
import type { Service } from '#api/core/v1/service.ts';
import { type EndpointSlice, SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import type { Cache } from '#client/port.ts';
import type { Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import type { Ruleset } from '../ruleset.ts';
import { frontendKey, planService, type ServicePlan } from './plan.ts';
import {
  CLUSTER_IPS,
  clusterIpElement,
  frontendElements,
  HAIRPIN,
  hairpinElement,
  servicesPart,
} from './program.ts';
import type { NodeTopology } from './select.ts';

/** Name of this feature's part of the ruleset. */
export const SERVICES_PART = 'services';
/** A burst of changes (a rolling update) becomes one transaction; one change waits no longer than this. */
const MIN_SYNC_INTERVAL_MS = 1;

export interface ServicesComponents {
  /** One per family. */
  rulesets: readonly Ruleset[];
  services: Cache<Service>;
  slices: Cache<EndpointSlice>;
  log: Logger;
}

export interface ServicesStatus {
  readonly ready: boolean;
  readonly services: number;
  readonly frontends: number;
  readonly endpoints: number;
  readonly withoutEndpoints: readonly string[];
  readonly problems: readonly string[];
}

interface StagedElement {
  readonly set: string;
  readonly element: SetElement;
}

export class Services implements AsyncDisposable {
  readonly #c: ServicesComponents;
  readonly #node: NodeTopology;
  readonly #skipAddresses: ReadonlySet<string>;
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[] = [];
  readonly #dirty = new Set<string>();
  readonly #plans = new Map<string, ServicePlan>();
  /** Slices by service, because a Cache has no such index of its own. */
  readonly #slicesOf = new Map<string, Map<string, EndpointSlice>>();
  /** How many frontends or endpoints need an element: it goes with the last one. */
  readonly #users = new Map<string, number>();
  readonly #counts = new Map<Ruleset, Set<number>>();

  /** @param init `skipAddresses`: frontends that the node's DNS server answers itself */
  constructor(
    components: ServicesComponents,
    init: { node: NodeTopology; skipAddresses: readonly Ip[] },
  ) {
    this.#c = components;
    this.#node = init.node;
    this.#skipAddresses = new Set(init.skipAddresses);
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'services',
      log: components.log,
      minIntervalMs: MIN_SYNC_INTERVAL_MS,
    });
  }

  /** Resolves when all services that the API has are in the kernel. */
  async start(): Promise<void> {
    const { services, slices } = this.#c;
    await Promise.all([services.synced(), slices.synced()]);
    this.#stops.push(
      services.onChange(({ key }) => this.#touch(key)),
      slices.onChange(({ key, old, current }) => {
        this.#indexSlice(key, old, undefined);
        this.#indexSlice(key, undefined, current);
        for (const owner of [serviceOf(old), serviceOf(current)])
          if (owner !== undefined) this.#touch(owner);
      }),
    );
    for (const service of services.values())
      this.#dirty.add(`${service.metadata.namespace}/${service.metadata.name}`);
    for (const slice of slices.values())
      this.#indexSlice(`${slice.metadata.namespace}/${slice.metadata.name}`, undefined, slice);
    await this.#loop.settled();
  }

  status(): ServicesStatus {
    const plans = [...this.#plans];
    const frontends = plans.flatMap(([, plan]) => plan.frontends);
    return {
      ready: this.#loop.runs > 0 && this.#loop.lastError === undefined,
      services: plans.filter(([, plan]) => plan.frontends.length > 0).length,
      frontends: frontends.length,
      endpoints: frontends.reduce((sum, frontend) => sum + frontend.slots.length, 0),
      withoutEndpoints: plans
        .filter(([, plan]) => plan.frontends.some((frontend) => frontend.action === 'reject'))
        .map(([key]) => key),
      problems: [
        ...(this.#loop.lastError === undefined ? [] : [this.#loop.lastError]),
        ...plans.flatMap(([key, plan]) =>
          plan.unsupported.map((what) => `service ${key}: ${what} is not carried out yet`),
        ),
      ],
    };
  }

  /** Stops watching; the maps stay, traffic goes on without us. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#loop[Symbol.asyncDispose]();
  }

  #touch(service: string): void {
    this.#dirty.add(service);
    this.#loop.trigger();
  }

  #indexSlice(
    key: string,
    old: EndpointSlice | undefined,
    current: EndpointSlice | undefined,
  ): void {
    const owner = serviceOf(current ?? old);
    if (owner === undefined) return;
    const slices = this.#slicesOf.get(owner) ?? new Map<string, EndpointSlice>();
    if (current === undefined) slices.delete(key);
    else slices.set(key, current);
    if (slices.size === 0) this.#slicesOf.delete(owner);
    else this.#slicesOf.set(owner, slices);
  }

  #sync(): void {
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    try {
      const changes = dirty.map((key) => this.#replan(key));
      for (const ruleset of this.#c.rulesets) this.#stage(ruleset, changes);
      for (const ruleset of this.#c.rulesets) ruleset.commit();
    } catch (error) {
      // The mirror holds what was staged; the next commit makes the table anew from it.
      for (const key of dirty) this.#dirty.add(key);
      throw error;
    }
  }

  #replan(key: string): { before: ServicePlan | undefined; after: ServicePlan } {
    const before = this.#plans.get(key);
    const service = this.#c.services.get(key);
    const slices = [...(this.#slicesOf.get(key)?.values() ?? [])];
    const after = planService(service, slices, this.#node, {
      previous: before,
      skipAddresses: this.#skipAddresses,
    });
    if (service === undefined) this.#plans.delete(key);
    else this.#plans.set(key, after);
    const newlyUnsupported = after.unsupported.filter(
      (what) => !before?.unsupported.includes(what),
    );
    if (newlyUnsupported.length > 0)
      this.#c.log.warn({ service: key, fields: newlyUnsupported }, 'service: not carried out yet');
    return { before, after };
  }

  #stage(
    ruleset: Ruleset,
    changes: readonly { before: ServicePlan | undefined; after: ServicePlan }[],
  ): void {
    const family = ruleset.family === 'ip' ? 4 : 6;
    const add: StagedElement[] = [];
    const remove: StagedElement[] = [];
    const counts = this.#counts.get(ruleset);
    const newCounts = new Set(counts);
    for (const { before, after } of changes) {
      const old = this.#elementsOf(before, family);
      const now = this.#elementsOf(after, family);
      for (const [name, staged] of old)
        if (!now.has(name)) remove.push(...this.#unuse(name, staged));
      for (const [name, staged] of now) {
        const was = old.get(name);
        if (was === undefined) add.push(...this.#use(name, staged));
        else if (!sameContent(was.element, staged.element)) add.push(staged);
      }
      for (const frontend of after.frontends)
        if (frontend.family === family && frontend.slots.length > 0)
          newCounts.add(frontend.slots.length);
    }
    // Chains for counts that nobody has any more stay: they cost nothing, and the next rolling update needs them again.
    if (counts === undefined || newCounts.size > counts.size) {
      this.#counts.set(ruleset, newCounts);
      ruleset.define(SERVICES_PART, servicesPart(ruleset.family, newCounts));
    }
    // All removals first: an address may go from one service to another within one sync.
    for (const { set, element } of remove) ruleset.stage(set, { remove: [element] });
    for (const { set, element } of add) ruleset.stage(set, { add: [element] });
  }

  /** All elements that a plan needs, by a name that is the same for the same key in the same set. */
  #elementsOf(plan: ServicePlan | undefined, family: 4 | 6): Map<string, StagedElement> {
    const all = new Map<string, StagedElement>();
    for (const frontend of plan?.frontends ?? []) {
      if (frontend.family !== family) continue;
      const prefix = frontendKey(frontend);
      for (const [name, staged] of frontendElements(frontend)) all.set(`${prefix} ${name}`, staged);
      all.set(`shared ${CLUSTER_IPS} ${frontend.address}`, {
        set: CLUSTER_IPS,
        element: clusterIpElement(frontend.address),
      });
      for (const { address } of frontend.slots)
        all.set(`shared ${HAIRPIN} ${address}`, { set: HAIRPIN, element: hairpinElement(address) });
    }
    return all;
  }

  /** @returns the element if this is its first user */
  #use(name: string, staged: StagedElement): StagedElement[] {
    if (!name.startsWith('shared ')) return [staged];
    const users = this.#users.get(name) ?? 0;
    this.#users.set(name, users + 1);
    return users === 0 ? [staged] : [];
  }

  /** @returns the element if this was its last user */
  #unuse(name: string, staged: StagedElement): StagedElement[] {
    if (!name.startsWith('shared ')) return [staged];
    const users = (this.#users.get(name) ?? 1) - 1;
    if (users > 0) this.#users.set(name, users);
    else this.#users.delete(name);
    return users > 0 ? [] : [staged];
  }
}

function serviceOf(slice: EndpointSlice | undefined): string | undefined {
  const name = slice?.metadata.labels?.[SERVICE_NAME_LABEL];
  return name === undefined ? undefined : `${slice?.metadata.namespace}/${name}`;
}

function sameContent(a: SetElement, b: SetElement): boolean {
  return (
    JSON.stringify(a.verdict) === JSON.stringify(b.verdict) &&
    Buffer.compare(a.data ?? new Uint8Array(), b.data ?? new Uint8Array()) === 0
  );
}
