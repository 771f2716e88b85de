/**
 * The program that packets between pods meet where they come in, and that takes those of an established connection
 * straight to where they go: to the other pod's end of its link, or out by the link that leads to its node. Pure.
 *
 * It takes a packet only if the long way, through the host's routing and rules, would let it through unchanged:
 *
 *  1. whole TCP or UDP over IPv4 or IPv6 without options, to an address of the pod network, with hops left; of TCP no
 *     packet that begins or ends a connection;
 *  2. sent by the pod that has the source address, with that pod's MAC; or come in by the fabric to a pod of this node, and
 *     of none of its pods;
 *  3. of a connection that connection tracking has confirmed and seen both ways, without translation or helper, that
 *     policy has not cut since; of TCP: established.
 *
 * Every other packet goes the long way, so that this may be missing, at any time, and nothing but speed with it. The first
 * packets of a connection go the long way, where policy and services see them. What makes an entry go away or be marked
 * (policy, an end, a timeout) takes the connection's next packet back to the long way.
 */
import { UserError } from '#lib/errors.ts';
import {
  type Cidr,
  type Family,
  familyOf,
  ipToBytes,
  type Mac,
  macToBytes,
  networkAddress,
  prefixLengthOf,
} from '#lib/ip.ts';
import { CT_MARK_CUT } from '#lib/kernel-objects.ts';
import type { KernelFunction, KernelTypes } from '#linux/bpf/port.ts';
import {
  alu,
  alu32,
  callHelper,
  callKernel,
  exit,
  FP,
  jump,
  jump32If,
  jumpIf,
  type Line,
  label,
  load,
  loadMap,
  move,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R6,
  R7,
  R8,
  R9,
  set,
  store,
  storeNumber,
} from '#wire/bpf/instructions.ts';
import { TCP_CONNTRACK } from '#wire/conntrack/codec.ts';
import {
  AF,
  CURRENT_NETNS,
  ETHER_TYPE,
  ETHERNET,
  FIB,
  HEADER,
  HELPER,
  IPPROTO,
  IPV4,
  IS_FRAGMENT,
  OPTIONS,
  PACKET_HOST,
  SKB,
  STATUS,
  TCP,
  TUPLE,
  UDP_BYTES,
} from './layouts.ts';

export interface FastPathFacts {
  /** Where the packets that the program sees come from. */
  readonly from: 'pod' | 'fabric';
  /** The pod network: packets to other addresses are none of the program's business. */
  readonly pools: readonly Cidr[];
  /** File descriptors of the maps. */
  readonly maps: {
    /** Addresses of this node's pods, 4 or 16 bytes, to {@link encodePod}. */
    readonly pods: Readonly<Record<Family, number>>;
    /** Index of each link, u32, that packets to pods of other nodes may leave by, to anything. */
    readonly exits: number;
    /** Packets taken, by {@link COUNTERS}. */
    readonly counters: number;
    /** At 0, u64: until when the program may work, nanoseconds of CLOCK_MONOTONIC. */
    readonly lease: number;
  };
  readonly kernel: KernelSymbols;
  /** How long connection tracking keeps an entry after a packet. */
  readonly timeoutsMs: ConntrackTimeouts;
}

/** Packets that were taken to another pod of this node, and to another node. */
export const COUNTERS = ['pod', 'node'] as const;

export interface ConntrackTimeouts {
  readonly tcpEstablished: number;
  readonly udp: number;
  /** Once the kernel counts it as a stream. */
  readonly udpStream: number;
}

/** What of the running kernel the program needs. */
export interface KernelSymbols {
  readonly lookup: KernelFunction;
  readonly release: KernelFunction;
  readonly changeTimeout: KernelFunction;
  /** Where in an entry of connection tracking, `struct nf_conn`. */
  readonly statusOffset: number;
  readonly markOffset: number;
  readonly tcpStateOffset: number;
}

