/**
 * Queueing disciplines and the two filters that we need: `RTM_NEWQDISC`, `RTM_DELQDISC`, `RTM_GETQDISC`,
 * `RTM_NEWTFILTER`.
 *
 * ```text
 *  tcmsg  | family u8 | pad u8 u16 | ifindex i32 | handle u32 | parent u32 | info u32 |
 *  TCA_KIND "tbf"      TCA_OPTIONS { TCA_TBF_PARMS tc_tbf_qopt, TCA_TBF_RTAB 256 × u32, TCA_TBF_BURST u32, TCA_TBF_RATE64 }
 *  TCA_KIND "ingress"  handle ffff:, parent ffff:fff1
 *  TCA_KIND "clsact"   handle ffff:, parent ffff:fff1
 *  TCA_KIND "bpf"      parent ffff:fff2, TCA_OPTIONS { TCA_BPF_FD u32, TCA_BPF_NAME, TCA_BPF_FLAGS u32 }
 *  TCA_KIND "u32"      TCA_OPTIONS { TCA_U32_SEL: matches everything, TCA_U32_ACT { 1 { "mirred", redirect } } }
 *  tc_tbf_qopt  | rate tc_ratespec | peak tc_ratespec | limit u32 | buffer u32 | mtu u32 |
 *  tc_ratespec  | cell_log u8 | linklayer u8 | overhead u16 | cell_align i16 | mpu u16 | rate u32 |
 * ```
 * Times in `buffer` and in the rate table are in ticks of the packet scheduler: 64 ns (`PSCHED_SHIFT` 6), whatever
 * the machine. Sources: `include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h`, `include/uapi/linux/tc_act/tc_mirred.h`.
 */
import { readAttributes, readString } from '../netlink/reader.ts';
import type { NetlinkWriter } from '../netlink/writer.ts';
import { AF_UNSPEC } from './constants.ts';
import { expectHeader, readU32 } from './values.ts';

export const RTM_NEWQDISC = 36;
export const RTM_DELQDISC = 37;
export const RTM_GETQDISC = 38;
export const RTM_NEWTFILTER = 44;

export const TC_H_ROOT = 0xffffffff;
export const TC_H_INGRESS = 0xfffffff1;
/** `ffff:`, the handle that the discipline `ingress` always has. */
export const INGRESS_HANDLE = 0xffff0000;
/** `1:` */
export const TBF_HANDLE = 0x00010000;

const TCMSG_BYTES = 20;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_TBF_PARMS = 1;
const TCA_TBF_RTAB = 2;
const TCA_TBF_RATE64 = 4;
const TCA_TBF_BURST = 6;
const TBF_QOPT_BYTES = 36;

const TCA_BPF_FD = 6;
const TCA_BPF_NAME = 7;
const TCA_BPF_FLAGS = 8;
const TCA_BPF_FLAG_ACT_DIRECT = 1;
/** Of `clsact`, where packets come in. */
const TC_H_CLSACT_INGRESS = 0xfffffff2;

const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TC_U32_TERMINAL = 1;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;
/** `ETH_P_ALL`, as it stands in the lower half of a filter's `info`: network order. */
const ETH_P_ALL_BE = 0x0300;
const FILTER_PRIORITY = 1;

const NS_PER_TICK = 64n;
const NS_PER_SECOND = 1_000_000_000n;
const RATE_TABLE_SLOTS = 256;
const TC_LINKLAYER_ETHERNET = 1;
const U32_MAX = 0xffffffff;
/** The rate table need only cover what a device may send in one piece. */
const MAX_PACKET_BYTES = 65_536;

/** A token bucket filter. */
export interface TokenBucket {
  readonly rateBytesPerSecond: number;
  readonly burstBytes: number;
  /** Bytes that may wait; what comes beyond is dropped. */
  readonly limitBytes: number;
}

export interface QdiscMessage {
  readonly link: number;
  readonly handle: number;
  readonly parent: number;
  readonly kind: string;
  readonly tokenBucket: TokenBucket | undefined;
}

