/**
 * The fabric feature: watches nodes, blocks and pools, keeps the kernel at the plan, and repairs at once what
 * somebody else breaks.
 */

import { NODE, type Node } from '#api/core/v1/node.ts';
import type { IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import { cidrOf, type Ip, parseCidr, parseIp, parseMac } from '#lib/ip.ts';
import { VXLAN_LINK } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { NetworkEvent, NetworkStack } from '#linux/network/port.ts';
import type { Ruleset } from '../ruleset.ts';
import { applyFabric, type FabricChanges, isFabricRoute } from './apply.ts';
import { FABRIC_PART, FABRIC_PEERS, fabricPart, peerElements } from './filter.ts';
import {
  type FabricBlock,
  type FabricNode,
  type FabricPlan,
  type FabricPool,
  planFabric,
  type Uplink,
  vtepMac,
} from './plan.ts';

/** Annotation of a Node: its tunnel addresses, comma separated. */
export const TUNNEL_ADDRESSES_ANNOTATION = 'tulle.dev/tunnel-addresses';
/** Annotation of a Node: the MAC of its VTEP. */
export const VTEP_MAC_ANNOTATION = 'tulle.dev/vtep-mac';

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
}

export interface FabricStatus {
  readonly ready: boolean;
  readonly peers: number;
  readonly routes: number;
  readonly podMtuBytes: number;
  /** Kernel objects put right since the start, after the first sync. */
  readonly repairs: number;
  readonly problems: readonly string[];
}

