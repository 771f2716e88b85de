/**
 * The service feature: watches Services and EndpointSlices and keeps the balancer's maps at the plan.
 * A change of one service costs that service's elements, whatever else there is.
 */
import type { Service } from '#api/core/v1/service.ts';
import { type EndpointSlice, SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import type { Cache } from '#client/port.ts';
import type { Cidr, Ip } from '#lib/ip.ts';
import { familyOf } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { prefixElements } from '#wire/nftables/values.ts';
import type { Ruleset } from '../ruleset.ts';
import { Balancer, type PlanChange } from './balancer.ts';
import { Claims } from './claims.ts';
import { candidatesOf } from './endpoints.ts';
import { type Frontend, type PlanContext, planService, type ServicePlan } from './plan.ts';
import { SERVICE_NETWORKS } from './program.ts';
import type { NodeTopology } from './select.ts';
import { targetKey } from './slots.ts';
import type { KnownTargets } from './stale.ts';

/** Name of this feature's part of the ruleset. */
export const SERVICES_PART = 'services';
/** A burst of changes (a rolling update) becomes one transaction; one change waits no longer than this. */
const MIN_SYNC_INTERVAL_MS = 1;
/** Problems that are told in the status; the log has all. */
const MAX_TOLD_PROBLEMS = 10;
const NO_SLICES: readonly EndpointSlice[] = [];
const NO_FRONTENDS: readonly Frontend[] = [];
const NO_ADDRESSES: readonly Ip[] = [];

/** A service's plan as it was and as it is now. */
interface Replanned {
  readonly before: ServicePlan | undefined;
  readonly after: ServicePlan;
  readonly isGone: boolean;
}

export interface ServicesComponents {
  /** One per family. */
  readonly rulesets: readonly Ruleset[];
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  /** Called after a sync that took endpoints away or changed a service: conntrack entries may mislead now. */
  readonly onEndpointsLost?: () => void;
  readonly log: Logger;
}

export interface ServicesInit {
  readonly node: NodeTopology;
  /** The node's zone, now, if that is not always `node`'s. Call {@link Services.nodeChanged} when it changes. */
  readonly zone?: () => string | undefined;
  /** Frontends that the node's DNS server answers itself. */
  readonly skipAddresses: readonly Ip[];
  /** Where node ports are open, now. Call {@link Services.nodeChanged} when it changes. */
  readonly nodePortAddresses?: () => readonly Ip[];
  /** False: the kernel cannot choose by a hash. */
  readonly canHash?: boolean;
  /** Where cluster IPs come from, now, if that is known. */
  readonly serviceNetworks?: () => readonly Cidr[];
}

export interface ServicesStatus {
  readonly ready: boolean;
  readonly services: number;
  readonly frontends: number;
  readonly endpoints: number;
  readonly withoutEndpoints: readonly string[];
  readonly problems: readonly string[];
}

export class Services implements AsyncDisposable {
  readonly #c: ServicesComponents;
  readonly #init: ServicesInit;
  readonly #skipAddresses: ReadonlySet<string>;
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[] = [];
  readonly #dirty = new Set<string>();
  #isNodeDirty = true;
  /** Since the last sync something happened that can leave conntrack entries behind. */
  #mayMislead = true;
  /** Frontends that are no more, until {@link forgetGone}. */
  readonly #gone = new Set<string>();
  readonly #plans = new Map<string, ServicePlan>();
  /** Slices by service, because a Cache has no such index of its own. Nearly all services have one or two. */
  readonly #slicesOf = new Map<string, readonly EndpointSlice[]>();
  readonly #claims: Claims;
  readonly #balancers: readonly { ruleset: Ruleset; balancer: Balancer }[];
  #nodePortAddresses: readonly Ip[] = [];
  #node: NodeTopology;

  constructor(components: ServicesComponents, init: ServicesInit) {
    this.#c = components;
    this.#init = init;
    this.#node = init.node;
    this.#skipAddresses = new Set(init.skipAddresses);
    this.#claims = new Claims((service) => this.#ageOf(service));
    const plans = () => this.#activePlans();
    this.#balancers = components.rulesets.map((ruleset) => ({
      ruleset,
      balancer: new Balancer({ ruleset, part: SERVICES_PART, plans }),
    }));
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
      services.onChange(({ key }) => {
        this.#mayMislead = true;
        this.#touch(key);
      }),
      slices.onChange(({ old, current }) => {
        this.#mayMislead ||= losesEndpoint(old, current);
        const owners = [serviceOf(old), serviceOf(current)];
        this.#indexSlice(owners[0], old, undefined);
        this.#indexSlice(owners[1], undefined, current);
        for (const owner of owners) if (owner !== undefined) this.#touch(owner);
      }),
    );
    for (const key of services.keys()) this.#dirty.add(key);
    for (const slice of slices.values()) this.#indexSlice(serviceOf(slice), undefined, slice);
    await this.#loop.settled();
  }

  /** To be called when this node's addresses or the service networks may have changed. */
  nodeChanged(): void {
    this.#isNodeDirty = true;
    // Before the start there is nothing to plan with: a sync would say that there are no services.
    if (this.#stops.length > 0) this.#loop.trigger();
  }

  status(): ServicesStatus {
    const plans = [...this.#plans];
    let frontends = 0;
    let endpoints = 0;
    for (const [, plan] of plans) {
      frontends += plan.frontends.length;
      for (const { inside } of plan.frontends) endpoints += inside.slots.length;
    }
    const problems = [
      ...(this.#loop.lastError === undefined ? [] : [this.#loop.lastError]),
      ...plans.flatMap(([key, plan]) => plan.problems.map((what) => `service ${key}: ${what}`)),
      ...this.#claims
        .conflicts()
        .map(
          ({ frontend, owner, others }) => `${frontend} of ${owner} is wanted by ${others}, too`,
        ),
    ];
    return {
      ready: this.#loop.runs > 0 && this.#loop.lastError === undefined,
      services: plans.filter(([, plan]) => plan.frontends.length > 0).length,
      frontends,
      endpoints,
      withoutEndpoints: plans
        .filter(([, plan]) => plan.frontends.some(({ inside }) => inside.action === 'reject'))
        .map(([key]) => key),
      problems:
        problems.length > MAX_TOLD_PROBLEMS
          ? [
              ...problems.slice(0, MAX_TOLD_PROBLEMS),
              `and ${problems.length - MAX_TOLD_PROBLEMS} more`,
            ]
          : problems,
    };
  }

  /**
   * What conntrack entries to a frontend may lead to.
   * @param frontend as `frontendKey` gives it
   * @returns undefined if no service has it or had it since {@link forgetGone}
   */
  targetsOf(frontend: string): KnownTargets | undefined {
    const owner = this.#claims.ownerOf(frontend);
    const service = owner === undefined ? undefined : this.#c.services.get(owner);
    const active = owner === undefined ? undefined : this.#plans.get(owner);
    const found = active?.frontends.find(({ key }) => key === frontend);
    if (owner === undefined || service === undefined || found === undefined)
      return this.#gone.has(frontend) ? { present: undefined, serving: new Set() } : undefined;
    const present = new Set<string>();
    const serving = new Set<string>();
    for (const port of service.spec.ports ?? []) {
      const isOfPort = found.port === port.port || found.port === port.nodePort;
      if (!isOfPort || (port.protocol ?? 'TCP') !== found.protocol) continue;
      for (const { target, conditions } of candidatesOf(this.#slices(owner), port, found.family)) {
        present.add(targetKey(target));
        if (conditions?.serving ?? true) serving.add(targetKey(target));
      }
    }
    return { present, serving };
  }

  /** To be called when nothing of lost frontends is left in conntrack. */
  forgetGone(): void {
    this.#gone.clear();
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

  /** Takes a slice out and another in. @param owner the service's key; a slice is in its namespace */
  #indexSlice(
    owner: string | undefined,
    old: EndpointSlice | undefined,
    current: EndpointSlice | undefined,
  ): void {
    if (owner === undefined) return;
    const known = this.#slices(owner);
    if (known.length === 0) {
      if (current !== undefined) this.#slicesOf.set(owner, [current]);
      return;
    }
    const slices = known.filter(({ metadata }) => metadata.name !== old?.metadata.name);
    if (current !== undefined) slices.push(current);
    if (slices.length === 0) this.#slicesOf.delete(owner);
    else this.#slicesOf.set(owner, slices);
  }

  #slices(service: string): readonly EndpointSlice[] {
    return this.#slicesOf.get(service) ?? NO_SLICES;
  }

  #sync(): void {
    const isNodeDirty = this.#isNodeDirty;
    this.#isNodeDirty = false;
    if (isNodeDirty) this.#lookAtNode();
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    try {
      const isAnew = this.#balancers.every(({ ruleset }) => ruleset.willAskSources);
      const gone = isAnew ? this.#planAnew(dirty) : this.#planChanges(dirty);
      if (isNodeDirty) this.#stageNetworks();
      // Before the commit, which may fail: the next run does not see these changes any more.
      for (const key of gone) this.#gone.add(key);
      for (const { ruleset } of this.#balancers) ruleset.commit();
      if (this.#mayMislead) this.#c.onEndpointsLost?.();
      this.#mayMislead = false;
    } catch (error) {
      // The plans are kept, and the table is made anew from them.
      for (const key of dirty) this.#dirty.add(key);
      this.#isNodeDirty = true;
      throw error;
    }
  }

  #lookAtNode(): void {
    const zone = this.#init.zone === undefined ? this.#node.zone : this.#init.zone();
    if (zone !== this.#node.zone) {
      this.#node = { ...this.#node, zone };
      for (const key of this.#plans.keys()) this.#dirty.add(key);
    }
    const addresses = this.#init.nodePortAddresses?.() ?? [];
    const isSame = addresses.join() === this.#nodePortAddresses.join();
    this.#nodePortAddresses = addresses;
    if (isSame) return;
    for (const { metadata, spec } of this.#c.services.values())
      if (spec.type === 'NodePort' || spec.type === 'LoadBalancer')
        this.#dirty.add(`${metadata.namespace}/${metadata.name}`);
  }

  #stageNetworks(): void {
    const networks = this.#init.serviceNetworks?.() ?? [];
    for (const { ruleset } of this.#balancers) {
      const family = ruleset.family === 'ip' ? 4 : 6;
      const ours = networks.filter((network) => familyOf(network) === family);
      ruleset.stageAll(
        SERVICE_NETWORKS,
        ours.flatMap((network) => prefixElements(network)),
      );
    }
  }

  /**
   * Plans these services for a table that is made anew: what all frontends are in the end is counted then, and what has
   * changed is asked of nobody.
   * @returns keys of frontends that are no more
   */
  #planAnew(dirty: readonly string[]): string[] {
    const context = this.#context();
    const had: string[] = [];
    for (const key of dirty) {
      const plan = this.#planned(key, context);
      this.#take(key, plan);
      for (const frontend of plan.before?.frontends ?? []) had.push(frontend.key);
    }
    for (const { balancer } of this.#balancers) balancer.stageAll();
    return had.filter((name) => this.#served(name) === undefined);
  }

  /** Plans these services, and stages what changes for their frontends. @returns keys of frontends that are no more */
  #planChanges(dirty: readonly string[]): string[] {
    const context = this.#context();
    /** What is touched, and how it was served. */
    const touched = new Map<string, Frontend | undefined>();
    const touch = ({ key }: Frontend) => {
      if (!touched.has(key)) touched.set(key, this.#served(key));
    };
    // Who serves a frontend is settled only when all have said what they want.
    const plans = dirty.map((key) => ({ key, ...this.#planned(key, context) }));
    for (const { before, after } of plans) {
      before?.frontends.forEach(touch);
      after.frontends.forEach(touch);
    }
    for (const plan of plans) this.#take(plan.key, plan);
    const changes: PlanChange[] = [];
    for (const [name, before] of touched) changes.push({ before, after: this.#served(name) });
    for (const { balancer } of this.#balancers) balancer.stage(changes);
    return changes.flatMap(({ before, after }) =>
      before !== undefined && after === undefined ? [before.key] : [],
    );
  }

  #context(): PlanContext {
    return {
      node: this.#node,
      skipAddresses: this.#skipAddresses,
      nodePortAddresses: this.#nodePortAddresses,
      canHash: this.#init.canHash ?? true,
    };
  }

  #planned(key: string, context: PlanContext): Replanned {
    const before = this.#plans.get(key);
    const service = this.#c.services.get(key);
    const after = planService(service, this.#slices(key), context, before);
    return { before, after, isGone: service === undefined };
  }

  #take(key: string, { before, after, isGone }: Replanned): void {
    this.#claims.replace(key, before?.frontends ?? NO_FRONTENDS, after.frontends);
    if (isGone) this.#plans.delete(key);
    else this.#plans.set(key, after);
    for (const problem of after.problems)
      if (!before?.problems.includes(problem))
        this.#c.log.warn({ service: key }, `service: ${problem}`);
    for (const { balancer } of this.#balancers)
      balancer.count(before?.localAddresses ?? NO_ADDRESSES, after.localAddresses);
  }

  /** The frontend as its owner's plan has it. */
  #served(name: string): Frontend | undefined {
    const owner = this.#claims.ownerOf(name);
    if (owner === undefined) return undefined;
    return this.#plans.get(owner)?.frontends.find(({ key }) => key === name);
  }

  *#activePlans(): Generator<Frontend> {
    const isContested = this.#claims.hasConflicts;
    for (const [key, plan] of this.#plans)
      for (const frontend of plan.frontends)
        if (!isContested || this.#claims.ownerOf(frontend.key) === key) yield frontend;
  }

  /** Who was first has a frontend that several want. */
  #ageOf(service: string): string {
    return `${this.#c.services.get(service)?.metadata.creationTimestamp ?? ''} ${service}`;
  }
}

/** True if an endpoint of the old slice is not in the new one, or does not answer any more. */
function losesEndpoint(
  old: EndpointSlice | undefined,
  current: EndpointSlice | undefined,
): boolean {
  const ports = (slice: EndpointSlice | undefined) => JSON.stringify(slice?.ports ?? []);
  const isSame = old?.ports === current?.ports;
  if (old !== undefined && !isSame && ports(old) !== ports(current)) return true;
  const left = new Set(
    current?.endpoints?.flatMap((it) => ((it.conditions?.serving ?? true) ? it.addresses[0] : [])),
  );
  return old?.endpoints?.some((endpoint) => !left.has(endpoint.addresses[0])) ?? false;
}

function serviceOf(slice: EndpointSlice | undefined): string | undefined {
  const name = slice?.metadata.labels?.[SERVICE_NAME_LABEL];
  return name === undefined ? undefined : `${slice?.metadata.namespace}/${name}`;
}