/** The functions of the kernel that the program calls want a licence that is compatible with the GPL. */
export const FAST_PATH_LICENSE = 'Dual MIT/GPL';

/** @throws UserError if this kernel lacks one of them */
export function findSymbols(kernel: KernelTypes): KernelSymbols {
  const must = <T>(found: T | undefined, name: string): T => {
    if (found !== undefined) return found;
    throw new UserError(`the kernel offers no "${name}" to eBPF`);
  };
  const find = (name: string) => must(kernel.function(name), name);
  const member = (...path: string[]) =>
    must(kernel.memberOffset('nf_conn', ...path), ['nf_conn', ...path].join('.'));
  return {
    lookup: find('bpf_skb_ct_lookup'),
    release: find('bpf_ct_release'),
    changeTimeout: find('bpf_ct_change_timeout'),
    statusOffset: member('status'),
    markOffset: member('mark'),
    tcpStateOffset: member('proto', 'tcp', 'state'),
  };
}

/**
 * ```text
 *  0 ifindex of the host's end u32 | 4 MAC of the pod's end | 10 MAC of the host's end      16 bytes
 * ```
 */
export interface FastPod {
  readonly link: number;
  readonly podMac: Mac;
  readonly hostMac: Mac;
}
export const POD_BYTES = 16;
const POD = { link: 0, podMac: 4, hostMac: 10 };

export function encodePod({ link, podMac, hostMac }: FastPod): Uint8Array {
  const bytes = Buffer.alloc(POD_BYTES);
  bytes.writeUInt32LE(link, POD.link);
  bytes.set(macToBytes(podMac), POD.podMac);
  bytes.set(macToBytes(hostMac), POD.hostMac);
  return bytes;
}

const STATUS_WANTED = STATUS.seenReply | STATUS.confirmed;
const STATUS_LOOKED_AT =
  STATUS_WANTED |
  STATUS.srcNat |
  STATUS.dstNat |
  STATUS.sequenceAdjust |
  STATUS.dying |
  STATUS.fixedTimeout |
  STATUS.helper |
  STATUS.offload;
/**
 * Of a UDP connection that the kernel does not count as a stream yet, about one packet of so many goes the long way, where
 * it may become one.
 */
const LONG_WAY_ONE_OF = 64;
/** Others' filters, and the long way. */
const TCX_NEXT = -1;
/** Places on the stack. */
const STACK = { tuple: -40, options: -56, fib: -120, index: -124 };

export function fastPathProgram(facts: FastPathFacts): Line[] {
  // The kernel refuses a program that has lines which nothing leads to.
  const families = ([4, 6] as const).filter((family) =>
    facts.pools.some((pool) => familyOf(pool) === family),
  );
  return [
    move(R6, R1),
    load(32, R1, R6, SKB.packetType),
    jumpIf('ne', R1, PACKET_HOST, 'long way'),
    load(32, R1, R6, SKB.vlanPresent),
    jumpIf('ne', R1, 0, 'long way'),
    load(32, R7, R6, SKB.data),
    load(32, R8, R6, SKB.dataEnd),
    load(32, R1, R6, SKB.protocol),
    ...families.map((family) => jumpIf('eq', R1, ETHER_TYPE[family], `IPv${family}`)),
    label('long way'),
    set(R0, TCX_NEXT),
    exit(),
    ...families.flatMap((family) => ofFamily(facts, family)),
  ];
}