export class Fabric implements AsyncDisposable {
  readonly #c: FabricComponents;
  readonly #nodeName: string;
  readonly #underlay: Ip;
  readonly #tunnelAddresses: readonly Ip[];
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[] = [];
  #plan: FabricPlan | undefined;
  #uplink: Uplink | undefined;
  #repairs = 0;
  /** Set while the kernel tells of what we do ourselves. */
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
      minIntervalMs: MIN_SYNC_INTERVAL_MS,
      resyncMs: RESYNC_MS,
    });
  }

  /** Publishes this node's VTEP on its Node object and resolves after the first sync. */
  async start(): Promise<void> {
    const { nodes, blocks, pools, stack } = this.#c;
    await Promise.all([nodes.synced(), blocks.synced(), pools.synced()]);
    const trigger = () => this.#loop.trigger();
    this.#stops.push(
      nodes.onChange(({ old, current }) => {
        // Heartbeats change the object, not what the fabric reads of it.
        if (fingerprint(old) !== fingerprint(current)) trigger();
      }),
      blocks.onChange(({ old, current }) => {
        if (old?.spec.node !== current?.spec.node || old?.spec.affinity !== current?.spec.affinity)
          trigger();
      }),
      pools.onChange(trigger),
      stack.watch((event) => this.#onKernelEvent(event)),
    );
    await this.#loop.settled();
  }

  /** What the pods' links may carry. @throws Error before {@link start} */
  get podMtuBytes(): number {
    if (this.#plan === undefined) throw new Error('the fabric has not been planned yet');
    return this.#plan.podMtuBytes;
  }

  status(): FabricStatus {
    return {
      ready: this.#plan !== undefined && this.#loop.lastError === undefined,
      peers: this.#plan?.fdb.length ?? 0,
      routes: this.#plan?.routes.length ?? 0,
      podMtuBytes: this.#plan?.podMtuBytes ?? 0,
      repairs: this.#repairs,
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

  #program(): void {
    const byKernel = this.#kernelChanged;
    this.#kernelChanged = false;
    const uplink = observeUplink(this.#c.stack, this.#underlay);
    this.#uplink = uplink;
    const plan = planFabric({
      self: {
        name: this.#nodeName,
        underlay: this.#underlay,
        vtepMac: vtepMac(this.#nodeName),
        tunnelAddresses: this.#tunnelAddresses,
      },
      uplink,
      others: [...this.#c.nodes.values()]
        .filter((node) => node.metadata.name !== this.#nodeName)
        .flatMap(fabricNode),
      blocks: [...this.#c.blocks.values()].flatMap(fabricBlock),
      pools: [...this.#c.pools.values()].flatMap(fabricPool),
    });
    // The filter first: a new peer's first packet must find itself known.
    const refused = this.#admit(plan.fdb.map((entry) => entry.destination));
    const changes = applyFabric(this.#c.stack, plan, uplink.index);
    const isFirst = this.#plan === undefined;
    this.#plan = plan;
    if (countOf(changes) > 0) {
      if (byKernel && !isFirst) {
        this.#repairs += countOf(changes);
        this.#c.log.warn({ ...changes }, 'fabric: put right what something else had changed');
      } else this.#c.log.info({ ...changes }, 'fabric: programmed');
    }
    if (refused !== undefined) throw refused;
  }

  /** @returns why the kernel did not take it: routes must not wait for that */
  #admit(peers: readonly Ip[]): unknown {
    try {
      for (const ruleset of this.#c.rulesets) {
        ruleset.define(FABRIC_PART, fabricPart(ruleset.family));
        ruleset.stageAll(FABRIC_PEERS, peerElements(peers, ruleset.family));
        ruleset.commit();
      }
      return undefined;
    } catch (error) {
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
    if (!this.#concerns(event)) return;
    this.#kernelChanged = true;
    this.#loop.trigger();
  }

  /** Whether an event can mean that our part of the kernel is not as planned. */
  #concerns(event: NetworkEvent): boolean {
    switch (event.type) {
      case 'overrun':
      case 'fdb':
        return true;
      case 'link':
        return event.link.name === VXLAN_LINK || event.link.index === this.#uplink?.index;
      case 'route':
        return isFabricRoute(event.route, this.#vxlanIndex());
      case 'neighbour':
        // Also those that are not permanent: the kernel tells of a deleted one in the state it died in.
        return event.neighbour.link === this.#vxlanIndex();
      case 'address': {
        const { address } = event.address;
        return address === this.#underlay || this.#tunnelAddresses.includes(address);
      }
      case 'rule':
        return false;
    }
  }

  #vxlanIndex(): number | undefined {
    return this.#c.stack.links.get(VXLAN_LINK)?.index;
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
    address: underlay,
    subnet: cidrOf(underlay, address.prefixLength),
  };
}

function fabricNode(node: Node): FabricNode[] {
  const annotations = node.metadata.annotations ?? {};
  const underlay = parseIp(
    node.status?.addresses?.find((address) => address.type === 'InternalIP')?.address ?? '',
  );
  const mac = parseMac(annotations[VTEP_MAC_ANNOTATION] ?? '');
  if (underlay === undefined || mac === undefined) return []; // its agent has not published it yet
  const tunnelAddresses = (annotations[TUNNEL_ADDRESSES_ANNOTATION] ?? '')
    .split(',')
    .flatMap((text) => parseIp(text) ?? []);
  return [{ name: node.metadata.name, underlay, vtepMac: mac, tunnelAddresses }];
}

function fabricBlock(block: IPBlock): FabricBlock[] {
  const prefix = parseCidr(block.spec.cidr);
  // A pending claim is not yet a fact: somebody else may win the block.
  if (prefix === undefined || block.spec.affinity !== 'Confirmed' || block.spec.node === '')
    return [];
  return [{ cidr: prefix, node: block.spec.node }];
}

function fabricPool(pool: IPPool): FabricPool[] {
  const prefix = parseCidr(pool.spec.cidr);
  if (prefix === undefined) return [];
  return [{ cidr: prefix, encapsulation: pool.spec.encapsulation ?? 'Always' }];
}

/** What the fabric reads of a Node, as one string. */
function fingerprint(node: Node | undefined): string {
  return node === undefined ? '' : JSON.stringify(fabricNode(node));
}

function countOf(changes: FabricChanges): number {
  return Number(changes.device) + changes.neighbours + changes.fdb + changes.routes;
}