/** Payload of `RTM_NEWQDISC`: a token bucket at the root of a link. @param bucket whole numbers */
export function encodeTokenBucket(writer: NetlinkWriter, link: number, bucket: TokenBucket): void {
  const { rateBytesPerSecond: rate, burstBytes, limitBytes } = bucket;
  encodeHeader(writer, { link, handle: TBF_HANDLE, parent: TC_H_ROOT });
  writer.attributeString(TCA_KIND, 'tbf');
  writer.nested(TCA_OPTIONS, () => {
    const cellLog = cellLogOf(MAX_PACKET_BYTES);
    const start = writer.beginAttribute(TCA_TBF_PARMS);
    encodeRate(writer, rate, cellLog);
    encodeRate(writer, 0, 0);
    writer.u32(limitBytes);
    writer.u32(ticks(burstBytes, rate));
    writer.u32(0);
    writer.endAttribute(start);
    // The kernel counts by the two below; it asks for the table of old all the same.
    writer.attributeU32(TCA_TBF_BURST, burstBytes);
    if (rate > U32_MAX) writer.attributeU64(TCA_TBF_RATE64, BigInt(rate));
    const table = writer.beginAttribute(TCA_TBF_RTAB);
    for (let slot = 0; slot < RATE_TABLE_SLOTS; slot++)
      writer.u32(ticks((slot + 1) << cellLog, rate));
    writer.endAttribute(table);
  });
}

/** Payload of `RTM_NEWQDISC`: where what comes in by a link can be filtered. */
export function encodeIngress(writer: NetlinkWriter, link: number): void {
  encodeHeader(writer, { link, handle: INGRESS_HANDLE, parent: TC_H_INGRESS });
  writer.attributeString(TCA_KIND, 'ingress');
}

/** Payload of `RTM_NEWQDISC`: where what comes in by a link and leaves by it can be filtered. */
export function encodeClsact(writer: NetlinkWriter, link: number): void {
  encodeHeader(writer, { link, handle: INGRESS_HANDLE, parent: TC_H_INGRESS });
  writer.attributeString(TCA_KIND, 'clsact');
}

/** Payload of `RTM_NEWTFILTER`: an eBPF program on what comes in by the link. */
export function encodeBpfFilter(
  writer: NetlinkWriter,
  link: number,
  program: { readonly fd: number; readonly name: string },
): void {
  const info = ((FILTER_PRIORITY << 16) | ETH_P_ALL_BE) >>> 0;
  encodeHeader(writer, { link, handle: 1, parent: TC_H_CLSACT_INGRESS, info });
  writer.attributeString(TCA_KIND, 'bpf');
  writer.nested(TCA_OPTIONS, () => {
    writer.attributeU32(TCA_BPF_FD, program.fd);
    writer.attributeString(TCA_BPF_NAME, program.name);
    writer.attributeU32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
  });
}

/** Payload of `RTM_NEWTFILTER`: everything that comes in by one link leaves by the other. */
export function encodeRedirect(writer: NetlinkWriter, link: number, to: number): void {
  const info = ((FILTER_PRIORITY << 16) | ETH_P_ALL_BE) >>> 0;
  encodeHeader(writer, { link, handle: 0, parent: INGRESS_HANDLE, info });
  writer.attributeString(TCA_KIND, 'u32');
  writer.nested(TCA_OPTIONS, () => {
    const selector = writer.beginAttribute(TCA_U32_SEL);
    // tc_u32_sel with one key whose mask is 0: it matches every packet.
    writer.raw(Uint8Array.of(TC_U32_TERMINAL, 0, 1, 0));
    writer.raw(new Uint8Array(12 + 16));
    writer.endAttribute(selector);
    writer.nested(TCA_U32_ACT, () =>
      writer.nested(1, () => {
        writer.attributeString(TCA_ACT_KIND, 'mirred');
        writer.nested(TCA_ACT_OPTIONS, () => {
          const parms = writer.beginAttribute(TCA_MIRRED_PARMS);
          writer.u32(0);
          writer.u32(0);
          writer.u32(TC_ACT_STOLEN);
          writer.u32(0);
          writer.u32(0);
          writer.u32(TCA_EGRESS_REDIR);
          writer.u32(to);
          writer.endAttribute(parms);
        });
      }),
    );
  });
}

