/**
 * The fabric feature: watches nodes, blocks and pools, keeps the kernel at the plan, and repairs at once what
 * somebody else breaks.
 */

import { NODE, type Node } from '#api/core/v1/node.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import { isSpecChange } from '#client/spec-change.ts';
import type { Clock } from '#lib/clock.ts';
import { cidrOf, familyOf, type Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { IfIndex, NetworkEvent, NetworkStack } from '#linux/network/port.ts';
import type { Ruleset } from '../ruleset.ts';
import { applyFabric } from './apply.ts';
import { FABRIC_PART, FABRIC_PEERS, fabricPart, peerElements } from './filter.ts';
import { type Followed, follow, type Verdict } from './follow.ts';
import {
  createObjectReader,
  fabricPool,
  TUNNEL_ADDRESSES_ANNOTATION,
  VTEP_MAC_ANNOTATION,
} from './objects.ts';
import { type FabricPlan, planFabric, type Uplink, vtepMac } from './plan.ts';
import { applyState, type FabricChanges, wantedState } from './state.ts';

/** Changes to the kernel closer together than this become one sync. */
const MIN_SYNC_INTERVAL_MS = 5;
/** Backstop for lost events. */
const RESYNC_MS = 60_000;

export interface FabricComponents {
  stack: NetworkStack;
  /** One per family. */
  rulesets: readonly Ruleset[];
  client: ApiClient;
  nodes: Cache<Node>;
  blocks: Cache<IPBlock>;
  pools: Cache<IPPool>;
  log: Logger;
  clock?: Clock;
}

export interface FabricStatus {
  readonly ready: boolean;
  readonly peers: number;
  readonly routes: number;
  readonly podMtuBytes: number;
  /** Kernel objects put right since the start, after the first sync. */
  readonly repairs: number;
  /** Syncs since the start. */
  readonly runs: number;
  readonly problems: readonly string[];
}

export class Fabric implements AsyncDisposable {
  readonly #c: FabricComponents;
  readonly #nodeName: string;
  readonly #underlay: Ip;
  readonly #tunnelAddresses: readonly Ip[];
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[] = [];
  readonly #read = createObjectReader();
  readonly #mtuListeners = new Set<() => void>();
  readonly #exitListeners = new Set<() => void>();
  #exits: readonly IfIndex[] = [];
  #plan: FabricPlan | undefined;
  /** What the kernel is known to hold; undefined: it has to be read, everything of it. */
  #followed: Followed | undefined;
  /** What {@link #followed} is of. */
  #lastWritten: FabricPlan | undefined;
  /** Nodes, blocks or pools are not those of the plan any more. */
  #stale = true;
  #isResync = true;
  /** The peers that the filter has. */
  #admitted: string | undefined;
  #repairs = 0;
  /** Set while the kernel tells of what we did not do ourselves. */
  #kernelChanged = false;

  constructor(
    components: FabricComponents,
    init: { nodeName: string; underlay: Ip; tunnelAddresses: readonly Ip[] },
  ) {
    this.#c = components;
    this.#nodeName = init.nodeName;
    this.#underlay = init.underlay;
    this.#tunnelAddresses = init.tunnelAddresses;
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'fabric',
      log: components.log,
      ...(components.clock === undefined ? {} : { clock: components.clock }),
      minIntervalMs: MIN_SYNC_INTERVAL_MS,
      resyncMs: RESYNC_MS,
    });
  }

  /** Publishes this node's VTEP on its Node object and resolves after the first sync. */
  async start(): Promise<void> {
    const { nodes, blocks, pools, stack } = this.#c;
    await Promise.all([nodes.synced(), blocks.synced(), pools.synced()]);
    const trigger = () => {
      this.#stale = true;
      this.#trigger();
    };
    this.#stops.push(
      nodes.onChange(({ old, current }) => {
        // Heartbeats change the object, not what the fabric reads of it.
        if (this.#read.fingerprint(old) !== this.#read.fingerprint(current)) trigger();
      }),
      blocks.onChange(({ old, current }) => {
        const isMoved =
          old?.spec.node !== current?.spec.node || old?.spec.affinity !== current?.spec.affinity;
        if (isMoved || this.#read.lentPrint(old) !== this.#read.lentPrint(current)) trigger();
      }),
      pools.onChange((change) => {
        if (isSpecChange(change)) trigger();
      }),
      stack.watch((event) => this.#onKernelEvent(event)),
    );
    await this.#loop.settled();
  }

  /** What the pods' links may carry. @throws Error before {@link start} */
  get podMtuBytes(): number {
    if (this.#plan === undefined) throw new Error('the fabric has not been planned yet');
    return this.#plan.podMtuBytes;
  }

  /** Links by which packets leave for pods of other nodes, and come from there. */
  get exits(): readonly IfIndex[] {
    return this.#exits;
  }

  /** Calls back after each change of {@link exits}, until the returned function is called. */
  onExits(listener: () => void): () => void {
    this.#exitListeners.add(listener);
    return () => this.#exitListeners.delete(listener);
  }

  /** Calls back after each change of {@link podMtuBytes}, until the returned function is called. */
  onPodMtu(listener: () => void): () => void {
    this.#mtuListeners.add(listener);
    return () => this.#mtuListeners.delete(listener);
  }

  status(): FabricStatus {
    return {
      ready: this.#plan !== undefined && this.#loop.lastError === undefined,
      peers: this.#plan?.fdb.length ?? 0,
      routes: this.#plan?.routes.length ?? 0,
      podMtuBytes: this.#plan?.podMtuBytes ?? 0,
      repairs: this.#repairs,
      runs: this.#loop.runs,
      problems: [
        ...(this.#loop.lastError === undefined ? [] : [this.#loop.lastError]),
        ...(this.#plan?.problems ?? []),
      ],
    };
  }

  /** Stops watching. What is in the kernel stays: traffic goes on without us. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#loop[Symbol.asyncDispose]();
  }

  async #sync(): Promise<void> {
    this.#program();
    // After the kernel: being known to others must not wait for the API, nor the kernel for it.
    await this.#publish();
  }

  #trigger(): void {
    this.#isResync = false;
    this.#loop.trigger();
  }

  #program(): void {
    const byKernel = this.#kernelChanged;
    this.#kernelChanged = false;
    // Nobody asked for this run: it is the backstop for events that were lost.
    const followed = this.#isResync ? undefined : this.#followed;
    this.#isResync = true;
    this.#followed = undefined; // until all is written, nothing is known
    const uplink = followed?.uplink ?? observeUplink(this.#c.stack, this.#underlay);
    const isFirst = this.#plan === undefined;
    const before = this.#plan;
    const isPlanned = followed !== undefined && !this.#stale;
    this.#stale = false;
    try {
      const plan = isPlanned && before !== undefined ? before : this.#makePlan(uplink);
      this.#plan = plan;
      // The filter first: a new peer's first packet must find itself known.
      const refused = this.#admit(plan.fdb.map((entry) => entry.destination));
      const changes = this.#write(plan, uplink, followed);
      this.#tell(changes, byKernel && !isFirst);
      if (refused !== undefined) throw refused;
    } catch (error) {
      this.#stale = true;
      throw error;
    } finally {
      if (before !== undefined && before.podMtuBytes !== this.#plan?.podMtuBytes)
        for (const listener of this.#mtuListeners) listener();
    }
  }

  #makePlan(uplink: Uplink): FabricPlan {
    const family = familyOf(uplink.address);
    return planFabric({
      self: {
        name: this.#nodeName,
        underlay: this.#underlay,
        vtepMac: vtepMac(this.#nodeName),
        tunnelAddresses: this.#tunnelAddresses,
      },
      uplink,
      others: [...this.#c.nodes.values()]
        .filter((node) => node.metadata.name !== this.#nodeName)
        .flatMap((node) => this.#read.node(node, family)),
      blocks: [...this.#c.blocks.values()].flatMap(this.#read.block),
      lent: [...this.#c.blocks.values()].flatMap(this.#read.lent),
      pools: [...this.#c.pools.values()].flatMap(fabricPool),
    });
  }

  /** @param followed what the kernel holds, if that is known */
  #write(plan: FabricPlan, uplink: Uplink, followed: Followed | undefined): FabricChanges {
    const { stack } = this.#c;
    if (followed === undefined) {
      const { changes, state } = applyFabric(stack, plan, uplink.index);
      this.#remember(plan, uplink, state);
      return changes;
    }
    const { have } = followed;
    const isPlanned = plan === this.#lastWritten;
    const want = isPlanned
      ? followed.want
      : wantedState(plan, { vxlan: have.vxlan, uplink: uplink.index });
    const changes = applyState(stack, have, want);
    this.#remember(plan, uplink, want);
    return { device: false, ...changes };
  }

  #remember(plan: FabricPlan, uplink: Uplink, want: Followed['want']): void {
    this.#lastWritten = plan;
    const have = {
      vxlan: want.vxlan,
      routes: new Map(want.routes),
      neighbours: new Map(want.neighbours),
      fdb: new Map(want.fdb),
    };
    this.#followed = { have, want, device: plan.device, uplink };
    const isPlain = plan.routes.some(({ via }) => via === 'uplink');
    const exits = isPlain ? [want.vxlan, uplink.index] : [want.vxlan];
    if (exits.join() === this.#exits.join()) return;
    this.#exits = exits;
    for (const listener of this.#exitListeners) listener();
  }

  #tell(changes: FabricChanges, isRepair: boolean): void {
    if (countOf(changes) === 0) return;
    if (!isRepair) {
      this.#c.log.info({ ...changes }, 'fabric: programmed');
      return;
    }
    this.#repairs += countOf(changes);
    this.#c.log.warn({ ...changes }, 'fabric: put right what something else had changed');
  }

  /** @returns why the kernel did not take it: routes must not wait for that */
  #admit(peers: readonly Ip[]): unknown {
    const wanted = peers.join();
    if (wanted === this.#admitted) return undefined;
    try {
      for (const ruleset of this.#c.rulesets) {
        ruleset.define(FABRIC_PART, fabricPart(ruleset.family));
        ruleset.stageAll(FABRIC_PEERS, peerElements(peers, ruleset.family));
        ruleset.commit();
      }
      this.#admitted = wanted;
      return undefined;
    } catch (error) {
      this.#admitted = undefined;
      return error;
    }
  }

  /** Tells the other nodes of this node's VTEP; again if somebody made the Node object anew. */
  async #publish(): Promise<void> {
    const own = this.#c.nodes.get(this.#nodeName);
    const annotations = {
      [TUNNEL_ADDRESSES_ANNOTATION]: this.#tunnelAddresses.join(','),
      [VTEP_MAC_ANNOTATION]: vtepMac(this.#nodeName),
    };
    const current = own?.metadata.annotations ?? {};
    if (own === undefined || Object.entries(annotations).every(([k, v]) => current[k] === v))
      return;
    await this.#c.client.patch(
      NODE,
      { name: this.#nodeName },
      { type: 'application/merge-patch+json', body: { metadata: { annotations } } },
    );
  }

  #onKernelEvent(event: NetworkEvent): void {
    const verdict = this.#verdictOn(event);
    if (verdict === 'same') return;
    if (verdict === 'look') this.#followed = undefined;
    this.#kernelChanged = true;
    this.#trigger();
  }

  #verdictOn(event: NetworkEvent): Verdict {
    // A look at everything is due; if the kernel refused something, these may be what it was waiting for.
    if (this.#followed === undefined)
      return event.type === 'link' || event.type === 'address' ? 'look' : 'same';
    return follow(event, this.#followed);
  }
}

/** The link that carries the underlay address. @throws Error if no link does */
export function observeUplink(stack: NetworkStack, underlay: Ip): Uplink {
  const address = stack.addresses.list().find((candidate) => candidate.address === underlay);
  const link = address === undefined ? undefined : stack.links.get(address.link);
  if (address === undefined || link === undefined)
    throw new Error(`no link of this node has its underlay address ${underlay}`);
  return {
    index: link.index,
    mtuBytes: link.mtuBytes,
    up: link.up,
    address: underlay,
    subnet: cidrOf(underlay, address.prefixLength),
  };
}

function countOf(changes: FabricChanges): number {
  return Number(changes.device) + changes.neighbours + changes.fdb + changes.routes;
}