/** R6 is the packet, R7 where it begins and R8 where it ends; later R8 is the connection and R9 the pod it goes to. */
function ofFamily(facts: FastPathFacts, family: Family): Line[] {
  const at = (name: string) => `${name}, IPv${family}`;
  const { kernel, maps, timeoutsMs } = facts;
  return [
    label(`IPv${family}`),
    ...parse(family, at),
    ...isInPools(facts.pools, family, at),
    ...isLeased(maps.lease),
    ...addressInMap(maps.pods[family], TUPLE[family].dst),
    move(R9, R0),
    ...(facts.from === 'pod'
      ? isFromItsPod(maps.pods[family])
      : isFromElsewhere(maps.pods[family])),

    ...connectionOf(kernel, family),
    load(64, R1, R8, kernel.statusOffset),
    move(R2, R1),
    alu('and', R1, STATUS_LOOKED_AT),
    jumpIf('ne', R1, STATUS_WANTED, at('not this one')),
    load(32, R1, R8, kernel.markOffset),
    jumpIf('set', R1, CT_MARK_CUT, at('not this one')),
    load(8, R1, FP, STACK.options + OPTIONS.protocol),
    jumpIf('eq', R1, IPPROTO.tcp, at('of TCP')),
    set(R3, timeoutsMs.udpStream),
    jumpIf('set', R2, STATUS.assured, at('stays')),
    callHelper(HELPER.random),
    alu('and', R0, LONG_WAY_ONE_OF - 1),
    jumpIf('eq', R0, 0, at('not this one')),
    set(R3, timeoutsMs.udp),
    jump(at('stays')),
    label(at('of TCP')),
    load(8, R1, R8, kernel.tcpStateOffset),
    jumpIf('ne', R1, TCP_CONNTRACK.established, at('not this one')),
    set(R3, timeoutsMs.tcpEstablished),
    label(at('stays')),
    move(R1, R8),
    move(R2, R3),
    callKernel(kernel.changeTimeout.typeId, kernel.changeTimeout.module),
    ...release(kernel),

    ...(facts.from === 'pod' ? [jumpIf('eq', R9, 0, at('to another node'))] : []),
    ...counted(maps.counters, 'pod', at),
    ...oneHopLess(family, at('one hop less')),
    load(32, R1, R9, POD.podMac),
    store(32, R7, ETHERNET.dst, R1),
    load(16, R1, R9, POD.podMac + 4),
    store(16, R7, ETHERNET.dst + 4, R1),
    load(16, R1, R9, POD.hostMac),
    store(16, R7, ETHERNET.src, R1),
    load(32, R1, R9, POD.hostMac + 2),
    store(32, R7, ETHERNET.src + 2, R1),
    load(32, R1, R9, POD.link),
    set(R2, 0),
    callHelper(HELPER.redirectPeer),
    exit(),
    ...(facts.from === 'pod' ? toAnotherNode(maps, family, at) : []),

    label(at('not this one')),
    ...release(kernel),
    jump('long way'),
  ];
}

/** Fills in the tuple and the protocol. */
function parse(family: Family, at: (name: string) => string): Line[] {
  const { hops, protocol, src, ports } = HEADER[family];
  const addressWords = family === 4 ? 2 : 8;
  return [
    ...hasBytes(ports + UDP_BYTES),
    ...(family === 4
      ? [
          load(8, R1, R7, IPV4.versionAndLength),
          jumpIf('ne', R1, IPV4.noOptions, 'long way'),
          load(16, R1, R7, IPV4.fragment),
          jumpIf('set', R1, IS_FRAGMENT, 'long way'),
        ]
      : []),
    load(8, R1, R7, hops),
    jumpIf('le', R1, 1, 'long way'),
    load(8, R1, R7, protocol),
    store(32, FP, STACK.options + OPTIONS.protocol, R1),
    jumpIf('eq', R1, IPPROTO.udp, at('parsed')),
    jumpIf('ne', R1, IPPROTO.tcp, 'long way'),
    ...hasBytes(ports + TCP.bytes),
    load(8, R1, R7, ports + TCP.flags),
    jumpIf('set', R1, TCP.finSynRst, 'long way'),
    label(at('parsed')),
    // Both addresses and both ports stand one after the other, as the tuple has them.
    ...Array.from({ length: addressWords }, (_, i) => [
      load(32, R1, R7, src + i * 4),
      store(32, FP, STACK.tuple + i * 4, R1),
    ]).flat(),
    load(32, R1, R7, ports),
    store(32, FP, STACK.tuple + TUPLE[family].ports, R1),
  ];
}