/** Payload of `RTM_DELQDISC`. @param parent `TC_H_ROOT` or `TC_H_INGRESS` */
export function encodeDeleteQdisc(writer: NetlinkWriter, link: number, parent: number): void {
  encodeHeader(writer, { link, handle: 0, parent });
}

/** Payload of a dump by `RTM_GETQDISC`: all disciplines of all links. */
export function encodeGetQdiscs(writer: NetlinkWriter): void {
  encodeHeader(writer, { link: 0, handle: 0, parent: 0 });
}

/** Reads the payload of `RTM_NEWQDISC`. @throws DecodeError */
export function decodeQdisc(payload: Buffer): QdiscMessage {
  expectHeader(payload, TCMSG_BYTES, 'tcmsg');
  const attributes = readAttributes(payload, TCMSG_BYTES);
  const kindName = attributes.get(TCA_KIND);
  const kind = kindName === undefined ? '' : readString(kindName);
  const options = attributes.get(TCA_OPTIONS);
  return {
    link: payload.readInt32LE(4),
    handle: payload.readUInt32LE(8),
    parent: payload.readUInt32LE(12),
    kind,
    tokenBucket: kind === 'tbf' && options !== undefined ? decodeTokenBucket(options) : undefined,
  };
}

function decodeTokenBucket(options: Buffer): TokenBucket | undefined {
  const attributes = readAttributes(options);
  const parms = attributes.get(TCA_TBF_PARMS);
  if (parms === undefined) return undefined;
  expectHeader(parms, TBF_QOPT_BYTES, 'tc_tbf_qopt');
  const rate64 = attributes.get(TCA_TBF_RATE64);
  const rate = rate64 === undefined ? parms.readUInt32LE(8) : Number(rate64.readBigUInt64LE(0));
  const burst = readU32(attributes.get(TCA_TBF_BURST), 'TCA_TBF_BURST');
  return {
    rateBytesPerSecond: rate,
    limitBytes: parms.readUInt32LE(24),
    // A dump tells the burst as time only.
    burstBytes: burst ?? Math.round(bytesIn(parms.readUInt32LE(28), rate)),
  };
}

function encodeHeader(
  writer: NetlinkWriter,
  header: { link: number; handle: number; parent: number; info?: number },
): void {
  writer.u8(AF_UNSPEC);
  writer.u8(0);
  writer.u16(0);
  writer.i32(header.link);
  writer.u32(header.handle);
  writer.u32(header.parent);
  writer.u32(header.info ?? 0);
}

function encodeRate(writer: NetlinkWriter, bytesPerSecond: number, cellLog: number): void {
  writer.u8(cellLog);
  writer.u8(bytesPerSecond === 0 ? 0 : TC_LINKLAYER_ETHERNET);
  writer.u16(0);
  writer.u16(bytesPerSecond === 0 ? 0 : 0xffff);
  writer.u16(0);
  writer.u32(Math.min(bytesPerSecond, U32_MAX));
}

/** Slot n of the rate table stands for packets of up to `(n + 1) << cellLog` bytes. */
function cellLogOf(bytes: number): number {
  let log = 0;
  while (bytes >> log > RATE_TABLE_SLOTS) log++;
  return log;
}

/** How long so many bytes take, in ticks of the scheduler. */
function ticks(bytes: number, bytesPerSecond: number): number {
  const value = (BigInt(bytes) * NS_PER_SECOND) / BigInt(bytesPerSecond) / NS_PER_TICK;
  return value > BigInt(U32_MAX) ? U32_MAX : Number(value);
}

function bytesIn(time: number, bytesPerSecond: number): number {
  return (time * Number(NS_PER_TICK) * bytesPerSecond) / Number(NS_PER_SECOND);
}
