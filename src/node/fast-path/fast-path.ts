/**
 * The fast path between pods: keeps `program.ts` at the links of the node's pods and of the fabric, and its maps in step
 * with who is attached. It ends with the agent, whose lease on it runs out; then, as without it, packets go the long way.
 */
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { Cache } from '#client/port.ts';
import { isSpecChange } from '#client/spec-change.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { EINVAL, ENODEV, explainError, isErrno } from '#lib/errors.ts';
import { type Family, familyOf, type Ip, ipToBytes, outermostCidrs, parseCidr } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Bpf, BpfCounters, BpfMap, BpfProgram } from '#linux/bpf/port.ts';
import type { IfIndex, NetworkStack } from '#linux/network/port.ts';
import type { TrafficControl } from '#linux/tc/port.ts';
import { type Attachments, ipsOf, mayTakeFastPath } from '../attachment.ts';
import type { KernelGap } from '../probe.ts';
import {
  COUNTERS,
  type ConntrackTimeouts,
  encodePod,
  FAST_PATH_LICENSE,
  type FastPathFacts,
  type FastPod,
  fastPathProgram,
  findSymbols,
  type KernelSymbols,
  POD_BYTES,
} from './program.ts';

const NS_PER_MS = 1_000_000n;
/** Nobody waits for it, and the first packets of a new pod have the processors first. */
const MIN_SYNC_INTERVAL_MS = 50;
/** Backstop for lost events. */
const RESYNC_MS = 60_000;
/** Far more than a node has pods; beyond, the others' packets go the long way. */
const MAX_ADDRESSES = 16_384;
/** How long programs work after the agent's last word, and how often it says one. */
export const LEASE_MS = 10_000;
const RENEW_MS = 2_000;
/** The uplink, and the tunnel device. */
const MAX_EXITS = 16;

const GAP: KernelGap = {
  name: 'what the fast path between pods needs',
  option: 'CONFIG_BPF_SYSCALL, CONFIG_NET_XGRESS, CONFIG_DEBUG_INFO_BTF (Linux 6.6 or later)',
  otherwise: 'packets between pods go the long way',
};

export interface FastPathComponents {
  readonly stack: NetworkStack;
  readonly bpf: Bpf;
  readonly tc: TrafficControl;
  readonly attachments: Attachments;
  readonly pools: Cache<IPPool>;
  /** Links by which packets come from pods of other nodes and go to them. */
  readonly exits: {
    list(): readonly IfIndex[];
    onChange(listener: () => void): () => void;
  };
  readonly log: Logger;
  /** For the lease. */
  readonly clock?: Clock;
}

interface Maps {
  readonly pods: Readonly<Record<Family, BpfMap>>;
  readonly exits: BpfMap;
  readonly counters: BpfCounters;
  readonly lease: BpfMap;
}
type Place = FastPathFacts['from'];
interface Programs extends Readonly<Record<Place, BpfProgram>> {
  /** Of what they were made. */
  readonly key: string;
}
interface Attached extends Disposable {
  readonly program: BpfProgram;
}

export class FastPath implements AsyncDisposable {
  readonly #c: FastPathComponents;
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[] = [];
  #maps: Maps | undefined;
  #symbols: KernelSymbols | undefined;
  #programs: Programs | undefined;
  /** Where a program is: of the fabric as long as this process lives, of pods as a filter of their link. */
  readonly #attached = new Map<IfIndex, Attached>();
  readonly #filtered = new Map<IfIndex, BpfProgram>();
  /** Links of pods that were attached by a version without the fast path, and have no room for it. */
  readonly #withoutRoom = new Set<IfIndex>();
  #toldWithoutRoom = 0;
  /** What the maps of pods hold, in words to compare by. */
  readonly #pods = new Map<Ip, string>();
  readonly #exits = new Set<IfIndex>();
  /** Links of pods by name, until the kernel tells of a change. */
  readonly #links = new Map<string, Pick<FastPod, 'link' | 'hostMac'>>();
  readonly #clock: Clock;
  #cancelRenewal: (() => void) | undefined;
  #problem: string | undefined;