function hasBytes(count: number): Line[] {
  return [move(R2, R7), alu('add', R2, count), jumpIf('gt', R2, { register: R8 }, 'long way')];
}

/** Goes on if the destination is in one of the pools. */
function isInPools(pools: readonly Cidr[], family: Family, at: (name: string) => string): Line[] {
  const lines: Line[] = [];
  for (const [i, pool] of pools.entries()) {
    if (familyOf(pool) !== family) continue;
    const next = at(`not in pool ${i}`);
    const address = Buffer.from(ipToBytes(networkAddress(pool)));
    const prefixLength = prefixLengthOf(pool);
    for (let word = 0; word * 32 < prefixLength; word++) {
      const bits = Math.min(32, prefixLength - word * 32);
      const mask = Buffer.alloc(4);
      mask.writeUInt32BE((0xffffffff << (32 - bits)) >>> 0);
      lines.push(
        load(32, R1, FP, STACK.tuple + TUPLE[family].dst + word * 4),
        ...(bits === 32 ? [] : [alu32('and', R1, mask.readInt32LE())]),
        jump32If('ne', R1, address.readInt32LE(word * 4) & mask.readInt32LE(), next),
      );
    }
    lines.push(jump(at('in a pool')), label(next));
  }
  return [...lines, jump('long way'), label(at('in a pool'))];
}

/** Goes on as long as the agent lives: filters outlive it, and what their maps say grows old. */
function isLeased(lease: number): Line[] {
  return [
    callHelper(HELPER.coarseTime),
    move(R9, R0),
    storeNumber(32, FP, STACK.index, 0),
    loadMap(R1, lease),
    move(R2, FP),
    alu('add', R2, STACK.index),
    callHelper(HELPER.mapLookup),
    jumpIf('eq', R0, 0, 'long way'),
    load(64, R1, R0, 0),
    jumpIf('gt', R9, { register: R1 }, 'long way'),
  ];
}

/** R0 becomes what the map has for the address in the tuple. */
function addressInMap(map: number, offset: number): Line[] {
  return [
    loadMap(R1, map),
    move(R2, FP),
    alu('add', R2, STACK.tuple + offset),
    callHelper(HELPER.mapLookup),
  ];
}

function isFromItsPod(map: number): Line[] {
  return [
    ...addressInMap(map, 0),
    jumpIf('eq', R0, 0, 'long way'),
    load(32, R1, R0, POD.link),
    load(32, R2, R6, SKB.ifindex),
    jumpIf('ne', R1, { register: R2 }, 'long way'),
    load(32, R1, R0, POD.podMac),
    load(32, R2, R7, ETHERNET.src),
    jumpIf('ne', R1, { register: R2 }, 'long way'),
    load(16, R1, R0, POD.podMac + 4),
    load(16, R2, R7, ETHERNET.src + 4),
    jumpIf('ne', R1, { register: R2 }, 'long way'),
  ];
}

/** To a pod of this node, and of none. */
function isFromElsewhere(map: number): Line[] {
  return [
    jumpIf('eq', R9, 0, 'long way'),
    ...addressInMap(map, 0),
    jumpIf('ne', R0, 0, 'long way'),
  ];
}

/** R8 becomes the connection, to be released. */
function connectionOf({ lookup }: KernelSymbols, family: Family): Line[] {
  return [
    storeNumber(32, FP, STACK.options + OPTIONS.netns, CURRENT_NETNS),
    storeNumber(32, FP, STACK.options + OPTIONS.error, 0),
    move(R1, R6),
    move(R2, FP),
    alu('add', R2, STACK.tuple),
    set(R3, TUPLE[family].bytes),
    move(R4, FP),
    alu('add', R4, STACK.options),
    set(R5, OPTIONS.bytes),
    callKernel(lookup.typeId, lookup.module),
    jumpIf('eq', R0, 0, 'long way'),
    move(R8, R0),
  ];
}

