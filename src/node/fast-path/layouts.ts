/**
 * What a program of the fast path has to know of the kernel by heart: how packets and the arguments of helpers lie in memory,
 * in little-endian order, and numbers of its enums. Sources: `include/uapi/linux/bpf.h`, `if_ether.h`, `ip.h`, `ipv6.h`,
 * `tcp.h`, `netfilter/nf_conntrack_common.h`; `net/netfilter/nf_conntrack_bpf.c`.
 */

/** Offsets in `struct __sk_buff`, the packet as programs see it. */
export const SKB = {
  packetType: 4,
  protocol: 16,
  vlanPresent: 20,
  ifindex: 40,
  data: 76,
  dataEnd: 80,
};
/** The packet is for this machine by its MAC. */
export const PACKET_HOST = 0;
/** EtherTypes as they stand in the packet. */
export const ETHER_TYPE = { 4: 0x0008, 6: 0xdd86 } as const;
export const ETHERNET = { dst: 0, src: 6, bytes: 14 };
/** Offsets from the beginning of the frame. */
export const HEADER = {
  4: { hops: 22, protocol: 23, src: 26, dst: 30, ports: 34 },
  6: { hops: 21, protocol: 20, src: 22, dst: 38, ports: 54 },
} as const;
export const IPV4 = { versionAndLength: 14, fragment: 20, checksum: 24, noOptions: 0x45 };
/** "More fragments" and the offset, as they stand in the packet. */
export const IS_FRAGMENT = 0xff3f;
export const IPPROTO = { tcp: 6, udp: 17 };
export const UDP_BYTES = 8;
export const TCP = { bytes: 20, flags: 13, finSynRst: 0x07 };
/** `struct bpf_sock_tuple`. */
export const TUPLE = {
  4: { dst: 4, ports: 8, bytes: 12 },
  6: { dst: 16, ports: 32, bytes: 36 },
} as const;
/** `struct bpf_ct_opts` as all kernels know it. */
export const OPTIONS = { netns: 0, error: 4, protocol: 8, bytes: 12 };
export const CURRENT_NETNS = -1;
/** `struct bpf_fib_lookup`. */
export const FIB = {
  family: 0,
  protocol: 1,
  ports: 2,
  length: 6,
  ifindex: 8,
  flow: 12,
  src: 16,
  dst: 32,
  rest: 48,
  srcMac: 52,
  dstMac: 58,
  bytes: 64,
};
export const AF = { 4: 2, 6: 10 } as const;
/** `enum bpf_func_id`. */
export const HELPER = {
  mapLookup: 1,
  random: 7,
  redirect: 23,
  fibLookup: 69,
  redirectPeer: 155,
  coarseTime: 160,
};
/** `enum ip_conntrack_status`, bits. */
export const STATUS = {
  seenReply: 1 << 1,
  assured: 1 << 2,
  confirmed: 1 << 3,
  srcNat: 1 << 4,
  dstNat: 1 << 5,
  sequenceAdjust: 1 << 6,
  dying: 1 << 9,
  fixedTimeout: 1 << 10,
  helper: 1 << 13,
  offload: 1 << 14,
};