  constructor(components: FastPathComponents) {
    this.#c = components;
    this.#clock = components.clock ?? systemClock;
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'fast path',
      log: components.log,
      minIntervalMs: MIN_SYNC_INTERVAL_MS,
      resyncMs: RESYNC_MS,
    });
  }

  /** Resolves when the pods that are attached have it, or it is known that there is none. */
  async start(): Promise<void> {
    const { attachments, pools, exits, stack } = this.#c;
    await pools.synced();
    const trigger = () => this.#loop.trigger();
    this.#stops.push(
      attachments.onChange(trigger),
      exits.onChange(trigger),
      pools.onChange((change) => {
        if (isSpecChange(change)) trigger();
      }),
      stack.watch((event) => {
        if (event.type !== 'link' && event.type !== 'overrun') return;
        const isOurs = event.type === 'overrun' || this.#links.delete(event.link.name);
        if (event.type === 'overrun') this.#links.clear();
        if (isOurs) trigger();
      }),
    );
    await this.#loop.settled();
  }

  /** What this kernel lacks for it. */
  get gaps(): readonly KernelGap[] {
    return this.#problem === undefined
      ? []
      : [{ ...GAP, otherwise: `${GAP.otherwise} (${this.#problem})` }];
  }

  /** How many links have it. */
  get links(): number {
    return this.#attached.size + this.#filtered.size;
  }

  /** @returns how many packets were taken to a pod of this node, and to another node */
  counts(): Readonly<Record<(typeof COUNTERS)[number], number>> {
    const read = (counter: (typeof COUNTERS)[number]) =>
      this.#maps?.counters.read(COUNTERS.indexOf(counter)) ?? 0;
    return { pod: read('pod'), node: read('node') };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#loop[Symbol.asyncDispose]();
    this.#end();
  }

  #sync(): void {
    if (this.#problem !== undefined) return;
    try {
      this.#program();
    } catch (error) {
      // A kernel that cannot do it will not learn it.
      this.#problem = explainError(error);
      this.#end();
      this.#c.log.warn(
        { reason: this.#problem },
        'no fast path: packets between pods go the long way',
      );
    }
  }

  #program(): void {
    const pods = this.#podsByAddress();
    const exits = this.#c.exits.list().slice(0, MAX_EXITS);
    if (this.#maps === undefined) {
      this.#maps = createMaps(this.#c.bpf);
      this.#renew();
    }
    const maps = this.#maps;
    const programs = this.#programsOfNow(maps);
    if (programs === undefined) return;
    letTcpGoOn(this.#c.stack);
    // What programs look up is there before they are, and goes after them.
    for (const [address, pod] of pods) {
      const print = JSON.stringify(pod);
      if (this.#pods.get(address) === print) continue;
      maps.pods[familyOf(address)].set(ipToBytes(address), encodePod(pod));
      this.#pods.set(address, print);
    }
    for (const link of exits)
      if (!this.#exits.has(link)) {
        maps.exits.set(indexBytes(link), Uint8Array.of(1));
        this.#exits.add(link);
      }
    const podLinks = new Set([...pods.values()].map(({ link }) => link));
    for (const link of podLinks) this.#setFilter(link, programs.pod);
    this.#tellWithoutRoom(podLinks);
    for (const link of exits) this.#attach(link, programs.fabric);
    // A filter goes with its link, and takes nothing for a pod that no map has.
    for (const link of this.#filtered.keys()) if (!podLinks.has(link)) this.#filtered.delete(link);
    for (const [link, attached] of this.#attached)
      if (!exits.includes(link)) {
        attached[Symbol.dispose]();
        this.#attached.delete(link);
      }
    for (const link of this.#exits)
      if (!exits.includes(link)) {
        maps.exits.delete(indexBytes(link));
        this.#exits.delete(link);
      }
    for (const address of this.#pods.keys())
      if (!pods.has(address)) {
        maps.pods[familyOf(address)].delete(ipToBytes(address));
        this.#pods.delete(address);
      }
  }

  #podsByAddress(): Map<Ip, FastPod> {
    const pods = new Map<Ip, FastPod>();
    for (const attachment of this.#c.attachments.list().filter(mayTakeFastPath)) {
      const link = this.#linkOf(attachment.hostLink);
      if (link === undefined) continue;
      for (const address of ipsOf(attachment))
        if (pods.size < MAX_ADDRESSES) pods.set(address, { ...link, podMac: attachment.mac });
    }
    return pods;
  }

  #linkOf(name: string): Pick<FastPod, 'link' | 'hostMac'> | undefined {
    const known = this.#links.get(name);
    if (known !== undefined) return known;
    const link = this.#c.stack.links.get(name);
    if (link?.mac === undefined) return undefined;
    const found = { link: link.index, hostMac: link.mac };
    this.#links.set(name, found);
    return found;
  }

  /** New ones if the pools or the kernel's settings are others. @returns undefined if there is no pool */
  #programsOfNow(maps: Maps): Programs | undefined {
    const { bpf, stack, pools } = this.#c;
    const networks = outermostCidrs(
      [...pools.values()].flatMap(({ spec }) => parseCidr(spec.cidr) ?? []),
    );
    const timeoutsMs = conntrackTimeouts(stack);
    if (networks.length === 0 || timeoutsMs === undefined) return this.#programs;
    const key = JSON.stringify([networks, timeoutsMs]);
    if (this.#programs?.key === key) return this.#programs;
    this.#symbols ??= findSymbols(bpf.readKernelTypes());
    const kernel = this.#symbols;
    const load = (from: Place) =>
      bpf.loadClassifier(
        `tulle_${from}`,
        FAST_PATH_LICENSE,
        fastPathProgram({
          ...{ from, pools: networks, kernel, timeoutsMs },
          maps: {
            pods: { 4: maps.pods[4].fd, 6: maps.pods[6].fd },
            exits: maps.exits.fd,
            counters: maps.counters.fd,
            lease: maps.lease.fd,
          },
        }),
      );
    const old = this.#programs;
    this.#programs = { key, pod: load('pod'), fabric: load('fabric') };
    // The kernel keeps a program as long as it is attached somewhere.
    old?.pod[Symbol.dispose]();
    old?.fabric[Symbol.dispose]();
    return this.#programs;
  }

  #setFilter(link: IfIndex, program: BpfProgram): void {
    if (this.#filtered.get(link) === program || this.#withoutRoom.has(link)) return;
    try {
      this.#c.tc.classify(link, program);
      this.#filtered.set(link, program);
    } catch (error) {
      if (isErrno(error, EINVAL)) this.#withoutRoom.add(link);
      // It went meanwhile; the kernel tells of it.
      else if (!isErrno(error, ENODEV)) throw error;
    }
  }

  /** To make room on a link that is up would lose packets. */
  #tellWithoutRoom(podLinks: ReadonlySet<IfIndex>): void {
    for (const link of this.#withoutRoom) if (!podLinks.has(link)) this.#withoutRoom.delete(link);
    const pods = this.#withoutRoom.size;
    if (pods === this.#toldWithoutRoom) return;
    this.#toldWithoutRoom = pods;
    this.#c.log.info(
      { pods },
      'pods of a version without the fast path go the long way until they are attached again',
    );
  }

  #renew(): void {
    const until = process.hrtime.bigint() + BigInt(LEASE_MS) * NS_PER_MS;
    this.#maps?.lease.set(indexBytes(0), u64Bytes(until));
    this.#cancelRenewal = this.#clock.schedule(RENEW_MS, () => this.#renew());
  }

  #attach(link: IfIndex, program: BpfProgram): void {
    const before = this.#attached.get(link);
    if (before?.program === program) return;
    try {
      const attached = this.#c.bpf.attach(program, link);
      this.#attached.set(link, { program, [Symbol.dispose]: () => attached[Symbol.dispose]() });
    } catch (error) {
      // It went meanwhile; the kernel tells of it.
      if (!isErrno(error, ENODEV)) throw error;
      this.#attached.delete(link);
    }
    before?.[Symbol.dispose]();
  }

  #end(): void {
    this.#cancelRenewal?.();
    // Filters stay, and do nothing from now on.
    this.#maps?.lease.set(indexBytes(0), u64Bytes(0n));
    this.#filtered.clear();
    for (const attached of this.#attached.values()) attached[Symbol.dispose]();
    this.#attached.clear();
    this.#pods.clear();
    this.#exits.clear();
    this.#programs?.pod[Symbol.dispose]();
    this.#programs?.fabric[Symbol.dispose]();
    this.#programs = undefined;
    if (this.#maps === undefined) return;
    const { pods, exits, counters, lease } = this.#maps;
    for (const map of [pods[4], pods[6], exits, counters, lease]) map[Symbol.dispose]();
    this.#maps = undefined;
  }
}

function createMaps(bpf: Bpf): Maps {
  const pods = (family: Family, keyBytes: number) =>
    bpf.createMap({
      ...{ name: `tulle_pods_v${family}`, keyBytes, valueBytes: POD_BYTES },
      maxEntries: MAX_ADDRESSES,
    });
  return {
    pods: { 4: pods(4, 4), 6: pods(6, 16) },
    exits: bpf.createMap({
      ...{ name: 'tulle_exits', keyBytes: 4, valueBytes: 1 },
      maxEntries: MAX_EXITS,
    }),
    counters: bpf.createCounters('tulle_taken', COUNTERS.length),
    lease: bpf.createMap({
      ...{ name: 'tulle_lease', isArray: true, keyBytes: 4, valueBytes: 8, maxEntries: 1 },
    }),
  };
}

/** @returns undefined as long as this network has no connection tracking */
function conntrackTimeouts({ sysctl }: NetworkStack): ConntrackTimeouts | undefined {
  const seconds = (name: string) => Number(sysctl.get(`net/netfilter/nf_conntrack_${name}`));
  const [tcpEstablished, udp, udpStream] = [
    seconds('tcp_timeout_established'),
    seconds('udp_timeout'),
    seconds('udp_timeout_stream'),
  ];
  if (!(tcpEstablished > 0 && udp > 0 && udpStream > 0)) return undefined;
  return {
    tcpEstablished: toMs(tcpEstablished),
    udp: toMs(udp),
    udpStream: toMs(udpStream),
  };
}

/**
 * The end of a connection of TCP goes the long way, and all of it does when the agent has ended; connection tracking, which
 * has not seen what was taken, must not call that invalid. These stay when the agent ends.
 */
function letTcpGoOn({ sysctl }: NetworkStack): void {
  for (const name of ['be_liberal', 'ignore_invalid_rst']) {
    const path = `net/netfilter/nf_conntrack_tcp_${name}`;
    if (sysctl.get(path) !== '1') sysctl.set(path, '1');
  }
}

/** What the program gives the kernel is an i32. */
function toMs(seconds: number): number {
  return Math.min(seconds * 1000, 0x7fff_ffff);
}

function u64Bytes(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

function indexBytes(link: IfIndex): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(link);
  return bytes;
}