function release({ release }: KernelSymbols): Line[] {
  return [move(R1, R8), callKernel(release.typeId, release.module)];
}

function counted(
  counters: number,
  counter: (typeof COUNTERS)[number],
  at: (name: string) => string,
): Line[] {
  const done = at(`counted to a ${counter}`);
  return [
    storeNumber(32, FP, STACK.index, COUNTERS.indexOf(counter)),
    loadMap(R1, counters),
    move(R2, FP),
    alu('add', R2, STACK.index),
    callHelper(HELPER.mapLookup),
    jumpIf('eq', R0, 0, done),
    load(64, R1, R0, 0),
    alu('add', R1, 1),
    store(64, R0, 0, R1),
    label(done),
  ];
}

function oneHopLess(family: Family, done: string): Line[] {
  const hops = HEADER[family].hops;
  const less = [load(8, R1, R7, hops), alu('sub', R1, 1), store(8, R7, hops, R1)];
  if (family === 6) return less;
  return [
    ...less,
    // RFC 1624: the checksum grows by what the header has lost, with the carry added; as it stands in the packet.
    load(16, R1, R7, IPV4.checksum),
    alu('add', R1, 1),
    jumpIf('lt', R1, 0xffff, done),
    alu('add', R1, 1),
    label(done),
    store(16, R7, IPV4.checksum, R1),
  ];
}

/** Out by the link and to the neighbour that the routes say, if that is a link of the fabric. */
function toAnotherNode(
  { exits, counters }: FastPathFacts['maps'],
  family: Family,
  at: (name: string) => string,
): Line[] {
  const words = family === 4 ? 1 : 4;
  const copy = (from: number, to: number) =>
    Array.from({ length: words }, (_, i) => [
      load(32, R1, FP, STACK.tuple + from + i * 4),
      store(32, FP, STACK.fib + to + i * 4, R1),
    ]).flat();
  return [
    label(at('to another node')),
    ...Array.from({ length: FIB.bytes / 8 }, (_, i) => storeNumber(64, FP, STACK.fib + i * 8, 0)),
    storeNumber(8, FP, STACK.fib + FIB.family, AF[family]),
    load(32, R1, R6, SKB.ifindex),
    store(32, FP, STACK.fib + FIB.ifindex, R1),
    ...copy(0, FIB.src),
    ...copy(TUPLE[family].dst, FIB.dst),
    move(R1, R6),
    move(R2, FP),
    alu('add', R2, STACK.fib),
    set(R3, FIB.bytes),
    set(R4, 0),
    callHelper(HELPER.fibLookup),
    jumpIf('ne', R0, 0, 'long way'),
    loadMap(R1, exits),
    move(R2, FP),
    alu('add', R2, STACK.fib + FIB.ifindex),
    callHelper(HELPER.mapLookup),
    jumpIf('eq', R0, 0, 'long way'),
    ...counted(counters, 'node', at),
    ...oneHopLess(family, at('one hop less to another node')),
    load(16, R1, FP, STACK.fib + FIB.dstMac),
    store(16, R7, ETHERNET.dst, R1),
    load(32, R1, FP, STACK.fib + FIB.dstMac + 2),
    store(32, R7, ETHERNET.dst + 2, R1),
    load(32, R1, FP, STACK.fib + FIB.srcMac),
    store(32, R7, ETHERNET.src, R1),
    load(16, R1, FP, STACK.fib + FIB.srcMac + 4),
    store(16, R7, ETHERNET.src + 4, R1),
    load(32, R1, FP, STACK.fib + FIB.ifindex),
    set(R2, 0),
    callHelper(HELPER.redirect),
    exit(),
  ];
}
